//! Planted defects that are nearly right: that each shows where it should, and for some that it does
//! not show elsewhere. Those that need real processes or a second file are left to the scenarios.

use std::time::Duration;

use cutpoint_protocol::compose::ItemContent;
use cutpoint_protocol::pairing::PairingFault;
use cutpoint_protocol::session::{AbortReason, Decision, EventMsg};
use tokio::time::Instant;

use super::defects::{asked, decide, interrupted_tool};
use super::support::{Client, Entry, Reply, Rig, Step, ToolStep, aborts, is_aborted};
use crate::{Defect, lock};

/// One turn of a session with these replies, to its end.
async fn one_turn(
    defect: Defect,
    replies: Vec<Reply>,
    tools: Vec<Vec<ToolStep>>,
) -> (Rig, Client, Vec<EventMsg>) {
    let rig = Rig::new(replies, tools).with(defect);
    let mut client = rig.start().await;
    client.user("go").await;
    let events = client.until(EventMsg::is_terminal).await;
    let events = events.into_iter().map(|event| event.msg).collect();
    (rig, client, events)
}

#[tokio::test(start_paused = true)]
async fn wrong_kind_of_output() {
    let call = ItemContent::Custom {
        call_id: "c1",
        name: "run_script",
        input: "x",
        chunks: 1,
    };
    let replies = vec![Reply::compose("r1", &[call]), Reply::text("r2", "ok")];
    let rig = Rig::new(replies, vec![vec![ToolStep::Hang]]).with(Defect::WrongKindOfOutput);
    let mut client = rig.start().await;
    client.user("go").await;
    client.begin_of_tool().await;
    client.interrupt().await;
    client.end().await;
    client.user("next").await;
    client.end().await;
    let faults = rig.request(1).faults();
    assert!(matches!(faults[..], [PairingFault::WrongKind { .. }]));
}

#[tokio::test(start_paused = true)]
async fn answered_twice() {
    let replies = vec![Reply::shell("r1", &["c1", "c2"]), Reply::text("r2", "ok")];
    let tools = vec![vec![ToolStep::Exit(0)], vec![ToolStep::Hang]];
    let rig = Rig::new(replies, tools).with(Defect::AnsweredTwice);
    let mut client = rig.start().await;
    client.user("go").await;
    client
        .until(|msg| matches!(msg, EventMsg::ExecCommandEnd { .. }))
        .await;
    client.interrupt().await;
    client.end().await;
    client.user("next").await;
    client.end().await;
    let faults = rig.request(1).faults();
    assert!(matches!(&faults[..], [PairingFault::Duplicate { call_id, .. }] if call_id == "c1"));
}

#[tokio::test(start_paused = true)]
async fn disconnect_forgets_calls() {
    let broken = Reply::shell("r1", &["c1"]).after("response.output_item.done", 1, vec![]);
    let replies = vec![broken, Reply::text("r2", "ok")];
    let tools = vec![vec![ToolStep::Exit(0)]];
    let (rig, _, _) = one_turn(Defect::DisconnectForgetsCalls, replies, tools).await;
    assert_eq!(lock(&rig.tools.commands).len(), 1);
    assert_eq!(rig.request(1).outline(), ["u:go"]);
}

/// A call, and a 400 in these words.
async fn refused(defect: Defect, kind: &str, json: bool) -> (EventMsg, usize, usize) {
    let message = format!("No tool output found for {kind} call c1.");
    let body = match json {
        true => serde_json::json!({"error": {"message": message}}).to_string(),
        false => message,
    };
    let replies = vec![
        Reply::shell("r1", &["c1"]),
        Reply::refuse(400, body.clone(), None),
        Reply::refuse(400, body, None),
        Reply::text("r2", "ok"),
    ];
    let (rig, _, mut events) = one_turn(defect, replies, vec![vec![ToolStep::Exit(0)]]).await;
    let told = |msg: &&EventMsg| matches!(msg, EventMsg::BackgroundEvent { .. });
    let told = events.iter().filter(told).count();
    (events.pop().unwrap(), told, rig.requests())
}

