//! What the sweep of an agent in another process says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use cutpoint_check::rules;
use cutpoint_engine::quiescence::{Quiescence, QuietCount};
use cutpoint_explore::external::{ExternalBound, ExternalClass, ExternalToken};
use cutpoint_explore::{Act, fingerprint};
use cutpoint_trace::AgentInfo;
use serde_json::{Value, json};

use super::super::super::run::quoted;
use super::super::Arguments;
use super::Swept;
use crate::agent_spec::AgentSpec;
use crate::external::Ran;
use crate::kinds::{Kinds, in_words};
use crate::out::say;
use crate::{Failure, files};

/// How many of the rules that were put to the test least often are named.
const LEAST: usize = 5;

/// What all scenarios have shown together.
#[derive(Default)]
pub struct Totals {
    /// Runs, the further ones of each class among them.
    pub runs: usize,
    /// Scenarios that the agent cannot run.
    pub skipped: usize,
    /// Classes.
    pub failures: usize,
    /// Runs that say nothing of the agent.
    pub troubled: usize,
    /// Whether the user stopped the command.
    pub cut_short: bool,
    /// Acts that the agent cannot take.
    lacking: Vec<Act>,
    turns: usize,
    interrupted: usize,
    pids: BTreeSet<u32>,
    ran: usize,
    planned: usize,
    traces: usize,
    missed: usize,
    exercised: BTreeMap<String, usize>,
    sweeps: Vec<Value>,
    kinds: Kinds,
}

impl Totals {
    /// Nothing was run yet.
    pub fn new(lacking: Vec<Act>) -> Self {
        Self {
            lacking,
            ..Self::default()
        }
    }

    /// Counts a run.
    pub fn take(&mut self, ran: &Ran) {
        self.runs += 1;
        self.turns += ran.turns.0;
        self.interrupted += ran.turns.1;
        self.pids.extend(&ran.pids);
    }

    /// How many interrupted turns there were in a second.
    pub fn interrupted_per_s(&self, elapsed: Duration) -> f64 {
        self.interrupted as f64 / elapsed.as_secs_f64().max(0.001)
    }

    /// Tells what a scenario has shown.
    pub fn tell(
        &mut self,
        arguments: &Arguments,
        agent: &AgentSpec,
        swept: &Swept,
    ) -> Result<(), Failure> {
        let found = &swept.found;
        self.ran += found.ran;
        self.planned += swept.planned();
        self.traces += found.traces();
        self.missed += found.missed;
        self.failures += swept.classes.len();
        for (rule, count) in &found.exercised {
            *self.exercised.entry(rule.clone()).or_default() += count;
        }
        let file = &swept.planned.file;
        say!(
            "{file}: {} of {} schedules ran, {} distinct traces, {}",
            found.ran,
            swept.planned(),
            found.traces(),
            in_words(swept.classes.len())
        )?;
        if found.missed > 0 {
            say!(
                "  in {} of them the cut point did not come again",
                found.missed
            )?;
        }
        if let Some((count, why)) = &found.trouble {
            self.troubled += count;
            say!("  {count} of them say nothing of the agent: {why}")?;
        }
        for (at, class) in swept.classes.iter().enumerate() {
            let replay = replay(arguments, agent, swept, class);
            show(arguments, swept, class, at + 1, &replay)?;
            (self.kinds).take(&class.broken, class.schedules, class.again, replay);
        }
        self.sweeps.push(self.json(arguments, swept));
        Ok(())
    }

    fn json(&self, arguments: &Arguments, swept: &Swept) -> Value {
        let class = |class: &ExternalClass| {
            let broken = class.broken.iter();
            let broken =
                broken.map(|broken| json!({"rule": broken.rule, "message": broken.message}));
            json!({
                "broken": broken.collect::<Vec<_>>(),
                "schedules": class.schedules,
                "traces": class.traces,
                "again": class.again.0,
                "of": class.again.1,
                "token": token(arguments, swept, class).to_string(),
            })
        };
        json!({
            "file": swept.planned.file,
            "scenario": swept.planned.scenario.name,
            "planned": swept.planned(),
            "ran": swept.found.ran,
            "traces": swept.found.traces(),
            "missed": swept.found.missed,
            "exercised": swept.found.exercised,
            "failures": swept.classes.iter().map(class).collect::<Vec<_>>(),
        })
    }

