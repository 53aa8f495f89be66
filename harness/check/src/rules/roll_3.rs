//! ROLL-3: a rollout that was cut at any byte resumes.

use std::borrow::Cow;

use cutpoint_protocol::marker;

use crate::fast_hash::HashSet;
use crate::invariant::{Findings, Invariant};
use crate::view::{At, Exchange, RecordedItem, Resumption, Role, View};
use cutpoint_trace::Feature;
use cutpoint_trace::verdict::{Clause, Fault, Level};

pub(super) struct CutRolloutsResume;

const UNPAIRED: Clause = Clause {
    kind: "unpaired",
    text: "request {request} of the resumed session has a call without its output, or an output \
           without its call",
};
const CALL_LOST: Clause = Clause {
    kind: "call-lost",
    text: "request {request} of the resumed session lacks call {call}, which is in a whole line \
           of the rollout",
};
const OUTPUT_LOST: Clause = Clause {
    kind: "output-lost",
    text: "request {request} of the resumed session lacks the output of call {call}, which is in \
           a whole line of the rollout",
};
const INPUT_LOST: Clause = Clause {
    kind: "input-lost",
    text: "request {request} of the resumed session lacks the input {text:?}, which is in a whole \
           line of the rollout",
};
const MESSAGE_LOST: Clause = Clause {
    kind: "message-lost",
    text: "request {request} of the resumed session lacks the message {text:?}, which is in a \
           whole line of the rollout",
};
const MARKER_LOST: Clause = Clause {
    kind: "marker-lost",
    text: "request {request} of the resumed session has {found} of the {wanted} markers that are \
           in whole lines of the rollout",
};

impl Invariant for CutRolloutsResume {
    fn id(&self) -> &'static str {
        "ROLL-3"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "A session resumes from a rollout that was cut at any byte: the next request carries \
         what the whole lines of the rollout contain, each call with its output."
    }

    fn source(&self) -> &'static str {
        "openai/codex #24425, #45150, #38613: torn and empty rollouts that do not resume"
    }

    fn needs(&self) -> &'static [Feature] {
        &[Feature::Rollout]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "A last line without its line feed may be dropped, or kept if it is whole otherwise.",
            "What precedes a line that replaces the history, or takes turns out of it, is not \
             judged.",
            "An output whose call is not in the rollout, and notes of the agent in the user's \
             name, may be left out.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a session that was resumed from a known rollout sends its first request"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[
            UNPAIRED,
            CALL_LOST,
            OUTPUT_LOST,
            INPUT_LOST,
            MESSAGE_LOST,
            MARKER_LOST,
        ]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        for resumption in &view.resumptions {
            let Some(next) = view.request_after(resumption.at) else {
                continue;
            };
            let again = view
                .starts
                .iter()
                .any(|start| resumption.at < start.at && start.at < next.at);
            let over = next.over().unwrap_or(next.at + 2) + 1;
            if again || next.has_compaction() || view.gone_between(resumption.at, over) {
                continue;
            }
            findings.exercised += 1;
            if let Some(fault) = fault(resumption, next) {
                let fault = fault.with("request", next.number);
                let shown_by = resumption.torn.into_iter().chain([resumption.at, next.at]);
                findings.breach(view, fault, &shown_by.collect::<Vec<At>>());
            }
        }
        findings
    }
}

fn fault(resumption: &Resumption, next: &Exchange<'_>) -> Option<Fault> {
    if !next.faults.is_empty() {
        return Some(UNPAIRED.into());
    }
    let calls: HashSet<&str> = next.calls().collect();
    let outputs: HashSet<&str> = next.outputs().collect();
    let places = next.roles.iter().enumerate();
    let users = places.filter(|(_, role)| matches!(role, Role::User(_)));
    let said: HashSet<String> = users
        .filter_map(|(place, _)| Some(next.text(place)?.trim().to_owned()))
        .collect();
    let written: Vec<Cow<'_, str>> = next.assistant_texts().collect();
    let recorded = |id: &str| {
        let is_it = |held: &RecordedItem| matches!(held, RecordedItem::Call(call) if call == id);
        resumption.held.iter().any(is_it)
    };
    let mut markers = 0_usize;
    for held in &resumption.held {
        let has = match held {
            RecordedItem::Call(id) => id.is_empty() || calls.contains(id.as_str()),
            RecordedItem::Output(id) => outputs.contains(id.as_str()) || !recorded(id),
            RecordedItem::User(text) if is_marker(text) => {
                markers += 1;
                continue;
            }
            RecordedItem::User(text) => {
                text.trim_start().starts_with('<') || said.contains(text.trim())
            }
            RecordedItem::Assistant(text) => {
                written.iter().any(|known| known.contains(text.trim()))
            }
        };
        if !has {
            return Some(lost(held));
        }
    }
    let carried = next
        .roles
        .iter()
        .filter(|role| **role == Role::Marker)
        .count();
    (carried < markers).then(|| MARKER_LOST.with("found", carried).with("wanted", markers))
}

