//! Lines for people, on a terminal or in a log.

use std::io::{self, Write};

use cutpoint_trace::AgentInfo;
use cutpoint_trace::case::{CaseResult, CaseStatus};
use cutpoint_trace::verdict::Level;

use crate::line::{Line, Tone};
use crate::story;
use crate::summary::{RuleCount, Summary};
use crate::text::{WIDTH, clean, count, seconds, wrap};
use crate::transcript::transcript;
use crate::{Context, Reporter};

/// How many failed cases are named again at the end.
const FAILED_LIMIT: usize = 20;

/// Writes one line per case, and in full what went wrong.
pub struct Console<'a, W> {
    to: W,
    colour: bool,
    context: Context<'a>,
    /// Whether each case is told as a person saw it.
    verbose: bool,
    agent: Option<AgentInfo>,
    failed: Vec<Line>,
    not_named: usize,
    /// Whether the last line was empty.
    gap: bool,
}

impl<'a, W: Write> Console<'a, W> {
    /// A console on `to`; whether that is one with colours is for the caller to know.
    pub fn new(to: W, colour: bool, context: Context<'a>) -> Self {
        Self {
            to,
            colour,
            context,
            verbose: false,
            agent: None,
            failed: Vec::new(),
            not_named: 0,
            gap: false,
        }
    }

    /// Whether each case is told as a person at the keyboard saw it, step by step.
    pub fn verbose(self, verbose: bool) -> Self {
        Self { verbose, ..self }
    }

    fn line(&mut self, line: &Line) -> io::Result<()> {
        // One empty line sets things apart as well as two.
        let empty = *line == Line::default();
        if empty && self.gap {
            return Ok(());
        }
        self.gap = empty;
        if self.colour {
            writeln!(self.to, "{}", line.coloured())
        } else {
            // Padding of columns is of no use at the end of a line.
            writeln!(self.to, "{}", line.to_string().trim_end())
        }
    }

    fn lines(&mut self, lines: &[Line]) -> io::Result<()> {
        lines.iter().try_for_each(|line| self.line(line))
    }
}

impl<W: Write> Reporter for Console<'_, W> {
    fn case(&mut self, case: &CaseResult) -> io::Result<()> {
        if self.agent.as_ref() != Some(&case.agent) {
            self.line(&agent_line(&case.agent))?;
            self.agent = Some(case.agent.clone());
        }
        self.line(&story::headline(case, self.context.strict))?;
        if self.verbose {
            self.lines(&transcript(&case.trace))?;
        }
        let details = story::details(case, &self.context);
        self.lines(&details)?;
        let status = case.status(self.context.strict);
        if !matches!(status, CaseStatus::Conforms | CaseStatus::Skipped) {
            if self.failed.len() < FAILED_LIMIT {
                let line = Line::indented(2).then(Tone::Plain, format!("{}: ", clean(&case.file)));
                self.failed
                    .push(line.then(Tone::Strong, clean(&case.scenario)));
            } else {
                self.not_named += 1;
            }
            // An empty line sets a failure off from what follows.
            self.line(&Line::default())?;
        }
        self.to.flush()
    }

    fn finish(&mut self, summary: &Summary) -> io::Result<()> {
        self.lines(&rules(summary))?;
        if !self.failed.is_empty() {
            let failed = std::mem::take(&mut self.failed);
            self.line(&Line::default())?;
            self.line(&Line::default().then(Tone::Bad, "Failed"))?;
            self.lines(&failed)?;
            if self.not_named > 0 {
                let more = format!("and {} more", self.not_named);
                self.line(&Line::indented(2).then(Tone::Plain, more))?;
            }
        }
        self.line(&Line::default())?;
        self.line(&total(summary))?;
        self.to.flush()
    }
}

fn agent_line(agent: &AgentInfo) -> Line {
    let name = format!("{} {}", agent.name, agent.version);
    let mut line = Line::default()
        .then(Tone::Plain, "Agent ")
        .then(Tone::Strong, clean(&name))
        .then(Tone::Plain, format!(", driven by {}", clean(&agent.driver)));
    if !agent.defects.is_empty() {
        let defects = format!(", with planted defects: {}", agent.defects.join(", "));
        line = line.then(Tone::Warn, clean(&defects));
    }
    line
}

