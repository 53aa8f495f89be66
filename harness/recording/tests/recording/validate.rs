//! What is found in streams that the Responses API could not have sent.

use crate::common::{bytes, response, stream};
use cutpoint_protocol::compose::{Composer, ItemContent};
use cutpoint_recording::{Exchange, Recording};

const TEXT: ItemContent<'_> = ItemContent::Text {
    text: "hello",
    chunks: 2,
};

/// What is found in a stream, without the file's name.
fn found(bytes: &[u8]) -> Vec<String> {
    let mut recording = Recording::new("r", "a test");
    recording.exchanges = vec![Exchange::bare(1, response(bytes))];
    let problems = recording.validate();
    let shown = problems.iter().map(ToString::to_string);
    shown
        .map(|text| text.strip_prefix("01.response.sse:").unwrap().to_owned())
        .collect()
}

/// A whole stream, changed, and the one thing that is found in it.
#[track_caller]
fn finds(change: impl Fn(&mut Vec<String>), expected: &[&str]) {
    let text = String::from_utf8(stream("resp_1", &[TEXT])).unwrap();
    let mut frames: Vec<String> = text.split_inclusive("\n\n").map(str::to_owned).collect();
    change(&mut frames);
    let found = found(frames.concat().as_bytes());
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\nis not\n{expected}");
    }
}

/// Sets a frame's `sequence_number`, so that a frame can be put elsewhere.
fn numbered(frames: &mut [String]) {
    for (n, frame) in frames.iter_mut().enumerate() {
        if let Some(at) = frame.find("\"sequence_number\":") {
            let start = at + "\"sequence_number\":".len();
            let digits = frame[start..]
                .bytes()
                .take_while(u8::is_ascii_digit)
                .count();
            frame.replace_range(start..start + digits, &n.to_string());
        }
    }
}

#[test]
fn a_composed_stream_has_no_problem() {
    finds(|_| {}, &[]);
    let crlf = String::from_utf8(stream("resp_1", &[TEXT]))
        .unwrap()
        .replace('\n', "\r\n");
    assert_eq!(found(crlf.as_bytes()), Vec::<String>::new());
    let composer = || {
        let mut composer = Composer::new("resp_1", "m", 1);
        composer.item(&TEXT);
        composer
    };
    for events in [
        composer().incomplete("max_output_tokens"),
        composer().failed("server_error", "no"),
        composer().error("server_error", "no", true),
        composer().error("server_error", "no", false),
    ] {
        assert_eq!(found(&bytes(&events)), Vec::<String>::new());
    }
}

#[test]
fn data_that_is_no_event() {
    finds(
        |frames| frames.insert(1, "data: {\"type\"\n\n".into()),
        &["4: error: the data is not valid JSON"],
    );
    finds(
        |frames| frames.insert(1, ": c\ndata: [1]\n\n".into()),
        &["5: error: the data is an array, not a JSON object"],
    );
    finds(
        |frames| frames.insert(1, "data: {}\n\n".into()),
        &["4: error: the event has no string `type`"],
    );
    finds(
        |frames| frames.push("data: [DONE]\n\n".into()),
        &["31: warning: the Responses API sends no `[DONE]`"],
    );
    finds(
        |frames| frames.insert(1, "data: [DONE]\n\n".into()),
        &["4: error: the Responses API sends no `[DONE]`"],
    );
    let noise = "data: x\n\n".repeat(500);
    assert_eq!(
        found(noise.as_bytes()).last().unwrap(),
        "99: error: and 451 more problems in this file"
    );
}

#[test]
fn fields_names_and_numbers() {
    finds(
        |frames| frames[4] = frames[4].replace("\"delta\":\"he\"", "\"x\":0"),
        &["14: error: `response.output_text.delta` lacks `delta`"],
    );
    finds(
        |frames| frames[4] = frames[4].replace("event: response", "event: x"),
        &["14: error: the `event:` line says `x.output_text.delta`"],
    );
    finds(
        |frames| frames[4] = frames[4].replacen("event: response.output_text.delta\n", "", 1),
        &[],
    );
    finds(
        |frames| frames[4] = frames[4].replace("number\":4", "number\":7"),
        &[
            "14: error: `sequence_number` is 7, expected 4",
            "17: error: `sequence_number` is 5, expected 8",
        ],
    );
    finds(
        |frames| frames[8] = frames[8].replace("\"status\":\"completed\",", ""),
        &["26: error: item `message` lacks `status`"],
    );
}

