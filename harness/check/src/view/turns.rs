//! Turns, the ops that begin and interrupt them, and the events that end them.

use super::At;
use super::fork_rollback::{Fork, Rollback};
use super::open_gates::OpenGates;
use crate::fast_hash::{HashMap, HashSet};
use crate::ids::canonical;
use cutpoint_trace::{AbortReason, AgentEvent, ClientOp, Decision, InputMode, TaskKind, TurnEnd};

/// A user input.
#[derive(Debug)]
pub struct Input<'a> {
    /// The op.
    pub at: At,
    /// The text, without white space around it: a command line for a command; empty for other tasks.
    pub text: &'a str,
    /// What it was meant to do.
    pub mode: InputMode,
    /// The work that it asks for, if that is no turn with the model.
    pub task: Option<TaskKind>,
    /// The id that the caller wants its turn to have.
    pub wanted_id: Option<&'a str>,
    /// The agent's answers to the op.
    pub answers: Vec<OpAnswer<'a>>,
    /// The turn that it began or joined, as an index into the view's turns.
    pub turn: Option<usize>,
    /// The newest turn that was active when it was sent.
    pub active: Option<usize>,
    /// Whether a turn began with it.
    pub begins: bool,
    /// Where its agent ended before it reported what it had done with it, if the order of ops does not show
    /// either: its turn is a guess.
    pub unreported: Option<At>,
}

impl Input<'_> {
    /// Whether the agent refused it.
    pub fn refused(&self) -> bool {
        self.answers.iter().any(|answer| answer.error.is_some())
    }

    /// The turn it belongs to: the one it began or joined, else the one it was sent into.
    pub fn owner(&self) -> Option<usize> {
        self.turn.or(self.active)
    }
}

/// The agent's answer to an op.
#[derive(Debug, Clone, Copy)]
pub struct OpAnswer<'a> {
    /// The reply.
    pub at: At,
    /// The turn that it names.
    pub turn_id: Option<&'a str>,
    /// The conversation that it names.
    pub thread_id: Option<&'a str>,
    /// Why the turn was aborted, as the answer says.
    pub reason: Option<AbortReason>,
    /// Why the op was refused.
    pub error: Option<&'a str>,
}

/// A request for one more conversation, under an id of the caller's.
#[derive(Debug)]
pub struct OpenRequest<'a> {
    /// The op.
    pub at: At,
    /// The id that the caller wants the conversation to have.
    pub wanted_id: &'a str,
    /// The agent's answers to the op.
    pub answers: Vec<OpAnswer<'a>>,
}

/// What an interrupt met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InterruptState {
    /// An active turn, as an index into the view's turns.
    Active(usize),
    /// No turn, and none on its way.
    Idle,
    /// No turn yet, but input that may begin one had been sent.
    Early,
    /// A turn other than the one that the interrupt named.
    Misnamed,
    /// No agent: it was not running.
    Down,
}

/// An interrupt.
#[derive(Debug)]
pub struct Interrupt<'a> {
    /// The op.
    pub at: At,
    /// The turn that it named.
    pub named: Option<&'a str>,
    /// What it met.
    pub state: InterruptState,
    /// Whether something was held at a cut point when it was sent.
    pub held: bool,
    /// The agent's answers.
    pub answers: Vec<OpAnswer<'a>>,
}

/// A terminal event of a turn.
#[derive(Debug, Clone, Copy)]
pub struct Ending<'a> {
    /// The event.
    pub at: At,
    /// How the turn ended.
    pub end: &'a TurnEnd,
}

impl Ending<'_> {
    /// Whether it says that the user stopped the turn; a protocol that gives no reason means that.
    pub fn interrupted(&self) -> bool {
        matches!(
            self.end,
            TurnEnd::Aborted {
                reason: None | Some(AbortReason::Interrupted)
            }
        )
    }

    /// Whether it says that the turn was aborted.
    pub fn aborted(&self) -> bool {
        matches!(self.end, TurnEnd::Aborted { .. })
    }

    /// The end in a word or two.
    pub fn in_words(&self) -> &'static str {
        match self.end {
            TurnEnd::Complete => "complete",
            TurnEnd::Failed { .. } => "failed",
            TurnEnd::Aborted { reason } => match reason {
                None => "aborted",
                Some(AbortReason::Interrupted) => "aborted (interrupted)",
                Some(AbortReason::Replaced) => "aborted (replaced)",
            },
        }
    }
}

