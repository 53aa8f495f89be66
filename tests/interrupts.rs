//! Ctrl-C of `check`, `import` and `record`: they end at once, and nothing is left half done.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::io::Write as _;
use std::time::{Duration, Instant};

use cutpoint_recording::{Problem, Recording};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{Ended, Place, Running};

/// Far below what anything here takes when it is not interrupted, far above what it takes to end.
const SOON: Duration = Duration::from_secs(15);

fn line(kind: &str, payload: &Value) -> String {
    format!(
        "{}\n",
        json!({"timestamp": "t", "type": kind, "payload": payload})
    )
}

fn message(role: &str, part: &str, text: &str) -> String {
    let content = json!([{"type": part, "text": text}]);
    let payload = json!({"type": "message", "role": role, "content": content});
    line("response_item", &payload)
}

/// A session of so many turns.
fn rollout(turns: usize, answer: &str) -> String {
    let mut text = line("session_meta", &json!({"id": "s", "cwd": "/w"}));
    for turn in 0..turns {
        text += &message("user", "input_text", &format!("turn {turn}"));
        text += &message("assistant", "output_text", answer);
    }
    text
}

/// Interrupts, and waits for the end, which comes soon.
fn interrupt(running: Running) -> Ended {
    let begun = Instant::now();
    running.signal(Signal::SIGINT);
    let ended = running.wait();
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    ended
}

/// Several gigabytes in many names of one file.
#[test]
fn a_check_of_much_tells_what_it_has_found() {
    let place = Place::new();
    let first = place.file(
        "many/000.jsonl",
        format!("torn\n{}", rollout(20_000, &"word ".repeat(60))),
    );
    let bytes = first.metadata().unwrap().len();
    let count = (4 << 30) / bytes;
    for number in 1..count {
        fs::hard_link(&first, place.path().join(format!("many/{number:03}.jsonl"))).unwrap();
    }
    let running = Running::start(&mut place.cutpoint(["check", "many"]));
    assert!(running.line().starts_with("many/000.jsonl:1:2: ROLL-1"));
    let ended = interrupt(running);
    ended.code(4).says(&["; interrupted ("]);
    let files = ended.stdout.lines().last().unwrap();
    let files: u64 = files.split(' ').next().unwrap().parse().unwrap();
    assert!((1..count).contains(&files), "{}", ended.all());
    place.assert_clean();
}

/// A line without an end is no reason to go on, and standard input that says no more is none to wait.
#[test]
fn a_check_ends_within_a_line_and_while_it_waits() {
    for goes_on in [true, false] {
        let place = Place::new();
        let (input, mut writer) = std::io::pipe().unwrap();
        let mut command = place.cutpoint(["check", "-"]);
        command.stdin(input);
        let running = Running::start(&mut command);
        // It holds the pipe open, too.
        drop(command);
        writer.write_all(b"torn\n").unwrap();
        // More than a pipe holds: when it is written, the program reads.
        for _ in 0..if goes_on { 70 } else { 1 } {
            writer.write_all(&[b'x'; 1 << 20]).unwrap();
        }
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let writing = std::thread::spawn(move || {
            while goes_on && writer.write_all(&[b'x'; 1 << 16]).is_ok() {}
            let _ = stopped.recv();
        });
        let ended = interrupt(running);
        ended
            .code(4)
            .says(&["-: not read to its end", "; interrupted ("]);
        if goes_on {
            ended.says(&["-:1:2: ROLL-1: ", "1 finding in 1 file"]);
        }
        // The line that nobody knows the end of is not held against the file.
        ended.never_says(&["-:2:"]);
        drop(stop);
        writing.join().unwrap();
    }
}

/// How much processor time a process has had, in ticks; `None` once it has ended.
fn ticks(running: &Running) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", running.id())).ok()?;
    let mut fields = stat.get(stat.rfind(')')? + 2..)?.split(' ');
    let state = fields.next()?;
    let used = fields.nth(10)?.parse().ok()?;
    (state != "Z").then_some(used)
}

/// Interrupted at any moment, an import has written both files or none.
#[test]
fn an_import_is_whole_or_absent() {
    let place = Place::new();
    place.file("big.jsonl", rollout(100, &"word ".repeat(700)));
    let start = || {
        let words = ["import", "big.jsonl", "--name", "x", "--no-check"];
        Running::start(&mut place.cutpoint(words))
    };
    let is_there = || {
        let made = [
            place.path().join("recordings/x"),
            place.path().join("scenarios/imported/x.kdl"),
        ];
        let there = made.each_ref().map(|path| path.exists());
        assert_eq!(there[0], there[1], "{there:?}");
        if there[0] {
            assert_eq!(place.names("recordings"), ["x"]);
            assert_eq!(place.names("scenarios/imported"), ["x.kdl"]);
            let problems = Recording::load(&made[0]).unwrap().validate();
            assert!(!problems.iter().any(Problem::is_error), "{problems:#?}");
            place.run(["fmt", "--check", "scenarios"]).code(0);
            for folder in ["recordings", "scenarios"] {
                fs::remove_dir_all(place.path().join(folder)).unwrap();
            }
        }
        there[0]
    };
    let whole = start();
    let mut takes = 0;
    while let Some(used) = ticks(&whole) {
        takes = used;
        std::thread::yield_now();
    }
    whole.wait().code(0);
    assert!(is_there());
    let mut absent = 0;
    for eighth in 0..=8 {
        let running = start();
        while ticks(&running).is_some_and(|used| used < takes * eighth / 8) {
            std::thread::yield_now();
        }
        let ended = interrupt(running);
        let there = is_there();
        match ended.status.code() {
            Some(0) => assert!(there, "{}", ended.all()),
            Some(4) if there => drop(ended.says(&["are written, and whole"])),
            Some(4) => {
                ended.says(&["interrupted: nothing was written"]);
                absent += 1;
            }
            // So early that the program had not even begun to listen.
            None if eighth == 0 => assert!(!there),
            _ => panic!("{:?}\n{}", ended.status, ended.all()),
        }
    }
    assert!(absent > 0);
    place.assert_clean();
}

/// What was written before the check stays when the check is interrupted.
#[test]
fn an_interrupted_check_of_an_import_leaves_the_import() {
    let place = Place::new();
    place.file("big.jsonl", rollout(300, &"word ".repeat(300)));
    let mut command = place.cutpoint(["import", "big.jsonl", "--name", "x"]);
    let running = Running::start(&mut command);
    assert!(running.line().contains("300 exchanges"));
    let ended = interrupt(running);
    ended.code(4).says(&[
        "interrupted: recording and scenario are written, and whole; they were not checked",
    ]);
    place.run(["check", "recordings/x"]).code(0);
    place.run(["fmt", "--check", "scenarios/imported"]).code(0);
    place.assert_clean();
}
