//! ROLL-1: each whole line of a rollout can be read.

use crate::invariant::{Findings, Invariant};
use crate::view::{LineKind, View};
use cutpoint_trace::Feature;
use cutpoint_trace::verdict::{Clause, Level};

pub(super) struct WholeLinesAreReadable;

const BAD_LINE: Clause = Clause {
    kind: "bad-line",
    text: "line {line} of {file} is {defect}",
};

impl Invariant for WholeLinesAreReadable {
    fn id(&self) -> &'static str {
        "ROLL-1"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "Whenever a rollout is read, each of its lines is whole JSON of the rollout's form, \
         except a last line without its line feed."
    }

    fn source(&self) -> &'static str {
        "openai/codex #24425, #45150, #38341: torn lines in rollouts"
    }

    fn needs(&self) -> &'static [Feature] {
        &[Feature::Rollout]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "What the harness left of a line when it tore the file may stay there, if the agent \
             ends it with a line feed before it writes on: the agent cannot know what is missing.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a rollout with at least one whole line is read"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[BAD_LINE]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        for file in &view.rollouts {
            findings.exercised += file.reads.iter().filter(|read| read.lines > 0).count();
            for (number, line) in &file.bad {
                if let LineKind::Bad(why) = &line.kind {
                    let fault = BAD_LINE.with("line", *number).with("file", file.path);
                    let fault = fault.with("defect", why.as_str());
                    findings.breach(view, fault, &[line.read_at]);
                }
            }
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Tracer, breaks, interrupted_tool, is_idle, keeps, long_session};
    use cutpoint_trace::ReadTrigger;

    #[test]
    fn readable_lines_pass() {
        keeps("ROLL-1", &interrupted_tool(), 2);
        keeps("ROLL-1", &long_session(), 6);
    }

    #[test]
    fn a_last_line_may_be_torn() {
        let mut t = interrupted_tool();
        t.wrote_raw("{\"timestamp\":\"t\",\"ty")
            .read(ReadTrigger::End);
        keeps("ROLL-1", &t, 3);
        t.wrote_raw("pe\":\"x\",\"payload\":{}}\n");
        keeps("ROLL-1", t.read(ReadTrigger::End), 4);
        is_idle(
            "ROLL-1",
            Tracer::new().wrote_raw("{").read(ReadTrigger::End),
        );
    }

    #[test]
    fn a_torn_line_in_the_middle_is_reported_once() {
        let mut t = interrupted_tool();
        t.wrote_raw("{\"timestamp\":\"t\",\"ty")
            .read(ReadTrigger::End);
        t.wrote_line("x", &serde_json::json!({}))
            .read(ReadTrigger::End);
        t.read(ReadTrigger::End);
        breaks("ROLL-1/bad-line", &t);
    }

    #[test]
    fn a_tail_that_the_harness_tore_may_be_sealed_and_not_written_on() {
        let torn = |after: &str| {
            let mut t = interrupted_tool();
            t.kill().read(ReadTrigger::Exit).tear(5).resume();
            t.wrote_raw(after).wrote_line("x", &serde_json::json!({}));
            t.read(ReadTrigger::End);
            t
        };
        keeps("ROLL-1", &torn("\n"), 5);
        breaks("ROLL-1/bad-line", &torn(""));
        keeps("ROLL-2", &torn("\n"), 4);
    }

    #[test]
    fn another_form_is_a_breach() {
        let mut t = Tracer::new();
        t.wrote_raw("{\"record_type\":\"state\"}\n")
            .read(ReadTrigger::End);
        breaks("ROLL-1/bad-line", &t);
    }
}
