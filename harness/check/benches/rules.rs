//! What judging a trace costs, measured in one run side by side with a plain pass over the same trace:
//! writing it as JSON.
//!
//! `cargo bench -p cutpoint-check --bench rules -- [--short] [--check]`. With `--check` a missed goal
//! is an error.

#[path = "../src/testing.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "the bench needs a part of what the tests do"
)]
mod testing;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

use cutpoint_bench::{Goals, HotPath, Options, median, micros, time};
use cutpoint_check::{View, judge, rules};
use cutpoint_trace::verdict::Verdict;
use cutpoint_trace::{ReadTrigger, Trace};
use serde_json::{Value, json};

use crate::testing::{Tracer, assistant, call, marker, output, user};

/// Turns of the trace that the goals speak of: about 10,000 entries.
const TURNS: usize = 100;
/// Pieces in which a message comes: most of a real stream.
const PIECES: usize = 20;
/// Turns after which the history is compacted, as agents do before it outgrows the model.
const COMPACT_AFTER: usize = 20;
/// Every so many turns the user interrupts one.
const INTERRUPT_EVERY: usize = 4;
/// Judging the trace by writing it.
const RATIO_GOAL: f64 = 6.0;
/// Judging twice the trace, by twice the time that the trace took.
const GROWTH_GOAL: f64 = 1.5;

fn main() -> ExitCode {
    let hot_path = HotPath {
        name: "rule-book-over-10000-entries",
        prepare: || {
            let trace: &Trace = Box::leak(Box::new(session(TURNS)));
            Box::new(|| {
                black_box(judge(trace));
            })
        },
    };
    cutpoint_bench::run(Some(hot_path), measure)
}

fn measure(options: &Options, goals: &mut Goals) {
    let rounds = options.rounds(7, 31);
    let (once, twice) = (session(TURNS), session(2 * TURNS));
    for trace in [&once, &twice] {
        let verdicts = judge(trace);
        let wrong = verdicts.iter().find(|it| !is_kept(&it.verdict));
        assert!(
            wrong.is_none(),
            "the session is not as it should be: {wrong:?}"
        );
    }
    // In turns, so that a machine that is busy for a while is so for all of them.
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..rounds {
        times[0].push(time(|| judge(&once)));
        times[1].push(time(|| judge(&twice)));
        times[2].push(time(|| serde_json::to_string(&once.entries)));
    }
    let [judged, judged_twice, written] = times.map(median);
    for (what, trace, took) in [
        ("judging", &once, judged),
        ("judging", &twice, judged_twice),
        ("writing", &once, written),
    ] {
        println!(
            "{what} {} entries {:8.2} ms",
            trace.entries.len(),
            1e3 * took.as_secs_f64()
        );
    }
    by_part(&once, &twice, rounds);
    let ratio = judged.as_secs_f64() / written.as_secs_f64();
    let growth = judged_twice.as_secs_f64() / judged.as_secs_f64() / 2.0;
    goals.ratio("judging by writing", ratio, RATIO_GOAL);
    goals.ratio("twice the trace by twice the time", growth, GROWTH_GOAL);
}

fn is_kept(outcome: &Verdict) -> bool {
    matches!(outcome, Verdict::Pass { .. } | Verdict::NotExercised)
}

/// The time that the index and each rule take, the dearest first.
fn by_part(once: &Trace, twice: &Trace, rounds: usize) {
    let views = [View::new(once), View::new(twice)];
    let index = [once, twice].map(|trace| median_of(rounds, || View::new(trace)));
    let mut parts = vec![("index", index)];
    for rule in rules() {
        let times = views
            .each_ref()
            .map(|view| median_of(rounds, || rule.check(view)));
        parts.push((rule.id(), times));
    }
    parts.sort_by_key(|(_, [time, _])| std::cmp::Reverse(*time));
    println!("\npart          once     twice");
    for (name, [once, twice]) in parts {
        println!("{name:7} {:7.0} µs {:7.0} µs", micros(once), micros(twice));
    }
}

fn median_of<T>(rounds: usize, run: impl Fn() -> T) -> Duration {
    median((0..rounds).map(|_| time(&run)).collect())
}

/// A session in which the model talks, a command runs in each turn, the user interrupts some, and the
/// history is compacted now and then: all as it should be.
fn session(turns: usize) -> Trace {
    let mut tracer = Tracer::watched();
    let mut history = Vec::new();
    for number in 0..turns {
        if number > 0 && number.is_multiple_of(COMPACT_AFTER) {
            let line = json!({"message": "a summary"});
            tracer.wrote_line("compacted", &line).read(ReadTrigger::End);
            history = vec![user("a summary")];
        }
        turn(&mut tracer, &mut history, number);
    }
    tracer.exit().alive(&[]).trace()
}

fn turn(t: &mut Tracer, history: &mut Vec<Value>, number: usize) {
    let (turn, id) = (format!("turn-{number}"), format!("call-{number}"));
    let (exchange, text) = (2 * number + 1, format!("step {number}"));
    add(t, history, user(&text));
    t.start(&turn, &text);
    t.request(exchange, history)
        .read(ReadTrigger::Request { exchange });
    t.created(exchange);
    let said = say(t, &turn, exchange, number);
    add(t, history, assistant(&said));
    t.emit(exchange, call(&id)).finish(exchange);
    add(t, history, call(&id));
    t.begin(&turn, &id);
    for piece in 0..PIECES {
        t.printed(&turn, &id, &format!("line {piece}\n"));
    }
    if number % INTERRUPT_EVERY == INTERRUPT_EVERY - 1 {
        let printed: String = (0..PIECES).map(|piece| format!("line {piece}\n")).collect();
        add(
            t,
            history,
            output(&id, &format!("aborted; it had printed:\n{printed}")),
        );
        t.interrupted(&turn).sees_status("task interrupted");
        t.alive(&[]);
        history.push(marker());
        return;
    }
    t.end(&turn, &id, Some(0));
    add(t, history, output(&id, "Exit code: 0"));
    let exchange = exchange + 1;
    t.request(exchange, history)
        .read(ReadTrigger::Request { exchange });
    t.created(exchange);
    let said = say(t, &turn, exchange, number);
    add(t, history, assistant(&said));
    t.finish(exchange).completed(&turn).read_at_end(&turn);
}

/// A message, piece by piece, and whole at its end.
fn say(t: &mut Tracer, turn: &str, exchange: usize, number: usize) -> String {
    t.add(exchange, assistant(""));
    let mut said = String::new();
    for piece in 0..PIECES {
        let delta = format!("word {number}-{piece} ");
        t.sent(
            exchange,
            json!({"type": "response.output_text.delta", "delta": delta}),
        );
        t.delta(turn, &delta);
        said.push_str(&delta);
    }
    let item = assistant(&said);
    t.sent(
        exchange,
        json!({"type": "response.output_item.done", "item": item}),
    );
    t.message(turn, &said).sees_message(turn, &said);
    said
}

/// An item that enters the history, and the rollout with it.
fn add(t: &mut Tracer, history: &mut Vec<Value>, item: Value) {
    t.wrote(&item);
    history.push(item);
}
