//! REQ-3: retries are bounded, back off, and stop at the interrupt.

use crate::fast_hash::{HashMap, HashSet};
use crate::invariant::{Findings, Invariant};
use crate::view::{At, Exchange, View};
use cutpoint_trace::verdict::{Clause, Level};
use cutpoint_trace::{AgentEvent, Feature};

pub(super) struct RetriesAreBounded;

const RETRY_AFTER_TURN: Clause = Clause {
    kind: "retry-after-turn",
    text: "request {request} is a retry after the end of its turn",
};
const TOO_MANY_RETRIES: Clause = Clause {
    kind: "too-many-retries",
    text: "request {request} is retry number {retry} of the same request",
};
const TOO_SOON: Clause = Clause {
    kind: "too-soon",
    text: "request {request} was sent {delay_ms} ms after an answer that asked for a pause of \
           {wanted_ms} ms",
};
const HASTY: Clause = Clause {
    kind: "hasty",
    text: "request {request}, retry number {retry} of the same request, was sent {delay_ms} ms \
           after the failure",
};
const SECOND_RETRY_AFTER_INTERRUPT: Clause = Clause {
    kind: "second-retry-after-interrupt",
    text: "request {request} is a second retry after the interrupt",
};

/// The longest chain of retries: more than five request retries for each of six tries of a stream.
const CHAIN: usize = 50;
/// The longest pause that a server can ask for and be sure to get.
const PAUSE_MS: u64 = 60_000;
/// How soon after the end of a turn a request may arrive that was already on its way.
const ON_ITS_WAY_NS: u64 = 10_000_000;
/// The shortest delay that is one, from a chain's second retry on.
const BACKOFF_NS: u64 = 20_000_000;

impl Invariant for RetriesAreBounded {
    fn id(&self) -> &'static str {
        "REQ-3"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "A request that fails is retried a bounded number of times, with a delay from the second \
         retry on, not before the time that the server asks for, and not after an interrupt."
    }

    fn source(&self) -> &'static str {
        "Codex's retries of requests and streams; openai/codex #13874 (one more request after the \
         interrupt), #30526 (a stream that stalls)"
    }

    fn needs(&self) -> &'static [Feature] {
        &[]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "One retry may arrive after the interrupt, before the turn has ended or within 10 ms \
             after that: it was already on its way.",
            "Where a server asks for no delay at all, several retries may arrive within 10 ms \
             after the interrupt: the agent had not yet taken it.",
            "A sub-agent that gets new input after a failure begins a turn; that is not a retry.",
            "The first retry of a chain may follow at once, and so may a retry for which the \
             server named no longer delay; after 429 and 503 the server may have named one where \
             that cannot be observed.",
            "A pause of more than a minute that a server asks for may be cut short.",
            "What a 400 leads to is for CALL-7 to judge.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a request is retried, or its turn is interrupted after its failure"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[
            RETRY_AFTER_TURN,
            TOO_MANY_RETRIES,
            TOO_SOON,
            HASTY,
            SECOND_RETRY_AFTER_INTERRUPT,
        ]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        let mut chains: Vec<usize> = Vec::with_capacity(view.exchanges.len());
        let mut after: HashMap<usize, usize> = HashMap::default();
        let mut reported: HashSet<usize> = HashSet::default();
        for exchange in &view.exchanges {
            let Some(failed) = retried(view, exchange) else {
                chains.push(0);
                if let Some((failed, ended)) = outlives_turn(view, exchange) {
                    let fault = RETRY_AFTER_TURN.with("request", exchange.number);
                    findings.breach(view, fault, &[failed, ended, exchange.at]);
                }
                continue;
            };
            let length = 1 + exchange.previous.map_or(0, |previous| chains[previous]);
            chains.push(length);
            findings.exercised += 1;
            let number = exchange.number;
            if length == CHAIN + 1 {
                let fault = TOO_MANY_RETRIES
                    .with("request", number)
                    .with("retry", length);
                findings.breach(view, fault, &[failed.at, exchange.at]);
            } else if let Some((over, asked_ms, delay_ms)) = too_soon(view, failed, exchange) {
                let fault = TOO_SOON.with("request", number).with("delay_ms", delay_ms);
                let fault = fault.with("wanted_ms", asked_ms);
                findings.breach(view, fault, &[over, exchange.at]);
            } else if let Some((over, delay_ns)) = hasty(view, failed, exchange, length) {
                let fault = HASTY.with("request", number).with("retry", length);
                let fault = fault.with("delay_ms", delay_ns / 1_000_000);
                findings.breach(view, fault, &[over, exchange.at]);
            } else if let Some((turn, cut)) = after_cut(view, exchange) {
                let count = after.entry(turn).or_default();
                *count += 1;
                let taken = view.between_ns(cut, exchange.at) > ON_ITS_WAY_NS;
                if *count >= 2 && taken && reported.insert(turn) {
                    let fault = SECOND_RETRY_AFTER_INTERRUPT.with("request", number);
                    findings.breach(view, fault, &[cut, exchange.at]);
                }
            }
        }
        findings.exercised += interrupted_failures(view);
        findings
    }
}

