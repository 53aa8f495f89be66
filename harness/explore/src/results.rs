//! The results of a sweep, as a file: of all schedules of a plan, or of one part of them.

mod legacy;
mod merge;

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::failure_group::FailureGroup;
use crate::plan::{CrashLevel, CrashTally};
use crate::shard::Shard;

pub use merge::{MergeError, merge};

/// The name that every results file of a sweep has.
pub const FORMAT: &str = "cutpoint-sweep";
/// The version of the format that this build writes.
pub const VERSION: u32 = 3;

/// The results of a sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SweepResults {
    /// Always [`FORMAT`].
    pub format: String,
    /// The format's version.
    pub version: u32,
    /// What was swept, and how: the same in each part.
    #[serde(flatten)]
    pub settings: SweepSettings,
    /// Which part of it.
    pub shard: Shard,
    /// Whether the user stopped it before all of the part had run.
    pub interrupted: bool,
    /// How the runs were sampled, if the same schedule need not give the same trace each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Sampling>,
    /// How many scenarios the agent could not run.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped: usize,
    /// The scenarios, in the order in which they were swept.
    pub scenarios: Vec<ScenarioResult>,
}

/// What was swept, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepSettings {
    /// The version of cutpoint, and so of the rules.
    pub cutpoint: String,
    /// The agent.
    pub agent: String,
    /// The agent as `--agent` takes it, unless it is the reference agent in the lab.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_argument: Option<String>,
    /// The planted defects of the agent that were switched on.
    pub defects: Vec<String>,
    /// The seed of everything random.
    pub seed: u64,
    /// Whether breaches of SHOULD rules counted.
    pub strict: bool,
    /// Which schedules were run, in words.
    pub plan: String,
    /// What is known of the rollout on stable storage, and by which method, in words.
    pub durability: String,
}

/// How runs were sampled.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// How many runs there were, the further ones of each failure among them.
    pub runs: usize,
    /// How many ran at once.
    pub jobs: usize,
    /// The processes of the agent that served them.
    pub processes: usize,
    /// The turns that were started.
    pub turns: usize,
    /// How many of them were interrupted.
    pub interrupted_turns: usize,
    /// How still the agent was before acts at gates.
    pub gates: GateCounts,
    /// How long it took in all, in seconds.
    pub elapsed_s: f64,
}

/// How still the agent was before acts at gates, by the number of gates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateCounts {
    /// No thread of the agent ran.
    pub quiet: usize,
    /// Threads ran, but nothing was observed of the case for a while.
    pub silent: usize,
    /// Neither.
    pub busy: usize,
}

impl Sampling {
    /// How many interrupted turns there were in a second.
    pub fn interrupted_per_s(&self) -> f64 {
        self.interrupted_turns as f64 / self.elapsed_s.max(0.001)
    }

    fn join(&mut self, other: &Self) {
        self.runs += other.runs;
        self.jobs = self.jobs.max(other.jobs);
        self.processes += other.processes;
        self.turns += other.turns;
        self.interrupted_turns += other.interrupted_turns;
        self.gates.quiet += other.gates.quiet;
        self.gates.silent += other.gates.silent;
        self.gates.busy += other.gates.busy;
        self.elapsed_s += other.elapsed_s;
    }
}

/// The results of one scenario.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScenarioResult {
    /// The scenario's file, as the user named it.
    pub file: String,
    /// Its name.
    pub scenario: String,
    /// Its fingerprint.
    #[serde(with = "hex")]
    pub fingerprint: u64,
    /// The recording that it replays, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording: Option<String>,
    /// How many cut points it passes as it is.
    pub points: usize,
    /// How many schedules the whole plan has, the scenario as it is among them.
    pub schedules: usize,
    /// How many of them fall to this part.
    pub planned: usize,
    /// How many of those were run.
    pub ran: usize,
    /// How many distinct traces they gave.
    pub traces: usize,
    /// In how many the agent never came to the cut point of an act.
    pub missed: usize,
    /// How the crashes of each level went, if crashes were swept.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub levels: BTreeMap<CrashLevel, CrashTally>,
    /// Runs that show nothing about the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub harness_errors: Option<HarnessErrors>,
    /// How often each rule was exercised.
    pub exercised: BTreeMap<String, usize>,
    /// The rules that no run exercised, in the order of the rule book: not shown to hold.
    pub not_exercised: Vec<String>,
    /// What failed, by the smallest schedule.
    pub failures: Vec<FailureGroup>,
    /// The digests of the traces.
    pub digests: Digests,
}

/// Runs that show nothing about the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HarnessErrors {
    /// How many.
    pub runs: usize,
    /// The number of the smallest schedule among them.
    pub number: usize,
    /// Why that one shows nothing.
    pub why: String,
}

impl HarnessErrors {
    /// The same runs and further ones. The reason is that of the smallest schedule.
    pub(crate) fn join(self, other: Self) -> Self {
        let runs = self.runs + other.runs;
        let first = if other.number < self.number {
            other
        } else {
            self
        };
        Self { runs, ..first }
    }
}

