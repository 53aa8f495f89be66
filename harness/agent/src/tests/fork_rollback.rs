//! Commands of the user's, compactions, forks and rollbacks.

use std::path::PathBuf;

use cutpoint_protocol::session::{AbortReason, EventMsg, Op};
use tokio::sync::watch;

use super::support::{Client, Reply, Rig, ToolStep, is_aborted, soon};
use crate::Defect;

fn run(command: &str) -> Op {
    let command = command.to_owned();
    Op::UserShell { command }
}

fn is_error(msg: &EventMsg) -> bool {
    matches!(msg, EventMsg::Error { .. })
}

/// Replies to a turn with a call, then to whatever follows.
fn replies(more: &[&str]) -> Vec<Reply> {
    let more = more.iter().map(|text| Reply::text("r", text));
    [Reply::text("r1", "first"), Reply::shell("r2", &["c1"])]
        .into_iter()
        .chain(more)
        .collect()
}

/// A finished turn, and one whose tool runs.
async fn two_turns(rig: &Rig) -> Client {
    let mut client = rig.start().await;
    client.user("one").await;
    client.end().await;
    client.user("two").await;
    client.begin_of_tool().await;
    client
}

async fn next_turn(rig: &Rig, client: &mut Client) -> Vec<String> {
    let at = rig.requests();
    client.user("next").await;
    client.end().await;
    let request = rig.request(at);
    assert_eq!(request.faults(), []);
    request.outline()
}

async fn fork(client: &mut Client) -> PathBuf {
    client.submit(Op::Fork).await;
    fork_of(client).await
}

