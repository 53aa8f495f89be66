//! CALL-9: what the model finished before the cut stays.

use cutpoint_protocol::field::{field, text};

use crate::invariant::{Findings, Invariant};
use crate::view::{At, Exchange, View};
use cutpoint_trace::verdict::{Clause, Fault, Level};
use cutpoint_trace::{AgentEvent, Feature, Observation};

pub(super) struct FinishedItemsStay;

const CALL_LOST: Clause = Clause {
    kind: "call-lost",
    text: "request {request} lacks call {call}, which the model had finished before the cut",
};
const MESSAGE_LOST: Clause = Clause {
    kind: "message-lost",
    text: "request {request} lacks the message {text:?}, which the model had finished before the \
           cut",
};

/// How long before an unheld interrupt an item must have been sent so that the agent had read it.
const READ_NS: u64 = 100_000_000;

impl Invariant for FinishedItemsStay {
    fn id(&self) -> &'static str {
        "CALL-9"
    }

    fn level(&self) -> Level {
        Level::Should
    }

    fn sentence(&self) -> &'static str {
        "A call or message that the model had finished before its turn was cut is in the next request, \
         whether the call was started or not."
    }

    fn source(&self) -> &'static str {
        "openai/codex #2759 (an interrupted message vanishes from the history), #28641"
    }

    fn needs(&self) -> &'static [Feature] {
        &[]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "An item that was sent less than 100 ms before the cut may be unread, unless the \
             stream was held there or the client was shown the item.",
            "Time in which the client does not read does not count: an agent with a full queue \
             need not read on.",
            "An item may be gone once the history was compacted, its turn was rolled back, or \
             the rollout was torn.",
            "A summary that the model writes for a compaction is not part of the conversation.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a request follows the abort of a turn in which the model had finished an item"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[CALL_LOST, MESSAGE_LOST]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        for exchange in &view.exchanges {
            let Some((cut, aborted)) = exchange.turn.and_then(|turn| {
                let ending = view.turns[turn].ending()?;
                if view.is_compaction(turn) {
                    return None;
                }
                Some((view.cut_at(turn)?, ending.at))
            }) else {
                continue;
            };
            let Some(next) = next(view, exchange, aborted) else {
                continue;
            };
            for sent in exchange.sent.iter().filter(|sent| **sent < cut) {
                let Some(item) =
                    finished(view, *sent).filter(|item| was_read(view, *sent, item, cut))
                else {
                    continue;
                };
                findings.exercised += 1;
                if !item.is_in(next) {
                    let fault = item.lost().with("request", next.number);
                    findings.breach(view, fault, &[*sent, aborted, next.at]);
                }
            }
        }
        findings
    }
}

/// The conversation's first request after an abort, if its history continues the old one.
fn next<'v, 'a>(
    view: &'v View<'a>,
    exchange: &Exchange<'_>,
    aborted: At,
) -> Option<&'v Exchange<'a>> {
    let first = view.exchanges.partition_point(|other| other.at < aborted);
    let next = view.exchanges[first..]
        .iter()
        .find(|other| other.generates && other.conversation == exchange.conversation)?;
    let over = next.over().unwrap_or(next.at + 2) + 1;
    let same = next.lineage == exchange.lineage && !next.has_compaction();
    (same && !view.gone_between(aborted, over)).then_some(next)
}

/// What the model finished.
enum Finished<'a> {
    Call(&'a str),
    Message(String),
}

impl Finished<'_> {
    fn is_in(&self, exchange: &Exchange<'_>) -> bool {
        match self {
            Self::Call(id) => exchange.calls().any(|call| call == *id),
            Self::Message(text) => exchange.assistant_texts().any(|known| known.contains(text)),
        }
    }

    fn lost(&self) -> Fault {
        match self {
            Self::Call(id) => CALL_LOST.with("call", *id),
            Self::Message(text) => {
                let start: String = text.chars().take(40).collect();
                MESSAGE_LOST.with("text", start)
            }
        }
    }
}

