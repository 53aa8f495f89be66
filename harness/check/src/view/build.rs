//! The one pass over a trace that makes its view.

use super::View;
use super::agents;
use super::calls::Calls;
use super::exchanges::Exchanges;
use super::rollouts::{AgentState, Rollouts};
use super::turns::{OpAnswer, Turns};
use cutpoint_trace::{Feature, Observation, Trace};

pub(super) fn build(trace: &Trace) -> View<'_> {
    let ids = trace.header.agent.features.contains(&Feature::TurnIds);
    let mut turns = Turns::new(ids);
    let mut exchanges = Exchanges::default();
    let mut calls = Calls::default();
    let mut rollouts = Rollouts::default();
    for (at, entry) in trace.entries.iter().enumerate() {
        // Calls look turns up, so a turn's own event comes first.
        follow_turns(&mut turns, at, &entry.observation);
        calls.entry(at, &entry.observation, &mut turns);
        if let Some(index) = exchanges.entry(at, &entry.observation, &turns) {
            let exchange = &exchanges.exchanges[index];
            turns.carried(exchange.inputs(), exchange.turn);
            calls.request(index, exchange);
        }
        let agent = AgentState {
            starts: turns.starts.len(),
            down: turns.down(),
        };
        rollouts.entry(at, &entry.observation, agent);
        if matches!(
            entry.observation,
            Observation::AgentStarted { resumed: true, .. }
        ) {
            // The agent died before it could report it, but had recorded it.
            let unreported = rollouts
                .rolled_back()
                .into_iter()
                .skip(turns.rollbacks.len());
            unreported.for_each(|count| turns.rolled_back(at, count));
        }
    }
    turns.enter_forks(&rollouts.files);
    // The rollout of a fork is nothing that was read before.
    let entered = |at| turns.forks.iter().any(|fork| fork.entered == Some(at));
    rollouts
        .resumptions
        .retain(|resumption| !entered(resumption.at));
    let sub_agents = agents::agents(trace, &turns, &exchanges.exchanges);
    View {
        trace,
        inherited: turns.starts.first().is_some_and(|start| start.resumed),
        inputs: turns.inputs,
        interrupts: turns.interrupts,
        opens: turns.opens,
        turns: turns.turns,
        strays: turns.strays,
        late: turns.late,
        aborts: turns.aborts,
        exchanges: exchanges.exchanges,
        calls: calls.calls,
        call_ids: calls.ids,
        approvals: calls.approvals,
        answers: calls.answers,
        agents: sub_agents,
        rollouts: rollouts.files,
        unreadable: rollouts.unreadable,
        compactions: rollouts.compactions,
        tears: rollouts.tears,
        resumptions: rollouts.resumptions,
        forks: turns.forks,
        rollbacks: turns.rollbacks,
        starts: turns.starts,
        kills: turns.kills,
        stops: turns.stops,
    }
}

fn follow_turns<'a>(turns: &mut Turns<'a>, at: usize, what: &'a Observation) {
    turns.held.entry(what);
    match what {
        Observation::Op { id, op } => turns.op(at, id, op),
        Observation::OpReply {
            id,
            turn_id,
            thread_id,
            reason,
            error,
        } => {
            let answer = OpAnswer {
                at,
                turn_id: turn_id.as_deref(),
                thread_id: thread_id.as_deref(),
                reason: *reason,
                error: error.as_deref(),
            };
            turns.op_reply(at, id, answer);
        }
        Observation::Event { event, .. } => turns.event(at, event),
        Observation::AgentStarted { resumed, .. } => turns.agent_started(at, *resumed),
        Observation::AgentKilled => turns.agent_killed(at),
        Observation::AgentExited { expected, .. } => turns.agent_exited(at, *expected),
        _ => {}
    }
}
