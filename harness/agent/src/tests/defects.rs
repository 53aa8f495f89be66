//! One test per planted defect: that it shows.

use std::time::Duration;

use cutpoint_protocol::pairing::PairingFault;
use cutpoint_protocol::rollout::RolloutLine;
use cutpoint_protocol::session::{AbortReason, Decision, EventMsg, Op};
use tokio::sync::watch;

use super::support::{Client, Entry, Reply, Rig, ToolStep, aborts, is_aborted};
use crate::{Defect, lock};

/// What an interrupt of a turn with a running tool left behind.
pub(super) struct Aftermath {
    pub(super) rig: Rig,
    pub(super) client: Client,
    pub(super) events: Vec<EventMsg>,
}

/// Text is shown, a tool prints and runs on, the turn is interrupted.
pub(super) async fn interrupted_tool(defect: Defect) -> Aftermath {
    let tool = vec![ToolStep::Print("half"), ToolStep::Hang];
    let replies = vec![
        Reply::shell("r1", &["c1"]),
        Reply::text("r2", "ok"),
        Reply::text("r3", "ok"),
    ];
    let rig = Rig::new(replies, vec![tool]).with(defect);
    let mut client = rig.start().await;
    client.user("go").await;
    client
        .until(|msg| matches!(msg, EventMsg::ExecCommandOutputDelta { .. }))
        .await;
    client.interrupt().await;
    let events = client.rest().await;
    Aftermath {
        rig,
        client,
        events,
    }
}

impl Aftermath {
    pub(super) async fn next_turn(&mut self) -> super::support::Request {
        let at = self.rig.requests();
        self.client.user("next").await;
        self.client.end().await;
        self.rig.request(at)
    }

    pub(super) fn rollout(&self) -> String {
        let content = self.rig.store.content(self.client.session.rollout_path());
        String::from_utf8(content).unwrap()
    }

    fn lines(&self) -> Vec<RolloutLine> {
        self.rig.store.lines(self.client.session.rollout_path())
    }
}

#[tokio::test(start_paused = true)]
async fn forget_output() {
    let request = interrupted_tool(Defect::ForgetOutput)
        .await
        .next_turn()
        .await;
    assert!(matches!(
        request.faults()[..],
        [PairingFault::Unanswered { .. }]
    ));
}

#[tokio::test(start_paused = true)]
async fn orphan_output() {
    let request = interrupted_tool(Defect::OrphanOutput)
        .await
        .next_turn()
        .await;
    assert!(matches!(
        request.faults()[..],
        [PairingFault::Orphan { .. }]
    ));
}

#[tokio::test(start_paused = true)]
async fn claims_success() {
    let request = interrupted_tool(Defect::ClaimsSuccess)
        .await
        .next_turn()
        .await;
    assert!(request.output("c1").contains("completed, exit code 0"));
}

#[tokio::test(start_paused = true)]
async fn executed_call_vanishes() {
    let request = interrupted_tool(Defect::ExecutedCallVanishes)
        .await
        .next_turn()
        .await;
    assert_eq!(request.outline(), ["u:go", "marker", "u:next"]);
}

