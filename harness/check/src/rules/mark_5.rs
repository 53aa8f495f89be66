//! MARK-5: the marker survives a crash.

use crate::invariant::{Findings, Invariant};
use crate::view::{At, View};
use cutpoint_trace::Feature;
use cutpoint_trace::verdict::{Clause, Level};

pub(super) struct MarkerSurvivesCrash;

const MARKER_LOST: Clause = Clause {
    kind: "marker-lost",
    text: "request {request} of the resumed session has {found} of {wanted} markers for what was \
           interrupted before the kill",
};

impl Invariant for MarkerSurvivesCrash {
    fn id(&self) -> &'static str {
        "MARK-5"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "When the agent is killed after the abort of an interrupted turn and the session is \
         resumed, the next request carries the turn's marker."
    }

    fn source(&self) -> &'static str {
        "openai/codex #9042 (without a marker the model repeats what was aborted), carried on to a \
         resumed session"
    }

    fn needs(&self) -> &'static [Feature] {
        &[Feature::Marker]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "A marker may be gone once the history was compacted, its turn was rolled back, or \
             the rollout was torn.",
            "If the agent ended before it announced what it did with an input, the marker may \
             stand on either side of that input.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a resumed session sends its first request, counted for each turn that was interrupted \
         between the last request and the kill"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[MARKER_LOST]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        for kill in &view.kills {
            let resumed = view.starts.iter().find(|start| start.at > *kill);
            let Some(resumed) = resumed.filter(|start| start.resumed) else {
                continue;
            };
            let Some(next) = view.request_after(resumed.at) else {
                continue;
            };
            let last = view.exchanges[..]
                .iter()
                .rev()
                .find(|exchange| exchange.at < *kill);
            let last = last.map_or(0, |exchange| exchange.at);
            for region in view.regions(next) {
                let owed: Vec<At> = region
                    .interrupted
                    .iter()
                    .copied()
                    .filter(|ended| last < *ended && *ended < *kill)
                    .collect();
                findings.exercised += owed.len();
                if !owed.is_empty() && region.markers.len() < region.min {
                    let fault = MARKER_LOST.with("request", next.number);
                    let fault = fault.with("found", region.markers.len());
                    let fault = fault.with("wanted", region.min);
                    let shown_by: Vec<At> = owed.into_iter().chain([*kill, next.at]).collect();
                    findings.breach(view, fault, &shown_by);
                }
            }
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::testing::{Tracer, breaks, is_idle, keeps, long_session, marker, user};

    /// An interrupted turn, a kill, and the resumed session's request with these items in between.
    fn resumed(items: &[Value]) -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "one")
            .request(1, &[user("one")])
            .interrupted("t1");
        t.kill().resume().start("t2", "two");
        let history = [&[user("one")], items, &[user("two")]].concat();
        t.request(2, &history);
        t
    }

    #[test]
    fn a_marker_that_survives_passes() {
        keeps("MARK-5", &resumed(&[marker()]), 1);
        is_idle("MARK-5", &long_session());
    }

    #[test]
    fn a_marker_that_is_lost_is_a_breach() {
        let breach = breaks("MARK-5/marker-lost", &resumed(&[]));
        assert!(breach.text().contains("0 of 1 markers"));
    }

    #[test]
    fn one_of_two_markers_is_a_breach() {
        let mut t = Tracer::new();
        t.start("t1", "one")
            .request(1, &[user("one")])
            .interrupted("t1");
        t.start("t2", "two").interrupted("t2").kill().resume();
        t.start("t3", "three")
            .request(2, &[user("one"), marker(), user("three")]);
        breaks("MARK-5/marker-lost", &t);
    }

    #[test]
    fn a_fresh_session_knows_of_nothing() {
        let mut t = Tracer::new();
        t.start("t1", "one")
            .request(1, &[user("one")])
            .interrupted("t1")
            .kill();
        t.push(cutpoint_trace::Observation::AgentStarted {
            pid: None,
            resumed: false,
        });
        t.start("t2", "two").request(2, &[user("two")]);
        is_idle("MARK-5", &t);
    }
}
