//! Lines for people, on a terminal or in a log.

use std::io::{self, Write};

use cutpoint_trace::AgentInfo;
use cutpoint_trace::case::{CaseResult, CaseStatus};
use cutpoint_trace::verdict::Level;

use crate::case_details::{self, level_name};
use crate::layout::{Align, DEFAULT_WIDTH, Layout, Style, StyledLine, Table};
use crate::summary::{RuleCount, Summary};
use crate::text::{clean, count, seconds};
use crate::transcript::transcript;
use crate::{Context, Reporter};

/// How many failed cases are named again at the end.
const FAILED_LIMIT: usize = 20;

/// Writes one line per case, and all details of a case that went wrong.
///
/// The lines have escape sequences for their styles; where they don't belong, the writer takes them
/// out, as `anstream` does.
pub struct Console<W> {
    to: W,
    width: usize,
    context: Context,
    /// Whether each case is shown as its user saw it.
    verbose: bool,
    agent: Option<AgentInfo>,
    failed: Vec<StyledLine>,
    not_named: usize,
    /// Whether the last line was blank.
    gap: bool,
}

impl<W: Write> Console<W> {
    /// A console of [`DEFAULT_WIDTH`] that writes to `to`.
    pub fn new(to: W, context: Context) -> Self {
        Self {
            to,
            width: DEFAULT_WIDTH,
            context,
            verbose: false,
            agent: None,
            failed: Vec::new(),
            not_named: 0,
            gap: false,
        }
    }

    /// Sets the width, in columns.
    #[must_use]
    pub fn width(self, width: usize) -> Self {
        Self { width, ..self }
    }

    /// Sets whether each case is shown as its user saw it, step by step.
    #[must_use]
    pub fn verbose(self, verbose: bool) -> Self {
        Self { verbose, ..self }
    }

    fn print(&mut self, layout: &Layout) -> io::Result<()> {
        for line in layout.lines() {
            // One blank line sets things apart as well as two.
            let blank = line.is_blank();
            if !(blank && self.gap) {
                writeln!(self.to, "{}", line.coloured())?;
            }
            self.gap = blank;
        }
        Ok(())
    }
}

impl<W: Write> Reporter for Console<W> {
    fn case(&mut self, case: &CaseResult) -> io::Result<()> {
        let mut layout = Layout::new(Some(self.width));
        if self.agent.as_ref() != Some(&case.agent) {
            agent_line(&mut layout, &case.agent);
            self.agent = Some(case.agent.clone());
        }
        case_details::headline(&mut layout, case, self.context.strict);
        self.print(&layout)?;
        if self.verbose {
            self.print(&transcript(&case.trace, self.width))?;
        }
        let mut details = case_details::details(case, &self.context, self.width);
        let status = case.status(self.context.strict);
        if !matches!(status, CaseStatus::Conforms | CaseStatus::Skipped) {
            if self.failed.len() < FAILED_LIMIT {
                let line = StyledLine::indented(2)
                    .then(Style::Plain, format!("{}: ", clean(&case.file)))
                    .then(Style::Emphasis, clean(&case.scenario));
                self.failed.push(line);
            } else {
                self.not_named += 1;
            }
            // A blank line sets a failure off from what follows.
            details.blank();
        }
        self.print(&details)?;
        self.to.flush()
    }

    fn finish(&mut self, summary: &Summary) -> io::Result<()> {
        let mut layout = Layout::new(Some(self.width));
        rules(&mut layout, summary);
        let failed = std::mem::take(&mut self.failed);
        if !failed.is_empty() {
            layout.blank();
            layout.line(StyledLine::default().then(Style::Failure, "Failed"));
            failed.into_iter().for_each(|line| layout.wrapped(line, 4));
        }
        if self.not_named > 0 {
            let more = format!("and {} more", self.not_named);
            layout.line(StyledLine::indented(2).then(Style::Plain, more));
        }
        layout.blank();
        layout.wrapped(total(summary), 2);
        self.print(&layout)?;
        self.to.flush()
    }
}

