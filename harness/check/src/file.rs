//! The rules that apply to a rollout file alone, without a run that was watched.
//!
//! A [`Checker`] is fed line by line. What it keeps is bounded by the calls and turns that are open,
//! not by the file. It reports only what the file shows: where an agent may have acted correctly in a
//! way that leaves no trace there, a finding is no more than a warning, or there is none.

mod calls;
mod line;
mod turns;

use cutpoint_protocol::ItemKind;
use cutpoint_protocol::item::all_text;
use cutpoint_protocol::marker;
use cutpoint_protocol::rollout::{TurnEnd, turn_event};
use serde_json::{Map, Value};

use self::calls::Calls;
use self::line::{LineFields, LineForm, PayloadFields};
use self::turns::{Ended, Turns};
use cutpoint_trace::verdict::Level;

/// A rule as it applies to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileRule {
    /// The rule's id in the book.
    pub id: &'static str,
    /// What it demands of a file.
    pub sentence: &'static str,
    /// What exercises it. Sessions that lack this do not exercise it.
    pub exercised_when: &'static str,
}

const ROLL_1: usize = 0;
const ROLL_4: usize = 1;
const ROLL_6: usize = 2;
const CALL_1: usize = 3;
const CALL_2: usize = 4;
const MARK_3: usize = 5;
const MARK_4: usize = 6;

/// Every rule that a file alone can break.
pub const RULES: [FileRule; 7] = [
    FileRule {
        id: "ROLL-1",
        sentence: "Each line is whole JSON of the form that the file's lines have; line types that are not \
                   known are no breach. A torn last line without its line break is a warning.",
        exercised_when: "the file has a line",
    },
    FileRule {
        id: "ROLL-4",
        sentence: "Turns start and end once, in order and without overlap, and ordinals grow by one.",
        exercised_when: "a line starts a turn, or follows another with an ordinal; older generations \
                         have neither",
    },
    FileRule {
        id: "ROLL-6",
        sentence: "A turn that was open when its session was opened again ends as interrupted.",
        exercised_when: "a `session_meta` line stands within a turn",
    },
    FileRule {
        id: "CALL-1",
        sentence: "A call has an output of its kind before the next turn starts.",
        exercised_when: "the file has a call",
    },
    FileRule {
        id: "CALL-2",
        sentence: "An output follows its call, no call has a second output or stands there twice, and no \
                   call_id is empty.",
        exercised_when: "the file has an output",
    },
    FileRule {
        id: "MARK-3",
        sentence: "An interrupted turn has one marker, after its items. That it has none is a warning: a \
                   turn that a crash cut off may have none.",
        exercised_when: "a `turn_aborted` line says that a turn was interrupted",
    },
    FileRule {
        id: "MARK-4",
        sentence: "A turn that completed, failed or was replaced has no marker.",
        exercised_when: "a line says that a turn ended so",
    },
];

/// What a file breaks, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule's id.
    pub rule: &'static str,
    /// The clause that was broken, as the book calls it if it has the same one.
    pub kind: &'static str,
    /// How much it weighs.
    pub level: Level,
    /// The line, counted from 1.
    pub line: u64,
    /// The byte within the line, counted from 1.
    pub column: u64,
    /// The byte within the file, counted from 0.
    pub byte: u64,
    /// What is wrong, in a sentence.
    pub message: String,
}

/// What became of a file's lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many lines there were, an unterminated last one included.
    pub lines: u64,
    /// How many of them could be read.
    pub read: u64,
    /// How often each rule was exercised, in the order of [`RULES`].
    pub exercised: [u64; RULES.len()],
}

/// A line's place in its file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Position {
    line: u64,
    byte: u64,
}

/// What was found and counted so far.
#[derive(Debug, Default)]
struct Report {
    findings: Vec<Finding>,
    tally: Tally,
}

impl Report {
    fn exercised(&mut self, rule: usize) {
        self.tally.exercised[rule] += 1;
    }

    fn breach(&mut self, rule: usize, kind: &'static str, at: Position, message: String) {
        self.find(rule, kind, Level::Must, (at, 1), message);
    }

