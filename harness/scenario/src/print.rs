//! Scenarios as a person would write them.
//!
//! New files are printed from the syntax tree, in one canonical layout.

use std::fmt;
use std::time::Duration;

use crate::ast::{
    Action, Await, Expectation, ExpectationKind, Reply, ReplyBody, ReplyEnd, ReplyPart, RuleWaiver,
    Scenario, ScenarioFile, Step,
};
use crate::{kdl, spelling};

/// A block of replies or expectations stays on one line up to this many columns.
const WIDTH_LIMIT_COLUMNS: usize = 100;

/// And up to this many nodes: more are read better one below the other.
const INLINE_LIMIT_NODES: usize = 3;

const INDENT_COLUMNS: usize = 4;

/// Prints a file in the canonical layout; it ends with a line break unless it is empty.
pub fn print(file: &ScenarioFile) -> String {
    let scenarios: Vec<String> = file.scenarios.iter().map(ToString::to_string).collect();
    let mut out = scenarios.join("\n\n");
    if !out.is_empty() {
        out.push('\n');
    }
    out
}

/// A scenario's text in the spelling that each word had first, from which fingerprints are made:
/// a renamed word must not make another scenario of it.
pub fn fingerprint_text(of: &Scenario) -> String {
    let mut line = scenario(of);
    if let Children::Block(nodes) = &mut line.children {
        for node in nodes {
            for (index, word) in node.words.iter_mut().enumerate() {
                match word {
                    Word::Bare(name) if index == 0 => {
                        *name = spelling::first_step(name).to_owned();
                    }
                    Word::Quoted(Some("at"), phrase) => *phrase = spelling::first_phrase(phrase),
                    Word::Bare(_) | Word::Quoted(..) => {}
                }
            }
        }
    }
    let mut out = String::new();
    line.write(&mut out, 0);
    out
}

impl fmt::Display for ScenarioFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&print(self))
    }
}

/// Each of these is shown as its node is printed.
macro_rules! display_as_node {
    ($($node:ty: $line:expr),* $(,)?) => {$(
        impl fmt::Display for $node {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut out = String::new();
                $line(self).write(&mut out, 0);
                f.write_str(&out)
            }
        }
    )*};
}

display_as_node! {
    Scenario: scenario,
    Step: step,
    Reply: reply,
    Expectation: expectation,
}

/// A part of a node's line.
enum Word {
    /// Written as it is.
    Bare(String),
    /// A string, quoted as its text requires; with a property's name, if it is one.
    Quoted(Option<&'static str>, String),
}

/// How a node's block is laid out.
enum Children {
    None,
    /// On the node's line if it fits.
    Inline(Vec<PrintedNode>),
    /// Always one node a line.
    Block(Vec<PrintedNode>),
}

/// A node to be printed.
struct PrintedNode {
    words: Vec<Word>,
    children: Children,
}

impl PrintedNode {
    fn new(name: &str) -> Self {
        Self {
            words: vec![Word::Bare(name.to_owned())],
            children: Children::None,
        }
    }

    /// Adds a bare word, such as a number or a fixed name.
    fn plain(mut self, word: impl fmt::Display) -> Self {
        self.words.push(Word::Bare(word.to_string()));
        self
    }

    /// Adds the call that a step is about, if it names one.
    fn call(self, call: Option<&str>) -> Self {
        match call {
            Some(call) => self.id(call),
            None => self,
        }
    }

    /// Adds an id: bare where KDL allows it.
    fn id(mut self, id: &str) -> Self {
        self.words.push(if kdl::is_bare(id) {
            Word::Bare(id.to_owned())
        } else {
            Word::Quoted(None, id.to_owned())
        });
        self
    }

    /// Adds a quoted text.
    fn text(mut self, text: &str) -> Self {
        self.words.push(Word::Quoted(None, text.to_owned()));
        self
    }

    /// Adds a property with a quoted text, if there is one.
    fn prop(mut self, key: &'static str, text: Option<&str>) -> Self {
        if let Some(text) = text {
            self.words.push(Word::Quoted(Some(key), text.to_owned()));
        }
        self
    }

    /// Adds a property with a bare word, if there is one.
    fn plain_prop(self, key: &str, word: Option<impl fmt::Display>) -> Self {
        match word {
            Some(word) => self.plain(format!("{key}={word}")),
            None => self,
        }
    }

    fn chunks(self, chunks: usize) -> Self {
        self.plain_prop("chunks", (chunks != 1).then_some(chunks))
    }

    fn refused(self, refused: bool) -> Self {
        self.plain_prop("refused", refused.then_some("#true"))
    }

    fn duration(self, duration: Duration) -> Self {
        self.text(&humantime::format_duration(duration).to_string())
    }

