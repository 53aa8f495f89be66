//! The report on one case, the most important thing first.

use std::collections::BTreeMap;

use cutpoint_trace::case::{CaseResult, CaseStatus, UnmetExpectation};
use cutpoint_trace::verdict::{Breach, Level, RuleVerdict, UNSPECIFIED, Verdict};
use cutpoint_trace::{Entry, Observation};

use crate::Context;
use crate::describe_observation::{columns, describe_observation};
use crate::layout::{Layout, Style, StyledLine};
use crate::text::{clean, count, seconds};

/// Where the headings of a case's details start.
pub(crate) const HEADING_INDENT: usize = 4;
/// Where the text below a heading starts.
const BODY_INDENT: usize = 8;
/// How wide the labels below a heading are, with the space after them.
const LABEL_WIDTH: usize = 8;
/// How many breaches of one rule are shown in full.
const BREACH_LIMIT: usize = 5;
/// How many entries of the trace are shown as evidence: the first ones and the last ones.
const EVIDENCE_LIMIT: usize = 12;

/// The one line that every case gets.
pub(crate) fn headline(layout: &mut Layout, case: &CaseResult, strict: bool) {
    let status = case.status(strict);
    let (style, word) = match status {
        CaseStatus::Conforms => (Style::Success, "PASS"),
        CaseStatus::Skipped => (Style::Dim, "SKIP"),
        CaseStatus::Breach => (Style::Failure, "FAIL"),
        CaseStatus::ScenarioError | CaseStatus::AgentFailed | CaseStatus::Trouble => {
            (Style::Failure, "ERROR")
        }
    };
    let line = StyledLine::default()
        .then(style, word)
        .then(Style::Plain, format!(" {}: ", clean(&case.file)))
        .then(Style::Emphasis, clean(&case.scenario));
    let result = match status {
        CaseStatus::Skipped => return layout.wrapped(line, BODY_INDENT),
        CaseStatus::Conforms => exercised(case),
        CaseStatus::Breach => failures(case, strict),
        CaseStatus::ScenarioError => "the scenario cannot be run".to_owned(),
        CaseStatus::AgentFailed => "the agent could not be run".to_owned(),
        CaseStatus::Trouble => "trouble in the harness".to_owned(),
    };
    let result = format!(" ({result}, {})", seconds(case.duration_ms));
    layout.wrapped(line.then(Style::Dim, result), BODY_INDENT);
}

fn exercised(case: &CaseResult) -> String {
    let exercised = |verdict: &&RuleVerdict| {
        matches!(verdict.verdict, Verdict::Pass { .. } | Verdict::Fail { .. })
    };
    match case.verdicts.iter().filter(exercised).count() {
        0 => "no rule exercised".to_owned(),
        rules => count(rules, "rule"),
    }
}

fn failures(case: &CaseResult, strict: bool) -> String {
    let breaches: usize = case
        .breaches(strict)
        .map(|verdict| breaches(verdict).len())
        .sum();
    let parts = [
        (breaches, count(breaches, "breach")),
        (case.unmet.len(), format!("{} not met", case.unmet.len())),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(_, text)| text)
        .collect();
    parts.join(", ")
}

/// The breaches of a verdict.
pub(crate) fn breaches(verdict: &RuleVerdict) -> &[Breach] {
    match &verdict.verdict {
        Verdict::Fail { breaches, .. } => breaches,
        _ => &[],
    }
}

/// The rule that was broken and which clause of it, such as `CALL-1/no-output`.
pub(crate) fn clause(verdict: &RuleVerdict, breach: &Breach) -> String {
    match &*breach.kind {
        UNSPECIFIED => verdict.rule.clone(),
        kind => format!("{}/{kind}", verdict.rule),
    }
}

