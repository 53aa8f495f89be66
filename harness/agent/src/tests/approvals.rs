//! Calls that wait for the user's approval.

use std::path::PathBuf;
use std::time::Duration;

use cutpoint_protocol::session::{AbortReason, Decision, EventMsg, Op};
use tokio::sync::watch;

use super::support::{Client, Reply, Request, Rig, Step, ToolStep, aborts, is_aborted};
use crate::lock;

fn printing() -> Vec<ToolStep> {
    vec![ToolStep::Print("done"), ToolStep::Exit(0)]
}

/// A rig whose first reply calls `c1`, which asks.
fn rig() -> Rig {
    let replies = vec![
        Reply::asking("r1", &[("c1", "run")]),
        Reply::text("r2", "ok"),
        Reply::text("r3", "ok"),
    ];
    Rig::new(replies, vec![printing(), printing()])
}

async fn ask(client: &mut Client) {
    client.user("go").await;
    is_asked(client, "c1").await;
}

async fn is_asked(client: &mut Client, wanted: &str) {
    client
        .until(
            |msg| matches!(msg, EventMsg::ExecApprovalRequest { call_id, .. } if call_id == wanted),
        )
        .await;
}

async fn answer(client: &mut Client, call_id: &str, decision: Decision) {
    let call_id = call_id.to_owned();
    let call_id = call_id.into();
    client.submit(Op::ExecApproval { call_id, decision }).await;
}

async fn next_request(rig: &Rig, client: &mut Client) -> Request {
    let at = rig.requests();
    client.user("next").await;
    client.end().await;
    rig.request(at)
}

fn ran(rig: &Rig) -> usize {
    lock(&rig.tools.commands).len()
}

