//! The view: an index over a trace, made once in one pass, that every rule looks things up in.
//!
//! Positions of entries ([`At`]) are indexes into the trace's list, not the numbers that the
//! entries carry: a rule compares positions and shows numbers ([`View::seq`]).

mod build;
mod calls;
mod exchanges;
mod regions;
mod rollouts;
mod turns;

use std::collections::HashMap;

use crate::trace::{AgentEvent, Decision, Feature, Trace, What};

pub use calls::{Approval, Call, CallEnding, Emitted};
pub use exchanges::{Exchange, Role, StreamTerminal};
pub use regions::Region;
pub use rollouts::{Bracket, Change, FileLine, Held, LineKind, Read, RolloutFile, Unreadable};
pub use turns::{
    Ending, Input, Interrupt, InterruptState, Late, OpAnswer, SessionStart, Stray, Turn,
};

/// The position of an entry in the trace's list.
pub type At = usize;

/// An index over a trace.
#[derive(Debug)]
pub struct View<'a> {
    /// The trace.
    pub trace: &'a Trace,
    /// User inputs in the order in which they were sent.
    pub inputs: Vec<Input<'a>>,
    /// Interrupts in the order in which they were sent.
    pub interrupts: Vec<Interrupt<'a>>,
    /// Turns in the order in which they began.
    pub turns: Vec<Turn<'a>>,
    /// Terminal events that belong to no turn.
    pub strays: Vec<Stray<'a>>,
    /// Events, other than terminal ones, that name a turn which has ended.
    pub late: Vec<Late>,
    /// Every event that says a turn was aborted.
    pub aborts: Vec<At>,
    /// Model requests, with what became of them, in order of arrival.
    pub exchanges: Vec<Exchange<'a>>,
    /// Calls in the order in which they were first seen.
    pub calls: Vec<Call<'a>>,
    /// The user's answers to approval requests, in order.
    pub approvals: Vec<Approval<'a>>,
    /// Rollout files in the order in which they were first read.
    pub rollouts: Vec<RolloutFile<'a>>,
    /// Reads of a rollout file that failed.
    pub unreadable: Vec<Unreadable<'a>>,
    /// Reads that showed a new `compacted` line.
    pub compactions: Vec<At>,
    /// Each start of the agent.
    pub starts: Vec<SessionStart>,
    /// Each time the agent was killed, or taken away without being asked to shut down.
    pub kills: Vec<At>,
    /// Each time the agent ended, for whatever reason.
    pub stops: Vec<At>,
    /// Whether the run began with a session whose earlier part this trace does not show.
    pub inherited: bool,
    call_ids: HashMap<&'a str, usize>,
}

impl<'a> View<'a> {
    /// Indexes a trace.
    pub fn new(trace: &'a Trace) -> Self {
        build::build(trace)
    }

    /// The number that the entry at a position carries.
    pub fn seq(&self, at: At) -> u64 {
        self.trace.entries.get(at).map_or(0, |entry| entry.seq)
    }

    /// When the entry at a position was observed.
    pub fn at_ns(&self, at: At) -> u64 {
        self.trace.entries.get(at).map_or(0, |entry| entry.at_ns)
    }

    /// The time from one entry to another in nanoseconds; 0 if the second came first.
    pub fn between_ns(&self, from: At, to: At) -> u64 {
        self.at_ns(to).saturating_sub(self.at_ns(from))
    }

    /// The agent's event at a position.
    pub fn event(&self, at: At) -> Option<&'a AgentEvent> {
        match &self.trace.entries.get(at)?.what {
            What::Event { event, .. } => Some(event),
            _ => None,
        }
    }

    /// Whether something can be observed of the agent.
    pub fn has(&self, feature: Feature) -> bool {
        self.trace.header.agent.features.contains(&feature)
    }

    /// The call of that id.
    pub fn call(&self, call_id: &str) -> Option<&Call<'a>> {
        self.call_ids
            .get(call_id)
            .and_then(|index| self.calls.get(*index))
    }

    /// Where the client first asked for what aborted a turn: an interrupt, input that replaces it, an
    /// approval answered with "abort"; the terminal event where nothing else is known. `None` for a
    /// turn that was not aborted, or was cut by the agent's end.
    pub fn cut_at(&self, turn: usize) -> Option<At> {
        let known = self.turns.get(turn)?;
        let ending = known.ending().filter(|ending| ending.aborted())?;
        if known.killed.is_some_and(|killed| killed < ending.at) {
            return None;
        }
        let interrupt = known
            .interrupts
            .first()
            .map(|first| self.interrupts[*first].at);
        let replaced = known.replaced_by.and_then(|by| self.turns[by].input);
        let replaced = replaced.map(|input| self.inputs[input].at);
        let refused = self.approvals.iter().find(|approval| {
            let call = self.call(approval.call_id);
            approval.decision == Decision::Abort && call.is_some_and(|call| call.turn == Some(turn))
        });
        let asked = [interrupt, replaced, refused.map(|approval| approval.at)];
        let first = asked.into_iter().flatten().min();
        Some(first.unwrap_or(ending.at).min(ending.at))
    }

    /// The first request behind an entry that asks for a response in the user's conversation.
    pub fn request_behind(&self, at: At) -> Option<&Exchange<'a>> {
        let next = self.exchanges.partition_point(|exchange| exchange.at <= at);
        let mut later = self.exchanges[next..].iter();
        later.find(|exchange| exchange.generates && exchange.is_the_users())
    }

    /// When the last entry was observed.
    pub fn end_ns(&self) -> u64 {
        self.trace.entries.last().map_or(0, |entry| entry.at_ns)
    }

    /// The position at which the next turn began after an entry; the trace's end if none did.
    pub fn next_turn_after(&self, at: At) -> At {
        let next = self.turns.partition_point(|turn| turn.begun <= at);
        self.turns
            .get(next)
            .map_or(self.trace.entries.len(), |turn| turn.begun)
    }

    /// Whether the history was compacted after one entry and before another.
    pub fn compacted_between(&self, from: At, to: At) -> bool {
        let next = self.compactions.partition_point(|at| *at <= from);
        self.compactions.get(next).is_some_and(|at| *at < to)
    }

    /// Whether the session was continued after one entry and before another.
    pub fn resumed_between(&self, from: At, to: At) -> bool {
        self.starts
            .iter()
            .any(|start| start.resumed && from < start.at && start.at < to)
    }

    /// The turns and inputs of a request's history, each with the markers behind it.
    pub fn regions(&self, exchange: &Exchange<'a>) -> Vec<Region> {
        regions::regions(self, exchange)
    }
}
