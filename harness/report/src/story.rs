//! What there is to tell about a case, the most important thing first.

use std::collections::BTreeMap;

use cutpoint_trace::case::{CaseResult, CaseStatus, UnmetExpectation};
use cutpoint_trace::verdict::{Breach, Level, RuleVerdict, Verdict};
use cutpoint_trace::{Entry, Observation};

use crate::Context;
use crate::describe::{columns, describe_what};
use crate::line::{Line, Tone};
use crate::text::{WIDTH, clean, count, seconds, shorten, wrap};

/// Where the headings of a case's details start.
pub(crate) const HEADING_INDENT: usize = 4;
/// Where what stands below a heading starts.
const BODY_INDENT: usize = 8;
/// How wide the labels below a heading are, with the space behind them.
const LABEL_WIDTH: usize = 8;
/// How many breaches of one rule are told in full.
const BREACH_LIMIT: usize = 5;
/// How many entries of the trace are shown as evidence: the first ones and the last ones.
const EVIDENCE_LIMIT: usize = 12;

/// The one line that every case gets.
pub(crate) fn headline(case: &CaseResult, strict: bool) -> Line {
    let status = case.status(strict);
    let (tone, word) = match status {
        CaseStatus::Conforms => (Tone::Good, "PASS"),
        CaseStatus::Skipped => (Tone::Faint, "SKIP"),
        CaseStatus::Breach => (Tone::Bad, "FAIL"),
        CaseStatus::ScenarioError | CaseStatus::AgentFailed | CaseStatus::Trouble => {
            (Tone::Bad, "ERROR")
        }
    };
    let line = Line::default()
        .then(tone, word)
        .then(Tone::Plain, format!(" {}: ", clean(&case.file)))
        .then(Tone::Strong, clean(&case.scenario));
    let result = match status {
        CaseStatus::Skipped => return line,
        CaseStatus::Conforms => exercised(case),
        CaseStatus::Breach => failures(case, strict),
        CaseStatus::ScenarioError => "the scenario cannot be run".to_owned(),
        CaseStatus::AgentFailed => "the agent could not be run".to_owned(),
        CaseStatus::Trouble => "trouble in the harness".to_owned(),
    };
    let result = format!(" ({result}, {})", seconds(case.duration_ms));
    line.then(Tone::Faint, result)
}

fn exercised(case: &CaseResult) -> String {
    let tested = |verdict: &&RuleVerdict| {
        matches!(verdict.verdict, Verdict::Pass { .. } | Verdict::Fail { .. })
    };
    match case.verdicts.iter().filter(tested).count() {
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

/// The breaches that a verdict holds.
pub(crate) fn breaches(verdict: &RuleVerdict) -> &[Breach] {
    match &verdict.verdict {
        Verdict::Fail { breaches, .. } => breaches,
        _ => &[],
    }
}

/// Everything below the headline; nothing for most cases that conform.
pub(crate) fn details(case: &CaseResult, context: &Context<'_>) -> Vec<Line> {
    let status = case.status(context.strict);
    let mut lines = Vec::new();
    if let Some(note) = &case.note {
        labelled(&mut lines, HEADING_INDENT, "why", note);
    }
    for verdict in case.breaches(context.strict) {
        breach(&mut lines, case, verdict, context, "");
    }
    for expectation in &case.unmet {
        unmet(&mut lines, case, expectation);
    }
    unknown(&mut lines, case);
    if !context.strict {
        for verdict in warnings(case) {
            breach(&mut lines, case, verdict, context, "warning: ");
        }
    }
    waived(&mut lines, case);
    unneeded_waivers(&mut lines, case);
    if !matches!(status, CaseStatus::Conforms | CaseStatus::Skipped) {
        verbatim(&mut lines, "replay", &case.replay);
        if let Some(path) = &case.trace_path {
            verbatim(&mut lines, "trace", path);
        }
    }
    lines
}

/// The SHOULD rules that were broken and are not waived.
pub(crate) fn warnings(case: &CaseResult) -> impl Iterator<Item = &RuleVerdict> {
    case.breaches(true)
        .filter(|verdict| verdict.level == Level::Should)
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Must => "MUST",
        Level::Should => "SHOULD",
    }
}

fn breach(
    lines: &mut Vec<Line>,
    case: &CaseResult,
    verdict: &RuleVerdict,
    context: &Context<'_>,
    prefix: &str,
) {
    let tone = if prefix.is_empty() {
        Tone::Bad
    } else {
        Tone::Warn
    };
    let breaches = breaches(verdict);
    for (n, breach) in breaches.iter().take(BREACH_LIMIT).enumerate() {
        let name = format!("{prefix}{} {}: ", verdict.rule, level(verdict.level));
        heading(lines, tone, &name, &breach.text());
        if n == 0
            && let Some(sentence) = (context.sentence)(&verdict.rule)
        {
            labelled(lines, BODY_INDENT, "rule", sentence);
        }
        evidence(lines, case, &breach.evidence);
        if let Some((place, text)) = step_at(case, breach.evidence.last().copied()) {
            labelled(lines, BODY_INDENT, "step", &format!("{place}: {text}"));
        }
    }
    if breaches.len() > BREACH_LIMIT {
        let more = format!("{} more of {}", breaches.len() - BREACH_LIMIT, verdict.rule);
        let line = Line::indented(HEADING_INDENT).then(tone, format!("and {more}"));
        lines.push(line);
    }
}

fn unmet(lines: &mut Vec<Line>, case: &CaseResult, unmet: &UnmetExpectation) {
    heading(lines, Tone::Bad, "not met: ", &unmet.text);
    labelled(lines, BODY_INDENT, "found", &unmet.found);
    evidence(lines, case, &unmet.evidence);
    let place = place(&case.file, unmet.line);
    labelled(lines, BODY_INDENT, "at", &place);
}

/// Rules of which nothing can be said; where all of them share a reason, it is told once.
fn unknown(lines: &mut Vec<Line>, case: &CaseResult) {
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
        heading(lines, Tone::Warn, &format!("unknown: {rules}: "), why);
    }
}

