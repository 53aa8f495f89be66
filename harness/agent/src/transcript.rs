//! The transcript: what a person sees of a session. Events in, lines out.
//!
//! A client's view is fed by a queue, so an event may reach it late, when its turn has ended and
//! the next one runs. What such an event says must not show up as if the running turn said it.

use std::collections::HashSet;

use cutpoint_protocol::ids::{CallId, SubmissionId, TurnId};
use cutpoint_protocol::session::{AbortReason, Event, EventMsg};

use crate::defect::{Defect, DefectSet};

/// The view of one session: a reducer of its events, without any I/O.
#[derive(Debug, Clone, Default)]
pub struct Transcript {
    defects: DefectSet,
    active: Option<ShownTurn>,
    /// The turns whose end was seen.
    ended: HashSet<TurnId>,
    /// What the active turn has streamed of the message that it is writing.
    answer: String,
    /// What the active turn has streamed of its reasoning.
    reasoning: String,
}

#[derive(Debug, Clone)]
struct ShownTurn {
    id: TurnId,
    /// The submission that started it: an error carries that and no turn id.
    submission: SubmissionId,
}

/// A line of the view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TranscriptLine {
    /// What the user said.
    User {
        /// The text.
        text: String,
    },
    /// A message of the model, whole or as far as it came.
    Message {
        /// The active turn.
        turn_id: Option<TurnId>,
        /// The text.
        text: String,
    },
    /// A summary of the model's reasoning, whole or as far as it came.
    Reasoning {
        /// The active turn.
        turn_id: Option<TurnId>,
        /// The text.
        text: String,
    },
    /// A command that has begun or ended.
    Command {
        /// The call.
        call_id: CallId,
        /// The command line, or how it ended.
        text: String,
    },
    /// Something that waits for the user.
    Waiting {
        /// The call.
        call_id: CallId,
        /// What is asked.
        text: String,
    },
    /// An error.
    Error {
        /// The text.
        text: String,
        /// The turn that counts as stopped because of it.
        stopped: Option<TurnId>,
    },
    /// How a turn ended, where it neither completed nor failed.
    Status {
        /// The text.
        text: String,
    },
}

impl Transcript {
    /// An empty view. A resumed session begins with one, too.
    pub fn new(defects: DefectSet) -> Self {
        Self {
            defects,
            ..Self::default()
        }
    }

    /// Takes the next event and gives the lines that are new because of it.
    pub fn take(&mut self, event: &Event) -> Vec<TranscriptLine> {
        match &event.msg {
            EventMsg::TurnStarted { turn_id } => {
                self.begin(turn_id, &event.id);
                Vec::new()
            }
            EventMsg::UserMessage { turn_id, message } => self.user(turn_id, message),
            EventMsg::AgentMessageDelta { turn_id, delta } => self.answer_piece(turn_id, delta),
            EventMsg::AgentReasoningDelta { turn_id, delta } => {
                if self.takes_piece(turn_id, self.reasoning.is_empty()) {
                    self.reasoning.push_str(delta);
                }
                Vec::new()
            }
            EventMsg::AgentMessage { turn_id, message } => self.message(turn_id, message),
            EventMsg::TurnComplete { turn_id, .. } => {
                self.ended.insert(turn_id.clone());
                self.close(turn_id)
            }
            EventMsg::TurnAborted { turn_id, reason } => self.aborted(turn_id, *reason),
            EventMsg::TurnFailed { turn_id, message } => self.failed(turn_id, message),
            EventMsg::StreamError { turn_id, message } => self.stream_error(turn_id, message),
            EventMsg::Error { message } => {
                let active = self.active.as_ref();
                let own = active.is_some_and(|active| active.submission == event.id);
                self.error(own, own, message).into_iter().collect()
            }
            call => self.call(call),
        }
    }

    /// Whether an event of this turn is none of the active turn's.
    fn is_stale(&self, turn_id: &TurnId) -> bool {
        self.active
            .as_ref()
            .is_none_or(|active| active.id != *turn_id)
    }

