//! KDL's grammar over its tokens, checked before the library sees the text.
//!
//! The library recovers from mistakes by guessing and its stack grows with some inputs (stray
//! brackets, long comments, nested blocks). What passes here is plain and shallow, and what does
//! not gets a caret at the right place.

use std::ops::Range;

use crate::diagnostic::Diagnostic;
use crate::lex::{self, Kind, Token, lex};
use crate::word::{self, Place};

/// How deep blocks may nest. A scenario needs four levels.
pub(crate) const DEPTH_LIMIT: usize = 64;

/// A text that is in order, ready for the library.
pub(crate) struct Checked {
    /// The text with comments and `/-` parts replaced by as many blanks.
    pub(crate) blanked: String,
    /// The tokens of the original text.
    pub(crate) tokens: Vec<Token>,
}

/// Checks the syntax of a text.
pub(crate) fn check(source: &str) -> Result<Checked, Vec<Diagnostic>> {
    let mut problems = Vec::new();
    let tokens = lex(source, &mut problems);
    if problems.is_empty() {
        braces(source, &tokens, &mut problems);
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut grammar = Grammar {
        source,
        tokens: tokens.iter().filter(|token| !token.is_blank()).collect(),
        at: 0,
        problems,
        blanks: Vec::new(),
        end: source.len(),
    };
    grammar.nodes();
    if !grammar.problems.is_empty() {
        return Err(grammar.problems);
    }
    let comments = tokens
        .iter()
        .filter(|token| matches!(token.kind, Kind::LineComment | Kind::BlockComment))
        .map(|token| token.span.clone());
    let blanks: Vec<Range<usize>> = comments.chain(grammar.blanks).collect();
    Ok(Checked {
        blanked: blank(source, blanks),
        tokens,
    })
}

/// Replaces ranges, and a byte order mark, by as many blanks, so that all offsets stay true.
fn blank(source: &str, ranges: Vec<Range<usize>>) -> String {
    let mut bytes = source.as_bytes().to_vec();
    if source.starts_with('\u{feff}') {
        bytes[..3].fill(b' ');
    }
    for range in ranges {
        bytes[range].fill(b' ');
    }
    // Whole characters were replaced, so the text is still valid; if that were ever wrong, the
    // replaced text would fail to parse, which is better than a panic.
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reports braces that do not pair, and nesting beyond the limit.
fn braces(source: &str, tokens: &[Token], problems: &mut Vec<Diagnostic>) {
    let mut open: Vec<&Token> = Vec::new();
    // A closing brace that stands further left than the line that opened its block: the block was
    // most likely left open, and this brace belongs to an outer one.
    let mut suspect: Option<&Token> = None;
    for token in tokens {
        match token.kind {
            Kind::Open => {
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
            Kind::Close => match open.pop() {
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
    let start = source[..at].rfind(lex::is_newline).map_or(0, |at| {
        at + source[at..].chars().next().map_or(1, char::len_utf8)
    });
    let before = &source[start..at];
    let width = before.chars().take_while(|c| lex::is_space(*c)).count();
    Indent {
        width,
        alone: before.chars().all(lex::is_space),
    }
}

struct Grammar<'a> {
    source: &'a str,
    /// Without blanks and comments.
    tokens: Vec<&'a Token>,
    at: usize,
    problems: Vec<Diagnostic>,
    /// What `/-` comments out.
    blanks: Vec<Range<usize>>,
    end: usize,
}

impl<'a> Grammar<'a> {
    fn peek(&self) -> Option<Kind> {
        self.tokens.get(self.at).map(|token| token.kind)
    }

    fn span(&self) -> Range<usize> {
        self.tokens
            .get(self.at)
            .map_or(self.end..self.end, |token| token.span.clone())
    }

    fn text(&self) -> &'a str {
        &self.source[self.span()]
    }

    /// End of the token before this one.
    fn previous_end(&self) -> usize {
        self.at
            .checked_sub(1)
            .and_then(|at| self.tokens.get(at))
            .map_or(0, |token| token.span.end)
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
                Kind::Open => depth += 1,
                Kind::Close if depth == 0 => return,
                Kind::Close => depth -= 1,
                Kind::Newline | Kind::Semicolon if depth == 0 => return,
                _ => {}
            }
            self.at += 1;
        }
    }

    /// Takes `\` and the line break after it, if they stand here.
    fn continuation(&mut self) {
        while self.peek() == Some(Kind::Backslash) {
            self.at += 1;
            match self.peek() {
                Some(Kind::Newline) => self.at += 1,
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
    fn nodes(&mut self) {
        while self.problems.len() < lex::PROBLEM_LIMIT {
            self.continuation();
            match self.peek() {
                None | Some(Kind::Close) => return,
                Some(Kind::Newline) => self.at += 1,
                Some(Kind::Slashdash) => {
                    let start = self.span().start;
                    self.at += 1;
                    self.after_slashdash();
                    if matches!(self.peek(), None | Some(Kind::Close)) {
                        self.lonely_slashdash(start, "node");
                        return;
                    }
                    self.node();
                    // The terminator goes with its node: the library takes none without a node.
                    if self.peek() == Some(Kind::Semicolon) {
                        self.at += 1;
                    }
                    self.blanks.push(start..self.previous_end());
                }
                Some(_) => {
                    self.node();
                    if self.peek() == Some(Kind::Semicolon) {
                        self.at += 1;
                    }
                }
            }
        }
    }

    /// `/-` reaches over blank lines to what it comments out.
    fn after_slashdash(&mut self) {
        while matches!(self.peek(), Some(Kind::Newline | Kind::Backslash)) {
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
    fn node(&mut self) {
        match self.peek() {
            Some(Kind::Word | Kind::Text) => {}
            Some(Kind::Open) => {
                self.problem(
                    "block-without-node",
                    "this block belongs to no node",
                    "a node's name should stand before it",
                    "put `{` on the line of its node: a line break ends the node",
                );
                self.block();
                return self.recover();
            }
            Some(Kind::Semicolon) => {
                self.problem(
                    "stray-semicolon",
                    "nothing stands before this `;`",
                    "it ends no node",
                    "remove it",
                );
                return;
            }
            Some(Kind::Equals) => {
                self.problem(
                    "bad-property",
                    "nothing stands before this `=`",
                    "the node's name and the property's name are missing",
                    "a property is written `name=value`, after its node's name",
                );
                return self.recover();
            }
            Some(Kind::Paren) => return self.paren(),
            Some(Kind::Slashdash) => {
                self.problem(
                    "slashdash",
                    "`/-` after `/-` comments out nothing more",
                    "one is enough",
                    "remove one of them",
                );
                return self.recover();
            }
            Some(_) | None => return self.recover(),
        }
        let name = self.span();
        self.at += 1;
        if self.peek() == Some(Kind::Equals) {
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
            return self.recover();
        }
        self.word(self.at - 1, Place::Name);
        self.entries();
    }

    /// Arguments, properties and the block of a node.
    fn entries(&mut self) {
        while self.problems.len() < lex::PROBLEM_LIMIT {
            self.continuation();
            match self.peek() {
                None | Some(Kind::Newline | Kind::Semicolon | Kind::Close) => return,
                Some(Kind::Slashdash) => {
                    let start = self.span().start;
                    self.at += 1;
                    self.after_slashdash();
                    match self.peek() {
                        Some(Kind::Open) => self.block(),
                        Some(Kind::Word | Kind::Text) => self.entry(),
                        _ => {
                            self.lonely_slashdash(start, "argument, property or block");
                            return self.recover();
                        }
                    }
                    self.blanks.push(start..self.previous_end());
                }
                Some(Kind::Open) => {
                    self.block();
                    return self.after_block();
                }
                Some(Kind::Word | Kind::Text) => {
                    let before = self.at.checked_sub(1).and_then(|at| self.tokens.get(at));
                    let glued = before.is_some_and(|before| {
                        before.kind != Kind::Newline && before.span.end == self.span().start
                    });
                    let known = self.problems.len();
                    let at = self.at;
                    self.entry();
                    // A comma after a string is glued to it, but the comma is the mistake.
                    if glued && self.problems.len() == known {
                        self.glued(at);
                    }
                }
                Some(Kind::Equals) => {
                    self.problem(
                        "bad-property",
                        "nothing that could be a name stands before this `=`",
                        "a property's name is missing",
                        "a property is written `name=value`",
                    );
                    return self.recover();
                }
                Some(Kind::Paren) => return self.paren(),
                Some(_) => return self.recover(),
            }
        }
    }

    /// After a node's block, only the node's end may follow.
    fn after_block(&mut self) {
        loop {
            self.continuation();
            match self.peek() {
                None | Some(Kind::Newline | Kind::Semicolon | Kind::Close) => return,
                Some(Kind::Slashdash) => {
                    let start = self.span().start;
                    self.at += 1;
                    self.after_slashdash();
                    if self.peek() != Some(Kind::Open) {
                        self.problem(
                            "after-block",
                            "only a block can be commented out after a block",
                            "something else stands here",
                            "begin a new line, or write `;` after the `}`",
                        );
                        return self.recover();
                    }
                    self.block();
                    self.blanks.push(start..self.previous_end());
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
                "a blank is missing before this",
                "it follows the text before it without a blank",
            )
            .help("separate arguments by blanks; a quote inside a string is written `\\\"`"),
        );
    }

    /// `{ … }`; that braces pair has been checked before.
    fn block(&mut self) {
        self.at += 1;
        self.nodes();
        if self.peek() == Some(Kind::Close) {
            self.at += 1;
        }
    }

    /// An argument or a property.
    fn entry(&mut self) {
        let first = self.at;
        self.at += 1;
        let before_equals = self.at;
        self.continuation();
        if self.peek() != Some(Kind::Equals) {
            self.at = before_equals;
            return self.word(first, Place::Value);
        }
        self.word(first, Place::Key);
        let equals = self.span();
        self.at += 1;
        self.continuation();
        match self.peek() {
            Some(Kind::Word | Kind::Text) => {
                self.word(self.at, Place::Value);
                self.at += 1;
            }
            Some(Kind::Paren) => self.paren(),
            _ => {
                let key = self.tokens[first].span.clone();
                let name = self.source[key.clone()].to_owned();
                self.problems.push(
                    Diagnostic::new(
                        "missing-value",
                        key.start..equals.end,
                        format!("`{name}=` has no value"),
                        "a value should follow",
                    )
                    .help(format!("write `{name}=\"…\"`, or remove `{name}=`")),
                );
                if self.peek() == Some(Kind::Equals) {
                    self.recover();
                }
            }
        }
    }

    fn paren(&mut self) {
        let text = self.text().to_owned();
        self.problem(
            "parenthesis",
            &format!("`{text}` has no meaning here"),
            "scenarios have no type annotations",
            "remove it, or put the text that contains it into quotes",
        );
        self.recover();
    }

    fn word(&mut self, index: usize, place: Place) {
        let Some(token) = self.tokens.get(index) else {
            return;
        };
        if token.kind == Kind::Word {
            let found = word::check(&self.source[token.span.clone()], token.span.start, place);
            self.problems.extend(found);
        }
    }
}
