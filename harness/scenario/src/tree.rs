//! The KDL document as plain data with exact places; the KDL library's types stay in this file.

use std::ops::Range;

use kdl::{KdlDiagnostic, KdlDocument, KdlEntry, KdlNode, KdlValue};

use crate::diagnostic::Diagnostic;
use crate::lex::{self, Kind};
use crate::syntax::{self, Checked};

/// A node.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) name_span: Range<usize>,
    /// The whole node with its block.
    pub(crate) span: Range<usize>,
    pub(crate) args: Vec<Arg>,
    pub(crate) props: Vec<Prop>,
    pub(crate) block: Option<Block>,
}

/// A node's children.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    /// The opening brace.
    pub(crate) open: Range<usize>,
    pub(crate) nodes: Vec<Node>,
}

/// An argument, or a property's value.
#[derive(Debug, Clone)]
pub(crate) struct Arg {
    pub(crate) value: Value,
    pub(crate) span: Range<usize>,
    /// Where the text begins, when every byte of it stands in the source as it is.
    pub(crate) content: Option<usize>,
}

/// A property.
#[derive(Debug, Clone)]
pub(crate) struct Prop {
    pub(crate) name: String,
    pub(crate) name_span: Range<usize>,
    pub(crate) value: Arg,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Integer(i128),
    Float(f64),
    Bool(bool),
    Null,
}

impl Value {
    /// What the value is, in words.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "a number",
            Self::Float(_) => "a fraction",
            Self::Bool(_) => "a truth value",
            Self::Null => "`#null`",
        }
    }
}

impl Node {
    /// Whether two nodes say the same, wherever they stand.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        let same_block = match (&self.block, &other.block) {
            (None, None) => true,
            (Some(a), Some(b)) => all_say_the_same(&a.nodes, &b.nodes),
            _ => false,
        };
        self.name == other.name
            && self.args.len() == other.args.len()
            && self.props.len() == other.props.len()
            && self
                .args
                .iter()
                .zip(&other.args)
                .all(|(a, b)| same_value(&a.value, &b.value))
            && self
                .props
                .iter()
                .zip(&other.props)
                .all(|(a, b)| a.name == b.name && same_value(&a.value.value, &b.value.value))
            && same_block
    }
}

/// Whether two lists of nodes say the same.
pub(crate) fn all_say_the_same(a: &[Node], b: &[Node]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.says_the_same(b))
}

/// Equality in which not-a-number equals itself.
fn same_value(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        _ => a == b,
    }
}

/// Reads a text into nodes.
pub(crate) fn read(source: &str) -> Result<Vec<Node>, Vec<Diagnostic>> {
    let checked = syntax::check(source)?;
    match KdlDocument::parse_v2(&checked.blanked) {
        Ok(document) => Ok(convert_all(&document, &checked.blanked)),
        Err(error) => Err(vec![translate(error.diagnostics.first(), &checked)]),
    }
}

/// The library's report of a mistake that the syntax check did not know.
///
/// Only the first is of use: the others are about what the library guessed in order to go on.
fn translate(report: Option<&KdlDiagnostic>, checked: &Checked) -> Diagnostic {
    let text = &checked.blanked;
    let (start, end) = report.map_or((0, text.len()), |report| {
        let start = report.span.offset();
        (start, (start + report.span.len()).min(text.len()))
    });
    let within = text.get(start..end).unwrap_or_default().trim();
    let span = if within.is_empty() || within.contains('\n') {
        locate(checked)
    } else {
        start..end
    };
    let message = match report.and_then(|report| report.message.as_deref()) {
        Some(message) => format!("this is not valid KDL: {message}"),
        None => "this is not valid KDL".to_owned(),
    };
    Diagnostic::new("kdl", span, message, "the mistake is here")
        .maybe_help(report.and_then(|report| report.help.clone()))
}

