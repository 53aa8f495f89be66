//! The view: an index over a trace, made once in one pass, that every rule looks things up in.
//!
//! Positions of entries ([`At`]) are indexes into the trace's list, not the numbers that the
//! entries carry: a rule compares positions and shows numbers ([`View::seq`]).

mod agents;
mod attribution;
mod build;
mod calls;
mod exchanges;
mod fork_rollback;
mod history_regions;
mod legal_races;
mod open_gates;
mod rollouts;
mod turns;

use crate::fast_hash::HashMap;
use cutpoint_trace::{
    AgentEvent, Decision, Feature, InputMode, Observation, ShownLine, TaskKind, Trace, TurnEnd,
};

pub use agents::SubAgent;
pub use calls::{Answer, Approval, Call, CallEnding, Emitted};
pub use exchanges::{Exchange, Role, StreamTerminal};
pub use fork_rollback::{Fork, Resumption, Rollback};
pub use history_regions::Region;
pub use rollouts::{
    Bracket, Change, FileLine, LineKind, Read, RecordedItem, RolloutFile, Unreadable,
};
pub use turns::{
    Ending, Input, Interrupt, InterruptState, LateEvent, OpAnswer, OpenRequest, SessionStart,
    StrayEnding, Turn,
};

/// The position of an entry in the trace's list.
pub type At = usize;

/// How close together two things may happen for neither to have known of the other.
const RACE_NS: u64 = 100_000_000;