fn agent_line(layout: &mut Layout, agent: &AgentInfo) {
    let name = format!("{} {}", agent.name, agent.version);
    let mut line = StyledLine::default()
        .then(Style::Plain, "Agent ")
        .then(Style::Emphasis, clean(&name))
        .then(
            Style::Plain,
            format!(", driven by {}", clean(&agent.driver)),
        );
    if !agent.defects.is_empty() {
        let defects = format!(", with planted defects: {}", agent.defects.join(", "));
        line = line.then(Style::Warning, clean(&defects));
    }
    layout.wrapped(line, 2);
}

/// How often each rule was exercised, and which rules were not.
fn rules(layout: &mut Layout, summary: &Summary) {
    let (exercised, rest): (Vec<&RuleCount>, Vec<&RuleCount>) =
        summary.rules.iter().partition(|rule| rule.cases > 0);
    if !exercised.is_empty() {
        layout.blank();
        layout.table(&exercised_table(&exercised, summary.strict));
    }
    let (idle, rest): (Vec<_>, Vec<_>) = rest.into_iter().partition(|rule| rule.not_exercised > 0);
    let (lacking, unknown): (Vec<_>, Vec<_>) =
        rest.into_iter().partition(|rule| rule.not_applicable > 0);
    list(layout, Style::Warning, "Not exercised", &idle);
    list(layout, Style::Dim, "Not applicable", &lacking);
    list(layout, Style::Warning, "Unknown", &unknown);
}

fn exercised_table(rules: &[&RuleCount], strict: bool) -> Table {
    use Align::{Left, Right};
    let mut table = Table::new(0, [Left, Left, Right, Right, Right]);
    let head = ["Rule", "", "exercised", "cases", "breaches", ""];
    table.row(head.map(|name| Style::Emphasis.cell(name)));
    for rule in rules {
        let style = match (rule.breaches, rule.level) {
            (0, _) => Style::Dim,
            (_, Level::Should) if !strict => Style::Warning,
            _ => Style::Failure,
        };
        let waived = match rule.waived {
            0 => String::new(),
            waived => format!("and {waived} waived"),
        };
        table.row([
            rule.rule.as_str().into(),
            level_name(rule.level).into(),
            rule.exercised.to_string().into(),
            rule.cases.to_string().into(),
            style.cell(rule.breaches.to_string()),
            Style::Dim.cell(waived),
        ]);
    }
    table
}

fn list(layout: &mut Layout, style: Style, heading: &str, rules: &[&RuleCount]) {
    if rules.is_empty() {
        return;
    }
    let names: Vec<&str> = rules.iter().map(|rule| rule.rule.as_str()).collect();
    let heading = format!("{heading} ({})", rules.len());
    layout.blank();
    layout.line(StyledLine::default().then(style, heading));
    layout.paragraph(StyledLine::indented(2), 2, Style::Plain, &names.join(", "));
}

/// The last line: what a reader looks for first.
fn total(summary: &Summary) -> StyledLine {
    let mut line = StyledLine::default().then(Style::Emphasis, count(summary.cases, "case"));
    for (n, (status, number)) in summary.by_status.iter().enumerate() {
        let (style, text) = match status {
            CaseStatus::Conforms if *number == 1 => (Style::Success, "1 conforms".to_owned()),
            CaseStatus::Conforms => (Style::Success, format!("{number} conform")),
            CaseStatus::Skipped => (Style::Plain, format!("{number} skipped")),
            CaseStatus::Breach => (Style::Failure, format!("{number} failed")),
            CaseStatus::ScenarioError => (Style::Failure, count(*number, "scenario error")),
            CaseStatus::AgentFailed => (
                Style::Failure,
                format!("{number} where the agent could not be run"),
            ),
            CaseStatus::Trouble => (
                Style::Failure,
                format!("{number} with trouble in the harness"),
            ),
        };
        line = line
            .then(Style::Plain, if n == 0 { ": " } else { ", " })
            .then(style, text);
    }
    let strict = if summary.strict { ", strict" } else { "" };
    let rest = format!(
        " ({}, seed {}{strict})",
        seconds(summary.duration_ms),
        summary.seed
    );
    line.then(Style::Dim, rest)
}
