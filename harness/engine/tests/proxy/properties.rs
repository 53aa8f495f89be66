//! Whatever a server streams: the client gets it as it is, and so it is recorded.

use cutpoint_engine::server::case::Script;
use cutpoint_protocol::sse::{Document, EVENT_LIMIT_BYTES};
use cutpoint_recording::{Exchange, Recording, Response};
use cutpoint_scenario::ast::{DisconnectKind, ReplyEnd, ReplyPart};
use proptest::prelude::*;

use crate::client;
use crate::rig::{Rig, composed, config, reply, says};
use crate::support::{ask, before, only, stream, wire};

fn any_part() -> impl Strategy<Value = ReplyPart> {
    // The proxy takes secrets out, and short of those any text may look like an address of e-mail.
    let text = || "[\\PC&&[^@]]{0,30}";
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
        Just(ReplyPart::Malformed {
            text: "data: {oops".to_owned()
        }),
        Just(ReplyPart::Malformed {
            text: ": a comment".to_owned()
        }),
    ]
}

fn any_end() -> impl Strategy<Value = (ReplyEnd, Option<&'static str>, client::End)> {
    prop_oneof![
        Just((ReplyEnd::Completed, None, client::End::Whole)),
        Just((
            ReplyEnd::Drop(DisconnectKind::End),
            None,
            client::End::Whole
        )),
        Just((
            ReplyEnd::Drop(DisconnectKind::Close),
            Some("close"),
            client::End::Closed
        )),
        Just((
            ReplyEnd::Drop(DisconnectKind::Reset),
            Some("reset"),
            client::End::Reset
        )),
    ]
}

/// Streams that no API sends: any line endings, comments, no event at all.
fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"\n".to_vec()),
        Just(b"\r".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"data: ".to_vec()),
        Just(b"event:x".to_vec()),
        Just(b": c".to_vec()),
        Just(b"{\"type\":\"a\",\"delta\":\"b\"}".to_vec()),
        Just("é\u{1F600}".as_bytes().to_vec()),
        proptest::collection::vec(1..=255u8, 0..4),
    ];
    let pieces = proptest::collection::vec(piece, 1..40);
    pieces.prop_map(|pieces| [&b"data: x\n"[..], &pieces.concat()].concat())
}

fn block_on(future: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(future);
}

async fn round_trip(rig: Rig, whole: &[u8], cut: Option<&str>, end: client::End) {
    let proxy = before(rig.address()).await;
    let mut client = ask(&proxy, &says("hi")).await;
    let head = client.head().await;
    let seen = client.finish().await;
    // Bytes that a reset overtakes are lost to the client, with a proxy or without.
    if end == client::End::Reset {
        assert!(whole.starts_with(&client.body));
    } else {
        assert_eq!((seen, client.body.as_slice()), (end, whole));
    }
    assert_eq!(
        head.header("content-type"),
        Some("text/event-stream; charset=utf-8")
    );
    let recorded = proxy.finish().await;
    let document = stream(only(&recorded));
    if end == client::End::Reset {
        assert!(whole.starts_with(&wire(document)));
    } else {
        assert_eq!(wire(document), whole);
    }
    assert_eq!(document.setting("end"), cut);
    assert_eq!(recorded.report.kinds.len(), 0);
    assert_eq!(recorded.notes, [""; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_is_replayed_is_recorded_byte_for_byte(
        parts in proptest::collection::vec(any_part(), 0..5),
        (end, cut, seen) in any_end(),
    ) {
        block_on(async {
            let whole = composed(&parts, &end).concat();
            let script = Script::Replies(vec![reply(parts, end)].into());
            round_trip(Rig::new(config(script, &[])).await, &whole, cut, seen).await;
        });
    }

    #[test]
    fn so_is_what_no_api_sends(bytes in any_bytes()) {
        block_on(async {
            let document = Document::parse(&bytes, EVENT_LIMIT_BYTES).unwrap();
            let whole = wire(&document);
            let mut recording = Recording::new("r", "a test");
            recording.exchanges = vec![Exchange::bare(1, Response::Stream(document))];
            let rig = Rig::recording(recording, &[]).await;
            round_trip(rig, &whole, None, client::End::Whole).await;
        });
    }
}
