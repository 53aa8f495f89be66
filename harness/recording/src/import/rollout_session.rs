//! From the lines of a rollout to the requests and answers that they imply.

use cutpoint_protocol::rollout::{LineContent, TurnEnd};
use cutpoint_protocol::{Item, ItemKind, marker};
use serde_json::Value;

use super::call_outcome::CallOutcome;
use super::rollout_reader::{ParsedLine, TokenUsage};
use crate::normalise::message_parts;
use crate::problem::Problem;
use crate::session::TurnEndKind;

/// A request with what it was answered with, and what happened before the next one.
#[derive(Debug, Clone, Default)]
pub(super) struct ImportedExchange {
    /// The items that no request before it carried.
    pub(super) input: Vec<Item>,
    /// What the model answered.
    pub(super) answer: Vec<Item>,
    /// What it cost, where that is known.
    pub(super) usage: Option<Value>,
    /// How many texts the user wrote into the turn after the answer.
    pub(super) steers: usize,
    /// How the turn ended, if it ended after the answer.
    pub(super) end: Option<TurnEndKind>,
    /// The error that the turn failed with.
    pub(super) failure: Option<String>,
    /// Whether the client left before the answer was whole.
    pub(super) left: bool,
}

/// All that a rollout says about its session.
#[derive(Debug, Default)]
pub(super) struct RolloutSession {
    pub(super) exchanges: Vec<ImportedExchange>,
    /// The items after the last answer.
    pub(super) tail: Vec<Item>,
    pub(super) problems: Vec<Problem>,
    pub(super) model: Option<String>,
    pub(super) agent: Option<String>,
    pub(super) created: Option<String>,
}

/// Reads a session off its lines.
///
/// # Errors
/// If a line rewrites the history.
pub(super) fn read(lines: &[ParsedLine]) -> Result<RolloutSession, Problem> {
    let bracketed = |line: &ParsedLine| matches!(line.content, LineContent::TurnStarted(_));
    let mut reader = SessionReader {
        bracketed: lines.iter().any(bracketed),
        ..SessionReader::default()
    };
    for line in lines {
        reader.line(line)?;
    }
    reader.finish(lines.last());
    Ok(reader.session)
}

#[derive(Default)]
struct SessionReader {
    session: RolloutSession,
    /// Whether the rollout tells where turns start.
    bracketed: bool,
    /// Whether a turn runs.
    active: bool,
    /// How many exchanges there were when it started.
    first: usize,
    /// Whether the user's text that opens the turn has come.
    opened: bool,
    /// Items that the next request carries for the first time.
    input: Vec<Item>,
    /// The answer that is being read.
    answer: Vec<Item>,
    /// What it cost, where that was told before it.
    cost: Option<Value>,
    /// What the session has cost so far.
    total: Option<Value>,
    /// The error of the turn that is about to end.
    failure: Option<String>,
    /// Whether there are records of what responses cost.
    has_records: bool,
}

impl SessionReader {
    fn line(&mut self, line: &ParsedLine) -> Result<(), Problem> {
        match &line.content {
            LineContent::Item(item) => self.item(item),
            LineContent::TurnStarted(_) => self.start(),
            LineContent::TurnEnded(_, end) => self.ended(line, *end),
            LineContent::Compacted(_) => return Err(rewritten(line, "compacts")),
            LineContent::RolledBack(_) => return Err(rewritten(line, "rolls back")),
            LineContent::SessionMeta => {
                let session = &mut self.session;
                let version = line.text("cli_version").map(|version| {
                    let name = line.text("originator").unwrap_or("codex");
                    format!("{name} {version}")
                });
                session.agent = session.agent.take().or(version);
                let time = line.text("timestamp").unwrap_or(&line.line.timestamp);
                let time = Some(time.to_owned()).filter(|time| !time.is_empty());
                session.created = session.created.take().or(time);
            }
            LineContent::TurnContext => {
                let model = line.text("model").map(str::to_owned);
                self.session.model = self.session.model.take().or(model);
            }
            LineContent::Event(_) | LineContent::Unknown => {}
        }
        if let Some(usage) = line.usage() {
            self.usage(usage);
        }
        Ok(())
    }

    /// Takes down what a response has cost. Some versions write that after the response's items, some
    /// before them.
    fn usage(&mut self, usage: TokenUsage) {
        match &usage.total {
            None => self.has_records = true,
            Some(_) if self.has_records || self.total == usage.total => return,
            Some(_) => self.total = usage.total,
        }
        self.close();
        match self.session.exchanges[self.first..].last_mut() {
            Some(last) if last.usage.is_none() => last.usage = Some(usage.cost),
            _ => self.cost = Some(usage.cost),
        }
    }

    fn start(&mut self) {
        self.close();
        if self.active {
            // The rollout does not say how the turn ended.
            self.end(TurnEndKind::Killed);
        }
        self.active = true;
        self.opened = false;
        self.first = self.session.exchanges.len();
    }

    fn item(&mut self, item: &Item) {
        let from_client = match item.kind() {
            Some(ItemKind::Message) => item.role() != Some("assistant"),
            // With some models Codex reports its tools in the history.
            kind => kind == Some(ItemKind::AdditionalTools),
        };
        if item.output_kind().is_some() || from_client {
            self.close();
            if is_prompt(item) {
                self.prompt();
            }
            self.input.push(item.clone());
        } else {
            if !self.active {
                self.start();
                self.opened = true;
            }
            self.answer.push(item.clone());
        }
    }

