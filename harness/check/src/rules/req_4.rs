//! REQ-4: an abort closes the stream.

use crate::invariant::{Findings, Invariant};
use crate::view::{At, Exchange, View};
use cutpoint_trace::Feature;
use cutpoint_trace::verdict::{Clause, Level};

pub(super) struct StreamIsClosed;

const NOT_CLOSED: Clause = Clause {
    kind: "not-closed",
    text: "response {response} was not closed when its turn was aborted",
};

/// How long a connection may take to be closed after an abort.
const CLOSE_NS: u64 = 500_000_000;

impl Invariant for StreamIsClosed {
    fn id(&self) -> &'static str {
        "REQ-4"
    }

    fn level(&self) -> Level {
        Level::Should
    }

    fn sentence(&self) -> &'static str {
        "When a turn is aborted, the response that is under way is given up: the agent closes \
         the connection within 500 ms."
    }

    fn source(&self) -> &'static str {
        "own reasoning: the user pays for tokens that the agent does not read; openai/codex #30526 (a stream that stalls)"
    }

    fn needs(&self) -> &'static [Feature] {
        &[]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "A response that ends by itself within 500 ms after the abort needs no closing.",
            "A run that ends within that time shows nothing.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a turn is aborted while a response to it is under way"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[NOT_CLOSED]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        for exchange in &view.exchanges {
            let Some(ended) = aborted_under_way(view, exchange) else {
                continue;
            };
            let in_time = |at: At| view.between_ns(ended, at) <= CLOSE_NS;
            if exchange.disconnected.is_some_and(in_time) {
                findings.exercised += 1;
                continue;
            }
            let ran_on = view.end_ns().saturating_sub(view.at_ns(ended)) > CLOSE_NS;
            if ran_on && !exchange.over().is_some_and(in_time) {
                findings.exercised += 1;
                let fault = NOT_CLOSED.with("response", exchange.number);
                let mut shown_by = vec![exchange.at, ended];
                shown_by.extend(exchange.disconnected.or(exchange.over()));
                findings.breach(view, fault, &shown_by);
            }
        }
        findings
    }
}

/// The abort that came while a response was under way.
fn aborted_under_way(view: &View<'_>, exchange: &Exchange<'_>) -> Option<At> {
    let turn = exchange.turn?;
    let cut = view.cut_at(turn)?;
    let ended = view.turns[turn].ending()?.at;
    let asked = exchange.at < ended;
    let over = exchange.over().is_some_and(|over| over < ended);
    let closed = exchange.disconnected.is_some_and(|closed| closed < cut);
    (asked && !over && !closed).then_some(ended)
}

#[cfg(test)]
mod tests {
    use crate::testing::{Tracer, breaks, interrupted_tool, is_idle, keeps, long_session, user};

    fn aborted() -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "hi").request(1, &[user("hi")]).created(1);
        t.interrupt().aborted("t1");
        t
    }

    #[test]
    fn a_closed_stream_passes() {
        keeps("REQ-4", aborted().disconnected(1), 1);
        keeps("REQ-4", &long_session(), 1);
        let mut t = Tracer::new();
        t.start("t1", "hi").request(1, &[user("hi")]).interrupt();
        keeps("REQ-4", t.disconnected(1).wait_ms(900).aborted("t1"), 1);
        is_idle("REQ-4", &interrupted_tool());
    }

    #[test]
    fn a_stream_that_stays_open_is_a_breach() {
        breaks(
            "REQ-4/not-closed",
            aborted().wait_ms(600).start("t2", "next"),
        );
        is_idle("REQ-4", aborted().start("t2", "next"));
    }

    #[test]
    fn a_stream_that_is_closed_late_is_a_breach() {
        assert_eq!(
            breaks("REQ-4/not-closed", aborted().wait_ms(600).disconnected(1))
                .evidence
                .len(),
            3
        );
        breaks("REQ-4/not-closed", aborted().wait_ms(600).finish(1));
    }

    #[test]
    fn a_stream_that_ends_by_itself_needs_no_closing() {
        is_idle(
            "REQ-4",
            aborted()
                .wait_ms(100)
                .finish(1)
                .wait_ms(600)
                .start("t2", "next"),
        );
    }
}