    fn active_id(&self) -> Option<TurnId> {
        self.active.as_ref().map(|active| active.id.clone())
    }

    fn begin(&mut self, turn_id: &TurnId, submission: &SubmissionId) {
        self.active = Some(ShownTurn {
            id: turn_id.to_owned(),
            submission: submission.to_owned(),
        });
        self.clear();
    }

    /// Forgets what was streamed: from now on something else is written.
    fn clear(&mut self) {
        if self.defects.contains(Defect::ViewBuffersKept) {
            return;
        }
        self.answer.clear();
        if !self.defects.contains(Defect::ViewReasoningKept) {
            self.reasoning.clear();
        }
    }

    fn user(&mut self, turn_id: &TurnId, message: &str) -> Vec<TranscriptLine> {
        let mut lines = Vec::new();
        if !self.is_stale(turn_id) {
            // What is on the screen stays above the user's words.
            lines = self.streamed();
            self.clear();
        }
        let text = message.to_owned();
        lines.push(TranscriptLine::User { text });
        lines
    }

    /// What was streamed and did not become a message, as it stands on the screen.
    fn streamed(&self) -> Vec<TranscriptLine> {
        let mut lines = Vec::new();
        let turn_id = self.active_id();
        if !self.reasoning.is_empty() {
            let (turn_id, text) = (turn_id.clone(), self.reasoning.clone());
            lines.push(TranscriptLine::Reasoning { turn_id, text });
        }
        if !self.answer.is_empty() {
            let text = self.answer.clone();
            lines.push(TranscriptLine::Message { turn_id, text });
        }
        lines
    }

    /// Whether a piece of that turn's text belongs on the screen.
    fn takes_piece(&self, turn_id: &TurnId, is_first: bool) -> bool {
        let unchecked = self.defects.contains(Defect::ViewTakesStaleText)
            || (self.defects.contains(Defect::ViewTakesStalePiece) && is_first);
        unchecked || !self.is_stale(turn_id)
    }

    fn answer_piece(&mut self, turn_id: &TurnId, delta: &str) -> Vec<TranscriptLine> {
        if !self.takes_piece(turn_id, self.answer.is_empty()) {
            return Vec::new();
        }
        let lines = self.reasoned();
        self.answer.push_str(delta);
        lines
    }

    /// The reasoning so far; what comes next is another line.
    fn reasoned(&mut self) -> Vec<TranscriptLine> {
        let text = std::mem::take(&mut self.reasoning);
        let turn_id = self.active_id();
        let line = (!text.is_empty()).then_some(TranscriptLine::Reasoning { turn_id, text });
        line.into_iter().collect()
    }

    fn message(&mut self, turn_id: &TurnId, message: &str) -> Vec<TranscriptLine> {
        if self.is_stale(turn_id) {
            return Vec::new();
        }
        let mut lines = self.reasoned();
        // What was streamed is on the screen already, so it is what stays there.
        let mut text = std::mem::take(&mut self.answer);
        if text.is_empty() {
            text.push_str(message);
        }
        let turn_id = self.active_id();
        if !text.is_empty() {
            lines.push(TranscriptLine::Message { turn_id, text });
        }
        lines
    }

    /// Ends the turn, if it is the active one. What it had streamed stays on the screen; the
    /// buffers are the next turn's to clear.
    fn close(&mut self, turn_id: &TurnId) -> Vec<TranscriptLine> {
        if self.is_stale(turn_id) {
            return Vec::new();
        }
        let lines = self.streamed();
        self.active = None;
        lines
    }

    fn aborted(&mut self, turn_id: &TurnId, reason: AbortReason) -> Vec<TranscriptLine> {
        let known = !self.ended.insert(turn_id.to_owned());
        if known && !self.defects.contains(Defect::AbortShownTwice) {
            return Vec::new();
        }
        let mut lines = self.close(turn_id);
        if self.defects.contains(Defect::AbortNotShown) && lines.is_empty() {
            return lines;
        }
        let text = match reason {
            AbortReason::Replaced if !self.defects.contains(Defect::ReplacedReadsInterrupted) => {
                "task aborted: replaced by a new task"
            }
            _ => "task interrupted",
        };
        let text = text.to_owned();
        lines.push(TranscriptLine::Status { text });
        lines
    }