    fn warning(&mut self, rule: usize, kind: &'static str, at: Position, message: String) {
        self.find(rule, kind, Level::Should, (at, 1), message);
    }

    fn find(
        &mut self,
        rule: usize,
        kind: &'static str,
        level: Level,
        (at, column): (Position, u64),
        message: String,
    ) {
        self.findings.push(Finding {
            rule: RULES[rule].id,
            kind,
            level,
            line: at.line,
            column,
            byte: at.byte + column - 1,
            message,
        });
    }
}

/// Checks a rollout, line by line.
#[derive(Debug, Default)]
pub struct Checker {
    report: Report,
    /// Whether the file is of the oldest generation, whose lines are bare.
    bare: Option<bool>,
    ordinal: Option<u64>,
    /// Whether the conversation begins in another file, from which this one was forked.
    begun_elsewhere: bool,
    turns: Turns,
    calls: Calls,
}

impl Checker {
    /// Takes the next whole line, without its line break, which starts at this byte of the file.
    pub fn line(&mut self, line: &[u8], byte: u64) {
        let at = self.next(byte);
        match LineFields::read(line) {
            Ok((form, line)) => self.take(form, &line, at),
            Err(unreadable) => {
                let message = format!("the line is {}", unreadable.why);
                let column = unreadable.column as u64;
                self.report
                    .find(ROLL_1, "bad-line", Level::Must, (at, column), message);
                self.lost();
            }
        }
    }

    /// Takes the last line, if it has no line break: it may be torn.
    pub fn tail(&mut self, line: &[u8], byte: u64) {
        let at = self.next(byte);
        match LineFields::read(line) {
            Ok((form, line)) => self.take(form, &line, at),
            Err(unreadable) => {
                let message = format!(
                    "the last line has no line break and is {}: a crash, or the agent still writes",
                    unreadable.why
                );
                let column = unreadable.column as u64;
                self.report
                    .find(ROLL_1, "torn-tail", Level::Should, (at, column), message);
                self.lost();
            }
        }
    }

    /// Takes note of a line that was not read, with the reason.
    pub fn skipped(&mut self, byte: u64, why: &str) {
        let at = self.next(byte);
        self.report.breach(ROLL_1, "not-read", at, why.to_owned());
        self.lost();
    }

