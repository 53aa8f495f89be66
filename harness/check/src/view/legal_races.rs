//! Whether a turn had nothing left to do when the user cut it: then it may end by itself.

use cutpoint_protocol::field::text;
use serde_json::Value;

use super::{At, Call, Exchange, RACE_NS, SubAgent, View};
use cutpoint_trace::AgentEvent;

/// How long a sub-agent that is being closed may take to end: the 500 ms for which Codex's delegate
/// drains it, and the grace period of its turn.
const CLOSE_NS: u64 = 600_000_000;

impl View<'_> {
    /// Whether the last response that a turn got was over when an op of the user's was sent, or so soon
    /// after it that the agent could no longer know; not the latter if something was held at a cut point.
    pub fn response_was_over(&self, turn: usize, op: At, held: bool) -> bool {
        let Some(over) = self.last_response(turn).and_then(|last| last.over()) else {
            return false;
        };
        over < op || (!held && self.between_ns(op, over) <= RACE_NS)
    }

    /// The last response that a turn got.
    fn last_response(&self, turn: usize) -> Option<&Exchange<'_>> {
        let turn = &self.turns[turn];
        let end = turn
            .ending()
            .map_or(self.trace.entries.len(), |ending| ending.at);
        // A turn's request may arrive before the start of the turn is announced.
        let asked = turn.input.map_or(turn.begun, |input| self.inputs[input].at);
        let requests = (self.exchanges).partition_point(|exchange| exchange.at < end);
        let mut of_turn = self.exchanges[..requests]
            .iter()
            .rev()
            .filter(|exchange| exchange.generates)
            // What the agent gave up before it announced the turn was for the turn before.
            .filter(|exchange| {
                exchange
                    .disconnected
                    .is_none_or(|closed| closed > turn.begun)
            })
            .take_while(|exchange| exchange.at > asked);
        // What a sub-agent still reads holds up no turn, unless its answer is all that the turn is for.
        let newest = of_turn.clone().next();
        of_turn.find(|exchange| exchange.is_the_users()).or(newest)
    }

    /// Whether a tool was at work at an entry that keeps a turn from ending by itself. One of a sub-agent's
    /// does not if the turn's own last response was over less than 100 ms before, or later. Nor does one
    /// whose output the last response answers, if that was over within 100 ms: there was no time to know,
    /// unless something was held at a cut point.
    pub fn tool_was_running(&self, turn: usize, at: At, held: bool) -> bool {
        let last = self.last_response(turn);
        let soon = |over: At| over > at && !held && self.between_ns(at, over) <= RACE_NS;
        let asked = last
            .filter(|last| last.over().is_some_and(soon))
            .map(|last| last.at);
        let own = last.filter(|last| last.is_the_users());
        let ends = own
            .and_then(|own| own.over())
            .is_some_and(|over| self.between_ns(over, at) <= RACE_NS);
        let elsewhere = |call: &Call<'_>| match ends {
            true => self.is_a_sub_agents(call),
            false => self.went_with_its_agent(call, at),
        };
        let mut own = self.turns[turn].calls.iter().map(|call| &self.calls[*call]);
        own.any(|call| {
            let begun = call.begun.is_some_and(|begun| begun < at);
            // A tool that the model knew of before runs on in the background.
            let answered = call.answered.is_some_and(|by| self.exchanges[by].at < at);
            let running = begun && !call.ended_before(at) && !answered;
            let passed = asked.is_some_and(|asked| call.ended_before(asked));
            call.turn == Some(turn) && running && !passed && !elsewhere(call)
        })
    }

    /// Whether a call's tool had ended before an entry, or ended by itself so soon after it that the agent
    /// could no longer know; not the latter if something was held at a cut point.
    pub fn tool_was_over(&self, call: &Call<'_>, at: At, held: bool) -> bool {
        call.endings.first().is_some_and(|ending| {
            let by_itself = ending.exit_code.is_some();
            let soon = || !held && self.between_ns(at, ending.at) <= RACE_NS;
            ending.at < at || (by_itself && soon())
        })
    }

    /// Whether the call is a sub-agent's that had ended before an entry: its tools end with it, and
    /// they are not reported.
    fn went_with_its_agent(&self, call: &Call<'_>, at: At) -> bool {
        let mut ended = self
            .agents
            .iter()
            .filter(|agent| agent.ended.is_some_and(|(end, _)| end < at));
        ended.any(|agent| self.is_its_call(agent, call))
    }

    /// Where the sub-agent whose call it is had ended before an entry.
    pub fn asker_ended(&self, call: &Call<'_>, at: At) -> Option<At> {
        let mut askers = self
            .agents
            .iter()
            .filter(|agent| self.is_its_call(agent, call));
        askers.find_map(|agent| {
            agent
                .ended
                .map(|(ended, _)| ended)
                .filter(|ended| *ended < at)
        })
    }

    /// Whether the sub-agent whose call it is was being closed at an entry, by a call of the turn's own
    /// (`close_agent`) that was at work then or because the turn's own response had failed, and ended in
    /// time.
    pub fn asker_was_closing(&self, call: &Call<'_>, at: At) -> bool {
        let mut askers = self
            .agents
            .iter()
            .filter(|agent| self.is_its_call(agent, call));
        askers.any(|agent| {
            let ended = agent
                .ended
                .map(|(ended, _)| ended)
                .filter(|ended| *ended > at);
            ended.is_some_and(|ended| self.between_ns(at, ended) <= CLOSE_NS)
                && (self.was_closing(agent, at) || self.was_failing(agent, at))
        })
    }

    /// Whether a call that closes sub-agents was at work in the sub-agent's turn at an entry.
    fn was_closing(&self, agent: &SubAgent<'_>, at: At) -> bool {
        let closes = |item: &Value| text(item, "name").is_some_and(|name| name.contains("close"));
        self.calls.iter().any(|call| {
            let emitted = call.emitted.iter();
            let mut emitted = emitted.filter(|emitted| emitted.at < at && closes(emitted.item));
            let answered = call.answered.is_some_and(|by| self.exchanges[by].at < at);
            call.turn == agent.turn && emitted.next().is_some() && !answered
        })
    }

    /// Whether the last response to the sub-agent's turn, of the turn's own, had failed at an entry, and
    /// no retry was reported since.
    fn was_failing(&self, agent: &SubAgent<'_>, at: At) -> bool {
        let until = agent.ended.map_or(at, |(ended, _)| ended);
        let own = |turn| self.requests_of(turn, until).find(|it| it.is_the_users());
        let last = agent.turn.and_then(own);
        let over = last.and_then(Exchange::failed).filter(|over| *over < at);
        let reported = |at: At| {
            matches!(
                self.event(at),
                Some(AgentEvent::Error { .. } | AgentEvent::Background { .. })
            )
        };
        over.is_some_and(|over| !(over..at).any(reported))
    }

    /// Whether a call is a sub-agent's.
    pub fn is_a_sub_agents(&self, call: &Call<'_>) -> bool {
        self.agents
            .iter()
            .any(|agent| self.is_its_call(agent, call))
    }

    fn is_its_call(&self, agent: &SubAgent<'_>, call: &Call<'_>) -> bool {
        let mut own = agent
            .exchanges
            .iter()
            .map(|own| self.exchanges[*own].conversation);
        own.any(|own| call.conversation == Some(own))
    }
}
