//! CALL-7: a 400 that names an unanswered call is answered, and tried again once.

use serde_json::Value;

use crate::fast_hash::{HashMap, HashSet};
use crate::invariant::{Findings, Invariant};
use crate::view::{At, Exchange, View};
use cutpoint_trace::verdict::{Clause, Fault, Level};
use cutpoint_trace::{AgentEvent, Feature, Observation, TurnEnd};

pub(super) struct NamedCallsAreAnswered;

const UNNAMED_REFUSALS: Clause = Clause {
    kind: "unnamed-refusals",
    text: "a turn went on after {count} refusals that name no call",
};
const REFUSED_AGAIN: Clause = Clause {
    kind: "refused-again",
    text: "request {request} was tried again, although it was refused for call {call} a second \
           time",
};
const FEWER_RETRIES: Clause = Clause {
    kind: "fewer-retries",
    text: "after a refusal that names a call, status {status} was retried only {count} times, but \
           {usual} times elsewhere",
};
const NOT_RETRIED: Clause = Clause {
    kind: "not-retried",
    text: "request {request} was refused for call {call}, and not tried again with its output",
};
const RETRY_WITHOUT_OUTPUT: Clause = Clause {
    kind: "retry-without-output",
    text: "request {retry} follows the refusal for call {call}, and has no output for it",
};
const LATE_RETRY: Clause = Clause {
    kind: "late-retry",
    text: "request {retry} followed the refusal for call {call} only after {delay_ms} ms",
};
const NOT_REPORTED: Clause = Clause {
    kind: "not-reported",
    text: "the agent did not tell the client that request {request} was refused for call {call}",
};

/// How the API's complaint about an unanswered call starts.
const COMPLAINT: &str = "No tool output found for ";
/// How soon "at once" is on a loaded machine.
const AT_ONCE_NS: u64 = 1_000_000_000;
/// How many refusals that name no call a turn may have: more than any cause can mend.
const REFUSALS: usize = 5;

impl Invariant for NamedCallsAreAnswered {
    fn id(&self) -> &'static str {
        "CALL-7"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "When the API answers 400 and names a call without output, the agent tells the client \
         and sends the request again at once with an output for that call: once per call, without \
         using up its retries, and never without end."
    }

    fn source(&self) -> &'static str {
        "openai/codex #1610 (recovery from the 400), #93 (every request after an abort refused)"
    }

    fn needs(&self) -> &'static [Feature] {
        &[]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "A turn that is interrupted, replaced or cut by the end of the agent after the \
             refusal need not retry.",
            "A call that the refused request does not carry need not be answered: an output \
             without its call would be refused as well.",
            "\"At once\" means within 1 s: a loaded machine is slow, and a delay shows in the \
             use of retries.",
            "How often a request is retried is only known if the run shows it for another \
             request that failed with the same status.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "the API answers 400 to a request of a turn"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[
            UNNAMED_REFUSALS,
            REFUSED_AGAIN,
            FEWER_RETRIES,
            NOT_RETRIED,
            RETRY_WITHOUT_OUTPUT,
            LATE_RETRY,
            NOT_REPORTED,
        ]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        let following = following(view);
        let mut named = HashSet::default();
        let mut unnamed: HashMap<usize, usize> = HashMap::default();
        for (index, exchange) in view.exchanges.iter().enumerate() {
            let (Some(turn), Some(400)) = (view.turn_of(exchange), exchange.status) else {
                continue;
            };
            let retry = following.get(&index).map(|next| &view.exchanges[*next]);
            let retry = retry.filter(|retry| view.turn_of(retry) == Some(turn));
            let refusal = Refusal {
                view,
                exchange,
                turn,
                retry,
            };
            let Some(id) = message(view, exchange).and_then(named_call) else {
                findings.exercised += 1;
                let count = unnamed.entry(turn).or_default();
                *count += 1;
                if *count == REFUSALS + 1 {
                    let fault = UNNAMED_REFUSALS.with("count", REFUSALS);
                    findings.breach(view, fault, &[exchange.at]);
                }
                continue;
            };
            if named.insert((turn, id)) {
                refusal.check_first(id, &mut findings);
            } else {
                findings.exercised += 1;
                if let Some(retry) = retry {
                    let fault = REFUSED_AGAIN
                        .with("request", exchange.number)
                        .with("call", id);
                    findings.breach(view, fault, &[exchange.at, retry.at]);
                }
            }
        }
        check_retries(view, &mut findings);
        findings
    }
}

