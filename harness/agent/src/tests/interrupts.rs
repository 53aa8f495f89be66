//! Interrupts at every kind of place.

use std::time::Duration;

use cutpoint_protocol::session::{AbortReason, EventMsg, InputItem, Op, Submission};
use tokio::time::Instant;

use super::support::{Entry, Reply, Rig, ToolStep, aborts, is_aborted, soon};
use crate::{Session, lock};

fn is_interrupted(msg: &EventMsg) -> bool {
    is_aborted(msg, AbortReason::Interrupted)
}

#[tokio::test(start_paused = true)]
async fn during_text() {
    let first = Reply::text("resp_1", "hello").hang_after("response.output_text.delta", 1);
    let rig = Rig::new(vec![first, Reply::text("resp_2", "ok")], vec![]);
    let mut client = rig.start().await;
    client.user("hi").await;
    client.delta().await;
    client.interrupt().await;
    assert!(is_interrupted(&client.next().await.msg));
    assert_eq!(*rig.model.closed.borrow(), 1, "the stream is closed");
    client.user("next").await;
    client.end().await;
    assert_eq!(
        rig.request(1).outline(),
        ["u:hi", "a:he", "marker", "u:next"]
    );
}

#[tokio::test(start_paused = true)]
async fn during_a_tool() {
    let tool = vec![ToolStep::Print("half of it"), ToolStep::Hang];
    let rig = Rig::new(
        vec![Reply::shell("resp_1", &["c1"]), Reply::text("resp_2", "ok")],
        vec![tool],
    );
    let mut client = rig.start().await;
    client.user("go").await;
    client
        .until(|msg| matches!(msg, EventMsg::ExecCommandOutputDelta { .. }))
        .await;
    client.interrupt().await;
    assert!(matches!(
        client.next().await.msg,
        EventMsg::ExecCommandEnd {
            exit_code: None,
            ..
        }
    ));
    assert!(is_interrupted(&client.next().await.msg));
    assert_eq!(rig.tools.alive(), 0);
    client.user("next").await;
    client.end().await;
    let request = rig.request(1);
    assert_eq!(
        request.outline(),
        ["u:go", "c:c1", "o:c1", "marker", "u:next"]
    );
    let output = request.output("c1");
    assert!(
        output.contains("aborted") && output.contains("half of it"),
        "{output}"
    );
}

#[tokio::test(start_paused = true)]
async fn with_one_call_ended_and_one_running() {
    let tools = vec![
        vec![ToolStep::Print("all"), ToolStep::Exit(0)],
        vec![ToolStep::Hang],
    ];
    let rig = Rig::new(
        vec![
            Reply::shell("resp_1", &["c1", "c2"]),
            Reply::text("resp_2", "ok"),
        ],
        tools,
    );
    let mut client = rig.start().await;
    client.user("go").await;
    client
        .until(|msg| matches!(msg, EventMsg::ExecCommandEnd { .. }))
        .await;
    client.interrupt().await;
    assert!(is_interrupted(&client.end().await));
    client.user("next").await;
    client.end().await;
    let request = rig.request(1);
    assert_eq!(
        request.outline(),
        ["u:go", "c:c1", "c:c2", "o:c1", "o:c2", "marker", "u:next"]
    );
    assert!(request.output("c1").contains("exit code 0"));
    assert!(request.output("c2").contains("aborted"));
}

#[tokio::test(start_paused = true)]
async fn in_the_middle_of_a_calls_arguments() {
    let first =
        Reply::shell("resp_1", &["c1"]).hang_after("response.function_call_arguments.delta", 1);
    let rig = Rig::new(vec![first, Reply::text("resp_2", "ok")], vec![]);
    let open = rig.hold("stream.event");
    let mut client = rig.start().await;
    client.user("go").await;
    rig.reached().await;
    open.send_replace(true);
    soon(tokio::time::sleep(Duration::from_secs(1))).await;
    client.interrupt().await;
    assert!(is_interrupted(&client.end().await));
    client.user("next").await;
    client.end().await;
    assert_eq!(rig.request(1).outline(), ["u:go", "marker", "u:next"]);
}