/// How often each rule was put to the test, and which were not.
fn rules(summary: &Summary) -> Vec<Line> {
    let mut lines = Vec::new();
    let (tested, rest): (Vec<&RuleCount>, Vec<&RuleCount>) =
        summary.rules.iter().partition(|rule| rule.cases > 0);
    let width = tested
        .iter()
        .map(|rule| rule.rule.chars().count())
        .max()
        .unwrap_or(0)
        .max(4);
    if !tested.is_empty() {
        let head = format!(
            "{:<width$}  {:<6}  {:>9}  {:>6}  {:>8}",
            "Rule", "", "exercised", "cases", "breaches"
        );
        lines.push(Line::default());
        lines.push(Line::default().then(Tone::Strong, head));
    }
    for rule in tested {
        let level = match rule.level {
            Level::Must => "MUST",
            Level::Should => "SHOULD",
        };
        let columns = format!(
            "{:<width$}  {level:<6}  {:>9}  {:>6}  ",
            clean(&rule.rule),
            rule.exercised,
            rule.cases
        );
        let tone = match (rule.breaches, rule.level) {
            (0, _) => Tone::Faint,
            (_, Level::Should) if !summary.strict => Tone::Warn,
            _ => Tone::Bad,
        };
        let mut line = Line::default()
            .then(Tone::Plain, columns)
            .then(tone, format!("{:>8}", rule.breaches));
        if rule.waived > 0 {
            line = line.then(Tone::Faint, format!("  and {} waived", rule.waived));
        }
        lines.push(line);
    }
    let (idle, rest): (Vec<_>, Vec<_>) = rest.into_iter().partition(|rule| rule.not_exercised > 0);
    let (lacking, unknown): (Vec<_>, Vec<_>) =
        rest.into_iter().partition(|rule| rule.not_applicable > 0);
    list(&mut lines, Tone::Warn, "Not exercised", &idle);
    list(&mut lines, Tone::Faint, "Not applicable", &lacking);
    list(&mut lines, Tone::Warn, "Unknown", &unknown);
    lines
}

fn list(lines: &mut Vec<Line>, tone: Tone, heading: &str, rules: &[&RuleCount]) {
    if rules.is_empty() {
        return;
    }
    let names: Vec<&str> = rules.iter().map(|rule| rule.rule.as_str()).collect();
    let heading = format!("{heading} ({})", rules.len());
    lines.push(Line::default());
    lines.push(Line::default().then(tone, heading));
    for text in wrap(&names.join(", "), WIDTH - 2) {
        lines.push(Line::indented(2).then(Tone::Plain, text));
    }
}

/// The last line: what a reader looks for first.
fn total(summary: &Summary) -> Line {
    let mut line = Line::default().then(Tone::Strong, count(summary.cases, "case"));
    for (n, (status, number)) in summary.by_status.iter().enumerate() {
        let (tone, text) = match status {
            CaseStatus::Conforms if *number == 1 => (Tone::Good, "1 conforms".to_owned()),
            CaseStatus::Conforms => (Tone::Good, format!("{number} conform")),
            CaseStatus::Skipped => (Tone::Plain, format!("{number} skipped")),
            CaseStatus::Breach => (Tone::Bad, format!("{number} failed")),
            CaseStatus::ScenarioError => (Tone::Bad, count(*number, "scenario error")),
            CaseStatus::AgentFailed => (
                Tone::Bad,
                format!("{number} where the agent could not be run"),
            ),
            CaseStatus::Trouble => (Tone::Bad, format!("{number} with trouble in the harness")),
        };
        line = line
            .then(Tone::Plain, if n == 0 { ": " } else { ", " })
            .then(tone, text);
    }
    let strict = if summary.strict { ", strict" } else { "" };
    let rest = format!(
        " ({}, seed {}{strict})",
        seconds(summary.duration_ms),
        summary.seed
    );
    line.then(Tone::Faint, rest)
}
