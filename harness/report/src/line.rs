//! Lines whose pieces know what they are, so that one text serves consoles with and without colour.

use std::fmt::{self, Write as _};

use anstyle::{AnsiColor, Style};

/// What a piece of a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Plain text.
    Plain,
    /// Good news.
    Good,
    /// A failure.
    Bad,
    /// Worth a look.
    Warn,
    /// Names that the eye looks for.
    Strong,
    /// What most readers skip.
    Faint,
}

impl Tone {
    const fn style(self) -> Style {
        let style = Style::new();
        match self {
            Self::Plain => style,
            Self::Good => AnsiColor::Green.on_default().bold(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
            Self::Warn => AnsiColor::Yellow.on_default().bold(),
            Self::Strong => style.bold(),
            Self::Faint => style.dimmed(),
        }
    }
}

/// One line of a report, without its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Line {
    pieces: Vec<(Tone, String)>,
}

impl Line {
    /// A line that starts so far to the right.
    pub(crate) fn indented(spaces: usize) -> Self {
        Self::default().then(Tone::Plain, " ".repeat(spaces))
    }

    /// The line with one more piece.
    pub(crate) fn then(mut self, tone: Tone, text: impl Into<String>) -> Self {
        self.pieces.push((tone, text.into()));
        self
    }

    /// The line in colour.
    pub(crate) fn coloured(&self) -> String {
        let mut text = String::new();
        for (tone, piece) in &self.pieces {
            let style = tone.style();
            // Writing to a String cannot fail.
            let _ = write!(text, "{style}{piece}{style:#}");
        }
        text
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces
            .iter()
            .try_for_each(|(_, piece)| f.write_str(piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_adds_nothing_but_escapes() {
        let line = Line::indented(2)
            .then(Tone::Bad, "FAIL")
            .then(Tone::Plain, " x");
        assert_eq!(line.to_string(), "  FAIL x");
        assert_eq!(line.coloured(), "  \u{1b}[1m\u{1b}[31mFAIL\u{1b}[0m x");
    }
}