#[tokio::test(start_paused = true)]
async fn recoveries() {
    for (defect, kind, json, told, requests) in [
        (Defect::RecoveryIsSilent, "function", true, 0, 3),
        (Defect::RecoversFunctionsOnly, "function", true, 1, 3),
        (Defect::RecoversFunctionsOnly, "custom tool", true, 0, 2),
        (Defect::RecoversJsonOnly, "function", true, 1, 3),
        (Defect::RecoversJsonOnly, "function", false, 0, 2),
    ] {
        let (end, found, sent) = refused(defect, kind, json).await;
        assert!(matches!(end, EventMsg::TurnFailed { .. }));
        assert_eq!((found, sent), (told, requests), "{defect}, {kind}, {json}");
    }
    let (end, told, _) = refused(Defect::RecoversAgain, "function", true).await;
    assert!(matches!(end, EventMsg::TurnComplete { .. }) && told == 2);
}

#[tokio::test(start_paused = true)]
async fn recovery_spends_retries() {
    let mut replies = vec![Reply::shell("r1", &["c1"]), Reply::misses("c1")];
    replies.extend(vec![Reply::status(503); 4]);
    replies.push(Reply::text("r2", "ok"));
    let tools = vec![vec![ToolStep::Exit(0)]];
    let (rig, _, events) = one_turn(Defect::RecoverySpendsRetries, replies, tools).await;
    assert!(matches!(events.last(), Some(EventMsg::TurnFailed { .. })));
    assert_eq!(rig.requests(), 6);
}

#[tokio::test(start_paused = true)]
async fn debt_settled_by_headers() {
    let mut aftermath = interrupted_tool(Defect::DebtSettledByHeaders).await;
    let replies = [Reply::Stream(vec![Step::Fault]), Reply::text("r2", "ok")];
    aftermath.rig.model.replace(replies.to_vec());
    assert_eq!(aftermath.next_turn().await.faults(), []);
    let faults = aftermath.rig.request(2).faults();
    assert!(matches!(faults[..], [PairingFault::Unanswered { .. }]));
}

#[tokio::test(start_paused = true)]
async fn completes_although_aborted() {
    let rig =
        Rig::new(vec![Reply::text("r1", "ok")], vec![]).with(Defect::CompletesAlthoughAborted);
    let open = rig.hold("turn.finish");
    let mut client = rig.start().await;
    client.user("go").await;
    rig.reached().await;
    client.interrupt().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    open.send_replace(true);
    assert!(matches!(client.end().await, EventMsg::TurnComplete { .. }));
    assert!(is_aborted(&client.end().await, AbortReason::Interrupted));
}

/// The terminal events, and starts, of a turn that is replaced, and of the one that replaces it.
async fn replaced(defect: Defect) -> Vec<&'static str> {
    let rig = Rig::new(vec![Reply::Silence, Reply::text("r2", "ok")], vec![]).with(defect);
    let mut client = rig.start().await;
    client.user("go").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.replace("other").await;
    let events = client.shutdown().await;
    let name = |msg: &EventMsg| match msg {
        EventMsg::TurnStarted { .. } => Some("started"),
        EventMsg::TurnComplete { .. } => Some("complete"),
        EventMsg::TurnAborted { reason, .. } => Some(reason.as_str()),
        _ => None,
    };
    events.iter().filter_map(name).take(4).collect()
}

#[tokio::test(start_paused = true)]
async fn ends_of_replaced_turns() {
    let found = replaced(Defect::ReplacedCompletesToo).await;
    assert_eq!(found, ["started", "replaced", "complete", "started"]);
    let found = replaced(Defect::ReplacedTooLate).await;
    assert_eq!(found[..3], ["started", "started", "replaced"]);
}

#[tokio::test(start_paused = true)]
async fn wrong_reason() {
    let events = interrupted_tool(Defect::WrongReason).await.events;
    assert!(is_aborted(events.last().unwrap(), AbortReason::Replaced));
}

