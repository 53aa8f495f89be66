//! Rollout files: their content after each read, each line parsed once.

use std::cell::RefCell;

use cutpoint_protocol::field::entry;
use cutpoint_protocol::ids::TurnId;
use cutpoint_protocol::item::all_text;
use cutpoint_protocol::marker;
use cutpoint_protocol::memo::{HeapSize, Memo};
use cutpoint_protocol::rollout::{LineContent, RolloutLine, TurnEnd};
use serde_json::Value;

use super::At;
use super::fork_rollback::Resumption;
use crate::fast_hash::HashMap;
use cutpoint_trace::{AgentEvent, Observation, ReadTrigger};

/// Stands for each byte that a tear has left of a character, so that places in the content are those in the
/// file. No line that a rollout writer wrote has it: JSON escapes it.
const CUT: char = '\u{1a}';

/// What a whole line of a rollout is to the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineKind {
    /// A line that is no rollout line, with the reason.
    Bad(String),
    /// A line that starts or ends a turn.
    Turn(Bracket),
    /// The marker of an interrupted turn.
    Marker,
    /// The note that the history was compacted.
    Compacted,
    /// The note that so many turns were taken out of the history.
    RolledBack(usize),
    /// What a tear left of a line, with a line feed that the agent put after it.
    Sealed,
    /// Any other line.
    Other,
}

/// A line that starts or ends a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bracket {
    /// The turn, if the line names it.
    pub turn_id: Option<TurnId>,
    /// How the turn ended; absent if the line starts it.
    pub end: Option<TurnEnd>,
}

/// What a line contains of a history, by the properties that distinguish a request's items.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RecordedItem {
    /// A call, with its id.
    Call(String),
    /// A call's output, with the call's id.
    Output(String),
    /// A message of the user, with its text.
    User(String),
    /// A message of the model, with its text.
    Assistant(String),
}

/// A whole line of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileLine {
    /// What it is.
    pub kind: LineKind,
    /// What it holds of a history, if it is a line of an item.
    pub held: Option<RecordedItem>,
    /// Where it ends, with its line break, in bytes from the file's beginning.
    pub end: usize,
    /// Its ordinal, in the forms that have one.
    pub ordinal: Option<u64>,
    /// The read that first showed it.
    pub read_at: At,
}

/// What a read changed of what was known of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The file was not known, or was known to be empty.
    First,
    /// Nothing, or the file only grew.
    Grew,
    /// A restarted agent dropped or changed an unterminated last line.
    Repaired,
    /// The file was changed while no agent ran.
    Outside,
    /// What was known is no longer the file's beginning.
    Rewritten {
        /// The length of the unchanged beginning in bytes.
        kept: usize,
        /// The length of what was known in bytes.
        known: usize,
    },
    /// The read does not continue where the known content ends.
    Gap {
        /// Where it starts, in bytes.
        from: u64,
        /// The length of what was known in bytes.
        known: usize,
    },
}

/// A read of a file.
#[derive(Debug, Clone, Copy)]
pub struct Read<'a> {
    /// The entry.
    pub at: At,
    /// What made the harness read it.
    pub trigger: &'a ReadTrigger,
    /// What it changed.
    pub change: Change,
    /// How long the file was, in bytes.
    pub length: usize,
    /// How many whole lines the file had.
    pub lines: usize,
    /// How many markers stood in them.
    pub markers: usize,
}

/// A read that failed.
#[derive(Debug, Clone, Copy)]
pub struct Unreadable<'a> {
    /// The entry.
    pub at: At,
    /// What made the harness read the file.
    pub trigger: &'a ReadTrigger,
    /// Why it failed.
    pub error: &'a str,
}

/// A rollout file.
#[derive(Debug)]
pub struct RolloutFile<'a> {
    /// Its path.
    pub path: &'a str,
    /// Each read, in order.
    pub reads: Vec<Read<'a>>,
    /// The whole lines that the last read showed.
    pub lines: Vec<FileLine>,
    /// Lines that were found bad, with their number in the file, also if they are gone by now.
    pub bad: Vec<(usize, FileLine)>,
    /// The lines that the harness tore, in part or as a whole.
    pub torn: Vec<FileLine>,
    /// Where the rest of a torn line begins and ends, in bytes.
    stump: Option<(usize, usize)>,
    /// Where what had no line break yet begins and ends, and what showed it first.
    unended: Option<(usize, usize, At)>,
    content: String,
    /// The length of the whole lines in bytes.
    whole: usize,
    markers: usize,
    /// How many times the agent had been started before the last read.
    starts: usize,
    /// Whether the last read was made while no agent ran.
    down: bool,
}