/// The failed request that a request tries again.
fn retried<'v, 'a>(view: &'v View<'a>, exchange: &Exchange<'a>) -> Option<&'v Exchange<'a>> {
    let previous = &view.exchanges[exchange.previous?];
    let same_turn = exchange.turn.is_some() && exchange.turn == previous.turn;
    let failed = previous.failed_before(exchange.at) && previous.status != Some(400);
    let same = exchange.outputs().count() == previous.outputs().count();
    let again = exchange.generates && same_turn && failed && same;
    (again && !begins_anew(view, previous, exchange)).then_some(previous)
}

/// Whether the sub-agent that a request is of has begun a turn of its own since its request before.
fn begins_anew(view: &View<'_>, previous: &Exchange<'_>, exchange: &Exchange<'_>) -> bool {
    let is_own = |own: &usize| view.exchanges[*own].at == exchange.at;
    let mut agents = view
        .agents
        .iter()
        .filter(|agent| agent.exchanges.iter().any(is_own));
    let started = |event: &AgentEvent| matches!(event, AgentEvent::TurnStarted { .. });
    agents.any(|agent| {
        let mut events = agent.events.iter();
        events.any(|(at, event)| (previous.at..exchange.at).contains(at) && started(event))
    })
}

/// The failure and the end of the turn after which a request only tries that failure again.
fn outlives_turn(view: &View<'_>, exchange: &Exchange<'_>) -> Option<(At, At)> {
    let previous = &view.exchanges[exchange.previous?];
    let turn = previous.turn?;
    let cut = view.cut_at(turn)?;
    let ended = view.turns[turn].ending_before(exchange.at)?.at;
    let silent = exchange.turn.is_none()
        && !exchange.in_flight
        && exchange.inputs_before == previous.inputs_before;
    let failed = previous.failed_before(cut) && previous.status != Some(400);
    let same = exchange.outputs().count() == previous.outputs().count();
    let late = view.between_ns(ended, exchange.at) > ON_ITS_WAY_NS;
    (exchange.generates && silent && failed && same && late).then_some((previous.at, ended))
}

/// The failure that a retry followed before the server wanted it: the pause that it had asked for,
/// and the one that was made, in milliseconds.
fn too_soon(
    view: &View<'_>,
    failed: &Exchange<'_>,
    retry: &Exchange<'_>,
) -> Option<(At, u64, u64)> {
    let asked_ms = failed.retry_after_ms.filter(|ms| *ms <= PAUSE_MS)?;
    let over = failed.over()?;
    let delay_ms = view.between_ns(over, retry.at) / 1_000_000;
    (delay_ms < asked_ms).then_some((over, asked_ms, delay_ms))
}

/// The failure that a retry followed without a delay, and how long it took.
fn hasty(
    view: &View<'_>,
    failed: &Exchange<'_>,
    retry: &Exchange<'_>,
    length: usize,
) -> Option<(At, u64)> {
    let told = failed.retry_after_ms.is_some() || matches!(failed.status, Some(429 | 503));
    let over = failed.over().or(failed.disconnected)?;
    let delay_ns = view.between_ns(over, retry.at);
    (length > 1 && !told && delay_ns < BACKOFF_NS).then_some((over, delay_ns))
}

/// The turn of a request that arrived after what cut the turn, and that cut.
fn after_cut(view: &View<'_>, exchange: &Exchange<'_>) -> Option<(usize, At)> {
    let turn = exchange.turn?;
    let cut = view.cut_at(turn)?;
    (cut < exchange.at).then_some((turn, cut))
}

/// How many turns were cut while their last request had failed.
fn interrupted_failures(view: &View<'_>) -> usize {
    let was_failing = |turn: &usize| {
        let Some(cut) = view.cut_at(*turn) else {
            return false;
        };
        let before = view.exchanges.partition_point(|exchange| exchange.at < cut);
        let last = view.exchanges[..before]
            .iter()
            .rev()
            .find(|it| it.turn == Some(*turn));
        last.is_some_and(|last| {
            last.failed_before(cut) && last.over().is_some_and(|over| over < cut)
        })
    };
    (0..view.turns.len()).filter(was_failing).count()
}

#[cfg(test)]
mod tests {
    use crate::testing::{Tracer, breaks, interrupted_tool, is_idle, keeps, long_session, user};
    use cutpoint_trace::{AgentEvent, Observation, StreamEnd};

