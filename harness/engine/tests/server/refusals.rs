//! What the API refuses, the server refuses, with the API's status and body.

use cutpoint_engine::server::case::RESPONSES_KEPT;
use cutpoint_scenario::ast::ReplyEnd;
use cutpoint_trace::Observation;
use serde_json::{Value, json};

use crate::client::{self, Client, post};
use crate::rig::{PATH, Rig, function_part, reply, says, text_part, text_reply, user, with_items};

fn call(id: &str) -> Value {
    json!({"type": "function_call", "call_id": id, "name": "look", "arguments": "{}"})
}

fn output(id: &str) -> Value {
    json!({"type": "function_call_output", "call_id": id, "output": "seen"})
}

fn custom_call(id: &str) -> Value {
    json!({"type": "custom_tool_call", "call_id": id, "name": "apply_patch", "input": "x"})
}

fn custom_output(id: &str) -> Value {
    json!({"type": "custom_tool_call_output", "call_id": id, "output": "done"})
}

fn input_error(message: &str) -> Value {
    let error = json!({
        "message": message, "type": "invalid_request_error", "param": "input", "code": null,
    });
    json!({"error": error})
}

fn not_found(id: &str) -> Value {
    let error = json!({
        "message": format!("Previous response with id '{id}' not found."),
        "type": "invalid_request_error",
        "param": "previous_response_id",
        "code": "previous_response_not_found",
    });
    json!({"error": error})
}

/// Histories that the API refuses, with its messages.
fn refused() -> Vec<(Vec<Value>, &'static str)> {
    vec![
        (
            vec![call("call_1")],
            "No tool output found for function call call_1.",
        ),
        (
            vec![custom_call("call_1")],
            "No tool output found for custom tool call call_1.",
        ),
        (
            vec![call("call_1"), output("call_1"), call("call_2")],
            "No tool output found for function call call_2.",
        ),
        (
            vec![output("call_1")],
            "No tool call found for function call output with call_id call_1.",
        ),
        (
            vec![output("call_1"), call("call_1")],
            "No tool call found for function call output with call_id call_1.",
        ),
        (
            vec![custom_output("call_1")],
            "No tool call found for custom tool call output with call_id call_1.",
        ),
        (
            vec![call("call_1"), output("call_1"), output("call_1")],
            "Duplicate function call output found for call_id call_1.",
        ),
        (
            vec![call("call_1"), custom_output("call_1")],
            "No tool output found for function call call_1.",
        ),
        (
            vec![call(""), output("")],
            "Invalid 'input[1].call_id': empty string. Expected a string with minimum length 1, but got an empty string instead.",
        ),
    ]
}

fn behind_a_prompt(items: &[Value]) -> Value {
    with_items(&[&[user("hi")], items].concat())
}

#[tokio::test]
async fn a_history_that_the_api_refuses_is_refused_and_uses_no_reply_up() {
    let rig = Rig::replies(vec![text_reply("a")], &["request 1"]).await;
    rig.release("request 1");
    let histories = refused();
    for (at, (items, message)) in histories.iter().enumerate() {
        let (status, body) = rig.ask_json(&behind_a_prompt(items)).await;
        assert_eq!((status, body), (400, input_error(message)));
        let exchange_at = at + 1;
        let told = |what: &Observation| match what {
            Observation::Refused {
                exchange,
                status: 400,
                message: told,
            } => *exchange == exchange_at && told == message,
            _ => false,
        };
        assert_eq!(rig.count(told), 1, "{message}");
    }
    let tally = rig.case.tally();
    assert_eq!((tally.refused, tally.served), (histories.len(), 0));
    rig.ask_stream(&behind_a_prompt(&[call("call_1"), output("call_1")]))
        .await;
    assert_eq!(rig.case.tally().served, 1);
}

#[tokio::test]
async fn a_repeated_call_with_an_output_is_let_through() {
    let rig = Rig::replies(vec![text_reply("a")], &[]).await;
    rig.ask_stream(&behind_a_prompt(&[
        call("call_1"),
        call("call_1"),
        output("call_1"),
    ]))
    .await;
}

#[tokio::test]
async fn a_lenient_reply_takes_any_history() {
    for (items, _) in refused() {
        let mut lenient = text_reply("a");
        lenient.lenient = true;
        let rig = Rig::replies(vec![lenient, text_reply("b")], &[]).await;
        rig.ask_stream(&behind_a_prompt(&items)).await;
        // Only that one reply is lenient.
        assert_eq!(rig.ask_json(&behind_a_prompt(&items)).await.0, 400);
    }
}

#[tokio::test]
async fn an_unknown_previous_response_is_not_found() {
    let rig = Rig::replies(vec![text_reply("a")], &[]).await;
    let mut request = says("hi");
    request["previous_response_id"] = json!("resp_7");
    assert_eq!(rig.ask_json(&request).await, (400, not_found("resp_7")));
    rig.ask_stream(&says("hi")).await;
}

fn stored(input: &[Value], previous: Option<&str>) -> Value {
    json!({"model": "m", "stream": true, "input": input, "previous_response_id": previous})
}

