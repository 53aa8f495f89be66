//! Real processes and real files.

use std::path::Path;
use std::time::Duration;

use cutpoint_protocol::session::EventMsg;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::support::{Reply, Rig};
use crate::{
    FileStore, ProcessTools, RolloutStore, RunningTool, Session, ToolCommand, ToolEvent, ToolRunner,
};

fn script(text: &str) -> ToolCommand {
    ToolCommand {
        argv: ["bash", "-c", text].map(str::to_owned).to_vec(),
        cwd: std::env::temp_dir(),
        env: vec![("COLOUR".to_owned(), "blue".to_owned())],
        timeout: None,
    }
}

async fn run(text: &str) -> (String, Option<i32>) {
    let mut tool = ProcessTools.spawn(script(text)).await.unwrap();
    let mut output = Vec::new();
    loop {
        match tool.next().await {
            ToolEvent::Output(bytes) => output.extend_from_slice(&bytes),
            ToolEvent::Exited(code) => return (String::from_utf8(output).unwrap(), code),
        }
    }
}

/// Reads lines until there are `count` numbers, and returns them.
async fn pids(tool: &mut dyn RunningTool, count: usize) -> Vec<i32> {
    let mut text = String::new();
    loop {
        let ToolEvent::Output(bytes) = tool.next().await else {
            panic!("the tool has ended: {text}")
        };
        text.push_str(std::str::from_utf8(&bytes).unwrap());
        if text.ends_with('\n') && text.lines().count() == count {
            return text
                .lines()
                .map(|line| line.trim().parse().unwrap())
                .collect();
        }
    }
}

/// Waits until a process is gone or a zombie that its new parent has yet to reap.
async fn gone(pid: i32) {
    for _ in 0..200 {
        let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if kill(Pid::from_raw(pid), None).is_err() || status.contains(") Z ") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("process {pid} is still there");
}

#[tokio::test]
async fn output_and_exit_code() {
    assert_eq!(
        run("echo $COLOUR; exit 3").await,
        ("blue\n".to_owned(), Some(3))
    );
    let (output, code) = run("echo to-stderr >&2; kill -9 $$").await;
    assert_eq!((output.as_str(), code), ("to-stderr\n", None));
    assert_eq!(run("read -r x || echo no input").await.0, "no input\n");
    assert_eq!(
        run("head -c 300000 /dev/zero | tr '\\0' x").await.0.len(),
        300_000
    );
    let command = ToolCommand {
        argv: vec!["/no/such/program".to_owned()],
        ..script("")
    };
    assert!(ProcessTools.spawn(command).await.is_err());
}

#[tokio::test]
async fn a_killed_tool_takes_its_children_along() {
    // A child, one in a session of its own, and one whose parent is gone.
    let text = "sleep 1000 & echo $!; setsid sh -c 'echo $$; exec sleep 1000' & wait %2 2>/dev/null & \
        (setsid sh -c 'echo $$; exec sleep 1000' &) ; echo $$; wait";
    let mut tool = ProcessTools.spawn(script(text)).await.unwrap();
    let group = tool.pid().unwrap() as i32;
    let pids = pids(tool.as_mut(), 4).await;
    assert!(pids.contains(&group), "the process leads its group");
    tool.kill().await;
    for pid in pids {
        gone(pid).await;
    }
}

#[tokio::test]
async fn a_dropped_tool_is_killed() {
    let mut tool = ProcessTools
        .spawn(script("sleep 1000 & echo $!; echo $$; wait"))
        .await
        .unwrap();
    let pids = pids(tool.as_mut(), 2).await;
    drop(tool);
    for pid in pids {
        gone(pid).await;
    }
}

#[tokio::test]
async fn what_stays_in_the_background_ends_with_the_tool() {
    let (output, code) = run("sleep 1000 & echo $!").await;
    assert_eq!(code, Some(0));
    gone(output.trim().parse().unwrap()).await;
    assert_eq!(run("yes & exit 4").await.1, Some(4));
}

#[tokio::test]
async fn a_killed_session_leaves_no_tool() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = r#"{"command":["bash","-c","sleep 1000 & echo $!; wait"]}"#;
    let call = cutpoint_protocol::compose::ItemContent::Function {
        call_id: "c1",
        name: "shell",
        arguments,
        chunks: 1,
    };
    let mut rig = Rig::new(vec![Reply::compose("r1", &[call])], vec![]);
    rig.config.cwd = directory.path().to_owned();
    let mut services = rig.services();
    services.tools = std::sync::Arc::new(ProcessTools);
    services.store = std::sync::Arc::new(FileStore::new(directory.path().join("rollouts")));
    let (session, events) = Session::start(rig.config.clone(), services).await.unwrap();
    let mut client = super::support::Client::new(session, events);
    client.user("go").await;
    let seen = client
        .until(|msg| matches!(msg, EventMsg::ExecCommandOutputDelta { .. }))
        .await;
    let Some(EventMsg::ExecCommandOutputDelta { chunk, .. }) = seen.last().map(|event| &event.msg)
    else {
        panic!("{seen:?}")
    };
    let child = chunk.trim().parse().unwrap();
    let begun = seen.iter().find_map(|event| match event.msg {
        EventMsg::ExecCommandBegin { pid, .. } => pid,
        _ => None,
    });
    let path = client.session.rollout_path().to_owned();
    client.session.kill();
    gone(child).await;
    gone(begun.unwrap() as i32).await;
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.ends_with('\n') && text.contains("turn_started"));
}

#[tokio::test]
async fn the_file_store_appends_and_reads_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::new(directory.path().join("a/b"));
    let mut file = store.create("r.jsonl").await.unwrap();
    assert_eq!(file.write(b"one\ntw").await.unwrap(), 6);
    file.sync().await.unwrap();
    let path = file.path().to_owned();
    assert!(store.create("r.jsonl").await.is_err());
    let (mut again, content) = store.open(&path).await.unwrap();
    assert_eq!(content, b"one\ntw");
    again.truncate(4).await.unwrap();
    again.write(b"two\n").await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\n");
    assert!(store.open(Path::new("/no/such/file")).await.is_err());
}