fn finished<'a>(view: &View<'a>, at: At) -> Option<Finished<'a>> {
    let Observation::Sent { data, .. } = &view.trace.entries.get(at)?.observation else {
        return None;
    };
    if text(data, "type")? != "response.output_item.done" {
        return None;
    }
    let item = field(data, "item")?;
    match text(item, "type")? {
        "function_call" | "custom_tool_call" | "local_shell_call" => text(item, "call_id")
            .filter(|id| !id.is_empty())
            .map(Finished::Call),
        "message" if text(item, "role") == Some("assistant") => {
            let parts = field(item, "content")?.as_array()?.iter();
            let text: String = parts.filter_map(|part| text(part, "text")).collect();
            (!text.trim().is_empty()).then_some(Finished::Message(text))
        }
        _ => None,
    }
}

/// Whether the agent had read an item when its turn was cut.
fn was_read(view: &View<'_>, sent: At, item: &Finished<'_>, cut: At) -> bool {
    let interrupt = view
        .interrupts
        .binary_search_by_key(&cut, |interrupt| interrupt.at);
    let held = interrupt.is_ok_and(|found| view.interrupts[found].held);
    // An agent whose events the client does not take does not read on either.
    let unread_ns = view.unread_ns(view.at_ns(sent), view.at_ns(cut));
    held || view.between_ns(sent, cut).saturating_sub(unread_ns) >= READ_NS
        || match item {
            Finished::Call(id) => {
                let call = view.call(id);
                let seen = call.and_then(|call| call.begun.or(call.asked));
                seen.is_some_and(|seen| seen < cut)
            }
            Finished::Message(text) => (sent..cut).any(|at| {
                matches!(view.event(at), Some(AgentEvent::Message { text: shown, .. }) if shown == text)
            }),
        }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::testing::{
        Tracer, assistant, breaks, call, interrupted_tool, is_idle, keeps, output, user,
    };

    /// A turn that is cut a while after an item, and the next request with these items in between.
    fn cut_after(item: Value, wait_ms: u64, kept: &[Value]) -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "run").request(1, &[user("run")]);
        t.emit(1, item)
            .wait_ms(wait_ms)
            .interrupted("t1")
            .start("t2", "next");
        let history = [&[user("run")], kept, &[user("next")]].concat();
        t.request(2, &history);
        t
    }

    #[test]
    fn what_stays_passes() {
        keeps("CALL-9", &interrupted_tool(), 1);
        keeps(
            "CALL-9",
            &cut_after(assistant("Hello."), 200, &[assistant("Hello.")]),
            1,
        );
        let pair = [call("c1"), output("c1", "aborted")];
        keeps("CALL-9", &cut_after(call("c1"), 200, &pair), 1);
    }

    #[test]
    fn a_message_that_vanishes_is_a_breach() {
        let breach = breaks(
            "CALL-9/message-lost",
            &cut_after(assistant("Hello."), 200, &[]),
        );
        assert!(breach.text().contains("the message \"Hello.\""));
    }

    #[test]
    fn a_call_that_vanishes_is_a_breach() {
        let breach = breaks("CALL-9/call-lost", &cut_after(call("c1"), 200, &[]));
        assert!(breach.text().contains("lacks call c1"));
    }

    #[test]
    fn an_agent_whose_events_are_not_taken_reads_nothing() {
        let mut t = Tracer::new();
        t.start("t1", "run").request(1, &[user("run")]);
        t.reading(false).emit(1, call("c1")).wait_ms(200);
        t.interrupt().reading(true).aborted("t1");
        t.start("t2", "next");
        is_idle("CALL-9", t.request(2, &[user("run"), user("next")]));
    }

    #[test]
    fn what_was_sent_just_now_may_be_unread() {
        is_idle("CALL-9", &cut_after(call("c1"), 0, &[]));
        let mut t = Tracer::new();
        t.start("t1", "run")
            .request(1, &[user("run")])
            .emit(1, call("c1"));
        t.reached("done of c1")
            .interrupted("t1")
            .start("t2", "next");
        breaks(
            "CALL-9/call-lost",
            t.request(2, &[user("run"), user("next")]),
        );
        let mut t = Tracer::new();
        t.start("t1", "run")
            .request(1, &[user("run")])
            .emit(1, assistant("Hi."));
        t.message("t1", "Hi.").interrupted("t1").start("t2", "next");
        breaks(
            "CALL-9/message-lost",
            t.request(2, &[user("run"), user("next")]),
        );
    }
}
