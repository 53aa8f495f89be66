//! Text for people, laid out for a width: styled lines, paragraphs with hanging indents, tables.
//!
//! A line knows the style of its pieces, so one text serves consoles with and without colour. How wide
//! a console is and whether it has colours is for the caller to find out.

use std::fmt::{self, Write as _};
use std::ops::Range;

use anstyle::AnsiColor;
use textwrap::core::display_width;
use textwrap::{Options, WordSeparator, WordSplitter, WrapAlgorithm};

use crate::text::{clean, shorten};

/// How wide a report is where no terminal says so, in columns.
pub const DEFAULT_WIDTH: usize = 96;
/// Running text that is wider than this is hard to read, in columns.
const TEXT_WIDTH_MAX: usize = 120;
/// Text that has lines of its own is cut off here, in characters.
const OWN_LINE_LIMIT: usize = 140;
/// The last column of a table is at least this wide, in columns.
const LAST_COLUMN_MIN: usize = 24;
/// How far the continuation of a row is indented if its table is too wide, in columns.
const OVERFLOW_INDENT: usize = 4;
/// What stands between two columns.
const GAP: &str = "  ";

/// How a piece of a line is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Style {
    /// Plain text.
    #[default]
    Plain,
    /// Good news.
    Success,
    /// A failure.
    Failure,
    /// Worth a look.
    Warning,
    /// Names that the eye looks for.
    Emphasis,
    /// What most readers skip.
    Dim,
}

impl Style {
    const fn ansi(self) -> anstyle::Style {
        let style = anstyle::Style::new();
        match self {
            Self::Plain => style,
            Self::Success => AnsiColor::Green.on_default().bold(),
            Self::Failure => AnsiColor::Red.on_default().bold(),
            Self::Warning => AnsiColor::Yellow.on_default().bold(),
            Self::Emphasis => style.bold(),
            Self::Dim => style.dimmed(),
        }
    }
}

/// One line, without its line break.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StyledLine {
    pieces: Vec<(Style, String)>,
}

impl StyledLine {
    /// A line that starts with this many spaces.
    pub fn indented(spaces: usize) -> Self {
        Self::default().then(Style::Plain, " ".repeat(spaces))
    }

    /// The line with one more piece.
    #[must_use]
    pub fn then(mut self, style: Style, text: impl Into<String>) -> Self {
        self.pieces.push((style, text.into()));
        self
    }

    /// Returns true if there is nothing to see.
    pub fn is_blank(&self) -> bool {
        self.pieces.iter().all(|(_, text)| text.trim().is_empty())
    }

    /// How many columns the line takes.
    pub fn width(&self) -> usize {
        self.pieces
            .iter()
            .map(|(_, text)| display_width(text))
            .sum()
    }

    /// The line with escape sequences for its styles.
    pub fn coloured(&self) -> String {
        let mut text = String::new();
        for (style, piece) in &self.pieces {
            let ansi = style.ansi();
            // Writing to a String cannot fail.
            let _ = write!(text, "{ansi}{piece}{ansi:#}");
        }
        text
    }
}

impl fmt::Display for StyledLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces
            .iter()
            .try_for_each(|(_, piece)| f.write_str(piece))
    }
}

/// Lines that are laid out one after the other.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    /// The width in columns; absent where lines may be of any length.
    width: Option<usize>,
    lines: Vec<StyledLine>,
}

impl Layout {
    /// Nothing so far, for a console of that many columns. Without a width, no line is broken.
    pub fn new(width: Option<usize>) -> Self {
        Self {
            width,
            lines: Vec::new(),
        }
    }

    /// Adds a line as it is, such as a command that is meant to be copied.
    pub fn line(&mut self, line: StyledLine) {
        self.lines.push(line.disarmed());
    }

    /// Adds a blank line.
    pub fn blank(&mut self) {
        self.line(StyledLine::default());
    }

    /// Adds a line that is broken at spaces where it is too long. Its further lines start at column
    /// `indent`.
    pub fn wrapped(&mut self, line: StyledLine, indent: usize) {
        match self.width {
            Some(width) if line.width() > width => self.wrap(&line, indent, width),
            _ => self.line(line),
        }
    }

    fn wrap(&mut self, line: &StyledLine, indent: usize, width: usize) {
        let text = line.to_string();
        let spaces = " ".repeat(indent);
        let options = Options::new(width)
            .subsequent_indent(&spaces)
            .break_words(false)
            .word_separator(WordSeparator::AsciiSpace)
            .word_splitter(WordSplitter::NoHyphenation)
            .wrap_algorithm(WrapAlgorithm::FirstFit);
        let mut start = 0;
        for (n, part) in textwrap::wrap(&text, options).iter().enumerate() {
            let (indent, part) = match n {
                0 => (0, &**part),
                _ => (indent, part.strip_prefix(&spaces).unwrap_or(part)),
            };
            let from = start + text[start..].find(part).unwrap_or_default();
            start = from + part.len();
            self.line(line.slice(indent, from..start));
        }
    }

