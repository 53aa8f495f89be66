//! Recorded streams that call tools: byte for byte, or written for the tools that a request offers.

use std::sync::Arc;

use cutpoint_engine::server::case::{CaseConfig, RecordedCalls, Script};
use cutpoint_protocol::sse::Document;
use cutpoint_recording::{Exchange, Recording, Response};
use cutpoint_scenario::ast::ReplyEnd;
use serde_json::{Value, json};

use crate::rig::{Rig, composed, config, function_part, says};

/// What the recorded exchange sent: a call of the tool `look`.
fn recorded_stream() -> Vec<u8> {
    composed(&[function_part("call_1", 3)], &ReplyEnd::Completed).concat()
}

async fn rig(recorded_calls: RecordedCalls) -> Rig {
    let mut recording = Recording::new("capture", "a test");
    let document = Document::parse(&recorded_stream(), 1 << 20).unwrap();
    recording.exchanges = vec![Exchange::bare(1, Response::Stream(document))];
    let script = Script::Recording(Arc::new(recording));
    Rig::new(CaseConfig {
        recorded_calls,
        ..config(script, &[])
    })
    .await
}

/// A request that offers these function tools.
fn offering(tools: &[&str]) -> Value {
    let tool = |name: &&str| json!({"type": "function", "name": name, "parameters": {}});
    let mut request = says("hi");
    request["tools"] = tools.iter().map(tool).collect();
    request
}

/// The names of the tools that a stream calls.
fn called(stream: &[u8]) -> Vec<String> {
    let document = Document::parse(stream, 1 << 20).unwrap();
    let events = document.frames.iter().filter_map(|frame| {
        let value: Value = serde_json::from_str(&frame.event.as_ref()?.data).ok()?;
        (value["type"] == "response.output_item.done").then(|| value["item"]["name"].clone())
    });
    events
        .map(|name| name.as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_recording_is_sent_byte_for_byte_whatever_tools_a_client_offers() {
    let rig = rig(RecordedCalls::AsRecorded).await;
    for tools in [&["shell"][..], &["look"], &[], &["shell", "look"]] {
        assert_eq!(
            rig.ask_stream(&offering(tools)).await,
            recorded_stream(),
            "{tools:?}"
        );
    }
}

#[tokio::test]
async fn one_clients_substitutes_are_not_sent_to_another() {
    let rig = rig(RecordedCalls::Substituted).await;
    for _ in 0..2 {
        assert_eq!(
            called(&rig.ask_stream(&offering(&["shell"])).await),
            ["shell"]
        );
        assert_eq!(
            rig.ask_stream(&offering(&["look"])).await,
            recorded_stream()
        );
    }
}

#[tokio::test]
async fn captured_calls_stay_as_they_are_unless_substitutes_are_asked_for() {
    let rig = rig(RecordedCalls::Portable).await;
    assert_eq!(
        rig.ask_stream(&offering(&["shell"])).await,
        recorded_stream()
    );
}