/// Everything below the headline; nothing for most cases that conform.
pub(crate) fn details(case: &CaseResult, context: &Context, width: usize) -> Layout {
    let status = case.status(context.strict);
    let mut layout = Layout::new(Some(width));
    if let Some(note) = &case.note {
        layout.labelled(HEADING_INDENT, "why", LABEL_WIDTH, note);
    }
    for verdict in case.breaches(context.strict) {
        breach(&mut layout, case, verdict, context, "");
    }
    for expectation in &case.unmet {
        unmet(&mut layout, case, expectation);
    }
    unknown(&mut layout, case);
    if !context.strict {
        for verdict in warnings(case) {
            breach(&mut layout, case, verdict, context, "warning: ");
        }
    }
    waived(&mut layout, case);
    unneeded_waivers(&mut layout, case);
    if !matches!(status, CaseStatus::Conforms | CaseStatus::Skipped) {
        verbatim(&mut layout, "replay", &case.replay);
        if let Some(path) = &case.trace_path {
            verbatim(&mut layout, "trace", path);
        }
    }
    layout
}

/// The SHOULD rules that were broken and are not waived.
pub(crate) fn warnings(case: &CaseResult) -> impl Iterator<Item = &RuleVerdict> {
    case.breaches(true)
        .filter(|verdict| verdict.level == Level::Should)
}

pub(crate) fn level_name(level: Level) -> &'static str {
    match level {
        Level::Must => "MUST",
        Level::Should => "SHOULD",
    }
}

fn breach(
    layout: &mut Layout,
    case: &CaseResult,
    verdict: &RuleVerdict,
    context: &Context,
    prefix: &str,
) {
    let style = if prefix.is_empty() {
        Style::Failure
    } else {
        Style::Warning
    };
    let breaches = breaches(verdict);
    for (n, breach) in breaches.iter().take(BREACH_LIMIT).enumerate() {
        let clause = clause(verdict, breach);
        let name = format!("{prefix}{clause} {}: ", level_name(verdict.level));
        heading(layout, style, &name, &breach.text());
        if n == 0
            && let Some(sentence) = (context.sentence)(&verdict.rule)
        {
            layout.labelled(BODY_INDENT, "rule", LABEL_WIDTH, sentence);
        }
        evidence(layout, case, &breach.evidence);
        if let Some((place, text)) = step_at(case, breach.evidence.last().copied()) {
            layout.labelled(
                BODY_INDENT,
                "step",
                LABEL_WIDTH,
                &format!("{place}: {text}"),
            );
        }
    }
    if breaches.len() > BREACH_LIMIT {
        let more = format!("{} more of {}", breaches.len() - BREACH_LIMIT, verdict.rule);
        layout.line(StyledLine::indented(HEADING_INDENT).then(style, format!("and {more}")));
    }
}

fn unmet(layout: &mut Layout, case: &CaseResult, unmet: &UnmetExpectation) {
    heading(layout, Style::Failure, "not met: ", &unmet.text);
    layout.labelled(BODY_INDENT, "found", LABEL_WIDTH, &unmet.found);
    evidence(layout, case, &unmet.evidence);
    let place = place(&case.file, unmet.line);
    layout.labelled(BODY_INDENT, "at", LABEL_WIDTH, &place);
}

/// Rules whose verdict is unknown. A reason that several of them share is given once.
fn unknown(layout: &mut Layout, case: &CaseResult) {
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for verdict in &case.verdicts {
        if let Verdict::Unknown { why } = &verdict.verdict {
            reasons.entry(why).or_default().push(&verdict.rule);
        }
    }
    for (why, rules) in reasons {
        let whole = rules.len() == case.verdicts.len();
        // The note of a case in trouble says the same for all rules.
        if whole && case.note.as_deref().is_some_and(|note| note.contains(why)) {
            continue;
        }
        let rules = match rules.as_slice() {
            [rule] => (*rule).to_owned(),
            rules => count(rules.len(), "rule"),
        };
        heading(layout, Style::Warning, &format!("unknown: {rules}: "), why);
    }
}

fn waived(layout: &mut Layout, case: &CaseResult) {
    for verdict in &case.verdicts {
        let Some(because) = &verdict.waived else {
            continue;
        };
        for breach in breaches(verdict).iter().take(BREACH_LIMIT) {
            let clause = clause(verdict, breach);
            let name = format!("waived: {clause} {}: ", level_name(verdict.level));
            heading(layout, Style::Dim, &name, &breach.text());
        }
        if !breaches(verdict).is_empty() {
            layout.labelled(BODY_INDENT, "because", LABEL_WIDTH, because);
        }
    }
}

