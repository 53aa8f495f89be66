//! Whether a stream is one that the Responses API could have sent.

use std::collections::BTreeMap;

use cutpoint_protocol::sse::{Document, Frame};
use cutpoint_protocol::{EventKind, Item, StreamEvent};

use crate::problem::Problem;

/// How many problems of one stream are told; a file of noise must not fill a screen for hours.
const PROBLEM_LIMIT: usize = 50;

/// The problems of one stream, in the order of its lines.
pub(crate) fn validate(document: &Document, file: &str) -> Vec<Problem> {
    let mut check = StreamCheck {
        file,
        problems: Vec::new(),
        next_number: 0,
        line: 1,
        first: true,
        cut_off: false,
        marked_cut: false,
        response_id: None,
        ended: None,
        items: BTreeMap::new(),
    };
    check.status(document);
    check.ending(document);
    let mut first_line = 1;
    for frame in &document.frames {
        check.frame(frame, first_line);
        first_line += line_endings(&frame.raw);
    }
    check.end(document);
    let mut problems = check.problems;
    if problems.len() > PROBLEM_LIMIT {
        let more = problems.len() - PROBLEM_LIMIT;
        problems.truncate(PROBLEM_LIMIT);
        let last = problems.last().map_or(0, |problem| problem.line);
        let message = format!("and {more} more problems in this file");
        problems.push(Problem::error(file, last, message));
    }
    problems
}

/// How many lines end in these bytes: CR, LF and CRLF count as one each.
fn line_endings(bytes: &[u8]) -> usize {
    let ends = |(at, byte): (usize, &u8)| match byte {
        b'\n' => true,
        b'\r' => bytes.get(at + 1) != Some(&b'\n'),
        _ => false,
    };
    bytes.iter().enumerate().filter(|pair| ends(*pair)).count()
}

/// An item that a stream has announced.
struct OpenItem {
    line: usize,
    id: Option<String>,
    call_id: Option<String>,
    done: bool,
}

struct StreamCheck<'a> {
    file: &'a str,
    problems: Vec<Problem>,
    next_number: u64,
    /// The line of the event at hand.
    line: usize,
    first: bool,
    /// Whether the last frame was cut off.
    cut_off: bool,
    /// Whether the capture itself says that it was cut off.
    marked_cut: bool,
    response_id: Option<String>,
    /// The terminal event's type and line.
    ended: Option<(String, usize)>,
    /// By output index.
    items: BTreeMap<u64, OpenItem>,
}

