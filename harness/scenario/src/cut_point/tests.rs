use super::*;

fn point(phrase: &str) -> CutPoint {
    phrase
        .parse()
        .unwrap_or_else(|error| panic!("{phrase}: {error}"))
}

fn call(id: &str) -> String {
    id.to_owned()
}

/// Each phrase means its point, and the point prints as the phrase.
fn check(forms: &[(&str, CutPoint)]) {
    for (phrase, expected) in forms {
        assert_eq!(point(phrase), *expected, "{phrase}");
        assert_eq!(expected.to_string(), *phrase);
    }
}

#[test]
fn points_of_a_stream_parse_and_print_back() {
    check(&[
        ("request 2", CutPoint::Request { reply: 2 }),
        ("headers of reply 2", CutPoint::Headers { reply: 2 }),
        (
            "reply 1 event 4",
            CutPoint::StreamEvent { reply: 1, event: 4 },
        ),
        (
            "byte 17 of reply 1 event 3",
            CutPoint::Byte {
                reply: 1,
                event: 3,
                byte: 17,
            },
        ),
        (
            "delta 2 of call_1",
            CutPoint::Delta {
                nth: DeltaIndex::At(2),
                of: DeltaSource::Call(call("call_1")),
            },
        ),
        (
            "middle delta of a-b",
            CutPoint::Delta {
                nth: DeltaIndex::Middle,
                of: DeltaSource::Call(call("a-b")),
            },
        ),
        (
            "last delta of reply 1",
            CutPoint::Delta {
                nth: DeltaIndex::Last,
                of: DeltaSource::Reply(1),
            },
        ),
        (
            "added of call_1",
            CutPoint::Added {
                call: call("call_1"),
            },
        ),
        (
            "done of call_1",
            CutPoint::Done {
                call: call("call_1"),
            },
        ),
        ("end of reply 1", CutPoint::End { reply: 1 }),
    ]);
}

#[test]
fn points_of_the_agent_parse_and_print_back() {
    check(&[
        (
            "call_1 running",
            CutPoint::Running {
                call: call("call_1"),
            },
        ),
        ("17 exited", CutPoint::Exited { call: call("17") }),
        (
            "approval of call_1 pending",
            CutPoint::Approval {
                call: call("call_1"),
            },
        ),
        (
            "question of call_1 pending",
            CutPoint::Question {
                call: call("call_1"),
            },
        ),
        ("started", CutPoint::Started),
        ("aborting", CutPoint::Aborting),
        ("idle", CutPoint::Idle),
        (
            "event call-begin 2",
            CutPoint::AgentEvent {
                event: AgentEventKind::CallBegin,
                nth: 2,
            },
        ),
        (
            "point rollout.flush",
            CutPoint::Point {
                label: call("rollout.flush"),
                nth: 1,
            },
        ),
        (
            "point running 3",
            CutPoint::Point {
                label: call("running"),
                nth: 3,
            },
        ),
    ]);
}

#[test]
fn other_spellings_mean_the_same() {
    assert_eq!(point("first delta of reply 2"), point("delta 1 of reply 2"));
    assert_eq!(point("point a 1"), point("point a"));
    assert_eq!(point("told call-begin 2"), point("event call-begin 2"));
    assert_eq!(point("  reply  1 event 04 "), point("reply 1 event 4"));
    // `point` begins a phrase of its own, so this is a label and not a call.
    assert_eq!(
        point("point running"),
        CutPoint::Point {
            label: call("running"),
            nth: 1
        }
    );
}

#[test]
fn the_first_word_of_a_phrase_is_no_call_id() {
    for phrase in &PHRASES {
        assert!(is_reserved(phrase.word), "{}", phrase.word);
        assert!(phrase.form.starts_with(phrase.word), "{}", phrase.form);
        let again = point(phrase.form).to_string();
        assert!(again == phrase.form || phrase.word == "first", "{again}");
    }
    assert!(is_reserved("told"), "an old spelling is still read");
    // All other words of the grammar are free.
    for call in ["of", "pending", "running", "exited", "call-begin"] {
        for phrase in [
            format!("{call} running"),
            format!("done of {call}"),
            format!("last delta of {call}"),
            format!("question of {call} pending"),
        ] {
            assert_eq!(point(&phrase).to_string(), phrase);
        }
    }
}

#[test]
fn errors_point_at_the_wrong_word() {
    let cases = [
        ("", 0..0, "write one of"),
        ("reply 1 event 0", 14..15, "reply 1 event 4"),
        ("reply one event 2", 6..9, "reply 1 event 4"),
        ("reply 1 evnt 2", 8..12, "reply 1 event 4"),
        ("delta 2 of", 10..10, "delta 2 of call_1"),
        ("delta 2 call_1", 8..14, "delta 2 of call_1"),
        ("last delta of idle", 14..18, "last delta of call_1"),
        ("call_1 runing", 7..13, "did you mean `running`?"),
        ("call_1 sleeps", 7..13, "`call_1 running` or"),
        ("call_1", 0..6, "`call_1 running`"),
        ("requst 2", 0..6, "did you mean `request`?"),
        ("running call_1", 0..7, "`call_1 running`"),
        ("2nd delta of call_1", 0..3, "delta 2 of call_1"),
        ("event 3 of reply 1", 6..7, "reply 1 event 3"),
        ("idle now", 5..8, "write `idle`"),
        ("event mesage", 6..12, "did you mean `message`?"),
        ("event", 5..5, "write one of turn-started"),
        ("done of a.b", 8..11, "letters, digits"),
        ("byte +1 of reply 1 event 1", 5..7, "byte 17"),
        ("request 99999999999999999999999", 8..31, "like `request 2`"),
        ("point a/b", 6..9, "a label has"),
        ("approval of call_1", 18..18, "pending"),
    ];
    for (phrase, span, help) in cases {
        let error = phrase.parse::<CutPoint>().expect_err(phrase);
        assert_eq!(error.span, span, "{phrase}: {error}");
        assert!(error.to_string().contains(help), "{phrase}: {error}");
    }
}