async fn fork_of(client: &mut Client) -> PathBuf {
    let forked = |msg: &EventMsg| matches!(msg, EventMsg::Forked { .. });
    match client.until(forked).await.pop().unwrap().msg {
        EventMsg::Forked { rollout_path, .. } => rollout_path.into(),
        _ => unreachable!("the last event is the one that was waited for"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_of_the_users_is_told_to_the_model() {
    let tool = vec![ToolStep::Print("half"), ToolStep::Exit(3)];
    let rig = Rig::new(vec![Reply::text("r", "ok")], vec![tool]);
    let mut client = rig.start().await;
    client.submit(run("make")).await;
    let events = client.until(EventMsg::is_terminal).await;
    let begins = |msg: &EventMsg| matches!(msg, EventMsg::ExecCommandBegin { call_id, .. } if call_id == "user-shell-1");
    assert!(events.iter().any(|event| begins(&event.msg)));
    assert_eq!(rig.requests(), 0, "the model is not asked");
    let outline = next_turn(&rig, &mut client).await;
    assert_eq!(outline.len(), 2, "{outline:?}");
    for part in ["<user_shell_command>", "make", "exit code 3", "half"] {
        assert!(outline[0].contains(part), "{outline:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_that_is_cut_off_says_so() {
    let tool = vec![ToolStep::Print("half"), ToolStep::Hang];
    let mut rig = Rig::new(vec![Reply::text("r", "ok")], vec![tool]);
    let mut client = rig.start().await;
    client.submit(run("make")).await;
    client
        .until(|msg| matches!(msg, EventMsg::ExecCommandOutputDelta { .. }))
        .await;
    client.interrupt().await;
    assert!(is_aborted(&client.end().await, AbortReason::Interrupted));
    assert_eq!(rig.tools.alive(), 0);
    let path = client.session.rollout_path().to_owned();
    client.session.kill();
    let mut client = rig.resume(path).await;
    let outline = next_turn(&rig, &mut client).await;
    assert!(
        outline[0].contains("aborted") && outline[0].contains("half"),
        "{outline:?}"
    );
    assert_eq!(outline[1..], ["marker", "u:next"]);
    client.submit(run("make")).await;
    client
        .until(|msg| matches!(msg, EventMsg::ExecCommandEnd { .. }) || msg.is_terminal())
        .await;
    client.submit(run(" ")).await;
    client.until(is_error).await;
}

#[tokio::test(start_paused = true)]
async fn a_compaction_survives_a_resume() {
    let mut rig = Rig::new(
        replies(&["done", "in short", "ok", "ok"]),
        vec![vec![ToolStep::Exit(0)]],
    );
    let mut client = two_turns(&rig).await;
    client.end().await;
    client.submit(Op::Compact).await;
    let events = client.until(EventMsg::is_terminal).await;
    let is_compacted = |msg: &EventMsg| matches!(msg, EventMsg::ContextCompacted { .. });
    assert!(events.iter().any(|event| is_compacted(&event.msg)));
    let shown = |msg: &EventMsg| matches!(msg, EventMsg::AgentMessageDelta { .. });
    assert!(
        !events.iter().any(|event| shown(&event.msg)),
        "a summary is not shown"
    );
    let asked = rig.request(rig.requests() - 1).outline();
    assert!(
        asked.last().unwrap().starts_with("u:<compaction_prompt>"),
        "{asked:?}"
    );
    let summary = "u:<conversation_summary>\nin short\n</conversation_summary>";
    let outline = next_turn(&rig, &mut client).await;
    assert_eq!(outline, ["u:one", "u:two", summary, "u:next"]);
    let path = client.session.rollout_path().to_owned();
    client.session.kill();
    let mut client = rig.resume(path).await;
    let outline = next_turn(&rig, &mut client).await;
    assert_eq!(
        outline,
        ["u:one", "u:two", summary, "u:next", "a:ok", "u:next"]
    );
    client.submit(Op::Rollback { turns: 3 }).await;
    client.until(is_error).await;
}

#[tokio::test(start_paused = true)]
async fn a_compaction_without_a_summary_fails_and_changes_nothing() {
    let replies = vec![
        Reply::text("r1", "first"),
        Reply::shell("r2", &["c9"]),
        Reply::text("r", "ok"),
    ];
    let rig = Rig::new(replies, vec![]);
    let mut client = rig.start().await;
    client.user("one").await;
    client.end().await;
    client.submit(Op::Compact).await;
    assert!(matches!(client.end().await, EventMsg::TurnFailed { .. }));
    assert_eq!(
        next_turn(&rig, &mut client).await,
        ["u:one", "a:first", "u:next"]
    );
}

/// A compaction that is held in its summary while the user says something.
async fn steered_compaction(defect: Option<Defect>) -> Vec<String> {
    let (open, gate) = watch::channel(false);
    let summary = Reply::text("r2", "in short").gated("response.output_text.delta", 1, gate);
    let mut rig = Rig::new(
        vec![Reply::text("r1", "first"), summary, Reply::text("r", "ok")],
        vec![],
    );
    if let Some(defect) = defect {
        rig = rig.with(defect);
    }
    let mut client = rig.start().await;
    client.user("one").await;
    client.end().await;
    client.submit(Op::Compact).await;
    client.next().await;
    client.user("wait").await;
    client.rest().await;
    open.send_replace(true);
    client.end().await;
    next_turn(&rig, &mut client).await
}

#[tokio::test(start_paused = true)]
async fn what_is_said_during_a_compaction_stands_behind_the_summary() {
    let outline = steered_compaction(None).await;
    assert!(outline[1].contains("in short"));
    assert_eq!(outline[2..], ["u:wait", "u:next"]);
    let outline = steered_compaction(Some(Defect::CompactionOverwrites)).await;
    assert!(!outline.contains(&"u:wait".to_owned()));
}

/// A compaction that is interrupted in the middle of its summary.
async fn interrupted_compaction(defect: Option<Defect>) -> Vec<String> {
    let summary = Reply::text("r3", "in short").hang_after("response.output_text.delta", 1);
    let replies = [replies(&["done"]), vec![summary, Reply::text("r", "ok")]].concat();
    let mut rig = Rig::new(replies, vec![vec![ToolStep::Exit(0)]]);
    if let Some(defect) = defect {
        rig = rig.with(defect);
    }
    let mut client = two_turns(&rig).await;
    client.end().await;
    let hold = rig.hold("stream.event");
    client.submit(Op::Compact).await;
    rig.reached().await;
    hold.send_replace(true);
    client.interrupt().await;
    assert!(is_aborted(&client.end().await, AbortReason::Interrupted));
    next_turn(&rig, &mut client).await
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_compaction_leaves_the_history_as_it_was() {
    let outline = interrupted_compaction(None).await;
    let before = ["u:one", "a:first", "u:two", "c:c1", "o:c1", "a:done"];
    assert_eq!(outline[..6], before);
    assert_eq!(outline[6..], ["marker", "u:next"]);
    let outline = interrupted_compaction(Some(Defect::CompactsAfterAbort)).await;
    assert!(!outline.contains(&"c:c1".to_owned()), "{outline:?}");
}

/// A fork while a tool runs and has printed; the fork is resumed and asked.
async fn forked(defect: Option<Defect>) -> (Vec<String>, Rig) {
    let tool = vec![ToolStep::Print("half"), ToolStep::Hang];
    let mut rig = Rig::new(replies(&["ok"]), vec![tool]);
    if let Some(defect) = defect {
        rig = rig.with(defect);
    }
    let mut client = two_turns(&rig).await;
    client
        .until(|msg| matches!(msg, EventMsg::ExecCommandOutputDelta { .. }))
        .await;
    client.user("steered").await;
    let path = fork(&mut client).await;
    assert_eq!(rig.tools.alive(), 1, "the turn goes on");
    assert_ne!(path, client.session.rollout_path());
    let id = client.session.session_id().to_owned();
    client.session.kill();
    let mut client = rig.resume(path).await;
    assert_ne!(*client.session.session_id(), id);
    let at = rig.requests();
    client.user("next").await;
    client.end().await;
    (rig.request(at).outline(), rig)
}

#[tokio::test(start_paused = true)]
async fn a_fork_closes_the_running_turn() {
    let (outline, rig) = forked(None).await;
    let turn = [
        "u:one",
        "a:first",
        "u:two",
        "c:c1",
        "o:c1",
        "u:steered",
        "marker",
        "u:next",
    ];
    assert_eq!(outline, turn);
    let told = rig.request(rig.requests() - 1).output("c1");
    assert!(told.contains("aborted") && told.contains("half"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn fork_without_marker() {
    let (outline, _) = forked(Some(Defect::ForkWithoutMarker)).await;
    assert!(!outline.contains(&"marker".to_owned()), "{outline:?}");
}

#[tokio::test(start_paused = true)]
async fn fork_leaves_call_open() {
    let (outline, _) = forked(Some(Defect::ForkLeavesCallOpen)).await;
    assert!(!outline.contains(&"o:c1".to_owned()), "{outline:?}");
}

#[tokio::test(start_paused = true)]
async fn a_fork_can_be_forked_and_rolled_back() {
    let mut rig = Rig::new(
        replies(&["done", "ok", "ok"]),
        vec![vec![ToolStep::Exit(0)]],
    );
    let mut client = two_turns(&rig).await;
    client.end().await;
    let first = fork(&mut client).await;
    client.session.kill();
    let mut client = rig.resume(first).await;
    let second = fork(&mut client).await;
    client.session.kill();
    let mut client = rig.resume(second.clone()).await;
    client.submit(Op::Rollback { turns: 1 }).await;
    client
        .until(|msg| matches!(msg, EventMsg::RolledBack { turns: 1 }))
        .await;
    assert_eq!(
        next_turn(&rig, &mut client).await,
        ["u:one", "a:first", "u:next"]
    );
    client.session.kill();
    let mut client = rig.resume(second).await;
    let outline = next_turn(&rig, &mut client).await;
    assert_eq!(outline, ["u:one", "a:first", "u:next", "a:ok", "u:next"]);
}

/// What was said into a turn that is just finishing is in no history yet, and no longer in the
/// turn's hands.
#[tokio::test(start_paused = true)]
async fn a_fork_has_what_was_said_into_a_turn_that_is_just_finishing() {
    let mut rig = Rig::new(
        vec![Reply::text("r1", "first"), Reply::text("r2", "ok")],
        vec![],
    );
    let finish = rig.hold("turn.finish");
    let mut client = rig.start().await;
    client.user("one").await;
    rig.reached().await;
    client.user("and two").await;
    client.rest().await;
    let taken = rig.hold("turn.taken");
    finish.send_replace(true);
    rig.reached().await;
    client.submit(Op::Fork).await;
    // The clock stands still while anything can be done: a fork that does not wait is made by now.
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    taken.send_replace(true);
    let path = fork_of(&mut client).await;
    client.session.kill();
    let mut client = rig.resume(path).await;
    let outline = next_turn(&rig, &mut client).await;
    assert_eq!(outline, ["u:one", "a:first", "u:and two", "u:next"]);
}

#[tokio::test(start_paused = true)]
async fn a_fork_on_a_full_disk_is_refused() {
    let rig = Rig::new(vec![Reply::text("r1", "first")], vec![]);
    let mut client = rig.start().await;
    client.user("one").await;
    client.end().await;
    *crate::lock(&rig.store.room_bytes) = Some(9);
    let id = client.submit(Op::Fork).await;
    let refusal = client.until(is_error).await.pop().unwrap();
    assert_eq!(refusal.id, id);
}

#[tokio::test(start_paused = true)]
async fn a_rollback_is_refused_while_a_turn_runs_and_beyond_the_first() {
    let rig = Rig::new(replies(&["ok"]), vec![vec![ToolStep::Hang]]);
    let mut client = two_turns(&rig).await;
    let id = client.submit(Op::Rollback { turns: 1 }).await;
    let refusal = soon(client.until(is_error)).await.pop().unwrap();
    assert_eq!(refusal.id, id);
    client.interrupt().await;
    client.end().await;
    for turns in [0, 3] {
        client.submit(Op::Rollback { turns }).await;
        client.until(is_error).await;
    }
    let outline = next_turn(&rig, &mut client).await;
    let all = [
        "u:one", "a:first", "u:two", "c:c1", "o:c1", "marker", "u:next",
    ];
    assert_eq!(outline, all);
}

#[tokio::test(start_paused = true)]
async fn rollback_leaves_output() {
    let rig =
        Rig::new(replies(&["ok"]), vec![vec![ToolStep::Hang]]).with(Defect::RollbackLeavesOutput);
    let mut client = two_turns(&rig).await;
    client.interrupt().await;
    client.end().await;
    client.submit(Op::Rollback { turns: 1 }).await;
    client.user("next").await;
    client.end().await;
    assert_eq!(
        rig.request(2).outline(),
        ["u:one", "a:first", "o:c1", "u:next"]
    );
}

/// What an interrupted command of the user's leaves, and how many tools go on.
async fn interrupted_command(defect: Defect) -> (Vec<String>, usize) {
    let tool = vec![ToolStep::Print("half"), ToolStep::Hang];
    let rig = Rig::new(vec![Reply::text("r", "ok")], vec![tool]).with(defect);
    let mut client = rig.start().await;
    client.submit(run("make")).await;
    client
        .until(|msg| matches!(msg, EventMsg::ExecCommandOutputDelta { .. }))
        .await;
    client.interrupt().await;
    client.end().await;
    (next_turn(&rig, &mut client).await, rig.tools.alive())
}

#[tokio::test(start_paused = true)]
async fn defects_of_interrupted_commands() {
    let (outline, alive) = interrupted_command(Defect::UserOutputLost).await;
    assert!(outline[0].contains("make") && !outline[0].contains("half") && alive == 0);
    let (outline, _) = interrupted_command(Defect::UserCommandForgotten).await;
    assert_eq!(outline, ["marker", "u:next"]);
    assert_eq!(interrupted_command(Defect::UserCommandSurvives).await.1, 1);
}
