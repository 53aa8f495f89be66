//! Which exchange answers a request.

use crate::common::{exchange, message, output, response, shell_call, stream};
use cutpoint_protocol::Item;
use cutpoint_protocol::compose::ItemContent;
use cutpoint_recording::{Exchange, Match, Recording, count, diff, normalise};
use serde_json::{Value, json};

fn items(values: &[Value]) -> Vec<Item> {
    values
        .iter()
        .map(|value| Item::from_value(value.clone()).unwrap())
        .collect()
}

fn answer(id: &str) -> Vec<u8> {
    stream(
        id,
        &[ItemContent::Text {
            text: id,
            chunks: 1,
        }],
    )
}

fn recording(inputs: &[&[Value]]) -> Recording {
    let mut recording = Recording::new("r", "a test");
    let number =
        |(at, input): (usize, &&[Value])| exchange(at + 1, input, &answer(&format!("resp_{at}")));
    recording.exchanges = inputs.iter().enumerate().map(number).collect();
    recording
}

fn bare(exchanges: usize) -> Recording {
    let mut recording = Recording::new("r", "a test");
    let bare = |number| Exchange::bare(number, response(&answer("resp_1")));
    recording.exchanges = (1..=exchanges).map(bare).collect();
    recording
}

/// One conversation, told on one machine …
fn here() -> Vec<Value> {
    vec![
        message("developer", "Be careful."),
        json!({"type": "message", "role": "user", "content": [
            {"type": "input_text", "text": "# AGENTS.md instructions for /home/a\n\n<INSTRUCTIONS>\nUse tabs.\n</INSTRUCTIONS>"},
            {"type": "input_text", "text": "<environment_context>\n<cwd>/home/a</cwd>\n</environment_context>"},
        ]}),
        message("user", "list both"),
        json!({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "AAAA"}),
        shell_call("call_aaa", "ls a"),
        shell_call("call_bbb", "ls b"),
        output(
            "call_aaa",
            "{\"output\":\"a\",\"metadata\":{\"duration_seconds\":0.1}}",
        ),
        output("call_bbb", "done at 2025-11-02T10:11:12Z by call_bbb"),
        message("assistant", "a and b"),
    ]
}

/// … and the same one on another, where the second tool ended first.
fn there() -> Vec<Value> {
    let mut call = shell_call("call_1", "ls a");
    call["id"] = json!("fc_99");
    call["arguments"] = json!("{ \"command\": [\"bash\", \"-c\", \"ls a\"] }");
    vec![
        message("system", "Be very careful."),
        json!({"role": "user", "content": "list both  <environment_context>\n<cwd>/b</cwd>\n</environment_context>"}),
        call,
        shell_call("call_2", "ls b"),
        output("call_2", "done at 2026-01-05 20:00:01.5 by call_2"),
        output(
            "call_1",
            "{\"output\":\"a\",\"metadata\":{\"duration_seconds\":7.25}}",
        ),
        json!({"id": "msg_1", "status": "completed", "role": "assistant", "content": [{"type": "output_text", "text": "a and b", "annotations": []}]}),
    ]
}

#[test]
fn the_same_conversation_elsewhere_is_the_same() {
    assert_eq!(normalise(&items(&here())), normalise(&items(&there())));
    let recording = recording(&[&[message("user", "x")], &here()]);
    assert_eq!(
        recording.matcher().match_request(&items(&there()), &[]),
        Match::Exact(2)
    );
}

/// A tool's output once recorded and redacted, and once as a tool gives it now.
fn told(output_text: &str) -> Vec<Value> {
    vec![
        message("user", "who is <email-1>?"),
        shell_call("call_1", "cat /home/<user-1>/team"),
        output("call_1", output_text),
    ]
}