/// Follows rollout files through a trace.
#[derive(Debug, Default)]
pub(super) struct Rollouts<'a> {
    pub(super) files: Vec<RolloutFile<'a>>,
    pub(super) unreadable: Vec<Unreadable<'a>>,
    pub(super) compactions: Vec<At>,
    pub(super) tears: Vec<At>,
    pub(super) resumptions: Vec<Resumption>,
    by_path: HashMap<&'a str, usize>,
    /// The file that was read or torn last: the one that a session is continued from.
    newest: Option<usize>,
}

/// What a read has to know of the agent.
#[derive(Debug, Clone, Copy)]
pub(super) struct AgentState {
    /// How many times it was started.
    pub(super) starts: usize,
    /// Whether it is not running.
    pub(super) down: bool,
}

impl<'a> Rollouts<'a> {
    pub(super) fn entry(&mut self, at: At, what: &'a Observation, agent: AgentState) {
        match what {
            Observation::Rollout {
                trigger,
                path,
                from,
                text,
            } => {
                let file = self.file(path);
                if file.read(at, trigger, *from, text, agent) {
                    self.compactions.push(at);
                }
            }
            Observation::Event {
                event: AgentEvent::Compacted { .. },
                ..
            } => self.compactions.push(at),
            Observation::Torn { path, bytes } => {
                self.file(path).tear(at, *bytes);
                self.tears.push(at);
            }
            Observation::AgentStarted { resumed: true, .. } => self.resumed(at),
            Observation::RolloutUnreadable { trigger, error, .. } => {
                self.unreadable.push(Unreadable { at, trigger, error });
            }
            _ => {}
        }
    }

    fn file(&mut self, path: &'a str) -> &mut RolloutFile<'a> {
        let files = &mut self.files;
        let index = *self.by_path.entry(path).or_insert_with(|| {
            files.push(RolloutFile {
                path,
                reads: Vec::new(),
                lines: Vec::new(),
                bad: Vec::new(),
                torn: Vec::new(),
                stump: None,
                unended: None,
                content: String::new(),
                whole: 0,
                markers: 0,
                starts: 0,
                down: false,
            });
            files.len() - 1
        });
        self.newest = Some(index);
        &mut files[index]
    }

    /// The turns that each note in the newest file took out of the history.
    pub(super) fn rolled_back(&self) -> Vec<usize> {
        let file = self.newest.map(|newest| &self.files[newest]);
        let lines = file.into_iter().flat_map(|file| &file.lines);
        let notes = lines.filter_map(|line| match line.kind {
            LineKind::RolledBack(turns) => Some(turns),
            _ => None,
        });
        notes.collect()
    }

    fn resumed(&mut self, at: At) {
        let Some(file) = self.newest.map(|newest| &self.files[newest]) else {
            return;
        };
        let replaces =
            |line: &FileLine| matches!(line.kind, LineKind::Compacted | LineKind::RolledBack(_));
        // One that lacks its line break only may be taken for whole: then nothing before it counts.
        let replaced = file
            .stump()
            .is_some_and(|text| replaces(&read_line(text, at, 0)));
        let first = file
            .lines
            .iter()
            .rposition(replaces)
            .map_or(0, |last| last + 1);
        let first = if replaced { file.lines.len() } else { first };
        let held = file.lines[first..]
            .iter()
            .filter_map(|line| line.held.clone());
        let last = file
            .reads
            .last()
            .filter(|read| read.change == Change::Outside);
        self.resumptions.push(Resumption {
            at,
            held: held.collect(),
            torn: last
                .map(|read| read.at)
                .filter(|at| self.tears.last() == Some(at)),
        });
    }
}

impl<'a> RolloutFile<'a> {
    /// Whether it was read at one entry or after it, and before another.
    pub(super) fn read_between(&self, from: At, to: At) -> bool {
        let next = self.reads.partition_point(|read| read.at < from);
        self.reads.get(next).is_some_and(|read| read.at < to)
    }

    /// What a tear left of a line.
    fn stump(&self) -> Option<&str> {
        let (from, to) = self.stump?;
        self.content.get(from..to)
    }