#[tokio::test(start_paused = true)]
async fn abort_waits_for_stream() {
    let first = Reply::text("r1", "hello").hang_after("response.output_text.delta", 1);
    let rig = Rig::new(vec![first], vec![]).with(Defect::AbortWaitsForStream);
    let mut client = rig.start().await;
    client.user("hi").await;
    client.delta().await;
    let start = Instant::now();
    client.interrupt().await;
    assert!(is_aborted(&client.end().await, AbortReason::Interrupted));
    assert!(start.elapsed() >= Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn phantom_turn_on_retry() {
    let broken = Reply::text("r1", "hello").after("response.output_text.delta", 1, vec![]);
    let replies = vec![broken, Reply::text("r2", "ok")];
    let (_, _, events) = one_turn(Defect::PhantomTurnOnRetry, replies, vec![]).await;
    let started = |msg: &&EventMsg| matches!(msg, EventMsg::TurnStarted { .. });
    assert_eq!(events.iter().filter(started).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn marker_not_awaited() {
    let aftermath = interrupted_tool(Defect::MarkerNotAwaited).await;
    let log = lock(&aftermath.rig.log);
    let marker = |it: &Entry| matches!(it, Entry::Write(text) if text.contains("<turn_aborted>"));
    let end = |it: &Entry| matches!(it, Entry::Emit(msg) if msg.is_terminal());
    assert!(log.iter().position(end).unwrap() < log.iter().position(marker).unwrap());
}

/// Whether what was written before the end of an interrupted turn is synced before it.
async fn is_synced(defect: Defect, wait: Duration) -> bool {
    let rig = Rig::new(vec![Reply::Silence], vec![]).with(defect);
    let mut client = rig.start().await;
    client.user("go").await;
    tokio::time::sleep(wait).await;
    client.interrupt().await;
    client.end().await;
    let log = lock(&rig.log);
    let end = |it: &Entry| matches!(it, Entry::Emit(msg) if msg.is_terminal());
    let before = &log[..log.iter().position(end).unwrap()];
    let sync = before.iter().rposition(|it| *it == Entry::Sync);
    let write = before.iter().rposition(|it| matches!(it, Entry::Write(_)));
    sync > write
}

#[tokio::test(start_paused = true)]
async fn syncs_once_a_second() {
    assert!(!is_synced(Defect::SyncsOnceASecond, Duration::from_millis(300)).await);
    assert!(is_synced(Defect::SyncsOnceASecond, Duration::from_secs(3)).await);
}

#[tokio::test(start_paused = true)]
async fn half_marker() {
    let request = interrupted_tool(Defect::HalfMarker).await.next_turn().await;
    let outline = request.outline();
    assert!(outline[3].starts_with("u:<turn_aborted>"), "{outline:?}");
}

#[tokio::test(start_paused = true)]
async fn marker_once() {
    let mut aftermath = interrupted_tool(Defect::MarkerOnce).await;
    aftermath.rig.model.replace(vec![Reply::Silence]);
    aftermath.client.user("again").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    aftermath.client.interrupt().await;
    aftermath.client.end().await;
    aftermath.rig.model.replace(vec![Reply::text("r3", "ok")]);
    let outline = aftermath.next_turn().await.outline();
    assert_eq!(outline[3..], ["marker", "u:again", "u:next"]);
}

#[tokio::test(start_paused = true)]
async fn output_behind_input() {
    let mut aftermath = interrupted_tool(Defect::OutputBehindInput).await;
    let outline = aftermath.next_turn().await.outline();
    assert_eq!(outline, ["u:go", "c:c1", "marker", "u:next", "o:c1"]);
}

#[tokio::test(start_paused = true)]
async fn marker_on_failure() {
    let replies = vec![Reply::status(400), Reply::text("r2", "ok")];
    let (rig, mut client, _) = one_turn(Defect::MarkerOnFailure, replies, vec![]).await;
    client.user("next").await;
    client.end().await;
    assert_eq!(rig.request(1).outline(), ["u:go", "marker", "u:next"]);
}

#[tokio::test(start_paused = true)]
async fn resume_drops_tail() {
    let mut aftermath = interrupted_tool(Defect::ResumeDropsTail).await;
    let path = aftermath.client.session.rollout_path().to_owned();
    aftermath.client.session.kill();
    aftermath.client = aftermath.rig.resume(path).await;
    let outline = aftermath.next_turn().await.outline();
    assert_eq!(outline, ["u:go", "c:c1", "o:c1", "u:next"]);
}

#[tokio::test(start_paused = true)]
async fn resumed_rollouts() {
    for (defect, ordinal, ends) in [
        (Defect::OrdinalsRestart, 0, 1),
        (Defect::ResumedAsRunning, 5, 0),
    ] {
        let mut rig = Rig::new(vec![Reply::Silence, Reply::text("r", "ok")], vec![]).with(defect);
        let mut client = rig.start().await;
        client.user("go").await;
        client.next().await;
        let path = client.session.rollout_path().to_owned();
        client.session.kill();
        let before = rig.store.lines(&path).len();
        let mut client = rig.resume(path.clone()).await;
        client.user("next").await;
        client.end().await;
        let lines = rig.store.lines(&path);
        assert_eq!(lines[before].ordinal, Some(ordinal), "{defect}");
        let text = String::from_utf8(rig.store.content(&path)).unwrap();
        let found = text.matches(r#""type":"turn_aborted""#).count();
        assert_eq!(found, ends, "{defect}");
    }
}

#[tokio::test(start_paused = true)]
async fn retries_sixty_times() {
    let replies = vec![Reply::status(500); 70];
    let (rig, _, _) = one_turn(Defect::RetriesSixtyTimes, replies, vec![]).await;
    assert_eq!(rig.requests(), 61);
}

#[tokio::test(start_paused = true)]
async fn retry_after_ignored() {
    let busy = Reply::refuse(503, String::new(), Some(Duration::from_secs(7)));
    let start = Instant::now();
    one_turn(
        Defect::RetryAfterIgnored,
        vec![busy, Reply::text("r1", "ok")],
        vec![],
    )
    .await;
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn retry_outlives_abort() {
    let rig = Rig::new(vec![Reply::status(500)], vec![]).with(Defect::RetryOutlivesAbort);
    let mut client = rig.start().await;
    client.user("go").await;
    client
        .until(|msg| matches!(msg, EventMsg::BackgroundEvent { .. }))
        .await;
    client.interrupt().await;
    client.end().await;
    assert_eq!(rig.requests(), 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(rig.requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn prompt_lost() {
    let rig = Rig::new(vec![Reply::text("r1", "ok")], vec![]).with(Defect::PromptLost);
    let open = rig.hold("request.send");
    let mut client = rig.start().await;
    client.user("go").await;
    rig.reached().await;
    client.interrupt().await;
    client.end().await;
    open.send_replace(true);
    client.user("next").await;
    client.end().await;
    assert_eq!(rig.request(0).outline(), ["marker", "u:next"]);
}

#[tokio::test(start_paused = true)]
async fn abort_clears_queue() {
    let rig = Rig::new(vec![Reply::Silence, Reply::text("r2", "ok")], vec![]);
    let rig = rig.with(Defect::AbortClearsQueue);
    let open = rig.hold("marker.append");
    let mut client = rig.start().await;
    client.user("go").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.interrupt().await;
    rig.reached().await;
    client.user("and mind the dog").await;
    open.send_replace(true);
    client.end().await;
    client.user("next").await;
    client.end().await;
    assert_eq!(rig.request(1).outline(), ["u:go", "marker", "u:next"]);
}

#[tokio::test(start_paused = true)]
async fn header_outlives_abort() {
    let mut aftermath = interrupted_tool(Defect::HeaderOutlivesAbort).await;
    aftermath.next_turn().await;
    let routed = |rig: &Rig, at: usize| {
        let headers = &lock(&rig.model.requests)[at].headers;
        headers.iter().any(|(_, value)| value == "route-1")
    };
    assert!(routed(&aftermath.rig, 1));
    let replies = vec![Reply::text("r1", "ok"), Reply::text("r2", "ok")];
    let (rig, mut client, _) = one_turn(Defect::HeaderOutlivesAbort, replies, vec![]).await;
    client.user("next").await;
    client.end().await;
    assert!(!routed(&rig, 1), "a turn that completes clears it");
}

#[tokio::test(start_paused = true)]
async fn late_abort_interrupts() {
    let replies = vec![Reply::asking("r1", &[("c1", "run")]), Reply::Silence];
    let (_rig, mut client) = asked(Defect::LateAbortInterrupts, replies).await;
    client.interrupt().await;
    client.end().await;
    client.user("next").await;
    decide(&mut client, Decision::Abort).await;
    assert_eq!(aborts(&client.rest().await), 1);
}
