//! Files that are not as they must be, as the command line meets them: refused with a message, and
//! never with a panic or a machine full of memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;

use support::{Place, QUICK, place_with, recording, root};

/// Copies a recording into the place.
fn copied(place: &Place, name: &str) {
    for entry in fs::read_dir(root().join("recordings").join(name)).unwrap() {
        let entry = entry.unwrap();
        let to = format!("{name}/{}", entry.file_name().to_str().unwrap());
        place.file(&to, fs::read(entry.path()).unwrap());
    }
}

#[test]
fn bad_files_are_refused() {
    let place = Place::new();
    fs::create_dir(place.path().join("folder.kdl")).unwrap();
    place.file("empty.kdl", "");
    place.file("binary.kdl", b"scenario \0\x01\x02");
    place.file("latin1.kdl", b"scenario \"caf\xe9\" {}");
    symlink("nowhere", place.path().join("dangling.kdl")).unwrap();
    nix::unistd::mkfifo(
        &place.path().join("pipe.kdl"),
        nix::sys::stat::Mode::S_IRWXU,
    )
    .unwrap();
    place.file(
        "lost.kdl",
        QUICK.replace(r#"reply { text "hi" }"#, r#"recording "lost""#),
    );
    let cases = [
        ("empty.kdl", "no scenario in this file"),
        ("binary.kdl", "this is not a text file"),
        ("latin1.kdl", "latin1.kdl"),
        ("folder.kdl", "there is no .kdl file in folder.kdl"),
        ("dangling.kdl", "dangling.kdl: does not exist"),
        ("pipe.kdl", "pipe.kdl: is neither a file nor a directory"),
        ("lost.kdl", "lost"),
    ];
    for (name, says) in cases {
        place.run(["run", name]).code(2).says(&[says]);
    }
    // Below a folder, too, a link that leads nowhere is told rather than passed over.
    place
        .run(["run", "."])
        .code(2)
        .says(&["dangling.kdl: No such file or directory"]);
    place.assert_clean();
}

#[test]
fn a_link_below_a_folder_is_run() {
    let place = place_with(QUICK);
    fs::create_dir(place.path().join("links")).unwrap();
    symlink("../scenario.kdl", place.path().join("links/link.kdl")).unwrap();
    place
        .run(["run", "links"])
        .code(0)
        .says(&["PASS links/link.kdl", "1 case: 1 conforms"]);
}

#[test]
fn odd_file_names_are_names_like_others() {
    let place = Place::new();
    for name in [
        "two words.kdl",
        "it's.kdl",
        "say \"hi\".kdl",
        "line\nbreak.kdl",
        "bell\u{7}.kdl",
    ] {
        place.file(name, QUICK);
        place
            .run(["run", name])
            .code(0)
            .says(&["1 case: 1 conforms"])
            .never_says(&["\u{7}"]);
        place.run(["fmt", "--check", name]).code(0);
    }
}

/// A file of 1 GiB, with no room to read it: it is refused by its size, not by what is in it.
#[test]
fn a_huge_file_is_refused_without_being_read() {
    let place = Place::new();
    let huge = place.file("huge.kdl", "");
    fs::File::options()
        .write(true)
        .open(&huge)
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
    for words in [["run", "huge.kdl"], ["fmt", "huge.kdl"]] {
        place
            .run_within(256, &words)
            .code(2)
            .says(&["this file has", "a scenario file at most 1048576"]);
    }
    fs::rename(&huge, place.path().join("huge.sse")).unwrap();
    place
        .run_within(256, &["serve", "huge.sse"])
        .code(2)
        .says(&["huge.sse"]);
}

#[test]
fn a_scenario_cut_at_any_byte_is_run_or_refused() {
    let place = Place::new();
    for end in 0..QUICK.len() {
        place.file("cut.kdl", &QUICK[..end]);
        let whole = QUICK[..end].ends_with("\n}");
        place
            .run(["run", "cut.kdl"])
            .code(if whole { 0 } else { 2 });
    }
}

#[test]
fn a_damaged_recording_is_refused() {
    let manifest =
        fs::read_to_string(format!("{}/recording.json", recording("text-answer"))).unwrap();
    let version = manifest.replace("\"version\": 1", "\"version\": 99");
    let place = Place::new();
    copied(&place, "text-answer");
    place.file("text-answer/recording.json", &version);
    place
        .run(["serve", "text-answer"])
        .code(2)
        .says(&["recording.json", "version", "99"]);
    for name in ["recording.json", "01.request.json", "01.response.sse"] {
        copied(&place, "text-answer");
        let whole = fs::read(place.path().join("text-answer").join(name)).unwrap();
        // The last two bytes may be line breaks that nobody misses in the manifest.
        for cut in (0..whole.len() - 2).step_by(whole.len() / 12) {
            place.file(&format!("text-answer/{name}"), &whole[..cut]);
            place
                .run(["serve", "text-answer"])
                .code(2)
                .says(&["text-answer", "error:"]);
        }
    }
    copied(&place, "text-answer");
    let stream = place.read("text-answer/01.response.sse");
    place.file(
        "text-answer/01.response.sse",
        stream.replacen("event: ", "event:  ", 1),
    );
    place
        .run(["serve", "text-answer"])
        .code(2)
        .says(&["01.response.sse", "hash"]);
    fs::remove_file(place.path().join("text-answer/01.response.sse")).unwrap();
    fs::create_dir(place.path().join("text-answer/01.response.sse")).unwrap();
    place
        .run(["serve", "text-answer"])
        .code(2)
        .says(&["01.response.sse"]);
}