    /// Takes a read; says whether it showed that the history was compacted.
    fn read(
        &mut self,
        at: At,
        trigger: &'a ReadTrigger,
        from: u64,
        text: &str,
        agent: AgentState,
    ) -> bool {
        let whole = (from == 0).then(|| self.in_step(text));
        let change = self.change(from, whole.as_deref().unwrap_or(text), agent);
        let parsed = match whole {
            Some(whole) => self.replace(whole),
            None => self.splice(from, text),
        };
        self.parse_new(at, agent.starts > self.starts);
        self.note_unended(at);
        self.reads.push(Read {
            at,
            trigger,
            change,
            length: self.content.len(),
            lines: self.lines.len(),
            markers: self.markers,
        });
        (self.starts, self.down) = (agent.starts, agent.down);
        let new = self.lines.get(parsed..).unwrap_or_default();
        new.iter().any(|line| line.kind == LineKind::Compacted)
    }

    /// Takes what the harness cut off the file's end. That is as good as a read: the rest is known.
    fn tear(&mut self, at: At, bytes: u64) {
        let left = self.content.len() as u64;
        let left = usize::try_from(left.saturating_sub(bytes)).unwrap_or(0);
        let boundary = self.content.floor_char_boundary(left);
        self.content.truncate(boundary);
        self.content
            .extend(std::iter::repeat_n(CUT, left - boundary));
        let whole = self.lines.partition_point(|line| line.end <= left);
        self.torn.extend(self.lines.drain(whole..));
        self.whole = self.lines.last().map_or(0, |line| line.end);
        self.stump = (self.whole < left).then_some((self.whole, left));
        self.note_unended(at);
        let is_marker = |line: &&FileLine| line.kind == LineKind::Marker;
        self.markers = self.lines.iter().filter(is_marker).count();
        self.reads.push(Read {
            at,
            trigger: &ReadTrigger::Exit,
            change: Change::Outside,
            length: left,
            lines: self.lines.len(),
            markers: self.markers,
        });
    }

    /// A read of the whole file shows as one character what a tear has left of another. In its place come as
    /// many as there are bytes of it.
    fn in_step(&self, text: &str) -> String {
        let (mut text, mut at) = (text.to_owned(), 0);
        while let Some(cut) = self.content[at..].find(CUT) {
            let from = at + cut;
            let left = self.content[from..].trim_start_matches(CUT).len();
            at = self.content.len() - left;
            let same = text.get(..from) == self.content.get(..from);
            if !same || !text[from..].starts_with(char::REPLACEMENT_CHARACTER) {
                break;
            }
            let to = from + char::REPLACEMENT_CHARACTER.len_utf8();
            text.replace_range(from..to, &self.content[from..at]);
        }
        text
    }

    fn note_unended(&mut self, at: At) {
        let (from, to) = (self.whole, self.content.len());
        let known = self
            .unended
            .filter(|known| (known.0, known.1) == (from, to));
        self.unended = known.or_else(|| (from < to).then_some((from, to, at)));
    }

    fn change(&self, from: u64, text: &str, agent: AgentState) -> Change {
        let known = self.content.len();
        match from {
            0 if known == 0 => Change::First,
            0 => self.rewritten(text, agent),
            // Bytes that are no UTF-8 were replaced, so that lengths need not agree.
            _ if from == known as u64 || self.content.contains('\u{fffd}') => Change::Grew,
            _ => Change::Gap { from, known },
        }
    }

    fn rewritten(&self, text: &str, agent: AgentState) -> Change {
        let known = self.content.len();
        let kept = common_prefix(&self.content, text);
        if kept == known {
            return Change::Grew;
        }
        let torn = self.whole < known;
        if torn && kept >= self.whole && agent.starts > self.starts {
            return Change::Repaired;
        }
        // No agent runs, and either none ran since the last read or the file was just cut.
        if agent.down && (self.down || kept == text.len()) && agent.starts == self.starts {
            return Change::Outside;
        }
        Change::Rewritten { kept, known }
    }

    /// Puts a text after the content, or in the place of its end; returns how many known lines
    /// that leaves.
    fn splice(&mut self, from: u64, text: &str) -> usize {
        let known = usize::try_from(from).ok();
        match known.and_then(|from| self.content.get(..from)) {
            Some(kept) if kept.len() < self.content.len() => {
                let content = format!("{kept}{text}");
                self.replace(content)
            }
            _ => {
                self.content.push_str(text);
                self.lines.len()
            }
        }
    }

    /// Puts a text in the place of the content; returns how many known lines that leaves.
    fn replace(&mut self, text: String) -> usize {
        let kept = common_prefix(&self.content, &text);
        self.content = text;
        if kept < self.whole {
            self.lines.clear();
            self.whole = 0;
            self.markers = 0;
        }
        self.lines.len()
    }