/// Finds turns that gave up earlier after a recovery than requests are given up without one.
fn check_retries(view: &View<'_>, findings: &mut Findings) {
    // For each request: how many tries failed before it, with which status, and the refusal in
    // front of them.
    let mut chains: Vec<(usize, Option<u16>, Option<At>)> = Vec::new();
    let mut usual: HashMap<u16, usize> = HashMap::default();
    for exchange in &view.exchanges {
        let previous = exchange
            .previous
            .map(|index| (index, &view.exchanges[index]));
        let previous = previous.filter(|(_, previous)| previous.turn == exchange.turn);
        let chain = match previous.and_then(|(index, it)| Some((index, it.status?, it.at))) {
            Some((_, 400, at)) => (0, None, Some(at)),
            Some((index, status @ 401.., _)) => {
                (chains[index].0 + 1, Some(status), chains[index].2)
            }
            _ => (0, None, None),
        };
        if let (count, Some(status), None) = chain {
            let most = usual.entry(status).or_default();
            *most = count.max(*most);
        }
        chains.push(chain);
    }
    for (index, turn) in view.turns.iter().enumerate() {
        let ending = turn
            .ending()
            .filter(|it| matches!(it.end, TurnEnd::Failed { .. }));
        let own = view.exchanges.iter().rposition(|it| it.turn == Some(index));
        let (Some(ending), Some(last)) = (ending, own) else {
            continue;
        };
        let (count, _, Some(refusal)) = chains[last] else {
            continue;
        };
        let status = view.exchanges[last].status.unwrap_or_default();
        if let Some(most) = usual.get(&status).filter(|most| count < **most) {
            let fault = FEWER_RETRIES.with("status", status).with("count", count);
            let fault = fault.with("usual", *most);
            findings.breach(view, fault, &[refusal, view.exchanges[last].at, ending.at]);
        }
    }
}

/// A request that was refused, and the one after it in the turn.
struct Refusal<'v, 'a> {
    view: &'v View<'a>,
    exchange: &'v Exchange<'a>,
    turn: usize,
    retry: Option<&'v Exchange<'a>>,
}

impl Refusal<'_, '_> {
    fn check_first(&self, id: &str, findings: &mut Findings) {
        if !self.exchange.calls().any(|call| call == id) {
            return;
        }
        let number = self.exchange.number;
        let over = self.exchange.over().unwrap_or(self.exchange.at);
        let Some(retry) = self.retry else {
            if !self.given_up() {
                findings.exercised += 1;
                let fault = NOT_RETRIED.with("request", number).with("call", id);
                let ending = self.view.turns[self.turn].ending();
                let ended = ending.map_or(over, |ending| ending.at);
                findings.breach(self.view, fault, &[self.exchange.at, over, ended]);
            }
            return;
        };
        findings.exercised += 1;
        let delay_ns = self.view.between_ns(over, retry.at);
        let fault: Fault = if !retry.outputs().any(|output| output == id) {
            RETRY_WITHOUT_OUTPUT.with("retry", retry.number)
        } else if delay_ns > AT_ONCE_NS {
            let late = LATE_RETRY.with("retry", retry.number);
            late.with("delay_ms", delay_ns / 1_000_000)
        } else if !self.was_reported(over) {
            NOT_REPORTED.into()
        } else {
            return;
        };
        findings.breach(
            self.view,
            fault.with("request", number).with("call", id),
            &[self.exchange.at, over, retry.at],
        );
    }

    /// Whether the turn was cut, so that nothing needs to be tried again.
    fn given_up(&self) -> bool {
        let turn = &self.view.turns[self.turn];
        let gone = turn.killed.or(turn.exited).is_some();
        gone || turn.ending().is_none() || self.view.cut_at(self.turn).is_some()
    }

    /// Whether the agent reported anything to the client after the refusal, while the turn went on.
    fn was_reported(&self, from: At) -> bool {
        let ending = self.view.turns[self.turn].ending();
        let until = ending.map_or(self.view.trace.entries.len(), |ending| ending.at);
        let mut between = from..until;
        between.any(|at| {
            let event = self.view.event(at);
            matches!(
                event,
                Some(AgentEvent::Background { .. } | AgentEvent::Error { .. })
            )
        })
    }
}

/// The request after each request, in its conversation.
fn following(view: &View<'_>) -> HashMap<usize, usize> {
    let all = view.exchanges.iter().enumerate();
    all.filter_map(|(index, exchange)| Some((exchange.previous?, index)))
        .collect()
}

/// What the API said.
fn message<'a>(view: &View<'a>, exchange: &Exchange<'_>) -> Option<&'a str> {
    match &view.trace.entries.get(exchange.body?)?.observation {
        Observation::ResponseBody {
            body: Value::String(text),
            ..
        } => Some(text),
        Observation::ResponseBody { body, .. } => body.get("error")?.get("message")?.as_str(),
        _ => None,
    }
}

