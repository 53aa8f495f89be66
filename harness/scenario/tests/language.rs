//! The language by example: what is read, where it stood, and how it is laid out.

use std::time::Duration;

use cutpoint_scenario::ast::{
    Action, Await, AwaitedReason, Capability, CutPoint, DisconnectKind, ExpectationKind, ReplyBody,
    ReplyEnd, ReplyPart, Scenario,
};
use cutpoint_scenario::{fingerprint_text, format, parse, print};

const EXAMPLE: &str = r##"scenario "interrupt while a tool runs" {
    about "Ctrl-C during a shell command: the next request must answer its call."
    needs shell resume
    limit "5s"
    model {
        reply { shell call_1 "sleep 60" } // created … completed are implied
        reply lenient=#true { reasoning "hm" chunks=2; text "Hello there" chunks=3; stall }
        reply status=429 retry-after=1 { header "x-request-id" "r1"; body #"{"error":{}}"# }
        reply recording="name" exchange=2
    }
    user "run it"
    interrupt at="call_1 running"
    await turn-aborted reason=interrupted
    user "and now?"
    await turn-complete
    expect { answered call_1 in-request=2 containing="aborted"; no-process "sleep 60" }
    waive CALL-6 because="…"
}
"##;

fn one(source: &str) -> Scenario {
    let mut file = parse("one.kdl", source).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(file.scenarios.len(), 1);
    file.scenarios.remove(0)
}