    fn inline(mut self, lines: Vec<Self>) -> Self {
        self.children = Children::Inline(lines);
        self
    }

    fn block(mut self, lines: Vec<Self>) -> Self {
        self.children = Children::Block(lines);
        self
    }

    fn write(&self, out: &mut String, depth: usize) {
        let indent = depth * INDENT_COLUMNS;
        out.extend(std::iter::repeat_n(' ', indent));
        self.write_head(out, depth);
        let lines = match &self.children {
            Children::None => return,
            Children::Inline(lines) | Children::Block(lines) => lines,
        };
        if lines.is_empty() {
            out.push_str(" {}");
            return;
        }
        if let Children::Inline(lines) = &self.children
            && let Some(text) = one_line(lines, depth)
        {
            let line_start = out.rfind('\n').map_or(0, |at| at + 1);
            let columns = out[line_start..].chars().count() + text.chars().count();
            if columns <= WIDTH_LIMIT_COLUMNS {
                out.push_str(&text);
                return;
            }
        }
        out.push_str(" {\n");
        for line in lines {
            line.write(out, depth + 1);
            out.push('\n');
        }
        out.extend(std::iter::repeat_n(' ', indent));
        out.push('}');
    }

    fn write_head(&self, out: &mut String, depth: usize) {
        for (index, word) in self.words.iter().enumerate() {
            if index > 0 {
                out.push(' ');
            }
            match word {
                Word::Bare(word) => out.push_str(word),
                Word::Quoted(key, text) => {
                    if let Some(key) = key {
                        out.push_str(key);
                        out.push('=');
                    }
                    out.push_str(&quote(text, (depth + 1) * INDENT_COLUMNS));
                }
            }
        }
    }
}

/// ` { a; b }`, unless a node needs a line of its own.
fn one_line(lines: &[PrintedNode], depth: usize) -> Option<String> {
    if lines.len() > INLINE_LIMIT_NODES {
        return None;
    }
    let mut out = String::from(" { ");
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            out.push_str("; ");
        }
        if !matches!(line.children, Children::None) {
            return None;
        }
        line.write_head(&mut out, depth + 1);
    }
    out.push_str(" }");
    (!out.contains('\n')).then_some(out)
}

/// A string in the form that is easiest to read: raw if it has quotes, in several lines if it has
/// line breaks, with escapes if nothing else does.
fn quote(text: &str, indent: usize) -> String {
    let odd = |c: char| (kdl::is_newline(c) && c != '\n') || kdl::is_disallowed(c) || c == '\t';
    if text.contains(odd) {
        return escaped(text);
    }
    if text.contains('\n') {
        return multi_line(text, indent).unwrap_or_else(|| escaped(text));
    }
    if text.contains(['"', '\\']) && !text.starts_with('"') && !text.ends_with('"') {
        return raw(text);
    }
    escaped(text)
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if kdl::is_newline(c) || kdl::is_disallowed(c) => {
                out.push_str(&format!("\\u{{{:x}}}", u32::from(c)));
            }
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}

fn raw(text: &str) -> String {
    let hashes = hashes(text);
    format!("{hashes}\"{text}\"{hashes}")
}

/// As many `#` as are needed so that no quote of the text ends the string.
fn hashes(text: &str) -> String {
    let mut longest = 0;
    for (at, _) in text.match_indices('"') {
        let rest = &text[at + 1..];
        longest = longest.max(rest.len() - rest.trim_start_matches('#').len());
    }
    "#".repeat(longest + 1)
}

/// A string of several lines. KDL takes a line of blanks for an empty one, so a text with such a
/// line has no such form; the same holds for the first and last lines, for the sake of the reader.
fn multi_line(text: &str, indent: usize) -> Option<String> {
    let blank = |line: &str| line.chars().all(kdl::is_space);
    let lines: Vec<&str> = text.split('\n').collect();
    let readable = lines.iter().all(|line| line.is_empty() || !blank(line))
        && lines.first().is_some_and(|line| !line.is_empty());
    if !readable {
        return None;
    }
    let hashes = if text.contains(['"', '\\']) {
        hashes(text)
    } else {
        String::new()
    };
    let margin = " ".repeat(indent);
    let mut out = format!("{hashes}\"\"\"\n");
    for line in lines {
        if !line.is_empty() {
            out.push_str(&margin);
            out.push_str(line);
        }
        out.push('\n');
    }
    out.push_str(&margin);
    out.push_str("\"\"\"");
    out.push_str(&hashes);
    Some(out)
}