/// The turn was interrupted: nothing ran, and the model learns of an abort.
async fn check_aborted(rig: &Rig, client: &mut Client) {
    assert_eq!((rig.requests(), ran(rig), rig.tools.alive()), (1, 0, 0));
    let request = next_request(rig, client).await;
    assert_eq!(
        request.outline(),
        ["u:go", "c:c1", "o:c1", "marker", "u:next"]
    );
    let output = request.output("c1");
    assert!(
        output.contains("aborted") && !output.contains("allow"),
        "{output}"
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_runs_before_the_answer() {
    let rig = rig();
    let mut client = rig.start().await;
    ask(&mut client).await;
    let rest = client.rest().await;
    assert!(!rest.iter().any(EventMsg::is_terminal), "{rest:?}");
    assert_eq!((rig.requests(), ran(&rig)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn approved() {
    let rig = rig();
    let mut client = rig.start().await;
    ask(&mut client).await;
    answer(&mut client, "c1", Decision::Approved).await;
    assert!(matches!(client.end().await, EventMsg::TurnComplete { .. }));
    assert_eq!(ran(&rig), 1);
    let output = rig.request(1).output("c1");
    assert!(
        output.contains("exit code 0") && output.contains("done"),
        "{output}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_approval_is_for_one_call() {
    for (decision, wanted) in [(Decision::Approved, 1), (Decision::ApprovedForSession, 0)] {
        let rig = rig();
        let replies = vec![
            Reply::asking("r1", &[("c1", "run")]),
            Reply::asking("r2", &[("c2", "run")]),
        ];
        rig.model.replace(replies);
        rig.model.push(Reply::text("r3", "ok"));
        let mut client = rig.start().await;
        ask(&mut client).await;
        answer(&mut client, "c1", decision).await;
        if wanted == 1 {
            is_asked(&mut client, "c2").await;
            answer(&mut client, "c2", decision).await;
        }
        let events = client.until(EventMsg::is_terminal).await;
        let asked = |msg: &EventMsg| matches!(msg, EventMsg::ExecApprovalRequest { .. });
        assert!(!events.iter().any(|event| asked(&event.msg)));
        assert_eq!(ran(&rig), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn allowed_for_the_session_are_the_same_words_only() {
    let rig = rig();
    rig.model.replace(vec![
        Reply::asking("r1", &[("c1", "run")]),
        Reply::asking("r2", &[("c2", "other")]),
        Reply::text("r3", "ok"),
    ]);
    let mut client = rig.start().await;
    ask(&mut client).await;
    answer(&mut client, "c1", Decision::ApprovedForSession).await;
    is_asked(&mut client, "c2").await;
    answer(&mut client, "c2", Decision::Denied).await;
    assert!(matches!(client.end().await, EventMsg::TurnComplete { .. }));
    assert_eq!(ran(&rig), 1);
}

#[tokio::test(start_paused = true)]
async fn denied() {
    let rig = rig();
    let mut client = rig.start().await;
    ask(&mut client).await;
    answer(&mut client, "c1", Decision::Denied).await;
    assert!(matches!(client.end().await, EventMsg::TurnComplete { .. }));
    assert_eq!(ran(&rig), 0);
    assert_eq!(rig.request(1).outline(), ["u:go", "c:c1", "o:c1"]);
    let output = rig.request(1).output("c1");
    assert!(output.contains("the user did not allow it"), "{output}");
}

#[tokio::test(start_paused = true)]
async fn answered_with_abort() {
    let rig = rig();
    let mut client = rig.start().await;
    ask(&mut client).await;
    answer(&mut client, "c1", Decision::Abort).await;
    assert!(is_aborted(&client.end().await, AbortReason::Interrupted));
    check_aborted(&rig, &mut client).await;
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_while_pending() {
    let rig = rig();
    let mut client = rig.start().await;
    ask(&mut client).await;
    client.interrupt().await;
    assert!(is_aborted(&client.end().await, AbortReason::Interrupted));
    check_aborted(&rig, &mut client).await;
}

#[tokio::test(start_paused = true)]
async fn two_interrupts_while_pending() {
    let rig = rig();
    let mut client = rig.start().await;
    ask(&mut client).await;
    client.interrupt().await;
    client.interrupt().await;
    assert_eq!(aborts(&client.rest().await), 1);
    check_aborted(&rig, &mut client).await;
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_right_behind_an_answer() {
    for decision in [Decision::Approved, Decision::Denied, Decision::Abort] {
        let rig = rig();
        let mut client = rig.start().await;
        ask(&mut client).await;
        answer(&mut client, "c1", decision).await;
        client.interrupt().await;
        assert_eq!(aborts(&client.rest().await), 1);
        let request = next_request(&rig, &mut client).await;
        assert_eq!(request.faults(), []);
        assert_eq!(rig.tools.alive(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_turn_while_pending() {
    let rig = rig();
    let mut client = rig.start().await;
    ask(&mut client).await;
    client.replace("other").await;
    assert!(is_aborted(&client.end().await, AbortReason::Replaced));
    assert!(matches!(client.end().await, EventMsg::TurnComplete { .. }));
    assert_eq!(ran(&rig), 0);
    assert_eq!(
        rig.request(1).outline(),
        ["u:go", "c:c1", "o:c1", "u:other"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_while_pending() {
    let rig = rig();
    let mut client = rig.start().await;
    ask(&mut client).await;
    let path = client.session.rollout_path().to_owned();
    assert_eq!(aborts(&client.shutdown().await), 1);
    assert_eq!(ran(&rig), 0);
    let lines = rig.store.outline(&path);
    assert!(lines.ends_with(&["o:c1", "marker", "turn_aborted"].map(str::to_owned)));
}

async fn killed_while_pending() -> (Rig, PathBuf) {
    let rig = rig();
    let mut client = rig.start().await;
    ask(&mut client).await;
    let path = client.session.rollout_path().to_owned();
    client.session.kill();
    (rig, path)
}

#[tokio::test(start_paused = true)]
async fn a_crash_while_pending() {
    let (mut rig, path) = killed_while_pending().await;
    let mut client = rig.resume(path).await;
    answer(&mut client, "c1", Decision::Approved).await;
    answer(&mut client, "c1", Decision::Abort).await;
    assert_eq!(client.rest().await, []);
    let request = next_request(&rig, &mut client).await;
    assert_eq!(request.outline(), ["u:go", "c:c1", "o:c1", "u:next"]);
    assert!(request.output("c1").contains("aborted"));
    assert_eq!(ran(&rig), 0);
}

#[tokio::test(start_paused = true)]
async fn late_and_unknown_answers_find_nobody() {
    let decisions = [
        Decision::Approved,
        Decision::ApprovedForSession,
        Decision::Denied,
        Decision::Abort,
    ];
    for decision in decisions {
        let rig = rig();
        let mut client = rig.start().await;
        ask(&mut client).await;
        client.interrupt().await;
        client.end().await;
        answer(&mut client, "c1", decision).await;
        answer(&mut client, "nowhere", decision).await;
        assert_eq!(client.rest().await, []);
        check_aborted(&rig, &mut client).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_does_not_touch_the_turn_that_runs() {
    let rig = rig();
    let first = vec![
        Reply::asking("r1", &[("c1", "run")]),
        Reply::asking("r2", &[("c2", "run")]),
    ];
    rig.model.replace(first);
    rig.model.push(Reply::text("r3", "ok"));
    let mut client = rig.start().await;
    ask(&mut client).await;
    client.interrupt().await;
    client.end().await;
    client.user("next").await;
    is_asked(&mut client, "c2").await;
    answer(&mut client, "c1", Decision::ApprovedForSession).await;
    answer(&mut client, "c1", Decision::Abort).await;
    assert_eq!(client.rest().await, []);
    answer(&mut client, "c2", Decision::Approved).await;
    // Only the first of two answers counts.
    answer(&mut client, "c2", Decision::Abort).await;
    assert!(matches!(client.end().await, EventMsg::TurnComplete { .. }));
    assert_eq!(ran(&rig), 1);
}

#[tokio::test(start_paused = true)]
async fn two_calls_at_once() {
    let rig = rig();
    rig.model.replace(vec![
        Reply::asking("r1", &[("c1", "run"), ("c2", "other")]),
        Reply::text("r2", "ok"),
    ]);
    let mut client = rig.start().await;
    client.user("go").await;
    is_asked(&mut client, "c1").await;
    is_asked(&mut client, "c2").await;
    answer(&mut client, "c2", Decision::Approved).await;
    answer(&mut client, "c1", Decision::Denied).await;
    assert!(matches!(client.end().await, EventMsg::TurnComplete { .. }));
    let request = rig.request(1);
    assert_eq!(request.outline(), ["u:go", "c:c1", "c:c2", "o:c1", "o:c2"]);
    assert!(request.output("c1").contains("did not allow"));
    assert!(request.output("c2").contains("exit code 0"));
}

#[tokio::test(start_paused = true)]
async fn abort_for_one_of_two_calls_aborts_both() {
    let rig = rig();
    rig.model.replace(vec![
        Reply::asking("r1", &[("c1", "run"), ("c2", "other")]),
        Reply::text("r2", "ok"),
    ]);
    let mut client = rig.start().await;
    client.user("go").await;
    is_asked(&mut client, "c1").await;
    is_asked(&mut client, "c2").await;
    answer(&mut client, "c2", Decision::Abort).await;
    assert!(is_aborted(&client.end().await, AbortReason::Interrupted));
    answer(&mut client, "c1", Decision::Approved).await;
    let request = next_request(&rig, &mut client).await;
    for call_id in ["c1", "c2"] {
        assert!(request.output(call_id).contains("aborted"));
    }
    assert_eq!(ran(&rig), 0);
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_fails_takes_its_approval_along() {
    let rig = rig();
    let error = r#"{"type":"response.failed","response":{"error":{"code":"invalid_prompt","message":"no"}}}"#;
    let (open, gate) = watch::channel(false);
    let failed = cutpoint_protocol::StreamEvent::from_value(serde_json::from_str(error).unwrap());
    let steps = vec![Step::Gate(gate), Step::Event(failed.unwrap())];
    let first = Reply::asking("r1", &[("c1", "run")]).after("response.output_item.done", 1, steps);
    rig.model.replace(vec![first, Reply::text("r2", "ok")]);
    let mut client = rig.start().await;
    ask(&mut client).await;
    open.send_replace(true);
    assert!(matches!(client.end().await, EventMsg::TurnFailed { .. }));
    answer(&mut client, "c1", Decision::Approved).await;
    assert_eq!(client.rest().await, []);
    let request = next_request(&rig, &mut client).await;
    assert!(request.output("c1").contains("aborted"));
    assert_eq!(ran(&rig), 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_event_queue_holds_up_no_interrupt() {
    // Two events go before the first request.
    for event_queue in 2..6 {
        let mut rig = rig();
        rig.model.replace(vec![
            Reply::asking("r1", &[("c1", "run"), ("c2", "run"), ("c3", "run")]),
            Reply::text("r2", "ok"),
        ]);
        rig.config.event_queue = event_queue;
        let mut client = rig.start().await;
        client.user("go").await;
        // Nobody reads: the clock moves on only when nothing else can.
        tokio::time::sleep(Duration::from_secs(1)).await;
        for call_id in ["c1", "c2", "c3"] {
            answer(&mut client, call_id, Decision::Approved).await;
        }
        answer(&mut client, "c1", Decision::Abort).await;
        client.interrupt().await;
        assert_eq!(aborts(&client.rest().await), 1);
        let request = next_request(&rig, &mut client).await;
        assert_eq!(request.faults(), []);
        assert_eq!(rig.tools.alive(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_at_every_point_of_an_approval() {
    for point in ["approval.asked", "approval.answered", "approval.decided"] {
        for decision in [Decision::Approved, Decision::Denied] {
            let rig = rig();
            let open = rig.hold(point);
            let mut client = rig.start().await;
            ask(&mut client).await;
            answer(&mut client, "c1", decision).await;
            rig.reached().await;
            client.interrupt().await;
            open.send_replace(true);
            assert_eq!(aborts(&client.rest().await), 1, "{point}");
            let request = next_request(&rig, &mut client).await;
            assert_eq!(request.faults(), [], "{point}");
            assert_eq!(rig.tools.alive(), 0, "{point}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_approval_is_forgotten_behind_the_end_of_its_turn() {
    let rig = rig();
    let open = rig.hold("approval.cleared");
    let mut client = rig.start().await;
    ask(&mut client).await;
    client.interrupt().await;
    assert!(is_aborted(&client.end().await, AbortReason::Interrupted));
    rig.reached().await;
    answer(&mut client, "c1", Decision::Approved).await;
    open.send_replace(true);
    check_aborted(&rig, &mut client).await;
}
