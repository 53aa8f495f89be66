//! What a sweep prints: of one run, or of all parts of one.

use std::collections::BTreeMap;
use std::path::Path;

use cutpoint_explore::results::{
    Sampling, ScenarioResult, SweepResults, SweepSettings, add_exercised,
};
use cutpoint_explore::{CrashTally, FailureGroup, FailureKey, Repeats, Shard, Violation};

use crate::cmd::run::quoted;
use crate::console::say;
use crate::exit_code::ExitCode;
use crate::{Failure, files};

/// How many of the rules that were exercised least often are named.
const LEAST: usize = 5;

/// Prints the results of one scenario, with its failures. `stored` is called after each failure.
pub fn scenario(
    settings: &SweepSettings,
    shard: Shard,
    result: &ScenarioResult,
    stored: impl Fn(&FailureGroup, usize) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let part = if shard.is_part() {
        format!(" (part {shard} of {})", result.schedules)
    } else {
        String::new()
    };
    say!(
        "{}: {} of {} schedules ran{part}, {} distinct traces, {}",
        result.file,
        result.ran,
        result.planned,
        result.traces,
        failure_count(result.failures.len())
    )?;
    for (level, CrashTally { ran, failed }) in &result.levels {
        let level = level.description();
        say!("  {level}: {ran} crashes, {failed} of them violate a rule")?;
    }
    if let Some(errors) = &result.harness_errors {
        let (runs, why) = (errors.runs, &errors.why);
        say!("  {runs} of them show nothing about the agent: {why}")?;
    }
    for (at, group) in result.failures.iter().enumerate() {
        failure(settings, result, group, at + 1)?;
        stored(group, at + 1)?;
    }
    Ok(())
}

fn failure(
    settings: &SweepSettings,
    result: &ScenarioResult,
    group: &FailureGroup,
    number: usize,
) -> Result<(), Failure> {
    say!(
        "  failure {number}: {} schedules, {} distinct traces{}",
        group.schedules,
        group.traces,
        repeats("; the first one failed again in", group.repeats)
    )?;
    violations(&group.violations)?;
    say!("    replay: {}", replay(settings, result, group))
}

fn repeats(what: &str, repeats: Option<Repeats>) -> String {
    repeats.map_or(String::new(), |Repeats { failed, runs }| {
        format!("{what} {failed} of {runs} runs")
    })
}

/// Prints violations, one a line.
pub fn violations(violations: &[Violation]) -> Result<(), Failure> {
    for violation in violations {
        say!("    {:7} {}", violation.rule, violation.message)?;
    }
    Ok(())
}

/// The command that replays the smallest schedule of a failure.
fn replay(settings: &SweepSettings, result: &ScenarioResult, group: &FailureGroup) -> String {
    let mut words = vec![
        format!("cutpoint replay {}", group.token),
        quoted(&result.file),
    ];
    let agent = settings.agent_argument.iter();
    words.extend(agent.map(|agent| format!("--agent {}", quoted(agent))));
    let defects = settings.defects.iter();
    words.extend(defects.map(|name| format!("--defect {name}")));
    words.join(" ")
}

/// A number of failure groups.
pub fn failure_count(count: usize) -> String {
    match count {
        1 => "1 kind of failure".to_owned(),
        count => format!("{count} kinds of failure"),
    }
}

/// The failures of the same kind in several scenarios.
struct CommonFailure<'a> {
    first: &'a FailureGroup,
    scenarios: usize,
    schedules: usize,
    repeats: Option<Repeats>,
    /// What replays the first one.
    replay: String,
}

/// The failures over all scenarios: what fails in one of them mostly fails in others, too.
fn common_failures(results: &SweepResults) -> Vec<CommonFailure<'_>> {
    let mut common: BTreeMap<FailureKey, CommonFailure<'_>> = BTreeMap::new();
    for scenario in &results.scenarios {
        for group in &scenario.failures {
            let one = common.entry(group.key()).or_insert_with(|| CommonFailure {
                first: group,
                scenarios: 0,
                schedules: 0,
                repeats: None,
                replay: replay(&results.settings, scenario, group),
            });
            one.scenarios += 1;
            one.schedules += group.schedules;
            if let Some(more) = group.repeats {
                let known = one.repeats.get_or_insert_default();
                known.failed += more.failed;
                known.runs += more.runs;
            }
        }
    }
    let mut common: Vec<CommonFailure<'_>> = common.into_values().collect();
    common.sort_by_key(|it| std::cmp::Reverse((it.scenarios, it.schedules)));
    common
}

