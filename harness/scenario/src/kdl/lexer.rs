//! KDL's tokens with their places, and what is wrong inside of a token.

use std::ops::Range;

use crate::diagnostic::Diagnostic;

/// A text with more mistakes than this is not a scenario, and looking for more would take long.
pub(crate) const PROBLEM_LIMIT: usize = 100;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// Blanks within a line.
    Space,
    /// One line break.
    Newline,
    /// `// …` without its line break.
    LineComment,
    /// `/* … */`, nested ones included.
    BlockComment,
    /// `/-`.
    Slashdash,
    /// `{`.
    Open,
    /// `}`.
    Close,
    /// `(` or `)`.
    Paren,
    /// `=`.
    Equals,
    /// `;`.
    Semicolon,
    /// `\` outside of strings: the line goes on.
    Backslash,
    /// A quoted or raw string, of one line or several.
    Text,
    /// Anything else: names, bare strings, numbers, keywords, and mistakes.
    Word,
}

/// One token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// What it is.
    pub(crate) kind: TokenKind,
    /// Where it is.
    pub(crate) span: Range<usize>,
}

impl Token {
    /// Whether the token has no meaning to the parser.
    pub(crate) fn is_blank(&self) -> bool {
        matches!(
            self.kind,
            TokenKind::Space | TokenKind::LineComment | TokenKind::BlockComment
        )
    }
}

/// The line breaks of KDL; a carriage return before a line feed belongs to it.
pub(crate) fn is_newline(c: char) -> bool {
    matches!(
        c,
        '\n' | '\r' | '\u{85}' | '\u{b}' | '\u{c}' | '\u{2028}' | '\u{2029}'
    )
}

/// The whitespace of KDL within a line.
pub(crate) fn is_space(c: char) -> bool {
    matches!(
        c,
        '\t' | ' ' | '\u{a0}' | '\u{1680}' | '\u{2000}'
            ..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}'
    )
}

/// Characters that KDL does not allow in a text, because they are invisible or turn it around.
pub(crate) fn is_disallowed(c: char) -> bool {
    matches!(
        c,
        '\u{0}'..='\u{8}'
            | '\u{e}'..='\u{1f}'
            | '\u{7f}'
            | '\u{200e}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{feff}'
    )
}

/// Splits a text into tokens that cover it without gaps (but for a byte order mark), and reports
/// strings and comments that do not end, bad escapes and forbidden characters.
pub(crate) fn lex(source: &str, problems: &mut Vec<Diagnostic>) -> Vec<Token> {
    let mut lexer = Lexer {
        source,
        at: if source.starts_with('\u{feff}') { 3 } else { 0 },
        tokens: Vec::new(),
        problems,
        glued: None,
    };
    while lexer.at < source.len() && lexer.problems.len() < PROBLEM_LIMIT {
        lexer.token();
    }
    lexer.tokens
}

/// Whether only blanks stand after the last line break of a text that is not joined away.
fn ends_on_blank_line(body: &str, escapes: bool) -> bool {
    let mut blank = false;
    let mut chars = body.chars().peekable();
    while let Some(c) = chars.next() {
        if escapes && c == '\\' {
            let mut joined = false;
            while chars.next_if(|c| is_space(*c) || is_newline(*c)).is_some() {
                joined = true;
            }
            if !joined {
                chars.next();
                blank = false;
            }
        } else if is_newline(c) {
            blank = true;
        } else if !is_space(c) {
            blank = false;
        }
    }
    blank
}

