//! What was done to a conversation as a whole: forks, turns that were taken back, resumed rollouts.

use super::At;
use super::rollouts::{RecordedItem, RolloutFile};
use super::turns::Turns;
use cutpoint_trace::TaskKind;

/// A fork of the conversation.
#[derive(Debug, Clone, Copy)]
pub struct Fork {
    /// Where the client asked for it; the event if the client did not.
    pub asked: At,
    /// The event that says it was done.
    pub at: At,
    /// The newest turn that was active when the client asked for it.
    pub turn: Option<usize>,
    /// The newest turn that was active when it was done, or had started after the request for it: one
    /// that had been on its way may be in the fork as interrupted.
    pub met: Option<usize>,
    /// The start of the agent with which the conversation went on in the fork; nothing if it did
    /// not: a client whose agent ends meanwhile may stay with what the fork was taken from.
    pub entered: Option<At>,
}

/// Turns that were taken out of the history.
#[derive(Debug, Clone)]
pub struct Rollback {
    /// The event that says it was done.
    pub at: At,
    /// What was observed from here on, and before that event, is gone.
    pub from: At,
    /// The turns, as indexes into the view's turns.
    pub turns: Vec<usize>,
    /// The inputs, as indexes into the view's inputs.
    pub inputs: Vec<usize>,
}

/// A session that was continued from a rollout which had been read before.
#[derive(Debug, Clone)]
pub struct Resumption {
    /// The start of the agent.
    pub at: At,
    /// What the rollout's whole lines held then, in order, after the last line that replaced the
    /// history or took turns out of it.
    pub held: Vec<RecordedItem>,
    /// Where the harness tore the rollout since it had been read whole.
    pub torn: Option<At>,
}

impl Turns<'_> {
    pub(super) fn fork_asked(&mut self, at: At) {
        self.fork_asked = Some((at, self.active()));
    }

    pub(super) fn forked(&mut self, at: At) {
        let (asked, turn) = self.fork_asked.take().unwrap_or((at, self.active()));
        let meanwhile = self.turns.last().is_some_and(|turn| turn.begun > asked);
        let newest = meanwhile.then(|| self.turns.len() - 1);
        self.forks.push(Fork {
            asked,
            at,
            turn,
            met: self.active().or(newest),
            entered: None,
        });
    }

    /// Finds out which forks the conversation went on in, once all reads of rollouts are known.
    pub(super) fn enter_forks(&mut self, files: &[RolloutFile<'_>]) {
        for place in 0..self.forks.len() {
            let at = self.forks[place].at;
            let until = self.forks.get(place + 1).map_or(At::MAX, |next| next.at);
            let starts = self.starts.iter().map(|start| start.at);
            let mut starts = starts.skip_while(|start| *start < at).peekable();
            while let Some(start) = starts.next_if(|start| *start < until) {
                let end = starts.peek().map_or(At::MAX, |next| *next);
                if !goes_on_in_an_older_file(files, at, start, end) {
                    self.forks[place].entered = Some(start);
                    break;
                }
            }
        }
    }

    /// The last turns that the user began are gone, with everything since the first of them.
    pub(super) fn rolled_back(&mut self, at: At, count: usize) {
        let lineage = self.lineage();
        let begun_by = |turn: &super::Turn<'_>| {
            // A review is a turn like any other: a message in the user's name opens it.
            let is_turn =
                |input: &usize| matches!(self.inputs[*input].task, None | Some(TaskKind::Review));
            let input = turn.input.filter(is_turn)?;
            let stands = turn.lineage == lineage && turn.rolled_back.is_none();
            stands.then_some((self.inputs[input].at.min(turn.begun), turn.begun))
        };
        let last = self.turns.iter().rev().filter_map(begun_by).take(count);
        let (from, begun) = last
            .reduce(|one, other| (one.0.min(other.0), one.1.min(other.1)))
            .unwrap_or((at, at));
        let places = |all: Vec<At>, from: At| -> Vec<usize> {
            let found = all.iter().enumerate().filter(|(_, begun)| **begun >= from);
            found.map(|(place, _)| place).collect()
        };
        // A turn may have begun between the input for the next one and the start of that.
        let turns = places(self.turns.iter().map(|turn| turn.begun).collect(), begun);
        let mut inputs = places(self.inputs.iter().map(|input| input.at).collect(), from);
        // Ops are taken in order: what was said after the request is not what it takes back.
        let asked = self.rollback_asked.take().unwrap_or(at);
        inputs.retain(|input| self.inputs[*input].at < asked);
        for turn in &turns {
            self.turns[*turn].rolled_back.get_or_insert(at);
        }
        // A message that says the same later on is another input's.
        for known in self.by_text.values_mut() {
            known.retain(|input| !inputs.contains(input));
        }
        self.rollbacks.push(Rollback {
            at,
            from,
            turns,
            inputs,
        });
    }
}

/// Whether a file that had been read before a fork is read in a session.
fn goes_on_in_an_older_file(files: &[RolloutFile<'_>], fork: At, start: At, end: At) -> bool {
    let mut older = files.iter().filter(|file| file.read_between(0, fork));
    older.any(|file| file.read_between(start, end))
}