fn unneeded_waivers(layout: &mut Layout, case: &CaseResult) {
    for verdict in case.unneeded_waivers() {
        let found = match verdict.verdict {
            Verdict::NotExercised => "the rule was not exercised in this case",
            Verdict::NotApplicable { .. } => "the rule does not apply to this agent",
            _ => "the rule was not broken in this case",
        };
        let name = format!("waiver not needed: {}: ", verdict.rule);
        heading(layout, Style::Warning, &name, found);
    }
}

/// The file and line of the step in force at an entry (the last step without one), and its text.
pub(crate) fn step_at(case: &CaseResult, seq: Option<u64>) -> Option<(String, String)> {
    let (line, text) = step(case, seq)?;
    Some((place(&case.file, line), text.to_owned()))
}

/// The line and the text of the step in force at an entry.
pub(crate) fn step(case: &CaseResult, seq: Option<u64>) -> Option<(usize, &str)> {
    let before = |entry: &&Entry| seq.is_none_or(|seq| entry.seq <= seq);
    let entries = case.trace.entries.iter().rev().filter(before);
    entries
        .map(|entry| &entry.observation)
        .find_map(|observation| match observation {
            Observation::Step { line, text, .. } => Some((*line, text.as_str())),
            _ => None,
        })
}

fn place(file: &str, line: usize) -> String {
    match line {
        0 => file.to_owned(),
        line => format!("{file}:{line}"),
    }
}

/// A line that says what happened, after a name.
fn heading(layout: &mut Layout, style: Style, name: &str, text: &str) {
    let start = StyledLine::indented(HEADING_INDENT).then(style, clean(name));
    layout.paragraph(start, BODY_INDENT, Style::Emphasis, text);
}

/// A labelled text that is meant to be copied, so it is never broken.
fn verbatim(layout: &mut Layout, label: &str, text: &str) {
    layout.line(label_line(HEADING_INDENT, label).then(Style::Emphasis, clean(text)));
}

fn label_line(indent: usize, label: &str) -> StyledLine {
    StyledLine::indented(indent).then(Style::Dim, format!("{label:<LABEL_WIDTH$}"))
}

/// The entries of the trace that show something, a line each.
fn evidence(layout: &mut Layout, case: &CaseResult, numbers: &[u64]) {
    let find = |seq: u64| {
        // Entries are numbered in order, so a number is nearly always the position.
        let at = usize::try_from(seq).ok()?;
        let entries = &case.trace.entries;
        let direct = entries.get(at).filter(|entry| entry.seq == seq);
        direct.or_else(|| entries.iter().find(|entry| entry.seq == seq))
    };
    let row = |seq: &u64| match find(*seq) {
        Some(entry) => {
            let (number, time) = columns(entry);
            (number, time, describe_observation(&entry.observation))
        }
        None => (
            format!("#{seq}"),
            String::new(),
            "is not in the trace".to_owned(),
        ),
    };
    let (head, tail) = if numbers.len() > EVIDENCE_LIMIT {
        (
            &numbers[..EVIDENCE_LIMIT / 2],
            &numbers[numbers.len() - EVIDENCE_LIMIT / 2..],
        )
    } else {
        (numbers, &[][..])
    };
    let rows: Vec<_> = head.iter().chain(tail).map(row).collect();
    let widest = |length: fn(&(String, String, String)) -> usize| rows.iter().map(length).max();
    let number_width = widest(|row| row.0.len()).unwrap_or_default();
    let time_width = widest(|row| row.1.len()).unwrap_or_default();
    for (n, (number, time, text)) in rows.iter().enumerate() {
        if n == head.len() && !tail.is_empty() {
            let more = numbers.len() - EVIDENCE_LIMIT;
            layout.line(label_line(BODY_INDENT, "").then(Style::Dim, format!("… {more} more")));
        }
        let label = if n == 0 { "seen" } else { "" };
        let columns = format!("{number:<number_width$} {time:>time_width$}  ");
        let line = label_line(BODY_INDENT, label).then(Style::Dim, columns);
        let indent = line.width();
        layout.paragraph(line, indent, Style::Plain, text);
    }
}