    fn failed(&mut self, turn_id: &TurnId, message: &str) -> Vec<TranscriptLine> {
        let own = !self.is_stale(turn_id);
        let stops = own && !self.defects.contains(Defect::ViewMissesFailure);
        let error = self.error(own, stops, message);
        self.ended.insert(turn_id.to_owned());
        let mut lines = self.close(turn_id);
        lines.extend(error);
        lines
    }

    /// The turn goes on and asks anew, so what came so far is followed by another message.
    fn stream_error(&mut self, turn_id: &TurnId, message: &str) -> Vec<TranscriptLine> {
        let own = !self.is_stale(turn_id);
        let mut lines = Vec::new();
        if own {
            lines = self.streamed();
            self.clear();
        }
        lines.extend(self.error(own, false, message));
        lines
    }

    /// An error is shown whichever turn it belongs to; the active turn is stopped by its own alone.
    fn error(&self, own: bool, stops: bool, message: &str) -> Option<TranscriptLine> {
        if !own && self.defects.contains(Defect::ViewHidesStaleError) {
            return None;
        }
        let stops = stops || (!own && self.defects.contains(Defect::ViewStopsOnStaleError));
        let stopped = self.active_id().filter(|_| stops);
        let text = message.to_owned();
        Some(TranscriptLine::Error { text, stopped })
    }

    fn call(&mut self, msg: &EventMsg) -> Vec<TranscriptLine> {
        let waits = matches!(
            msg,
            EventMsg::ExecApprovalRequest { .. }
                | EventMsg::ApplyPatchApprovalRequest { .. }
                | EventMsg::UserInputRequest { .. }
        );
        let Some(turn_id) = msg.turn_id() else {
            return Vec::new();
        };
        let Some(line) = call_line(msg) else {
            return Vec::new();
        };
        // A question that is not shown is never answered, so only one that nobody waits for any
        // more may be left out.
        let progress = match waits {
            true => !self.ended.contains(turn_id),
            false => !self.is_stale(turn_id),
        };
        if !progress && !self.defects.contains(Defect::ViewShowsStaleCommand) {
            return Vec::new();
        }
        let mut lines = self.reasoned();
        lines.push(line);
        lines
    }
}

/// The line of an event that reports a call.
fn call_line(msg: &EventMsg) -> Option<TranscriptLine> {
    let waiting = |call_id: &CallId, text: String| {
        let call_id = call_id.to_owned();
        Some(TranscriptLine::Waiting { call_id, text })
    };
    match msg {
        EventMsg::ExecCommandBegin {
            call_id, command, ..
        } => Some(TranscriptLine::Command {
            call_id: call_id.clone(),
            text: command_line(command),
        }),
        EventMsg::ExecCommandEnd {
            call_id, exit_code, ..
        } => Some(TranscriptLine::Command {
            call_id: call_id.clone(),
            text: exit_code.map_or_else(|| "killed".to_owned(), |code| format!("exit code {code}")),
        }),
        EventMsg::ExecApprovalRequest {
            call_id, command, ..
        } => waiting(call_id, format!("run `{}`?", command_line(command))),
        EventMsg::ApplyPatchApprovalRequest { call_id, paths, .. } => {
            waiting(call_id, format!("change {}?", paths.join(", ")))
        }
        EventMsg::UserInputRequest {
            call_id, questions, ..
        } => waiting(call_id, questions.join(" ")),
        _ => None,
    }
}

/// A command as a person writes it: the words that only name the shell say nothing.
fn command_line(command: &[String]) -> String {
    match command {
        [_, option, script] if matches!(option.as_str(), "-c" | "-lc") => script.clone(),
        words => words.join(" "),
    }
}
