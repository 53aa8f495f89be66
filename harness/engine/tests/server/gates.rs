//! Gates: a held client has exactly what stands in front of the point, and then all the rest.

use cutpoint_engine::server::body::Pace;
use cutpoint_engine::server::case::Script;
use cutpoint_engine::server::gate::GateDecision;
use cutpoint_protocol::StreamEvent;
use cutpoint_scenario::ast::{DisconnectKind, ReplyEnd, ReplyPart};
use cutpoint_trace::Observation;

use crate::client;
use crate::rig::{PATH, Rig, composed, config, function_part, reply, says, text_part};

fn parts() -> Vec<ReplyPart> {
    let reasoning = ReplyPart::Reasoning {
        text: "let me see".to_owned(),
        chunks: 2,
    };
    let custom = ReplyPart::Custom {
        call: "call_2".to_owned(),
        name: "apply_patch".to_owned(),
        input: "*** Begin Patch".to_owned(),
        chunks: 2,
    };
    vec![
        reasoning,
        text_part("wörds and more", 3),
        function_part("call_1", 4),
        custom,
    ]
}

/// The frames, with their events' names: what the cut points are counted on.
struct Stream {
    frames: Vec<Vec<u8>>,
    names: Vec<String>,
}

impl Stream {
    fn new() -> Self {
        let frames = composed(&parts(), &ReplyEnd::Completed);
        let name = |frame: &Vec<u8>| {
            let text = std::str::from_utf8(frame).unwrap();
            let (name, data) = text
                .strip_prefix("event: ")
                .unwrap()
                .split_once("\ndata: ")
                .unwrap();
            assert_eq!(StreamEvent::parse(data).unwrap().type_name(), name);
            name.to_owned()
        };
        let names = frames.iter().map(name).collect();
        Self { frames, names }
    }

    fn bytes(&self, frames: usize) -> Vec<u8> {
        self.frames[..frames].concat()
    }

    fn whole(&self) -> Vec<u8> {
        self.frames.concat()
    }

    /// How many bytes have been sent after the n-th event whose name ends so.
    fn after(&self, name: &str, nth: usize) -> Vec<u8> {
        let mut found = (0..self.names.len()).filter(|at| self.names[*at].ends_with(name));
        self.bytes(found.nth(nth - 1).unwrap() + 1)
    }
}

/// Runs a reply up to a gate, compares, lets go, and compares the rest.
async fn check(phrase: &str, prefix: &[u8], whole: &[u8], pace: Pace) {
    let mut settings = config(
        Script::Replies(vec![reply(parts(), ReplyEnd::Completed)].into()),
        &[phrase],
    );
    settings.pace = pace;
    let rig = Rig::new(settings).await;
    let mut client = rig.ask(&says("hi")).await;
    rig.reached(phrase).await;
    assert_eq!(client.head().await.status, 200, "{phrase}");
    client.read_body(prefix.len()).await;
    assert!(
        client.is_silent(),
        "{phrase}: more than what stands in front of it"
    );
    assert_eq!(client.body, prefix, "{phrase}");
    rig.release(phrase);
    assert_eq!(client.finish().await, client::End::Whole, "{phrase}");
    assert_eq!(client.body, whole, "{phrase}");
    assert_eq!(rig.case.scenario_errors(), Vec::<String>::new());
}

#[tokio::test]
async fn every_point_between_events() {
    let stream = Stream::new();
    let whole = stream.whole();
    let last = stream.frames.len();
    let mut points = vec![
        ("headers of reply 1".to_owned(), Vec::new()),
        ("end of reply 1".to_owned(), stream.bytes(last - 1)),
        (
            "first delta of reply 1".to_owned(),
            stream.after(".delta", 1),
        ),
        // 2 of the reasoning, 3 of the text, 4 and 2 of the calls.
        (
            "middle delta of reply 1".to_owned(),
            stream.after(".delta", 6),
        ),
        (
            "last delta of reply 1".to_owned(),
            stream.after(".delta", 11),
        ),
        (
            "delta 1 of call_1".to_owned(),
            stream.after("call_arguments.delta", 1),
        ),
        (
            "delta 3 of call_1".to_owned(),
            stream.after("call_arguments.delta", 3),
        ),
        (
            "middle delta of call_1".to_owned(),
            stream.after("call_arguments.delta", 2),
        ),
        (
            "last delta of call_1".to_owned(),
            stream.after("call_arguments.delta", 4),
        ),
        (
            "middle delta of call_2".to_owned(),
            stream.after("call_input.delta", 1),
        ),
        (
            "last delta of call_2".to_owned(),
            stream.after("call_input.delta", 2),
        ),
        (
            "added of call_1".to_owned(),
            stream.after("output_item.added", 3),
        ),
        (
            "added of call_2".to_owned(),
            stream.after("output_item.added", 4),
        ),
        (
            "done of call_1".to_owned(),
            stream.after("output_item.done", 3),
        ),
        (
            "done of call_2".to_owned(),
            stream.after("output_item.done", 4),
        ),
    ];
    points.extend((1..=last).map(|k| (format!("reply 1 event {k}"), stream.bytes(k))));
    for (phrase, prefix) in points {
        for pace in [Pace::Flushed, Pace::Burst] {
            check(&phrase, &prefix, &whole, pace).await;
        }
    }
}

