//! What a user did, read off what a client and a model have sent.

use crate::common::{exchange, message, output, shell_arguments, shell_call, stream};
use cutpoint_protocol::compose::ItemContent;
use cutpoint_recording::session::{
    CutPlace, SessionOutline, SteerTime, TurnCut, TurnEndKind, UserAction,
};
use cutpoint_recording::{Exchange, Recording};
use serde_json::Value;

fn says(number: usize, input: &[Value], text: &str) -> Exchange {
    let id = format!("resp_{number}");
    let answer = stream(&id, &[ItemContent::Text { text, chunks: 2 }]);
    exchange(number, input, &answer)
}

fn calls(number: usize, input: &[Value], ids: &[&str]) -> Exchange {
    let arguments = shell_arguments("ls");
    let calls = ids.iter().map(|call_id| ItemContent::Function {
        call_id,
        name: "shell",
        arguments: &arguments,
        chunks: 1,
    });
    let answer = stream(&format!("resp_{number}"), &calls.collect::<Vec<_>>());
    exchange(number, input, &answer)
}

/// The exchange, left by the client after that many events.
fn left(mut whole: Exchange, events: usize) -> Exchange {
    let cutpoint_recording::Response::Stream(document) = &whole.response else {
        panic!("no stream");
    };
    let frames = document.frames.iter().take(events);
    let wire: Vec<u8> = frames.flat_map(|frame| frame.wire.clone()).collect();
    whole.response = crate::common::response(&[b": cutpoint end=stall\n", &wire[..]].concat());
    whole
}

fn session(exchanges: Vec<Exchange>) -> SessionOutline {
    let mut recording = Recording::new("r", "a test");
    recording.exchanges = exchanges;
    recording.session().unwrap()
}

fn prompt(text: &str) -> UserAction {
    UserAction::Prompt(text.to_owned())
}

fn interrupt(exited: &[&str], place: CutPlace) -> UserAction {
    let exited = exited.iter().map(|&call| call.to_owned()).collect();
    UserAction::Interrupt(TurnCut { exited, place })
}

const COMPLETE: UserAction = UserAction::Ended(TurnEndKind::Complete);
const INTERRUPTED: UserAction = UserAction::Ended(TurnEndKind::Interrupted);

fn marker() -> Value {
    message("user", "<turn_aborted>\nstopped\n</turn_aborted>")
}

#[test]
fn what_is_written_while_a_tool_runs_is_a_steer() {
    let one = message("user", "one");
    let [call, gave] = [shell_call("call_1", "ls"), output("call_1", "x")];
    let past = [one.clone(), call, gave, message("user", "more")];
    let session = session(vec![calls(1, &[one], &["call_1"]), says(2, &past, "done")]);
    let steer = UserAction::Steer {
        text: "more".to_owned(),
        at: SteerTime::Running("call_1".to_owned()),
    };
    assert_eq!(session.actions, [prompt("one"), steer, COMPLETE]);
    assert!(session.has_calls);
    assert_eq!(session.main, [1, 2]);
}

#[test]
fn a_marker_tells_which_call_was_cut_off() {
    let (one, two) = (message("user", "one"), message("user", "two"));
    // Whoever says it in words that nobody knows has cut off the last one.
    for (words, exited, cut) in [
        ("aborted by user after 1.0s", &[][..], "call_1"),
        ("words of its own", &["call_1"], "call_2"),
    ] {
        let past = [
            one.clone(),
            shell_call("call_1", "ls"),
            shell_call("call_2", "ls"),
            output("call_1", words),
            output("call_2", words),
            marker(),
            two.clone(),
        ];
        let session = session(vec![
            calls(1, std::slice::from_ref(&one), &["call_1", "call_2"]),
            says(2, &past, "done"),
        ]);
        let (call, shown) = (cut.to_owned(), None);
        let cut = interrupt(exited, CutPlace::Call { call, shown });
        let expected = [prompt("one"), cut, INTERRUPTED, prompt("two"), COMPLETE];
        assert_eq!(session.actions, expected, "{words}");
    }
}

/// Agents differ in what they keep of a message that was cut off.
#[test]
fn a_history_without_the_cut_message_shows_the_same() {
    let (one, two) = (message("user", "one"), message("user", "two"));
    let cut = message("assistant", "A lo");
    for kept in [vec![], vec![cut]] {
        let past = [vec![one.clone()], kept, vec![marker(), two.clone()]].concat();
        let session = session(vec![
            left(says(1, std::slice::from_ref(&one), "A long story"), 5),
            says(2, &past, "done"),
        ]);
        let (exchange, events) = (1, 5);
        let cut = interrupt(&[], CutPlace::Stream { exchange, events });
        let expected = [prompt("one"), cut, INTERRUPTED, prompt("two"), COMPLETE];
        assert_eq!(session.actions, expected);
    }
}

#[test]
fn only_what_is_new_is_a_prompt() {
    let [one, two] = ["one", "two"].map(|text| message("user", text));
    let [first, second] = ["1", "2"].map(|text| message("assistant", text));
    // What was said before the recording began, and the same word twice.
    let past = [one.clone(), first.clone(), two.clone()];
    let again = [&past[..], &[second, two.clone()]].concat();
    let session = self::session(vec![says(1, &past, "2"), says(2, &again, "3")]);
    let expected = [prompt("two"), COMPLETE, prompt("two"), COMPLETE];
    assert_eq!(session.actions, expected);
    // A summary that the agent has put into the place of the past.
    let summary = message("user", "what was said so far");
    let compacted = [one.clone(), summary, message("user", "three")];
    let session = self::session(vec![
        says(1, &[one], "1"),
        says(2, &past, "2"),
        says(3, &compacted, "3"),
    ]);
    let expected = ["one", "two", "three"].map(|text| [prompt(text), COMPLETE]);
    assert_eq!(session.actions, expected.concat());
}

#[test]
fn other_conversations_are_told_apart() {
    let ask = |text: &str| message("user", text);
    let helper = [ask("help"), message("assistant", "a"), ask("more")];
    let main = [ask("one"), message("assistant", "1"), ask("two")];
    let session = session(vec![
        says(1, &[ask("one")], "1"),
        says(2, &[ask("help")], "a"),
        says(3, &helper, "b"),
        says(4, &main, "2"),
    ]);
    assert_eq!(session.main, [1, 4]);
    assert_eq!(session.others, [("help".to_owned(), vec![2, 3])]);
    assert_eq!(
        session.actions,
        [prompt("one"), COMPLETE, prompt("two"), COMPLETE]
    );
}