fn scenario(scenario: &Scenario) -> PrintedNode {
    let mut lines = Vec::new();
    if let Some(about) = &scenario.about {
        lines.push(PrintedNode::new("about").text(about));
    }
    if !scenario.needs.is_empty() {
        let needs = scenario.needs.iter();
        lines.push(needs.fold(PrintedNode::new("needs"), |line, need| line.plain(need)));
    }
    if let Some(limit) = scenario.limit {
        lines.push(PrintedNode::new("limit").duration(limit));
    }
    if let Some(bound) = scenario.abort_within {
        lines.push(PrintedNode::new("abort-within").duration(bound));
    }
    let recording = scenario.model.recording.iter();
    let model = recording
        .map(|recording| PrintedNode::new("recording").text(&recording.name))
        .chain(scenario.model.replies.iter().map(reply))
        .collect();
    let name = scenario.model.name.as_deref();
    let substitute = scenario.model.substitute_tools.then_some("#true");
    let line = PrintedNode::new("model").prop("name", name);
    let line = line.plain_prop("substitute-tools", substitute);
    lines.push(line.block(model));
    for other in &scenario.model.side_conversations {
        let replies = other.replies.iter().map(reply).collect();
        let line = PrintedNode::new("model").prop("for", Some(&other.opening));
        lines.push(line.block(replies));
    }
    lines.extend(scenario.steps.iter().map(step));
    if !scenario.expectations.is_empty() {
        let expect = scenario.expectations.iter().map(expectation).collect();
        lines.push(PrintedNode::new("expect").inline(expect));
    }
    lines.extend(scenario.waivers.iter().map(waive));
    PrintedNode::new("scenario")
        .text(&scenario.name)
        .block(lines)
}

fn waive(waive: &RuleWaiver) -> PrintedNode {
    PrintedNode::new("waive")
        .id(&waive.rule)
        .prop("because", Some(&waive.because))
}

fn reply(reply: &Reply) -> PrintedNode {
    let line = PrintedNode::new("reply").plain_prop("lenient", reply.lenient.then_some("#true"));
    match &reply.body {
        ReplyBody::Stream { parts, end } => {
            let lines = parts.iter().map(part).chain(end_line(end)).collect();
            line.inline(lines)
        }
        ReplyBody::Status {
            status,
            retry_after_s,
            headers,
            body,
        } => {
            let line = line
                .plain_prop("status", Some(status))
                .plain_prop("retry-after", *retry_after_s);
            let mut lines: Vec<PrintedNode> = headers
                .iter()
                .map(|(name, value)| PrintedNode::new("header").text(name).text(value))
                .collect();
            if let Some(body) = body {
                lines.push(PrintedNode::new("body").text(body));
            }
            if lines.is_empty() {
                line
            } else {
                line.inline(lines)
            }
        }
        ReplyBody::Recorded { name, exchange } => line
            .prop("recording", Some(name))
            .plain_prop("exchange", Some(exchange)),
    }
}

fn part(part: &ReplyPart) -> PrintedNode {
    match part {
        ReplyPart::Text { text, chunks } => PrintedNode::new("text").text(text).chunks(*chunks),
        ReplyPart::Reasoning { text, chunks } => {
            PrintedNode::new("reasoning").text(text).chunks(*chunks)
        }
        ReplyPart::Shell {
            call,
            command,
            chunks,
        } => PrintedNode::new("shell")
            .id(call)
            .text(command)
            .chunks(*chunks),
        ReplyPart::Function {
            call,
            name,
            arguments,
            chunks,
        } => PrintedNode::new("function")
            .id(call)
            .id(name)
            .text(arguments)
            .chunks(*chunks),
        ReplyPart::Custom {
            call,
            name,
            input,
            chunks,
        } => PrintedNode::new("custom")
            .id(call)
            .id(name)
            .text(input)
            .chunks(*chunks),
        ReplyPart::LocalShell { call, command } => command
            .iter()
            .fold(PrintedNode::new("local-shell").id(call), |line, word| {
                line.text(word)
            }),
        ReplyPart::Item { json } => PrintedNode::new("item").text(json),
        ReplyPart::Event { json } => PrintedNode::new("event").text(json),
        ReplyPart::Malformed { text } => PrintedNode::new("malformed").text(text),
        ReplyPart::Pause { duration } => PrintedNode::new("pause").duration(*duration),
    }
}

fn end_line(end: &ReplyEnd) -> Option<PrintedNode> {
    Some(match end {
        ReplyEnd::Completed => return None,
        ReplyEnd::Stall => PrintedNode::new("stall"),
        ReplyEnd::Drop(way) => PrintedNode::new("drop").plain(way),
        ReplyEnd::Incomplete { reason } => PrintedNode::new("incomplete").text(reason),
        ReplyEnd::Failed { code, message } => PrintedNode::new("failed")
            .prop("code", Some(code))
            .prop("message", message.as_deref()),
        ReplyEnd::Error {
            code,
            message,
            nested,
        } => PrintedNode::new("error")
            .prop("code", Some(code))
            .prop("message", message.as_deref())
            .prop("shape", (!nested).then_some("flat")),
    })
}

