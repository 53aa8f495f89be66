//! Reads results files of older versions.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Digests, HarnessErrors, ScenarioResult, SweepResults, SweepSettings, hex};
use crate::executor::Violation;
use crate::failure_group::FailureGroup;
use crate::plan::{CrashLevel, CrashTally};
use crate::shard::Shard;
use crate::token::Token;

/// The format that sweeps of agents in other processes once had. It has neither digests nor
/// fingerprints, so nothing can be merged from it.
pub(super) const PROCESS_FORMAT: &str = "cutpoint-external-sweep";

/// Version 2: failures had no kinds, and their messages had lost all numbers and ids.
#[derive(Deserialize)]
struct Version2 {
    cutpoint: String,
    agent: String,
    defects: Vec<String>,
    seed: u64,
    strict: bool,
    bound: String,
    durability: String,
    shard: Shard,
    interrupted: bool,
    sweeps: Vec<Scenario2>,
}

#[derive(Deserialize)]
struct Scenario2 {
    file: String,
    scenario: String,
    #[serde(with = "hex_only")]
    fingerprint: u64,
    #[serde(default)]
    recording: Option<String>,
    points: usize,
    bound: usize,
    planned: usize,
    ran: usize,
    traces: usize,
    missed: usize,
    #[serde(default)]
    levels: BTreeMap<CrashLevel, Tally2>,
    #[serde(default)]
    trouble: Option<HarnessErrors>,
    exercised: BTreeMap<String, usize>,
    not_shown: Vec<String>,
    failures: Vec<Failure2>,
    digests: Digests,
}

#[derive(Deserialize)]
struct Tally2 {
    ran: usize,
    broken: usize,
}

#[derive(Deserialize)]
struct Failure2 {
    broken: Vec<Broken2>,
    schedules: usize,
    traces: usize,
    number: usize,
    token: Token,
    digests: Digests,
}

#[derive(Deserialize)]
struct Broken2 {
    rule: String,
    message: String,
}

mod hex_only {
    pub(super) use super::hex::deserialize;
}

pub(super) fn read_version_2(bytes: &[u8]) -> Result<SweepResults, serde_json::Error> {
    let old: Version2 = serde_json::from_slice(bytes)?;
    let settings = SweepSettings {
        cutpoint: old.cutpoint,
        agent: old.agent,
        agent_argument: None,
        defects: old.defects,
        seed: old.seed,
        strict: old.strict,
        plan: old.bound,
        durability: old.durability,
    };
    Ok(SweepResults {
        version: 2,
        interrupted: old.interrupted,
        scenarios: old.sweeps.into_iter().map(scenario).collect(),
        ..SweepResults::new(settings, old.shard)
    })
}

fn scenario(old: Scenario2) -> ScenarioResult {
    let tally = |(level, tally): (CrashLevel, Tally2)| {
        let Tally2 { ran, broken } = tally;
        let failed = broken;
        (level, CrashTally { ran, failed })
    };
    ScenarioResult {
        file: old.file,
        scenario: old.scenario,
        fingerprint: old.fingerprint,
        recording: old.recording,
        points: old.points,
        schedules: old.bound,
        planned: old.planned,
        ran: old.ran,
        traces: old.traces,
        missed: old.missed,
        levels: old.levels.into_iter().map(tally).collect(),
        harness_errors: old.trouble,
        exercised: old.exercised,
        not_exercised: old.not_shown,
        failures: old.failures.into_iter().map(failure).collect(),
        digests: old.digests,
    }
}

fn failure(old: Failure2) -> FailureGroup {
    // The message without its numbers is what told failures apart.
    let violation = |Broken2 { rule, message }: Broken2| Violation::new(rule, &message, &message);
    FailureGroup {
        violations: old.broken.into_iter().map(violation).collect(),
        schedules: old.schedules,
        traces: old.traces,
        number: old.number,
        token: old.token,
        repeats: None,
        digests: old.digests,
    }
}