/// A turn.
#[derive(Debug)]
pub struct Turn<'a> {
    /// Its id.
    pub id: &'a str,
    /// The input that began it, as an index into the view's inputs.
    pub input: Option<usize>,
    /// The reply to that input which named the turn.
    pub acknowledged: Option<At>,
    /// The event that says it started.
    pub started: Option<At>,
    /// Where it became active: the reply or the event, whichever came first.
    pub begun: At,
    /// Its terminal events, in order.
    pub endings: Vec<Ending<'a>>,
    /// The interrupts that were sent while it was active.
    pub interrupts: Vec<usize>,
    /// Where the agent was killed while the turn was active.
    pub killed: Option<At>,
    /// Where the agent ended by itself while the turn was active.
    pub exited: Option<At>,
    /// The number of the session that it began in, counted from 0 with each start of the agent.
    pub session: usize,
    /// The number of the conversation's first session: a resumed session has that of its past.
    pub lineage: usize,
    /// The newest turn that was active when this one began.
    pub under: Option<usize>,
    /// The calls that belong to it, as indexes into the view's calls.
    pub calls: Vec<usize>,
    /// The event that says it was taken out of the history.
    pub rolled_back: Option<At>,
}

impl<'a> Turn<'a> {
    /// Its first terminal event.
    pub fn ending(&self) -> Option<Ending<'a>> {
        self.endings.first().copied()
    }

    /// Its first terminal event, if it came before an entry.
    pub fn ending_before(&self, at: At) -> Option<Ending<'a>> {
        self.ending().filter(|ending| ending.at < at)
    }

    /// Whether it was named by a reply and never seen to run, while its input went into another
    /// turn.
    pub fn phantom(&self, turns: &[Turn<'_>]) -> bool {
        let unseen = self.started.is_none() && self.endings.is_empty();
        let elsewhere = || {
            // The announced turn runs under another id: one that started, by no known input, after
            // this id was given out.
            let next = turns.partition_point(|turn| turn.begun <= self.begun);
            turns.get(next).is_some_and(|turn| {
                turn.input.is_none() && turn.session == self.session && turn.started.is_some()
            })
        };
        unseen && (self.under.is_some() || elsewhere())
    }
}

/// A terminal event that belongs to no turn.
#[derive(Debug, Clone, Copy)]
pub struct StrayEnding<'a> {
    /// The event.
    pub at: At,
    /// The turn that it names, which was never announced.
    pub turn_id: Option<&'a str>,
}

/// An event that names a turn which has ended.
#[derive(Debug, Clone, Copy)]
pub struct LateEvent {
    /// The event.
    pub at: At,
    /// The turn.
    pub turn: usize,
}

/// A start of the agent.
#[derive(Debug, Clone, Copy)]
pub struct SessionStart {
    /// The entry.
    pub at: At,
    /// Whether it continued a session.
    pub resumed: bool,
}

#[derive(Debug, Clone, Copy)]
enum OpRef {
    Input(usize),
    Interrupt(usize),
    OpenRequest(usize),
}

/// Follows turns through a trace.
#[derive(Debug, Default)]
pub(super) struct Turns<'a> {
    pub(super) turns: Vec<Turn<'a>>,
    pub(super) inputs: Vec<Input<'a>>,
    pub(super) interrupts: Vec<Interrupt<'a>>,
    pub(super) opens: Vec<OpenRequest<'a>>,
    pub(super) strays: Vec<StrayEnding<'a>>,
    pub(super) late: Vec<LateEvent>,
    pub(super) aborts: Vec<At>,
    /// Where the user answered an approval with "abort", which cuts the turn.
    abort_answers: Vec<At>,
    /// Calls whose approval was answered: a further answer has no addressee.
    decided: HashSet<&'a str>,
    pub(super) starts: Vec<SessionStart>,
    pub(super) kills: Vec<At>,
    pub(super) stops: Vec<At>,
    pub(super) forks: Vec<Fork>,
    pub(super) rollbacks: Vec<Rollback>,
    /// Where a fork was asked for, and the turn that was active.
    pub(super) fork_asked: Option<(At, Option<usize>)>,
    /// Where it was asked that turns be taken back.
    pub(super) rollback_asked: Option<At>,
    /// The inputs of each text, in order.
    pub(super) by_text: HashMap<&'a str, Vec<usize>>,
    /// The newest turn of each id: some agents count their turns from 0 in each session.
    by_id: HashMap<&'a str, usize>,
    ops: HashMap<&'a str, OpRef>,
    active: Vec<usize>,
    /// Inputs that began no turn yet.
    pub(super) pending: Vec<usize>,
    /// Inputs that the agent has reported as taken.
    pub(super) attributed: HashSet<usize>,
    pub(super) held: OpenGates<'a>,
    /// Whether ids in events can be trusted to name turns.
    ids: bool,
    down: bool,
    shutdown: bool,
    lineage: usize,
    /// Whether an interrupt met no turn since the last turn began.
    idle_interrupt: bool,
}