/// The ids, texts and types of the history that the trace gives for an exchange.
fn history(rig: &Rig, number: usize) -> Vec<String> {
    let outline = |item: &Value| {
        let text = item["content"][0]["text"]
            .as_str()
            .or(item["call_id"].as_str());
        text.unwrap_or_default().to_owned()
    };
    let found = rig.tracer.find(0, |what| match what {
        Observation::Request {
            exchange, history, ..
        } if *exchange == number => Some(history.clone()),
        _ => None,
    });
    found.unwrap().1.unwrap().iter().map(outline).collect()
}

#[tokio::test]
async fn previous_responses_give_the_history_back() {
    let replies = vec![
        reply(vec![function_part("call_1", 1)], ReplyEnd::Completed),
        text_reply("two"),
        text_reply("three"),
        text_reply("four"),
    ];
    let rig = Rig::replies(replies, &[]).await;
    rig.ask_stream(&stored(&[user("one?")], None)).await;

    // The call of the first response is part of the history, so it wants its output.
    let unanswered = stored(&[user("two?")], Some("resp_1"));
    let message = "No tool output found for function call call_1.";
    assert_eq!(rig.ask_json(&unanswered).await, (400, input_error(message)));

    rig.ask_stream(&stored(&[output("call_1")], Some("resp_1")))
        .await;
    rig.ask_stream(&stored(&[user("three?")], Some("resp_2")))
        .await;
    assert_eq!(history(&rig, 3), ["one?", "call_1", "call_1"]);
    rig.ask_stream(&stored(&[user("four?")], Some("resp_3")))
        .await;
    assert_eq!(
        history(&rig, 5),
        [
            "one?", "call_1", "call_1", "two", "three?", "three", "four?"
        ]
    );
}

#[tokio::test]
async fn an_answer_given_whole_is_remembered_too() {
    let rig = Rig::replies(vec![text_reply("one"), text_reply("two")], &[]).await;
    let request = json!({"model": "m", "input": "one?"});
    assert_eq!(rig.ask_json(&request).await.0, 200);
    rig.ask_stream(&stored(&[user("two?")], Some("resp_1")))
        .await;
    assert_eq!(history(&rig, 2), ["one?", "one", "two?"]);
}

#[tokio::test]
async fn what_is_not_to_be_stored_is_not_found() {
    let rig = Rig::replies(vec![text_reply("one"), text_reply("two")], &[]).await;
    rig.ask_stream(&says("one?")).await;
    let mut request = says("two?");
    request["previous_response_id"] = json!("resp_1");
    assert_eq!(rig.ask_json(&request).await, (400, not_found("resp_1")));

    let whole = json!({"model": "m", "input": "one?", "store": false});
    assert_eq!(rig.ask_json(&whole).await.0, 200);
    request["previous_response_id"] = json!("resp_2");
    assert_eq!(rig.ask_json(&request).await, (400, not_found("resp_2")));
}

#[tokio::test]
async fn an_interrupted_response_is_not_remembered() {
    let gate = "end of reply 1";
    let rig = Rig::replies(vec![text_reply("one"), text_reply("two")], &[gate]).await;
    let client = rig.ask(&stored(&[user("one?")], None)).await;
    rig.reached(gate).await;
    drop(client);
    rig.disconnected(1).await;
    rig.release(gate);
    let request = stored(&[user("two?")], Some("resp_1"));
    assert_eq!(rig.ask_json(&request).await, (400, not_found("resp_1")));
}

#[tokio::test]
async fn a_response_that_failed_is_not_remembered() {
    let failed = ReplyEnd::Failed {
        code: "server_error".to_owned(),
        message: None,
    };
    let incomplete = ReplyEnd::Incomplete {
        reason: "max_output_tokens".to_owned(),
    };
    for end in [failed, incomplete] {
        let replies = vec![reply(vec![text_part("one", 1)], end), text_reply("two")];
        let rig = Rig::replies(replies, &[]).await;
        rig.ask_stream(&stored(&[user("one?")], None)).await;
        let request = stored(&[user("two?")], Some("resp_1"));
        assert_eq!(rig.ask_json(&request).await, (400, not_found("resp_1")));
    }
}

#[tokio::test]
async fn the_oldest_responses_are_forgotten() {
    let count = RESPONSES_KEPT + 1;
    let replies = (0..count + 1).map(|n| text_reply(&n.to_string())).collect();
    let rig = Rig::replies(replies, &[]).await;
    let mut client = Client::connect(rig.address()).await;
    for _ in 0..count {
        client.send(&post(PATH, &stored(&[user("hi")], None))).await;
        assert_eq!(client.head().await.status, 200);
        assert_eq!(client.finish().await, client::End::Whole);
    }
    let after = |id| stored(&[user("and?")], Some(id));
    assert_eq!(
        rig.ask_json(&after("resp_1")).await,
        (400, not_found("resp_1"))
    );
    rig.ask_stream(&after("resp_2")).await;
}
