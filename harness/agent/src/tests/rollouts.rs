//! Rollouts that a crash or a full disk has cut, and sessions that continue them.

use std::path::{Path, PathBuf};

use cutpoint_protocol::rollout::{LineContent, RolloutLine};
use cutpoint_protocol::session::{EventMsg, Op};
use cutpoint_protocol::{Item, pairing};

use super::support::{Client, Reply, Rig, ToolStep};
use crate::rollout::resume::restore;
use crate::{Defect, Session, StartError, lock};

/// A session with a finished turn and one that was interrupted while its tool ran.
async fn history() -> (Rig, PathBuf, Vec<u8>) {
    let replies = vec![Reply::text("r1", "a"), Reply::shell("r2", &["c1"])];
    let rig = Rig::new(replies, vec![vec![ToolStep::Hang]]);
    let mut client = rig.start().await;
    client.user("one").await;
    client.end().await;
    client.user("two").await;
    client.begin_of_tool().await;
    client.interrupt().await;
    client.end().await;
    let path = client.session.rollout_path().to_owned();
    client.session.kill();
    let content = rig.store.content(&path);
    (rig, path, content)
}

async fn ask(rig: &Rig, client: &mut Client) -> Vec<String> {
    rig.model.push(Reply::text("r", "ok"));
    client.user("next").await;
    assert!(matches!(client.end().await, EventMsg::TurnComplete { .. }));
    let request = rig.request(rig.requests() - 1);
    assert_eq!(request.faults(), []);
    request.outline()
}

