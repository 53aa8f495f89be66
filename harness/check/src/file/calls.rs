//! Calls and their outputs in a file.

use std::collections::VecDeque;
use std::hash::BuildHasher as _;

use cutpoint_protocol::item::{CallKind, OutputKind};
use foldhash::fast::RandomState;

use super::{CALL_1, CALL_2, Position, Report};
use crate::fast_hash::{HashMap, HashSet};

/// How many answered calls are remembered, to distinguish a second output from one without a call.
const REMEMBERED: usize = 4096;

/// The calls of a file that wait for their output.
#[derive(Debug, Default)]
pub(super) struct Calls {
    open: HashMap<Box<str>, OpenCall>,
    answered: Answered,
    /// Outputs whose call may have stood on a line that could not be read.
    excused_outputs: u64,
}

#[derive(Debug)]
struct OpenCall {
    kind: CallKind,
    at: Position,
    /// Nothing is missed if no output comes.
    excused: bool,
    /// The line on which the user spoke since.
    passed: Option<u64>,
}

impl Calls {
    pub(super) fn call(&mut self, kind: CallKind, id: &str, at: Position, report: &mut Report) {
        if id.is_empty() {
            report.breach(
                CALL_2,
                "empty-call-id",
                at,
                "a call without a call_id".to_owned(),
            );
            return;
        }
        report.exercised(CALL_1);
        let call = OpenCall {
            kind,
            at,
            excused: false,
            passed: None,
        };
        let known = self.open.insert(id.into(), call).is_some();
        if known || self.answered.has(id) {
            report.breach(
                CALL_2,
                "repeated-call",
                at,
                format!("a second call with the id {id}"),
            );
        }
    }

    /// Takes an output; its call may stand in another file.
    pub(super) fn output(
        &mut self,
        kind: OutputKind,
        id: &str,
        elsewhere: bool,
        at: Position,
        report: &mut Report,
    ) {
        report.exercised(CALL_2);
        if id.is_empty() {
            report.breach(
                CALL_2,
                "empty-call-id",
                at,
                "an output without a call_id".to_owned(),
            );
            return;
        }
        if let Some(call) = self.open.remove(id) {
            self.answered.remember(id);
            if !kind.answers(call.kind) {
                let message = format!(
                    "a {} answers the {} {id} of line {}",
                    kind.in_words(),
                    call.kind.in_words(),
                    call.at.line
                );
                report.breach(CALL_1, "wrong-output-kind", at, message);
            }
        } else if self.answered.has(id) {
            report.breach(
                CALL_2,
                "second-output",
                at,
                format!("a second output for call {id}"),
            );
        } else if self.excused_outputs > 0 {
            self.excused_outputs -= 1;
        } else if !elsewhere {
            let message = format!("an output without a call before it: {id}");
            report.breach(CALL_2, "orphan-output", at, message);
        }
    }

    /// A turn starts: the calls of those before it should have their outputs.
    pub(super) fn turn_starts(&mut self, at: Position, report: &mut Report) {
        self.report_missing(report, |call| (!call.excused).then_some(at.line));
    }

    /// The user speaks, in a file that does not bracket turns. It may be to a turn that runs, so a call
    /// is missed when they speak again, or at the end.
    pub(super) fn user_speaks(&mut self, at: Position, report: &mut Report) {
        self.end(report);
        for call in self.open.values_mut() {
            call.passed.get_or_insert(at.line);
        }
    }

    /// Nothing more comes.
    pub(super) fn end(&mut self, report: &mut Report) {
        self.report_missing(report, |call| call.passed.filter(|_| !call.excused));
    }

    fn report_missing(&mut self, report: &mut Report, later: impl Fn(&OpenCall) -> Option<u64>) {
        let mut missed: Vec<(Position, String)> = Vec::new();
        for (id, call) in &mut self.open {
            let Some(line) = later(call) else { continue };
            // An output that comes later is still this call's; nothing is reported twice.
            call.excused = true;
            let message = format!("call {id} has no output, and line {line} starts the next turn");
            missed.push((call.at, message));
        }
        missed.sort_by_key(|(at, _)| at.line);
        for (at, message) in missed {
            report.breach(CALL_1, "no-output", at, message);
        }
    }

    /// The history was replaced: the file does not show which calls it has.
    pub(super) fn compacted(&mut self) {
        self.excuse();
        self.answered = Answered::default();
    }

    /// Turns were taken out of the history, and what they had open with them.
    pub(super) fn rolled_back(&mut self) {
        self.open.clear();
        self.answered = Answered::default();
    }

    pub(super) fn lost_a_line(&mut self) {
        self.excuse();
        self.excused_outputs += 1;
    }

    #[cfg(test)]
    pub(super) fn is_small(&self) -> bool {
        self.open.is_empty() && self.answered.order.len() <= REMEMBERED
    }

    fn excuse(&mut self) {
        self.open.values_mut().for_each(|call| call.excused = true);
    }
}

/// The ids of the calls that were answered last, by their hashes.
#[derive(Debug, Default)]
struct Answered {
    hasher: RandomState,
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Answered {
    fn has(&self, id: &str) -> bool {
        !self.known.is_empty() && self.known.contains(&self.hasher.hash_one(id))
    }

    fn remember(&mut self, id: &str) {
        let hash = self.hasher.hash_one(id);
        if self.known.insert(hash) {
            self.order.push_back(hash);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}