#[tokio::test(start_paused = true)]
async fn half_call_invented() {
    let first = Reply::shell("r1", &["c1"]).hang_after("response.function_call_arguments.delta", 1);
    let rig = Rig::new(vec![first, Reply::text("r2", "ok")], vec![]).with(Defect::HalfCallInvented);
    let mut client = rig.start().await;
    client.user("go").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.interrupt().await;
    client.end().await;
    client.user("next").await;
    client.end().await;
    assert_eq!(
        rig.request(1).outline(),
        ["u:go", "c:c1", "o:c1", "marker", "u:next"]
    );
    assert_eq!(
        rig.request(1).items()[1].text("arguments"),
        Some(r#"{"command"#)
    );
}

#[tokio::test(start_paused = true)]
async fn partial_output_lost() {
    let request = interrupted_tool(Defect::PartialOutputLost)
        .await
        .next_turn()
        .await;
    assert!(!request.output("c1").contains("half"));
}

#[tokio::test(start_paused = true)]
async fn no_recovery() {
    let rig = Rig::new(vec![Reply::misses("c1"), Reply::text("r2", "ok")], vec![])
        .with(Defect::NoRecovery);
    let mut client = rig.start().await;
    client.user("go").await;
    assert!(matches!(client.end().await, EventMsg::TurnFailed { .. }));
    assert_eq!(rig.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn debt_settled_on_send() {
    let mut aftermath = interrupted_tool(Defect::DebtSettledOnSend).await;
    let replies = [Reply::status(503), Reply::text("r2", "ok")];
    aftermath.rig.model.replace(replies.to_vec());
    assert_eq!(aftermath.next_turn().await.faults(), []);
    assert!(matches!(
        aftermath.rig.request(2).faults()[..],
        [PairingFault::Unanswered { .. }]
    ));
}

#[tokio::test(start_paused = true)]
async fn message_vanishes() {
    let first = Reply::text("r1", "hello").hang_after("response.output_item.done", 1);
    let rig = Rig::new(vec![first, Reply::text("r2", "ok")], vec![]).with(Defect::MessageVanishes);
    let mut client = rig.start().await;
    client.user("hi").await;
    client
        .until(|msg| matches!(msg, EventMsg::AgentMessage { .. }))
        .await;
    client.interrupt().await;
    client.end().await;
    client.user("next").await;
    client.end().await;
    assert_eq!(rig.request(1).outline(), ["u:hi", "marker", "u:next"]);
}

#[tokio::test(start_paused = true)]
async fn terminal_twice() {
    assert_eq!(
        aborts(&interrupted_tool(Defect::TerminalTwice).await.events),
        2
    );
}

#[tokio::test(start_paused = true)]
async fn interrupt_lost_at_start() {
    let rig = Rig::new(vec![Reply::text("r1", "ok")], vec![]).with(Defect::InterruptLostAtStart);
    let mut client = rig.start().await;
    client.user("go").await;
    client.interrupt().await;
    assert!(matches!(client.end().await, EventMsg::TurnComplete { .. }));
}

#[tokio::test(start_paused = true)]
async fn replaced_silently() {
    let rig = Rig::new(vec![Reply::Silence, Reply::text("r2", "ok")], vec![])
        .with(Defect::ReplacedSilently);
    let mut client = rig.start().await;
    client.user("go").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.replace("other").await;
    assert!(matches!(client.end().await, EventMsg::TurnComplete { .. }));
}

#[tokio::test(start_paused = true)]
async fn late_delta() {
    let events = interrupted_tool(Defect::LateDelta).await.events;
    assert!(matches!(
        events.last(),
        Some(EventMsg::AgentMessageDelta { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn idle_interrupt_aborts() {
    let rig = Rig::new(vec![Reply::text("r1", "ok")], vec![]).with(Defect::IdleInterruptAborts);
    let mut client = rig.start().await;
    client.user("go").await;
    client.end().await;
    client.interrupt().await;
    assert_eq!(aborts(&client.rest().await), 1);
}

#[tokio::test(start_paused = true)]
async fn abort_twice() {
    let mut aftermath = interrupted_tool(Defect::AbortTwice).await;
    assert_eq!(aborts(&aftermath.events), 1);
    aftermath.client.interrupt().await;
    assert_eq!(aborts(&aftermath.client.rest().await), 1);
    aftermath.client.interrupt().await;
    assert_eq!(aborts(&aftermath.client.rest().await), 0);
}

#[tokio::test(start_paused = true)]
async fn wrong_turn_id() {
    let events = interrupted_tool(Defect::WrongTurnId).await.events;
    let ids: Vec<_> = events.iter().filter_map(EventMsg::turn_id).collect();
    assert_ne!(ids.first(), ids.last());
}

#[tokio::test(start_paused = true)]
async fn marker_after_event() {
    let aftermath = interrupted_tool(Defect::MarkerAfterEvent).await;
    let log = lock(&aftermath.rig.log).clone();
    let marker = log
        .iter()
        .position(|it| matches!(it, Entry::Write(text) if text.contains("<turn_aborted>")));
    let event = log
        .iter()
        .position(|it| matches!(it, Entry::Emit(msg) if msg.is_terminal()));
    assert!(event.unwrap() < marker.unwrap());
}

#[tokio::test(start_paused = true)]
async fn no_sync() {
    let aftermath = interrupted_tool(Defect::NoSync).await;
    assert!(!lock(&aftermath.rig.log).contains(&Entry::Sync));
}

#[tokio::test(start_paused = true)]
async fn markers_in_the_wrong_place() {
    for (defect, wanted) in [
        (
            Defect::MarkerMissing,
            vec!["u:go", "c:c1", "o:c1", "u:next"],
        ),
        (
            Defect::MarkerTwice,
            vec!["u:go", "c:c1", "o:c1", "marker", "marker", "u:next"],
        ),
        (
            Defect::MarkerBehindInput,
            vec!["u:go", "c:c1", "o:c1", "u:next", "marker"],
        ),
    ] {
        let mut aftermath = interrupted_tool(defect).await;
        assert!(aftermath.rollout().contains("<turn_aborted>"));
        assert_eq!(aftermath.next_turn().await.outline(), wanted);
    }
}

#[tokio::test(start_paused = true)]
async fn marker_on_replace() {
    let rig = Rig::new(vec![Reply::Silence, Reply::text("r2", "ok")], vec![])
        .with(Defect::MarkerOnReplace);
    let mut client = rig.start().await;
    client.user("go").await;
    client
        .until(|msg| matches!(msg, EventMsg::TurnStarted { .. }))
        .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.replace("other").await;
    assert!(is_aborted(&client.end().await, AbortReason::Replaced));
    client.end().await;
    assert_eq!(rig.request(1).outline(), ["u:go", "marker", "u:other"]);
}

#[tokio::test(start_paused = true)]
async fn marker_on_idle() {
    let rig = Rig::new(vec![Reply::text("r1", "ok")], vec![]).with(Defect::MarkerOnIdle);
    let mut client = rig.start().await;
    client.interrupt().await;
    client.user("go").await;
    client.end().await;
    assert_eq!(rig.request(0).outline(), ["marker", "u:go"]);
}

#[tokio::test(start_paused = true)]
async fn torn_line() {
    let rollout = interrupted_tool(Defect::TornLine).await.rollout();
    let torn = rollout
        .lines()
        .filter(|line| RolloutLine::parse(line).is_err());
    assert_eq!(torn.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn rewrites_rollout() {
    let aftermath = interrupted_tool(Defect::RewritesRollout).await;
    assert!(
        aftermath
            .lines()
            .iter()
            .all(|line| line.timestamp.starts_with("1970"))
    );
}

#[tokio::test(start_paused = true)]
async fn ordinal_skips() {
    let lines = interrupted_tool(Defect::OrdinalSkips).await.lines();
    let last = lines.last().unwrap().ordinal.unwrap();
    assert_eq!(last, lines.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn terminal_line_missing() {
    let aftermath = interrupted_tool(Defect::TerminalLineMissing).await;
    assert!(!aftermath.rollout().contains(r#""type":"turn_aborted""#));
}

#[tokio::test(start_paused = true)]
async fn resumed_as_complete() {
    let mut rig = Rig::new(vec![Reply::Silence], vec![]).with(Defect::ResumedAsComplete);
    let mut client = rig.start().await;
    client.user("go").await;
    client.next().await;
    let path = client.session.rollout_path().to_owned();
    client.session.kill();
    rig.resume(path.clone()).await.shutdown().await;
    assert_eq!(rig.store.outline(&path).last().unwrap(), "turn_complete");
}

#[tokio::test(start_paused = true)]
async fn request_after_abort() {
    let aftermath = interrupted_tool(Defect::RequestAfterAbort).await;
    assert_eq!(aftermath.rig.requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn request_on_resume() {
    let mut rig = Rig::new(vec![], vec![]).with(Defect::RequestOnResume);
    let client = rig.start().await;
    let path = client.session.rollout_path().to_owned();
    client.shutdown().await;
    rig.resume(path).await.shutdown().await;
    assert_eq!(rig.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn steer_lost() {
    let (open, gate) = watch::channel(false);
    let first = Reply::text("r1", "hello").gated("response.output_text.delta", 1, gate);
    let rig = Rig::new(vec![first, Reply::text("r2", "ok")], vec![]).with(Defect::SteerLost);
    let mut client = rig.start().await;
    client.user("hi").await;
    client.delta().await;
    client.user("steer").await;
    client.rest().await;
    open.send_replace(true);
    client.end().await;
    client.user("next").await;
    client.end().await;
    assert_eq!(rig.request(1).outline(), ["u:hi", "a:hello", "u:next"]);
}

#[tokio::test(start_paused = true)]
async fn stale_turn_header() {
    let mut aftermath = interrupted_tool(Defect::StaleTurnHeader).await;
    aftermath.next_turn().await;
    let requests = lock(&aftermath.rig.model.requests);
    assert!(
        requests[1]
            .headers
            .iter()
            .any(|(name, _)| *name == cutpoint_protocol::headers::TURN_STATE)
    );
}

#[tokio::test(start_paused = true)]
async fn tool_survives() {
    assert_eq!(
        interrupted_tool(Defect::ToolSurvives)
            .await
            .rig
            .tools
            .alive(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn shown_text_lost() {
    let first = Reply::text("r1", "hello").hang_after("response.output_text.delta", 1);
    let rig = Rig::new(vec![first, Reply::text("r2", "ok")], vec![]).with(Defect::ShownTextLost);
    let mut client = rig.start().await;
    client.user("hi").await;
    client.delta().await;
    client.interrupt().await;
    client.end().await;
    client.user("next").await;
    client.end().await;
    assert_eq!(rig.request(1).outline(), ["u:hi", "marker", "u:next"]);
}

/// A call waits for approval.
pub(super) async fn asked(defect: Defect, replies: Vec<Reply>) -> (Rig, Client) {
    let rig = Rig::new(replies, vec![vec![ToolStep::Exit(0)]]).with(defect);
    let mut client = rig.start().await;
    client.user("go").await;
    client
        .until(|msg| matches!(msg, EventMsg::ExecApprovalRequest { .. }))
        .await;
    (rig, client)
}

pub(super) async fn decide(client: &mut Client, decision: Decision) {
    let call_id = "c1".to_owned();
    let call_id = call_id.into();
    client.submit(Op::ExecApproval { call_id, decision }).await;
}

#[tokio::test(start_paused = true)]
async fn approval_cleared_first() {
    let replies = vec![
        Reply::asking("r1", &[("c1", "run")]),
        Reply::Silence,
        Reply::text("r2", "ok"),
    ];
    let (rig, mut client) = asked(Defect::ApprovalClearedFirst, replies).await;
    client.interrupt().await;
    assert!(is_aborted(&client.end().await, AbortReason::Interrupted));
    let output = rig.request(1).output("c1");
    assert!(output.contains("did not allow"), "{output}");
}

#[tokio::test(start_paused = true)]
async fn approval_survives() {
    let replies = vec![Reply::asking("r1", &[("c1", "run")])];
    let (rig, mut client) = asked(Defect::ApprovalSurvives, replies).await;
    client.interrupt().await;
    client.end().await;
    decide(&mut client, Decision::Approved).await;
    client.begin_of_tool().await;
    assert_eq!(lock(&rig.tools.commands).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn abort_is_denial() {
    let replies = vec![
        Reply::asking("r1", &[("c1", "run")]),
        Reply::text("r2", "ok"),
    ];
    let (rig, mut client) = asked(Defect::AbortIsDenial, replies).await;
    decide(&mut client, Decision::Abort).await;
    assert!(matches!(client.end().await, EventMsg::TurnComplete { .. }));
    assert!(rig.request(1).output("c1").contains("did not allow"));
}

#[tokio::test(start_paused = true)]
async fn abort_waits_for_tool() {
    let (open, gate) = watch::channel(false);
    let tool = vec![ToolStep::Gate(gate), ToolStep::Exit(0)];
    let rig =
        Rig::new(vec![Reply::shell("r1", &["c1"])], vec![tool]).with(Defect::AbortWaitsForTool);
    let mut client = rig.start().await;
    client.user("go").await;
    client.begin_of_tool().await;
    client.interrupt().await;
    let patience = Duration::from_secs(60);
    let end = tokio::time::timeout(patience, client.events.recv()).await;
    assert!(end.is_err(), "{end:?}");
    open.send_replace(true);
    assert!(is_aborted(&client.end().await, AbortReason::Interrupted));
}

#[tokio::test(start_paused = true)]
async fn marker_lost_on_resume() {
    let mut aftermath = interrupted_tool(Defect::MarkerLostOnResume).await;
    let path = aftermath.client.session.rollout_path().to_owned();
    aftermath.client.session.kill();
    aftermath.client = aftermath.rig.resume(path).await;
    let request = aftermath.next_turn().await;
    assert_eq!(request.outline(), ["u:go", "c:c1", "o:c1", "u:next"]);
}

#[tokio::test(start_paused = true)]
async fn item_after_request() {
    let replies = vec![Reply::shell("r1", &["c1"]), Reply::Silence];
    let tool = vec![ToolStep::Exit(0)];
    let rig = Rig::new(replies, vec![tool]).with(Defect::ItemAfterRequest);
    let mut client = rig.start().await;
    client.user("go").await;
    client
        .until(|msg| matches!(msg, EventMsg::ExecCommandEnd { .. }))
        .await;
    client.rest().await;
    assert_eq!(rig.request(1).outline(), ["u:go", "c:c1", "o:c1"]);
    let lines = rig.store.outline(client.session.rollout_path());
    assert!(!lines.contains(&"o:c1".to_owned()), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn retries_at_once() {
    let rig = Rig::new(vec![Reply::status(500); 9], vec![]).with(Defect::RetriesAtOnce);
    let mut client = rig.start().await;
    let start = tokio::time::Instant::now();
    client.user("go").await;
    assert!(matches!(client.end().await, EventMsg::TurnFailed { .. }));
    assert!(rig.requests() > 2 && start.elapsed() < Duration::from_millis(20));
}

#[tokio::test(start_paused = true)]
async fn stream_left_open() {
    let first = Reply::text("r1", "hello").hang_after("response.output_text.delta", 1);
    let rig = Rig::new(vec![first], vec![]).with(Defect::StreamLeftOpen);
    let mut client = rig.start().await;
    client.user("hi").await;
    client.delta().await;
    client.interrupt().await;
    client.rest().await;
    assert_eq!(*rig.model.closed.borrow(), 0);
}

#[tokio::test(start_paused = true)]
async fn tool_survives_shutdown() {
    let replies = vec![Reply::shell("r1", &["c1"])];
    let rig = Rig::new(replies, vec![vec![ToolStep::Hang]]).with(Defect::ToolSurvivesShutdown);
    let mut client = rig.start().await;
    client.user("go").await;
    client.begin_of_tool().await;
    client.shutdown().await;
    assert_eq!(rig.tools.alive(), 1);
}
