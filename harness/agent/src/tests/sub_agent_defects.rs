//! One test per planted defect of sub-agents: that it shows.

use std::time::Duration;

use cutpoint_protocol::compose::ItemContent;
use cutpoint_protocol::session::{AbortReason, Decision, EventMsg, Op};

use super::sub_agents::{delegate, ends, is_sub_delta, tool, whole};
use super::support::{Client, Reply, Rig, ToolStep, is_aborted};
use crate::Defect;

/// Longer than anything takes that a sub-agent does; the clock is paused.
const LONG: Duration = Duration::from_secs(60);

/// A delegate whose answer hangs.
async fn stuck(defect: Defect) -> (Rig, Client) {
    let stuck = Reply::text("s1", "found").hang_after("response.output_text.delta", 1);
    let rig = Rig::new(vec![delegate(), stuck, Reply::text("r2", "ok")], vec![]).with(defect);
    let mut client = rig.start().await;
    client.user("go").await;
    client.until(is_sub_delta).await;
    (rig, client)
}

#[tokio::test(start_paused = true)]
async fn sub_agent_outlives() {
    let (rig, mut client) = stuck(Defect::SubAgentOutlives).await;
    client.interrupt().await;
    let events = whole(&mut client).await;
    assert_eq!(ends(&events), []);
    tokio::time::sleep(LONG).await;
    assert_eq!(*rig.model.closed.borrow(), 1, "the stream is open");
}

#[tokio::test(start_paused = true)]
async fn close_waits() {
    let (rig, mut client) = stuck(Defect::CloseWaits).await;
    let _held = rig.hold("shutdown.flush");
    client.interrupt().await;
    let end = tokio::time::timeout(LONG, client.events.recv()).await;
    assert!(end.is_err(), "the abort did not wait");
}

#[tokio::test(start_paused = true)]
async fn close_ends_parent() {
    let replies = vec![
        tool("r1", "c1", "spawn_agent", r#"{"task":"look"}"#),
        tool("r2", "c2", "close_agent", r#"{"agent_id":"c1"}"#),
    ];
    let rig = Rig::new(replies, vec![]).with(Defect::CloseEndsParent);
    rig.model.aside("look", vec![Reply::Silence]);
    let mut client = rig.start().await;
    client.user("go").await;
    assert!(is_aborted(&client.end().await, AbortReason::Interrupted));
}

/// A delegate with two commands that wait for approval.
async fn asking(defect: Defect) -> (Rig, Client, Vec<EventMsg>) {
    let asking = Reply::asking("s1", &[("s1", "one"), ("s2", "two")]);
    let rig = Rig::new(vec![delegate(), asking], vec![vec![ToolStep::Hang]]).with(defect);
    let mut client = rig.start().await;
    client.user("go").await;
    let is_second = |msg: &EventMsg| matches!(msg, EventMsg::ExecApprovalRequest { call_id, .. } if call_id == "s2");
    let events = client.until(is_second).await;
    let events = events.into_iter().map(|event| event.msg).collect();
    (rig, client, events)
}

#[tokio::test(start_paused = true)]
async fn sub_approval_forwarded() {
    let (_rig, _client, events) = asking(Defect::SubApprovalForwarded).await;
    let forwarded = |msg: &&EventMsg| match msg {
        EventMsg::SubAgentEvent { msg, .. } => {
            matches!(**msg, EventMsg::ExecApprovalRequest { .. })
        }
        _ => false,
    };
    assert!(events.iter().any(|msg| forwarded(&msg)), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn decision_misdirected() {
    let (rig, mut client, _) = asking(Defect::DecisionMisdirected).await;
    let (call_id, decision) = ("s2".to_owned(), Decision::Approved);
    let call_id = call_id.into();
    client.submit(Op::ExecApproval { call_id, decision }).await;
    tokio::time::sleep(LONG).await;
    let ran = crate::lock(&rig.tools.commands)[0].argv.clone();
    assert_eq!(ran, ["one"]);
}

#[tokio::test(start_paused = true)]
async fn forward_ignores_cancel() {
    let long = "x".repeat(300);
    let text = ItemContent::Text {
        text: &long,
        chunks: 300,
    };
    let stuck = Reply::compose("s1", &[text]).hang_after("response.output_text.done", 1);
    let mut rig = Rig::new(vec![delegate(), stuck], vec![]).with(Defect::ForwardIgnoresCancel);
    rig.config.event_queue = 16;
    let mut client = rig.start().await;
    client.user("go").await;
    tokio::time::sleep(LONG).await;
    client.interrupt().await;
    tokio::time::sleep(LONG).await;
    assert_eq!(*rig.model.closed.borrow(), 1, "the stream is open");
}

#[tokio::test(start_paused = true)]
async fn one_shot_lingers() {
    let gate = tokio::sync::watch::channel(false);
    let slow = Reply::text("r2", "ok").gated("response.created", 1, gate.1);
    let rig = Rig::new(vec![delegate(), slow], vec![]).with(Defect::OneShotLingers);
    rig.model.aside("look", vec![Reply::text("s1", "found")]);
    let mut client = rig.start().await;
    client.user("go").await;
    let quiet = async {
        client
            .until(|msg| matches!(msg, EventMsg::SubAgentEnded { .. }))
            .await
    };
    let ended = tokio::time::timeout(LONG, quiet).await;
    assert!(ended.is_err(), "it has ended");
}

#[tokio::test(start_paused = true)]
async fn one_shot_takes_input() {
    let send = r#"{"agent_id":"c1","message":"and more?"}"#;
    let replies = vec![
        delegate(),
        tool("r2", "c2", "send_input", send),
        tool("r3", "c3", "wait_agent", r#"{"agent_id":"c1"}"#),
        Reply::text("r4", "ok"),
    ];
    let rig = Rig::new(replies, vec![]).with(Defect::OneShotTakesInput);
    let answers = vec![Reply::text("s1", "found"), Reply::text("s2", "more")];
    rig.model.aside("look", answers);
    let mut client = rig.start().await;
    client.user("go").await;
    client.end().await;
    let last = rig.request(rig.requests() - 1);
    assert!(
        last.output("c2").contains("has it"),
        "{}",
        last.output("c2")
    );
}

#[tokio::test(start_paused = true)]
async fn review_ignores_interrupt() {
    let stuck = Reply::text("s1", "found").hang_after("response.output_text.delta", 1);
    let rig = Rig::new(vec![stuck], vec![]).with(Defect::ReviewIgnoresInterrupt);
    let mut client = rig.start().await;
    let prompt = "look".to_owned();
    client.submit(Op::Review { prompt }).await;
    client.until(is_sub_delta).await;
    client.interrupt().await;
    assert_eq!(client.rest().await, []);
}