impl StreamCheck<'_> {
    fn error(&mut self, message: impl Into<String>) {
        self.problems
            .push(Problem::error(self.file, self.line, message));
    }

    fn warning(&mut self, message: impl Into<String>) {
        self.problems
            .push(Problem::warning(self.file, self.line, message));
    }

    fn status(&mut self, document: &Document) {
        let Some(status) = document.setting("status") else {
            return;
        };
        let valid = status.parse().is_ok_and(|n: u16| (100..=599).contains(&n));
        if !valid {
            self.error(format!("`status={status}` is no HTTP status (100 to 599)"));
        }
    }

    /// A capture that says how it was cut off ends where it is meant to end.
    fn ending(&mut self, document: &Document) {
        match document.setting("end") {
            None => {}
            Some("reset" | "close" | "stall") => self.marked_cut = true,
            Some(end) => self.error(format!(
                "`end={end}` is no way for a stream to end: write reset, close or stall"
            )),
        }
    }

    fn frame(&mut self, frame: &Frame, first_line: usize) {
        self.line = first_line;
        self.misread_directives(&frame.raw);
        self.line = frame.line;
        self.cut_off = !frame.complete && has_fields(&frame.wire);
        if std::str::from_utf8(&frame.raw).is_err() {
            self.error("is not text in UTF-8: clients would see replacement characters");
        }
        if self.cut_off && !self.marked_cut {
            self.warning("the last frame is not ended by an empty line, so no client sees it: add one, unless the capture was cut off here");
        }
        if let Some(event) = &frame.event {
            self.data(&event.event, &event.data);
        }
    }

    /// A comment that was meant for cutpoint and is not understood would go out to the client.
    fn misread_directives(&mut self, raw: &[u8]) {
        let text = String::from_utf8_lossy(raw).replace("\r\n", "\n");
        let start = self.line;
        for (at, line) in text.split(['\n', '\r']).enumerate() {
            let line = line.trim_start_matches('\u{FEFF}');
            let meant = line.strip_prefix(':').map(str::trim_start);
            let meant = meant.is_some_and(|text| text.starts_with("cutpoint "));
            if meant && cutpoint_protocol::sse::Directive::parse(line.as_bytes()).is_none() {
                self.line = start + at;
                self.warning(
                    "this directive is not understood: write `: cutpoint name=value name=value`",
                );
            }
        }
    }

    fn data(&mut self, name: &str, data: &str) {
        if data.trim() == "[DONE]" {
            let message = "the Responses API sends no `[DONE]`: remove the line, or keep it to see how the agent takes it";
            if self.ended.is_some() {
                self.warning(message);
            } else {
                self.error(message);
            }
            return;
        }
        let event = match StreamEvent::parse(data) {
            Ok(event) => event,
            Err(error) => return self.error(error.to_string()),
        };
        if !name.is_empty() && name != event.type_name() {
            self.error(format!(
                "the `event:` line says `{name}`, the data's type is `{}`: they must agree",
                event.type_name()
            ));
        }
        event
            .problems()
            .into_iter()
            .for_each(|message| self.error(message));
        self.order(&event);
        self.item_events(&event);
    }

    fn order(&mut self, event: &StreamEvent) {
        let name = event.type_name();
        let found = event.integer("sequence_number");
        if let Some(found) = found.filter(|found| *found != self.next_number) {
            self.error(format!(
                "`sequence_number` is {found}, expected {}: it starts at 0 and grows by 1",
                self.next_number
            ));
        }
        self.next_number = found.unwrap_or(self.next_number).saturating_add(1);

        let first = std::mem::replace(&mut self.first, false);
        match event.kind() {
            Some(EventKind::Created) if first => {
                self.response_id = event.response_id().map(str::to_owned);
            }
            Some(EventKind::Created) => {
                self.error("a second `response.created`: one stream is one response")
            }
            Some(EventKind::Error) => {}
            _ if first => self.error(format!(
                "the stream starts with `{name}`: `response.created` comes first"
            )),
            _ => {}
        }
        if let Some((terminal, line)) = &self.ended {
            let follows_error = terminal == "error" && event.kind() == Some(EventKind::Failed);
            if !follows_error {
                let message = format!(
                    "`{name}` comes behind `{terminal}` (line {line}), which ends the stream"
                );
                self.error(message);
            }
        }
        if event.is_terminal() {
            self.terminal(event);
        }
    }

    fn terminal(&mut self, event: &StreamEvent) {
        let (created, found) = (self.response_id.clone(), event.response_id());
        if let (Some(created), Some(found)) = (created, found)
            && created != found
        {
            self.error(format!(
                "`response.id` is `{found}`, that of `response.created` is `{created}`"
            ));
        }
        if event.kind() == Some(EventKind::Completed) {
            let open: Vec<_> = self.items.iter().filter(|(_, item)| !item.done).collect();
            let messages: Vec<_> = open
                .iter()
                .map(|(index, item)| {
                    format!(
                        "the item with output_index {index} (line {}) has no `response.output_item.done`",
                        item.line
                    )
                })
                .collect();
            messages.into_iter().for_each(|message| self.error(message));
        }
        self.ended = Some((event.type_name().to_owned(), self.line));
    }

    fn item_events(&mut self, event: &StreamEvent) {
        let Some(index) = event.integer("output_index") else {
            return;
        };
        match event.kind() {
            Some(EventKind::OutputItemAdded) => self.added(index, event.item()),
            Some(EventKind::OutputItemDone) => self.done(index, event.item()),
            _ => self.within(index, event),
        }
    }

    fn added(&mut self, index: u64, item: Option<Item>) {
        if let Some(before) = self.items.get(&index) {
            let message = format!("output_index {index} was taken on line {}", before.line);
            return self.error(message);
        }
        let expected = self.items.len() as u64;
        if index != expected {
            self.error(format!(
                "`output_index` is {index}, expected {expected}: it is the item's position in the output"
            ));
        }
        self.check_item(item.as_ref());
        let open = OpenItem {
            line: self.line,
            id: item.as_ref().and_then(Item::id).map(str::to_owned),
            call_id: item.as_ref().and_then(Item::call_id).map(str::to_owned),
            done: false,
        };
        self.items.insert(index, open);
    }

    fn done(&mut self, index: u64, item: Option<Item>) {
        self.check_item(item.as_ref());
        let (id, call_id) = (
            item.as_ref().and_then(Item::id),
            item.as_ref().and_then(Item::call_id),
        );
        let Some(open) = self.items.get_mut(&index) else {
            return self.error(format!(
                "`response.output_item.done` for output_index {index} comes without `response.output_item.added`"
            ));
        };
        let again = std::mem::replace(&mut open.done, true);
        let (line, same_id, same_call) = (
            open.line,
            open.id.as_deref() == id,
            open.call_id.as_deref() == call_id,
        );
        if again {
            self.error(format!(
                "a second `response.output_item.done` for output_index {index}"
            ));
        }
        if !same_id {
            self.error(format!(
                "the item's `id` is not the one it was added with on line {line}"
            ));
        }
        if !same_call {
            self.error(format!(
                "the item's `call_id` is not the one it was added with on line {line}"
            ));
        }
    }

    fn check_item(&mut self, item: Option<&Item>) {
        // An absent item was told as a missing field of the event.
        if let Some(item) = item {
            item.problems()
                .into_iter()
                .for_each(|message| self.error(message));
        }
    }

    fn within(&mut self, index: u64, event: &StreamEvent) {
        let name = event.type_name();
        let Some(open) = self.items.get(&index) else {
            return self.error(format!(
                "`{name}` for output_index {index} comes before its `response.output_item.added`"
            ));
        };
        let other = event
            .item_id()
            .is_some_and(|id| open.id.as_deref() != Some(id));
        let (done, line) = (open.done, open.line);
        if done {
            self.error(format!(
                "`{name}` for output_index {index} comes behind its `response.output_item.done`"
            ));
        }
        if other {
            self.warning(format!(
                "`item_id` is not the `id` that the item was added with on line {line}"
            ));
        }
    }

    fn end(&mut self, document: &Document) {
        if self.first {
            self.line = 1;
            self.error("holds no event: capture the stream again, with `curl -N`");
        } else if self.ended.is_none() && !self.cut_off && !self.marked_cut {
            self.line = document.frames.last().map_or(1, |frame| frame.line);
            self.warning("the stream ends without `response.completed`, `response.incomplete`, `response.failed` or `error`: fine for a connection that was cut, else capture it again");
        }
    }
}

/// Whether a frame has any line that is not a comment.
fn has_fields(wire: &[u8]) -> bool {
    wire.split(|byte| matches!(byte, b'\n' | b'\r'))
        .any(|line| !line.is_empty() && !line.starts_with(b":"))
}
