//! The whole book over one trace.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::invariant::{Findings, Invariant};
use crate::rules::rules;
use crate::view::View;
use cutpoint_trace::verdict::{RuleVerdict, Verdict};
use cutpoint_trace::{Feature, Observation, Trace};

/// The verdict of each rule over a trace, in the order of the book.
///
/// A rule that crashes says nothing about the agent, so its verdict is unknown; the same holds for
/// every rule if the harness itself noted trouble in the trace.
pub fn judge(trace: &Trace) -> Vec<RuleVerdict> {
    judge_by(rules(), trace)
}

fn judge_by(rules: &[&dyn Invariant], trace: &Trace) -> Vec<RuleVerdict> {
    let view = match trouble(trace) {
        Some(trouble) => Err(trouble),
        None => guarded(|| View::new(trace)).map_err(|crash| format!("the trace's index {crash}")),
    };
    let verdict_of = |rule: &dyn Invariant| match &view {
        Ok(view) => verdict_of(rule, view),
        Err(why) => Verdict::Unknown { why: why.clone() },
    };
    let verdict = |rule: &&dyn Invariant| RuleVerdict {
        rule: rule.id().to_owned(),
        level: rule.level(),
        verdict: verdict_of(*rule),
        waived: waived(trace, rule.id()),
    };
    rules.iter().map(verdict).collect()
}

fn verdict_of(rule: &dyn Invariant, view: &View<'_>) -> Verdict {
    let features = &view.trace.header.agent.features;
    let lacking: Vec<&str> = rule
        .needs()
        .iter()
        .filter(|feature| !features.contains(feature))
        .map(|feature| in_words(*feature))
        .collect();
    if !lacking.is_empty() {
        let why = format!("the agent has no {}", lacking.join(", and no "));
        return Verdict::NotApplicable { why };
    }
    let mut exempt = rule.exempt().iter();
    if let Some((_, why)) = exempt.find(|(feature, _)| features.contains(feature)) {
        let why = (*why).to_owned();
        return Verdict::NotApplicable { why };
    }
    match guarded(|| rule.check(view)) {
        Err(crash) => Verdict::Unknown {
            why: format!("the rule {crash}"),
        },
        Ok(findings) => from_findings(findings),
    }
}

fn from_findings(findings: Findings) -> Verdict {
    let Findings {
        exercised,
        breaches,
    } = findings;
    if !breaches.is_empty() {
        Verdict::Fail {
            exercised,
            breaches,
        }
    } else if exercised > 0 {
        Verdict::Pass { exercised }
    } else {
        Verdict::NotExercised
    }
}

fn trouble(trace: &Trace) -> Option<String> {
    trace
        .entries
        .iter()
        .find_map(|entry| match &entry.observation {
            Observation::Trouble { message } => Some(message.clone()),
            _ => None,
        })
}

fn waived(trace: &Trace, id: &str) -> Option<String> {
    let mut waivers = trace.header.waived.iter();
    waivers
        .find(|waiver| waiver.rule == id)
        .map(|waiver| waiver.because.clone())
}

/// A panic of the checker, with its message.
#[derive(Debug, thiserror::Error)]
#[error("crashed: {0}")]
struct Crash(String);