    /// Reads the lines that are whole now. Where a restarted agent has put nothing but the line break
    /// after a line, the line itself is not new.
    fn parse_new(&mut self, at: At, restarted: bool) {
        while let Some(length) = self.content[self.whole..].find('\n') {
            let text = &self.content[self.whole..self.whole + length];
            let mut line = read_line(text, at, self.whole + length + 1);
            let is_stump = self.stump == Some((self.whole, self.whole + length));
            if is_stump && matches!(line.kind, LineKind::Bad(_)) {
                line.kind = LineKind::Sealed;
            }
            let left = self.unended.filter(|_| restarted);
            if let Some((from, to, shown)) = left
                && (from, to) == (self.whole, self.whole + length)
            {
                line.read_at = shown;
            }
            self.whole = line.end;
            self.markers += usize::from(line.kind == LineKind::Marker);
            if matches!(line.kind, LineKind::Bad(_)) {
                self.bad.push((self.lines.len() + 1, line.clone()));
            }
            self.lines.push(line);
        }
    }
}

/// What a line's text says by itself.
#[derive(Debug, Clone)]
struct Said {
    kind: LineKind,
    held: Option<RecordedItem>,
    ordinal: Option<u64>,
}

impl HeapSize for Said {
    fn heap_bytes(&self) -> usize {
        let text = match &self.held {
            Some(
                RecordedItem::Call(text)
                | RecordedItem::Output(text)
                | RecordedItem::User(text)
                | RecordedItem::Assistant(text),
            ) => text.capacity(),
            None => 0,
        };
        let turn = match &self.kind {
            LineKind::Turn(bracket) => bracket.turn_id.as_ref().map_or(0, |id| id.as_str().len()),
            _ => 0,
        };
        text + turn
    }
}

thread_local! {
    static READ: RefCell<Memo<Said>> = RefCell::default();
}

fn read_line(text: &str, read_at: At, end: usize) -> FileLine {
    let read = || {
        RolloutLine::parse(text).map(|line| Said {
            kind: kind(&line),
            held: held(&line),
            ordinal: line.ordinal,
        })
    };
    let said = READ.with_borrow_mut(|memo| memo.read(text.as_bytes(), read));
    let said = said.unwrap_or_else(|error| Said {
        kind: LineKind::Bad(error.to_string()),
        held: None,
        ordinal: None,
    });
    FileLine {
        kind: said.kind,
        held: said.held,
        end,
        ordinal: said.ordinal,
        read_at,
    }
}

/// What a line holds of a history.
fn held(line: &RolloutLine) -> Option<RecordedItem> {
    if line.kind != "response_item" {
        return None;
    }
    let text = |name: &str| entry(&line.payload, name).and_then(Value::as_str);
    let id = || text("call_id").or(text("id")).map(str::to_owned);
    let message = || all_text(&line.payload);
    match text("type").unwrap_or("message") {
        "function_call" | "custom_tool_call" | "local_shell_call" => id().map(RecordedItem::Call),
        "function_call_output" | "custom_tool_call_output" | "local_shell_call_output" => {
            id().map(RecordedItem::Output)
        }
        "message" => match text("role") {
            Some("user") => Some(RecordedItem::User(message())),
            Some("assistant") => Some(RecordedItem::Assistant(message())),
            _ => None,
        },
        _ => None,
    }
}

fn kind(line: &RolloutLine) -> LineKind {
    // Most lines are items, and reading one as an item copies it: only messages of some roles can be
    // markers.
    let may_mark = || marker::may_mark(entry(&line.payload, "role").and_then(Value::as_str));
    if line.kind == "response_item" && !may_mark() {
        return LineKind::Other;
    }
    match line.content() {
        LineContent::Item(item) if marker::is_marker(&item) => LineKind::Marker,
        LineContent::TurnStarted(turn_id) => LineKind::Turn(Bracket { turn_id, end: None }),
        LineContent::TurnEnded(turn_id, end) => LineKind::Turn(Bracket {
            turn_id,
            end: Some(end),
        }),
        LineContent::Compacted(_) => LineKind::Compacted,
        LineContent::RolledBack(turns) => LineKind::RolledBack(turns),
        _ => LineKind::Other,
    }
}

/// The length of what two texts begin with alike, in bytes.
fn common_prefix(one: &str, other: &str) -> usize {
    if other.starts_with(one) {
        return one.len();
    }
    let pairs = one.bytes().zip(other.bytes());
    pairs.take_while(|(one, other)| one == other).count()
}
