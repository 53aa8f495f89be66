//! PROC-2: nothing outlives the agent.

use crate::invariant::{Findings, Invariant};
use crate::view::{At, View};
use cutpoint_trace::verdict::{Clause, Level};
use cutpoint_trace::{Feature, Observation};

pub(super) struct NothingOutlivesTheAgent;

const PROCESS_ALIVE: Clause = Clause {
    kind: "process-alive",
    text: "process {pid} outlived the agent: {command}",
};

/// How long what the agent started may take to go.
const GONE_NS: u64 = 2_000_000_000;

impl Invariant for NothingOutlivesTheAgent {
    fn id(&self) -> &'static str {
        "PROC-2"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "When the agent has ended, for whatever reason, nothing that it started is alive 2 s \
         later."
    }

    fn source(&self) -> &'static str {
        "openai/codex #21994 (a killed parent leaves children); observed in released agents: tools \
         outlive a killed agent"
    }

    fn needs(&self) -> &'static [Feature] {
        &[]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "A process that is alive right after the agent's end and gone 2 s later was being \
             killed.",
            "An agent process that serves further sessions has not ended, so it is not judged.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "the processes are inspected after the agent's end, until none is alive or 2 s have \
         passed"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[PROCESS_ALIVE]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        for (number, stop) in view.stops.iter().enumerate() {
            let start = view
                .starts
                .iter()
                .find(|start| start.at > *stop)
                .map(|start| start.at);
            let until = start.unwrap_or(view.trace.entries.len());
            // The end of a killed agent is reported twice if its process is watched.
            if view.stops.get(number + 1).is_some_and(|next| *next < until) {
                continue;
            }
            let Some((at, alive)) = last_look(view, *stop, until) else {
                continue;
            };
            if alive.is_empty() {
                findings.exercised += 1;
                continue;
            }
            if view.between_ns(*stop, at) < GONE_NS {
                continue;
            }
            findings.exercised += 1;
            for process in alive {
                let fault = PROCESS_ALIVE.with("pid", process.pid);
                let fault = fault.with("command", process.command.as_str());
                findings.breach(view, fault, &[*stop, at]);
            }
        }
        findings
    }
}

/// The last look at the processes between two entries.
fn last_look<'a>(
    view: &View<'a>,
    from: At,
    until: At,
) -> Option<(At, &'a [cutpoint_trace::Process])> {
    let between = view.trace.entries[from..until].iter().enumerate().rev();
    let mut looks = between.filter_map(|(at, entry)| match &entry.observation {
        Observation::Processes { alive, .. } => Some((from + at, alive.as_slice())),
        _ => None,
    });
    looks.next()
}

#[cfg(test)]
mod tests {
    use crate::testing::{Tracer, breaks, is_idle, keeps, verdict_of};
    use cutpoint_trace::verdict::Verdict;

    fn ended() -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "hi").completed("t1").alive(&[7]).exit();
        t
    }

    #[test]
    fn an_agent_that_leaves_nothing_passes() {
        keeps("PROC-2", ended().alive(&[]), 1);
        keeps("PROC-2", ended().alive(&[7]).wait_ms(30).alive(&[]), 1);
        is_idle("PROC-2", &ended());
        is_idle("PROC-2", ended().alive(&[7]));
    }

    #[test]
    fn what_outlives_the_agent_is_a_breach() {
        let breach = breaks("PROC-2/process-alive", ended().wait_ms(2000).alive(&[7]));
        assert_eq!(breach.text(), "process 7 outlived the agent: sleep 7");
        let two = verdict_of("PROC-2", ended().wait_ms(2000).alive(&[7, 8]));
        assert!(matches!(two, Verdict::Fail { breaches, .. } if breaches.len() == 2));
    }

    #[test]
    fn what_outlives_a_killed_agent_is_a_breach() {
        let mut t = Tracer::new();
        t.start("t1", "hi")
            .kill()
            .wait_ms(2000)
            .alive(&[7])
            .resume();
        breaks("PROC-2/process-alive", t.exit().alive(&[]));
    }
}