    /// A text that the user wrote: it opens a turn, or goes into the one that runs.
    fn prompt(&mut self) {
        if !self.bracketed {
            self.guess_end();
        }
        if !self.active {
            self.start();
        }
        let since = self.first < self.session.exchanges.len();
        if std::mem::replace(&mut self.opened, true)
            && since
            && let Some(last) = self.session.exchanges.last_mut()
        {
            last.steers += 1;
        }
    }

    /// Old rollouts do not say where turns end: the turn was over when the user wrote again, and cut
    /// off if the model still owed an answer.
    fn guess_end(&mut self) {
        if !self.active {
            return;
        }
        let last = self.session.exchanges[self.first..].last();
        let whole = last.is_some_and(|last| !last.answer.iter().any(|it| it.call_kind().is_some()));
        self.end(if whole {
            TurnEndKind::Complete
        } else {
            TurnEndKind::Interrupted
        });
    }

    fn ended(&mut self, line: &ParsedLine, end: TurnEnd) {
        let replaced = line.text("reason") == Some("replaced");
        let message = || line.text("message").unwrap_or("failed").to_owned();
        self.failure = (end == TurnEnd::Failed).then(message);
        self.end(match end {
            TurnEnd::Complete => TurnEndKind::Complete,
            TurnEnd::Aborted if replaced => TurnEndKind::Replaced,
            TurnEnd::Aborted => TurnEndKind::Interrupted,
            TurnEnd::Failed => TurnEndKind::Failed,
        });
    }

    /// Ends the answer that is being read.
    fn close(&mut self) {
        if self.answer.is_empty() {
            return;
        }
        self.session.exchanges.push(ImportedExchange {
            input: std::mem::take(&mut self.input),
            answer: std::mem::take(&mut self.answer),
            usage: self.cost.take(),
            ..ImportedExchange::default()
        });
    }

    fn end(&mut self, end: TurnEndKind) {
        self.close();
        if !self.active {
            return;
        }
        self.active = false;
        if end != TurnEndKind::Complete && self.opened && !self.was_cut(end) {
            // The client left a request that had not been answered yet.
            self.session.exchanges.push(ImportedExchange {
                input: std::mem::take(&mut self.input),
                left: true,
                ..ImportedExchange::default()
            });
        }
        match self.session.exchanges[self.first..].last_mut() {
            Some(last) => {
                last.end = Some(end);
                last.failure = self.failure.take();
            }
            // A turn without a request: whatever it was, no model took part in it.
            None => self.opened = false,
        }
    }

    /// Whether the last answer of the turn is the one that was cut off, or its calls were.
    fn was_cut(&mut self, end: TurnEndKind) -> bool {
        let input = &self.input;
        let Some(last) = self.session.exchanges[self.first..].last_mut() else {
            return false;
        };
        let calls = last.answer.iter().filter(|item| item.call_kind().is_some());
        let mut calls = calls.filter_map(Item::call_id).peekable();
        if calls.peek().is_some() {
            let cut = |id: &str| {
                let output = input
                    .iter()
                    .find(|it| it.output_kind().is_some() && it.call_id() == Some(id));
                output.is_none_or(|output| CallOutcome::of(output).exit_code.is_none())
            };
            return calls.any(cut);
        }
        // A message that was cut off has no id of the API's; after a whole one a word of the user's
        // led to a further request.
        let failed = end == TurnEndKind::Failed;
        last.left =
            failed || last.steers == 0 || last.answer.iter().any(|item| item.id().is_none());
        last.left
    }

    fn finish(&mut self, last: Option<&ParsedLine>) {
        self.close();
        if self.active {
            let whole = |exchange: &ImportedExchange| {
                !exchange.answer.iter().any(|it| it.call_kind().is_some())
            };
            let done = self.input.iter().all(|item| item.role() != Some("user"));
            let answered = self.session.exchanges[self.first..]
                .last()
                .is_some_and(whole);
            if !self.bracketed && answered && done {
                self.end(TurnEndKind::Complete);
            } else {
                if let Some(line) = last.filter(|_| self.opened) {
                    let (file, number) = &line.place;
                    let message =
                        "the last turn has no end here: it is imported as one that was interrupted";
                    let problem = Problem::warning(file, *number, message);
                    self.session.problems.push(problem);
                }
                self.end(TurnEndKind::Interrupted);
            }
        }
        self.session.tail = std::mem::take(&mut self.input);
    }
}

/// Whether a person wrote the message, and not the agent in the person's name.
pub(crate) fn is_prompt(item: &Item) -> bool {
    prompt_text(item).is_some()
}

/// What a person wrote, without what the agent has put around it.
pub(crate) fn prompt_text(item: &Item) -> Option<String> {
    let is_user = item.kind() == Some(ItemKind::Message) && item.role() == Some("user");
    if !is_user || marker::is_marker(item) {
        return None;
    }
    Some(message_text(item)).filter(|text| !text.is_empty())
}

/// What a message says that is not about the machine.
pub(super) fn message_text(item: &Item) -> String {
    let mut parts = message_parts(item);
    parts.retain(|part| !part.is_empty());
    parts.join("\n")
}

fn rewritten(line: &ParsedLine, how: &str) -> Problem {
    let (file, number) = &line.place;
    let before = number - 1;
    let message = format!(
        "this line {how} the history, which an import cannot follow: import what stands before it with --until-line {before}"
    );
    Problem::error(file, *number, message)
}