fn lost(item: &RecordedItem) -> Fault {
    match item {
        RecordedItem::Call(id) => CALL_LOST.with("call", id.as_str()),
        RecordedItem::Output(id) => OUTPUT_LOST.with("call", id.as_str()),
        RecordedItem::User(text) => INPUT_LOST.with("text", start(text)),
        RecordedItem::Assistant(text) => MESSAGE_LOST.with("text", start(text)),
    }
}

fn is_marker(text: &str) -> bool {
    text.trim_start().starts_with(marker::OPEN)
}

fn start(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::testing::{
        Tracer, assistant, breaks, call, is_idle, keeps, long_session, marker, output, user,
    };
    use cutpoint_trace::ReadTrigger;

    /// A turn with a message, a call and a marker; the agent is killed; that many bytes are torn
    /// off, and the resumed session's request carries these items in front of its input.
    fn resumed(torn: usize, items: &[Value]) -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "one").request(1, &[user("one")]);
        for item in [
            user("one"),
            assistant("Hello."),
            call("c"),
            output("c", "x"),
            marker(),
        ] {
            t.wrote(&item);
        }
        t.aborted("t1").kill().read(ReadTrigger::Exit).tear(torn);
        t.resume().start("t2", "two");
        t.request(2, &[items, &[user("two")]].concat());
        t
    }

    fn whole() -> [Value; 5] {
        [
            user("one"),
            assistant("Hello."),
            call("c"),
            output("c", "aborted"),
            marker(),
        ]
    }

    #[test]
    fn whole_lines_that_are_restored_pass() {
        keeps("ROLL-3", &resumed(5, &whole()), 1);
        keeps("ROLL-3", &long_session(), 1);
        // The terminal line and a part of the marker's are gone.
        keeps("ROLL-3", &resumed(100, &whole()[..4]), 1);
    }

    #[test]
    fn whole_lines_that_are_lost_are_breaches() {
        assert!(
            breaks("ROLL-3/marker-lost", &resumed(5, &whole()[..4]))
                .text()
                .contains("0 of the 1 markers")
        );
        let lost = breaks("ROLL-3/message-lost", &resumed(100, &whole()[..1]));
        assert!(lost.text().contains("\"Hello.\""), "{}", lost.text());
        breaks(
            "ROLL-3/call-lost",
            &resumed(100, &[user("one"), assistant("Hello.")]),
        );
        breaks("ROLL-3/input-lost", &resumed(100, &whole()[1..]));
    }

    #[test]
    fn an_output_that_is_lost_is_a_breach() {
        let mut t = Tracer::new();
        t.start("t1", "one").wrote(&user("one"));
        t.wrote(&output("c", "x")).wrote(&call("c"));
        t.kill().read(ReadTrigger::Exit).resume().start("t2", "two");
        let lost = breaks(
            "ROLL-3/output-lost",
            t.request(1, &[user("one"), user("two")]),
        );
        assert_eq!(lost.evidence.len(), 2);
    }

    #[test]
    fn an_open_call_is_a_breach() {
        breaks("ROLL-3/unpaired", &resumed(100, &whole()[..3]));
    }

    #[test]
    fn what_was_compacted_is_not_judged() {
        let mut t = Tracer::new();
        t.start("t1", "one")
            .wrote(&user("one"))
            .wrote(&assistant("Hello."));
        t.wrote_line("compacted", &serde_json::json!({}))
            .completed("t1");
        t.kill().read(ReadTrigger::Exit).resume().start("t2", "two");
        keeps("ROLL-3", t.request(1, &[user("summary"), user("two")]), 1);
        is_idle("ROLL-3", &Tracer::new());
    }
}