/// An index over a trace.
#[derive(Debug)]
pub struct View<'a> {
    /// The trace.
    pub trace: &'a Trace,
    /// User inputs in the order in which they were sent.
    pub inputs: Vec<Input<'a>>,
    /// Interrupts in the order in which they were sent.
    pub interrupts: Vec<Interrupt<'a>>,
    /// Requests for further conversations in the order in which they were sent.
    pub opens: Vec<OpenRequest<'a>>,
    /// Turns in the order in which they began.
    pub turns: Vec<Turn<'a>>,
    /// Terminal events that belong to no turn.
    pub strays: Vec<StrayEnding<'a>>,
    /// Events, other than terminal ones, that name a turn which has ended.
    pub late: Vec<LateEvent>,
    /// Every event that says a turn was aborted.
    pub aborts: Vec<At>,
    /// Model requests, with what became of them, in order of arrival.
    pub exchanges: Vec<Exchange<'a>>,
    /// Calls in the order in which they were first seen.
    pub calls: Vec<Call<'a>>,
    /// The user's answers to approval requests, in order.
    pub approvals: Vec<Approval<'a>>,
    /// The user's answers to questions, in order.
    pub answers: Vec<Answer<'a>>,
    /// Sub-agents in the order in which they were started.
    pub agents: Vec<SubAgent<'a>>,
    /// Rollout files in the order in which they were first read.
    pub rollouts: Vec<RolloutFile<'a>>,
    /// Reads of a rollout file that failed.
    pub unreadable: Vec<Unreadable<'a>>,
    /// Each time that the history was compacted: the event, and the read that showed the line.
    pub compactions: Vec<At>,
    /// Each time that the harness tore a rollout.
    pub tears: Vec<At>,
    /// Sessions that were continued from a known rollout.
    pub resumptions: Vec<Resumption>,
    /// Forks of the conversation.
    pub forks: Vec<Fork>,
    /// Turns that were taken out of the history.
    pub rollbacks: Vec<Rollback>,
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
        match &self.trace.entries.get(at)?.observation {
            Observation::Event { event, .. } => Some(event),
            _ => None,
        }
    }

    /// Whether something can be observed of the agent.
    pub fn has(&self, feature: Feature) -> bool {
        self.trace.header.agent.features.contains(&feature)
    }

    /// What a person sees because of the event at a position: the lines up to the next event.
    pub fn shown_after(&self, at: At) -> impl Iterator<Item = (At, &'a ShownLine)> + use<'a> {
        let after = self.trace.entries.iter().enumerate().skip(at + 1);
        let next = |what: &Observation| {
            matches!(
                what,
                Observation::Event { .. } | Observation::Redelivered { .. }
            )
        };
        let lines = after.take_while(move |(_, entry)| !next(&entry.observation));
        lines.filter_map(|(at, entry)| match &entry.observation {
            Observation::Shown { line } => Some((at, line)),
            _ => None,
        })
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
        let first = self.stop_asked(turn, ending.at);
        Some(first.unwrap_or(ending.at).min(ending.at))
    }

    /// Where the client first asked for what aborts a turn, whatever became of that.
    pub fn stop_asked(&self, turn: usize, before: At) -> Option<At> {
        let mut interrupts = self.turns[turn].interrupts.iter();
        let interrupt = interrupts.next().map(|first| self.interrupts[*first].at);
        let replaced = self.replaced_at(turn, before);
        let aborts = |taken: bool| {
            let mut approvals = self.approvals.iter();
            let found = approvals.find(|approval| self.aborts(approval, taken) == Some(turn));
            found.map(|approval| approval.at)
        };
        let asked = [interrupt, replaced, aborts(true)];
        // An answer that may have had no addressee had one, if nothing else can have stopped the turn.
        asked.into_iter().flatten().min().or_else(|| aborts(false))
    }

    /// The turn that the answer "abort" stops. It may have no addressee, and not be taken, if a sub-agent had
    /// asked that is just being closed.
    fn aborts(&self, approval: &Approval<'_>, taken: bool) -> Option<usize> {
        if approval.decision != Decision::Abort {
            return None;
        }
        let call = self.call(approval.call_id)?;
        let late = self.asker_ended(call, approval.at).is_some();
        let found = !late && self.asker_was_closing(call, approval.at) != taken;
        call.turn.filter(|_| found)
    }

    /// Where input that replaces a turn was sent, be it that the agent ended before the new turn could
    /// start.
    fn replaced_at(&self, turn: usize, before: At) -> Option<At> {
        let mut inputs = self.inputs.iter().take_while(|input| input.at < before);
        let met = |input: &&Input<'_>| input.active == Some(turn) && !input.refused();
        let replaces =
            |input: &&Input<'_>| input.mode == InputMode::Replace && input.turn != Some(turn);
        inputs
            .find(|input| met(input) && replaces(input))
            .map(|input| input.at)
    }

    /// How much of the time between two moments the client did not read what the agent sent, in
    /// nanoseconds.
    pub fn unread_ns(&self, from_ns: u64, until_ns: u64) -> u64 {
        let mut unread_ns = 0;
        let mut since_ns = None;
        for entry in &self.trace.entries {
            let Observation::Reading { on } = entry.observation else {
                continue;
            };
            match on {
                false => since_ns = since_ns.or(Some(entry.at_ns)),
                true => unread_ns += overlap(since_ns.take(), entry.at_ns, from_ns, until_ns),
            }
        }
        unread_ns + overlap(since_ns, until_ns, from_ns, until_ns)
    }

    /// The first request after an entry that asks for a response in the user's conversation.
    pub fn request_after(&self, at: At) -> Option<&Exchange<'a>> {
        let next = self.exchanges.partition_point(|exchange| exchange.at <= at);
        let mut later = self.exchanges[next..].iter();
        later.find(|exchange| exchange.generates && exchange.is_the_users())
    }

    /// The turn that a request belongs to. Requests and events come by different ways: one that
    /// overtook the announcement of its turn belongs to the turn that began next.
    pub fn turn_of(&self, exchange: &Exchange<'a>) -> Option<usize> {
        let next = || {
            let next = self.turns.partition_point(|turn| turn.begun <= exchange.at);
            (exchange.in_flight && next < self.turns.len()).then_some(next)
        };
        exchange.turn.or_else(next)
    }

    /// The requests of a turn before an entry that ask for a response, the newest first.
    fn requests_of(&self, turn: usize, end: At) -> impl Iterator<Item = &Exchange<'a>> + Clone {
        let before = (self.exchanges).partition_point(|exchange| exchange.at < end);
        let requests = self.exchanges[..before].iter().rev();
        requests.filter(move |it| it.generates && self.turn_of(it) == Some(turn))
    }

    /// Where the last response to a turn failed, and the turn of it, within 100 ms before or after an
    /// op of the user's: both were on their way to the agent, and neither knew of the other. An agent that
    /// was killed may have been about to report that its turn failed.
    pub fn failed_around(&self, turn: usize, op: At) -> Option<At> {
        let known = &self.turns[turn];
        let ending = known.ending();
        let failed = ending.is_none_or(|ending| matches!(ending.end, TurnEnd::Failed { .. }));
        let end = ending.map(|ending| ending.at).or(known.killed)?;
        let mut own = self.requests_of(turn, end);
        // What a sub-agent reads fails no turn, unless its answer is all that the turn is for.
        let newest = own.clone().next();
        let last = own.find(|request| request.is_the_users()).or(newest);
        let over = last?.failed()?;
        // One of the two is no time: an entry is never after itself.
        let apart_ns = self.between_ns(over, op) + self.between_ns(op, over);
        (failed && over < end && apart_ns <= RACE_NS).then_some(over)
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

    /// Whether something was done too late for a fork that the conversation had gone on in at an
    /// entry: it happened in the session that the fork was taken from, after the request for it.
    pub fn forked_away(&self, done: At, until: At) -> bool {
        self.forks.iter().any(|fork| {
            let entered = fork.entered;
            fork.asked < done && entered.is_some_and(|start| done < start && start <= until)
        })
    }

    /// Whether what was observed at one entry may be gone from the history before another: the
    /// history was compacted, the harness tore the rollout, or the turn was taken back.
    pub fn gone_between(&self, from: At, to: At) -> bool {
        let within = |all: &[At]| {
            let next = all.partition_point(|at| *at <= from);
            all.get(next).is_some_and(|at| *at < to)
        };
        within(&self.compactions) || within(&self.tears) || self.rolled_back_between(from, to)
    }

    /// Whether what was observed at one entry was taken back before another.
    pub fn rolled_back_between(&self, from: At, to: At) -> bool {
        let mut rollbacks = self.rollbacks.iter();
        rollbacks.any(|gone| gone.from <= from && from < gone.at && gone.at < to)
    }

    /// Whether a turn replaces the history by a summary instead of going on with it.
    pub fn is_compaction(&self, turn: usize) -> bool {
        let input = self.turns.get(turn).and_then(|turn| turn.input);
        input.is_some_and(|input| self.inputs[input].task == Some(TaskKind::Compact))
    }

    /// The last tear of a rollout before an entry.
    pub fn last_tear(&self, before: At) -> Option<At> {
        let next = self.tears.partition_point(|at| *at < before);
        next.checked_sub(1).map(|last| self.tears[last])
    }

    /// Whether the session was continued after one entry and before another.
    pub fn resumed_between(&self, from: At, to: At) -> bool {
        self.starts
            .iter()
            .any(|start| start.resumed && from < start.at && start.at < to)
    }

    /// The turns and inputs of a request's history, each with the markers after it.
    pub fn regions(&self, exchange: &Exchange<'a>) -> Vec<Region> {
        history_regions::regions(self, exchange)
    }
}

/// How much of a span lies between two moments, in nanoseconds; none without a beginning.
fn overlap(since_ns: Option<u64>, end_ns: u64, from_ns: u64, until_ns: u64) -> u64 {
    since_ns.map_or(0, |since_ns| {
        end_ns.min(until_ns).saturating_sub(since_ns.max(from_ns))
    })
}
