//! Which reply a request gets.

use cutpoint_engine::server::case::{RequestTally, Script, ScriptedBody};
use cutpoint_protocol::sse::Document;
use cutpoint_recording::{Exchange, RecordedRequest, Recording, Response};
use cutpoint_scenario::ast::{DisconnectKind, ReplyEnd};
use cutpoint_trace::Observation;
use serde_json::{Value, json};

use crate::client;
use crate::rig::{
    Rig, composed, config, reply, says, scripted, text_part, text_reply, user, with_items,
};

fn stream_of(text: &str) -> Vec<u8> {
    composed(&[text_part(text, 2)], &ReplyEnd::Completed).concat()
}

fn recorded(number: usize, request: &Value, answer: &str) -> Exchange {
    let document = Document::parse(&stream_of(answer), 1 << 20).unwrap();
    let request = RecordedRequest {
        method: "POST".to_owned(),
        path: "/v1/responses".to_owned(),
        headers: Default::default(),
        body: request.clone(),
    };
    Exchange {
        number,
        request: Some(request),
        response: Response::Stream(document),
    }
}

fn assistant(text: &str) -> Value {
    let content = json!([{"type": "output_text", "text": text, "annotations": []}]);
    json!({"type": "message", "role": "assistant", "content": content})
}

/// Three requests of one conversation and one of another, with their answers.
fn conversations() -> Vec<(Value, &'static str)> {
    let first = [user("fix it"), assistant("looking"), user("go on")];
    let second = [&first[..], &[assistant("fixed"), user("thanks")]].concat();
    vec![
        (with_items(&first[..1]), "looking"),
        (with_items(&first), "fixed"),
        (with_items(&[user("review it")]), "fine"),
        (with_items(&second), "welcome"),
    ]
}

fn recording() -> Recording {
    let mut recording = Recording::new("talk", "a test");
    let exchanges = conversations().into_iter().enumerate();
    recording.exchanges = exchanges
        .map(|(at, (request, answer))| recorded(at + 1, &request, answer))
        .collect();
    recording
}