#[tokio::test(start_paused = true)]
async fn twice() {
    let rig = Rig::new(vec![Reply::Silence], vec![]);
    let mut client = rig.start().await;
    client.user("go").await;
    client.interrupt().await;
    client.interrupt().await;
    assert_eq!(aborts(&client.rest().await), 1);
}

#[tokio::test(start_paused = true)]
async fn while_idle() {
    let rig = Rig::new(vec![Reply::text("resp_1", "hello")], vec![]);
    let mut client = rig.start().await;
    client.interrupt().await;
    assert_eq!(client.rest().await, []);
    client.user("hi").await;
    client.end().await;
    client.interrupt().await;
    assert_eq!(client.rest().await, []);
    let path = client.session.rollout_path().to_owned();
    client.shutdown().await;
    assert!(!rig.store.outline(&path).contains(&"marker".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn right_behind_the_start() {
    let rig = Rig::new(vec![Reply::text("resp_1", "hello")], vec![]);
    let mut client = rig.start().await;
    client.user("hi").await;
    client.interrupt().await;
    let rest = client.rest().await;
    assert!(matches!(rest[0], EventMsg::TurnStarted { .. }));
    assert_eq!(aborts(&rest), 1);
    assert!(is_interrupted(rest.last().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn before_the_first_request_is_sent() {
    let rig = Rig::new(vec![Reply::text("resp_1", "hello")], vec![]);
    let open = rig.hold("request.send");
    let mut client = rig.start().await;
    client.user("hi").await;
    rig.reached().await;
    client.interrupt().await;
    assert!(is_interrupted(&client.end().await));
    assert_eq!(rig.requests(), 0);
    open.send_replace(true);
    client.user("next").await;
    client.end().await;
    assert_eq!(rig.request(0).outline(), ["u:hi", "marker", "u:next"]);
}

#[tokio::test(start_paused = true)]
async fn while_a_retry_backs_off() {
    let rig = Rig::new(
        vec![Reply::status(503), Reply::text("resp_2", "ok")],
        vec![],
    );
    let open = rig.hold("request.backoff");
    let mut client = rig.start().await;
    client.user("hi").await;
    rig.reached().await;
    open.send_replace(true);
    client.interrupt().await;
    assert!(is_interrupted(&client.end().await));
    soon(tokio::time::sleep(Duration::from_secs(60))).await;
    assert_eq!(rig.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_finish_that_was_quicker_wins() {
    let rig = Rig::new(vec![Reply::text("resp_1", "hello")], vec![]);
    let open = rig.hold("turn.taken");
    let mut client = rig.start().await;
    client.user("hi").await;
    rig.reached().await;
    client.interrupt().await;
    let before = client.rest().await;
    assert!(!before.iter().any(EventMsg::is_terminal), "{before:?}");
    open.send_replace(true);
    assert!(matches!(client.end().await, EventMsg::TurnComplete { .. }));
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_that_was_quicker_wins() {
    let rig = Rig::new(vec![Reply::text("resp_1", "hello")], vec![]);
    let open = rig.hold("turn.finish");
    let mut client = rig.start().await;
    client.user("hi").await;
    rig.reached().await;
    client.interrupt().await;
    assert!(is_interrupted(&client.end().await));
    open.send_replace(true);
    assert_eq!(client.rest().await, []);
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_will_not_go_is_given_the_grace_period_only() {
    let rig = Rig::new(
        vec![Reply::shell("resp_1", &["c1"])],
        vec![vec![ToolStep::Hang]],
    );
    *lock(&rig.tools.stubborn) = true;
    let mut client = rig.start().await;
    client.user("go").await;
    client.begin_of_tool().await;
    let start = Instant::now();
    client.interrupt().await;
    assert!(is_interrupted(&client.end().await));
    let took = start.elapsed();
    assert!(
        took >= Duration::from_millis(99) && took < Duration::from_millis(110),
        "{took:?}"
    );
    assert_eq!(rig.tools.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_marker_is_written_and_synced_before_the_event() {
    let rig = Rig::new(vec![Reply::Silence], vec![]);
    let mut client = rig.start().await;
    client.user("go").await;
    client.interrupt().await;
    client.end().await;
    let log = lock(&rig.log).clone();
    let marker = log
        .iter()
        .position(|it| matches!(it, Entry::Write(text) if text.contains("<turn_aborted>")))
        .unwrap();
    let sync = marker
        + log[marker..]
            .iter()
            .position(|it| *it == Entry::Sync)
            .unwrap();
    let event = log
        .iter()
        .position(|it| matches!(it, Entry::Emit(msg) if msg.is_terminal()))
        .unwrap();
    assert!(marker < sync && sync < event);
    let Entry::Write(text) = &log[marker] else {
        panic!("a write")
    };
    assert!(
        text.ends_with('\n') && text.contains("turn_aborted\",\"turn_id"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn steered_input_survives_an_interrupt() {
    let first = Reply::text("resp_1", "hello").hang_after("response.output_text.delta", 1);
    let rig = Rig::new(vec![first, Reply::text("resp_2", "ok")], vec![]);
    let mut client = rig.start().await;
    client.user("hi").await;
    client.delta().await;
    client.user("steer").await;
    client.interrupt().await;
    client.end().await;
    client.user("next").await;
    client.end().await;
    assert_eq!(
        rig.request(1).outline(),
        ["u:hi", "a:he", "u:steer", "marker", "u:next"]
    );
}

/// The client reads nothing while deltas fill the queue, interrupts, and only then reads.
async fn full_queue(capacity: usize) {
    let mut rig = Rig::new(
        vec![Reply::text("resp_1", &"word ".repeat(40)).hang_after("response.output_text.done", 1)],
        vec![],
    );
    rig.config.event_queue = capacity;
    let (session, mut events) = Session::start(rig.config.clone(), rig.services())
        .await
        .unwrap();
    let submit = |n: usize, op: Op| {
        session.submit(Submission {
            id: format!("s{n}").into(),
            op,
        })
    };
    let items = vec![InputItem::Text {
        text: "go".to_owned(),
    }];
    soon(submit(
        0,
        Op::UserInput {
            items,
            turn_id: None,
        },
    ))
    .await
    .unwrap();
    for n in 1..20 {
        soon(submit(n, Op::Interrupt)).await.unwrap();
    }
    soon(submit(20, Op::Shutdown)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut seen = Vec::new();
    while let Some(event) = soon(events.recv()).await {
        seen.push(event.msg);
    }
    assert_eq!(aborts(&seen), 1);
    assert_eq!(seen.last(), Some(&EventMsg::ShutdownComplete));
}

#[tokio::test(start_paused = true)]
async fn with_a_full_event_queue() {
    for capacity in 1..6 {
        full_queue(capacity).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_full_event_queue_on_several_threads() {
    full_queue(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_does_not_hold_up_the_marker() {
    let reply = Reply::shell("resp_1", &["c1", "c2", "c3"]);
    let tools = vec![vec![ToolStep::Print("x"), ToolStep::Hang]; 3];
    let mut rig = Rig::new(vec![reply], tools);
    rig.config.event_queue = 1;
    let mut client = rig.start().await;
    client.user("go").await;
    client.next().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.interrupt().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let path = client.session.rollout_path().to_owned();
    assert!(
        rig.store
            .outline(&path)
            .contains(&"turn_aborted".to_owned())
    );
    assert!(is_interrupted(&client.end().await));
}

#[tokio::test(start_paused = true)]
async fn a_killed_session_does_nothing_more() {
    let rig = Rig::new(
        vec![Reply::shell("resp_1", &["c1"])],
        vec![vec![ToolStep::Hang]],
    );
    let mut client = rig.start().await;
    client.user("go").await;
    client.begin_of_tool().await;
    client.interrupt().await;
    let before = lock(&rig.log).len();
    client.session.kill();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(lock(&rig.log).len(), before);
    assert_eq!(rig.tools.alive(), 0);
    assert_eq!(soon(client.events.recv()).await, None);
}