/// What to do about a line that lacks the indentation of its string's closing quotes.
pub(crate) const INDENTATION_HELP: &str = "begin every line of the text with the same indentation as \
     the line of the closing `\"\"\"`; the indentation is not part of the text";

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    tokens: Vec<Token>,
    problems: &'a mut Vec<Diagnostic>,
    /// A string on this line that is followed by a word without a blank between them: most likely
    /// the place where a closing quote is missing, when the line's last string does not end.
    glued: Option<Range<usize>>,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.source[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take_while(&mut self, accept: impl Fn(char) -> bool) {
        let rest = &self.source[self.at..];
        self.at += rest.find(|c| !accept(c)).unwrap_or(rest.len());
    }

    fn push(&mut self, kind: TokenKind, start: usize) {
        self.tokens.push(Token {
            kind,
            span: start..self.at,
        });
    }

    fn token(&mut self) {
        let start = self.at;
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return;
        };
        let single = match first {
            '{' => Some(TokenKind::Open),
            '}' => Some(TokenKind::Close),
            '(' | ')' => Some(TokenKind::Paren),
            '=' => Some(TokenKind::Equals),
            ';' => Some(TokenKind::Semicolon),
            '\\' => Some(TokenKind::Backslash),
            _ => None,
        };
        if let Some(kind) = single {
            self.at += 1;
            self.push(kind, start);
        } else if is_newline(first) {
            self.at += if rest.starts_with("\r\n") {
                2
            } else {
                first.len_utf8()
            };
            self.push(TokenKind::Newline, start);
            self.glued = None;
        } else if is_space(first) {
            self.take_while(is_space);
            self.push(TokenKind::Space, start);
        } else if rest.starts_with("//") {
            self.take_while(|c| !is_newline(c));
            self.push(TokenKind::LineComment, start);
        } else if rest.starts_with("/*") {
            self.block_comment(start);
        } else if rest.starts_with("/-") {
            self.at += 2;
            self.push(TokenKind::Slashdash, start);
        } else if first == '"' {
            self.quoted(start);
        } else if rest.trim_start_matches('#').starts_with('"') && first == '#' {
            self.raw(start);
        } else {
            self.word(start);
        }
    }

    fn word(&mut self, start: usize) {
        while let Some(c) = self.peek() {
            let ends = is_space(c)
                || is_newline(c)
                || matches!(c, '{' | '}' | '(' | ')' | '=' | ';' | '\\' | '"')
                || self.rest().starts_with("//")
                || self.rest().starts_with("/*");
            if ends {
                break;
            }
            self.at += c.len_utf8();
        }
        self.forbidden(start, "");
        if let Some(last) = self.tokens.last()
            && last.kind == TokenKind::Text
        {
            self.glued.get_or_insert(last.span.clone());
        }
        self.push(TokenKind::Word, start);
    }

    fn block_comment(&mut self, start: usize) {
        let mut depth = 0_usize;
        loop {
            let rest = self.rest();
            if rest.starts_with("/*") {
                depth += 1;
                self.at += 2;
            } else if rest.starts_with("*/") {
                depth -= 1;
                self.at += 2;
                if depth == 0 {
                    break;
                }
            } else if let Some(c) = rest.chars().next() {
                self.at += c.len_utf8();
            } else {
                self.problems.push(
                    Diagnostic::new(
                        "unclosed-comment",
                        start..start + 2,
                        "this comment is not closed",
                        "it begins here",
                    )
                    .help("end it with `*/`; every `/*` inside it needs one of its own"),
                );
                break;
            }
        }
        self.push(TokenKind::BlockComment, start);
    }

    fn quoted(&mut self, start: usize) {
        if self.rest().starts_with("\"\"\"") {
            self.at += 3;
            self.multi_line(start, "\"\"\"", true);
        } else {
            self.at += 1;
            self.single_line(start);
        }
        self.forbidden(
            start,
            "inside a quoted string it can be written as an escape: ",
        );
        self.push(TokenKind::Text, start);
    }

    fn single_line(&mut self, start: usize) {
        loop {
            match self.peek() {
                Some('"') => {
                    self.at += 1;
                    return;
                }
                Some('\\') => self.escape(),
                Some(c) if !is_newline(c) => self.at += c.len_utf8(),
                _ => {
                    self.unclosed(start, 1);
                    return;
                }
            }
        }
    }

    /// Reports a string that does not end on its line.
    fn unclosed(&mut self, start: usize, quotes: usize) {
        let span = match self.glued.take() {
            Some(earlier) => earlier.start..earlier.start + 1,
            None => start..start + quotes,
        };
        self.problems.push(
            Diagnostic::new(
                "unclosed-string",
                span,
                "this string is not closed",
                "it begins here and does not end on this line",
            )
            .help(
                "add the closing quote; a text of several lines goes between `\"\"\"` lines, \
                 or has `\\n` for its line breaks",
            ),
        );
    }

    /// Skips a backslash and what it escapes.
    fn escape(&mut self) {
        let start = self.at;
        self.at += 1;
        let Some(c) = self.peek() else { return };
        if is_space(c) || is_newline(c) {
            self.take_while(|c| is_space(c) || is_newline(c));
            return;
        }
        self.at += c.len_utf8();
        let good = match c {
            '"' | '\\' | 'b' | 'f' | 'n' | 'r' | 't' | 's' => true,
            'u' => self.unicode_escape(),
            _ => false,
        };
        if !good {
            let written = self.source[start..self.at].to_owned();
            let help = if c == 'u' {
                "write `\\u{1f600}`: one to six hexadecimal digits of a character in braces"
                    .to_owned()
            } else {
                format!(
                    "write `\\{written}` for a backslash, or put the text between `#\"` and `\"#`, \
                     where backslashes stand for themselves"
                )
            };
            self.problems.push(
                Diagnostic::new(
                    "bad-escape",
                    start..self.at,
                    format!("`{written}` is not an escape"),
                    "unknown after a backslash",
                )
                .help(help),
            );
        }
    }

    fn unicode_escape(&mut self) -> bool {
        if !self.rest().starts_with('{') {
            return false;
        }
        let digits = self.at + 1;
        let Some(length) = self.source[digits..].find(|c: char| !c.is_ascii_hexdigit()) else {
            return false;
        };
        let number = &self.source[digits..digits + length];
        if !self.source[digits + length..].starts_with('}') {
            return false;
        }
        self.at = digits + length + 1;
        (1..=6).contains(&length)
            && u32::from_str_radix(number, 16)
                .ok()
                .and_then(char::from_u32)
                .is_some()
    }

    /// Skips to the closing quotes of a multi-line string whose opening quotes have been read.
    fn multi_line(&mut self, start: usize, close: &str, escapes: bool) {
        let opened = self.at;
        if !self.peek().is_some_and(is_newline) {
            self.skip_in_line(close);
            self.problems.push(
                Diagnostic::new(
                    "multi-line-string",
                    start..opened,
                    "a multi-line string begins on the line after its quotes",
                    "nothing may follow on this line",
                )
                .help("break the line after the opening `\"\"\"`, and before the closing `\"\"\"`"),
            );
            return;
        }
        loop {
            if self.rest().starts_with(close) {
                self.at += close.len();
                break;
            }
            match self.peek() {
                Some('\\') if escapes => self.escape(),
                Some(c) => self.at += c.len_utf8(),
                None => {
                    self.problems.push(
                        Diagnostic::new(
                            "unclosed-string",
                            start..opened,
                            "this multi-line string is not closed",
                            "it begins here",
                        )
                        .help(format!("end it with a line that holds only `{close}`")),
                    );
                    return;
                }
            }
        }
        self.indentation(opened, close.len(), escapes);
    }

    /// Skips the closing quotes, or else to the end of the line; returns true if the quotes were found.
    fn skip_in_line(&mut self, close: &str) -> bool {
        while let Some(c) = self.peek() {
            if self.rest().starts_with(close) {
                self.at += close.len();
                return true;
            }
            if is_newline(c) {
                break;
            }
            self.at += c.len_utf8();
        }
        false
    }

    /// Checks that the closing quotes of a multi-line string stand on a line of their own, and
    /// that every line of the text is indented like theirs.
    fn indentation(&mut self, opened: usize, close_len: usize, escapes: bool) {
        let body = &self.source[opened..self.at - close_len];
        if !ends_on_blank_line(body, escapes) {
            let end = self.at - close_len;
            self.problems.push(
                Diagnostic::new(
                    "multi-line-string",
                    end..self.at,
                    "the closing quotes of a multi-line string stand on a line of their own",
                    "this is still a line of the text",
                )
                .help(
                    "break the line before the closing `\"\"\"`; a `\\` at a line's end joins it \
                     with the next",
                ),
            );
            return;
        }
        // A backslash before a line break joins lines, so that what looks like the beginning of a
        // line is none. The parser finds out when it takes the text apart.
        let joins = body
            .match_indices('\\')
            .any(|(at, _)| body[at + 1..].starts_with(|c| is_space(c) || is_newline(c)));
        if escapes && joins {
            return;
        }
        let last = body.rfind(is_newline).map_or(0, |at| {
            at + body[at..].chars().next().map_or(1, char::len_utf8)
        });
        let indent = &body[last..];
        let mut at = opened;
        let mut wrong = None;
        for line in body[..last].split_inclusive(is_newline) {
            let text = line.trim_end_matches(is_newline);
            if !text.chars().all(is_space) && !text.starts_with(indent) {
                let blanks = text.len() - text.trim_start_matches(is_space).len();
                wrong = Some(at..at + blanks.max(1));
                break;
            }
            at += line.len();
        }
        if let Some(span) = wrong {
            self.problems.push(
                Diagnostic::new(
                    "multi-line-string",
                    span,
                    "this line is indented less than the closing quotes of its string",
                    "the indentation of the closing `\"\"\"` is missing here",
                )
                .help(INDENTATION_HELP),
            );
        }
    }

    fn raw(&mut self, start: usize) {
        self.take_while(|c| c == '#');
        let hashes = self.source[start..self.at].to_owned();
        if self.rest().starts_with("\"\"\"") {
            self.at += 3;
            self.multi_line(start, &format!("\"\"\"{hashes}"), false);
        } else {
            self.at += 1;
            let close = format!("\"{hashes}");
            let quotes = self.at - start;
            if !self.skip_in_line(&close) {
                self.problems.push(
                    Diagnostic::new(
                        "unclosed-string",
                        start..start + quotes,
                        "this raw string is not closed",
                        "it begins here and does not end on this line",
                    )
                    .help(format!("end it with `{close}`")),
                );
            }
        }
        self.forbidden(
            start,
            "a raw string has no escapes; in a quoted string it is ",
        );
        self.push(TokenKind::Text, start);
    }

    /// Reports the first forbidden character since `start`.
    fn forbidden(&mut self, start: usize, hint: &str) {
        let Some((offset, c)) = self.source[start..self.at]
            .char_indices()
            .find(|(_, c)| is_disallowed(*c))
        else {
            return;
        };
        let number = u32::from(c);
        let at = start + offset;
        let help = if hint.is_empty() {
            "remove it, or put the text in quotes and write it as an escape".to_owned()
        } else {
            format!("{hint}`\\u{{{number:x}}}`")
        };
        self.problems.push(
            Diagnostic::new(
                "forbidden-character",
                at..at + c.len_utf8(),
                format!("the invisible character U+{number:04X} is not allowed here"),
                "here",
            )
            .help(help),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(source: &str) -> Vec<(TokenKind, &str)> {
        let mut problems = Vec::new();
        let tokens = lex(source, &mut problems);
        assert_eq!(problems, [], "{source}");
        tokens
            .into_iter()
            .filter(|token| token.kind != TokenKind::Space)
            .map(|token| (token.kind, &source[token.span]))
            .collect()
    }

    #[test]
    fn tokens_cover_strings_and_comments_whole() {
        assert_eq!(
            kinds("a\"b{\"// c }\n/* { /* } */ */ x=#\"\"q\"\"#;y \"\\\"\" \\"),
            [
                (TokenKind::Word, "a"),
                (TokenKind::Text, "\"b{\""),
                (TokenKind::LineComment, "// c }"),
                (TokenKind::Newline, "\n"),
                (TokenKind::BlockComment, "/* { /* } */ */"),
                (TokenKind::Word, "x"),
                (TokenKind::Equals, "="),
                (TokenKind::Text, "#\"\"q\"\"#"),
                (TokenKind::Semicolon, ";"),
                (TokenKind::Word, "y"),
                (TokenKind::Text, "\"\\\"\""),
                (TokenKind::Backslash, "\\"),
            ]
        );
        assert_eq!(
            kinds("t \"\"\"\n  a \\\"\"\" b\n  \"\"\"\r\n"),
            [
                (TokenKind::Word, "t"),
                (TokenKind::Text, "\"\"\"\n  a \\\"\"\" b\n  \"\"\""),
                (TokenKind::Newline, "\r\n"),
            ]
        );
    }
}
