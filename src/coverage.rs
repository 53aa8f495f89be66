//! What sweeps have shown and what they have not, in words: of one run, or of all parts of one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cutpoint_explore::Tally;
use cutpoint_explore::stored::{Failure as Found, Stored, StoredSweep, add, not_shown};

use crate::exit_code::ExitCode;
use crate::kinds::{Kinds, in_words};
use crate::out::say;
use crate::{Failure, files};

/// How many of the rules that were tested least are named.
const LEAST: usize = 5;

/// Tells what one scenario has shown, but for its failures.
pub fn sweep(stored: &Stored, sweep: &StoredSweep) -> Result<(), Failure> {
    let part = if stored.shard.is_part() {
        format!(" (part {} of {})", stored.shard, sweep.bound)
    } else {
        String::new()
    };
    say!(
        "{}: {} of {} schedules ran{part}, {} distinct traces, {}",
        sweep.file,
        sweep.ran,
        sweep.planned,
        sweep.traces,
        in_words(sweep.failures.len())
    )?;
    for (level, Tally { ran, broken }) in &sweep.levels {
        let level = level.in_words();
        say!("  {level}: {ran} crashes, {broken} of them break a rule")?;
    }
    if let Some(trouble) = &sweep.trouble {
        say!(
            "  {} of them say nothing of the agent: {}",
            trouble.runs,
            trouble.why
        )?;
    }
    Ok(())
}

/// Tells one kind of failure, with what replays it.
pub fn failure(
    stored: &Stored,
    sweep: &StoredSweep,
    found: &Found,
    number: usize,
) -> Result<(), Failure> {
    say!(
        "  failure {number}: {} schedules, {} distinct traces",
        found.schedules,
        found.traces
    )?;
    for broken in &found.broken {
        say!("    {:7} {}", broken.rule, broken.message)?;
    }
    say!("    replay: {}", replay(stored, sweep, found))
}

fn replay(stored: &Stored, sweep: &StoredSweep, found: &Found) -> String {
    let defects = stored.asked.defects.iter();
    let defects: String = defects.map(|name| format!(" --defect {name}")).collect();
    format!("cutpoint replay {} {}{defects}", found.token, sweep.file)
}

/// Tells what failures of several scenarios have in common. Returns how many kinds there are over all.
fn kinds(stored: &Stored) -> Result<usize, Failure> {
    let mut kinds = Kinds::default();
    for sweep in &stored.sweeps {
        for found in &sweep.failures {
            let replay = replay(stored, sweep, found);
            kinds.take(&found.broken, found.schedules, (0, 0), replay);
        }
    }
    let count = kinds.count();
    kinds.tell()?;
    Ok(count)
}

/// States what all of it covers, and what it does not.
pub fn statement(stored: &Stored) -> Result<(), Failure> {
    let asked = &stored.asked;
    let kinds = kinds(stored)?;
    let sum = |count: fn(&StoredSweep) -> usize| stored.sweeps.iter().map(count).sum::<usize>();
    let (ran, planned) = (sum(|it| it.ran), sum(|it| it.planned));
    say!(
        "\n{ran} of {planned} schedules ran: {}; {} distinct traces, {} (seed {})",
        asked.bound,
        sum(|it| it.traces),
        in_words(kinds),
        asked.seed
    )?;
    let fact = |name: &str, text: &str| say!("  {name:11} {text}");
    match &stored.sweeps[..] {
        [one] => {
            let recording = one.recording.as_ref();
            let recording = recording.map_or(String::new(), |name| format!(", recording {name}"));
            let fingerprint = one.fingerprint;
            let name = &one.scenario;
            fact(
                "scenario",
                &format!("{name} ({fingerprint:016x}){recording}"),
            )?;
        }
        all => fact("scenarios", &all.len().to_string())?,
    }
    if stored.shard.is_part() {
        let bound = sum(|it| it.bound);
        fact("part", &format!("{} of {bound} schedules", stored.shard))?;
    }
    let defects = match &asked.defects[..] {
        [] => String::new(),
        defects => format!(", with planted defects: {}", defects.join(", ")),
    };
    fact(
        "agent",
        &format!("{}{defects}; cutpoint {}", asked.agent, asked.cutpoint),
    )?;
    fact("points", &format!("{} passed", sum(|it| it.points)))?;
    rules(stored)?;
    fact("durability", &asked.durability)?;
    let missed = sum(|it| it.missed);
    if missed > 0 {
        let why = "in which the agent never came to a point of the schedule";
        fact("missed", &format!("{missed} of the {ran} schedules, {why}"))?;
    }
    if stored.interrupted {
        say!("interrupted: what had not run by then was left out")?;
    }
    Ok(())
}

fn rules(stored: &Stored) -> Result<(), Failure> {
    let mut exercised = BTreeMap::new();
    for sweep in &stored.sweeps {
        add(&mut exercised, &sweep.exercised);
    }
    let book: BTreeSet<&str> = cutpoint_check::rules()
        .iter()
        .map(|rule| rule.id())
        .collect();
    exercised.retain(|rule, _| book.contains(rule.as_str()));
    let mut least: Vec<(&String, &usize)> = exercised.iter().collect();
    least.sort_by_key(|(_, count)| **count);
    let least: Vec<String> = least
        .iter()
        .take(LEAST)
        .map(|(rule, count)| format!("{rule} {count}"))
        .collect();
    let times: usize = exercised.values().sum();
    say!(
        "  {:11} {} of {} put to the test, {times} times; least often {}",
        "rules",
        exercised.len(),
        book.len(),
        if least.is_empty() {
            "none".to_owned()
        } else {
            least.join(", ")
        }
    )?;
    let never = not_shown(&exercised);
    if !never.is_empty() {
        say!(
            "  {:11} {}: nothing put them to the test",
            "not shown",
            never.join(" ")
        )?;
    }
    Ok(())
}

/// What it all means for the command.
pub fn code(stored: &Stored) -> ExitCode {
    let has = |found: fn(&StoredSweep) -> bool| stored.sweeps.iter().any(found);
    if has(|it| !it.failures.is_empty()) {
        ExitCode::Breach
    } else if has(|it| it.trouble.is_some()) || !stored.is_complete() {
        ExitCode::Trouble
    } else {
        ExitCode::Conforms
    }
}

/// Stores all of it as JSON.
pub fn store(stored: &Stored, file: &Path) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(stored)
        .map_err(|error| Failure::trouble(error.to_string()))?;
    files::write_atomic(file, format!("{text}\n").as_bytes())
        .map_err(|error| files::failure(file, &error))
}