    /// Adds a text that continues `start`. Its further lines start at column `indent`.
    ///
    /// A text that has lines of its own is kept as it is laid out: it may be a diff, or a diagnostic
    /// with carets. Only what is far too long for a line is shortened.
    pub fn paragraph(&mut self, start: StyledLine, indent: usize, style: Style, text: &str) {
        let text = text.trim_end();
        if !text.contains('\n') {
            let line = start.then(style, clean(text));
            return match self.width.map(|width| width.min(TEXT_WIDTH_MAX)) {
                Some(width) if line.width() > width => self.wrap(&line, indent, width),
                _ => self.line(line),
            };
        }
        let mut start = start;
        for text in text.lines() {
            let text = clean(text);
            let line = start.then(style, shorten(&text, OWN_LINE_LIMIT));
            self.line(line);
            start = StyledLine::indented(indent);
        }
    }

    /// Adds a message of this program, such as a diagnostic, which may have lines and colours of its
    /// own.
    pub fn message(&mut self, text: &str) {
        for text in text.lines() {
            let line = StyledLine::default().then(Style::Plain, text);
            match text.contains('\u{1b}') || text.starts_with(' ') {
                true => self.lines.push(line),
                false => self.wrapped(line, OVERFLOW_INDENT),
            }
        }
    }

    /// Adds a heading.
    pub fn heading(&mut self, text: &str) {
        self.paragraph(StyledLine::default(), 0, Style::Emphasis, text);
    }

    /// Adds a plain text.
    pub fn text(&mut self, text: &str) {
        self.paragraph(StyledLine::default(), 0, Style::Plain, text);
    }

    /// Adds a text after a label. Its further lines stand below the first.
    pub fn labelled(&mut self, indent: usize, label: &str, label_width: usize, text: &str) {
        let start = StyledLine::indented(indent).then(Style::Dim, pad(label, label_width));
        self.paragraph(start, indent + label_width, Style::Plain, text);
    }

    /// Adds a table.
    pub fn table(&mut self, table: &Table) {
        let widths = table.widths();
        let fixed: usize = widths.iter().map(|width| width + GAP.len()).sum();
        let fits = self
            .width
            .is_none_or(|width| table.indent + fixed + LAST_COLUMN_MIN <= width);
        for row in &table.rows {
            if fits {
                self.row(table, &widths, row);
            } else {
                self.overflowing_row(table.indent, row);
            }
        }
    }

    fn row(&mut self, table: &Table, widths: &[usize], row: &[Cell]) {
        let mut line = StyledLine::indented(table.indent);
        for (at, cell) in row.iter().enumerate() {
            let Some(align) = table.columns.get(at) else {
                let indent = line.width();
                return self.wrapped(line.then(cell.style, &*cell.text).trimmed(), indent);
            };
            let text = match align {
                Align::Left => pad(&cell.text, widths[at]),
                Align::Right => {
                    let missing = widths[at].saturating_sub(display_width(&cell.text));
                    format!("{}{}", " ".repeat(missing), cell.text)
                }
            };
            line = line.then(cell.style, text).then(Style::Plain, GAP);
        }
        self.line(line.trimmed());
    }

    /// A row of a table that is too wide: its cells follow one another like words.
    fn overflowing_row(&mut self, indent: usize, row: &[Cell]) {
        let mut line = StyledLine::indented(indent);
        for cell in row.iter().filter(|cell| !cell.text.is_empty()) {
            line = line.then(cell.style, &*cell.text).then(Style::Plain, GAP);
        }
        self.wrapped(line.trimmed(), indent + OVERFLOW_INDENT);
    }

    /// The lines so far.
    pub fn lines(&self) -> &[StyledLine] {
        &self.lines
    }

    /// All lines, each with its line break and escape sequences for its styles.
    pub fn coloured(&self) -> String {
        self.lines
            .iter()
            .map(|line| line.coloured() + "\n")
            .collect()
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl StyledLine {
    /// The line without spaces at its end.
    fn trimmed(mut self) -> Self {
        while let Some((_, last)) = self.pieces.last_mut() {
            last.truncate(last.trim_end().len());
            if !last.is_empty() {
                break;
            }
            self.pieces.pop();
        }
        self
    }

    /// These bytes of the line, after so many spaces.
    fn slice(&self, indent: usize, bytes: Range<usize>) -> Self {
        let mut line = match indent {
            0 => Self::default(),
            indent => Self::indented(indent),
        };
        let mut piece_start = 0;
        for (style, piece) in &self.pieces {
            let place = |at: usize| at.saturating_sub(piece_start).min(piece.len());
            let part = &piece[place(bytes.start)..place(bytes.end)];
            if !part.is_empty() {
                line = line.then(*style, part);
            }
            piece_start += piece.len();
        }
        line
    }

    /// The line in a form that no CI system takes for a command: those start with `::`.
    fn disarmed(mut self) -> Self {
        let looks_like_a_command = self.to_string().trim_start().starts_with("::");
        let has_text = |(_, text): &&mut (Style, String)| !text.trim().is_empty();
        if looks_like_a_command && let Some((_, text)) = self.pieces.iter_mut().find(has_text) {
            *text = text.replacen(':', "\\u{3a}", 1);
        }
        self
    }
}

/// How the text of a column is aligned. The last column always starts at its left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// To the left.
    Left,
    /// To the right, as numbers are.
    Right,
}

/// A cell of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cell {
    style: Style,
    text: String,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Style::Plain.cell(text)
    }
}

