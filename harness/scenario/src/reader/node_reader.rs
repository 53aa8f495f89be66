//! A node's arguments, properties and block, taken one by one; whatever is left over is an error.

use std::ops::Range;
use std::time::Duration;

use super::ScenarioReader;
use crate::cut_point::{is_call_id, is_reserved};
use crate::diagnostic::Diagnostic;
use crate::kdl::{Arg, Block, Node, Value};
use crate::suggest;

/// The longest duration that a scenario may name: longer ones are typing errors.
const DURATION_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// A node while its parts are taken.
///
/// After a mistake a part is replaced by an empty one, so that the rest of the node is still read;
/// the result is thrown away, because there is a problem.
pub(super) struct NodeReader<'n, 's, 'x> {
    node: &'n Node,
    pub(super) reader: &'x mut ScenarioReader<'s>,
    /// How the node is written, for the help line.
    usage: &'static str,
    /// The node's name in messages, such as `await request`.
    title: String,
    next: usize,
    keys: Vec<&'static str>,
    block_taken: bool,
}

impl<'n, 's, 'x> NodeReader<'n, 's, 'x> {
    pub(super) fn new(
        reader: &'x mut ScenarioReader<'s>,
        node: &'n Node,
        usage: &'static str,
    ) -> Self {
        Self {
            node,
            reader,
            usage,
            title: node.name.clone(),
            next: 0,
            keys: Vec::new(),
            block_taken: false,
        }
    }

    /// Says more exactly which form of the node this is.
    pub(super) fn form(&mut self, title: String, usage: &'static str) {
        self.title = title;
        self.usage = usage;
    }

    pub(super) fn problem(
        &mut self,
        code: &'static str,
        span: Range<usize>,
        message: String,
        label: &str,
        help: String,
    ) {
        self.reader
            .problems
            .push(Diagnostic::new(code, span, message, label).help(help));
    }

    /// The place of the node's name.
    pub(super) fn node_span(&self) -> Range<usize> {
        self.node.name_span.clone()
    }

