//! The whole book over one trace.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::invariant::{Findings, Invariant};
use crate::rules::rules;
use crate::trace::{Feature, Trace, What};
use crate::verdict::{Outcome, Verdict};
use crate::view::View;

/// What each rule says of a trace, in the order of the book.
///
/// A rule that crashes says nothing of the agent, so its verdict is unknown; the same holds for
/// every rule if the harness itself noted trouble in the trace.
pub fn judge(trace: &Trace) -> Vec<Verdict> {
    judge_by(rules(), trace)
}

fn judge_by(rules: &[&dyn Invariant], trace: &Trace) -> Vec<Verdict> {
    let view = match trouble(trace) {
        Some(trouble) => Err(trouble),
        None => guarded(|| View::new(trace)).map_err(|crash| format!("the trace's index {crash}")),
    };
    let outcome = |rule: &dyn Invariant| match &view {
        Ok(view) => outcome(rule, view),
        Err(why) => Outcome::Unknown { why: why.clone() },
    };
    let verdict = |rule: &&dyn Invariant| Verdict {
        rule: rule.id().to_owned(),
        level: rule.level(),
        outcome: outcome(*rule),
        waived: waived(trace, rule.id()),
    };
    rules.iter().map(verdict).collect()
}

fn outcome(rule: &dyn Invariant, view: &View<'_>) -> Outcome {
    let features = &view.trace.header.agent.features;
    let lacking: Vec<&str> = rule
        .needs()
        .iter()
        .filter(|feature| !features.contains(feature))
        .map(|feature| in_words(*feature))
        .collect();
    if !lacking.is_empty() {
        let why = format!("the agent has no {}", lacking.join(", and no "));
        return Outcome::NotApplicable { why };
    }
    match guarded(|| rule.check(view)) {
        Err(crash) => Outcome::Unknown {
            why: format!("the rule {crash}"),
        },
        Ok(findings) => from_findings(findings),
    }
}

fn from_findings(findings: Findings) -> Outcome {
    let Findings {
        exercised,
        breaches,
    } = findings;
    if !breaches.is_empty() {
        Outcome::Fail {
            exercised,
            breaches,
        }
    } else if exercised > 0 {
        Outcome::Pass { exercised }
    } else {
        Outcome::NotExercised
    }
}

fn trouble(trace: &Trace) -> Option<String> {
    trace.entries.iter().find_map(|entry| match &entry.what {
        What::Trouble { message } => Some(message.clone()),
        _ => None,
    })
}

fn waived(trace: &Trace, id: &str) -> Option<String> {
    let mut waivers = trace.header.waived.iter();
    waivers
        .find(|waiver| waiver.rule == id)
        .map(|waiver| waiver.because.clone())
}

/// Runs a piece of the checker; a panic becomes what it said.
fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    // Whatever was being built when it panicked is dropped here, so nothing half-made is seen.
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let said = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "without a message".to_owned());
        format!("crashed: {said}")
    })
}

fn in_words(feature: Feature) -> &'static str {
    match feature {
        Feature::Rollout => "rollout file that can be read",
        Feature::RolloutTurns => "lines in its rollout that start and end a turn",
        Feature::Marker => "marker for interrupted turns",
        Feature::TurnIds => "turn ids in its events",
        Feature::OpReplies => "reply to each op",
        Feature::CallEvents => "events for the begin and end of a tool",
        Feature::Replace => "way to replace a running turn",
    }
}