    /// The findings since they were asked for last, in the order of the lines that showed them.
    pub fn findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.report.findings)
    }

    /// The end of the file: the remaining findings.
    pub fn finish(mut self) -> (Vec<Finding>, Tally) {
        self.turns.settle(&mut self.report);
        self.calls.end(&mut self.report);
        (self.report.findings, self.report.tally)
    }

    fn next(&mut self, byte: u64) -> Position {
        self.report.tally.lines += 1;
        self.report.exercised(ROLL_1);
        Position {
            line: self.report.tally.lines,
            byte,
        }
    }

    /// A line could not be read: what it said must not be missed in what follows.
    fn lost(&mut self) {
        self.ordinal = None;
        self.turns.lost_a_line();
        self.calls.lost_a_line();
    }

    fn take(&mut self, form: LineForm, line: &LineFields<'_>, at: Position) {
        self.report.tally.read += 1;
        let is_first = self.bare.is_none();
        let bare = *self.bare.get_or_insert(form.is_bare());
        if bare != form.is_bare() {
            let message = "the line is of another generation's form than the lines before it";
            self.report
                .breach(ROLL_1, "other-form", at, message.to_owned());
            return;
        }
        if let Some(ordinal) = line.ordinal {
            self.count(ordinal, at);
            self.begun_elsewhere |= is_first && ordinal > 0;
        }
        let fields = &line.fields;
        match (form, line.kind.or_empty()) {
            (LineForm::BareItem, kind) => self.item(kind, fields, at),
            (LineForm::BareHeader | LineForm::BareRecord, _) => {}
            (LineForm::Wrapped, "response_item") => self.item(fields.kind.or_empty(), fields, at),
            (LineForm::Wrapped, "event_msg") => self.event(fields, at),
            (LineForm::Wrapped, "session_meta") => {
                self.begun_elsewhere |= is_first && fields.forked_from.get().is_some();
                self.turns.reopened(at);
            }
            (LineForm::Wrapped, "compacted") => self.calls.compacted(),
            (LineForm::Wrapped, _) => {}
        }
    }

    fn count(&mut self, ordinal: u64, at: Position) {
        if let Some(before) = self.ordinal.replace(ordinal) {
            self.report.exercised(ROLL_4);
            if before.checked_add(1) != Some(ordinal) {
                let message = format!("ordinal {ordinal} follows {before}");
                self.report.breach(ROLL_4, "ordinal-gap", at, message);
            }
        }
    }

    fn event(&mut self, fields: &PayloadFields<'_>, at: Position) {
        let name = fields.kind.or_empty();
        let id = fields.turn_id.get();
        match turn_event(name) {
            Some(None) => {
                self.calls.turn_starts(at, &mut self.report);
                self.turns.start(id, at, &mut self.report);
            }
            Some(Some(end)) => {
                let ended = match (end, fields.reason.get()) {
                    (TurnEnd::Complete, _) => Ended::Completed,
                    (TurnEnd::Failed, _) => Ended::Failed,
                    (TurnEnd::Aborted, Some("interrupted")) => Ended::Interrupted,
                    (TurnEnd::Aborted, Some("replaced")) => Ended::Replaced,
                    (TurnEnd::Aborted, _) => Ended::OtherAbort,
                };
                self.turns
                    .end(id, ended, self.begun_elsewhere, at, &mut self.report);
            }
            None if name == "thread_rolled_back" => {
                self.turns.rolled_back();
                self.calls.rolled_back();
            }
            None => {}
        }
    }

    fn item(&mut self, kind: &str, fields: &PayloadFields<'_>, at: Position) {
        let kind = match kind {
            "" => Some(ItemKind::Message),
            kind => ItemKind::from_name(kind),
        };
        if let Some(call) = kind.and_then(ItemKind::call_kind) {
            self.calls
                .call(call, call_id(kind, fields), at, &mut self.report);
        } else if let Some(output) = kind.and_then(ItemKind::output_kind) {
            // What a fork's first turns answer may stand in the file that it was taken from.
            let elsewhere = self.begun_elsewhere && !self.turns.any_started();
            self.calls.output(
                output,
                call_id(kind, fields),
                elsewhere,
                at,
                &mut self.report,
            );
        } else if kind == Some(ItemKind::Message) && is_marker(fields) {
            self.turns.marker(at);
            return;
        } else if kind == Some(ItemKind::Message) && fields.role.get() == Some("user") {
            self.said(at);
            return;
        }
        self.turns.item(at);
    }

    fn said(&mut self, at: Position) {
        if !self.turns.any_started() {
            // In generations that do not bracket turns, a turn starts with what the user says.
            self.turns.settle(&mut self.report);
            self.calls.user_speaks(at, &mut self.report);
        }
    }
}

fn call_id<'a>(kind: Option<ItemKind>, fields: &'a PayloadFields<'_>) -> &'a str {
    let by_id = matches!(
        kind,
        Some(ItemKind::LocalShellCall | ItemKind::LocalShellCallOutput)
    );
    let id = fields.id.get().filter(|_| by_id);
    fields.call_id.get().or(id).unwrap_or_default()
}

/// Whether a message is a marker. Only a text that might be one is read as JSON.
fn is_marker(fields: &PayloadFields<'_>) -> bool {
    let Some(content) = fields
        .content
        .filter(|_| marker::may_mark(fields.role.get()))
    else {
        return false;
    };
    if !content.get().contains("turn_aborted") {
        return false;
    }
    let Ok(content) = serde_json::from_str::<Value>(content.get()) else {
        return false;
    };
    let item = Map::from_iter([("content".to_owned(), content)]);
    marker::is_marker_text(&all_text(&item))
}

#[cfg(test)]
mod tests;
