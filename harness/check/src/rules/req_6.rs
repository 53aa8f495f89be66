//! REQ-6: headers of a turn stay with the turn.

use crate::fast_hash::HashMap;
use crate::invariant::{Findings, Invariant};
use crate::view::{Exchange, View};
use cutpoint_trace::Feature;
use cutpoint_trace::verdict::{Clause, Level};

pub(super) struct TurnHeadersEndWithTheTurn;

const HEADER_OF_EARLIER_TURN: Clause = Clause {
    kind: "header-of-earlier-turn",
    text: "request {request} carries the {header} of an earlier turn",
};
const HEADER_NOT_GIVEN: Clause = Clause {
    kind: "header-not-given",
    text: "request {request} carries {header}, although no response of its turn gave it",
};

/// The headers that a server gives with a response, and wants back for the rest of the turn.
const OF_A_TURN: &[&str] = &[cutpoint_protocol::headers::TURN_STATE];

impl Invariant for TurnHeadersEndWithTheTurn {
    fn id(&self) -> &'static str {
        "REQ-6"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "A header that the server gave for a turn goes with that turn's requests only: a turn's \
         first request does not carry it, and its value is not sent in another turn."
    }

    fn source(&self) -> &'static str {
        "Codex's task lifecycle: turn-scoped request headers are cleared when a turn ends, however it \
         ends"
    }

    fn needs(&self) -> &'static [Feature] {
        &[Feature::TurnHeaders]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "A request that arrives before its turn was announced counts for the turn that \
             starts next.",
            "A request that arrives after the agent's end was on its way, and counts for the \
             turn that the end cut.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a request follows a response that may have given such a header"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[HEADER_OF_EARLIER_TURN, HEADER_NOT_GIVEN]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        // A sub-agent works within a turn, but its turns are its own.
        let mut owners: HashMap<(&str, &str), (TurnOwner, usize)> = HashMap::default();
        // The turns in which a response has begun, so that a header may have been given.
        let mut begun: Vec<(TurnOwner, usize)> = Vec::new();
        for (index, exchange) in view.exchanges.iter().enumerate() {
            let Some(turn) = turn_of(view, exchange) else {
                continue;
            };
            let beside = (!exchange.is_the_users()).then_some(exchange.conversation);
            let turn = (turn, beside);
            findings.exercised += usize::from(!begun.is_empty());
            for name in OF_A_TURN {
                let Some(value) = exchange.headers.get(*name) else {
                    continue;
                };
                let number = exchange.number;
                let (owner, first) = *owners.entry((name, value)).or_insert((turn, index));
                if owner != turn {
                    let fault = HEADER_OF_EARLIER_TURN
                        .with("request", number)
                        .with("header", *name);
                    findings.breach(view, fault, &[view.exchanges[first].at, exchange.at]);
                } else if first == index && !given(view, &begun, turn, exchange) {
                    let fault = HEADER_NOT_GIVEN
                        .with("request", number)
                        .with("header", *name);
                    findings.breach(view, fault, &[exchange.at]);
                }
            }
            begun.push((turn, index));
        }
        findings
    }
}

/// A turn, and the conversation beside the user's in which it was spoken.
type TurnOwner = (usize, Option<usize>);

fn turn_of(view: &View<'_>, exchange: &Exchange<'_>) -> Option<usize> {
    let next = || view.turns.partition_point(|turn| turn.begun <= exchange.at);
    // Input for a turn that was over by then begins one as well. Requests without a cause are for
    // REQ-2 to judge.
    let cut = || cut_before(view, exchange);
    let turn = exchange.turn.or_else(cut).unwrap_or_else(next);
    (turn < view.turns.len()).then_some(turn)
}

/// The turn that the agent's end cut before a request arrived, if the agent has not been started again.
fn cut_before(view: &View<'_>, exchange: &Exchange<'_>) -> Option<usize> {
    let starts = view.starts.partition_point(|start| start.at < exchange.at);
    let start = view.starts[..starts].last().map_or(0, |start| start.at);
    let is_cut = |cut: usize| (start..exchange.at).contains(&cut);
    view.turns
        .iter()
        .rposition(|turn| turn.killed.or(turn.exited).is_some_and(is_cut))
}