fn show_common_failures(common: &[CommonFailure<'_>]) -> Result<(), Failure> {
    if common.iter().all(|it| it.scenarios == 1) {
        return Ok(());
    }
    say!("\nOver all scenarios, {}:", failure_count(common.len()))?;
    for it in common {
        let scenarios = match it.scenarios {
            1 => "1 scenario".to_owned(),
            count => format!("{count} scenarios"),
        };
        say!(
            "  in {scenarios}, {} schedules{}",
            it.schedules,
            repeats("; the first ones failed again in", it.repeats)
        )?;
        violations(&it.first.violations)?;
        say!("    replay: {}", it.replay)?;
    }
    Ok(())
}

/// Prints what the whole sweep covers, and what it does not.
pub fn statement(results: &SweepResults) -> Result<(), Failure> {
    let settings = &results.settings;
    let common = common_failures(results);
    show_common_failures(&common)?;
    let sum = |count: fn(&ScenarioResult) -> usize| -> usize {
        results.scenarios.iter().map(count).sum()
    };
    let (ran, planned) = (sum(|it| it.ran), sum(|it| it.planned));
    say!(
        "\n{ran} of {planned} schedules ran: {}; {} distinct traces, {} (seed {})",
        settings.plan,
        sum(|it| it.traces),
        failure_count(common.len()),
        settings.seed
    )?;
    match &results.scenarios[..] {
        [one] => fact("scenario", &scenario_fact(one))?,
        all => fact("scenarios", &all.len().to_string())?,
    }
    if results.skipped > 0 {
        let text = format!(
            "{} scenarios need what the agent cannot do",
            results.skipped
        );
        fact("skipped", &text)?;
    }
    if results.shard.is_part() {
        let all = sum(|it| it.schedules);
        fact("part", &format!("{} of {all} schedules", results.shard))?;
    }
    let defects = match &settings.defects[..] {
        [] => String::new(),
        defects => format!(", with planted defects: {}", defects.join(", ")),
    };
    let agent = format!(
        "{}{defects}; cutpoint {}",
        settings.agent, settings.cutpoint
    );
    fact("agent", &agent)?;
    fact("points", &format!("{} passed", sum(|it| it.points)))?;
    rules(results)?;
    fact("durability", &settings.durability)?;
    let missed = sum(|it| it.missed);
    if missed > 0 {
        let why = "in which the agent never came to a cut point of the schedule";
        fact("missed", &format!("{missed} of the {ran} schedules, {why}"))?;
    }
    if let Some(sampling) = &results.sampling {
        sampled(sampling)?;
    }
    if results.interrupted {
        say!("interrupted: what had not run by then was left out")?;
    }
    Ok(())
}

fn fact(name: &str, text: &str) -> Result<(), Failure> {
    say!("  {name:13} {text}")
}

fn scenario_fact(result: &ScenarioResult) -> String {
    let recording = result.recording.as_ref();
    let recording = recording.map_or(String::new(), |name| format!(", recording {name}"));
    let (name, fingerprint) = (&result.scenario, result.fingerprint);
    format!("{name} ({fingerprint:016x}){recording}")
}

/// What is to be said of runs that are samples.
fn sampled(sampling: &Sampling) -> Result<(), Failure> {
    fact("sampled", "gated and observed, not exhaustive")?;
    let gates = sampling.gates;
    let text = format!(
        "{}: no thread of the agent ran before the act at {}, the case was silent for 100 ms at {}, \
         neither at {}",
        gates.quiet + gates.silent + gates.busy,
        gates.quiet,
        gates.silent,
        gates.busy
    );
    fact("gates", &text)?;
    let text = format!(
        "{} in {:.1} s in {} processes, {} at once: {} turns, {} of them interrupted, {:.1} \
         interrupted turns/s",
        sampling.runs,
        sampling.elapsed_s,
        sampling.processes,
        sampling.jobs,
        sampling.turns,
        sampling.interrupted_turns,
        sampling.interrupted_per_s()
    );
    fact("runs", &text)
}

fn rules(results: &SweepResults) -> Result<(), Failure> {
    let mut exercised = BTreeMap::new();
    for scenario in &results.scenarios {
        add_exercised(&mut exercised, &scenario.exercised);
    }
    let book = rule_book();
    exercised.retain(|rule, _| book.contains(&rule.as_str()));
    let mut least: Vec<(&String, &usize)> = exercised.iter().collect();
    least.sort_by_key(|(_, count)| **count);
    let least: Vec<String> = least
        .iter()
        .take(LEAST)
        .map(|(rule, count)| format!("{rule} {count}"))
        .collect();
    let least = match &least[..] {
        [] => "none".to_owned(),
        least => least.join(", "),
    };
    let times: usize = exercised.values().sum();
    let (count, all) = (exercised.len(), book.len());
    let text = format!("{count} of {all} exercised, {times} times; least often {least}");
    fact("rules", &text)?;
    let never: Vec<&str> = book
        .into_iter()
        .filter(|rule| !exercised.contains_key(*rule))
        .collect();
    match &never[..] {
        [] => Ok(()),
        never => fact("not exercised", &never.join(" ")),
    }
}

/// The ids of the rule book, in its order.
pub fn rule_book() -> Vec<&'static str> {
    let rules = cutpoint_check::rules().iter();
    rules.map(|rule| rule.id()).collect()
}

/// The exit code of a sweep with these results.
pub fn exit_code(results: &SweepResults) -> ExitCode {
    let has = |found: fn(&ScenarioResult) -> bool| results.scenarios.iter().any(found);
    if has(|it| !it.failures.is_empty()) {
        ExitCode::Breach
    } else if has(|it| it.harness_errors.is_some()) || !results.is_complete() {
        ExitCode::Trouble
    } else {
        ExitCode::Conforms
    }
}

/// Writes the results as JSON.
pub fn store(results: &SweepResults, file: &Path) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(results)
        .map_err(|error| Failure::trouble(error.to_string()))?;
    files::write_atomic(file, format!("{text}\n").as_bytes())
        .map_err(|error| files::failure(file, &error))
}