#[test]
fn the_example_is_read_whole() {
    let scenario = one(EXAMPLE);
    assert_eq!(scenario.name, "interrupt while a tool runs");
    assert_eq!(scenario.needs, [Capability::Shell, Capability::Resume]);
    assert_eq!(scenario.limit, Some(Duration::from_secs(5)));
    assert_eq!(scenario.model.replies.len(), 4);
    assert_eq!(
        scenario.model.replies[0].body,
        ReplyBody::Stream {
            parts: vec![ReplyPart::Shell {
                call: "call_1".to_owned(),
                command: "sleep 60".to_owned(),
                chunks: 1,
            }],
            end: ReplyEnd::Completed,
        }
    );
    assert!(scenario.model.replies[1].lenient);
    assert_eq!(
        scenario.model.replies[2].body,
        ReplyBody::Status {
            status: 429,
            retry_after_s: Some(1),
            headers: vec![("x-request-id".to_owned(), "r1".to_owned())],
            body: Some(r#"{"error":{}}"#.to_owned()),
        }
    );
    assert_eq!(scenario.steps.len(), 5);
    assert_eq!(
        scenario.steps[1].at,
        Some(CutPoint::Running {
            call: "call_1".to_owned()
        })
    );
    assert_eq!(
        scenario.steps[2].action,
        Action::Await(Await::TurnAborted {
            reason: Some(AwaitedReason::Interrupted)
        })
    );
    assert_eq!(
        scenario.expectations[1].kind,
        ExpectationKind::NoProcess {
            command: "sleep 60".to_owned()
        }
    );
    assert_eq!(scenario.waivers[0].rule, "CALL-6");
}

#[test]
fn spans_say_where_a_node_stood() {
    let scenario = one(EXAMPLE);
    let reply = &scenario.model.replies[0];
    assert_eq!(reply.span.line, 6);
    assert_eq!(
        &EXAMPLE[reply.span.start..reply.span.end],
        "reply { shell call_1 \"sleep 60\" }"
    );
    let step = &scenario.steps[1];
    assert_eq!(step.span.line, 12);
    assert_eq!(
        &EXAMPLE[step.span.start..step.span.end],
        "interrupt at=\"call_1 running\""
    );
    assert_eq!(scenario.span.start, 0);
    assert_eq!(scenario.span.end, EXAMPLE.trim_end().len());
    assert_eq!(scenario.expectations[0].span.line, 16);
}

#[test]
fn the_example_is_printed_as_it_was_written() {
    let file = parse("example.kdl", EXAMPLE).expect("valid");
    let without_comment = EXAMPLE.replace(" // created … completed are implied", "");
    assert_eq!(print(&file), without_comment);
    assert_eq!(file.to_string(), without_comment);
    assert_eq!(file.scenarios[0].to_string(), without_comment.trim_end());
    assert_eq!(
        file.scenarios[0].steps[1].to_string(),
        "interrupt at=\"call_1 running\""
    );
}

#[test]
fn long_and_many_lined_parts_get_lines_of_their_own() {
    let source = r##"scenario "long" {
    model {
        reply {
            text "One."
            custom call_2 apply_patch #"""
                *** Begin Patch
                +say "hi"

                *** End Patch
                """#
            drop close
        }
        reply {}
        reply {
            text "This text is long enough that it does not fit on the line of its reply, so it stands alone."
        }
    }
    user "go"
    drop end at="byte 17 of reply 1 event 3"
    expect {
        requests 2
        refused 0
        turns aborted any
        markers 0 in-request=2
    }
}
"##;
    let scenario = one(source);
    let ReplyBody::Stream { parts, end } = &scenario.model.replies[0].body else {
        panic!("a stream");
    };
    assert_eq!(*end, ReplyEnd::Drop(DisconnectKind::Close));
    assert!(matches!(&parts[1], ReplyPart::Custom { input, .. }
            if input == "*** Begin Patch\n+say \"hi\"\n\n*** End Patch"));
    assert_eq!(format!("{scenario}\n"), source);
    assert_eq!(format("long.kdl", source).as_deref(), Ok(source));
}

#[test]
fn layout_is_the_authors_lines_in_canonical_blanks() {
    let messy = "\u{feff}\r\n\n// head   \nscenario   \"a\"{ // after a brace\n\tmodel{reply{text \
                 \"hi\"  chunks = 2;stall}}// after a block\n\n\n\n  /* block\n  comment */ user \
                 \"x\" \\ // goes on\n at= \"idle\"\n/-   interrupt\n  /-expect {\n requests 1\n }\n \
                 await turn-complete /-\"not\" /- reason=replaced\n}   // last\n\n";
    let neat = "\
// head
scenario \"a\" { // after a brace
    model { reply { text \"hi\" chunks=2; stall } } // after a block

    /* block
  comment */ user \"x\" \\ // goes on
        at=\"idle\"
    /-interrupt
    /-expect {
        requests 1
    }
    await turn-complete /-\"not\" /-reason=replaced
} // last
";
    assert_eq!(format("messy.kdl", messy).as_deref(), Ok(neat));
    assert_eq!(format("neat.kdl", neat).as_deref(), Ok(neat));
    assert_eq!(parse("messy.kdl", messy), parse("neat.kdl", neat));
    assert_eq!(format("empty.kdl", " \n\n"), Ok(String::new()));
}

/// Words that were renamed, in their old spelling.
const OLD_SPELLING: &str = r##"scenario "old" {
    model { reply { shell call_1 "ls"; event #"{"type":"told"}"# } }
    user "told at=\"told error\"" at=  "told  call-begin 2" // late, told, tear
    interrupt at=#"told turn-started"#
    open "0193e0f4" refused=#true
    late delta
    "read-on"
    kill
    tear 5
    resume
}
"##;

#[test]
fn old_spellings_are_read_and_rewritten() {
    let modern = OLD_SPELLING
        .replace("at=  \"told  call", "at=\"event  call")
        .replace("#\"told turn", "#\"event turn")
        .replace("    open ", "    open-conversation ")
        .replace("    late ", "    deliver-late ")
        .replace("\"read-on\"", "resume-reading")
        .replace("    tear ", "    truncate-rollout ");
    let formatted = format("old.kdl", OLD_SPELLING);
    assert_eq!(formatted.as_deref(), Ok(modern.as_str()));
    let (old, new) = (one(OLD_SPELLING), one(&modern));
    assert_eq!(old, new);
    assert!(
        new.to_string()
            .contains("interrupt at=\"event turn-started\"")
    );
}

#[test]
fn a_fingerprint_outlives_a_renamed_word() {
    let text = fingerprint_text(&one(OLD_SPELLING));
    for first in [
        "at=\"told call-begin 2\"",
        "at=\"told turn-started\"",
        "\n    open \"",
        "\n    late delta\n",
        "\n    read-on\n",
        "\n    tear 5\n",
    ] {
        assert!(text.contains(first), "{first}: {text}");
    }
    assert_eq!(fingerprint_text(&one(EXAMPLE)), one(EXAMPLE).to_string());
}

#[test]
fn layout_does_not_ask_what_a_file_means() {
    let unfinished = "scenario \"a\" {\n interupt at=\"nowhere\"\n}";
    assert_eq!(
        format("unfinished.kdl", unfinished).as_deref(),
        Ok("scenario \"a\" {\n    interupt at=\"nowhere\"\n}\n")
    );
    assert!(format("broken.kdl", "scenario \"a\" {").is_err());
}

#[test]
fn spaces_around_the_equals_sign_and_bare_texts_are_fine() {
    let scenario = one("scenario hello { model { recording r }; user hi at = idle }");
    assert_eq!(scenario.name, "hello");
    assert_eq!(scenario.steps[0].at, Some(CutPoint::Idle));
}

/// A text as KDL 2 writes it, and what it stands for.
const STRINGS: [(&str, &str); 16] = [
    (r#"bare"#, "bare"),
    (r#""""#, ""),
    (r#""a\n\t\r\b\f\s\"\\""#, "a\n\t\r\u{8}\u{c} \"\\"),
    (r#""\u{1f600}\u{41}""#, "😀A"),
    ("\"a\\   b\"", "ab"),
    ("\"a\\\n   b\"", "ab"),
    (r##"#"a\n"b"#"##, "a\\n\"b"),
    (r###"##"a"#b"##"###, "a\"#b"),
    ("\"\"\"\n\"\"\"", ""),
    ("\"\"\"\n  a\n\n    b\n  \"\"\"", "a\n\n  b"),
    ("\"\"\"\r\n\ta\r\n\tb\r\n\t\"\"\"", "a\nb"),
    ("\"\"\"\n  a \\\n      b\n  \"\"\"", "a b"),
    ("\"\"\"\n  a\\n  b\n  \"\"\"", "a\n  b"),
    (
        "\"\"\"\n  say \"hi\" \\\"\"\"\n  \"\"\"",
        "say \"hi\" \"\"\"",
    ),
    ("#\"\"\"\n  a\\n\n  \"\"\"#", "a\\n"),
    ("#\"\"\"\n  \"\n  \"\"\"#", "\""),
];

#[test]
fn strings_are_read_as_kdl_says() {
    for (written, text) in STRINGS {
        let source = format!("scenario a {{ model {{ recording r }}; about {written}; user b }}");
        let about = one(&source).about;
        assert_eq!(about.as_deref(), Some(text), "{written}");
    }
}

#[test]
fn numbers_are_read_as_kdl_says() {
    let numbers = [
        ("7", 7),
        ("+1_0", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("0b1_01", 5),
    ];
    for (written, number) in numbers {
        let source = format!(
            "scenario a {{ model {{ recording r }}; user b; expect {{ requests {written} }} }}"
        );
        let kind = &one(&source).expectations[0].kind;
        assert_eq!(*kind, ExpectationKind::Requests { count: number });
    }
    for (written, found) in [
        ("1.5", "a fraction"),
        ("1e3", "a fraction"),
        ("#inf", "a fraction"),
        ("-1", "out of range"),
        ("#true", "a truth value"),
        ("#null", "`#null`"),
    ] {
        let source = format!("scenario a {{ user b; expect {{ requests {written} }} }}");
        let diagnostics = parse("a.kdl", &source).expect_err(written).to_string();
        assert!(diagnostics.contains(found), "{written}: {diagnostics}");
    }
}

#[test]
fn raw_parts_can_make_any_call() {
    let source = r##"scenario "raw" {
    model {
        reply { item #"{"type":"function_call","call_id":"call_9"}"# }
    }
    user "go"
    interrupt at="call_9 running"
    approve call_9
}
"##;
    assert_eq!(one(source).steps.len(), 3);
}

#[test]
fn a_diagnostic_says_line_and_column() {
    let diagnostics = parse("a.kdl", "// é\nscenario \"é\" { usr \"x\" }").expect_err("a mistake");
    let first = &diagnostics.as_slice()[0];
    assert_eq!(first.code, "unknown-node");
    assert_eq!(diagnostics.line_column(first.span.start), (2, 16));
    assert_eq!(diagnostics.iter().count(), diagnostics.as_slice().len());
}