/// Runs a piece of the checker; a panic becomes an error.
fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, Crash> {
    // What was being built when it panicked is dropped here, so nothing half-made is seen.
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let said = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "without a message".to_owned());
        Crash(said)
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
        Feature::StoreLog => "log of the writes and syncs of its rollout",
        Feature::TurnHeaders => "request header that belongs to a turn",
        Feature::BackgroundTools => "tools that run on in the background",
        Feature::DeferredAnswers => "answers to interrupts that wait for the abort",
        Feature::CallerIds => "way for a caller to name ids",
        Feature::SubAgents => "events for the begin and end of a sub-agent",
        Feature::Transcript => "transcript that can be seen",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{
        Tracer, delegating_session, eventful_session, forked_session, front_session,
        interrupted_tool, keeps, long_session, verdict_of, watched_session,
    };
    use cutpoint_trace::Waiver;
    use cutpoint_trace::verdict::{Clause, Level};

    struct Crashes;

    impl Invariant for Crashes {
        fn id(&self) -> &'static str {
            "X-1"
        }
        fn level(&self) -> Level {
            Level::Must
        }
        fn sentence(&self) -> &'static str {
            ""
        }
        fn source(&self) -> &'static str {
            ""
        }
        fn needs(&self) -> &'static [Feature] {
            &[]
        }
        fn exercised_when(&self) -> &'static str {
            ""
        }
        fn clauses(&self) -> &'static [Clause] {
            &[]
        }
        fn check(&self, _: &View<'_>) -> Findings {
            panic!("on purpose")
        }
    }

    #[test]
    fn the_whole_book_holds_over_sessions_without_fault() {
        let sessions = [
            interrupted_tool(),
            long_session(),
            eventful_session(),
            watched_session(),
            forked_session(),
            delegating_session(),
            front_session(),
            Tracer::new(),
        ];
        for tracer in &sessions {
            for verdict in judge(&tracer.trace()) {
                // Only one session is of an agent whose view is observed.
                let kept = matches!(
                    verdict.verdict,
                    Verdict::Pass { .. } | Verdict::NotExercised | Verdict::NotApplicable { .. }
                );
                assert!(kept, "{verdict:?}");
            }
        }
        for rule in rules() {
            let exercised = |tracer: &Tracer| {
                matches!(
                    verdict_of(rule.id(), tracer),
                    Verdict::Pass { exercised: 1.. }
                )
            };
            let by_any = sessions.iter().any(exercised);
            assert!(by_any, "{} is never exercised", rule.id());
        }
    }

    #[test]
    fn a_rule_that_crashes_says_nothing_about_the_agent() {
        let verdicts = judge_by(&[&Crashes], &interrupted_tool().trace());
        let why = "the rule crashed: on purpose".to_owned();
        assert_eq!(verdicts[0].verdict, Verdict::Unknown { why });
    }

    #[test]
    fn trouble_makes_everything_unknown() {
        let mut t = interrupted_tool();
        let message = "no port left".to_owned();
        t.push(Observation::Trouble { message });
        for verdict in judge(&t.trace()) {
            let why = "no port left".to_owned();
            assert_eq!(verdict.verdict, Verdict::Unknown { why });
        }
    }

    #[test]
    fn what_an_agent_lacks_is_named() {
        let t = interrupted_tool().without(Feature::Marker);
        let why = "the agent has no marker for interrupted turns".to_owned();
        assert_eq!(verdict_of("MARK-1", &t), Verdict::NotApplicable { why });
        keeps("CALL-1", &t, 1);
    }

    #[test]
    fn a_waiver_is_in_the_verdict() {
        let mut trace = interrupted_tool().trace();
        let (rule, because) = ("CALL-1".to_owned(), "known".to_owned());
        trace.header.waived.push(Waiver { rule, because });
        let verdicts = judge(&trace);
        assert_eq!(verdicts[0].waived.as_deref(), Some("known"));
        assert_eq!(verdicts[1].waived, None);
    }

    /// Entries of a long session, some of them left out, doubled and moved.
    fn shuffled() -> impl Strategy<Value = Trace> {
        let traces = prop_oneof![
            Just(long_session().trace()),
            Just(eventful_session().trace()),
            Just(watched_session().trace()),
            Just(forked_session().trace()),
            Just(delegating_session().trace()),
            Just(front_session().trace())
        ];
        traces
            .prop_flat_map(|trace| {
                let picks = (0..trace.entries.len(), any::<bool>());
                (Just(trace), prop::collection::vec(picks, 0..160))
            })
            .prop_map(|(trace, picks)| {
                let mut order: Vec<usize> = (0..trace.entries.len()).collect();
                for (at, pick) in picks.iter().enumerate() {
                    match pick {
                        (entry, true) if !order.is_empty() => {
                            let count = order.len();
                            order.swap(at % count, entry % count);
                        }
                        (entry, _) if at % 2 == 0 => order.push(*entry),
                        (entry, _) => order.retain(|known| known != entry),
                    }
                }
                let entries = order.iter().map(|at| trace.entries[*at].clone());
                Trace {
                    header: trace.header.clone(),
                    entries: entries.collect(),
                }
            })
    }

    proptest! {
        #[test]
        fn no_trace_makes_the_checker_crash(trace in shuffled()) {
            let verdicts = judge(&trace);
            for verdict in &verdicts {
                prop_assert!(!matches!(verdict.verdict, Verdict::Unknown { .. }), "{verdict:?}");
                if let Verdict::Fail { breaches, .. } = &verdict.verdict {
                    for breach in breaches {
                        let sorted = breach.evidence.is_sorted();
                        prop_assert!(sorted && !breach.evidence.is_empty(), "{breach:?}");
                    }
                }
            }
            prop_assert_eq!(verdicts, judge(&trace));
        }
    }
}
