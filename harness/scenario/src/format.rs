//! The layout of `cutpoint fmt`.
//!
//! The source's own tokens are laid out again, so that every comment stays. Lines are neither
//! joined nor broken: where a line ends is the author's choice.

use crate::diagnostic::Diagnostics;
use crate::lex::{self, Kind, Token};
use crate::{parse, spelling, tree};

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
    let before = parse::nodes(file_name, &modern)?;
    let mut problems = Vec::new();
    let tokens = lex::lex(&modern, &mut problems);
    let laid_out = lay_out(&modern, &tokens);
    // Layout must not change what a file says. If it ever would, that is a mistake of ours, and
    // the author's file is worth more than its layout.
    let same_nodes = parse::nodes(file_name, &laid_out)
        .is_ok_and(|after| tree::all_say_the_same(&before, &after));
    let same_tokens = {
        let tokens_after = lex::lex(&laid_out, &mut problems);
        words(&modern, &tokens) == words(&laid_out, &tokens_after)
    };
    if same_nodes && same_tokens {
        Ok(laid_out)
    } else {
        Ok(source.to_owned())
    }
}

/// The texts of all tokens but blanks and line breaks.
fn words<'a>(source: &'a str, tokens: &[Token]) -> Vec<&'a str> {
    tokens
        .iter()
        .filter(|token| !matches!(token.kind, Kind::Space | Kind::Newline))
        .map(|token| text(source, token))
        .collect()
}

/// A token's text, a line comment without the blanks at its end.
fn text<'a>(source: &'a str, token: &Token) -> &'a str {
    let text = &source[token.span.clone()];
    if token.kind == Kind::LineComment {
        text.trim_end_matches(lex::is_space)
    } else {
        text
    }
}

fn lay_out(source: &str, tokens: &[Token]) -> String {
    let mut out = String::with_capacity(source.len());
    let mut depth = 0_usize;
    let mut newlines = 0_usize;
    let mut previous: Option<Kind> = None;
    let mut continues = false;
    for token in tokens {
        match token.kind {
            Kind::Space => continue,
            Kind::Newline => {
                newlines += 1;
                continue;
            }
            Kind::Close => depth = depth.saturating_sub(1),
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
            Kind::Open => depth += 1,
            Kind::Backslash => continues = true,
            _ => {}
        }
        previous = Some(token.kind);
    }
    if !out.is_empty() {
        out.push('\n');
    }
    out
}

/// What stands between two tokens of one line.
fn gap(before: Kind, after: Kind) -> &'static str {
    let comment = matches!(after, Kind::LineComment | Kind::BlockComment);
    match (before, after) {
        (Kind::Open, Kind::Close) | (_, Kind::Semicolon | Kind::Equals) | (Kind::Equals, _) => "",
        (Kind::Slashdash, _) if !comment => "",
        _ => " ",
    }
}