#[test]
fn the_first_and_the_last_event() {
    let created = |frames: &mut Vec<String>| {
        frames.remove(0);
        numbered(frames);
    };
    finds(
        created,
        &["2: error: the stream starts with `response.in_progress`"],
    );
    let twice = |frames: &mut Vec<String>| {
        frames.insert(1, frames[0].clone());
        numbered(frames);
    };
    finds(twice, &["5: error: a second `response.created`"]);
    let late = |frames: &mut Vec<String>| {
        frames.push(frames[1].clone());
        numbered(frames);
    };
    finds(
        late,
        &["32: error: `response.in_progress` comes behind `response.completed` (line 29)"],
    );
    finds(
        |frames| frames.truncate(6),
        &["17: warning: the stream ends without `response.completed`"],
    );
    finds(
        |frames| frames[9] = frames[9].replace("\"id\":\"resp_1\"", "\"id\":\"resp_2\""),
        &["29: error: `response.id` is `resp_2`"],
    );
    finds(
        |frames| {
            frames[9].pop();
        },
        &["29: warning: the last frame is not ended by an empty line"],
    );
}

#[test]
fn an_error_may_be_followed_by_failed() {
    let mut composer = Composer::new("resp_1", "m", 1);
    composer.item(&TEXT);
    let mut events = composer.error("server_error", "no", true);
    let last = u64::try_from(events.len()).unwrap();
    let failed = Composer::new("resp_1", "m", 1)
        .failed("server_error", "no")
        .pop()
        .unwrap();
    events.push(failed);
    let text = String::from_utf8(bytes(&events)).unwrap();
    let text = text.replace(
        ",\"sequence_number\":2}\n\n",
        &format!(",\"sequence_number\":{last}}}\n\n"),
    );
    let text = text.replacen(&format!(":{last}}}"), ":2}", 1);
    assert_eq!(found(text.as_bytes()), Vec::<String>::new());
}

#[test]
fn items() {
    let without = |n: usize| {
        move |frames: &mut Vec<String>| {
            frames.remove(n);
            numbered(frames);
        }
    };
    let never_added = "`response.content_part.added` for output_index 0 comes before its `response.output_item.added`";
    let found_without_added = |frames: &mut Vec<String>| {
        without(2)(frames);
        frames.truncate(3);
    };
    finds(
        found_without_added,
        &[
            &format!("8: error: {never_added}"),
            "8: warning: the stream ends",
        ],
    );
    finds(
        without(8),
        &["26: error: the item with output_index 0 (line 8) has no `response.output_item.done`"],
    );
    let twice = |n: usize| {
        move |frames: &mut Vec<String>| {
            frames.insert(n, frames[n].clone());
            numbered(frames);
        }
    };
    finds(twice(2), &["11: error: output_index 0 was taken on line 8"]);
    finds(
        twice(8),
        &["29: error: a second `response.output_item.done` for output_index 0"],
    );
    finds(
        |frames| frames[8] = frames[8].replace("\"id\":\"msg", "\"id\":\"other"),
        &["26: error: the item's `id` is not the one it was added with on line 8"],
    );
    finds(
        |frames| frames[4] = frames[4].replace("\"item_id\":\"msg", "\"item_id\":\"x"),
        &["14: warning: `item_id` is not the `id`"],
    );
    let behind = |frames: &mut Vec<String>| {
        frames.swap(7, 8);
        numbered(frames);
    };
    finds(
        behind,
        &[
            "26: error: `response.content_part.done` for output_index 0 comes behind its `response.output_item.done`",
        ],
    );
    let skipped = |frames: &mut Vec<String>| {
        for frame in frames {
            *frame = frame.replace("\"output_index\":0", "\"output_index\":1");
        }
    };
    finds(skipped, &["8: error: `output_index` is 1, expected 0"]);
}

#[test]
fn the_ends_of_captures_and_their_directives() {
    let cut = |frames: &mut Vec<String>| {
        frames.truncate(5);
        frames[4].truncate(60);
    };
    finds(
        cut,
        &["14: warning: the last frame is not ended by an empty line"],
    );
    // A capture that says so ends where it is meant to end.
    for end in ["stall", "reset", "close"] {
        let told = |frames: &mut Vec<String>| {
            cut(frames);
            frames.insert(0, format!(": cutpoint end={end}\n"));
        };
        finds(told, &[]);
        let between = |frames: &mut Vec<String>| {
            frames.truncate(5);
            frames.insert(0, format!(": cutpoint end={end}\n"));
        };
        finds(between, &[]);
    }
    finds(
        |frames| frames.insert(0, ": cutpoint end=soon\n".into()),
        &["1: error: `end=soon` is no way for a stream to end"],
    );
    finds(|frames| frames.push(": +35ms".into()), &[]);
    finds(
        |frames| frames.insert(0, ": cutpoint status=1000\n".into()),
        &["1: error: `status=1000` is no HTTP status"],
    );
    finds(
        |frames| frames.insert(0, ": hello\n: cutpoint slow\n".into()),
        &["2: warning: this directive is not understood"],
    );
    assert_eq!(
        found(b": nothing\n\n"),
        ["1: error: holds no event: capture the stream again, with `curl -N`"]
    );
    assert!(found(b"data: \xFF\n\n")[0].starts_with("1: error: is not text in UTF-8"));
}