#[test]
fn a_secret_equals_its_placeholder_in_a_redacted_recording() {
    let recorded = told("<email-2> in /home/<user-1>, key <api-key-1>");
    let recording = recording(&[&recorded]);
    let key = format!("sk-proj-{}7", "aB3d".repeat(10));
    let live = |mail: &str, key: &str| {
        let text = format!("{mail} in /home/bob, key {key}");
        recording.matcher().match_request(&items(&told(&text)), &[])
    };
    assert_eq!(live("bob@corp.example.org", &key), Match::Exact(1));
    // What stands around a secret, and that there is one, still counts.
    for other in [live("nobody", &key), live("bob@corp.example.org", "sk-1")] {
        let Match::Diverged { diff, .. } = other else {
            panic!("{other:?}");
        };
        assert!(
            diff.contains("<email> in /home/<user>, key <api-key>"),
            "{diff}"
        );
    }
    let live = told(&format!("bob@corp.example.org in /home/bob, key {key}"));
    assert!(count(&diff(&items(&recorded), &items(&live))).is_same());
}

#[test]
fn without_redaction_each_secret_is_itself() {
    let text = |mail: &str| vec![message("user", &format!("mail {mail}"))];
    let [alice, bob] = ["alice", "bob"].map(|who| text(&format!("{who}@corp.example.org")));
    let recording = recording(&[&alice]);
    let found = recording.matcher().match_request(&items(&bob), &[]);
    assert!(matches!(found, Match::Diverged { .. }), "{found:?}");
    assert!(!count(&diff(&items(&alice), &items(&bob))).is_same());
}

#[test]
fn another_conversation_is_another() {
    let base = normalise(&items(&here()));
    let differs = |change: &dyn Fn(&mut Vec<Value>)| {
        let mut values = here();
        change(&mut values);
        assert_ne!(normalise(&items(&values)), base, "{values:#?}");
    };
    differs(&|values| values[2] = message("user", "list all"));
    differs(&|values| values[2]["role"] = json!("assistant"));
    differs(&|values| values[4] = shell_call("call_aaa", "ls c"));
    differs(&|values| values[5]["name"] = json!("exec"));
    differs(&|values| values[6]["output"] = json!("b"));
    differs(&|values| values[6]["call_id"] = json!("call_zzz"));
    differs(&|values| values[7]["call_id"] = json!("call_aaa"));
    differs(&|values| drop(values.remove(7)));
    differs(&|values| values.push(message("user", "<turn_aborted>x</turn_aborted>")));
    differs(&|values| values.push(json!({"type": "web_search_call", "action": {"query": "q"}})));
}

#[test]
fn a_markers_words_do_not_matter() {
    let marker = |text: &str| normalise(&items(&[message("user", text)]));
    assert_eq!(
        marker("<turn_aborted>a</turn_aborted>"),
        marker("<turn_aborted>\nb\n</turn_aborted>")
    );
}

#[test]
fn of_equal_ones_the_first_that_was_not_served() {
    let same: &[Value] = &[message("user", "x")];
    let recording = recording(&[same, same, &[message("user", "y")]]);
    let history = items(same);
    assert_eq!(
        recording.matcher().match_request(&history, &[]),
        Match::Exact(1)
    );
    assert_eq!(
        recording.matcher().match_request(&history, &[1]),
        Match::Exact(2)
    );
    assert_eq!(
        recording.matcher().match_request(&history, &[2]),
        Match::Exact(1)
    );
    assert_eq!(
        recording.matcher().match_request(&history, &[1, 2]),
        Match::Exact(2),
        "a retry"
    );
}

