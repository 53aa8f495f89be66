//! VIEW-3: text that was shown is in the history.

use crate::invariant::{Findings, Invariant};
use crate::view::{At, Turn, View};
use cutpoint_trace::verdict::{Clause, Level};
use cutpoint_trace::{AgentEvent, Feature};

pub(super) struct ShownTextIsKept;

const TEXT_LOST: Clause = Clause {
    kind: "text-lost",
    text: "request {request} lacks the text {text:?}, which the user was shown in turn {turn}",
};

impl Invariant for ShownTextIsKept {
    fn id(&self) -> &'static str {
        "VIEW-3"
    }

    fn level(&self) -> Level {
        Level::Should
    }

    fn sentence(&self) -> &'static str {
        "Text of the model that the user was shown before a turn was cut is in the next request, \
         so that user and model share one conversation."
    }

    fn source(&self) -> &'static str {
        "openai/codex #2759; observed in released agents: what was on the screen is unknown to the \
         model"
    }

    fn needs(&self) -> &'static [Feature] {
        &[]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "Text that is shown after the interrupt need not be kept.",
            "Text may be gone once the history was compacted, its turn was rolled back, or the \
             agent was killed.",
            "Text shown in the forked session, in a turn that began after the fork was \
             requested, stays there.",
            "A summary that the model writes for a compaction is not part of the conversation.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a request follows the abort of a turn that had shown text, or a fork in the middle of \
         such a turn"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[TEXT_LOST]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        for (index, cut, ended) in cuts(view) {
            let turn = &view.turns[index];
            if view.is_compaction(index) {
                continue;
            }
            let shown = shown(view, turn, cut);
            let Some(next) = view.request_after(ended).filter(|_| !shown.is_empty()) else {
                continue;
            };
            let over = next.over().unwrap_or(next.at + 2) + 1;
            let gone = next.has_compaction()
                || view.gone_between(turn.begun, over)
                || view.forked_away(turn.begun, next.at);
            if gone || next.lineage != turn.lineage {
                continue;
            }
            findings.exercised += 1;
            let kept: String = next.assistant_texts().map(|text| squeeze(&text)).collect();
            let lost = shown
                .iter()
                .find(|(_, text)| !kept.contains(&squeeze(text)));
            if let Some((at, text)) = lost {
                let start: String = text.chars().take(40).collect();
                let fault = TEXT_LOST.with("request", next.number).with("text", start);
                let fault = fault.with("turn", turn.id);
                findings.breach(view, fault, &[*at, cut, next.at]);
            }
        }
        findings
    }
}

/// Each turn that was aborted, or is closed by a fork, with where that was asked for and done.
fn cuts(view: &View<'_>) -> Vec<(usize, At, At)> {
    let turns = view.turns.iter().enumerate();
    let aborted =
        turns.filter_map(|(index, turn)| Some((index, view.cut_at(index)?, turn.ending()?.at)));
    let forked = view.forks.iter().filter_map(|fork| {
        let turn = fork.turn?;
        let ended = view.turns[turn].ending_before(fork.at).is_some();
        (!ended).then_some((turn, fork.asked, fork.at))
    });
    aborted.chain(forked).collect()
}

/// The pieces of text that a turn had shown when it was cut, each with its event.
///
/// Pieces are looked for one by one: a stream that is tried again shows the same text once more,
/// and events do not show where it starts again.
fn shown<'a>(view: &View<'a>, turn: &Turn<'_>, cut: At) -> Vec<(At, &'a str)> {
    let begun = turn.started.unwrap_or(turn.begun).min(cut);
    let piece = |at: At| match view.event(at)? {
        AgentEvent::TextDelta { turn_id, text } | AgentEvent::Message { turn_id, text } => {
            let own = turn_id.as_deref().is_none_or(|id| id == turn.id);
            (own && !text.trim().is_empty()).then_some((at, text.as_str()))
        }
        _ => None,
    };
    (begun..cut).filter_map(piece).collect()
}

/// Drops white space, which agents trim.
fn squeeze(text: &str) -> String {
    text.chars()
        .filter(|letter| !letter.is_whitespace())
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::testing::{Tracer, assistant, breaks, interrupted_tool, is_idle, keeps, user};
    use cutpoint_trace::ClientOp;

    /// A turn that is cut when it has shown half a sentence, and the next request.
    fn cut(kept: &[Value]) -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "hi").request(1, &[user("hi")]).created(1);
        t.delta("t1", "The quick").delta("t1", " brown").interrupt();
        t.delta("t1", " fox").aborted("t1").start("t2", "next");
        let history = [&[user("hi")], kept, &[user("next")]].concat();
        t.request(2, &history);
        t
    }

    #[test]
    fn text_that_stays_passes() {
        keeps("VIEW-3", &cut(&[assistant("The quick brown")]), 1);
        keeps(
            "VIEW-3",
            &cut(&[assistant("The quick"), assistant("brown fox")]),
            1,
        );
        is_idle("VIEW-3", &interrupted_tool());
    }

    #[test]
    fn text_that_is_lost_is_a_breach() {
        let breach = breaks("VIEW-3/text-lost", &cut(&[]));
        assert!(breach.text().contains("\"The quick\""));
    }

    #[test]
    fn the_last_words_count_as_well() {
        breaks("VIEW-3/text-lost", &cut(&[assistant("The quick")]));
    }

    #[test]
    fn a_finished_message_that_is_lost_is_a_breach() {
        let mut t = Tracer::new();
        t.start("t1", "hi")
            .message("t1", "Hello.")
            .interrupted("t1");
        breaks(
            "VIEW-3/text-lost",
            t.start("t2", "next")
                .request(1, &[user("hi"), user("next")]),
        );
    }

    #[test]
    fn a_fork_in_mid_turn_keeps_what_was_shown() {
        let forked = |kept: &str| {
            let mut t = Tracer::new();
            t.start("t1", "hi")
                .delta("t1", "The quick")
                .op(ClientOp::Fork);
            t.forked("f.jsonl").kill().resume().start("t2", "next");
            t.request(1, &[user("hi"), assistant(kept), user("next")]);
            t
        };
        keeps("VIEW-3", &forked("The quick"), 1);
        breaks("VIEW-3/text-lost", &forked("The"));
    }

    #[test]
    fn a_turn_that_completes_is_another_matter() {
        let mut t = Tracer::new();
        t.start("t1", "hi").delta("t1", "Hello.").completed("t1");
        is_idle(
            "VIEW-3",
            t.start("t2", "next")
                .request(1, &[user("hi"), user("next")]),
        );
    }
}
