//! REQ-5: what the user said is not lost.

use crate::invariant::{Findings, Invariant};
use crate::view::{At, Exchange, Input, View};
use cutpoint_trace::verdict::{Clause, Level};
use cutpoint_trace::{AgentEvent, Feature};

pub(super) struct InputIsKept;

const INPUT_LOST: Clause = Clause {
    kind: "input-lost",
    text: "request {request} lacks the user's input {text:?}, which was accepted",
};

/// Words of a message that reports a loss, and of what was lost.
const LOSS: &[&str] = &["lost", "dropped", "discarded", "not sent", "rejected"];
const INPUT: &[&str] = &["input", "prompt", "message"];

impl Invariant for InputIsKept {
    fn id(&self) -> &'static str {
        "REQ-5"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "Every text and command line of the user that the agent accepted is in the requests of \
         the turn that it began, and of every later turn of the session, unless the agent \
         reported its loss to the client."
    }

    fn source(&self) -> &'static str {
        "openai/codex #38395, #38896 (a prompt lost on a quick interrupt), #40805, #34599 (input \
         accepted and lost)"
    }

    fn needs(&self) -> &'static [Feature] {
        &[]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "Input that joins a running turn may miss the request that is on its way: it is due \
             in the next turn.",
            "A request that the agent gave up without reading its response was built earlier, \
             and need not carry the latest input.",
            "A crash may lose input that no request had carried yet.",
            "Input that a request had carried may be gone once the history was compacted: the \
             summary replaces it. Input sent after that request is not in the summary.",
            "A fork has the input that was sent before the fork was requested. What was sent to \
             the forked session after that stays there.",
            "Input may be gone once its turn was rolled back or the rollout was torn, or in a \
             session that continues no other.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a request is due to carry an accepted input, counted once for each input"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[INPUT_LOST]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        // A history's inputs are in order, so each can be looked up in them.
        let carried: Vec<Vec<usize>> = (view.exchanges.iter())
            .map(|exchange| exchange.inputs().collect())
            .collect();
        for (index, input) in view.inputs.iter().enumerate() {
            if input.refused() || input.text.is_empty() {
                continue;
            }
            let from = |at: At| view.exchanges.partition_point(|exchange| exchange.at < at);
            let owing = from(input.at)..from(forgotten(view, input));
            let mut due = owing
                .map(|place| (&view.exchanges[place], &carried[place]))
                .filter(|(exchange, _)| is_due(view, exchange, index));
            let Some(first) = due.next() else { continue };
            if excused(view, input, index, first.0) {
                continue;
            }
            findings.exercised += 1;
            let lacks = |(exchange, inputs): &(&Exchange<'_>, &Vec<usize>)| {
                inputs.binary_search(&index).is_err()
                    && !is_within(exchange, input.text)
                    && !excused(view, input, index, exchange)
            };
            if let Some((exchange, _)) = std::iter::once(first).chain(due).find(lacks) {
                let start: String = input.text.chars().take(40).collect();
                let fault = INPUT_LOST
                    .with("request", exchange.number)
                    .with("text", start);
                findings.breach(view, fault, &[input.at, exchange.at]);
            }
        }
        findings
    }
}

/// Whether a request has to carry an input: it is of the turn that the input began, or of one that
/// later input began.
fn is_due(view: &View<'_>, exchange: &Exchange<'_>, index: usize) -> bool {
    let began = exchange.turn.and_then(|turn| view.turns[turn].input);
    let given_up = exchange.disconnected.is_some() && exchange.completed().is_none();
    exchange.generates
        && exchange.is_the_users()
        && !given_up
        && began.is_some_and(|began| began >= index)
}

fn carries(exchange: &Exchange<'_>, index: usize, text: &str) -> bool {
    exchange.inputs().any(|known| known == index) || is_within(exchange, text)
}

/// Whether a request carries a text as a part of a message: an agent may send several inputs as one.
fn is_within(exchange: &Exchange<'_>, text: &str) -> bool {
    let user = |value: &&serde_json::Value| value.get("role").is_some_and(|role| role == "user");
    let mut items = exchange
        .history
        .iter()
        .enumerate()
        .filter(|(_, value)| user(value));
    items.any(|(place, _)| {
        let message = exchange.text(place);
        message.is_some_and(|message| message.trim() != text && message.contains(text))
    })
}

/// From where on no request owes an input any more: the agent began a session that continues no
/// other.
fn forgotten(view: &View<'_>, input: &Input<'_>) -> At {
    let mut starts = view.starts.iter();
    let fresh = starts.find(|start| !start.resumed && input.at < start.at);
    fresh.map_or(view.trace.entries.len(), |start| start.at)
}

/// Whether an input may nevertheless be missing from a request.
fn excused(view: &View<'_>, input: &Input<'_>, index: usize, exchange: &Exchange<'_>) -> bool {
    // The file is read after the request, so a compaction right before one is seen right after.
    let over = exchange.over().unwrap_or(exchange.at + 2) + 1;
    let torn = view.tears.iter().any(|at| input.at < *at && *at < over);
    torn || exchange.has_compaction()
        || view.rolled_back_between(input.at, over)
        || view.forked_away(input.at, exchange.at)
        || summarised(view, input, index, over)
        || lost_in_crash(view, input, index, exchange.at)
        || was_reported(view, input, exchange.at)
}