/// Whether the headers of a response to the turn had been sent before a request was: the header
/// comes with them, even if the stream fails.
fn given(
    view: &View<'_>,
    begun: &[(TurnOwner, usize)],
    turn: TurnOwner,
    exchange: &Exchange<'_>,
) -> bool {
    let mut of_turn = begun.iter().filter(|(of, _)| *of == turn);
    of_turn.any(|(_, index)| {
        let earlier = &view.exchanges[*index];
        let refused = earlier.status.is_some_and(|status| status >= 400);
        !refused && earlier.headed.is_some_and(|at| at < exchange.at)
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::{Tracer, breaks, call, is_idle, keeps, output, user};
    use cutpoint_trace::{InputMode, Observation, StreamEnd};

    /// A turn of two requests, the second with the header that the first response gave.
    fn routed() -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "run").request(1, &[user("run")]).created(1);
        t.emit(1, call("c1")).finish(1);
        t.request_with(2, "a", &[user("run"), call("c1"), output("c1", "x")]);
        t.created(2).finish(2).completed("t1").start("t2", "next");
        t
    }

    #[test]
    fn a_header_that_stays_with_its_turn_passes() {
        keeps("REQ-6", routed().request(3, &[user("next")]), 2);
        let mut t = routed();
        t.request(3, &[user("next")]).created(3).finish(3);
        keeps("REQ-6", t.request_with(4, "b", &[user("next")]), 3);
        is_idle(
            "REQ-6",
            Tracer::new().start("t1", "hi").request(1, &[user("hi")]),
        );
    }

    #[test]
    fn a_response_that_breaks_off_at_its_headers_has_given_its_header() {
        let mut t = Tracer::new();
        t.start("t1", "run").request(1, &[user("run")]);
        t.push(Observation::ResponseHead {
            exchange: 1,
            status: 200,
            reply: Some(1),
            retry_after_ms: None,
        });
        t.stream_end(1, StreamEnd::Reset);
        keeps("REQ-6", t.request_with(2, "a", &[user("run")]), 1);
    }

    /// Input was meant for a turn that is over, and begins one whose announcement is on its way.
    #[test]
    fn a_request_that_overtakes_its_turn_belongs_to_it() {
        let mut t = Tracer::new();
        t.start("t1", "hi").request(1, &[user("hi")]).created(1);
        t.input("ho", InputMode::Steer).finish(1).completed("t1");
        t.request(2, &[user("hi"), user("ho")]).created(2);
        t.started("t2").finish(2);
        keeps(
            "REQ-6",
            t.request_with(3, "b", &[user("hi"), user("ho")]),
            2,
        );
    }

    #[test]
    fn a_request_after_a_kill_is_of_the_turn_that_was_cut() {
        let killed = |resumed: bool| {
            let mut t = Tracer::new();
            t.start("t1", "run").request(1, &[user("run")]).created(1);
            t.emit(1, call("c1")).finish(1).kill();
            if resumed {
                t.resume().start("t2", "next");
            }
            t.request_with(2, "a", &[user("run"), call("c1"), output("c1", "x")]);
            if !resumed {
                t.resume().start("t2", "next");
            }
            t
        };
        keeps("REQ-6", &killed(false), 1);
        breaks("REQ-6/header-not-given", &killed(true));
        let mut t = killed(false);
        t.request_with(
            3,
            "a",
            &[user("run"), call("c1"), output("c1", "x"), user("next")],
        );
        breaks("REQ-6/header-of-earlier-turn", &t);
    }

    #[test]
    fn a_header_of_an_earlier_turn_is_a_breach() {
        let breach = breaks(
            "REQ-6/header-of-earlier-turn",
            routed().request_with(3, "a", &[user("next")]),
        );
        assert!(breach.text().contains("of an earlier turn"));
    }

    #[test]
    fn a_header_that_was_not_given_is_a_breach() {
        let mut t = Tracer::new();
        t.start("t1", "hi")
            .request(1, &[user("hi")])
            .created(1)
            .finish(1)
            .completed("t1");
        t.start("t2", "ho")
            .request_with(2, "a", &[user("hi"), user("ho")]);
        breaks("REQ-6/header-not-given", &t);
    }
}
