//! `cutpoint diff`

use std::path::PathBuf;

use cutpoint_recording::{ChangeCounts, HistoryChange, count, diff};
use cutpoint_report::layout::{Style, StyledLine};
use serde_json::{Value, json};

use crate::console::{self, say};
use crate::exit_code::ExitCode;
use crate::session_items;
use crate::{Failure, Outcome};

/// How many items that both sides have are shown on each side of a change.
const CONTEXT: usize = 2;

/// Arguments of `cutpoint diff`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cutpoint diff before.jsonl after.jsonl           two rollouts
  cutpoint diff recordings/good rollout.jsonl      what was recorded, and what a run of it wrote

Items are compared without ids, times, durations, the working directory, instructions, reasoning and
what describes the machine. Exit codes: 0 the same, 1 different, 2 a side can't be used.")]
pub struct Arguments {
    /// A rollout, a recording or a trace; `-` is standard input.
    a: PathBuf,
    /// Another one, of the same kind or not.
    b: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Tells what one session has and the other has not.
pub fn run(arguments: &Arguments) -> Outcome {
    if [&arguments.a, &arguments.b]
        .iter()
        .all(|side| side.as_os_str() == "-")
    {
        return Err(Failure::usage("only one side can be standard input"));
    }
    let (a, b) = (
        session_items::read(&arguments.a)?,
        session_items::read(&arguments.b)?,
    );
    let changes = diff(&a, &b);
    let counts = count(&changes);
    if arguments.json {
        say!("{}", for_programs(arguments, &changes, counts))?;
    } else {
        show(&changes)?;
        let ChangeCounts {
            kept,
            lost,
            added,
            moved,
        } = counts;
        match counts.is_same() {
            true => say!("the same: {kept} items")?,
            false => say!("{kept} kept, {lost} lost, {added} added, {moved} moved")?,
        }
    }
    Ok(match counts.is_same() {
        true => ExitCode::Conforms,
        false => ExitCode::Breach,
    })
}

fn is_kept(change: &HistoryChange) -> bool {
    matches!(change, HistoryChange::Kept { .. })
}

/// What changed, with what stands around it.
fn show(changes: &[HistoryChange]) -> Result<(), Failure> {
    let changed: Vec<usize> = (0..changes.len())
        .filter(|at| !is_kept(&changes[*at]))
        .collect();
    let mut layout = console::layout();
    let mut hidden = 0;
    for (at, change) in changes.iter().enumerate() {
        let next = changed.partition_point(|changed| *changed < at);
        let near = |place: usize| {
            changed
                .get(place)
                .is_some_and(|near| near.abs_diff(at) <= CONTEXT)
        };
        if changed.is_empty() || !near(next) && !next.checked_sub(1).is_some_and(near) {
            hidden += 1;
            continue;
        }
        if hidden > 0 {
            layout.text(&format!("  … {hidden} kept"));
            hidden = 0;
        }
        let style = match change {
            HistoryChange::Kept { .. } => Style::Plain,
            HistoryChange::Lost { .. } => Style::Failure,
            HistoryChange::Added { .. } => Style::Success,
            HistoryChange::Moved { .. } => Style::Warning,
        };
        for text in change.to_string().lines() {
            layout.wrapped(StyledLine::default().then(style, text), 4);
        }
    }
    if hidden > 0 && !changed.is_empty() {
        layout.text(&format!("  … {hidden} kept"));
    }
    console::print(&layout)
}

fn for_programs(arguments: &Arguments, changes: &[HistoryChange], counts: ChangeCounts) -> Value {
    let changes: Vec<Value> = changes
        .iter()
        .filter(|change| !is_kept(change))
        .map(one)
        .collect();
    json!({
        "format": "cutpoint-diff",
        "version": 1,
        "a": arguments.a.display().to_string(),
        "b": arguments.b.display().to_string(),
        "same": counts.is_same(),
        "counts": counts,
        "changes": changes,
    })
}

/// Places count from 0.
fn one(change: &HistoryChange) -> Value {
    let item = change.item().to_string();
    match change {
        HistoryChange::Kept { a, b, .. } => json!({"change": "kept", "a": a, "b": b, "item": item}),
        HistoryChange::Moved { a, b, .. } => {
            json!({"change": "moved", "a": a, "b": b, "item": item})
        }
        HistoryChange::Lost { a, .. } => json!({"change": "lost", "a": a, "item": item}),
        HistoryChange::Added { b, .. } => json!({"change": "added", "b": b, "item": item}),
    }
}
