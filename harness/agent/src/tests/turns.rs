//! Turns that nothing cuts: text, calls, steering, replacing, failing.

use cutpoint_protocol::compose::ItemContent;
use cutpoint_protocol::session::{AbortReason, EventMsg, Op};
use tokio::sync::watch;

use super::support::{Reply, Rig, ToolStep, is_aborted};

#[tokio::test(start_paused = true)]
async fn a_turn_without_calls() {
    let rig = Rig::new(vec![Reply::text("resp_1", "hello")], vec![]);
    let mut client = rig.start().await;
    let id = client.user("hi").await;
    let events = client.until(EventMsg::is_terminal).await;
    assert!(events.iter().all(|event| event.id == id));
    let EventMsg::TurnStarted { turn_id } = &events[0].msg else {
        panic!("{events:?}")
    };
    assert_eq!(uuid::Uuid::parse_str(turn_id).unwrap().get_version_num(), 7);
    assert!(
        events
            .iter()
            .all(|event| event.msg.turn_id() == Some(turn_id))
    );
    let last = Some("hello".to_owned());
    assert!(
        matches!(&events.last().unwrap().msg, EventMsg::TurnComplete { last_agent_message, .. } if *last_agent_message == last)
    );
    assert_eq!(rig.request(0).outline(), ["u:hi"]);
    assert_ne!(client.session.session_id().as_str(), turn_id.as_str());
    let body = rig.request(0);
    assert_eq!(
        (&body.body()["store"], &body.body()["stream"]),
        (&false.into(), &true.into())
    );
    let path = client.session.rollout_path().to_owned();
    client.shutdown().await;
    assert_eq!(
        rig.store.outline(&path),
        [
            "session_meta",
            "turn_started",
            "turn_context",
            "u:hi",
            "user_message",
            "a:hello",
            "agent_message",
            "token_count",
            "turn_complete"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn calls_of_every_kind_make_a_round() {
    let command = ["ls".to_owned()];
    let reply = Reply::compose(
        "resp_1",
        &[
            ItemContent::Reasoning {
                text: "hm",
                chunks: 1,
            },
            ItemContent::Function {
                call_id: "c1",
                name: "shell",
                arguments: r#"{"command":["a"]}"#,
                chunks: 1,
            },
            ItemContent::Custom {
                call_id: "c2",
                name: "run_script",
                input: "b",
                chunks: 1,
            },
            ItemContent::LocalShell {
                call_id: "c3",
                command: &command,
            },
            ItemContent::Function {
                call_id: "c4",
                name: "fly",
                arguments: "{}",
                chunks: 1,
            },
            ItemContent::Function {
                call_id: "c5",
                name: "shell",
                arguments: "{",
                chunks: 1,
            },
        ],
    );
    let tools = vec![
        vec![ToolStep::Print("one"), ToolStep::Exit(0)],
        vec![ToolStep::Exit(3)],
        vec![ToolStep::Exit(0)],
    ];
    let rig = Rig::new(vec![reply, Reply::text("resp_2", "done")], tools);
    let mut client = rig.start().await;
    client.user("go").await;
    assert!(matches!(client.end().await, EventMsg::TurnComplete { .. }));
    let request = rig.request(1);
    assert_eq!(
        request.outline(),
        [
            "u:go", "r", "c:c1", "c:c2", "c:c3", "c:c4", "c:c5", "o:c1", "o:c2", "o:c3", "o:c4",
            "o:c5"
        ]
    );
    assert_eq!(request.faults(), []);
    assert_eq!(
        request.output("c1"),
        "status: completed, exit code 0\noutput:\none"
    );
    assert!(request.output("c2").contains("exit code 3"));
    assert!(request.output("c4").contains("no tool `fly`"));
    assert!(request.output("c5").contains("not valid JSON"));
    assert_eq!(rig.tools.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn parallel_calls_run_side_by_side() {
    let (open, gate) = watch::channel(false);
    let tools = vec![
        vec![ToolStep::Gate(gate), ToolStep::Exit(0)],
        vec![ToolStep::Print("second"), ToolStep::Exit(0)],
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
    // The second ends while the first still runs.
    client
        .until(|msg| matches!(msg, EventMsg::ExecCommandEnd { call_id, .. } if call_id == "c2"))
        .await;
    open.send_replace(true);
    client.end().await;
    assert_eq!(rig.request(1).outline()[3..], ["o:c1", "o:c2"]);
}

#[tokio::test(start_paused = true)]
async fn input_joins_the_next_request_of_a_running_turn() {
    let (open, gate) = watch::channel(false);
    let tools = vec![vec![ToolStep::Gate(gate), ToolStep::Exit(0)]];
    let rig = Rig::new(
        vec![Reply::shell("resp_1", &["c1"]), Reply::text("resp_2", "ok")],
        tools,
    );
    let mut client = rig.start().await;
    client.user("go").await;
    client.begin_of_tool().await;
    client.user("faster").await;
    assert_eq!(client.rest().await, []);
    open.send_replace(true);
    client.end().await;
    assert_eq!(
        rig.request(1).outline(),
        ["u:go", "c:c1", "o:c1", "u:faster"]
    );
}

#[tokio::test(start_paused = true)]
async fn input_that_comes_too_late_is_in_the_next_turn() {
    let (open, gate) = watch::channel(false);
    let first = Reply::text("resp_1", "hello").gated("response.output_text.delta", 1, gate);
    let rig = Rig::new(vec![first, Reply::text("resp_2", "ok")], vec![]);
    let mut client = rig.start().await;
    client.user("hi").await;
    client.delta().await;
    client.user("one more thing").await;
    assert_eq!(client.rest().await, []);
    open.send_replace(true);
    client.end().await;
    assert_eq!(rig.requests(), 1);
    client.user("next").await;
    client.end().await;
    assert_eq!(
        rig.request(1).outline(),
        ["u:hi", "a:hello", "u:one more thing", "u:next"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_new_turn_replaces_the_running_one() {
    let first = Reply::text("resp_1", "hello").hang_after("response.output_text.delta", 1);
    let rig = Rig::new(vec![first, Reply::text("resp_2", "ok")], vec![]);
    let mut client = rig.start().await;
    let one = client.user("hi").await;
    client.delta().await;
    let two = client.replace("other").await;
    let events = client.until(EventMsg::is_terminal).await;
    let last = events.last().unwrap();
    assert!(is_aborted(&last.msg, AbortReason::Replaced) && last.id == one);
    assert!(
        matches!(client.next().await, event if event.id == two && matches!(event.msg, EventMsg::TurnStarted { .. }))
    );
    client.end().await;
    assert_eq!(
        rig.request(1).outline(),
        ["u:hi", "a:he", "u:other"],
        "no marker for a replaced turn"
    );
}

#[tokio::test(start_paused = true)]
async fn calls_that_no_output_could_be_paired_with_are_left_out() {
    let first = Reply::shell("resp_1", &["", "c1", "c1"]);
    let rig = Rig::new(
        vec![first, Reply::text("resp_2", "ok")],
        vec![vec![ToolStep::Exit(0)]],
    );
    let mut client = rig.start().await;
    client.user("go").await;
    let events = client.until(EventMsg::is_terminal).await;
    let told = events
        .iter()
        .filter(|event| matches!(event.msg, EventMsg::BackgroundEvent { .. }));
    assert_eq!(told.count(), 2);
    assert_eq!(rig.request(1).outline(), ["u:go", "c:c1", "o:c1"]);
}

#[tokio::test(start_paused = true)]
async fn unknown_ops_and_late_approvals_break_nothing() {
    let rig = Rig::new(vec![Reply::text("resp_1", "hello")], vec![]);
    let mut client = rig.start().await;
    client
        .submit(Op::Unknown(serde_json::json!({"type": "levitate"})))
        .await;
    assert!(
        matches!(client.next().await.msg, EventMsg::Error { message } if message.contains("levitate"))
    );
    client
        .submit(Op::UserTurn {
            items: vec![],
            turn_id: None,
        })
        .await;
    assert!(
        matches!(client.next().await.msg, EventMsg::Error { message } if message.contains("empty"))
    );
    let decision = cutpoint_protocol::session::Decision::Denied;
    client
        .submit(Op::ExecApproval {
            call_id: "c".into(),
            decision,
        })
        .await;
    assert_eq!(client.rest().await, []);
    client.user("hi").await;
    assert!(matches!(client.end().await, EventMsg::TurnComplete { .. }));
}

/// The tokens that each report of a turn told of, as read and written.
async fn tokens(client: &mut super::support::Client) -> Vec<(u64, u64)> {
    client.user("go").await;
    let events = client.until(EventMsg::is_terminal).await;
    let counts = events.into_iter().filter_map(|event| match event.msg {
        EventMsg::TokenCount {
            input_tokens,
            output_tokens,
            ..
        } => Some((input_tokens, output_tokens)),
        _ => None,
    });
    counts.collect()
}

#[tokio::test(start_paused = true)]
async fn tokens_are_counted_by_turn() {
    let replies = vec![
        Reply::shell("r1", &["c1"]),
        Reply::text("r2", "ok"),
        Reply::text("r3", "ok"),
    ];
    let rig = Rig::new(replies, vec![vec![ToolStep::Exit(0)]]);
    let mut client = rig.start().await;
    let first = tokens(&mut client).await;
    let [(input, output), sum] = first[..] else {
        panic!("one report for each response: {first:?}")
    };
    assert!(input > 0 && output > 0);
    assert_eq!(sum, (2 * input, 2 * output));
    assert_eq!(tokens(&mut client).await, [(input, output)]);
}

#[tokio::test(start_paused = true)]
async fn usage_that_makes_no_sense_counts_as_none() {
    let reply = |usage: serde_json::Value| {
        let response = serde_json::json!({"id": "r", "output": [], "usage": usage});
        let completed = serde_json::json!({"type": "response.completed", "response": response});
        let event = cutpoint_protocol::StreamEvent::from_value(completed).unwrap();
        Reply::Stream(vec![super::support::Step::Event(event)])
    };
    let odd = serde_json::json!({"input_tokens": -7, "output_tokens": "many"});
    let rig = Rig::new(vec![reply(odd), reply(serde_json::Value::Null)], vec![]);
    let mut client = rig.start().await;
    assert_eq!(tokens(&mut client).await, [(0, 0)]);
    assert_eq!(tokens(&mut client).await, [(0, 0)]);
}

#[tokio::test(start_paused = true)]
async fn input_without_a_word_is_refused_and_changes_nothing() {
    let first = Reply::text("r1", "hello").hang_after("response.output_text.delta", 1);
    let rig = Rig::new(vec![first], vec![]);
    let mut client = rig.start().await;
    client.user("hi").await;
    client.delta().await;
    client.user(" \n").await;
    client.replace("").await;
    let refused =
        |msg: &EventMsg| matches!(msg, EventMsg::Error { message } if message.contains("empty"));
    let events = client.rest().await;
    assert!(
        events.len() == 2 && events.iter().all(refused),
        "{events:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_the_running_turn_first() {
    let rig = Rig::new(vec![Reply::Silence], vec![]);
    let mut client = rig.start().await;
    client.user("hi").await;
    let said = client.until(|msg| matches!(msg, EventMsg::UserMessage { .. }));
    said.await;
    let events = client.shutdown().await;
    assert!(matches!(&events[..], [first, _] if is_aborted(first, AbortReason::Interrupted)));
}

#[tokio::test(start_paused = true)]
async fn routing_headers_end_with_their_turn() {
    let replies = vec![
        Reply::shell("r1", &["c1"]),
        Reply::text("r2", "a"),
        Reply::text("r3", "b"),
    ];
    let rig = Rig::new(replies, vec![vec![ToolStep::Exit(0)]]);
    let mut client = rig.start().await;
    for text in ["one", "two"] {
        client.user(text).await;
        client.end().await;
    }
    let has = |at: usize| {
        let requests = crate::lock(&rig.model.requests);
        requests[at]
            .headers
            .iter()
            .any(|(name, _)| *name == cutpoint_protocol::headers::TURN_STATE)
    };
    assert_eq!([has(0), has(1), has(2)], [false, true, false]);
}
