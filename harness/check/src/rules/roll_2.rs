//! ROLL-2: a rollout only grows.

use crate::invariant::{Findings, Invariant};
use crate::view::{Change, View};
use cutpoint_trace::Feature;
use cutpoint_trace::verdict::{Clause, Level};

pub(super) struct AppendOnly;

const REWRITTEN: Clause = Clause {
    kind: "rewritten",
    text: "{file} had {known} bytes, of which only the first {kept} are still there",
};
const GAP: Clause = Clause {
    kind: "gap",
    text: "{file} was read on from byte {from}, but {known} bytes were known",
};

impl Invariant for AppendOnly {
    fn id(&self) -> &'static str {
        "ROLL-2"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "A rollout is only appended to: what one read returned is a prefix of what every later \
         read returns."
    }

    fn source(&self) -> &'static str {
        "the rollout as an append-only record in Codex; openai/codex #13946 (compaction overwrites \
         concurrent writes)"
    }

    fn needs(&self) -> &'static [Feature] {
        &[Feature::Rollout]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "An agent that starts again may drop or change an unterminated last line, which \
             repairs a torn tail; the whole lines before it must stay.",
            "A file that changes while no agent runs was changed by something else, such as a \
             scenario that tears its tail.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a rollout is read a second or later time"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[REWRITTEN, GAP]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        for file in &view.rollouts {
            for pair in file.reads.windows(2) {
                let [before, read] = pair else {
                    continue;
                };
                findings.exercised += 1;
                let fault = match read.change {
                    Change::Rewritten { kept, known } => {
                        REWRITTEN.with("known", known).with("kept", kept)
                    }
                    Change::Gap { from, known } => GAP.with("known", known).with("from", from),
                    Change::First | Change::Grew | Change::Repaired | Change::Outside => continue,
                };
                findings.breach(view, fault.with("file", file.path), &[before.at, read.at]);
            }
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{ROLLOUT, Tracer, breaks, interrupted_tool, keeps, long_session};
    use cutpoint_trace::Observation;
    use cutpoint_trace::ReadTrigger::{End, Exit};

    fn torn() -> Tracer {
        let mut t = Tracer::new();
        t.wrote_line("x", &json!({}))
            .wrote_raw("{\"timest")
            .read(End);
        t
    }

    #[test]
    fn a_file_that_grows_passes() {
        keeps("ROLL-2", &interrupted_tool(), 1);
        keeps("ROLL-2", &long_session(), 5);
        keeps("ROLL-2", interrupted_tool().read_anew(End), 2);
    }

    #[test]
    fn a_rewritten_or_cut_file_is_a_breach() {
        let mut t = interrupted_tool();
        let changed = t.file().replacen("run it", "ran it", 1);
        breaks("ROLL-2/rewritten", t.set_file(&changed).read_anew(End));
        let mut t = interrupted_tool();
        let cut = t.file()[..20].to_owned();
        breaks("ROLL-2/rewritten", t.set_file(&cut).read_anew(End));
        breaks(
            "ROLL-2/rewritten",
            interrupted_tool().set_file("").read_anew(End),
        );
    }

    #[test]
    fn a_read_that_leaves_a_gap_is_a_breach() {
        let mut t = interrupted_tool();
        assert!(
            breaks("ROLL-2/gap", t.read_as(End, 9_999, ""))
                .text()
                .contains("byte 9999")
        );
    }

    #[test]
    fn a_restarted_agent_may_repair_the_tail() {
        let mut t = torn();
        let whole = t.file().trim_end_matches("{\"timest").to_owned();
        t.kill()
            .resume()
            .set_file(&whole)
            .wrote_line("x", &json!({}));
        keeps("ROLL-2", t.read_anew(End), 1);
        let mut t = torn();
        t.set_file(&whole);
        breaks("ROLL-2/rewritten", t.read_anew(End));
        let mut t = torn();
        breaks(
            "ROLL-2/rewritten",
            t.kill().resume().set_file("{").read_anew(End),
        );
    }

    #[test]
    fn what_a_tear_left_of_a_character_counts_with_its_bytes() {
        let sealed = |left: usize| {
            let mut t = Tracer::new();
            t.wrote_line("x", &json!({}))
                .wrote_raw("{\"é\u{1f600}\"}\n")
                .read(End)
                .kill();
            let (path, whole) = (ROLLOUT.to_owned(), t.file().len());
            let bytes = (whole - left) as u64;
            t.push(Observation::Torn { path, bytes }).resume();
            (t, whole)
        };
        for from_the_end in [6, 5, 4] {
            let (_, whole) = sealed(0);
            let left = whole - from_the_end;
            // The agent ends the line and goes on.
            let grown = |gap: usize| {
                let (mut t, _) = sealed(left);
                t.read_as(End, (left + gap) as u64, "\n{}\n");
                t
            };
            let mut t = grown(0);
            keeps("ROLL-2", &t, 2);
            breaks("ROLL-2/gap", &grown(1));
            // What is read anew is the same file.
            let first = t.file()[..whole - "\u{1f600}\"}\n".len()].to_owned();
            let again = format!("{first}\u{fffd}\n{{}}\n");
            keeps("ROLL-2", t.read_as(End, 0, &again), 3);
            breaks(
                "ROLL-2/rewritten",
                t.read_as(End, 0, &again.replace('\u{fffd}', "")),
            );
        }
    }

    #[test]
    fn a_file_cut_while_no_agent_runs_is_not_the_agents_doing() {
        let mut t = interrupted_tool();
        t.kill().read(Exit);
        let cut = t.file()[..100].to_owned();
        keeps("ROLL-2", t.set_file(&cut).read_anew(Exit), 3);
    }
}