fn waived(lines: &mut Vec<Line>, case: &CaseResult) {
    for verdict in &case.verdicts {
        let Some(because) = &verdict.waived else {
            continue;
        };
        for breach in breaches(verdict).iter().take(BREACH_LIMIT) {
            let name = format!("waived: {} {}: ", verdict.rule, level(verdict.level));
            heading(lines, Tone::Faint, &name, &breach.text());
        }
        if !breaches(verdict).is_empty() {
            labelled(lines, BODY_INDENT, "because", because);
        }
    }
}

fn unneeded_waivers(lines: &mut Vec<Line>, case: &CaseResult) {
    for verdict in case.unneeded_waivers() {
        let found = match verdict.verdict {
            Verdict::NotExercised => "the rule was not exercised in this case",
            Verdict::NotApplicable { .. } => "the rule does not apply to this agent",
            _ => "the rule was not broken in this case",
        };
        let name = format!("waiver not needed: {}: ", verdict.rule);
        heading(lines, Tone::Warn, &name, found);
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
        .find_map(|what| match what {
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

/// A line that says what happened, with a name in front.
fn heading(lines: &mut Vec<Line>, tone: Tone, name: &str, text: &str) {
    let name = clean(name);
    let width = WIDTH.saturating_sub(HEADING_INDENT + name.chars().count());
    let mut wrapped = wrap(text, width.max(WIDTH / 2)).into_iter();
    let first = wrapped.next().unwrap_or_default();
    let line = Line::indented(HEADING_INDENT).then(tone, name);
    lines.push(line.then(Tone::Strong, first));
    for text in wrapped {
        lines.push(Line::indented(BODY_INDENT).then(Tone::Strong, text));
    }
}

/// A labelled text; its further lines stand below its first.
fn labelled(lines: &mut Vec<Line>, indent: usize, label: &str, text: &str) {
    let wrapped = wrap(text, WIDTH - indent - LABEL_WIDTH);
    for (n, text) in wrapped.into_iter().enumerate() {
        let label = if n == 0 { label } else { "" };
        lines.push(label_line(indent, label).then(Tone::Plain, text));
    }
}

/// A labelled text that is meant to be copied, so it is never broken.
fn verbatim(lines: &mut Vec<Line>, label: &str, text: &str) {
    lines.push(label_line(HEADING_INDENT, label).then(Tone::Strong, clean(text)));
}

fn label_line(indent: usize, label: &str) -> Line {
    Line::indented(indent).then(Tone::Faint, format!("{label:<LABEL_WIDTH$}"))
}

/// The entries of the trace that show something, a line each.
fn evidence(lines: &mut Vec<Line>, case: &CaseResult, numbers: &[u64]) {
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
            let text = describe_what(&entry.observation);
            (number, time, shorten(&text, WIDTH).into_owned())
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
            let line = label_line(BODY_INDENT, "").then(Tone::Faint, format!("… {more} more"));
            lines.push(line);
        }
        let label = if n == 0 { "seen" } else { "" };
        let columns = format!("{number:<number_width$} {time:>time_width$}  ");
        let line = label_line(BODY_INDENT, label).then(Tone::Faint, columns);
        lines.push(line.then(Tone::Plain, text));
    }
}
