//! What checking a rollout costs, measured in one run side by side with a bare parse of the same lines.
//!
//! `cargo bench -p cutpoint-check --bench files [-- [--short] [--check] [FILE.jsonl]]`. With `--check` a
//! missed goal is an error. Without a file the lines are made up: a session in which the model talks and
//! commands print.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

use cutpoint_bench::{Goals, HotPath, Options, time};
use cutpoint_check::file::{Checker, RULES};
use serde::de::IgnoredAny;
use serde_json::{Value, json};

/// About so many bytes are checked in each round: more than caches hold would measure the memory only.
const SIZE_BYTES: usize = 4 << 20;
/// The size of the rollout whose check is counted in instructions.
const COUNTED_BYTES: usize = 10_000_000;
/// Either the rate in bytes per second is as high as this...
const RATE_GOAL: f64 = 1e9;
/// ... or checking takes no longer than this by a bare parse.
const RATIO_GOAL: f64 = 1.5;

fn main() -> ExitCode {
    let hot_path = HotPath {
        name: "rollout-of-10-mb",
        prepare: || {
            let lines = lines(session(COUNTED_BYTES).leak());
            Box::new(move || {
                black_box(check(&lines));
            })
        },
    };
    cutpoint_bench::run(Some(hot_path), measure)
}

fn measure(options: &Options, goals: &mut Goals) {
    let bytes = match options.file_with(".jsonl") {
        Some(file) => std::fs::read(file).expect("the file can be read"),
        None => session(SIZE_BYTES),
    };
    let lines = lines(&bytes);
    let findings = check(&lines);
    println!(
        "{} lines, {:.0} MB, {findings} findings",
        lines.len(),
        bytes.len() as f64 / 1e6
    );
    // In turns, so that a machine that is busy for a while is so for both.
    let mut times = [const { Vec::new() }; 2];
    for _ in 0..options.rounds(25, 200) {
        times[0].push(time(|| check(&lines)));
        times[1].push(time(|| parse(&lines)));
    }
    let [checked, parsed] = times.map(best);
    let rate = |took: Duration| bytes.len() as f64 / took.as_secs_f64();
    println!(
        "checking     {:7.0} MB/s ({} rules)",
        rate(checked) / 1e6,
        RULES.len()
    );
    println!("a bare parse {:7.0} MB/s", rate(parsed) / 1e6);
    let ratio = checked.as_secs_f64() / parsed.as_secs_f64();
    if rate(checked) >= RATE_GOAL {
        goals.note(
            true,
            &format!("checking by a bare parse {ratio:.2}, at 1000 MB/s or more"),
        );
    } else {
        goals.ratio(
            "checking by a bare parse, below 1000 MB/s",
            ratio,
            RATIO_GOAL,
        );
    }
}

fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    let lines = bytes.split(|byte| *byte == b'\n');
    lines.filter(|line| !line.is_empty()).collect()
}

fn check(lines: &[&[u8]]) -> usize {
    let mut checker = Checker::default();
    let mut byte = 0;
    for line in lines {
        checker.line(line, byte);
        byte += line.len() as u64 + 1;
    }
    checker.finish().0.len()
}

fn parse(lines: &[&[u8]]) -> usize {
    lines
        .iter()
        .filter(|line| serde_json::from_slice::<IgnoredAny>(line).is_ok())
        .count()
}

/// The least disturbed of all rounds: the others show what else the machine had to do.
fn best(times: Vec<Duration>) -> Duration {
    times.into_iter().min().unwrap_or_default()
}

/// A long session: of each turn's lines most are short, and most bytes are what a command printed.
fn session(size_bytes: usize) -> Vec<u8> {
    let mut file = File::default();
    file.line(
        "session_meta",
        json!({"id": "s", "cwd": "/work", "instructions": "word ".repeat(2000)}),
    );
    let printed: String = (0..60)
        .map(|line| format!("{line:4}: a line with \"quotes\" and\ttabs\n"))
        .collect();
    for turn in 0_u64.. {
        let (id, call) = (format!("turn-{turn}"), format!("call_{turn:016}"));
        file.event("task_started", &id);
        file.line(
            "turn_context",
            json!({"turn_id": id, "cwd": "/work", "model": "m", "approval_policy": "never"}),
        );
        file.message(
            "user",
            "input_text",
            "please go on with it, and tell me what you find",
        );
        file.line(
            "response_item",
            json!({"type": "reasoning", "summary": [], "encrypted_content": "QUJD".repeat(300)}),
        );
        let arguments = json!({"cmd": "cargo test --workspace", "yield_time_ms": 1000}).to_string();
        file.line("response_item", json!({"type": "function_call", "call_id": call, "name": "exec", "arguments": arguments}));
        file.line(
            "response_item",
            json!({"type": "function_call_output", "call_id": call, "output": printed}),
        );
        file.message(
            "assistant",
            "output_text",
            &"The tests pass now. ".repeat(12),
        );
        file.line("event_msg", json!({"type": "token_count", "info": {"total": {"input_tokens": 123, "output_tokens": 45}}}));
        file.event("task_complete", &id);
        if file.bytes.len() > size_bytes {
            return file.bytes;
        }
    }
    unreachable!("the session grows")
}

#[derive(Default)]
struct File {
    bytes: Vec<u8>,
    lines: u64,
}

impl File {
    fn line(&mut self, kind: &str, payload: Value) {
        let line = json!({"timestamp": "2026-01-01T00:00:00.000Z", "ordinal": self.lines, "type": kind, "payload": payload});
        self.bytes.extend(format!("{line}\n").bytes());
        self.lines += 1;
    }

    fn event(&mut self, name: &str, turn: &str) {
        self.line("event_msg", json!({"type": name, "turn_id": turn}));
    }

    fn message(&mut self, role: &str, part: &str, text: &str) {
        self.line(
            "response_item",
            json!({"type": "message", "role": role, "content": [{"type": part, "text": text}]}),
        );
    }
}
