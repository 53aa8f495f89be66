//! From tokens to nodes, and what is wrong with those that make none.

use std::ops::Range;

use super::bare_word::{self, WordPlace};
use super::lexer::{self, Token, TokenKind, lex};
use super::node::{Arg, Block, Node, Prop, Value};
use super::string;
use crate::diagnostic::Diagnostic;

/// How deep blocks may nest. A scenario needs four levels.
const DEPTH_LIMIT: usize = 64;

/// Parses a text; all its mistakes if there are any.
pub(crate) fn parse(source: &str) -> Result<Vec<Node>, Vec<Diagnostic>> {
    let mut problems = Vec::new();
    let tokens = lex(source, &mut problems);
    if problems.is_empty() {
        braces(source, &tokens, &mut problems);
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut parser = Parser {
        source,
        tokens: tokens.iter().filter(|token| !token.is_blank()).collect(),
        at: 0,
        problems,
    };
    let nodes = parser.nodes();
    if parser.problems.is_empty() {
        Ok(nodes)
    } else {
        Err(parser.problems)
    }
}

/// Reports braces that do not pair, and nesting beyond the limit.
fn braces(source: &str, tokens: &[Token], problems: &mut Vec<Diagnostic>) {
    let mut open: Vec<&Token> = Vec::new();
    // A closing brace that stands further left than the line that opened its block: the block was
    // most likely left open, and this brace belongs to an outer one.
    let mut suspect: Option<&Token> = None;
    for token in tokens {
        match token.kind {
            TokenKind::Open => {
                open.push(token);
                if open.len() > DEPTH_LIMIT {
                    problems.push(
                        Diagnostic::new(
                            "too-deep",
                            token.span.clone(),
                            format!("blocks nest deeper than {DEPTH_LIMIT} levels"),
                            "this block is too deep",
                        )
                        .help("a scenario needs four levels; is this file a scenario?"),
                    );
                    return;
                }
            }
            TokenKind::Close => match open.pop() {
                None => {
                    problems.push(
                        Diagnostic::new(
                            "unopened-brace",
                            token.span.clone(),
                            "this `}` closes nothing",
                            "no block is open here",
                        )
                        .help("remove it, or add the `{` that it should close"),
                    );
                    return;
                }
                Some(opener) => {
                    let first = indent(source, token.span.start);
                    if first.alone && first.width < indent(source, opener.span.start).width {
                        suspect.get_or_insert(opener);
                    }
                }
            },
            _ => {}
        }
    }
    if let Some(last) = open.last() {
        let span = suspect.unwrap_or(last).span.clone();
        problems.push(
            Diagnostic::new(
                "unclosed-brace",
                span,
                "this block is not closed",
                "it begins here",
            )
            .help("add the closing `}`"),
        );
    }
}

struct Indent {
    /// Blanks at the beginning of the line.
    width: usize,
    /// Whether only blanks stand before the place.
    alone: bool,
}

fn indent(source: &str, at: usize) -> Indent {
    let start = source[..at].rfind(lexer::is_newline).map_or(0, |at| {
        at + source[at..].chars().next().map_or(1, char::len_utf8)
    });
    let before = &source[start..at];
    let width = before.chars().take_while(|c| lexer::is_space(*c)).count();
    Indent {
        width,
        alone: before.chars().all(lexer::is_space),
    }
}

struct Parser<'a> {
    source: &'a str,
    /// Without blanks and comments.
    tokens: Vec<&'a Token>,
    at: usize,
    problems: Vec<Diagnostic>,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<TokenKind> {
        self.tokens.get(self.at).map(|token| token.kind)
    }

    fn span(&self) -> Range<usize> {
        self.tokens
            .get(self.at)
            .map_or(self.source.len()..self.source.len(), |token| {
                token.span.clone()
            })
    }

    fn text(&self) -> &'a str {
        &self.source[self.span()]
    }

    fn problem(&mut self, code: &'static str, message: &str, label: &str, help: &str) {
        let span = self.span();
        self.problems
            .push(Diagnostic::new(code, span, message, label).help(help));
    }

    /// Skips to the end of the node after a mistake, so that the next one is still checked.
    fn recover(&mut self) {
        let mut depth = 0_usize;
        while let Some(kind) = self.peek() {
            match kind {
                TokenKind::Open => depth += 1,
                TokenKind::Close if depth == 0 => return,
                TokenKind::Close => depth -= 1,
                TokenKind::Newline | TokenKind::Semicolon if depth == 0 => return,
                _ => {}
            }
            self.at += 1;
        }
    }

    /// Takes `\` and the line break after it, if they stand here.
    fn continuation(&mut self) {
        while self.peek() == Some(TokenKind::Backslash) {
            self.at += 1;
            match self.peek() {
                Some(TokenKind::Newline) => self.at += 1,
                None => {}
                Some(_) => {
                    self.problem(
                        "backslash",
                        "a backslash outside of quotes must be the last on its line",
                        "this follows it",
                        "break the line after `\\`, or quote the text that contains it",
                    );
                    return;
                }
            }
        }
    }

    /// Nodes up to the closing brace of their block, which is left, or the end of the text.
    fn nodes(&mut self) -> Vec<Node> {
        let mut nodes = Vec::new();
        while self.problems.len() < lexer::PROBLEM_LIMIT {
            self.continuation();
            match self.peek() {
                None | Some(TokenKind::Close) => break,
                Some(TokenKind::Newline) => self.at += 1,
                Some(TokenKind::Slashdash) => {
                    let start = self.span().start;
                    self.at += 1;
                    self.after_slashdash();
                    if matches!(self.peek(), None | Some(TokenKind::Close)) {
                        self.lonely_slashdash(start, "node");
                        break;
                    }
                    self.terminated_node();
                }
                Some(_) => nodes.extend(self.terminated_node()),
            }
        }
        nodes
    }

    /// One node with the semicolon that ends it, if there is one.
    fn terminated_node(&mut self) -> Option<Node> {
        let node = self.node();
        if self.peek() == Some(TokenKind::Semicolon) {
            self.at += 1;
        }
        node
    }

    /// `/-` reaches over blank lines to what it comments out.
    fn after_slashdash(&mut self) {
        while matches!(self.peek(), Some(TokenKind::Newline | TokenKind::Backslash)) {
            self.at += 1;
        }
    }

    fn lonely_slashdash(&mut self, start: usize, what: &str) {
        self.problems.push(
            Diagnostic::new(
                "slashdash",
                start..start + 2,
                format!("`/-` comments out the {what} after it, but there is none"),
                "nothing follows it",
            )
            .help("remove it; a comment to the end of the line begins with `//`"),
        );
    }

    /// One node without its terminator.
    fn node(&mut self) -> Option<Node> {
        match self.peek() {
            Some(TokenKind::Word | TokenKind::Text) => return self.named_node(),
            Some(TokenKind::Open) => {
                self.problem(
                    "block-without-node",
                    "this block belongs to no node",
                    "expected a node's name before it",
                    "put `{` on the line of its node: a line break ends the node",
                );
                self.block();
                self.recover();
            }
            Some(TokenKind::Semicolon) => {
                self.problem(
                    "stray-semicolon",
                    "there is nothing before this `;`",
                    "it ends no node",
                    "remove it",
                );
            }
            Some(TokenKind::Equals) => {
                self.problem(
                    "bad-property",
                    "there is nothing before this `=`",
                    "the node's name and the property's name are missing",
                    "write a property as `name=value`, after the node's name",
                );
                self.recover();
            }
            Some(TokenKind::Paren) => self.paren(),
            Some(TokenKind::Slashdash) => {
                self.problem(
                    "slashdash",
                    "`/-` after `/-` comments out nothing more",
                    "one is enough",
                    "remove one of them",
                );
                self.recover();
            }
            Some(_) | None => self.recover(),
        }
        None
    }

    fn named_node(&mut self) -> Option<Node> {
        let name = self.span();
        self.at += 1;
        if self.peek() == Some(TokenKind::Equals) {
            let named = self.source[name.clone()].to_owned();
            let equals = self.span();
            self.problems.push(
                Diagnostic::new(
                    "bad-property",
                    name.start..equals.end,
                    "a node begins with its name, not with a property",
                    format!("the `=` makes `{named}` a property's name"),
                )
                .help(format!(
                    "write `{named} value` without `=`, or the missing name: `{named} name=value`"
                )),
            );
            self.recover();
            return None;
        }
        let written = self.value(self.at - 1, WordPlace::Name);
        let mut node = Node {
            name: match written.value {
                Value::Text(name) => name,
                // Only after a mistake.
                _ => String::new(),
            },
            span: name.clone(),
            name_span: name,
            args: Vec::new(),
            props: Vec::new(),
            block: None,
        };
        self.entries(&mut node);
        Some(node)
    }

    /// Arguments, properties and the block of a node.
    fn entries(&mut self, node: &mut Node) {
        while self.problems.len() < lexer::PROBLEM_LIMIT {
            self.continuation();
            match self.peek() {
                None | Some(TokenKind::Newline | TokenKind::Semicolon | TokenKind::Close) => return,
                Some(TokenKind::Slashdash) => {
                    let start = self.span().start;
                    self.at += 1;
                    self.after_slashdash();
                    match self.peek() {
                        Some(TokenKind::Open) => {
                            self.block();
                        }
                        Some(TokenKind::Word | TokenKind::Text) => {
                            self.entry();
                        }
                        _ => {
                            self.lonely_slashdash(start, "argument, property or block");
                            return self.recover();
                        }
                    }
                }
                Some(TokenKind::Open) => {
                    let block = self.block();
                    node.span.end = block.end;
                    node.block = Some(block);
                    return self.after_block();
                }
                Some(TokenKind::Word | TokenKind::Text) => {
                    let before = self.at.checked_sub(1).and_then(|at| self.tokens.get(at));
                    let glued = before.is_some_and(|before| {
                        before.kind != TokenKind::Newline && before.span.end == self.span().start
                    });
                    let known = self.problems.len();
                    let at = self.at;
                    match self.entry() {
                        Some(Entry::Arg(arg)) => {
                            node.span.end = arg.span.end;
                            node.args.push(arg);
                        }
                        Some(Entry::Prop(prop)) => {
                            node.span.end = prop.value.span.end;
                            node.props.push(prop);
                        }
                        None => {}
                    }
                    // A comma after a string is glued to it, but the comma is the mistake.
                    if glued && self.problems.len() == known {
                        self.glued(at);
                    }
                }
                Some(TokenKind::Equals) => {
                    self.problem(
                        "bad-property",
                        "there is no name before this `=`",
                        "a property's name is missing",
                        "write a property as `name=value`",
                    );
                    return self.recover();
                }
                Some(TokenKind::Paren) => return self.paren(),
                Some(_) => return self.recover(),
            }
        }
    }

    /// After a node's block, only the node's end may follow.
    fn after_block(&mut self) {
        loop {
            self.continuation();
            match self.peek() {
                None | Some(TokenKind::Newline | TokenKind::Semicolon | TokenKind::Close) => return,
                Some(TokenKind::Slashdash) => {
                    self.at += 1;
                    self.after_slashdash();
                    if self.peek() != Some(TokenKind::Open) {
                        self.problem(
                            "after-block",
                            "only a block can be commented out after a block",
                            "something else follows",
                            "begin a new line, or write `;` after the `}`",
                        );
                        return self.recover();
                    }
                    self.block();
                }
                Some(_) => {
                    self.problem(
                        "after-block",
                        "a node ends with its block",
                        "this should be a new node",
                        "begin a new line, or write `;` after the `}`",
                    );
                    return self.recover();
                }
            }
        }
    }

    fn glued(&mut self, index: usize) {
        let Some(token) = self.tokens.get(index) else {
            return;
        };
        self.problems.push(
            Diagnostic::new(
                "missing-blank",
                token.span.clone(),
                "a space is missing before this",
                "it follows the previous text directly",
            )
            .help("separate arguments with spaces; write a quote inside a string as `\\\"`"),
        );
    }

    /// `{ … }`; that braces pair has been checked before.
    fn block(&mut self) -> Block {
        let open = self.span();
        self.at += 1;
        let nodes = self.nodes();
        let end = self.span().end;
        if self.peek() == Some(TokenKind::Close) {
            self.at += 1;
        }
        Block { open, end, nodes }
    }

    /// An argument or a property; nothing after a mistake.
    fn entry(&mut self) -> Option<Entry> {
        let first = self.at;
        self.at += 1;
        let before_equals = self.at;
        self.continuation();
        if self.peek() != Some(TokenKind::Equals) {
            self.at = before_equals;
            return Some(Entry::Arg(self.value(first, WordPlace::Value)));
        }
        let key = self.value(first, WordPlace::Key);
        let equals = self.span();
        self.at += 1;
        self.continuation();
        match self.peek() {
            Some(TokenKind::Word | TokenKind::Text) => {
                let value = self.value(self.at, WordPlace::Value);
                self.at += 1;
                if let Value::Text(name) = key.value {
                    return Some(Entry::Prop(Prop {
                        name,
                        name_span: key.span,
                        value,
                    }));
                }
            }
            Some(TokenKind::Paren) => self.paren(),
            _ => {
                let name = self.source[key.span.clone()].to_owned();
                self.problems.push(
                    Diagnostic::new(
                        "missing-value",
                        key.span.start..equals.end,
                        format!("`{name}=` has no value"),
                        "a value should follow",
                    )
                    .help(format!("write `{name}=\"…\"`, or remove `{name}=`")),
                );
                if self.peek() == Some(TokenKind::Equals) {
                    self.recover();
                }
            }
        }
        None
    }

    fn paren(&mut self) {
        let text = self.text().to_owned();
        self.problem(
            "parenthesis",
            &format!("`{text}` has no meaning here"),
            "scenarios have no type annotations",
            "remove it, or put the text that contains it in quotes",
        );
        self.recover();
    }

    /// The value of a word or a string; mistakes in it are reported.
    fn value(&mut self, index: usize, place: WordPlace) -> Arg {
        let token = self.tokens[index];
        let span = token.span.clone();
        let written = &self.source[span.clone()];
        if token.kind == TokenKind::Word {
            let mistake = bare_word::check(written, span.start, place);
            let value = if mistake.is_none() {
                bare_word::value(written)
            } else {
                Value::Null
            };
            self.problems.extend(mistake);
            let content = matches!(value, Value::Text(_)).then_some(span.start);
            return Arg {
                value,
                span,
                content,
            };
        }
        let text = string::text(written).unwrap_or_else(|| {
            self.problems.push(
                Diagnostic::new(
                    "multi-line-string",
                    span.clone(),
                    "a line of this string is indented less than its closing quotes",
                    "the string begins here",
                )
                .help(lexer::INDENTATION_HELP),
            );
            String::new()
        });
        let content = string::content(written, &text).map(|at| span.start + at);
        Arg {
            value: Value::Text(text),
            span,
            content,
        }
    }
}

/// What can follow a node's name, besides its block.
enum Entry {
    Arg(Arg),
    Prop(Prop),
}
