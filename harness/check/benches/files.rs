//! What checking a rollout costs, measured in one run side by side with a bare parse of the same lines.
//!
//! `cargo bench -p cutpoint-check --bench files [-- [--quick] [--check] [FILE]]`. With `--check` a missed
//! goal is an error. Without a file the lines are made up: a session in which the model talks and
//! commands print.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cutpoint_check::file::{Checker, RULES};
use serde::de::IgnoredAny;
use serde_json::{Value, json};

/// About so many bytes are checked in each round: more than caches hold would tell of the memory only.
const SIZE_BYTES: usize = 4 << 20;
/// Either the rate in bytes per second is as high as this...
const RATE_GOAL: f64 = 1e9;
/// ... or checking takes no longer than this by a bare parse.
const RATIO_GOAL: f64 = 1.5;

fn main() -> ExitCode {
    let has = |flag: &str| std::env::args().any(|argument| argument == flag);
    let rounds = if has("--quick") { 25 } else { 200 };
    let file = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with("--"));
    let bytes = match file {
        Some(file) => match std::fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) => {
                println!("{file}: {error}");
                return ExitCode::FAILURE;
            }
        },
        None => session(),
    };
    let lines: Vec<&[u8]> = bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .collect();
    let findings = check(&lines);
    println!(
        "{} lines, {:.0} MB, {findings} findings",
        lines.len(),
        bytes.len() as f64 / 1e6
    );
    // In turns, so that a machine that is busy for a while is so for both.
    let mut times = [const { Vec::new() }; 2];
    for _ in 0..rounds {
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
    let met = rate(checked) >= RATE_GOAL || ratio <= RATIO_GOAL;
    let word = if met { "met:   " } else { "MISSED:" };
    println!("{word} checking by a bare parse {ratio:.2}, goal ≤ {RATIO_GOAL:.2} or 1000 MB/s");
    if has("--check") && !met {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
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

fn time<T>(run: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    black_box(run());
    start.elapsed()
}

/// The least disturbed of all rounds: the others tell what else the machine had to do.
fn best(times: Vec<Duration>) -> Duration {
    times.into_iter().min().unwrap_or_default()
}

/// A long session: of each turn's lines most are short, and most bytes are what a command printed.
fn session() -> Vec<u8> {
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
        if file.bytes.len() > SIZE_BYTES {
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
