//! A case as its user saw it, with the scenario's steps between the lines.

use std::collections::HashMap;

use cutpoint_protocol::ids::{CallId, TurnId};
use cutpoint_trace::{
    AbortReason, AgentEvent, ClientOp, Feature, Observation, ShownLine, Trace, TurnEnd,
};

use crate::case_details::HEADING_INDENT;
use crate::layout::{Layout, Style, StyledLine};
use crate::text::quote;

/// How wide a line's mark is, with the space after it.
const MARK_WIDTH: usize = 2;
/// How much of a command is repeated where it ends, in characters.
const COMMAND_CHARS: usize = 40;

/// The lines of a case.
pub(crate) fn transcript(trace: &Trace, width: usize) -> Layout {
    let mut printer = TranscriptPrinter {
        layout: Layout::new(Some(width)),
        ..TranscriptPrinter::default()
    };
    let observed = trace.header.agent.features.contains(&Feature::Transcript);
    let mut client_view = ClientView::default();
    for entry in &trace.entries {
        match &entry.observation {
            Observation::Step { text, .. } => {
                printer.act();
                printer.step = Some(text);
            }
            observation if acts(observation) => printer.act(),
            _ => {}
        }
        match &entry.observation {
            Observation::Shown { line } => printer.show(line),
            observation if !observed => client_view
                .see(observation)
                .iter()
                .for_each(|line| printer.show(line)),
            _ => {}
        }
    }
    printer.act();
    printer.layout
}

/// Returns true if the step that waited for its moment is done now.
fn acts(observation: &Observation) -> bool {
    matches!(
        observation,
        Observation::Op { .. }
            | Observation::Redelivered { .. }
            | Observation::Reading { .. }
            | Observation::Torn { .. }
            | Observation::AgentKilled
            | Observation::AgentStarted { .. }
    )
}

#[derive(Debug, Default)]
struct TranscriptPrinter<'a> {
    layout: Layout,
    /// The step that waits for its moment.
    step: Option<&'a str>,
    /// The calls that have begun, with their commands.
    begun: HashMap<String, String>,
    /// The call that the last line is about.
    last: Option<CallId>,
}

impl TranscriptPrinter<'_> {
    fn act(&mut self) {
        if let Some(step) = self.step.take() {
            self.last = None;
            row(&mut self.layout, Style::Dim, "→", Style::Dim, step);
        }
    }

    fn show(&mut self, line: &ShownLine) {
        let last = self.last.take();
        let (mark_style, mark, style) = match line {
            ShownLine::User { .. } => (Style::Emphasis, "›", Style::Emphasis),
            ShownLine::Message { .. } => (Style::Plain, "•", Style::Plain),
            ShownLine::Reasoning { .. } => (Style::Dim, "~", Style::Dim),
            ShownLine::Command { call_id, text } => {
                self.last = Some(call_id.clone());
                return self.command(call_id, text, last.as_ref() == Some(call_id));
            }
            ShownLine::Waiting { .. } => (Style::Warning, "?", Style::Plain),
            ShownLine::Error { .. } => (Style::Failure, "✗", Style::Plain),
            ShownLine::Status { .. } => (Style::Warning, "■", Style::Plain),
        };
        row(&mut self.layout, mark_style, mark, style, line.text());
    }

    /// The second line of a call says how it ended; if another line came between, it repeats the command.
    fn command(&mut self, call_id: &str, text: &str, is_next: bool) {
        let Some(command) = self.begun.get(call_id) else {
            self.begun.insert(call_id.to_owned(), text.to_owned());
            return row(&mut self.layout, Style::Success, "$", Style::Plain, text);
        };
        let text = match is_next {
            true => text.to_owned(),
            false => format!("{}: {text}", quote(command, COMMAND_CHARS)),
        };
        row(&mut self.layout, Style::Dim, "└", Style::Dim, &text);
    }
}

/// A text after its mark; its further lines stand below the first.
fn row(layout: &mut Layout, mark_style: Style, mark: &str, style: Style, text: &str) {
    let start = StyledLine::indented(HEADING_INDENT);
    let start = start.then(mark_style, format!("{mark:<MARK_WIDTH$}"));
    layout.paragraph(start, HEADING_INDENT + MARK_WIDTH, style, text);
}

/// What a user probably sees of an agent whose view is not observed: what its client receives.
#[derive(Debug, Default)]
struct ClientView {
    /// The text that was streamed since the last message.
    streamed: String,
}

impl ClientView {
    fn see(&mut self, observation: &Observation) -> Vec<ShownLine> {
        match observation {
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
