//! Calls that ask the user a question, and patches that wait for approval.

use std::time::Duration;

use cutpoint_protocol::compose::ItemContent;
use cutpoint_protocol::session::{AbortReason, Decision, EventMsg, Op};

use super::support::{Client, Reply, Rig, is_aborted};
use crate::Defect;

const PATCH: &str = "*** Begin Patch\n*** Add File: notes\n+first light\n*** End Patch";

fn asking() -> Rig {
    let first = ItemContent::Function {
        call_id: "c1",
        name: "request_user_input",
        arguments: r#"{"questions":["Which file?","Sure?"]}"#,
        chunks: 2,
    };
    let replies = vec![
        Reply::compose("r1", &[first]),
        Reply::text("r2", "ok"),
        Reply::text("r3", "ok"),
    ];
    Rig::new(replies, vec![])
}

async fn asked(client: &mut Client) -> EventMsg {
    client.user("go").await;
    let is_it = |msg: &EventMsg| matches!(msg, EventMsg::UserInputRequest { .. });
    client.until(is_it).await.pop().unwrap().msg
}

async fn answer(client: &mut Client, call_id: &str, answers: &[&str]) {
    let answers = answers.iter().map(|answer| (*answer).to_owned()).collect();
    let call_id = call_id.into();
    client
        .submit(Op::UserInputAnswer { call_id, answers })
        .await;
}

