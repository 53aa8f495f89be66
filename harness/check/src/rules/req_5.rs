//! REQ-5: what the user said is not lost.

use crate::invariant::{Findings, Invariant};
use crate::trace::{AgentEvent, Feature};
use crate::verdict::Level;
use crate::view::{At, Exchange, Input, View};

pub(super) struct InputIsKept;

/// Words of a message that tells of a loss, and of what was lost.
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
        "Every text of the user that the agent accepted is in the requests of the turn it began, and \
         of every later turn of the session, unless the client was told of its loss."
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
            "Input that joins a running turn may miss the request that is on its way: it is due with \
             the next turn.",
            "A request that the client gave up without reading its response was built before, and \
             need not carry what was said last.",
            "A crash may take along input that no request had carried yet.",
            "Input may be gone once the history was compacted, or in a session that continues no \
             other.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a request is due to carry an accepted input, counted once for each input"
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        for (index, input) in view.inputs.iter().enumerate() {
            if input.refused() || input.text.is_empty() {
                continue;
            }
            let first = view
                .exchanges
                .partition_point(|exchange| exchange.at < input.at);
            let mut due = view.exchanges[first..]
                .iter()
                .filter(|exchange| is_due(view, exchange, index));
            let Some(first) = due.next() else { continue };
            if excused(view, input, index, first.at) {
                continue;
            }
            findings.exercised += 1;
            let lacks = |exchange: &&Exchange<'_>| {
                !carries(exchange, index, input.text) && !excused(view, input, index, exchange.at)
            };
            if let Some(exchange) = std::iter::once(first).chain(due).find(lacks) {
                let number = exchange.number;
                let start: String = input.text.chars().take(40).collect();
                let message = format!(
                    "request {number} lacks the user's input {start:?}, which was accepted"
                );
                findings.breach(view, message, &[input.at, exchange.at]);
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
    let own = exchange.inputs().any(|input| input == index);
    // An agent may send several inputs as one message.
    let within = || {
        let user =
            |value: &&serde_json::Value| value.get("role").is_some_and(|role| role == "user");
        let mut items = exchange
            .history
            .iter()
            .enumerate()
            .filter(|(_, value)| user(value));
        items.any(|(place, _)| {
            let message = exchange.item(place).map(|item| item.all_text());
            message.is_some_and(|message| message.trim() != text && message.contains(text))
        })
    };
    own || within()
}

/// Whether an input may be missing from a request.
fn excused(view: &View<'_>, input: &Input<'_>, index: usize, until: At) -> bool {
    let fresh = view
        .starts
        .iter()
        .any(|start| !start.resumed && input.at < start.at && start.at < until);
    let exchange = view.exchanges.iter().find(|exchange| exchange.at == until);
    let compacted = exchange.is_some_and(|exchange| {
        let over = exchange.over().unwrap_or(until + 2) + 1;
        exchange.has_compaction() || view.compacted_between(input.at, over)
    });
    fresh || compacted || lost_in_crash(view, input, index, until) || was_told(view, input, until)
}

/// Whether the agent ended behind an input, before a request had carried it.
fn lost_in_crash(view: &View<'_>, input: &Input<'_>, index: usize, until: At) -> bool {
    let stop = view.stops.partition_point(|stop| *stop < input.at);
    let Some(stop) = view.stops.get(stop).filter(|stop| **stop < until) else {
        return false;
    };
    let mut before = view.exchanges.iter().filter(|exchange| exchange.at < *stop);
    !before.any(|exchange| exchange.inputs().any(|known| known == index))
}

/// Whether the client was told that an input was lost.
fn was_told(view: &View<'_>, input: &Input<'_>, until: At) -> bool {
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
    use crate::trace::InputMode;

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
        let breach = breaks("REQ-5", steered().request(2, &[user("one"), user("three")]));
        assert!(breach.message.contains("\"and two\""));
    }

    #[test]
    fn a_prompt_that_is_lost_is_a_breach() {
        let mut t = Tracer::new();
        t.start("t1", "one").interrupted("t1").start("t2", "two");
        breaks("REQ-5", t.request(1, &[marker(), user("two")]));
    }

    #[test]
    fn a_loss_that_is_told_passes() {
        let mut t = steered();
        t.background("your input was discarded");
        let mut other = steered();
        other.background("the connection was dropped");
        breaks("REQ-5", other.request(2, &[user("one"), user("three")]));
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
        breaks("REQ-5", t.request(2, &[user("two")]));
        is_idle("REQ-5", &Tracer::new());
    }
}