/// Whether the history was compacted when a request had carried an input.
fn summarised(view: &View<'_>, input: &Input<'_>, index: usize, until: At) -> bool {
    if view.compactions.is_empty() {
        return false;
    }
    let mut after = view
        .exchanges
        .iter()
        .filter(|exchange| exchange.at > input.at);
    let Some(first) = after.find(|exchange| carries(exchange, index, input.text)) else {
        return false;
    };
    let next = view.compactions.partition_point(|at| *at <= first.at);
    view.compactions.get(next).is_some_and(|at| *at < until)
}

/// Whether the agent ended after an input, before a request had carried it.
fn lost_in_crash(view: &View<'_>, input: &Input<'_>, index: usize, until: At) -> bool {
    let stop = view.stops.partition_point(|stop| *stop < input.at);
    let Some(stop) = view.stops.get(stop).filter(|stop| **stop < until) else {
        return false;
    };
    let mut before = view.exchanges.iter().filter(|exchange| exchange.at < *stop);
    !before.any(|exchange| carries(exchange, index, input.text))
}

/// Whether the agent reported to the client that an input was lost.
fn was_reported(view: &View<'_>, input: &Input<'_>, until: At) -> bool {
    (input.at..until).any(|at| match view.event(at) {
        Some(AgentEvent::Error { message, .. } | AgentEvent::Background { message }) => {
            let message = message.to_lowercase();
            let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
            says(LOSS) && (says(INPUT) || message.contains(&input.text.to_lowercase()))
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::{
        Tracer, breaks, interrupted_tool, is_idle, keeps, long_session, marker, user,
    };
    use cutpoint_trace::{AgentEvent, ClientOp, InputMode, TaskKind};

    fn steered() -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "one").request(1, &[user("one")]);
        t.input("and two", InputMode::Steer)
            .reply(Some("t1"))
            .finish(1)
            .completed("t1");
        t.start("t2", "three");
        t
    }

    #[test]
    fn input_that_stays_passes() {
        keeps("REQ-5", &interrupted_tool(), 2);
        keeps("REQ-5", &long_session(), 5);
        keeps(
            "REQ-5",
            steered().request(2, &[user("one"), user("and two"), user("three")]),
            3,
        );
        keeps(
            "REQ-5",
            steered().request(2, &[user("one"), user("and two\nthree")]),
            3,
        );
    }

    #[test]
    fn a_steer_that_is_lost_is_a_breach() {
        let breach = breaks(
            "REQ-5/input-lost",
            steered().request(2, &[user("one"), user("three")]),
        );
        assert!(breach.text().contains("\"and two\""));
    }

    #[test]
    fn a_prompt_that_is_lost_is_a_breach() {
        let mut t = Tracer::new();
        t.start("t1", "one").interrupted("t1").start("t2", "two");
        breaks("REQ-5/input-lost", t.request(1, &[marker(), user("two")]));
    }

    #[test]
    fn what_is_said_during_a_compaction_stays() {
        let compacted = |steered: bool| {
            let mut t = Tracer::new();
            t.start("t1", "one")
                .request(1, &[user("one")])
                .completed("t1");
            t.task(TaskKind::Compact, "")
                .reply(Some("t2"))
                .started("t2")
                .request(2, &[user("one")])
                .input("wait", InputMode::Steer);
            t.event(AgentEvent::Compacted { turn_id: None })
                .completed("t2");
            let wait = steered.then(|| user("wait"));
            let history: Vec<_> = wait.into_iter().chain([user("two")]).collect();
            t.start("t3", "two").request(3, &history);
            t
        };
        keeps("REQ-5", &compacted(true), 3);
        breaks("REQ-5/input-lost", &compacted(false));
    }

    #[test]
    fn a_fork_has_what_was_said_before_it_was_asked_for() {
        let forked = |before: bool| {
            let mut t = Tracer::new();
            t.start("t1", "one").request(1, &[user("one")]).finish(1);
            if !before {
                t.op(ClientOp::Fork).forked("f.jsonl");
            }
            t.input("and two", InputMode::Steer);
            t.request(2, &[user("one"), user("and two")]);
            if before {
                t.op(ClientOp::Fork).forked("f.jsonl");
            }
            t.kill().resume().start("t2", "three");
            t.request(3, &[user("one"), marker(), user("three")]);
            t
        };
        keeps("REQ-5", &forked(false), 2);
        breaks("REQ-5/input-lost", &forked(true));
    }

    #[test]
    fn a_loss_that_is_reported_passes() {
        let mut t = steered();
        t.background("your input was discarded");
        let mut other = steered();
        other.background("the connection was dropped");
        breaks(
            "REQ-5/input-lost",
            other.request(2, &[user("one"), user("three")]),
        );
        keeps("REQ-5", t.request(2, &[user("one"), user("three")]), 1);
    }

    #[test]
    fn refused_input_is_not_owed() {
        let mut t = Tracer::new();
        t.start("t1", "one").input("two", InputMode::Steer).refuse();
        t.completed("t1").start("t2", "three");
        keeps("REQ-5", t.request(1, &[user("one"), user("three")]), 2);
    }

    #[test]
    fn a_crash_takes_along_what_was_on_its_way() {
        let mut t = Tracer::new();
        t.start("t1", "one").kill().resume().start("t2", "two");
        keeps("REQ-5", t.request(1, &[user("two")]), 1);
        let mut t = Tracer::new();
        t.start("t1", "one")
            .request(1, &[user("one")])
            .kill()
            .resume()
            .start("t2", "two");
        breaks("REQ-5/input-lost", t.request(2, &[user("two")]));
        is_idle("REQ-5", &Tracer::new());
    }
}
