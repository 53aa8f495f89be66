//! The executors of schedules: the reference agent in the lab, which is exact, and an agent in another
//! process, which is sampled.

pub mod lab;
pub mod process;

use std::collections::BTreeMap;

use cutpoint_explore::Violation;
use cutpoint_trace::case::CaseResult;
use cutpoint_trace::verdict::{Breach, RuleVerdict, Verdict};

/// The rule that no turn is active when all steps are done, and the clause of it.
const END: &str = "END";
const TURN_ACTIVE: &str = "turn-active";

/// What a case violated.
fn violations(case: &CaseResult, strict: bool) -> Vec<Violation> {
    let mut violations: Vec<Violation> = case.breaches(strict).flat_map(of_verdict).collect();
    violations.extend(case.unmet.iter().map(|unmet| {
        let message = format!("{}: {}", unmet.text, unmet.found);
        Violation::new(END, TURN_ACTIVE, message)
    }));
    violations
}

/// The breaches of a rule as violations.
pub fn of_verdict(verdict: &RuleVerdict) -> Vec<Violation> {
    let Verdict::Fail { breaches, .. } = &verdict.verdict else {
        return Vec::new();
    };
    let violation =
        |breach: &Breach| Violation::new(&verdict.rule, breach.kind.as_ref(), breach.text());
    breaches.iter().map(violation).collect()
}

/// How often each rule was exercised.
fn exercised(case: &CaseResult) -> BTreeMap<String, usize> {
    let exercised = |verdict: &RuleVerdict| match &verdict.verdict {
        Verdict::Pass { exercised } | Verdict::Fail { exercised, .. } if *exercised > 0 => {
            Some((verdict.rule.clone(), *exercised))
        }
        _ => None,
    };
    case.verdicts.iter().filter_map(exercised).collect()
}
