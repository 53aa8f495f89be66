//! The layout of `cutpoint fmt`.
//!
//! The source's own tokens are laid out again, so that every comment stays. Lines are neither
//! joined nor broken: where a line ends is the author's choice.

use crate::diagnostic::Diagnostics;
use crate::kdl::{self, Token, TokenKind};
use crate::{parse, spelling};

const INDENT_COLUMNS: usize = 4;

/// Lays out a scenario file: four columns for each level, one blank between tokens, at most one
/// empty line in a row. Comments, empty lines and what stands in quotes are kept.
///
/// Words in an old spelling are rewritten. What else the scenarios say is not looked at, so that a file can be laid out before it is finished.
///
/// # Errors
///
/// The mistakes of the file's syntax.
pub fn format(file_name: &str, source: &str) -> Result<String, Diagnostics> {
    let nodes = parse::nodes(file_name, source)?;
    let modern = spelling::modernize(source, &nodes);
    let mut problems = Vec::new();
    let tokens = kdl::lex(&modern, &mut problems);
    let laid_out = lay_out(&modern, &tokens);
    // Layout must not change what a file says. If it ever would, that is a mistake of ours, and
    // the author's file is worth more than its layout.
    let tokens_after = kdl::lex(&laid_out, &mut problems);
    if problems.is_empty() && meaning(&modern, &tokens) == meaning(&laid_out, &tokens_after) {
        Ok(laid_out)
    } else {
        Ok(source.to_owned())
    }
}

/// What the parser makes of tokens depends on these texts alone: all but blanks, with at most two
/// line breaks in a row.
fn meaning<'a>(source: &'a str, tokens: &[Token]) -> Vec<&'a str> {
    let mut out: Vec<&str> = Vec::new();
    for token in tokens {
        match token.kind {
            TokenKind::Space => {}
            TokenKind::Newline => {
                if !out.is_empty() && !out.ends_with(&["\n", "\n"]) {
                    out.push("\n");
                }
            }
            _ => out.push(text(source, token)),
        }
    }
    while out.last() == Some(&"\n") {
        out.pop();
    }
    out
}

/// A token's text, a line comment without the blanks at its end.
fn text<'a>(source: &'a str, token: &Token) -> &'a str {
    let text = &source[token.span.clone()];
    if token.kind == TokenKind::LineComment {
        text.trim_end_matches(kdl::is_space)
    } else {
        text
    }
}

fn lay_out(source: &str, tokens: &[Token]) -> String {
    let mut out = String::with_capacity(source.len());
    let mut depth = 0_usize;
    let mut newlines = 0_usize;
    let mut previous: Option<TokenKind> = None;
    let mut continues = false;
    for token in tokens {
        match token.kind {
            TokenKind::Space => continue,
            TokenKind::Newline => {
                newlines += 1;
                continue;
            }
            TokenKind::Close => depth = depth.saturating_sub(1),
            _ => {}
        }
        match previous {
            Some(previous) if newlines == 0 => out.push_str(gap(previous, token.kind)),
            _ => {
                if previous.is_some() {
                    out.push_str(if newlines > 1 { "\n\n" } else { "\n" });
                }
                // After a backslash the node goes on, one level further in.
                let level = depth + usize::from(continues && newlines == 1);
                out.extend(std::iter::repeat_n(' ', level * INDENT_COLUMNS));
                continues = false;
            }
        }
        newlines = 0;
        out.push_str(text(source, token));
        match token.kind {
            TokenKind::Open => depth += 1,
            TokenKind::Backslash => continues = true,
            _ => {}
        }
        previous = Some(token.kind);
    }
    if !out.is_empty() {
        out.push('\n');
    }
    out
}

/// The text between two tokens of one line.
fn gap(before: TokenKind, after: TokenKind) -> &'static str {
    let comment = matches!(after, TokenKind::LineComment | TokenKind::BlockComment);
    match (before, after) {
        (TokenKind::Open, TokenKind::Close)
        | (_, TokenKind::Semicolon | TokenKind::Equals)
        | (TokenKind::Equals, _) => "",
        (TokenKind::Slashdash, _) if !comment => "",
        _ => " ",
    }
}
