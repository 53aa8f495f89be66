//! SUB-1: sub-agents end with the turn that started them.

use crate::invariant::{Findings, Invariant};
use crate::view::{At, Ending, SubAgent, Turn, View};
use cutpoint_trace::verdict::{Clause, Fault, Level};
use cutpoint_trace::{AbortReason, ClientOp, Feature, InputMode, Observation, TurnEnd};

pub(super) struct SubAgentsEndWithTheTurn;

const LATE_END: Clause = Clause {
    kind: "late-end",
    text: "sub-agent {agent} ended {took_ms} ms after the cut of its turn; {allowed_ms} ms are \
           allowed",
};
const NEVER_ENDED: Clause = Clause {
    kind: "never-ended",
    text: "sub-agent {agent} had not ended {took_ms} ms after the cut of its turn",
};
const OUTLIVES_TURN: Clause = Clause {
    kind: "outlives-turn",
    text: "sub-agent {agent} had not ended when its turn did",
};
const STREAM_OPEN: Clause = Clause {
    kind: "stream-open",
    text: "sub-agent {agent} had ended, but response {response} to it stayed open",
};
const EVENT_AFTER_END: Clause = Clause {
    kind: "event-after-end",
    text: "sub-agent {agent} had ended, but an event of it followed",
};
const REQUEST_AFTER_END: Clause = Clause {
    kind: "request-after-end",
    text: "sub-agent {agent} had ended, but request {request} of it followed",
};
const ABORTS_TURN: Clause = Clause {
    kind: "aborts-turn",
    text: "sub-agent {agent} ended, and its turn was aborted with it, although the client had not \
           asked for that",
};

/// How long an agent may wait for a sub-agent to end by itself, with the grace period of the turn.
const DRAIN_NS: u64 = 600_000_000;
/// How long the stream of a sub-agent may stay open after its end.
const CLOSE_NS: u64 = 500_000_000;

impl Invariant for SubAgentsEndWithTheTurn {
    fn id(&self) -> &'static str {
        "SUB-1"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "A sub-agent ends before the turn that started it does: if its turn is cut, it has 500 \
         ms to shut down, and no event or request of it follows its end. Its own end does not \
         affect the turn."
    }

    fn source(&self) -> &'static str {
        "Codex's delegate (interrupt, shut down, drain for 500 ms); openai/codex #15732, #13850 (a \
         sub-agent survives its parent's interrupt), #34653 (closing an agent hangs)"
    }

    fn needs(&self) -> &'static [Feature] {
        &[Feature::SubAgents]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "A request of the sub-agent may arrive after the interrupt, as long as the sub-agent \
             has not ended.",
            "A sub-agent whose agent is killed or exits ends without a report.",
            "An interrupt, or input that replaces the turn, that was sent between the turn's \
             input and its start may take effect in the turn.",
            "A turn may be replaced by one that was never announced, because the agent was \
             killed first.",
            "Time in which the client does not read does not count: the end cannot be reported \
             then.",
            "A turn that got no reply, because the scenario has none for its request, may be \
             aborted with the run.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a turn that has started a sub-agent ends"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[
            LATE_END,
            NEVER_ENDED,
            OUTLIVES_TURN,
            STREAM_OPEN,
            EVENT_AFTER_END,
            REQUEST_AFTER_END,
            ABORTS_TURN,
        ]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        for agent in &view.agents {
            let Some(turn) = agent.turn else { continue };
            let ending = view.turns[turn].ending();
            let late = cut_at(view, turn).and_then(|cut| late(view, agent, cut));
            let reported = ending.is_some() && !stopped(&view.turns[turn], ending);
            if !reported && late.is_none() {
                continue;
            }
            findings.exercised += 1;
            let fault = late
                .or_else(|| outlives(view, agent, ending))
                .or_else(|| lives_on(view, agent))
                .or_else(|| takes_along(view, agent, turn, ending));
            if let Some((fault, at)) = fault {
                let mut shown_by = vec![agent.started, at];
                shown_by.extend(ending.map(|ending| ending.at));
                shown_by.extend(agent.ended.map(|(at, _)| at));
                shown_by.sort_unstable();
                shown_by.dedup();
                let fault = fault.with("agent", agent.id);
                findings.breach(view, fault, &shown_by);
            }
        }
        findings
    }
}