impl ScenarioResult {
    /// Adds the results of another part of the schedules.
    pub(crate) fn join(&mut self, other: Self) {
        self.planned += other.planned;
        self.ran += other.ran;
        self.missed += other.missed;
        for (level, tally) in other.levels {
            let known = self.levels.entry(level).or_default();
            known.ran += tally.ran;
            known.failed += tally.failed;
        }
        self.digests.join(other.digests);
        self.traces = self.digests.len();
        add_exercised(&mut self.exercised, &other.exercised);
        self.not_exercised
            .retain(|rule| other.not_exercised.contains(rule));
        self.harness_errors = match (self.harness_errors.take(), other.harness_errors) {
            (Some(one), Some(two)) => Some(one.join(two)),
            (one, two) => one.or(two),
        };
        for group in other.failures {
            let key = group.key();
            match self.failures.iter_mut().find(|known| known.key() == key) {
                Some(known) => known.join(group),
                None => self.failures.push(group),
            }
        }
        self.failures.sort_by_key(|group| group.number);
    }
}

/// Adds up how often rules were exercised.
pub fn add_exercised(exercised: &mut BTreeMap<String, usize>, more: &BTreeMap<String, usize>) {
    for (rule, count) in more {
        *exercised.entry(rule.clone()).or_default() += count;
    }
}

/// Digests of traces, in order. In a file: 16 hexadecimal digits each, with nothing between them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Digests(Vec<u64>);

/// The digits of a digest.
const DIGITS: usize = 16;

impl Digests {
    /// How many there are.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The digests, in order.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().copied()
    }

    pub(crate) fn join(&mut self, other: Self) {
        self.0.extend(other.0);
        self.0.sort_unstable();
        self.0.dedup();
    }
}

impl FromIterator<u64> for Digests {
    fn from_iter<I: IntoIterator<Item = u64>>(digests: I) -> Self {
        let mut digests: Vec<u64> = digests.into_iter().collect();
        digests.sort_unstable();
        digests.dedup();
        Self(digests)
    }
}

impl Serialize for Digests {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        use std::fmt::Write as _;
        let mut text = String::with_capacity(self.0.len() * DIGITS);
        for digest in &self.0 {
            // Writing into a string can't fail.
            let _ = write!(text, "{digest:016x}");
        }
        to.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Digests {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let read = |digits: &[u8]| {
            let text = std::str::from_utf8(digits).ok()?;
            u64::from_str_radix(text, 16)
                .ok()
                .filter(|_| digits.len() == DIGITS)
        };
        let digests: Option<Vec<u64>> = text.as_bytes().chunks(DIGITS).map(read).collect();
        let digests = digests.filter(|them| them.is_sorted());
        digests.map(Self).ok_or_else(|| {
            D::Error::custom("digests are 16 hexadecimal digits each, in order, without gaps")
        })
    }
}

/// A number of 64 bits as hexadecimal digits: not every reader of JSON has so many bits.
mod hex {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(number: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{number:016x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = String::deserialize(from)?;
        u64::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Why a file is not a results file that can be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is something else.
    #[error("these are not the results of a sweep: {0}")]
    Form(#[from] serde_json::Error),
    /// It was written by a newer or a very old version.
    #[error(
        "these results have format version {0}; this build reads versions 2 and {VERSION}, so merge them with the version of cutpoint that wrote them"
    )]
    Version(u64),
    /// It is from the time when agents in other processes had a format of their own.
    #[error(
        "these results of `sweep --agent` have the format {} 1, which has no parts to merge; sweep again with this version",
        legacy::PROCESS_FORMAT
    )]
    OldProcessSweep,
}

/// What tells results files from others, and their versions apart.
#[derive(Deserialize)]
struct Label {
    format: String,
    version: u64,
}

impl SweepResults {
    /// Nothing was run yet.
    pub fn new(settings: SweepSettings, shard: Shard) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            settings,
            shard,
            interrupted: false,
            sampling: None,
            skipped: 0,
            scenarios: Vec::new(),
        }
    }

    /// Reads a results file.
    ///
    /// # Errors
    /// If it is something else, or of a version that cannot be read.
    pub fn read(bytes: &[u8]) -> Result<Self, ReadError> {
        let label: Label = serde_json::from_slice(bytes)?;
        match (label.format.as_str(), label.version) {
            (FORMAT, 3) => Ok(serde_json::from_slice(bytes)?),
            (FORMAT, 2) => Ok(legacy::read_version_2(bytes)?),
            (FORMAT, version) => Err(ReadError::Version(version)),
            (legacy::PROCESS_FORMAT, _) => Err(ReadError::OldProcessSweep),
            (format, _) => {
                let message = format!("the format is `{format}`");
                Err(serde_json::Error::custom(message).into())
            }
        }
    }

    /// Whether everything that falls to this part was run.
    pub fn is_complete(&self) -> bool {
        let all_ran = |scenario: &ScenarioResult| scenario.ran == scenario.planned;
        !self.interrupted && self.scenarios.iter().all(all_ran)
    }
}

#[cfg(test)]
mod tests;