    /// A turn whose requests all fail, with this delay before each further one.
    fn failing(count: usize, delay_ms: u64) -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "run");
        for number in 1..=count {
            t.request(number, &[user("run")])
                .answer(number, 500, "no")
                .wait_ms(delay_ms);
        }
        t
    }

    #[test]
    fn a_few_retries_with_delays_pass() {
        keeps("REQ-3", &failing(5, 200), 4);
        keeps("REQ-3", &failing(2, 0), 1);
        keeps("REQ-3", &long_session(), 1);
        is_idle("REQ-3", &interrupted_tool());
    }

    #[test]
    fn retries_without_a_delay_are_a_breach() {
        assert!(
            breaks("REQ-3/hasty", &failing(3, 0))
                .text()
                .contains("retry number 2")
        );
        let mut t = Tracer::new();
        t.start("t1", "run");
        for number in 1..=3 {
            t.request(number, &[user("run")])
                .answer(number, 429, "later");
        }
        keeps("REQ-3", &t, 2);
    }

    #[test]
    fn retries_without_end_are_a_breach() {
        keeps("REQ-3", &failing(51, 30), 50);
        assert!(
            breaks("REQ-3/too-many-retries", &failing(60, 30))
                .text()
                .contains("retry number 51")
        );
    }

    #[test]
    fn a_pause_that_the_server_asks_for_is_made() {
        let paused = |delay_ms: u64, asked_ms: u64| {
            let mut t = Tracer::new();
            t.start("t1", "run").request(1, &[user("run")]);
            t.push(Observation::ResponseHead {
                exchange: 1,
                status: 429,
                reply: None,
                retry_after_ms: Some(asked_ms),
            });
            t.stream_end(1, StreamEnd::Complete).wait_ms(delay_ms);
            t.request(2, &[user("run")]);
            t
        };
        keeps("REQ-3", &paused(1000, 1000), 1);
        keeps("REQ-3", &paused(1000, 3_600_000), 1);
        let breach = breaks("REQ-3/too-soon", &paused(200, 1000));
        assert!(breach.text().contains("a pause of 1000 ms"));
    }

    #[test]
    fn retries_that_need_no_pause_may_overtake_the_interrupt() {
        let retried = |ms: u64| {
            let mut t = Tracer::new();
            t.start("t1", "run").request(1, &[user("run")]);
            t.answer(1, 503, "later").interrupt();
            t.request(2, &[user("run")])
                .answer(2, 503, "later")
                .wait_ms(ms);
            t.request(3, &[user("run")]).answer(3, 503, "later");
            t.aborted("t1");
            t
        };
        keeps("REQ-3", &retried(5), 3);
        breaks("REQ-3/second-retry-after-interrupt", &retried(20));
    }

    #[test]
    fn a_sub_agent_that_is_spoken_to_tries_nothing_again() {
        let spoken_to = |begins: bool| {
            let mut t = Tracer::new();
            t.start("t1", "run").sub_agent("t1", "a", "look", false);
            t.request_of(1, 1, &[user("look")])
                .push(Observation::ResponseHead {
                    exchange: 1,
                    status: 429,
                    reply: None,
                    retry_after_ms: Some(1000),
                });
            t.stream_end(1, StreamEnd::Complete);
            if begins {
                let turn_id = "s2".to_owned();
                t.of_sub_agent(
                    "t1",
                    "a",
                    AgentEvent::TurnStarted {
                        turn_id: turn_id.into(),
                    },
                );
            }
            t.request_of(1, 2, &[user("look"), user("and there?")]);
            t
        };
        is_idle("REQ-3", &spoken_to(true));
        breaks("REQ-3/too-soon", &spoken_to(false));
    }

    #[test]
    fn a_server_may_ask_for_no_pause() {
        let retried = |retry_after_ms: Option<u64>| {
            let mut t = failing(1, 0);
            t.request(2, &[user("run")])
                .push(Observation::ResponseHead {
                    exchange: 2,
                    status: 500,
                    reply: None,
                    retry_after_ms,
                });
            t.stream_end(2, StreamEnd::Complete)
                .request(3, &[user("run")]);
            t
        };
        keeps("REQ-3", &retried(Some(0)), 2);
        breaks("REQ-3/hasty", &retried(None));
    }

    #[test]
    fn a_retry_after_the_end_of_its_turn_is_a_breach() {
        let retry = |delay_ms: u64| {
            let mut t = failing(1, 0);
            t.interrupt().aborted("t1").wait_ms(delay_ms);
            t.request(2, &[user("run")]);
            t
        };
        keeps("REQ-3", &retry(0), 1);
        let breach = breaks("REQ-3/retry-after-turn", &retry(200));
        assert!(breach.text().contains("after the end of its turn"));
        let mut next = failing(1, 0);
        next.interrupt().aborted("t1").wait_ms(200);
        next.start("t2", "next");
        keeps("REQ-3", next.request(2, &[user("run"), user("next")]), 1);
    }

    #[test]
    fn retries_that_go_on_after_the_interrupt_are_a_breach() {
        let mut t = failing(1, 200);
        t.interrupt()
            .request(2, &[user("run")])
            .stream_end(2, StreamEnd::Reset);
        keeps("REQ-3", t.clone().aborted("t1"), 2);
        t.wait_ms(200).request(3, &[user("run")]).aborted("t1");
        breaks("REQ-3/second-retry-after-interrupt", &t);
    }
}