/// Whether the end of the agent cut the turn, and its sub-agents with it.
fn stopped(turn: &Turn<'_>, ending: Option<Ending<'_>>) -> bool {
    let stop = turn.killed.or(turn.exited);
    stop.is_some_and(|stop| ending.is_none_or(|ending| stop < ending.at))
}

/// Where the turn was cut, or should have been.
fn cut_at(view: &View<'_>, turn: usize) -> Option<At> {
    let known = &view.turns[turn];
    let first = known.interrupts.first();
    match known.ending() {
        Some(_) => view.cut_at(turn),
        None => first.map(|first| view.interrupts[*first].at),
    }
}

/// A sub-agent that took too long to end when its turn was cut.
fn late(view: &View<'_>, agent: &SubAgent<'_>, cut: At) -> Option<(Fault, At)> {
    let ended = agent.ended.map(|(at, _)| at);
    if agent.started > cut || ended.is_some_and(|ended| ended < cut) {
        return None;
    }
    let bound_ns = view.trace.header.abort_bound_ms.saturating_mul(1_000_000);
    let bound_ns = bound_ns.saturating_add(DRAIN_NS);
    let from_ns = view.at_ns(cut);
    // Nothing is reported after the agent's own end.
    let stop = view.stops.iter().copied().find(|stop| *stop > cut);
    let until = [ended, stop].into_iter().flatten().min();
    let until_ns = until.map_or(view.end_ns(), |until| view.at_ns(until));
    let took_ns = until_ns.saturating_sub(from_ns);
    let took_ns = took_ns.saturating_sub(view.unread_ns(from_ns, until_ns));
    (took_ns > bound_ns).then(|| {
        let fault = match ended {
            Some(_) => LATE_END.with("allowed_ms", bound_ns / 1_000_000),
            None => NEVER_ENDED.into(),
        };
        (fault.with("took_ms", took_ns / 1_000_000), cut)
    })
}

fn outlives(
    view: &View<'_>,
    agent: &SubAgent<'_>,
    ending: Option<Ending<'_>>,
) -> Option<(Fault, At)> {
    let over = ending.filter(|ending| ending.at > agent.started)?.at;
    if let Some((ended, _)) = agent.ended.filter(|(ended, _)| *ended < over) {
        return still_open(view, agent, ended);
    }
    Some((OUTLIVES_TURN.into(), over))
}

/// A response to the sub-agent that is still under way after its end.
fn still_open(view: &View<'_>, agent: &SubAgent<'_>, ended: At) -> Option<(Fault, At)> {
    let mut exchanges = agent.exchanges.iter().map(|index| &view.exchanges[*index]);
    let open = exchanges.find(|exchange| {
        let closed = exchange.over().or(exchange.disconnected);
        let until_ns = closed.map_or(view.end_ns(), |at| view.at_ns(at));
        exchange.at < ended && until_ns.saturating_sub(view.at_ns(ended)) > CLOSE_NS
    })?;
    Some((STREAM_OPEN.with("response", open.number), open.at))
}

/// What a sub-agent does after its end.
fn lives_on(view: &View<'_>, agent: &SubAgent<'_>) -> Option<(Fault, At)> {
    let (ended, _) = agent.ended?;
    if let Some((at, _)) = agent.events.iter().find(|(at, _)| *at > ended) {
        return Some((EVENT_AFTER_END.into(), *at));
    }
    let mut exchanges = agent.exchanges.iter().map(|index| &view.exchanges[*index]);
    let later = exchanges.find(|exchange| exchange.generates && exchange.at > ended)?;
    Some((REQUEST_AFTER_END.with("request", later.number), later.at))
}

