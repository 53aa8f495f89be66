//! A case as a person at the keyboard saw it, with the scenario's steps between the lines.

use std::collections::HashMap;

use cutpoint_protocol::ids::{CallId, TurnId};
use cutpoint_trace::{
    AbortReason, AgentEvent, ClientOp, Feature, Observation, ShownLine, Trace, TurnEnd,
};

use crate::line::{Line, Tone};
use crate::story::HEADING_INDENT;
use crate::text::{WIDTH, quote, wrap};

/// How wide a line's mark is, with the space behind it.
const MARK_WIDTH: usize = 2;
/// How much of a command is said again where it ends, in characters.
const COMMAND_CHARS: usize = 40;

/// The lines of a case.
pub(crate) fn transcript(trace: &Trace) -> Vec<Line> {
    let mut page = Page::default();
    let observed = trace.header.agent.features.contains(&Feature::Transcript);
    let mut guess = Guess::default();
    for entry in &trace.entries {
        match &entry.observation {
            Observation::Step { text, .. } => {
                page.act();
                page.step = Some(text);
            }
            what if acts(what) => page.act(),
            _ => {}
        }
        match &entry.observation {
            Observation::Shown { line } => page.show(line),
            what if !observed => guess.see(what).iter().for_each(|line| page.show(line)),
            _ => {}
        }
    }
    page.act();
    page.lines
}

/// Whether a step has waited for its moment and is done now.
fn acts(what: &Observation) -> bool {
    matches!(
        what,
        Observation::Op { .. }
            | Observation::Redelivered { .. }
            | Observation::Reading { .. }
            | Observation::Torn { .. }
            | Observation::AgentKilled
            | Observation::AgentStarted { .. }
    )
}

#[derive(Debug, Default)]
struct Page<'a> {
    lines: Vec<Line>,
    /// The step that waits for its moment.
    step: Option<&'a str>,
    /// The calls that have begun, with their commands.
    begun: HashMap<String, String>,
    /// The call that the last line is about.
    last: Option<CallId>,
}

impl Page<'_> {
    fn act(&mut self) {
        if let Some(step) = self.step.take() {
            self.last = None;
            row(&mut self.lines, Tone::Faint, "→", Tone::Faint, step);
        }
    }

    fn show(&mut self, line: &ShownLine) {
        let last = self.last.take();
        let (mark_tone, mark, tone) = match line {
            ShownLine::User { .. } => (Tone::Strong, "›", Tone::Strong),
            ShownLine::Message { .. } => (Tone::Plain, "•", Tone::Plain),
            ShownLine::Reasoning { .. } => (Tone::Faint, "~", Tone::Faint),
            ShownLine::Command { call_id, text } => {
                self.last = Some(call_id.clone());
                return self.command(call_id, text, last.as_ref() == Some(call_id));
            }
            ShownLine::Waiting { .. } => (Tone::Warn, "?", Tone::Plain),
            ShownLine::Error { .. } => (Tone::Bad, "✗", Tone::Plain),
            ShownLine::Status { .. } => (Tone::Warn, "■", Tone::Plain),
        };
        row(&mut self.lines, mark_tone, mark, tone, line.text());
    }

    /// The second line of a call tells how it ended; if another line came between, it says what.
    fn command(&mut self, call_id: &str, text: &str, is_next: bool) {
        let Some(command) = self.begun.get(call_id) else {
            self.begun.insert(call_id.to_owned(), text.to_owned());
            return row(&mut self.lines, Tone::Good, "$", Tone::Plain, text);
        };
        let text = match is_next {
            true => text.to_owned(),
            false => format!("{}: {text}", quote(command, COMMAND_CHARS)),
        };
        row(&mut self.lines, Tone::Faint, "└", Tone::Faint, &text);
    }
}

