//! Sub-agents: what was reported of them, and what they asked the model.

use super::At;
use super::exchanges::{Exchange, Role};
use super::turns::Turns;
use cutpoint_trace::{AgentEvent, Observation, Trace};

/// A sub-agent.
#[derive(Debug)]
pub struct SubAgent<'a> {
    /// Its id.
    pub id: &'a str,
    /// The text that its conversation opens with, without white space around it.
    pub task: &'a str,
    /// Whether it is to shut down by itself at the end of its first turn.
    pub one_shot: bool,
    /// The event that it was started.
    pub started: At,
    /// The turn that started it, as an index into the view's turns.
    pub turn: Option<usize>,
    /// The event that it has ended, and how.
    pub ended: Option<(At, &'a str)>,
    /// Its events, as they were forwarded.
    pub events: Vec<(At, &'a AgentEvent)>,
    /// Its model requests, as indexes into the view's exchanges.
    pub exchanges: Vec<usize>,
}

impl SubAgent<'_> {
    /// Where the first of its turns ended.
    pub fn first_end(&self) -> Option<At> {
        let ends = |event: &AgentEvent| matches!(event, AgentEvent::TurnEnded { .. });
        let mut events = self.events.iter();
        events.find(|(_, event)| ends(event)).map(|(at, _)| *at)
    }
}

pub(super) fn agents<'a>(
    trace: &'a Trace,
    turns: &Turns<'a>,
    exchanges: &[Exchange<'a>],
) -> Vec<SubAgent<'a>> {
    let mut agents: Vec<SubAgent<'a>> = Vec::new();
    for (at, entry) in trace.entries.iter().enumerate() {
        let Observation::Event { event, .. } = &entry.observation else {
            continue;
        };
        let known =
            |agents: &[SubAgent<'_>], id: &str| agents.iter().rposition(|agent| agent.id == id);
        match event {
            AgentEvent::SubAgentStarted {
                agent_id,
                task,
                one_shot,
                ..
            } => agents.push(SubAgent {
                id: agent_id,
                task: task.trim(),
                one_shot: *one_shot,
                started: at,
                turn: turns.named(event),
                ended: None,
                events: Vec::new(),
                exchanges: Vec::new(),
            }),
            AgentEvent::SubAgentEvent {
                agent_id, event, ..
            } => {
                if let Some(agent) = known(&agents, agent_id) {
                    agents[agent].events.push((at, event));
                }
            }
            AgentEvent::SubAgentEnded { agent_id, how, .. } => {
                if let Some(agent) = known(&agents, agent_id) {
                    agents[agent].ended.get_or_insert((at, how));
                }
            }
            _ => {}
        }
    }
    for (index, exchange) in exchanges.iter().enumerate() {
        if let Some(agent) = owner(&agents, exchange) {
            agents[agent].exchanges.push(index);
        }
    }
    agents
}

/// The sub-agent that a request is from: a header names it, or else its history opens with the
/// sub-agent's task.
fn owner(agents: &[SubAgent<'_>], exchange: &Exchange<'_>) -> Option<usize> {
    let named = |agent: &SubAgent<'_>| exchange.headers.values().any(|value| value == agent.id);
    if let Some(named) = agents.iter().position(named) {
        return Some(named);
    }
    if exchange.conversation == 0 || agents.is_empty() {
        return None;
    }
    let is_users = |role: &Role<'_>| matches!(role, Role::User(_));
    let opening = exchange.roles.iter().position(is_users)?;
    let opening = exchange.text(opening)?;
    let same = |agent: &SubAgent<'_>| {
        agent.task == opening.trim() && agent.started < exchange.over().unwrap_or(usize::MAX)
    };
    agents.iter().rposition(same)
}

#[cfg(test)]
mod tests {
    use crate::testing::{Tracer, user};
    use crate::view::View;

    #[test]
    fn requests_belong_to_the_sub_agent_whose_task_opens_them() {
        let mut t = Tracer::new();
        t.start("t1", "go").request(1, &[user("go")]).finish(1);
        t.sub_agent("t1", "a1", "look", true);
        t.request_of(1, 2, &[user("look")]).finish(2);
        t.sub_agent("t1", "a2", "count", false);
        t.request_of(2, 3, &[user("count")]).finish(3);
        t.request_of(3, 4, &[user("a title for: go")]);
        t.sub_ended("t1", "a1", "complete");
        let trace = t.trace();
        let view = View::new(&trace);
        let requests: Vec<_> = view
            .agents
            .iter()
            .map(|agent| &agent.exchanges[..])
            .collect();
        assert_eq!(requests, [&[1][..], &[2]]);
        assert!(view.agents[0].ended.is_some() && view.agents[1].ended.is_none());
        assert_eq!(view.agents[1].turn, Some(0));
    }
}
