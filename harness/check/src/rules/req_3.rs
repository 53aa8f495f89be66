//! REQ-3: retries are bounded, back off, and stop at the interrupt.

use std::collections::HashMap;

use crate::invariant::{Findings, Invariant};
use crate::trace::Feature;
use crate::verdict::Level;
use crate::view::{At, Exchange, View};

pub(super) struct RetriesAreBounded;

/// The longest chain of retries: more than five request retries for each of six tries of a stream.
const CHAIN: usize = 50;
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
        "A request that fails is tried again a bounded number of times, after the first time with a \
         delay, and not behind an interrupt."
    }

    fn source(&self) -> &'static str {
        "Codex's retries of requests and streams; openai/codex #13874 (one more request behind the \
         interrupt), #30526 (a stream that stalls)"
    }

    fn needs(&self) -> &'static [Feature] {
        &[]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "One retry may arrive behind the interrupt, before the turn has ended: it was already on \
             its way.",
            "The first retry of a chain may follow at once, and behind 429 and 503 the server may have \
             named the delay.",
            "What a 400 leads to is CALL-7's matter.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a request is tried again, or its turn is interrupted behind its failure"
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        let mut chains: Vec<usize> = Vec::with_capacity(view.exchanges.len());
        let mut behind: HashMap<usize, usize> = HashMap::new();
        for exchange in &view.exchanges {
            let Some(failed) = retried(view, exchange) else {
                chains.push(0);
                continue;
            };
            let length = 1 + exchange.previous.map_or(0, |previous| chains[previous]);
            chains.push(length);
            findings.exercised += 1;
            let number = exchange.number;
            if length == CHAIN + 1 {
                let message =
                    format!("request {number} is retry number {length} of the same request");
                findings.breach(view, message, &[failed.at, exchange.at]);
            } else if let Some((over, delay_ns)) = hasty(view, failed, exchange, length) {
                let message = format!(
                    "request {number}, retry number {length} of the same request, was sent {} ms behind \
                     the failure",
                    delay_ns / 1_000_000
                );
                findings.breach(view, message, &[over, exchange.at]);
            } else if let Some((turn, cut)) = behind_cut(view, exchange) {
                let count = behind.entry(turn).or_default();
                *count += 1;
                if *count == 2 {
                    let message =
                        format!("request {number} is a second retry behind the interrupt");
                    findings.breach(view, message, &[cut, exchange.at]);
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
    (exchange.generates && same_turn && failed && same).then_some(previous)
}

/// The failure that a retry followed without a delay, and how long it took.
fn hasty(
    view: &View<'_>,
    failed: &Exchange<'_>,
    retry: &Exchange<'_>,
    length: usize,
) -> Option<(At, u64)> {
    let told = matches!(failed.status, Some(429 | 503));
    let over = failed.over().or(failed.disconnected)?;
    let delay_ns = view.between_ns(over, retry.at);
    (length > 1 && !told && delay_ns < BACKOFF_NS).then_some((over, delay_ns))
}

/// The turn of a request that arrived behind what cut the turn, and that cut.
fn behind_cut(view: &View<'_>, exchange: &Exchange<'_>) -> Option<(usize, At)> {
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
    use crate::trace::StreamEnd;

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
            breaks("REQ-3", &failing(3, 0))
                .message
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
            breaks("REQ-3", &failing(60, 30))
                .message
                .contains("retry number 51")
        );
    }

    #[test]
    fn retries_that_go_on_behind_the_interrupt_are_a_breach() {
        let mut t = failing(1, 200);
        t.interrupt()
            .request(2, &[user("run")])
            .stream_end(2, StreamEnd::Reset);
        keeps("REQ-3", t.clone().aborted("t1"), 2);
        t.wait_ms(200).request(3, &[user("run")]).aborted("t1");
        assert!(breaks("REQ-3", &t).message.contains("behind the interrupt"));
    }
}