/// A turn that is aborted after the end of its sub-agent although the client has not asked for it.
fn takes_along(
    view: &View<'_>,
    agent: &SubAgent<'_>,
    turn: usize,
    ending: Option<Ending<'_>>,
) -> Option<(Fault, At)> {
    let ending = ending.filter(|ending| ending.aborted())?;
    let (ended, _) = agent.ended?;
    let replaced = matches!(
        ending.end,
        TurnEnd::Aborted {
            reason: Some(AbortReason::Replaced)
        }
    );
    let before = &view.trace.entries[..ending.at];
    if (before.iter()).any(|entry| matches!(entry.observation, Observation::Unscripted { .. })) {
        return None;
    }
    let mut ops = before
        .iter()
        .enumerate()
        .filter_map(|(at, entry)| match &entry.observation {
            Observation::Op { op, .. } => Some((at, op)),
            _ => None,
        });
    let known = &view.turns[turn];
    let sent = known.input.map(|input| view.inputs[input].at);
    // Ops are taken in order: one that was sent after the turn's input may meet the turn, even
    // before the turn was announced.
    let met_unannounced = |at: At| at < known.begun && sent.is_some_and(|sent| sent < at);
    let asked = ops.any(|(at, op)| match op {
        ClientOp::Shutdown => true,
        ClientOp::Interrupt { .. } => !replaced && met_unannounced(at),
        // The turn that it is for may have been cut by a kill before it was announced.
        ClientOp::Input {
            mode: InputMode::Replace,
            ..
        }
        | ClientOp::Task { .. } => replaced && (at > known.begun || met_unannounced(at)),
        _ => false,
    });
    let unasked = view.cut_at(turn) == Some(ending.at) && !asked;
    unasked.then(|| (ABORTS_TURN.into(), ended))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Tracer, breaks, call, is_idle, keeps, user};
    use cutpoint_trace::{AgentEvent, Decision, Feature, InputMode, Observation};

    fn started() -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "go").request(1, &[user("go")]).finish(1);
        t.sub_agent("t1", "a1", "look", false);
        t.request_of(1, 2, &[user("look")]);
        t
    }

    fn closed() -> Tracer {
        let mut t = started();
        t.interrupt()
            .disconnected(2)
            .sub_ended("t1", "a1", "closed");
        t
    }

    #[test]
    fn a_sub_agent_that_ends_with_its_turn_passes() {
        keeps("SUB-1", closed().aborted("t1"), 1);
        let mut t = started();
        t.finish(2).sub_ended("t1", "a1", "closed").completed("t1");
        keeps("SUB-1", &t, 1);
        is_idle("SUB-1", started().wait_ms(9000).kill());
    }

    #[test]
    fn one_that_outlives_its_turn_is_a_breach() {
        breaks("SUB-1/outlives-turn", started().interrupt().aborted("t1"));
        let mut t = started();
        t.finish(2).completed("t1").sub_ended("t1", "a1", "closed");
        breaks("SUB-1/outlives-turn", &t);
    }

    #[test]
    fn what_follows_its_end_is_a_breach() {
        breaks(
            "SUB-1/request-after-end",
            closed().aborted("t1").request_of(1, 3, &[user("look")]),
        );
        let delta = AgentEvent::TextDelta {
            turn_id: None,
            text: "hm".into(),
        };
        breaks(
            "SUB-1/event-after-end",
            closed().of_sub_agent("t1", "a1", delta).aborted("t1"),
        );
        let mut t = started();
        t.interrupt().sub_ended("t1", "a1", "closed").aborted("t1");
        breaks("SUB-1/stream-open", t.wait_ms(600).disconnected(2));
    }

    #[test]
    fn abort_for_its_call_ends_it_also_while_the_turns_response_has_failed() {
        let ended = |asked: bool| {
            let mut t = Tracer::new();
            t.start("t1", "go").request(1, &[user("go")]);
            t.sub_agent("t1", "a1", "look", false);
            t.request_of(1, 2, &[user("look")])
                .emit(2, call("c2"))
                .finish(2);
            t.sent(1, json!({"type": "response.failed"}))
                .ask("t1", "c2");
            if asked {
                t.decide("c2", Decision::Abort);
            }
            t.sub_ended("t1", "a1", "closed").aborted("t1");
            t
        };
        keeps("SUB-1", &ended(true), 1);
        breaks("SUB-1/aborts-turn", &ended(false));
    }

    #[test]
    fn a_drain_has_an_end() {
        let drained = |ms: u64| {
            let mut t = started();
            t.interrupt().wait_ms(ms).disconnected(2);
            t.sub_ended("t1", "a1", "killed").aborted("t1");
            t
        };
        keeps("SUB-1", &drained(2500), 1);
        breaks("SUB-1/late-end", &drained(2700));
        breaks(
            "SUB-1/never-ended",
            started().interrupt().wait_ms(2700).interrupt(),
        );
        let mut t = started();
        t.interrupt().reading(false).wait_ms(9000).reading(true);
        keeps(
            "SUB-1",
            t.disconnected(2)
                .sub_ended("t1", "a1", "closed")
                .aborted("t1"),
            1,
        );
    }

    #[test]
    fn an_op_from_before_its_start_may_meet_the_turn() {
        let cut = |after_the_input: bool, replaced: bool| {
            let send = |t: &mut Tracer| {
                if replaced {
                    t.input("this", InputMode::Replace);
                } else {
                    t.interrupt();
                }
            };
            let mut t = Tracer::new();
            if !after_the_input {
                send(&mut t);
            }
            t.input("go", InputMode::Start);
            if after_the_input {
                send(&mut t);
            }
            t.started("t1")
                .user_message("t1", "go")
                .request(1, &[user("go")])
                .finish(1);
            t.sub_agent("t1", "a1", "look", false)
                .sub_ended("t1", "a1", "closed");
            if replaced {
                t.replaced("t1")
            } else {
                t.aborted("t1")
            };
            t
        };
        for replaced in [false, true] {
            keeps("SUB-1", &cut(true, replaced), 1);
            breaks("SUB-1/aborts-turn", &cut(false, replaced));
        }
    }

    #[test]
    fn its_end_leaves_the_turn_alone() {
        let mut t = started();
        t.finish(2).sub_ended("t1", "a1", "closed").aborted("t1");
        breaks("SUB-1/aborts-turn", &t);
        let mut t = started();
        t.finish(2)
            .sub_ended("t1", "a1", "closed")
            .request(3, &[user("go")]);
        let (exchange, message) = (3, "no reply".to_owned());
        t.push(Observation::Unscripted { exchange, message });
        keeps("SUB-1", t.aborted("t1"), 1);
    }

    #[test]
    fn a_turn_may_be_replaced_by_one_that_was_never_announced() {
        let cut = |mode| {
            let mut t = started();
            t.input("something else", mode).disconnected(2);
            t.sub_ended("t1", "a1", "closed");
            t
        };
        keeps("SUB-1", cut(InputMode::Replace).replaced("t1").kill(), 1);
        breaks(
            "SUB-1/aborts-turn",
            cut(InputMode::Steer).replaced("t1").kill(),
        );
    }

    #[test]
    fn an_agent_that_tells_nothing_is_not_judged() {
        let t = started().without(Feature::SubAgents);
        let verdict = crate::testing::verdict_of("SUB-1", &t);
        assert!(matches!(
            verdict,
            cutpoint_trace::verdict::Verdict::NotApplicable { .. }
        ));
    }
}
