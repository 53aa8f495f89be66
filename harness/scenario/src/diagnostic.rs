//! What is wrong with a source text, where, and what to do about it.

use std::fmt;
use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{
    AnnotationKind, Level, Origin, Renderer, Snippet, normalize_untrusted_str,
};

/// How many diagnostics `render` shows in full; a file of noise must not fill a screen for hours.
const RENDER_LIMIT: usize = 20;

/// The longest message, label or help; the longest of our own has about 450 characters.
const TEXT_LIMIT_CHARS: usize = 600;

/// One mistake in a source text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The kind of mistake, for machines and for searching the documentation.
    pub code: &'static str,
    /// The mistake in one line.
    pub message: String,
    /// Where it is: byte offsets into the source, end exclusive.
    pub span: Range<usize>,
    /// The text next to the caret.
    pub label: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A diagnostic without a help line.
    pub(crate) fn new(
        code: &'static str,
        span: Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> Self {
        Self {
            code,
            message: shorten(message.into()),
            span,
            label: shorten(label.into()),
            help: None,
        }
    }

    /// The same with a help line.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(shorten(help.into()));
        self
    }

    /// The same with a help line, if there is one to give.
    pub(crate) fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help.map(shorten);
        self
    }
}

/// All mistakes found in one source text: at least one, in the order of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics {
    file_name: String,
    /// Empty when there is no text to show, as with binary files.
    source: String,
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Sorts the mistakes by place; mistakes at one place keep their order.
    pub(crate) fn new(file_name: &str, source: &str, mut list: Vec<Diagnostic>) -> Self {
        list.sort_by_key(|diagnostic| diagnostic.span.start);
        Self {
            file_name: file_name.to_owned(),
            source: source.to_owned(),
            list,
        }
    }

    /// The file's name as given to the parser.
    pub fn file_name(&self) -> &str {
        &self.file_name
    }

    /// The mistakes, in the order of the text.
    pub fn as_slice(&self) -> &[Diagnostic] {
        &self.list
    }

    /// The mistakes, in the order of the text.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.list.iter()
    }

    /// Line and column of a byte offset, both counted from 1, the column in characters.
    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        let before = &self.source[..floor_boundary(&self.source, offset)];
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        (line, before[start..].chars().count() + 1)
    }

    /// The mistakes as a person reads them: file, line, caret, label and help.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color {
            Renderer::styled()
        } else {
            Renderer::plain()
        }
        .decor_style(DecorStyle::Ascii);
        let mut out: Vec<String> = self
            .list
            .iter()
            .take(RENDER_LIMIT)
            .map(|diagnostic| self.render_one(&renderer, diagnostic))
            .collect();
        match self.list.len().saturating_sub(RENDER_LIMIT) {
            0 => {}
            1 => out.push("error: and 1 more mistake in this file".to_owned()),
            more => out.push(format!("error: and {more} more mistakes in this file")),
        }
        let mut text = out.join("\n\n");
        text.push('\n');
        text
    }

    fn render_one(&self, renderer: &Renderer, diagnostic: &Diagnostic) -> String {
        let title = Level::ERROR
            .primary_title(diagnostic.message.as_str())
            .id(diagnostic.code);
        let group = if self.source.is_empty() {
            title.element(Origin::path(self.file_name.as_str()))
        } else {
            // Only the line in question is handed over, so that the cost does not grow with the
            // file, and a span over many lines is cut to its first line: one caret line is read
            // faster than a bracket around half a file.
            let start = floor_boundary(&self.source, diagnostic.span.start);
            let line_start = self.source[..start].rfind('\n').map_or(0, |at| at + 1);
            let line_end = self.source[start..]
                .find('\n')
                .map_or(self.source.len(), |at| start + at);
            let line = self.source[line_start..line_end].trim_end_matches('\r');
            let end = floor_boundary(&self.source, diagnostic.span.end)
                .clamp(start, (line_start + line.len()).max(start));
            let span = (start - line_start).min(line.len())..(end - line_start).min(line.len());
            let number = self.source[..line_start].matches('\n').count() + 1;
            title.element(
                Snippet::source(line)
                    .path(self.file_name.as_str())
                    .line_start(number)
                    .annotation(
                        AnnotationKind::Primary
                            .span(span)
                            .label(diagnostic.label.as_str()),
                    ),
            )
        };
        let help = diagnostic.help.as_deref().map(normalize_untrusted_str);
        let group = match help {
            Some(help) => group.element(Level::HELP.message(help)),
            None => group,
        };
        renderer.render(&[group])
    }
}

/// Cuts a text that quotes more of the file than anyone wants to read.
fn shorten(mut text: String) -> String {
    if let Some((at, _)) = text.char_indices().nth(TEXT_LIMIT_CHARS) {
        text.truncate(at);
        text.push('…');
    }
    text
}

/// The nearest character boundary at or before an offset, so that slicing never panics.
fn floor_boundary(text: &str, offset: usize) -> usize {
    let mut at = offset.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

impl std::error::Error for Diagnostics {}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