#[tokio::test]
async fn another_conversation_does_not_eat_the_replies() {
    let rig = Rig::replies(
        vec![text_reply("one"), text_reply("two")],
        &["reply 1 event 2"],
    )
    .await;
    let mut held = rig.ask(&says("main task")).await;
    rig.reached("reply 1 event 2").await;
    let (status, body) = rig.ask_json(&says("sub task")).await;
    assert_eq!(
        (status, &body["error"]["code"]),
        (500, &json!("unscripted_request"))
    );
    rig.release("reply 1 event 2");
    held.head().await;
    assert_eq!(held.finish().await, client::End::Whole);
    assert!(
        String::from_utf8(held.body)
            .unwrap()
            .contains(r#""text":"one""#)
    );
    let second = with_items(&[user("main task"), assistant("one"), user("more")]);
    let stream = rig.ask_stream(&second).await;
    assert!(
        String::from_utf8(stream)
            .unwrap()
            .contains(r#""text":"two""#)
    );
    let conversations = rig.tracer.with(0, |entries| {
        let of = |what: &Observation| match what {
            Observation::Request { conversation, .. } => Some(*conversation),
            _ => None,
        };
        entries
            .iter()
            .filter_map(|entry| of(&entry.observation))
            .collect::<Vec<_>>()
    });
    assert_eq!(conversations, [0, 1, 0]);
}

#[tokio::test]
async fn parallel_requests_get_their_own_answers() {
    let rig = Rig::recording(recording(), &[]).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        for (request, answer) in conversations() {
            clients.push((rig.ask(&request).await, answer));
        }
    }
    for (client, answer) in clients.iter_mut().rev() {
        client.head().await;
        assert_eq!(client.finish().await, client::End::Whole);
        assert_eq!(client.body, stream_of(answer));
    }
}

#[tokio::test]
async fn a_retry_after_a_fault_gets_the_next_reply() {
    let unavailable = ScriptedBody::Status {
        status: 503,
        headers: vec![],
        body: "{}".to_owned(),
    };
    let faults = [
        reply(
            vec![text_part("torn", 1)],
            ReplyEnd::Drop(DisconnectKind::Reset),
        ),
        reply(
            vec![text_part("torn", 1)],
            ReplyEnd::Drop(DisconnectKind::Close),
        ),
        reply(
            vec![text_part("torn", 1)],
            ReplyEnd::Drop(DisconnectKind::End),
        ),
        scripted(unavailable),
        reply(
            vec![],
            ReplyEnd::Failed {
                code: "server_error".to_owned(),
                message: None,
            },
        ),
    ];
    let count = faults.len();
    let replies = faults.into_iter().chain([text_reply("whole")]).collect();
    let rig = Rig::replies(replies, &[]).await;
    for _ in 0..count {
        let mut client = rig.ask(&says("hi")).await;
        client.head().await;
        client.finish().await;
    }
    let stream = rig.ask_stream(&says("hi")).await;
    assert!(
        String::from_utf8(stream)
            .unwrap()
            .contains(r#""text":"whole""#)
    );
}

#[tokio::test]
async fn a_recording_is_matched_by_content_in_any_order_and_again() {
    let rig = Rig::recording(recording(), &[]).await;
    for order in [[3, 1, 0, 2], [0, 1, 2, 3], [2, 2, 3, 3]] {
        for at in order {
            let (request, answer) = &conversations()[at];
            assert_eq!(rig.ask_stream(request).await, stream_of(answer), "{at}");
        }
    }
    let tally = RequestTally {
        served: 12,
        exact: 12,
        ..RequestTally::default()
    };
    assert_eq!(rig.case.tally(), tally);
}

#[tokio::test]
async fn equal_requests_get_their_answers_in_order() {
    let mut recording = Recording::new("retry", "a test");
    let request = says("hi");
    recording.exchanges = (1..=3)
        .map(|number| recorded(number, &request, &format!("try {number}")))
        .collect();
    let rig = Rig::recording(recording, &[]).await;
    for number in [1, 2, 3, 3] {
        assert_eq!(
            rig.ask_stream(&request).await,
            stream_of(&format!("try {number}"))
        );
    }
}

#[tokio::test]
async fn what_matches_nothing_is_shown_against_the_nearest() {
    let rig = Rig::recording(recording(), &[]).await;
    let stray = with_items(&[user("fix it"), assistant("looking"), user("stop it")]);
    let (status, body) = rig.ask_json(&stray).await;
    assert_eq!(
        (status, &body["error"]["type"]),
        (500, &json!("cutpoint_unscripted_request"))
    );
    let message = body["error"]["message"].as_str().unwrap();
    for part in [
        "cutpoint: no recorded request has this history",
        "exchange 2",
        "go on",
        "stop it",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
    let lines: Vec<&str> = message.lines().collect();
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with('-') && line.contains("go on")),
        "{message}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with('+') && line.contains("stop it")),
        "{message}"
    );
    let tally = RequestTally {
        diverged: 1,
        unmatched: 1,
        ..RequestTally::default()
    };
    assert_eq!(rig.case.tally(), tally);
    let told = |what: &Observation| match what {
        Observation::Unscripted {
            exchange: 1,
            message: told,
        } => message.ends_with(told),
        _ => false,
    };
    assert_eq!(rig.count(told), 1);
}

#[tokio::test]
async fn when_no_reply_is_left_the_answer_says_what_was_asked() {
    let rig = Rig::replies(vec![text_reply("a")], &[]).await;
    rig.ask_stream(&says("hi")).await;
    let more = with_items(&[user("hi"), assistant("a"), user("again")]);
    let (status, body) = rig.ask_json(&more).await;
    let message = body["error"]["message"].as_str().unwrap();
    assert_eq!(status, 500);
    assert!(
        message.contains("request 2 of the conversation has no reply (1 scripted)"),
        "{message}"
    );
    assert!(message.contains("+ user \"again\""), "{message}");
    let tally = RequestTally {
        served: 1,
        unmatched: 1,
        ..RequestTally::default()
    };
    assert_eq!(rig.case.tally(), tally);
}

#[tokio::test]
async fn an_exchange_of_a_recording_can_stand_among_replies() {
    let body = |exchange| ScriptedBody::Recorded {
        recording: recording().into(),
        exchange,
    };
    let replies = vec![scripted(body(3)), text_reply("composed"), scripted(body(9))];
    let rig = Rig::new(config(
        Script::Replies(replies.into()),
        &["reply 1 event 2"],
    ))
    .await;
    rig.release("reply 1 event 2");
    assert_eq!(rig.ask_stream(&says("hi")).await, stream_of("fine"));
    rig.ask_stream(&says("hi")).await;
    let (status, body) = rig.ask_json(&says("hi")).await;
    assert_eq!(status, 500);
    let message = "cutpoint: recording `talk` has 4 exchanges, so there is no exchange 9";
    assert_eq!(body["error"]["message"], message);
}
