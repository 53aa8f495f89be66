//! What a rule is.

use crate::view::{At, View};
use cutpoint_trace::Feature;
use cutpoint_trace::verdict::{Breach, Clause, Fault, Level};

/// A rule of the book: a property that every trace must have.
///
/// A rule sees the trace and nothing else. It speaks of what was observed, so where two outcomes
/// are legal because client and agent raced, both pass.
pub trait Invariant: Sync {
    /// The rule's id, such as `CALL-1`.
    fn id(&self) -> &'static str;

    /// How much a breach weighs.
    fn level(&self) -> Level;

    /// The rule in one sentence.
    fn sentence(&self) -> &'static str;

    /// Where the rule comes from.
    fn source(&self) -> &'static str;

    /// What must be observable of an agent for the rule to apply to it.
    fn needs(&self) -> &'static [Feature];

    /// Features of agents to which the rule does not apply, each with the reason.
    fn exempt(&self) -> &'static [(Feature, &'static str)] {
        &[]
    }

    /// Races whose outcomes both pass, each with its reason.
    fn legal_races(&self) -> &'static [&'static str] {
        &[]
    }

    /// What exercises the rule once.
    fn exercised_when(&self) -> &'static str;

    /// The ways in which the rule can be broken. A breach names one of them.
    fn clauses(&self) -> &'static [Clause];

    /// Checks a trace.
    fn check(&self, view: &View<'_>) -> Findings;
}

/// What a rule found in a trace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// How often the trace exercised the rule.
    pub exercised: usize,
    /// Each breach.
    pub breaches: Vec<Breach>,
}

impl Findings {
    /// Adds a breach, shown by these entries.
    pub(crate) fn breach(&mut self, view: &View<'_>, fault: impl Into<Fault>, shown_by: &[At]) {
        let mut evidence: Vec<u64> = shown_by.iter().map(|at| view.seq(*at)).collect();
        evidence.sort_unstable();
        evidence.dedup();
        self.breaches.push(fault.into().shown_by(evidence));
    }
}
