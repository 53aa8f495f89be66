//! Whatever the stream and wherever it is cut: nothing is lost, added or sent too early.

use std::time::Duration;

use cutpoint_engine::server::body::Pace;
use cutpoint_engine::server::case::Script;
use cutpoint_protocol::sse::Document;
use cutpoint_recording::{Exchange, Recording, Response};
use cutpoint_scenario::ast::{ReplyEnd, ReplyPart};
use proptest::prelude::*;

use crate::client;
use crate::rig::{Rig, composed, config, reply, says};

fn any_part() -> impl Strategy<Value = ReplyPart> {
    let text = || "\\PC{0,30}";
    prop_oneof![
        (text(), 1..6usize).prop_map(|(text, chunks)| ReplyPart::Text { text, chunks }),
        (text(), 1..4usize).prop_map(|(text, chunks)| ReplyPart::Reasoning { text, chunks }),
        ("[a-z]{1,5}", text(), 1..5usize).prop_map(|(call, arguments, chunks)| {
            ReplyPart::Function {
                call,
                name: "look".to_owned(),
                arguments,
                chunks,
            }
        }),
        ("[a-z]{1,5}", text(), 1..5usize).prop_map(|(call, input, chunks)| {
            ReplyPart::Custom {
                call,
                name: "patch".to_owned(),
                input,
                chunks,
            }
        }),
        ("[a-z]{1,5}", text()).prop_map(|(call, word)| ReplyPart::LocalShell {
            call,
            command: vec![word]
        }),
        Just(ReplyPart::Malformed {
            text: "data: {oops".to_owned()
        }),
        Just(ReplyPart::Malformed {
            text: ": a comment".to_owned()
        }),
        Just(ReplyPart::Pause {
            duration: Duration::from_micros(200)
        }),
    ]
}

/// A cut, as fractions of the stream and of the event.
fn any_cut() -> impl Strategy<Value = (prop::sample::Index, prop::sample::Index, bool)> {
    (
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        any::<bool>(),
    )
}

/// The cut points of a stream with the number of bytes in front of each, in order. Events are
/// counted without what is no event.
fn cuts(
    frames: &[Vec<u8>],
    wanted: &[(prop::sample::Index, prop::sample::Index, bool)],
) -> Vec<(usize, String)> {
    let is_event = |at: &usize| frames[*at].starts_with(b"event: ");
    let events: Vec<usize> = (0..frames.len()).filter(is_event).collect();
    let mut cuts: Vec<(usize, String)> = wanted
        .iter()
        .map(|(event, byte, inside)| {
            let number = 1 + event.index(events.len());
            let frame = events[number - 1];
            let before = frames[..frame].concat().len();
            let size = frames[frame].len();
            if *inside {
                let byte = 1 + byte.index(size - 1);
                (
                    before + byte,
                    format!("byte {byte} of reply 1 event {number}"),
                )
            } else {
                (before + size, format!("reply 1 event {number}"))
            }
        })
        .collect();
    cuts.sort();
    cuts.dedup();
    cuts
}

async fn cut_stream(parts: Vec<ReplyPart>, cuts: &[(usize, String)], pace: Pace, whole: &[u8]) {
    let phrases: Vec<&str> = cuts.iter().map(|(_, phrase)| phrase.as_str()).collect();
    let mut settings = config(
        Script::Replies(vec![reply(parts, ReplyEnd::Completed)].into()),
        &phrases,
    );
    settings.pace = pace;
    let rig = Rig::new(settings).await;
    let mut client = rig.ask(&says("hi")).await;
    client.head().await;
    for (bytes, phrase) in cuts {
        rig.reached(phrase).await;
        client.read_body(*bytes).await;
        assert!(client.is_silent(), "{phrase}");
        assert_eq!(client.body, &whole[..*bytes], "{phrase}");
        rig.release(phrase);
    }
    assert_eq!(client.finish().await, client::End::Whole);
    assert_eq!(client.body, whole);
}

/// One block of a recording: its bytes, and those of them that go over the wire.
fn any_block() -> impl Strategy<Value = (String, String)> {
    let line = prop_oneof![
        "[a-z :]{0,12}".prop_map(|text| (format!("data:{text}"), true)),
        "[a-z]{1,8}".prop_map(|text| (format!("event: {text}"), true)),
        "[a-z ]{0,8}".prop_map(|text| (format!(": {text}"), true)),
        Just((": cutpoint status=200".to_owned(), false)),
        (0..3u32).prop_map(|ms| (format!(": +{ms}ms"), false)),
        Just((
            r#"data: {"type":"response.output_text.delta","delta":"é"}"#.to_owned(),
            true
        )),
    ];
    let ending = prop_oneof![Just("\n"), Just("\r\n"), Just("\r")];
    (prop::collection::vec(line, 0..5), ending).prop_map(|(lines, ending)| {
        let join = |wanted: &dyn Fn(bool) -> bool| {
            let lines = lines.iter().filter(|(_, wire)| wanted(*wire));
            lines
                .map(|(line, _)| format!("{line}{ending}"))
                .collect::<String>()
                + ending
        };
        (join(&|_| true), join(&|wire| wire))
    })
}

fn run(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(test);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_cut_stream_is_the_uncut_one(
        parts in prop::collection::vec(any_part(), 0..5),
        wanted in prop::collection::vec(any_cut(), 0..5),
        burst in any::<bool>(),
    ) {
        let frames = composed(&parts, &ReplyEnd::Completed);
        let cuts = cuts(&frames, &wanted);
        let pace = if burst { Pace::Burst } else { Pace::Flushed };
        run(cut_stream(parts, &cuts, pace, &frames.concat()));
    }

    #[test]
    fn a_recorded_stream_goes_over_the_wire_as_it_was_recorded(
        blocks in prop::collection::vec(any_block(), 1..8),
        torn in "(|data: torn|: cutpoint end=stop)",
        timed in any::<bool>(),
    ) {
        let mut bytes: String = blocks.iter().map(|(all, _)| all.as_str()).collect();
        let mut wire: String = blocks.iter().map(|(_, wire)| wire.as_str()).collect();
        bytes.push_str(&torn);
        if torn.starts_with("data") {
            wire.push_str(&torn);
        }
        let document = Document::parse(bytes.as_bytes(), 1 << 20).unwrap();
        let mut recording = Recording::new("any", "a test");
        recording.exchanges.push(Exchange::bare(1, Response::Stream(document)));
        let mut settings = config(Script::Recording(recording.into()), &[]);
        settings.timed = timed;
        run(async {
            let rig = Rig::new(settings).await;
            let body = rig.ask_stream(&says("hi")).await;
            assert_eq!(String::from_utf8(body).unwrap(), wire);
        });
    }
}
