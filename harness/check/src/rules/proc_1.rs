//! PROC-1: an aborted turn's tools are gone.

use crate::fast_hash::HashSet;
use crate::invariant::{Findings, Invariant};
use crate::view::{At, Turn, View};
use cutpoint_trace::verdict::{Clause, Level};
use cutpoint_trace::{Feature, Observation, Process};

pub(super) struct ToolsEndWithTheTurn;

const PROCESS_ALIVE: Clause = Clause {
    kind: "process-alive",
    text: "process {pid} of aborted turn {turn} is alive after 2 s: {command}",
};

/// How long a tool may outlive its turn.
const GONE_NS: u64 = 2_000_000_000;

impl Invariant for ToolsEndWithTheTurn {
    fn id(&self) -> &'static str {
        "PROC-1"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "The processes of an aborted turn's tools, with their children, are gone within 2 s of the \
         abort."
    }

    fn source(&self) -> &'static str {
        "openai/codex #4337, PR 5258, #5931, #7985 (grandchildren of a tool survive the interrupt)"
    }

    fn needs(&self) -> &'static [Feature] {
        &[Feature::CallEvents]
    }

    fn exempt(&self) -> &'static [(Feature, &'static str)] {
        &[(
            Feature::BackgroundTools,
            "the agent lets commands run on in the background, and says so to the model",
        )]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "A process that is alive right after the abort and gone 2 s later was being killed.",
            "A process that was not seen right after the abort belongs to a later turn.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a turn whose tool had begun is aborted, and the processes are inspected right after \
         that and, if any are alive, again 2 s later"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[PROCESS_ALIVE]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        let looks = looks(view);
        let mut reported = HashSet::default();
        for (index, turn) in view.turns.iter().enumerate() {
            let Some((ended, alive)) = left(view, index, turn, &looks) else {
                continue;
            };
            let late = |look: &&(At, &[Process])| view.between_ns(ended, look.0) >= GONE_NS;
            let later = looks.iter().find(late);
            if alive.is_empty() {
                findings.exercised += 1;
                continue;
            }
            let Some((at, still)) = later else {
                // All that is known is that they were gone at some look before.
                let gone = looks
                    .iter()
                    .any(|(at, now)| *at > ended && !alive.iter().any(|it| now.contains(it)));
                findings.exercised += usize::from(gone);
                continue;
            };
            findings.exercised += 1;
            for process in alive.iter().filter(|process| still.contains(process)) {
                if reported.insert(process.pid) {
                    let fault = PROCESS_ALIVE.with("pid", process.pid).with("turn", turn.id);
                    let fault = fault.with("command", process.command.as_str());
                    findings.breach(view, fault, &[ended, *at]);
                }
            }
        }
        findings
    }
}

/// Each look at the processes.
fn looks<'a>(view: &View<'a>) -> Vec<(At, &'a [Process])> {
    let entries = view.trace.entries.iter().enumerate();
    let look = |(at, entry): (At, &'a cutpoint_trace::Entry)| match &entry.observation {
        Observation::Processes { alive, .. } => Some((at, alive.as_slice())),
        _ => None,
    };
    entries.filter_map(look).collect()
}

/// The abort of a turn whose tool had begun, and what was alive right after it.
fn left<'a>(
    view: &View<'a>,
    index: usize,
    turn: &Turn<'_>,
    looks: &[(At, &'a [Process])],
) -> Option<(At, &'a [Process])> {
    view.cut_at(index)?;
    let ended = turn.ending()?.at;
    let mut calls = turn.calls.iter().map(|call| &view.calls[*call]);
    calls.find(|call| call.begun.is_some_and(|begun| begun < ended))?;
    let (at, alive) = looks.iter().find(|(at, _)| *at > ended)?;
    (*at < view.next_turn_after(ended)).then_some((ended, alive))
}

#[cfg(test)]
mod tests {
    use crate::testing::{Tracer, breaks, call, is_idle, keeps, user, verdict_of};
    use cutpoint_trace::verdict::Verdict;
    use cutpoint_trace::{ClientOp, Feature};

    fn aborted() -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "run").request(1, &[user("run")]);
        t.emit(1, call("c1"))
            .finish(1)
            .begin("t1", "c1")
            .interrupted("t1");
        t
    }

    #[test]
    fn tools_that_go_pass() {
        keeps("PROC-1", aborted().alive(&[]), 1);
        keeps("PROC-1", aborted().alive(&[7]).wait_ms(50).alive(&[]), 1);
        keeps(
            "PROC-1",
            aborted()
                .alive(&[7])
                .start("t2", "next")
                .wait_ms(2000)
                .alive(&[8]),
            1,
        );
        is_idle("PROC-1", &aborted());
        is_idle("PROC-1", aborted().alive(&[7]));
    }

    #[test]
    fn a_tool_that_stays_is_a_breach() {
        let breach = breaks(
            "PROC-1/process-alive",
            aborted().alive(&[7]).wait_ms(2000).alive(&[7]),
        );
        assert!(breach.text().contains("process 7 of aborted turn t1"));
    }

    #[test]
    fn a_child_that_stays_is_a_breach() {
        let mut t = aborted();
        t.alive(&[7, 8])
            .op(ClientOp::Shutdown)
            .exit()
            .wait_ms(2500)
            .alive(&[8]);
        assert!(
            breaks("PROC-1/process-alive", &t)
                .text()
                .contains("process 8")
        );
    }

    #[test]
    fn a_process_of_the_next_turn_is_not_judged() {
        is_idle(
            "PROC-1",
            aborted()
                .start("t2", "next")
                .alive(&[7])
                .wait_ms(3000)
                .alive(&[7]),
        );
    }

    #[test]
    fn an_agent_with_background_tools_is_exempt() {
        let mut t = aborted();
        t.alive(&[7]).wait_ms(2500).alive(&[7]);
        let t = t.with(Feature::BackgroundTools);
        assert!(matches!(
            verdict_of("PROC-1", &t),
            Verdict::NotApplicable { .. }
        ));
    }
}