    /// Tells what all of it was worth.
    pub fn finish(
        &mut self,
        arguments: &Arguments,
        bound: &ExternalBound,
        info: &AgentInfo,
        quiet: &QuietCount,
        elapsed: Duration,
        jobs: usize,
    ) -> Result<(), Failure> {
        let words = self.bound_in_words(arguments, bound);
        let rate = self.interrupted_per_s(elapsed);
        let kinds = self.kinds.count();
        std::mem::take(&mut self.kinds).tell()?;
        say!(
            "\n{} of {} schedules ran on {} {} ({}): {words}",
            self.ran,
            self.planned,
            info.name,
            info.version,
            info.driver
        )?;
        say!(
            "gated and observed, not exhaustive: {} distinct traces, {}; the cut point did not come again in {}",
            self.traces,
            in_words(kinds),
            self.missed
        )?;
        let [still, silent, busy] =
            [Quiescence::Quiet, Quiescence::Silent, Quiescence::Busy].map(|found| quiet.of(found));
        say!(
            "at {} gates: no thread of the agent ran before the act at {still}, the case was silent \
             for 100 ms at {silent}, neither at {busy}",
            still + silent + busy
        )?;
        say!(
            "durability: level 0, by reading the rollout as each turn's end is told (syncs are not seen)"
        )?;
        say!("{}", self.least())?;
        say!(
            "{} runs in {:.1} s in {} processes, {jobs} at once: {} turns, {} of them interrupted, {rate:.1} interrupted turns/s",
            self.runs,
            elapsed.as_secs_f64(),
            self.pids.len(),
            self.turns,
            self.interrupted,
        )?;
        if self.skipped > 0 {
            say!("{} scenarios need what the agent cannot do", self.skipped)?;
        }
        if self.cut_short {
            say!("interrupted: what had been found is told, the rest was not swept")?;
        }
        let Some(file) = &arguments.json else {
            return Ok(());
        };
        let result = json!({
            "format": "cutpoint-external-sweep", "version": 1, "seed": arguments.seed,
            "shard": arguments.shard.to_string(),
            "agent": {"name": info.name, "version": info.version, "driver": info.driver},
            "bound": words, "exhaustive": false, "durability": 0,
            "gates": {"quiet": still, "silent": silent, "busy": busy},
            "interrupted_turns": self.interrupted, "elapsed_s": elapsed.as_secs_f64(),
            "exercised": self.exercised, "sweeps": self.sweeps,
        });
        files::write_atomic(file, format!("{result:#}\n").as_bytes())
            .map_err(|error| Failure::trouble(format!("{}: {error}", file.display())))
    }

    fn bound_in_words(&self, arguments: &Arguments, bound: &ExternalBound) -> String {
        let name = |acts: &[Act]| {
            acts.iter()
                .map(|act| act.name())
                .collect::<Vec<_>>()
                .join(", ")
        };
        let mut words = format!(
            "{} at every request, behind the headers and every event of each reply, and at each \
             event that the agent tells",
            name(&bound.acts)
        );
        if let Some(stride) = arguments.external.bytes {
            words.push_str(&format!(
                ", and inside the events of the first reply, behind every {stride} bytes"
            ));
        }
        if bound.pairs {
            words.push_str(", and every pair of them at the same point");
        }
        if !self.lacking.is_empty() {
            words.push_str(&format!("; {} it cannot take", name(&self.lacking)));
        }
        words
    }

    fn least(&self) -> String {
        let mut counts: Vec<(usize, &str)> = self
            .exercised
            .iter()
            .map(|(rule, count)| (*count, rule.as_str()))
            .collect();
        counts.sort_unstable();
        let least: Vec<String> = counts
            .iter()
            .take(LEAST)
            .map(|(count, rule)| format!("{rule} {count}×"))
            .collect();
        format!(
            "{} of {} rules were put to the test, least often {}; the others were not shown to hold",
            counts.len(),
            rules::rules().len(),
            least.join(", ")
        )
    }
}

fn token(arguments: &Arguments, swept: &Swept, class: &ExternalClass) -> ExternalToken {
    ExternalToken {
        scenario: fingerprint(&swept.planned.scenario),
        seed: arguments.seed,
        intervention: swept.intervention(class.first).cloned(),
    }
}

/// The command that replays a class's first schedule.
fn replay(
    arguments: &Arguments,
    agent: &AgentSpec,
    swept: &Swept,
    class: &ExternalClass,
) -> String {
    let token = token(arguments, swept, class);
    let mut command = format!(
        "cutpoint replay {token} {} --agent {}",
        quoted(&swept.planned.file),
        quoted(&agent.to_string())
    );
    for defect in &arguments.defects {
        command.push_str(&format!(" --defect {defect}"));
    }
    command
}

fn show(
    arguments: &Arguments,
    swept: &Swept,
    class: &ExternalClass,
    number: usize,
    replay: &str,
) -> Result<(), Failure> {
    say!(
        "  failure {number}: {} schedules, {} distinct traces; the first one again: {} of {} runs",
        class.schedules,
        class.traces,
        class.again.0,
        class.again.1
    )?;
    for broken in &class.broken {
        say!("    {:7} {}", broken.rule, broken.message)?;
    }
    say!("    replay: {replay}")?;
    match &arguments.out {
        Some(directory) => store(directory, swept, class, number),
        None => Ok(()),
    }
}

/// Writes the first schedule of a class as a scenario file.
fn store(
    directory: &Path,
    swept: &Swept,
    class: &ExternalClass,
    number: usize,
) -> Result<(), Failure> {
    let plain = &swept.planned.scenario;
    let mut scenario = swept
        .intervention(class.first)
        .map_or_else(|| plain.clone(), |it| it.applied_to(plain));
    let rules: BTreeSet<&str> = class.broken.iter().map(|it| it.rule.as_str()).collect();
    let rules: Vec<&str> = rules.into_iter().collect();
    scenario.name = format!("{}, which breaks {}", plain.name, rules.join(" and "));
    let stem = Path::new(&swept.planned.file).file_stem();
    let stem = stem.map(|stem| stem.to_string_lossy().into_owned());
    let file = directory.join(format!("{}-{number}.kdl", stem.unwrap_or_default()));
    let written = std::fs::create_dir_all(directory)
        .and_then(|()| files::write_atomic(&file, format!("{scenario}\n").as_bytes()));
    written.map_err(|error| Failure::trouble(format!("{}: {error}", file.display())))?;
    say!("    stored: {}", file.display())
}
