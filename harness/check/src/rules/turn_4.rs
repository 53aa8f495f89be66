//! TURN-4: nothing of a turn after its end.

use std::collections::BTreeMap;

use crate::invariant::{Findings, Invariant};
use crate::view::{At, View};
use cutpoint_trace::verdict::{Clause, Fault, Level};
use cutpoint_trace::{AgentEvent, Feature};

pub(super) struct NothingAfterTheEnd;

const EVENT_AFTER_END: Clause = Clause {
    kind: "event-after-end",
    text: "{event} of turn {turn} after its terminal event",
};
const EVENTS_AFTER_END: Clause = Clause {
    kind: "events-after-end",
    text: "{event} of turn {turn} after its terminal event (and {more} more)",
};

impl Invariant for NothingAfterTheEnd {
    fn id(&self) -> &'static str {
        "TURN-4"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "After a turn's terminal event no event names that turn."
    }

    fn source(&self) -> &'static str {
        "openai/codex #2365 and Codex's task lifecycle: the terminal event is a turn's last"
    }

    fn needs(&self) -> &'static [Feature] {
        &[Feature::TurnIds]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "While an agent resumes a session, and until its next turn starts, it may report \
             restored state (such as the tokens used) under the id of the turn that the state \
             belongs to: the dead turn does not continue.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a turn ends"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[EVENT_AFTER_END, EVENTS_AFTER_END]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        let ended = view.turns.iter().filter(|turn| !turn.endings.is_empty());
        findings.exercised = ended.count();
        let mut late: BTreeMap<usize, Vec<At>> = BTreeMap::new();
        for event in view.late.iter().filter(|event| !restores(view, event.at)) {
            late.entry(event.turn).or_default().push(event.at);
        }
        for (turn, events) in late {
            let turn = &view.turns[turn];
            let first = events.first().and_then(|at| view.event(*at));
            let name = first.map_or("event", name);
            let fault = match events.len() - 1 {
                0 => EVENT_AFTER_END.into(),
                more => EVENTS_AFTER_END.with("more", more),
            };
            let fault: Fault = fault.with("event", name).with("turn", turn.id);
            let ending = turn.ending().map(|ending| ending.at);
            let shown_by: Vec<At> = ending.into_iter().chain(events).collect();
            findings.breach(view, fault, &shown_by);
        }
        findings
    }
}

/// Whether the event reports state that a resumed session has restored.
fn restores(view: &View<'_>, at: At) -> bool {
    let start = view.starts.iter().rfind(|start| start.at < at);
    let Some(start) = start.filter(|start| start.resumed) else {
        return false;
    };
    let state = matches!(view.event(at), Some(AgentEvent::Other { .. }));
    state
        && !view
            .turns
            .iter()
            .any(|turn| start.at < turn.begun && turn.begun < at)
}

fn name(event: &AgentEvent) -> &str {
    match event {
        AgentEvent::TurnStarted { .. } => "turn start",
        AgentEvent::TurnEnded { .. } => "turn end",
        AgentEvent::TextDelta { .. } => "text delta",
        AgentEvent::ReasoningDelta { .. } => "reasoning delta",
        AgentEvent::Message { .. } => "message",
        AgentEvent::CallBegin { .. } => "call begin",
        AgentEvent::CallOutput { .. } => "call output",
        AgentEvent::CallEnd { .. } => "call end",
        AgentEvent::ApprovalRequest { .. } => "approval request",
        AgentEvent::Question { .. } => "question",
        AgentEvent::UserMessage { .. } => "user message",
        AgentEvent::SubAgentStarted { .. } => "sub-agent start",
        AgentEvent::SubAgentEnded { .. } => "sub-agent end",
        AgentEvent::SubAgentEvent { .. } => "sub-agent event",
        AgentEvent::Compacted { .. } => "compaction",
        AgentEvent::Forked { .. } => "fork",
        AgentEvent::RolledBack { .. } => "rollback",
        AgentEvent::Background { .. } => "background event",
        AgentEvent::Error { .. } => "error",
        AgentEvent::ShutdownComplete => "shutdown",
        AgentEvent::Other { name, .. } => name,
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Tracer, breaks, interrupted_tool, keeps, long_session, verdict_of};
    use cutpoint_trace::verdict::Verdict;
    use cutpoint_trace::{AgentEvent, Feature};

    fn token_count(turn: Option<&str>) -> AgentEvent {
        AgentEvent::Other {
            turn_id: turn.map(Into::into),
            name: "token_count".into(),
        }
    }

    #[test]
    fn silence_after_the_end_passes() {
        keeps("TURN-4", &interrupted_tool(), 2);
        keeps("TURN-4", &long_session(), 4);
        let mut t = Tracer::new();
        t.start("t1", "hi").completed("t1").event(token_count(None));
        keeps("TURN-4", &t, 1);
    }

    #[test]
    fn a_late_event_is_a_breach() {
        let mut t = Tracer::new();
        t.start("t1", "hi").completed("t1");
        t.event(token_count(Some("t1"))).end("t1", "c1", None);
        let breach = breaks("TURN-4/events-after-end", &t);
        assert_eq!(
            breach.text(),
            "token_count of turn t1 after its terminal event (and 1 more)"
        );
        assert_eq!(breach.evidence, [4, 5, 6]);
    }

    #[test]
    fn restored_state_is_no_sign_of_life() {
        let mut t = Tracer::new();
        t.start("t1", "hi").completed("t1").kill().resume();
        t.event(token_count(Some("t1")));
        keeps("TURN-4", &t, 1);
        t.start("t2", "and now?").event(token_count(Some("t1")));
        breaks("TURN-4/event-after-end", &t);
        let mut t = Tracer::new();
        t.start("t1", "hi").completed("t1").kill().resume();
        t.end("t1", "c1", None);
        breaks("TURN-4/event-after-end", &t);
    }

    #[test]
    fn a_second_start_is_a_breach() {
        let mut t = Tracer::new();
        t.start("t1", "hi").completed("t1").started("t1");
        breaks("TURN-4/event-after-end", &t);
    }

    #[test]
    fn without_ids_nothing_can_be_said() {
        let t = Tracer::new().without(Feature::TurnIds);
        assert!(matches!(
            verdict_of("TURN-4", &t),
            Verdict::NotApplicable { .. }
        ));
    }
}
