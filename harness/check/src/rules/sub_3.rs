//! SUB-3: an interrupt does not wait for a client that does not read.

use crate::invariant::{Findings, Invariant};
use crate::view::{At, Exchange, InterruptState, View};
use cutpoint_trace::verdict::{Clause, Level};
use cutpoint_trace::{Feature, Observation};

pub(super) struct NobodyReadsNothingHangs;

const STREAM_OPEN: Clause = Clause {
    kind: "stream-open",
    text: "turn {turn} was interrupted while the client did not read, and response {response} \
           stayed open",
};
const LATE_END: Clause = Clause {
    kind: "late-end",
    text: "turn {turn} was interrupted while the client did not read, and did not end in time \
           when the client read on",
};

/// How long an agent may wait for a turn and its sub-agents to end by themselves.
const GRACE_NS: u64 = 600_000_000;

impl Invariant for NobodyReadsNothingHangs {
    fn id(&self) -> &'static str {
        "SUB-3"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "An interrupt takes effect even if the client does not read and the queues are full: \
         streams are closed, and the turn's end is available as soon as the client reads on."
    }

    fn source(&self) -> &'static str {
        "Codex's delegate (a cancellation is seen while a forward waits for room); openai/codex \
         #31036, #24389 (blocked on a full queue)"
    }

    fn needs(&self) -> &'static [Feature] {
        &[]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "A turn may also end for another reason after the interrupt.",
            "A turn that was cut by the agent's end is not judged, nor one for which the run \
             ended before the bound.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "an active turn is interrupted while the client does not read"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[STREAM_OPEN, LATE_END]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        let bound_ns = view.trace.header.abort_bound_ms.saturating_mul(1_000_000);
        let bound_ns = bound_ns.saturating_add(GRACE_NS);
        for interrupt in &view.interrupts {
            let InterruptState::Active(index) = interrupt.state else {
                continue;
            };
            let turn = &view.turns[index];
            let Some(read_on) = deaf_until(view, interrupt.at) else {
                continue;
            };
            if turn.killed.or(turn.exited).is_some() {
                continue;
            }
            let ended = turn.ending().map(|ending| ending.at);
            let open = still_open(view, index, interrupt.at, bound_ns);
            let until_ns = ended.map_or(view.end_ns(), |at| view.at_ns(at));
            let late = until_ns.saturating_sub(view.at_ns(read_on)) > bound_ns;
            if ended.is_none() && !late && open.is_none() {
                continue;
            }
            findings.exercised += 1;
            let id = turn.id;
            if let Some(open) = open {
                let fault = STREAM_OPEN.with("turn", id).with("response", open.number);
                findings.breach(view, fault, &[open.at, interrupt.at]);
            } else if late {
                let fault = LATE_END.with("turn", id);
                let mut shown_by = vec![interrupt.at, read_on];
                shown_by.extend(ended);
                shown_by.sort_unstable();
                findings.breach(view, fault, &shown_by);
            }
        }
        findings
    }
}

/// Where the client read on which did not read at an entry; the run's end if it never did. `None`
/// if it did read.
fn deaf_until(view: &View<'_>, at: At) -> Option<At> {
    let entries = &view.trace.entries;
    let reading = |at: &At| match entries[*at].observation {
        Observation::Reading { on } => Some(on),
        _ => None,
    };
    let before = (0..at).rev().find_map(|at| reading(&at));
    if before != Some(false) {
        return None;
    }
    let on = (at..entries.len()).find(|at| reading(at) == Some(true));
    Some(on.unwrap_or(entries.len() - 1))
}

/// A response of the turn that was under way at the interrupt and long after it.
fn still_open<'v, 'a>(
    view: &'v View<'a>,
    turn: usize,
    interrupt: At,
    bound_ns: u64,
) -> Option<&'v Exchange<'a>> {
    let mut exchanges = view.exchanges.iter();
    exchanges.find(|exchange| {
        let over = [exchange.over(), exchange.disconnected];
        let over = over.into_iter().flatten().min();
        let until_ns = over.map_or(view.end_ns(), |at| view.at_ns(at));
        exchange.turn == Some(turn)
            && exchange.at < interrupt
            && until_ns.saturating_sub(view.at_ns(interrupt)) > bound_ns
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::{Tracer, breaks, is_idle, keeps, user};

    fn deaf() -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "go").request(1, &[user("go")]);
        t.reading(false).interrupt();
        t
    }

    #[test]
    fn an_interrupt_that_takes_effect_passes() {
        let mut t = deaf();
        t.disconnected(1).wait_ms(9000).reading(true).aborted("t1");
        keeps("SUB-3", &t, 1);
        keeps("SUB-3", deaf().disconnected(1).aborted("t1"), 1);
    }

    #[test]
    fn a_client_that_reads_is_no_test() {
        let mut t = Tracer::new();
        t.start("t1", "go").reading(false).reading(true);
        is_idle("SUB-3", t.interrupted("t1"));
        is_idle("SUB-3", &deaf());
        is_idle("SUB-3", deaf().wait_ms(9000).kill());
    }

    #[test]
    fn a_stream_that_stays_open_is_a_breach() {
        let mut t = deaf();
        t.wait_ms(2700).reading(true).disconnected(1).aborted("t1");
        let breach = breaks("SUB-3/stream-open", &t);
        assert!(breach.text().contains("stayed open"), "{}", breach.text());
    }

    #[test]
    fn no_end_after_reading_on_is_a_breach() {
        let mut t = deaf();
        t.disconnected(1).reading(true).wait_ms(2700);
        let breach = breaks("SUB-3/late-end", t.clone().aborted("t1"));
        assert!(breach.text().contains("read on"), "{}", breach.text());
        breaks("SUB-3/late-end", t.reading(true));
    }
}