#[tokio::test]
async fn every_byte_of_an_event() {
    let stream = Stream::new();
    let whole = stream.whole();
    let event = 1 + stream
        .names
        .iter()
        .position(|name| name.ends_with("input.delta"))
        .unwrap();
    let before = stream.bytes(event - 1);
    for byte in 1..stream.frames[event - 1].len() {
        let prefix = whole[..before.len() + byte].to_vec();
        let phrase = format!("byte {byte} of reply 1 event {event}");
        check(&phrase, &prefix, &whole, Pace::Flushed).await;
    }
}

#[tokio::test]
async fn before_a_request_is_answered_not_even_the_head_is_sent() {
    let whole = composed(&parts(), &ReplyEnd::Completed).concat();
    let replies = vec![reply(parts(), ReplyEnd::Completed)];
    let rig = Rig::replies(replies, &["request 1"]).await;
    let mut client = rig.ask(&says("hi")).await;
    rig.reached("request 1").await;
    assert!(client.has_nothing());
    rig.release("request 1");
    assert_eq!(client.head().await.status, 200);
    assert_eq!(client.finish().await, client::End::Whole);
    assert_eq!(client.body, whole);
}

#[tokio::test]
async fn several_gates_in_one_reply_hold_one_after_the_other() {
    let stream = Stream::new();
    let (second, fourth) = (stream.bytes(2), stream.bytes(4));
    let inside = stream.whole()[..second.len() + 9].to_vec();
    let points = [
        ("headers of reply 1", Vec::new()),
        ("reply 1 event 2", second),
        ("byte 9 of reply 1 event 3", inside),
        ("reply 1 event 4", fourth.clone()),
        // The fourth event is the first delta: two gates at one place.
        ("first delta of reply 1", stream.after(".delta", 1)),
        ("end of reply 1", stream.bytes(stream.frames.len() - 1)),
    ];
    let phrases: Vec<&str> = points.iter().map(|(phrase, _)| *phrase).collect();
    let rig = Rig::replies(vec![reply(parts(), ReplyEnd::Completed)], &phrases).await;
    let mut client = rig.ask(&says("hi")).await;
    rig.reached(phrases[0]).await;
    client.head().await;
    for (phrase, prefix) in &points {
        rig.reached(phrase).await;
        client.read_body(prefix.len()).await;
        assert!(client.is_silent(), "{phrase}");
        assert_eq!(&client.body, prefix, "{phrase}");
        rig.release(phrase);
    }
    assert_eq!(client.finish().await, client::End::Whole);
    assert_eq!(client.body, stream.whole());
}

#[tokio::test]
async fn a_gate_that_was_opened_before_does_not_hold() {
    let stream = Stream::new();
    let points = [
        "request 1",
        "headers of reply 1",
        "reply 1 event 3",
        "byte 5 of reply 1 event 5",
    ];
    let rig = Rig::replies(vec![reply(parts(), ReplyEnd::Completed)], &points).await;
    for phrase in points {
        rig.release(phrase);
    }
    assert_eq!(rig.ask_stream(&says("hi")).await, stream.whole());
    let gate = |what: &Observation| {
        matches!(
            what,
            Observation::Reached { .. } | Observation::Released { .. }
        )
    };
    assert_eq!(rig.count(gate), 0);
}

#[tokio::test]
async fn a_later_gate_opened_while_an_earlier_one_holds_does_not_hold() {
    let stream = Stream::new();
    let points = [
        "reply 1 event 1",
        "byte 5 of reply 1 event 2",
        "reply 1 event 3",
    ];
    let rig = Rig::replies(vec![reply(parts(), ReplyEnd::Completed)], &points).await;
    let mut client = rig.ask(&says("hi")).await;
    rig.reached(points[0]).await;
    for phrase in points.iter().rev() {
        rig.release(phrase);
    }
    client.head().await;
    assert_eq!(client.finish().await, client::End::Whole);
    assert_eq!(client.body, stream.whole());
}

#[tokio::test]
async fn only_the_first_decision_counts() {
    let rig = Rig::replies(
        vec![reply(parts(), ReplyEnd::Completed)],
        &["reply 1 event 1"],
    )
    .await;
    let mut client = rig.ask(&says("hi")).await;
    rig.reached("reply 1 event 1").await;
    rig.release("reply 1 event 1");
    rig.gate("reply 1 event 1")
        .decide(GateDecision::Drop(DisconnectKind::Reset));
    client.head().await;
    assert_eq!(client.finish().await, client::End::Whole);
}

#[tokio::test]
async fn a_gate_knows_the_connection_that_it_holds() {
    let rig = Rig::replies(
        vec![reply(parts(), ReplyEnd::Completed)],
        &["reply 1 event 1"],
    )
    .await;
    let client = rig.ask(&says("hi")).await;
    rig.reached("reply 1 event 1").await;
    let ends = rig.gate("reply 1 event 1").ends().unwrap();
    assert_eq!(ends.client, client.stream.local_addr().unwrap());
    assert_eq!(ends.server, rig.address());
}