#[tokio::test(start_paused = true)]
async fn answers_reach_the_model() {
    let rig = asking();
    let mut client = rig.start().await;
    let request = asked(&mut client).await;
    let EventMsg::UserInputRequest { questions, .. } = request else {
        unreachable!("it was awaited")
    };
    assert_eq!(questions, ["Which file?", "Sure?"]);
    answer(&mut client, "c2", &["nobody's"]).await;
    answer(&mut client, "c1", &["blue", "yes"]).await;
    assert!(matches!(client.end().await, EventMsg::TurnComplete { .. }));
    assert_eq!(rig.request(1).output("c1"), r#"{"answers":["blue","yes"]}"#);
}

#[tokio::test(start_paused = true)]
async fn a_pending_question_has_no_answers() {
    let rig = asking();
    let mut client = rig.start().await;
    asked(&mut client).await;
    client.interrupt().await;
    assert!(is_aborted(&client.end().await, AbortReason::Interrupted));
    answer(&mut client, "c1", &["too", "late"]).await;
    assert_eq!(client.rest().await, []);
    client.user("next").await;
    client.end().await;
    let request = rig.request(1);
    assert_eq!(
        request.outline(),
        ["u:go", "c:c1", "o:c1", "marker", "u:next"]
    );
    let output: serde_json::Value = serde_json::from_str(&request.output("c1")).unwrap();
    assert_eq!(output["answers"], serde_json::json!([]));
    assert!(output["status"].as_str().unwrap().contains("aborted"));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_came_before_the_interrupt_counts() {
    let rig = asking();
    let mut client = rig.start().await;
    asked(&mut client).await;
    answer(&mut client, "c1", &["blue", "yes"]).await;
    client.interrupt().await;
    client.end().await;
    client.user("next").await;
    client.end().await;
    let last = rig.request(rig.requests() - 1);
    assert_eq!(last.output("c1"), r#"{"answers":["blue","yes"]}"#);
}

#[tokio::test(start_paused = true)]
async fn a_question_that_asks_nothing_is_refused() {
    for arguments in ["{}", r#"{"questions":[]}"#, r#"{"questions":[1]}"#, "{"] {
        let call = ItemContent::Function {
            call_id: "c1",
            name: "request_user_input",
            arguments,
            chunks: 1,
        };
        let replies = vec![Reply::compose("r1", &[call]), Reply::text("r2", "ok")];
        let rig = Rig::new(replies, vec![]);
        let mut client = rig.start().await;
        client.user("go").await;
        client.end().await;
        assert!(
            rig.request(1).output("c1").contains("failed"),
            "{arguments}"
        );
    }
}

/// A rig whose first two replies have the same patch applied, below a directory of its own.
fn patching() -> (Rig, tempfile::TempDir) {
    let patch = |call_id| ItemContent::Custom {
        call_id,
        name: "apply_patch",
        input: PATCH,
        chunks: 2,
    };
    let replies = vec![
        Reply::compose("r1", &[patch("c1")]),
        Reply::compose("r2", &[patch("c2")]),
        Reply::text("r3", "ok"),
    ];
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(replies, vec![]);
    rig.config.cwd = dir.path().to_owned();
    (rig, dir)
}

async fn patch_is_asked(client: &mut Client) {
    client.user("go").await;
    let is_it = |msg: &EventMsg| matches!(msg, EventMsg::ApplyPatchApprovalRequest { .. });
    client.until(is_it).await;
}

#[tokio::test(start_paused = true)]
async fn a_patch_that_is_allowed_for_the_session_is_asked_about_once() {
    let (rig, dir) = patching();
    let mut client = rig.start().await;
    patch_is_asked(&mut client).await;
    assert!(!dir.path().join("notes").exists());
    let (call_id, decision) = ("c1".to_owned(), Decision::ApprovedForSession);
    let call_id = call_id.into();
    client.submit(Op::PatchApproval { call_id, decision }).await;
    client.end().await;
    let notes = std::fs::read_to_string(dir.path().join("notes")).unwrap();
    assert_eq!(notes, "first light\n");
    let last = rig.request(2);
    assert!(last.output("c1").contains("changed: notes"));
    assert!(last.output("c2").contains("exists already"));
}

#[tokio::test(start_paused = true)]
async fn a_patch_that_waits_at_the_interrupt_changes_nothing() {
    let (rig, dir) = patching();
    let mut client = rig.start().await;
    patch_is_asked(&mut client).await;
    client.interrupt().await;
    assert!(is_aborted(&client.end().await, AbortReason::Interrupted));
    assert!(!dir.path().join("notes").exists());
    rig.model.replace(vec![Reply::text("r2", "ok")]);
    client.user("next").await;
    client.end().await;
    assert!(rig.request(1).output("c1").contains("aborted"));
}

/// What the model reads of a question that was pending at an interrupt.
async fn output_behind_an_interrupt(defect: Defect) -> String {
    let rig = asking().with(defect);
    let mut client = rig.start().await;
    asked(&mut client).await;
    client.interrupt().await;
    client.end().await;
    client.user("next").await;
    client.end().await;
    rig.request(1).output("c1")
}

#[tokio::test(start_paused = true)]
async fn defects_of_questions_show() {
    let output = output_behind_an_interrupt(Defect::QuestionMadeUp).await;
    assert_eq!(output, r#"{"answers":["yes","yes"]}"#);
    let output = output_behind_an_interrupt(Defect::QuestionDeclined).await;
    assert!(output.contains("declined"), "{output}");
    let rig = asking().with(Defect::AnswerLost);
    let mut client = rig.start().await;
    asked(&mut client).await;
    answer(&mut client, "c1", &["blue", "yes"]).await;
    client.end().await;
    assert!(!rig.request(1).output("c1").contains("blue"));
}

#[tokio::test(start_paused = true)]
async fn question_holds_abort() {
    let rig = asking().with(Defect::QuestionHoldsAbort);
    let mut client = rig.start().await;
    asked(&mut client).await;
    client.interrupt().await;
    let end = tokio::time::timeout(Duration::from_secs(60), client.events.recv());
    assert!(end.await.is_err(), "the abort did not wait");
}

#[tokio::test(start_paused = true)]
async fn patch_on_interrupt() {
    let (rig, dir) = patching();
    let rig = rig.with(Defect::PatchOnInterrupt);
    let mut client = rig.start().await;
    patch_is_asked(&mut client).await;
    client.interrupt().await;
    client.end().await;
    assert!(dir.path().join("notes").exists());
}