fn step(step: &Step) -> PrintedNode {
    let line = match &step.action {
        Action::User { text, id, refused } => PrintedNode::new("user")
            .text(text)
            .prop("id", id.as_deref())
            .refused(*refused),
        Action::UserShell { command } => PrintedNode::new("user-shell").text(command),
        Action::Review { text } => PrintedNode::new("review").text(text),
        Action::Compact => PrintedNode::new("compact"),
        Action::Fork => PrintedNode::new("fork"),
        Action::Rollback { turns, refused } => {
            PrintedNode::new("rollback").plain(turns).refused(*refused)
        }
        Action::OpenConversation { id, refused } => PrintedNode::new("open-conversation")
            .text(id)
            .refused(*refused),
        Action::TruncateRollout { bytes } => PrintedNode::new("truncate-rollout").plain(bytes),
        Action::StopReading => PrintedNode::new("stop-reading"),
        Action::ResumeReading => PrintedNode::new("resume-reading"),
        Action::DeliverLate(event) => PrintedNode::new("deliver-late").plain(event),
        Action::Steer { text } => PrintedNode::new("steer").text(text),
        Action::Replace { text } => PrintedNode::new("replace").text(text),
        Action::Interrupt { id } => PrintedNode::new("interrupt").prop("id", id.as_deref()),
        Action::Approve { call } => PrintedNode::new("approve").call(call.as_deref()),
        Action::Deny { call } => PrintedNode::new("deny").call(call.as_deref()),
        Action::Abort { call } => PrintedNode::new("abort").call(call.as_deref()),
        Action::Answer { call, text } => {
            PrintedNode::new("answer").call(call.as_deref()).text(text)
        }
        Action::Kill => PrintedNode::new("kill"),
        Action::Resume => PrintedNode::new("resume"),
        Action::Drop(way) => PrintedNode::new("drop").plain(way),
        Action::Shutdown => PrintedNode::new("shutdown"),
        Action::Hold { .. } => PrintedNode::new("hold"),
        Action::Wait { duration } => PrintedNode::new("wait").duration(*duration),
        Action::Await(event) => await_line(event),
    };
    let at = step.at.as_ref().map(ToString::to_string);
    let line = line.prop("at", at.as_deref());
    match step.action {
        Action::Hold { quiet: true } => line.plain_prop("until", Some("quiet")),
        _ => line.plain_prop("yields", step.yields),
    }
}

fn await_line(event: &Await) -> PrintedNode {
    let line = PrintedNode::new("await");
    match event {
        Await::TurnStarted => line.plain("turn-started"),
        Await::TurnComplete => line.plain("turn-complete"),
        Await::TurnAborted { reason } => line.plain("turn-aborted").plain_prop("reason", *reason),
        Await::TurnFailed => line.plain("turn-failed"),
        Await::TurnEnded => line.plain("turn-ended"),
        Await::Request { number } => line.plain("request").plain(number),
        Await::Running { call } => line.plain("running").id(call),
        Await::Exited { call } => line.plain("exited").id(call),
        Await::Approval { call } => line.plain("approval").id(call),
        Await::Question { call } => line.plain("question").id(call),
        Await::Compacted => line.plain("compacted"),
        Await::Output { call, containing } => line.plain("output").id(call).text(containing),
        Await::Text { containing } => line.plain("text").text(containing),
    }
}

fn expectation(expect: &Expectation) -> PrintedNode {
    match &expect.kind {
        ExpectationKind::Answered {
            call,
            in_request,
            containing,
        } => PrintedNode::new("answered")
            .id(call)
            .plain_prop("in-request", *in_request)
            .prop("containing", containing.as_deref()),
        ExpectationKind::NoCall { call } => PrintedNode::new("no-call").id(call),
        ExpectationKind::NoProcess { command } => PrintedNode::new("no-process").text(command),
        ExpectationKind::Requests { count } => PrintedNode::new("requests").plain(count),
        ExpectationKind::Markers { count, in_request } => PrintedNode::new("markers")
            .plain(count)
            .plain_prop("in-request", Some(in_request)),
        ExpectationKind::Request {
            number,
            containing,
            not_containing,
        } => PrintedNode::new("request")
            .plain(number)
            .prop("containing", containing.as_deref())
            .prop("not-containing", not_containing.as_deref()),
        ExpectationKind::Turns { outcomes } => outcomes
            .iter()
            .fold(PrintedNode::new("turns"), |line, outcome| {
                line.plain(outcome)
            }),
        ExpectationKind::Shown { containing } => PrintedNode::new("shown").text(containing),
        ExpectationKind::NotShown { containing } => PrintedNode::new("not-shown").text(containing),
        ExpectationKind::Refused { count } => PrintedNode::new("refused").plain(count),
    }
}