impl<'a> Turns<'a> {
    pub(super) fn new(ids: bool) -> Self {
        Self {
            ids,
            ..Self::default()
        }
    }

    /// The newest active turn.
    pub(super) fn active(&self) -> Option<usize> {
        self.active.last().copied()
    }

    pub(super) fn session(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    pub(super) fn lineage(&self) -> usize {
        self.lineage
    }

    pub(super) fn down(&self) -> bool {
        self.down
    }

    /// Whether input was sent to an idle agent (or to replace a turn) and began no turn yet.
    pub(super) fn in_flight(&self) -> bool {
        self.pending
            .iter()
            .any(|input| begins_for_sure(&self.inputs[*input]))
    }

    /// Whether something is held at a cut point.
    pub(super) fn holds(&self) -> bool {
        self.held.any()
    }

    pub(super) fn op(&mut self, at: At, id: &'a str, op: &'a ClientOp) {
        match op {
            ClientOp::Input {
                text,
                mode,
                turn_id,
            } => {
                let input = self.input(at, id, *mode);
                self.inputs[input].text = text.trim();
                self.inputs[input].wanted_id = turn_id.as_deref();
                self.by_text.entry(text.trim()).or_default().push(input);
            }
            ClientOp::Task { task, text } => {
                let input = self.input(at, id, InputMode::Replace);
                self.inputs[input].task = Some(*task);
                if *task == TaskKind::Shell {
                    self.inputs[input].text = text.trim();
                }
            }
            ClientOp::Fork => self.fork_asked(at),
            ClientOp::Interrupt { turn_id } => self.interrupt(at, id, turn_id.as_deref()),
            ClientOp::Shutdown => self.shutdown = true,
            ClientOp::Open { thread_id } => {
                self.ops.insert(id, OpRef::OpenRequest(self.opens.len()));
                self.opens.push(OpenRequest {
                    at,
                    wanted_id: thread_id,
                    answers: Vec::new(),
                });
            }
            ClientOp::Rollback { .. } => self.rollback_asked = Some(at),
            ClientOp::Approval { call_id, decision } => {
                if self.decided.insert(call_id) && *decision == Decision::Abort {
                    self.abort_answers.push(at);
                }
            }
            ClientOp::Answer { .. } => {}
        }
    }

    fn input(&mut self, at: At, id: &'a str, mode: InputMode) -> usize {
        let input = self.inputs.len();
        self.inputs.push(Input {
            at,
            text: "",
            mode,
            task: None,
            wanted_id: None,
            answers: Vec::new(),
            turn: None,
            active: self.active(),
            begins: false,
            unreported: None,
        });
        self.ops.insert(id, OpRef::Input(input));
        self.pending.push(input);
        input
    }

    /// A request of a turn carries these inputs. One that was sent before the turn was announced has
    /// joined it, unless the agent that it was sent to has ended since.
    pub(super) fn carried(&mut self, inputs: impl Iterator<Item = usize>, turn: Option<usize>) {
        let since = self.starts.last().map_or(0, |start| start.at);
        for input in inputs {
            let known = &mut self.inputs[input];
            if known.at >= since && known.owner().is_none() {
                known.active = turn;
            }
        }
    }

    fn interrupt(&mut self, at: At, id: &'a str, named: Option<&'a str>) {
        let state = self.interrupt_state(named);
        let interrupt = self.interrupts.len();
        match state {
            InterruptState::Active(turn) => self.turns[turn].interrupts.push(interrupt),
            InterruptState::Idle => self.idle_interrupt = true,
            _ => {}
        }
        self.interrupts.push(Interrupt {
            at,
            named,
            state,
            held: self.holds(),
            answers: Vec::new(),
        });
        self.ops.insert(id, OpRef::Interrupt(interrupt));
    }

    fn interrupt_state(&self, named: Option<&str>) -> InterruptState {
        if self.down {
            return InterruptState::Down;
        }
        let Some(newest) = self.active() else {
            return if self.in_flight() {
                InterruptState::Early
            } else {
                InterruptState::Idle
            };
        };
        match named {
            None => InterruptState::Active(newest),
            Some(id) => match self.by_any_spelling(id) {
                Some(turn) if self.active.contains(&turn) => InterruptState::Active(turn),
                _ => InterruptState::Misnamed,
            },
        }
    }

    pub(super) fn op_reply(&mut self, at: At, id: &str, answer: OpAnswer<'a>) {
        match self.ops.get(id) {
            Some(OpRef::Interrupt(interrupt)) => {
                self.interrupts[*interrupt].answers.push(answer);
            }
            Some(OpRef::Input(input)) => self.input_reply(at, *input, answer),
            Some(OpRef::OpenRequest(open)) => self.opens[*open].answers.push(answer),
            None => {}
        }
    }

    fn input_reply(&mut self, at: At, input: usize, answer: OpAnswer<'a>) {
        self.inputs[input].answers.push(answer);
        if answer.error.is_some() {
            self.pending.retain(|pending| *pending != input);
            // Its text in a request is that of another input, sent again once it was refused.
            if let Some(inputs) = self.by_text.get_mut(self.inputs[input].text) {
                inputs.retain(|known| *known != input);
            }
            return;
        }
        let Some(id) = answer.turn_id else {
            return;
        };
        self.pending.retain(|pending| *pending != input);
        let session = self.session();
        let turn = match self.by_id.get(id) {
            Some(turn) if self.turns[*turn].session == session => *turn,
            _ => self.begin(at, id),
        };
        let known = &mut self.turns[turn];
        if known.input.is_none() || known.input == Some(input) {
            known.acknowledged.get_or_insert(at);
            self.link(turn, input);
        } else {
            self.inputs[input].turn = Some(turn);
        }
    }

    pub(super) fn event(&mut self, at: At, event: &'a AgentEvent) {
        match event {
            AgentEvent::TurnStarted { turn_id } => self.started(at, turn_id),
            AgentEvent::TurnEnded { turn_id, end } => {
                if matches!(end, TurnEnd::Aborted { .. }) {
                    self.aborts.push(at);
                }
                self.ended(turn_id.as_deref(), Ending { at, end });
            }
            AgentEvent::Forked { .. } => self.forked(at),
            AgentEvent::RolledBack { turns } => self.rolled_back(at, *turns),
            AgentEvent::UserMessage {
                turn_id: Some(id),
                text,
            } => {
                if let Some(turn) = self.by_id.get(id.as_str()).copied() {
                    self.note_late(at, turn);
                    self.took(turn, text.trim());
                }
            }
            other => {
                if let Some(turn) = self.named(other) {
                    self.note_late(at, turn);
                }
            }
        }
    }

    /// The turn that an event names.
    pub(super) fn named(&self, event: &AgentEvent) -> Option<usize> {
        event.turn_id().and_then(|id| self.by_id.get(id)).copied()
    }

    /// The turn that a caller names, who may spell its id in another way.
    fn by_any_spelling(&self, id: &str) -> Option<usize> {
        let known = self.by_id.get(id);
        let respelled = || canonical(id).and_then(|id| self.by_id.get(id.as_str()));
        known.or_else(respelled).copied()
    }

    fn note_late(&mut self, at: At, turn: usize) {
        if !self.turns[turn].endings.is_empty() {
            self.late.push(LateEvent { at, turn });
        }
    }

    fn started(&mut self, at: At, id: &'a str) {
        let session = self.session();
        let known = self.by_id.get(id).copied();
        let turn = match known.filter(|turn| self.turns[*turn].session == session) {
            Some(turn) => turn,
            None => self.begin(at, id),
        };
        self.note_late(at, turn);
        if self.turns[turn].started.is_none() {
            self.turns[turn].started = Some(at);
        }
        if self.turns[turn].input.is_none()
            && let Some(input) = self.likely_cause()
        {
            self.pending.retain(|pending| *pending > input);
            self.link(turn, input);
        }
    }

    /// The input that a turn which started without a reply most likely comes from: the earliest one
    /// that can only begin a turn, else the earliest that was sent into a turn and may have missed
    /// it.
    fn likely_cause(&self) -> Option<usize> {
        let find = |wanted: fn(&Input<'_>) -> bool| {
            let mut pending = self.pending.iter().copied();
            pending.find(|input| wanted(&self.inputs[*input]))
        };
        find(begins_for_sure)
            .or_else(|| find(|input| input.mode == InputMode::Start))
            .or_else(|| find(|_| true))
    }

    fn begin(&mut self, at: At, id: &'a str) -> usize {
        let turn = self.turns.len();
        self.turns.push(Turn {
            id,
            input: None,
            acknowledged: None,
            started: None,
            begun: at,
            endings: Vec::new(),
            interrupts: Vec::new(),
            killed: None,
            exited: None,
            session: self.session(),
            lineage: self.lineage,
            under: self.active(),
            calls: Vec::new(),
            rolled_back: None,
        });
        self.by_id.insert(id, turn);
        self.active.push(turn);
        self.idle_interrupt = false;
        turn
    }

    pub(super) fn link(&mut self, turn: usize, input: usize) {
        self.turns[turn].input = Some(input);
        let cause = &mut self.inputs[input];
        cause.turn = Some(turn);
        cause.begins = true;
    }

    fn ended(&mut self, id: Option<&'a str>, ending: Ending<'a>) {
        let named = id.and_then(|id| self.by_id.get(id)).copied();
        let turn = match (named, id) {
            (Some(turn), _) => Some(turn),
            // An agent whose turns have ids has named a turn that it never announced.
            (None, Some(_)) if self.ids => None,
            _ => self.unnamed_end(),
        };
        let Some(turn) = turn else {
            self.strays.push(StrayEnding {
                at: ending.at,
                turn_id: id,
            });
            return;
        };
        self.turns[turn].endings.push(ending);
        self.active.retain(|active| *active != turn);
    }

    /// The turn that a terminal event without an id ends. The oldest: a turn that replaces another
    /// cannot end before it. Without an active turn it is a second end of the last one, unless an
    /// idle interrupt explains it.
    fn unnamed_end(&self) -> Option<usize> {
        let last = || self.turns.len().checked_sub(1);
        match self.active.first() {
            Some(turn) => Some(*turn),
            None if self.idle_interrupt => None,
            None => last(),
        }
    }

    pub(super) fn agent_started(&mut self, at: At, resumed: bool) {
        if !self.starts.is_empty() && !resumed {
            self.lineage += 1;
        }
        self.starts.push(SessionStart { at, resumed });
        self.down = false;
        self.shutdown = false;
        self.idle_interrupt = false;
    }

    pub(super) fn agent_killed(&mut self, at: At) {
        self.kills.push(at);
        self.stop(at, |turn| turn.killed = Some(at));
    }

    pub(super) fn agent_exited(&mut self, at: At, expected: bool) {
        // The harness ends an agent that it did not ask to shut down by taking it away, which is a
        // kill as far as its turns are concerned.
        if expected && !self.shutdown && !self.down {
            self.kills.push(at);
            self.stop(at, |turn| turn.killed = Some(at));
        } else {
            self.stop(at, |turn| turn.exited = Some(at));
        }
    }

    fn stop(&mut self, at: At, note: impl Fn(&mut Turn<'a>)) {
        self.join_unreported();
        for turn in std::mem::take(&mut self.active) {
            note(&mut self.turns[turn]);
        }
        self.leave_unreported(at);
        self.pending.clear();
        self.stops.push(at);
        self.down = true;
    }

    /// Ops are taken in order: input that can join a turn, sent after the one that began a turn which has run
    /// until now, can only have joined that turn, although no event reports it.
    fn join_unreported(&mut self) {
        let newest = self.active();
        let Some((turn, from)) = newest.and_then(|turn| Some((turn, self.turns[turn].input?)))
        else {
            return;
        };
        for number in self.pending.iter().filter(|number| **number > from) {
            let input = &mut self.inputs[*number];
            if input.mode == InputMode::Replace {
                break;
            }
            if input.owner().is_none() {
                input.active = Some(turn);
            }
        }
    }

    /// Ops are taken in order: what was sent after the interrupt of a turn, or after the answer "abort", has
    /// not joined that turn, if the turn was aborted. No event announces the turn that it began.
    fn leave_unreported(&mut self, at: At) {
        for (number, input) in self.inputs.iter_mut().enumerate() {
            // Where the agent has said what it took the input into, there is nothing to guess.
            let known = input.turn.is_some() || self.attributed.contains(&number);
            let sent_into = input.active.filter(|_| !known);
            let Some(turn) = sent_into.map(|turn| &self.turns[turn]) else {
                continue;
            };
            let first = turn.interrupts.first();
            let answers = self.abort_answers.iter();
            let mut cuts = answers.filter(|answer| **answer > turn.begun);
            let after = first.is_some_and(|first| self.interrupts[*first].at < input.at)
                || cuts.any(|cut| *cut < input.at);
            if after && turn.ending().is_some_and(|ending| ending.aborted()) {
                input.active = None;
            } else {
                input.unreported.get_or_insert(at);
            }
        }
    }
}

/// Whether an input can do nothing but begin a turn.
fn begins_for_sure(input: &Input<'_>) -> bool {
    match input.mode {
        InputMode::Replace => true,
        InputMode::Start => input.active.is_none(),
        InputMode::Steer => false,
    }
}

#[cfg(test)]
mod tests {
    use super::InterruptState;
    use crate::testing::{Tracer, user};
    use crate::view::View;
    use cutpoint_trace::{ClientOp, InputMode, TurnEnd};

    #[test]
    fn input_that_joins_a_turn_is_not_taken_for_the_next_ones() {
        let mut t = Tracer::new();
        t.input("one", InputMode::Start).started("t1");
        t.input("joins", InputMode::Start).completed("t1");
        t.input("two", InputMode::Start).started("t2");
        let trace = t.trace();
        let view = View::new(&trace);
        let owners: Vec<_> = view.inputs.iter().map(super::Input::owner).collect();
        assert_eq!(owners, [Some(0), Some(0), Some(1)]);
        assert_eq!(view.turns[1].input, Some(2));
    }

    #[test]
    fn input_that_overtook_the_announcement_of_its_turn_belongs_to_it() {
        let mut t = Tracer::new();
        t.input("one", InputMode::Start);
        t.input("two", InputMode::Steer).started("t1");
        t.request(1, &[user("one"), user("two")]).finish(1);
        t.completed("t1");
        let trace = t.trace();
        let view = View::new(&trace);
        let owners: Vec<_> = view.inputs.iter().map(super::Input::owner).collect();
        assert_eq!(owners, [Some(0), Some(0)]);
    }

    #[test]
    fn input_that_missed_its_turn_begins_the_next() {
        let mut t = Tracer::new();
        t.input("one", InputMode::Start).started("t1");
        t.input("late", InputMode::Start).completed("t1");
        let trace = t.started("t2").trace();
        assert_eq!(View::new(&trace).turns[1].input, Some(1));
    }

    #[test]
    fn an_end_without_an_id_ends_the_oldest_active_turn() {
        let mut t = Tracer::new();
        t.start("t1", "one").input("two", InputMode::Replace);
        t.reply(Some("t2"));
        t.ended(None, TurnEnd::Aborted { reason: None });
        t.started("t2").ended(None, TurnEnd::Complete);
        let trace = t.trace();
        let view = View::new(&trace);
        let ends = |turn: usize| view.turns[turn].ending().map(|ending| ending.in_words());
        assert_eq!((ends(0), ends(1)), (Some("aborted"), Some("complete")));
    }

    #[test]
    fn an_interrupt_meets_what_was_there_when_it_was_sent() {
        let mut t = Tracer::new();
        t.interrupt().input("one", InputMode::Start).interrupt();
        t.reply(None).started("t1").interrupt();
        let turn_id = Some("t0".into());
        t.op(ClientOp::Interrupt { turn_id }).kill().interrupt();
        let trace = t.trace();
        let view = View::new(&trace);
        let states: Vec<_> = view.interrupts.iter().map(|known| known.state).collect();
        let expected = [
            InterruptState::Idle,
            InterruptState::Early,
            InterruptState::Active(0),
            InterruptState::Misnamed,
            InterruptState::Down,
        ];
        assert_eq!(states, expected);
    }

    #[test]
    fn an_agent_that_is_taken_away_counts_as_killed() {
        let killed = |shutdown: bool| {
            let mut t = Tracer::new();
            t.start("t1", "one");
            if shutdown {
                t.op(ClientOp::Shutdown);
            }
            let trace = t.exit().trace();
            View::new(&trace).turns[0].killed.is_some()
        };
        assert_eq!((killed(false), killed(true)), (true, false));
    }
}