/// The line at which a text stops being valid.
///
/// Some of the library's reports span the whole file. Every prefix that ends before the mistake
/// is valid once its blocks are closed, so the line is found by bisection.
fn locate(checked: &Checked) -> Range<usize> {
    let mut ends: Vec<(usize, usize)> = Vec::new();
    let mut depth = 0_usize;
    for token in &checked.tokens {
        match token.kind {
            Kind::Open => depth += 1,
            Kind::Close => depth = depth.saturating_sub(1),
            Kind::Newline => ends.push((token.span.start, depth)),
            _ => {}
        }
    }
    ends.push((checked.blanked.len(), depth));
    let bad = ends.partition_point(|(end, depth)| {
        let prefix = &checked.blanked[..*end];
        KdlDocument::parse_v2(&format!("{prefix}\n{}", "}\n".repeat(*depth))).is_ok()
    });
    let end = ends.get(bad).map_or(checked.blanked.len(), |(end, _)| *end);
    let start = bad
        .checked_sub(1)
        .and_then(|before| ends.get(before))
        .map_or(0, |(end, _)| *end);
    // Of a string over several lines, the whole string is to blame.
    let long_string = checked.tokens.iter().find(|token| {
        token.kind == Kind::Text
            && (start..end).contains(&token.span.start)
            && checked.blanked[token.span.clone()].contains(lex::is_newline)
    });
    if let Some(token) = long_string {
        return token.span.clone();
    }
    let line = &checked.blanked[start..end];
    let blanks = line.len() - line.trim_start().len();
    let text_start = start + blanks;
    text_start..(text_start + line.trim().len())
}

fn convert_all(document: &KdlDocument, text: &str) -> Vec<Node> {
    document
        .nodes()
        .iter()
        .map(|node| convert(node, text))
        .collect()
}

fn convert(node: &KdlNode, text: &str) -> Node {
    let name = node.name();
    let name_span = range(name.span().offset(), name.span().len(), text);
    let mut head_end = name_span.end;
    let mut args = Vec::new();
    let mut props = Vec::new();
    for entry in node.entries() {
        let value = convert_value(entry, text);
        head_end = head_end.max(value.span.end);
        match entry.name() {
            None => args.push(value),
            Some(key) => props.push(Prop {
                name: key.value().to_owned(),
                name_span: range(key.span().offset(), key.span().len(), text),
                value,
            }),
        }
    }
    let block = node.children().map(|children| {
        let open = text[head_end..]
            .find('{')
            .map_or(head_end, |at| head_end + at);
        Block {
            open: open..(open + 1).min(text.len()),
            nodes: convert_all(children, text),
        }
    });
    let whole = range(node.span().offset(), node.span().len(), text);
    let written = text[whole.clone()].trim_end();
    Node {
        name: name.value().to_owned(),
        name_span,
        span: whole.start..whole.start + written.len(),
        args,
        props,
        block,
    }
}

fn convert_value(entry: &KdlEntry, text: &str) -> Arg {
    let whole = range(entry.span().offset(), entry.span().len(), text);
    let written = entry
        .format()
        .map_or(whole.len(), |format| format.value_repr.len());
    let span = whole.end.saturating_sub(written).max(whole.start)..whole.end;
    let value = match entry.value() {
        KdlValue::String(string) => Value::Text(string.clone()),
        KdlValue::Integer(number) => Value::Integer(*number),
        KdlValue::Float(number) => Value::Float(*number),
        KdlValue::Bool(value) => Value::Bool(*value),
        KdlValue::Null => Value::Null,
    };
    let content = match &value {
        Value::Text(string) => content(&text[span.clone()], string).map(|at| span.start + at),
        _ => None,
    };
    Arg {
        value,
        span,
        content,
    }
}

/// Where in its source form a string's text begins, if the text stands there as it is.
fn content(written: &str, text: &str) -> Option<usize> {
    let hashes = written.len() - written.trim_start_matches('#').len();
    let quoted = written[hashes..].starts_with('"');
    let at = hashes + usize::from(quoted);
    (written.get(at..at + text.len()) == Some(text) && written.len() == text.len() + 2 * at)
        .then_some(at)
}

/// A range of the library's, held to the text whatever the library says.
fn range(offset: usize, length: usize, text: &str) -> Range<usize> {
    let start = boundary(offset, text);
    start..boundary(offset.saturating_add(length), text).max(start)
}

fn boundary(offset: usize, text: &str) -> usize {
    let mut at = offset.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