impl Style {
    /// A cell in this style.
    pub fn cell(self, text: impl Into<String>) -> Cell {
        let text: String = text.into();
        Cell {
            style: self,
            text: clean(&text).into_owned(),
        }
    }
}

/// Rows whose cells stand in columns. The last column is wrapped; if there is no room for it, all
/// cells of a row follow one another.
#[derive(Debug, Clone)]
pub struct Table {
    indent: usize,
    /// All but the last one.
    columns: Vec<Align>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// An empty table with these columns and one more.
    pub fn new(indent: usize, columns: impl IntoIterator<Item = Align>) -> Self {
        Self {
            indent,
            columns: columns.into_iter().collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, with at most one cell per column.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let cells: Vec<Cell> = cells.into_iter().take(self.columns.len() + 1).collect();
        self.rows.push(cells);
    }

    /// How wide each column but the last is.
    fn widths(&self) -> Vec<usize> {
        let width = |at: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(at));
            cells.map(|cell| display_width(&cell.text)).max()
        };
        (0..self.columns.len())
            .map(|at| width(at).unwrap_or_default())
            .collect()
    }
}

/// The text with spaces up to that width.
fn pad(text: &str, width: usize) -> String {
    let missing = width.saturating_sub(display_width(text));
    format!("{text}{}", " ".repeat(missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_adds_nothing_but_escapes() {
        let line = StyledLine::indented(2)
            .then(Style::Failure, "FAIL")
            .then(Style::Plain, " x");
        assert_eq!(line.to_string(), "  FAIL x");
        assert_eq!(line.coloured(), "  \u{1b}[1m\u{1b}[31mFAIL\u{1b}[0m x");
    }

    #[test]
    fn lines_break_at_spaces() {
        let wrap = |text, width| {
            let mut layout = Layout::new(Some(width));
            layout.text(text);
            layout.to_string()
        };
        assert_eq!(wrap("one two three", 7), "one two\nthree\n");
        assert_eq!(wrap("a b\n", 80), "a b\n");
        assert_eq!(
            wrap("one\n\n  ^^ two three\n", 7),
            "one\n\n  ^^ two three\n"
        );
        assert_eq!(wrap("loooooong-word x", 3), "loooooong-word\nx\n");
        assert_eq!(wrap("abc ::error::x", 5), "abc\n\\u{3a}:error::x\n");
        assert_eq!(wrap("a\n ::error::x", 5), "a\n \\u{3a}:error::x\n");
        assert_eq!(wrap("", 5), "\n");
    }

    #[test]
    fn a_broken_line_keeps_its_styles() {
        let line = StyledLine::default()
            .then(Style::Success, "PASS")
            .then(Style::Plain, " one two ")
            .then(Style::Emphasis, "two three");
        let mut layout = Layout::new(Some(12));
        layout.wrapped(line, 2);
        let two = Style::Emphasis.ansi();
        assert_eq!(layout.to_string(), "PASS one two\n  two three\n");
        assert_eq!(
            layout.lines()[1].coloured(),
            format!("  {two}two three{two:#}")
        );
    }

    #[test]
    fn a_paragraph_hangs_below_its_label() {
        let mut layout = Layout::new(Some(16));
        layout.labelled(2, "why", 5, "one two three four");
        layout.labelled(2, "", 5, "five");
        assert_eq!(
            layout.to_string(),
            "  why  one two\n       three\n       four\n       five\n"
        );
        let mut layout = Layout::new(None);
        layout.labelled(2, "why", 5, "one two three four");
        assert_eq!(layout.to_string(), "  why  one two three four\n");
    }

    #[test]
    fn a_table_keeps_its_columns_and_wraps_the_last_one() {
        let mut table = Table::new(1, [Align::Left, Align::Right]);
        table.row(["rule".into(), "cases".into(), "about".into()]);
        table.row([
            Style::Emphasis.cell("CALL-1"),
            "7".into(),
            "every call gets exactly one output".into(),
        ]);
        table.row(["X".into(), "1".into(), "".into()]);
        let laid_out = |width| {
            let mut layout = Layout::new(width);
            layout.table(&table);
            layout.to_string()
        };
        assert_eq!(
            laid_out(Some(42)),
            " rule    cases  about\n CALL-1      7  every call gets exactly\n                one output\n X           1\n"
        );
        assert_eq!(
            laid_out(None),
            " rule    cases  about\n CALL-1      7  every call gets exactly one output\n X           1\n"
        );
        assert_eq!(
            laid_out(Some(24)),
            " rule  cases  about\n CALL-1  7  every call\n     gets exactly one\n     output\n X  1\n"
        );
    }
}
