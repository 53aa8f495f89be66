//! Sub-agents: what is reported of them, how they end, what they can't hold up.

use std::time::Duration;

use cutpoint_protocol::compose::ItemContent;
use cutpoint_protocol::session::{AbortReason, Decision, EventMsg, Op, SubAgentEnd};

use super::support::{Client, Reply, Rig, ToolStep, is_aborted};

/// A reply with one call of a tool that has to do with sub-agents.
pub(super) fn tool(id: &str, call_id: &str, name: &str, arguments: &str) -> Reply {
    let call = ItemContent::Function {
        call_id,
        name,
        arguments,
        chunks: 1,
    };
    Reply::compose(id, &[call])
}

pub(super) fn delegate() -> Reply {
    tool("r1", "c1", "delegate", r#"{"task":"look"}"#)
}

pub(super) fn is_sub_delta(msg: &EventMsg) -> bool {
    let EventMsg::SubAgentEvent { msg, .. } = msg else {
        return false;
    };
    matches!(**msg, EventMsg::AgentMessageDelta { .. })
}

pub(super) fn ends(events: &[EventMsg]) -> Vec<SubAgentEnd> {
    let end = |msg: &EventMsg| match msg {
        EventMsg::SubAgentEnded { end, .. } => Some(*end),
        _ => None,
    };
    events.iter().filter_map(end).collect()
}

/// Everything up to the end of the turn.
pub(super) async fn whole(client: &mut Client) -> Vec<EventMsg> {
    let events = client.until(EventMsg::is_terminal).await;
    events.into_iter().map(|event| event.msg).collect()
}

#[tokio::test(start_paused = true)]
async fn a_delegate_does_its_task_and_ends() {
    let replies = vec![
        delegate(),
        Reply::text("s1", "found"),
        Reply::text("r2", "ok"),
    ];
    let rig = Rig::new(replies, vec![]);
    let mut client = rig.start().await;
    client.user("go").await;
    let events = whole(&mut client).await;
    assert_eq!(ends(&events), [SubAgentEnd::Complete]);
    let started = events.iter().find_map(|msg| match msg {
        EventMsg::SubAgentStarted {
            task,
            one_shot,
            agent_id,
            ..
        } => Some((task.as_str(), *one_shot, agent_id.clone())),
        _ => None,
    });
    let (task, one_shot, id) = started.unwrap();
    assert_eq!((task, one_shot), ("look", true));
    assert_ne!(id, *client.session.session_id());
    let forwarded: Vec<&EventMsg> = events
        .iter()
        .filter_map(|msg| match msg {
            EventMsg::SubAgentEvent { msg, .. } => Some(msg.as_ref()),
            _ => None,
        })
        .collect();
    assert!(matches!(forwarded[0], EventMsg::TurnStarted { .. }));
    assert!(matches!(
        forwarded.last(),
        Some(EventMsg::TurnComplete { .. })
    ));
    let internal = |msg: &&&EventMsg| {
        matches!(
            msg,
            EventMsg::TokenCount { .. } | EventMsg::SessionConfigured { .. }
        )
    };
    assert_eq!(forwarded.iter().filter(internal).count(), 0);
    assert_eq!(rig.request(1).outline(), ["u:look"]);
    assert_eq!(rig.request(2).output("c1"), "found");
}

#[tokio::test(start_paused = true)]
async fn a_sub_agent_can_start_no_other() {
    let nested = tool("s1", "s1", "delegate", r#"{"task":"deeper"}"#);
    let replies = vec![
        delegate(),
        nested,
        Reply::text("s2", "no"),
        Reply::text("r2", "ok"),
    ];
    let rig = Rig::new(replies, vec![]);
    let mut client = rig.start().await;
    client.user("go").await;
    let events = whole(&mut client).await;
    assert_eq!(ends(&events).len(), 1);
    assert!(rig.request(2).output("s1").contains("can't start"));
    let tools = |at: usize| rig.request(at).body()["tools"].to_string();
    assert!(tools(0).contains("spawn_agent") && !tools(1).contains("spawn_agent"));
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_ends_the_sub_agent_first() {
    let stuck = Reply::shell("s1", &["s1"]);
    let replies = vec![delegate(), stuck, Reply::text("r2", "ok")];
    let rig = Rig::new(replies, vec![vec![ToolStep::Hang]]);
    let mut client = rig.start().await;
    client.user("go").await;
    let begins = |msg: &EventMsg| match msg {
        EventMsg::SubAgentEvent { msg, .. } => {
            matches!(**msg, EventMsg::ExecCommandBegin { .. })
        }
        _ => false,
    };
    client.until(begins).await;
    assert_eq!(rig.tools.alive(), 1);
    client.interrupt().await;
    let events = whole(&mut client).await;
    assert_eq!(ends(&events), [SubAgentEnd::Closed]);
    assert!(is_aborted(events.last().unwrap(), AbortReason::Interrupted));
    assert_eq!(rig.tools.alive(), 0);
    client.user("next").await;
    client.end().await;
    assert!(rig.request(2).output("c1").contains("aborted while it ran"));
    assert_eq!(rig.requests(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_a_sub_agent_asks_is_asked_under_the_turn() {
    let replies = vec![
        delegate(),
        Reply::asking("s1", &[("s1", "run"), ("s2", "run")]),
        Reply::text("s2", "found"),
        Reply::text("r2", "ok"),
    ];
    let tool = vec![ToolStep::Print("done"), ToolStep::Exit(0)];
    let rig = Rig::new(replies, vec![tool]);
    let mut client = rig.start().await;
    client.user("go").await;
    let is_second = |msg: &EventMsg| matches!(msg, EventMsg::ExecApprovalRequest { call_id, .. } if call_id == "s2");
    let events = client.until(is_second).await;
    let started = events.iter().find_map(|event| match &event.msg {
        EventMsg::TurnStarted { turn_id } => Some(turn_id.as_str()),
        _ => None,
    });
    assert_eq!(
        events.last().unwrap().msg.turn_id().map(|id| id.as_str()),
        started
    );
    for (call_id, decision) in [("s2", Decision::Approved), ("s1", Decision::Denied)] {
        let call_id = call_id.to_owned();
        let call_id = call_id.into();
        client.submit(Op::ExecApproval { call_id, decision }).await;
    }
    client.end().await;
    let request = rig.request(2);
    assert!(request.output("s1").contains("did not allow"));
    assert!(request.output("s2").contains("done"));
}

#[tokio::test(start_paused = true)]
async fn an_agent_is_spoken_to_until_it_is_closed() {
    let to = |call: &str, name: &str| tool("r", call, name, r#"{"agent_id":"c1"}"#);
    let send = r#"{"agent_id":"c1","message":"and behind it?"}"#;
    let replies = vec![
        tool("r", "c1", "spawn_agent", r#"{"task":"look"}"#),
        to("c2", "wait_agent"),
        tool("r", "c3", "send_input", send),
        to("c4", "wait_agent"),
        to("c5", "close_agent"),
        tool("r", "c6", "send_input", send),
        tool("r", "c7", "wait_agent", r#"{"agent_id":"nobody"}"#),
        Reply::text("r", "ok"),
    ];
    let rig = Rig::new(replies, vec![]);
    let answers = vec![Reply::text("s1", "a door"), Reply::text("s2", "a wall")];
    rig.model.aside("look", answers);
    let mut client = rig.start().await;
    client.user("go").await;
    let events = whole(&mut client).await;
    assert!(matches!(events.last(), Some(EventMsg::TurnComplete { .. })));
    assert_eq!(ends(&events), [SubAgentEnd::Closed]);
    let last = rig.request(rig.requests() - 1);
    for (call, said) in [
        ("c1", "agent_id"),
        ("c2", "a door"),
        ("c4", "a wall"),
        ("c5", "has ended"),
        ("c6", "takes no input"),
        ("c7", "no agent `nobody`"),
    ] {
        let output = last.output(call);
        assert!(output.contains(said), "{call}: {output}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_at_work_ends_with_the_turn() {
    let spawn = tool("r1", "c1", "spawn_agent", r#"{"task":"look"}"#);
    let rig = Rig::new(vec![spawn, Reply::text("r2", "ok")], vec![]);
    let stuck = Reply::text("s1", "found").hang_after("response.output_text.delta", 1);
    rig.model.aside("look", vec![stuck]);
    let mut client = rig.start().await;
    client.user("go").await;
    let events = whole(&mut client).await;
    assert!(matches!(events.last(), Some(EventMsg::TurnComplete { .. })));
    assert_eq!(ends(&events), [SubAgentEnd::Closed]);
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_does_not_wait_for_a_client_that_does_not_read() {
    let long = "x".repeat(300);
    let text = ItemContent::Text {
        text: &long,
        chunks: 300,
    };
    let stuck = Reply::compose("s1", &[text]).hang_after("response.output_text.done", 1);
    let mut rig = Rig::new(vec![delegate(), stuck, Reply::text("r2", "ok")], vec![]);
    rig.config.event_queue = 16;
    let mut client = rig.start().await;
    client.user("go").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    client.interrupt().await;
    let mut closed = rig.model.closed.subscribe();
    let both = closed.wait_for(|closed| *closed == 2);
    let closed = tokio::time::timeout(Duration::from_millis(600), both).await;
    assert!(closed.is_ok(), "the streams were not closed");
    let events = whole(&mut client).await;
    assert_eq!(ends(&events), [SubAgentEnd::Closed]);
}

#[tokio::test(start_paused = true)]
async fn a_sub_agent_that_does_not_shut_down_is_ended() {
    let stuck = Reply::text("s1", "found").hang_after("response.output_text.delta", 1);
    let rig = Rig::new(vec![delegate(), stuck, Reply::text("r2", "ok")], vec![]);
    let mut client = rig.start().await;
    client.user("go").await;
    client.until(is_sub_delta).await;
    let _held = rig.hold("shutdown.flush");
    let before = tokio::time::Instant::now();
    client.interrupt().await;
    let events = whole(&mut client).await;
    assert_eq!(ends(&events), [SubAgentEnd::Killed]);
    let took = before.elapsed();
    assert!((500..=700).contains(&took.as_millis()), "{took:?}");
    client.user("next").await;
    assert!(matches!(client.end().await, EventMsg::TurnComplete { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_review_leaves_its_findings() {
    let replies = vec![
        Reply::text("s1", "It lacks a test."),
        Reply::text("r1", "ok"),
    ];
    let rig = Rig::new(replies, vec![]);
    let mut client = rig.start().await;
    let prompt = "look at it".to_owned();
    client.submit(Op::Review { prompt }).await;
    let end = client.end().await;
    assert!(
        matches!(&end, EventMsg::TurnComplete { last_agent_message: Some(text), .. } if text == "It lacks a test."),
        "{end:?}"
    );
    client.user("next").await;
    client.end().await;
    let outline = rig.request(1).outline();
    assert!(outline[0].contains("The user asked for a review"));
    assert_eq!(outline[1..], ["a:It lacks a test.", "u:next"]);
}

#[tokio::test(start_paused = true)]
async fn a_review_that_fails_fails_its_turn() {
    let rig = Rig::new(vec![], vec![]);
    let mut client = rig.start().await;
    let prompt = "look at it".to_owned();
    client.submit(Op::Review { prompt }).await;
    let end = client.end().await;
    assert!(matches!(&end, EventMsg::TurnFailed { message, .. } if message.contains("review")));
}