/// A text behind its mark; further lines of it stand below its first.
fn row(lines: &mut Vec<Line>, mark_tone: Tone, mark: &str, tone: Tone, text: &str) {
    let wrapped = wrap(text, WIDTH - HEADING_INDENT - MARK_WIDTH);
    for (n, text) in wrapped.into_iter().enumerate() {
        let mark = if n == 0 { mark } else { "" };
        let line = Line::indented(HEADING_INDENT);
        let line = line.then(mark_tone, format!("{mark:<MARK_WIDTH$}"));
        lines.push(line.then(tone, text));
    }
}

/// What is likely seen of an agent whose view is not observed: what its client is told.
#[derive(Debug, Default)]
struct Guess {
    /// What was streamed and is no message yet.
    streamed: String,
}

impl Guess {
    fn see(&mut self, what: &Observation) -> Vec<ShownLine> {
        match what {
            Observation::Op {
                op: ClientOp::Input { text, .. },
                ..
            } => vec![ShownLine::User { text: text.clone() }],
            Observation::Event { event, .. } => self.see_event(event),
            _ => Vec::new(),
        }
    }

    fn see_event(&mut self, event: &AgentEvent) -> Vec<ShownLine> {
        let waiting = |call_id: &CallId, text: String| {
            let call_id = call_id.to_owned();
            vec![ShownLine::Waiting { call_id, text }]
        };
        match event {
            AgentEvent::TurnStarted { .. } => self.streamed.clear(),
            AgentEvent::TextDelta { text, .. } => self.streamed.push_str(text),
            AgentEvent::Message { turn_id, text } => {
                let streamed = std::mem::take(&mut self.streamed);
                // A stream that broke may have left the start of another message.
                let earlier = streamed.strip_suffix(text.as_str()).unwrap_or_default();
                let texts = [earlier, text].into_iter().filter(|text| !text.is_empty());
                let message = |text: &str| ShownLine::Message {
                    turn_id: turn_id.clone(),
                    text: text.to_owned(),
                };
                return texts.map(message).collect();
            }
            AgentEvent::CallBegin {
                call_id, command, ..
            } => return command_line(call_id, command.clone()),
            AgentEvent::CallEnd {
                call_id, exit_code, ..
            } => {
                let killed = || "killed".to_owned();
                let how = exit_code.map_or_else(killed, |code| format!("exit code {code}"));
                return command_line(call_id, how);
            }
            AgentEvent::ApprovalRequest { call_id, .. } => {
                return waiting(call_id, format!("{call_id} waits for approval"));
            }
            AgentEvent::Question {
                call_id, questions, ..
            } => return waiting(call_id, questions.join(" ")),
            AgentEvent::Error { message, .. } => return vec![error(message)],
            AgentEvent::TurnEnded { turn_id, end } => return self.ended(turn_id.as_ref(), end),
            _ => {}
        }
        Vec::new()
    }

    fn ended(&mut self, turn_id: Option<&TurnId>, end: &TurnEnd) -> Vec<ShownLine> {
        let mut lines = Vec::new();
        let text = std::mem::take(&mut self.streamed);
        if !text.is_empty() {
            let turn_id = turn_id.cloned();
            lines.push(ShownLine::Message { turn_id, text });
        }
        match end {
            TurnEnd::Complete => {}
            TurnEnd::Aborted { reason } => {
                let text = match reason {
                    Some(AbortReason::Replaced) => "replaced by a new turn",
                    None | Some(AbortReason::Interrupted) => "interrupted",
                };
                let text = text.to_owned();
                lines.push(ShownLine::Status { text });
            }
            TurnEnd::Failed { message } => lines.push(error(message)),
        }
        lines
    }
}

fn command_line(call_id: &CallId, text: String) -> Vec<ShownLine> {
    let call_id = call_id.to_owned();
    vec![ShownLine::Command { call_id, text }]
}

fn error(message: &str) -> ShownLine {
    ShownLine::Error {
        text: message.to_owned(),
        stopped: None,
    }
}