    /// The next argument, if there is one.
    pub(super) fn optional(&mut self) -> Option<&'n Arg> {
        let arg = self.node.args.get(self.next)?;
        self.next += 1;
        Some(arg)
    }

    /// The next argument; it is a mistake if there is none.
    pub(super) fn required(&mut self, what: &str) -> Option<&'n Arg> {
        let arg = self.optional();
        if arg.is_none() {
            let end = self
                .node
                .args
                .last()
                .map_or(self.node.name_span.end, |arg| arg.span.end);
            self.problem(
                "missing-argument",
                self.node.name_span.start..end,
                format!("`{}` needs {what}", self.title),
                &format!("{what} should follow"),
                format!("write `{}`", self.usage),
            );
        }
        arg
    }

    fn wrong_type(&mut self, arg: &Arg, what: &str, wanted: &str, help: String) {
        let whose = if what.starts_with('`') {
            what.to_owned()
        } else {
            format!("`{}`", self.title)
        };
        self.problem(
            "wrong-type",
            arg.span.clone(),
            format!("{whose}: expected {wanted}, found {}", arg.value.kind()),
            &format!("this is {}", arg.value.kind()),
            help,
        );
    }

    /// A value as text.
    pub(super) fn as_text(&mut self, arg: &Arg, what: &str) -> Option<String> {
        if let Value::Text(text) = &arg.value {
            return Some(text.clone());
        }
        let written = self.reader.source[arg.span.clone()].trim_start_matches('#');
        let help = format!("put it in quotes: `\"{written}\"`");
        self.wrong_type(arg, what, "a string", help);
        None
    }

    /// A value as a number that is not negative.
    pub(super) fn as_number(&mut self, arg: &Arg, what: &str) -> Option<usize> {
        match &arg.value {
            Value::Integer(number) => {
                // Half of the range is left free, so that sums in later stages do not overflow.
                if let Ok(number) = usize::try_from(*number)
                    && number <= u32::MAX as usize
                {
                    return Some(number);
                }
                let (label, help) = if *number < 0 {
                    ("this is negative", "write a number from 0 on")
                } else {
                    ("this is too large", "write a smaller number")
                };
                self.problem(
                    "bad-number",
                    arg.span.clone(),
                    format!("{what} is out of range"),
                    label,
                    help.to_owned(),
                );
                None
            }
            Value::Text(text) if text.parse::<u32>().is_ok() => {
                let help = format!("remove the quotes: `{text}`");
                self.wrong_type(arg, what, "a number", help);
                None
            }
            _ => {
                let help = format!("write `{}`", self.usage);
                self.wrong_type(arg, what, "a whole number", help);
                None
            }
        }
    }

    /// A value as a number that counts from 1.
    pub(super) fn as_position(&mut self, arg: &Arg, what: &str) -> Option<usize> {
        let number = self.as_number(arg, what)?;
        if number == 0 {
            self.problem(
                "bad-number",
                arg.span.clone(),
                format!("{what} cannot be 0"),
                "numbers count from 1",
                "write 1 for the first".to_owned(),
            );
        }
        Some(number)
    }

    /// A value as a duration.
    pub(super) fn as_duration(&mut self, arg: &Arg, what: &str) -> Option<Duration> {
        if let Value::Integer(number) = arg.value {
            let help =
                format!("say in which unit, as a string: `\"{number}ms\"` or `\"{number}s\"`");
            self.wrong_type(arg, what, "a string", help);
            return None;
        }
        let text = self.as_text(arg, what)?;
        match humantime::parse_duration(&text) {
            Ok(duration) if duration > DURATION_LIMIT => {
                self.problem(
                    "bad-duration",
                    arg.span.clone(),
                    format!("{what} is longer than a day"),
                    "too long",
                    "was a smaller unit meant? `ms` are milliseconds, `m` are minutes".to_owned(),
                );
                None
            }
            Ok(duration) => Some(duration),
            Err(error) => {
                let reason = error.to_string();
                let reason = reason.split(", supported").next().unwrap_or_default();
                self.problem(
                    "bad-duration",
                    arg.span.clone(),
                    format!("`{text}` is not a duration"),
                    reason,
                    "write a number and a unit: `\"50ms\"`, `\"5s\"`, `\"1m 30s\"`".to_owned(),
                );
                None
            }
        }
    }

    /// One of several words.
    pub(super) fn as_choice<T: Copy>(
        &mut self,
        arg: &Arg,
        what: &str,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        let text = self.as_text(arg, what)?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let diagnostic = Diagnostic::new(
            "unknown-value",
            arg.span.clone(),
            format!("`{text}` is no {}", what.trim_start_matches("the ")),
            format!("not known to `{}`", self.title),
        )
        .maybe_help(suggest::did_you_mean(&text, &words));
        self.reader.problems.push(diagnostic);
        None
    }

    /// The next argument as text.
    pub(super) fn text(&mut self, what: &str) -> String {
        self.required(what)
            .and_then(|arg| self.as_text(arg, what))
            .unwrap_or_default()
    }

    /// The next argument as a text to look for: an empty one is found everywhere.
    pub(super) fn needle(&mut self, what: &str) -> String {
        let Some(arg) = self.required(what) else {
            return String::new();
        };
        self.as_needle(arg, what).unwrap_or_default()
    }

    fn as_needle(&mut self, arg: &Arg, what: &str) -> Option<String> {
        let text = self.as_text(arg, what)?;
        if text.is_empty() {
            self.problem(
                "empty-text",
                arg.span.clone(),
                format!("{what} is empty"),
                "an empty text is contained in every text",
                "write the text to look for".to_owned(),
            );
        }
        Some(text)
    }

    /// The next argument as a number.
    pub(super) fn number(&mut self, what: &str) -> usize {
        self.required(what)
            .and_then(|arg| self.as_number(arg, what))
            .unwrap_or_default()
    }

    /// The next argument as a number that counts from 1.
    pub(super) fn position(&mut self, what: &str) -> usize {
        self.required(what)
            .and_then(|arg| self.as_position(arg, what))
            .unwrap_or_default()
    }

    /// The next argument as a duration.
    pub(super) fn duration(&mut self, what: &str) -> Duration {
        self.required(what)
            .and_then(|arg| self.as_duration(arg, what))
            .unwrap_or_default()
    }

    /// The next argument as a call id, with its place; empty after a mistake.
    pub(super) fn call_id(&mut self) -> (String, Range<usize>) {
        let what = "a call id";
        let Some(arg) = self.required(what) else {
            return (String::new(), self.node.name_span.clone());
        };
        let span = arg.span.clone();
        let Some(text) = self.as_text(arg, "a call id") else {
            return (String::new(), span);
        };
        if !is_call_id(&text) {
            self.problem(
                "bad-call-id",
                span.clone(),
                format!("`{text}` is not a call id"),
                "not a call id",
                "a call id has letters, digits, `_` and `-`, such as `call_1`".to_owned(),
            );
            return (String::new(), span);
        }
        if is_reserved(&text) {
            self.problem(
                "bad-call-id",
                span.clone(),
                format!("`{text}` cannot be a call id"),
                "this word has a meaning of its own in cut points",
                "choose another one, such as `call_1`".to_owned(),
            );
            return (String::new(), span);
        }
        (text, span)
    }

    /// The next argument as a call that some reply makes.
    pub(super) fn call(&mut self) -> String {
        let (call, span) = self.call_id();
        if !call.is_empty() {
            self.reader.facts.mentions.push((call.clone(), span));
        }
        call
    }

    /// A call that the scenario must define. A step that is done by itself may leave it out of its
    /// arguments, of which there are `count` with it: then it is about whichever call waits.
    pub(super) fn call_that_waits(&mut self, count: usize) -> Option<String> {
        let fires = self.node.props.iter().any(|prop| prop.name == "yields");
        if fires && self.node.args.len() < count {
            return None;
        }
        Some(self.call())
    }

    /// A property's value, if it is there.
    pub(super) fn prop(&mut self, key: &'static str) -> Option<&'n Arg> {
        self.keys.push(key);
        let mut found = self.node.props.iter().filter(|prop| prop.name == key);
        let first = found.next()?;
        for again in found {
            self.reader.problems.push(
                Diagnostic::new(
                    "duplicate-property",
                    again.name_span.start..again.value.span.end,
                    format!("`{key}` is given twice"),
                    "the second time",
                )
                .help("keep one of them"),
            );
        }
        Some(&first.value)
    }

    /// A property that is text.
    pub(super) fn prop_text(&mut self, key: &'static str) -> Option<String> {
        let arg = self.prop(key)?;
        self.as_text(arg, &format!("`{key}`"))
    }

    /// A property that is a text to look for.
    pub(super) fn prop_needle(&mut self, key: &'static str) -> Option<String> {
        let arg = self.prop(key)?;
        self.as_needle(arg, &format!("`{key}`"))
    }

    /// A property that is a number counted from 1.
    pub(super) fn prop_position(&mut self, key: &'static str) -> Option<usize> {
        let arg = self.prop(key)?;
        self.as_position(arg, &format!("`{key}`"))
    }

    /// A property that is `#true` or `#false`.
    pub(super) fn prop_flag(&mut self, key: &'static str) -> bool {
        let Some(arg) = self.prop(key) else {
            return false;
        };
        if let Value::Bool(value) = arg.value {
            return value;
        }
        let help = format!("write `{key}=#true`, or leave it out");
        self.wrong_type(arg, &format!("`{key}`"), "`#true` or `#false`", help);
        false
    }

    /// Reports a property that must be there and is not.
    pub(super) fn missing_prop(&mut self, key: &str) {
        self.problem(
            "missing-property",
            self.node.name_span.clone(),
            format!("`{}` needs `{key}`", self.title),
            &format!("`{key}=…` is missing"),
            format!("write `{}`", self.usage),
        );
    }

    /// The node's block, if it has one.
    pub(super) fn block(&mut self) -> Option<&'n Block> {
        self.block_taken = true;
        self.node.block.as_ref()
    }

    /// Reports what was not taken, and gives the scenario's reader back.
    pub(super) fn finish(self) -> &'x mut ScenarioReader<'s> {
        let title = &self.title;
        if let Some(extra) = self.node.args.get(self.next) {
            let bare_words = self.node.args.len() > 1
                && self
                    .node
                    .args
                    .iter()
                    .any(|arg| arg.content == Some(arg.span.start));
            let help = if bare_words && self.next > 0 {
                format!("a text with spaces needs quotes; write `{}`", self.usage)
            } else {
                format!("write `{}`", self.usage)
            };
            let message = if self.next == 0 {
                format!("`{title}` takes no argument")
            } else {
                format!("`{title}` takes no more arguments")
            };
            self.reader.problems.push(
                Diagnostic::new(
                    "extra-argument",
                    extra.span.clone(),
                    message,
                    "not expected here",
                )
                .help(help),
            );
        }
        for prop in &self.node.props {
            if self.keys.contains(&prop.name.as_str()) {
                continue;
            }
            let message = if self.keys.is_empty() {
                format!("`{title}` takes no property, but `{}` is given", prop.name)
            } else {
                format!("`{title}` has no property `{}`", prop.name)
            };
            let help = match suggest::nearest(&prop.name, &self.keys) {
                Some(key) => Some(format!("did you mean `{key}`?")),
                None if self.keys.is_empty() => Some(format!("write `{}`", self.usage)),
                None => suggest::one_of(&self.keys),
            };
            self.reader.problems.push(
                Diagnostic::new(
                    "unknown-property",
                    prop.name_span.clone(),
                    message,
                    "unknown property",
                )
                .maybe_help(help),
            );
        }
        if let Some(block) = &self.node.block
            && !self.block_taken
        {
            self.reader.problems.push(
                Diagnostic::new(
                    "unexpected-block",
                    block.open.clone(),
                    format!("`{title}` takes no block"),
                    "a block begins here",
                )
                .help(format!("write `{}`", self.usage)),
            );
        }
        self.reader
    }
}