#[tokio::test]
async fn a_point_that_the_stream_lacks_is_the_scenarios_mistake() {
    let points = [
        "reply 1 event 99",
        "byte 9999 of reply 1 event 1",
        "delta 9 of call_1",
    ];
    let rig = Rig::replies(vec![reply(parts(), ReplyEnd::Completed)], &points).await;
    assert_eq!(rig.ask_stream(&says("hi")).await, Stream::new().whole());
    let errors = rig.case.scenario_errors();
    assert_eq!(errors.len(), 3, "{errors:?}");
    for (error, phrase) in errors.iter().zip(points) {
        assert!(error.starts_with(&format!("at=\"{phrase}\": ")), "{error}");
    }
}

#[tokio::test]
async fn a_gate_holds_everything_that_reaches_it_and_lets_all_of_it_go() {
    let stream = Stream::new();
    let gate = "first delta of call_1";
    let prefix = stream.after("call_arguments.delta", 1);
    let server = Rig::replies(vec![reply(parts(), ReplyEnd::Completed)], &[]).await;
    let bytes = server.ask_stream(&says("hi")).await;
    let document = cutpoint_protocol::sse::Document::parse(&bytes, 1 << 20).unwrap();
    let response = cutpoint_recording::Response::Stream(document);
    let mut recording = cutpoint_recording::Recording::new("r", "a test");
    recording
        .exchanges
        .push(cutpoint_recording::Exchange::bare(1, response));
    let rig = Rig::recording(recording, &[gate]).await;
    let mut clients = Vec::new();
    for n in 0..3 {
        let mut client = rig.ask(&says(&format!("conversation {n}"))).await;
        client.head().await;
        client.read_body(prefix.len()).await;
        clients.push(client);
    }
    rig.reached(gate).await;
    for client in &mut clients {
        assert!(client.is_silent());
        assert_eq!(client.body, prefix);
    }
    rig.release(gate);
    for client in &mut clients {
        assert_eq!(client.finish().await, client::End::Whole);
        assert_eq!(client.body, stream.whole());
    }
}

/// The server must not say that a client stands at a gate while bytes before it wait in its own
/// buffers. The client here does not read until the server is stuck; then it reads without letting
/// the server run again (they share a thread), so that it gets only what the kernel has.
#[tokio::test]
async fn a_gate_is_reached_only_when_all_before_it_is_within_the_clients_reach() {
    const EVENTS: usize = 400;
    let parts = vec![text_part(&"x".repeat(EVENTS * (48 << 10)), EVENTS)];
    let frames = composed(&parts, &ReplyEnd::Completed);
    let phrases: Vec<String> = (1..=frames.len())
        .map(|k| format!("reply 1 event {k}"))
        .collect();
    let gates: Vec<&str> = phrases.iter().map(String::as_str).collect();
    let rig = Rig::replies(vec![reply(parts, ReplyEnd::Completed)], &gates).await;
    let mut client = rig.ask(&says("hi")).await;
    client.head().await;
    let mut other = client::Client::connect(rig.address()).await;
    let (mut reached, mut turns_in_vain) = (0, 0);
    while turns_in_vain < 20 {
        other
            .send(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n")
            .await;
        other.json().await;
        turns_in_vain += 1;
        if rig.count(|what| matches!(what, Observation::Reached { .. })) > reached {
            rig.release(gates[reached]);
            reached += 1;
            turns_in_vain = 0;
        }
    }
    assert!(reached > 0 && reached < EVENTS, "{reached}");
    client.read_body_without_the_server(frames[..reached].concat().len());

    for gate in &gates[reached..] {
        rig.release(gate);
    }
    assert_eq!(client.finish().await, client::End::Whole);
    assert_eq!(client.body, frames.concat());
}

#[tokio::test]
async fn a_dropped_server_ends_all_connections() {
    let stalled = reply(parts(), ReplyEnd::Stall);
    let points = ["request 1", "reply 2 event 3"];
    let replies = vec![
        reply(parts(), ReplyEnd::Completed),
        reply(parts(), ReplyEnd::Completed),
        stalled,
    ];
    let rig = Rig::replies(replies, &points).await;
    let mut clients = Vec::new();
    for phrase in points {
        clients.push(rig.ask(&says("hi")).await);
        rig.reached(phrase).await;
    }
    let mut idle = client::Client::connect(rig.address()).await;
    idle.send(format!("POST {PATH} HTTP/1.1\r\n").as_bytes())
        .await;
    clients.push(idle);
    let mut stalled = rig.ask(&says("hi")).await;
    stalled.head().await;
    stalled.read_body(100).await;
    clients.push(stalled);
    let (address, tracer) = (rig.address(), std::sync::Arc::downgrade(&rig.tracer));
    drop(rig);
    for mut client in clients {
        client.until_closed().await;
    }
    client::soon("the listener's end", async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(
        tracer.upgrade().is_none(),
        "something of the server is still alive"
    );
}
