//! Merges the results of all parts: what comes out is what one machine would have written, byte for
//! byte.

use super::{ScenarioResult, SweepResults, VERSION};
use crate::shard::{NotWhole, Shard, whole};

/// Why results cannot be merged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// They do not make up a whole.
    #[error(transparent)]
    NotWhole(#[from] NotWhole),
    /// They are not parts of the same sweep.
    #[error(
        "{one} and {other} are parts of different sweeps: {what} differs, {first} and {second}"
    )]
    Different {
        /// The first file.
        one: String,
        /// The other one.
        other: String,
        /// What differs.
        what: &'static str,
        /// What it is in the first file.
        first: String,
        /// What it is in the other one.
        second: String,
    },
    /// One was interrupted.
    #[error("{name} was interrupted; sweep --shard {shard} again")]
    Interrupted {
        /// The file.
        name: String,
        /// The part.
        shard: Shard,
    },
    /// The parts have more or fewer schedules than the plan.
    #[error(
        "the parts hold {parts} schedules of {file}, its plan {schedules}; sweep them again with one build"
    )]
    Sum {
        /// The scenario's file.
        file: String,
        /// How many schedules the parts have.
        parts: usize,
        /// How many they should have.
        schedules: usize,
    },
}

/// Merges the results of all parts, each with the name of its file.
///
/// # Errors
/// If they are not all parts of one sweep, each once and run to its end.
pub fn merge(parts: Vec<(String, SweepResults)>) -> Result<SweepResults, MergeError> {
    let shards: Vec<_> = parts
        .iter()
        .map(|(name, part)| (name.as_str(), part.shard))
        .collect();
    whole(&shards)?;
    for (name, part) in &parts {
        check_same(&parts[0], name, part)?;
        if !part.is_complete() {
            return Err(MergeError::Interrupted {
                name: name.clone(),
                shard: part.shard,
            });
        }
    }
    let mut parts = parts.into_iter().map(|(_, part)| part);
    let mut merged = parts.next().ok_or(NotWhole::Nothing)?;
    merged.shard = Shard::WHOLE;
    merged.version = VERSION;
    for part in parts {
        if let (Some(one), Some(other)) = (&mut merged.sampling, &part.sampling) {
            one.join(other);
        }
        for (one, other) in merged.scenarios.iter_mut().zip(part.scenarios) {
            one.join(other);
        }
    }
    if merged.sampling.is_some() {
        // Two runs of a scenario as it is may pass different cut points, so the parts of a sampled
        // sweep are what they are.
        for scenario in &mut merged.scenarios {
            scenario.schedules = scenario.planned;
        }
    }
    match merged
        .scenarios
        .iter()
        .find(|it| it.planned != it.schedules)
    {
        Some(scenario) => Err(MergeError::Sum {
            file: scenario.file.clone(),
            parts: scenario.planned,
            schedules: scenario.schedules,
        }),
        None => Ok(merged),
    }
}

/// Checks that a part belongs to the same sweep as the first one.
fn check_same(
    (one, first): &(String, SweepResults),
    other: &str,
    part: &SweepResults,
) -> Result<(), MergeError> {
    let (a, b) = (&first.settings, &part.settings);
    let agents = |part: &SweepResults| {
        let argument = part.settings.agent_argument.iter();
        let words: Vec<&str> = argument.map(String::as_str).collect();
        [&[part.settings.agent.as_str()], &words[..]]
            .concat()
            .join(", ")
    };
    let facts = [
        (
            "the format version",
            first.version.to_string(),
            part.version.to_string(),
        ),
        ("the version", a.cutpoint.clone(), b.cutpoint.clone()),
        ("the agent", agents(first), agents(part)),
        (
            "the list of defects",
            a.defects.join(", "),
            b.defects.join(", "),
        ),
        ("the seed", a.seed.to_string(), b.seed.to_string()),
        ("--strict", a.strict.to_string(), b.strict.to_string()),
        ("the plan", a.plan.clone(), b.plan.clone()),
        ("the durability", a.durability.clone(), b.durability.clone()),
    ];
    let mut facts = facts.to_vec();
    let (ours, theirs) = (scenarios(first), scenarios(part));
    let missing = || "no more".to_owned();
    for at in 0..ours.len().max(theirs.len()) {
        let [first, second] = [&ours, &theirs].map(|all| all.get(at).cloned());
        facts.push((
            "a scenario",
            first.unwrap_or_else(missing),
            second.unwrap_or_else(missing),
        ));
    }
    match facts.into_iter().find(|(_, first, second)| first != second) {
        Some((what, first, second)) => Err(MergeError::Different {
            one: one.clone(),
            other: other.to_owned(),
            what,
            first: format!("`{first}`"),
            second: format!("`{second}`"),
        }),
        None => Ok(()),
    }
}

/// What must be the same of each scenario.
fn scenarios(part: &SweepResults) -> Vec<String> {
    let sampled = part.sampling.is_some();
    let scenario = |it: &ScenarioResult| {
        let (file, name, fingerprint) = (&it.file, &it.scenario, it.fingerprint);
        let schedules = if sampled {
            String::new()
        } else {
            format!(", {} schedules", it.schedules)
        };
        format!("{file} {name:?} ({fingerprint:016x}{schedules})")
    };
    part.scenarios.iter().map(scenario).collect()
}