#[tokio::test(start_paused = true)]
async fn a_killed_session_resumes_with_its_marker() {
    let (mut rig, path, content) = history().await;
    let mut client = rig.resume(path.clone()).await;
    assert_eq!(
        rig.store.content(&path),
        content,
        "nothing was open, so nothing is added"
    );
    assert_eq!(rig.requests(), 2);
    let outline = ask(&rig, &mut client).await;
    assert_eq!(
        outline,
        ["u:one", "a:a", "u:two", "c:c1", "o:c1", "marker", "u:next"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_rollout_cut_at_any_byte_resumes() {
    let (mut rig, path, content) = history().await;
    let whole = rig.store.lines(&path).len();
    // Every byte of the last four lines (the output, the marker, the terminal line), and the
    // boundaries of all others.
    let ends: Vec<usize> = (0..content.len())
        .filter(|at| content[*at] == b'\n')
        .collect();
    let from = ends[whole - 5];
    let cuts = ends
        .iter()
        .copied()
        .chain(from..=content.len())
        .chain([0, 1]);
    for cut in cuts {
        rig.store.put(&path, &content[..cut]);
        let mut client = rig.resume(path.clone()).await;
        let outline = ask(&rig, &mut client).await;
        assert!(outline.iter().filter(|item| *item == "marker").count() <= 1);
        client.shutdown().await;
        let lines = rig.store.outline(&path);
        let count = |name: &str| lines.iter().filter(|line| *line == name).count();
        assert_eq!(count("session_meta"), 1, "cut at {cut}");
        assert_eq!(
            count("turn_started"),
            count("turn_complete") + count("turn_aborted"),
            "cut at {cut}"
        );
        let kept = restore(&content[..cut]).keep_bytes;
        assert!(rig.store.content(&path).starts_with(&content[..kept]));
        assert!(kept == cut || content[kept..cut].iter().all(|byte| *byte != b'\n'));
    }
}

/// A session with about everything that a rollout can hold.
async fn rich_history() -> (Rig, PathBuf, Vec<u8>) {
    let tools = vec![vec![ToolStep::Hang], vec![ToolStep::Exit(0)]];
    let replies = [
        Reply::text("r1", "a"),
        Reply::text("r2", "in short"),
        Reply::shell("r3", &["c1", "c2"]),
        Reply::text("r4", "gone"),
    ];
    let rig = Rig::new(replies.to_vec(), tools);
    let mut client = rig.start().await;
    client.user("one").await;
    client.end().await;
    client.submit(Op::Compact).await;
    client.end().await;
    client.user("two ü").await;
    client.begin_of_tool().await;
    client.interrupt().await;
    client.end().await;
    let command = "make".to_owned();
    client.submit(Op::UserShell { command }).await;
    client.end().await;
    client.user("three").await;
    client.end().await;
    client.submit(Op::Rollback { turns: 1 }).await;
    client.rest().await;
    let path = client.session.rollout_path().to_owned();
    client.session.kill();
    let content = rig.store.content(&path);
    (rig, path, content)
}

/// What the whole lines of a rollout leave of the history, in their own order. A last line may lack
/// its line break.
fn told(content: &[u8]) -> Vec<Item> {
    let mut items = Vec::new();
    let text = String::from_utf8_lossy(content);
    for line in text
        .lines()
        .filter_map(|line| RolloutLine::parse(line).ok())
    {
        match line.content() {
            LineContent::Item(item) => items.push(item),
            LineContent::Compacted(anew) => items = anew,
            // The only turn that is taken back is the last one.
            LineContent::RolledBack(_) => {
                let is_opening = |item: &Item| item.all_text() == "three";
                items.truncate(items.iter().position(is_opening).unwrap());
            }
            _ => {}
        }
    }
    items
}

#[tokio::test(start_paused = true)]
async fn a_rollout_cut_at_every_byte_keeps_its_whole_lines() {
    let (mut rig, path, content) = rich_history().await;
    for cut in 0..=content.len() {
        rig.store.put(&path, &content[..cut]);
        let client = rig.resume(path.clone()).await;
        client.shutdown().await;
        // The lines are read one by one here, so a torn one would be noticed.
        assert!(!rig.store.outline(&path).is_empty(), "cut at {cut}");
        let left = rig.store.content(&path);
        let restored = restore(&left);
        assert_eq!(pairing::faults(&restored.items), [], "cut at {cut}");
        assert_eq!(restored.open_turn, None, "cut at {cut}");
        for item in told(&content[..cut]) {
            assert!(restored.items.contains(&item), "cut at {cut}: {item:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn torn_tails_that_are_not_repaired() {
    let (mut rig, path, content) = history().await;
    let cut = content.len() - 5;
    rig.config.defects.insert(Defect::TornTailKept);
    rig.store.put(&path, &content[..cut]);
    rig.resume(path.clone()).await.shutdown().await;
    let text = String::from_utf8(rig.store.content(&path)).unwrap();
    assert!(text.lines().any(|line| RolloutLine::parse(line).is_err()));
    rig.config.defects = [Defect::TornTailLosesLine].into_iter().collect();
    rig.store.put(&path, &content[..cut]);
    let mut client = rig.resume(path).await;
    let outline = ask(&rig, &mut client).await;
    assert!(!outline.contains(&"marker".to_owned()), "{outline:?}");
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_a_crash_cut_off_is_closed_as_interrupted() {
    let mut rig = Rig::new(
        vec![Reply::shell("r1", &["c1"])],
        vec![vec![ToolStep::Hang]],
    );
    let mut client = rig.start().await;
    client.user("go").await;
    client.begin_of_tool().await;
    let path = client.session.rollout_path().to_owned();
    client.session.kill();
    let before = rig.store.content(&path);
    let mut client = rig.resume(path.clone()).await;
    assert!(rig.store.content(&path).starts_with(&before));
    let lines = rig.store.outline(&path);
    assert_eq!(lines[lines.len() - 3..], ["c:c1", "o:c1", "turn_aborted"]);
    assert_eq!(rig.requests(), 1, "resuming asks the model nothing");
    assert_eq!(
        ask(&rig, &mut client).await,
        ["u:go", "c:c1", "o:c1", "u:next"]
    );
}

#[tokio::test(start_paused = true)]
async fn turn_ids_do_not_come_back_after_a_resume() {
    let (mut rig, path, content) = history().await;
    let mut client = rig.resume(path).await;
    rig.model.push(Reply::text("r", "ok"));
    client.user("next").await;
    let EventMsg::TurnStarted { turn_id } = client.next().await.msg else {
        panic!("the turn starts")
    };
    assert!(
        !String::from_utf8(content)
            .unwrap()
            .contains(turn_id.as_str())
    );
}

#[test]
fn what_can_not_be_read_is_passed_over() {
    let text = concat!(
        "garbage\n",
        r#"{"timestamp":"t","ordinal":4,"type":"session_meta","payload":{"id":"s"}}"#,
        "\n\u{0}\n\n",
        r#"{"timestamp":"t","type":"response_item","payload":{"role":"user","content":"hi"}}"#,
        "\n",
        r#"{"timestamp":"t","type":"world_state","payload":{}}"#,
    );
    let restored = restore(text.as_bytes());
    assert_eq!(restored.session_id.as_deref(), Some("s"));
    assert_eq!((restored.items.len(), restored.next_ordinal), (1, 7));
    assert!(restored.lacks_newline && restored.keep_bytes == text.len());
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_fails_the_turn_and_damages_nothing() {
    let replies = vec![Reply::text("r1", "a"), Reply::text("r2", "b")];
    let rig = Rig::new(replies, vec![]);
    let mut client = rig.start().await;
    *lock(&rig.store.room_bytes) = Some(30);
    client.user("one").await;
    assert!(
        matches!(client.end().await, EventMsg::TurnFailed { message, .. } if message.contains("rollout"))
    );
    assert_eq!(
        rig.requests(),
        0,
        "nothing is sent that is not in the rollout"
    );
    client.user("two").await;
    assert!(matches!(client.end().await, EventMsg::TurnFailed { .. }));
    *lock(&rig.store.room_bytes) = None;
    client.user("three").await;
    assert!(matches!(client.end().await, EventMsg::TurnComplete { .. }));
    assert_eq!(rig.request(0).outline(), ["u:one", "u:two", "u:three"]);
    let path = client.session.rollout_path().to_owned();
    client.shutdown().await;
    let lines = rig.store.outline(&path);
    let ends = lines
        .iter()
        .filter(|line| line.starts_with("turn_") && *line != "turn_context");
    let ends: Vec<_> = ends.map(String::as_str).collect();
    let failed = ["turn_started", "turn_failed"];
    assert_eq!(ends[..4], [failed, failed].concat());
    assert_eq!(ends[4..], ["turn_started", "turn_complete"]);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fills_up_during_a_turn_does_not_stop_the_interrupt() {
    let rig = Rig::new(vec![Reply::Silence], vec![]);
    let mut client = rig.start().await;
    client.user("one").await;
    client.next().await;
    *lock(&rig.store.room_bytes) = Some(5);
    client.interrupt().await;
    let events = client.until(EventMsg::is_terminal).await;
    assert!(
        events
            .iter()
            .any(|event| matches!(event.msg, EventMsg::Error { .. }))
    );
    assert!(matches!(
        events.last().unwrap().msg,
        EventMsg::TurnAborted { .. }
    ));
    *lock(&rig.store.room_bytes) = None;
    let path = client.session.rollout_path().to_owned();
    client.shutdown().await;
    assert!(
        rig.store
            .outline(&path)
            .ends_with(&["marker".to_owned(), "turn_aborted".to_owned()])
    );
}

#[tokio::test(start_paused = true)]
async fn a_rollout_that_is_not_there_is_an_error() {
    let mut rig = Rig::new(vec![], vec![]);
    rig.config.resume = Some(Path::new("/nowhere").to_owned());
    let started = Session::start(rig.config.clone(), rig.services()).await;
    assert!(matches!(started, Err(StartError::Rollout { .. })));
}

#[tokio::test(start_paused = true)]
async fn markers_are_counted() {
    let (_, _, content) = history().await;
    assert_eq!(restore(&content).markers(), 1);
}