/// The call that a complaint names.
fn named_call(message: &str) -> Option<&str> {
    let rest = &message[message.find(COMPLAINT)? + COMPLAINT.len()..];
    let (_, rest) = rest.split_once("call ")?;
    let of_id = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '/');
    let end = rest.find(|letter| !of_id(letter)).unwrap_or(rest.len());
    (end > 0).then_some(&rest[..end])
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::testing::{Tracer, breaks, call, is_idle, keeps, output, user};
    use cutpoint_trace::{InputMode, TurnEnd};

    const REFUSAL: &str = "No tool output found for function call c1.";

    fn failed() -> TurnEnd {
        let message = REFUSAL.to_owned();
        TurnEnd::Failed { message }
    }

    fn history() -> Vec<Value> {
        vec![user("run"), call("c1"), output("c1", "aborted")]
    }

    /// A request that carries a call and is refused for it.
    fn refused() -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "run").request(1, &[user("run"), call("c1")]);
        t.answer(1, 400, REFUSAL);
        t
    }

    #[test]
    fn a_recovery_passes() {
        let mut t = refused();
        t.background("c1 is sent as aborted")
            .request(2, &history())
            .finish(2)
            .completed("t1");
        keeps("CALL-7", &t, 1);
    }

    #[test]
    fn a_turn_that_fails_of_it_is_a_breach() {
        let breach = breaks("CALL-7/not-retried", refused().ended(Some("t1"), failed()));
        assert!(breach.text().contains("not tried again"));
        is_idle("CALL-7", refused().interrupt().aborted("t1"));
    }

    #[test]
    fn a_retry_without_the_output_is_a_breach() {
        let mut t = refused();
        t.background("x").request(2, &[user("run"), call("c1")]);
        breaks("CALL-7/retry-without-output", &t);
    }

    #[test]
    fn a_late_or_silent_retry_is_a_breach() {
        let mut t = refused();
        t.background("x").wait_ms(1500).request(2, &history());
        breaks("CALL-7/late-retry", &t);
        let mut t = refused();
        t.request(2, &history()).finish(2).completed("t1");
        breaks("CALL-7/not-reported", &t);
    }

    #[test]
    fn a_call_is_recovered_once() {
        let mut t = refused();
        t.background("x")
            .request(2, &history())
            .answer(2, 400, REFUSAL);
        keeps("CALL-7", t.clone().ended(Some("t1"), failed()), 2);
        let breach = breaks("CALL-7/refused-again", t.request(3, &history()));
        assert!(breach.text().contains("a second time"));
    }

    #[test]
    fn requests_may_overtake_the_announcement_of_their_turn() {
        let refused = [user("run"), call("c1")];
        let mut t = Tracer::new();
        t.input("run", InputMode::Start)
            .request(1, &refused)
            .answer(1, 400, REFUSAL);
        t.started("t1")
            .background("x")
            .request(2, &history())
            .answer(2, 400, REFUSAL);
        keeps("CALL-7", t.clone().ended(Some("t1"), failed()), 2);
        breaks("CALL-7/refused-again", t.request(3, &history()));
    }

    #[test]
    fn a_recovery_costs_no_retry() {
        let retried = |after: usize| {
            let mut t = Tracer::new();
            t.start("t0", "one");
            for number in 10..14 {
                t.request(number, &[user("one")]).answer(number, 503, "no");
            }
            t.request(14, &[user("one")])
                .created(14)
                .finish(14)
                .completed("t0");
            let run = [user("one"), user("run"), call("c1")];
            t.start("t1", "run")
                .request(20, &run)
                .answer(20, 400, REFUSAL);
            t.background("c1 is sent as aborted");
            for number in 21..=21 + after {
                let history = [run.as_slice(), &[output("c1", "aborted")]].concat();
                t.request(number, &history).answer(number, 503, "no");
            }
            t.ended(Some("t1"), failed());
            t
        };
        keeps("CALL-7", &retried(4), 1);
        let breach = breaks("CALL-7/fewer-retries", &retried(3));
        assert!(
            breach
                .text()
                .contains("only 3 times, but 4 times elsewhere")
        );
    }

    #[test]
    fn a_refusal_that_names_no_call_is_not_tried_for_ever() {
        let mut t = Tracer::new();
        t.start("t1", "run");
        for number in 1..=5 {
            t.request(number, &[user("run")]).answer(number, 400, "no");
        }
        keeps("CALL-7", &t, 5);
        breaks(
            "CALL-7/unnamed-refusals",
            t.request(6, &[user("run")]).answer(6, 400, "no"),
        );
    }
}