#[test]
fn a_miss_shows_the_nearest_exchange() {
    let recording = recording(&[
        &[message("user", "x")],
        &here(),
        &[message("user", "list both")],
    ]);
    let mut values = there();
    let long = format!("{} the end", "0123456789".repeat(40));
    values[5] = output("call_1", "{\"output\":\"c\"}\nsecond line");
    values.push(message("user", &long));
    let Match::Diverged { nearest, diff } = recording.matcher().match_request(&items(&values), &[])
    else {
        panic!("it matched");
    };
    assert_eq!(nearest, 2);
    let expected = "\
--- exchange 2 as recorded
+++ the request that came
@@ -1,6 +1,8 @@
 user: list both
 call 1: shell {\"command\":[\"bash\",\"-c\",\"ls a\"]}
-output 1: {\"output\":\"a\",\"metadata\":{\"duration_seconds\":<value>}}
+output 1: {\"output\":\"c\"}
+    second line
 call 2: shell {\"command\":[\"bash\",\"-c\",\"ls b\"]}
 output 2: done at <time> by <call 2>
 assistant: a and b
+user: 012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123…
";
    assert_eq!(diff, expected, "{diff}");
}

#[test]
fn a_difference_late_in_a_long_line_is_seen() {
    let text = |end: &str| {
        [message(
            "user",
            &format!("{}{end}\u{1b}[0m", "x".repeat(5000)),
        )]
    };
    let recording = recording(&[&text("recorded")]);
    let Match::Diverged { diff, .. } = recording
        .matcher()
        .match_request(&items(&text("requested")), &[])
    else {
        panic!("it matched");
    };
    assert!(
        diff.contains(&format!("-…{}recorded\\u{{1b}}[0m\n", "x".repeat(28))),
        "{diff}"
    );
    assert!(
        diff.lines().all(|line| line.chars().count() < 140),
        "{diff}"
    );
}

#[test]
fn a_difference_between_many_lines_is_bounded() {
    let text = |word: &str| [message("user", &format!("{word}\n").repeat(3000))];
    let recording = recording(&[&text("a")]);
    let Match::Diverged { diff, .. } = recording.matcher().match_request(&items(&text("b")), &[])
    else {
        panic!("it matched");
    };
    assert_eq!(diff.lines().count(), 63);
    assert!(diff.ends_with(" more lines\n"));
}

#[test]
fn bare_captures_are_taken_in_the_order_of_the_conversation() {
    let recording = bare(3);
    let first = [message("user", "a")];
    let second = [
        message("user", "a"),
        message("assistant", "b"),
        message("user", "c"),
    ];
    let third = [
        message("user", "a"),
        message("assistant", "b"),
        shell_call("c", "ls"),
        output("c", ""),
        json!({"type": "reasoning", "summary": []}),
        message("assistant", "d"),
        message("user", "e"),
    ];
    let fourth = [
        &third[..],
        &[message("assistant", "f"), message("user", "g")],
    ]
    .concat();
    let matched = |values: &[Value], served: &[usize]| {
        recording.matcher().match_request(&items(values), served)
    };
    assert_eq!(matched(&first, &[]), Match::Exact(1));
    assert_eq!(matched(&second, &[1]), Match::Exact(2));
    assert_eq!(matched(&third, &[]), Match::Exact(3));
    assert_eq!(matched(&fourth, &[1, 2, 3]), Match::None);
    // The first answer was cut off before its first item, so the history still shows none.
    assert_eq!(matched(&first, &[1]), Match::Exact(2));
    assert_eq!(matched(&first, &[1, 2, 3]), Match::Exact(1), "a repetition");
}

#[test]
fn a_history_in_pieces_is_put_together() {
    let mut recording = recording(&[&[message("user", "a")], &[message("user", "c")]]);
    recording.exchanges[1].request.as_mut().unwrap().body["previous_response_id"] = json!("resp_0");
    let whole = [
        message("user", "a"),
        message("assistant", "resp_0"),
        message("user", "c"),
    ];
    assert_eq!(
        recording.matcher().match_request(&items(&whole), &[1]),
        Match::Exact(2)
    );
}

#[test]
fn requests_for_something_else_are_no_candidates() {
    let mut recording = recording(&[&[], &[message("user", "a")]]);
    recording.exchanges[0].request.as_mut().unwrap().path = "/v1/models".to_owned();
    assert_eq!(
        recording.matcher().match_request(&[], &[]),
        Match::Diverged {
            nearest: 2,
            diff:
                "--- exchange 2 as recorded\n+++ the request that came\n@@ -1,1 +1,0 @@\n-user: a\n"
                    .to_owned(),
        }
    );
}
