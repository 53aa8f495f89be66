//! Checks a scenario's expectations over its trace.

use cutpoint_protocol::{Item, marker};
use cutpoint_scenario::ast::{ExpectationKind, ExpectedTurnEnd, Scenario};
use cutpoint_trace::case::UnmetExpectation;
use cutpoint_trace::{Entry, Observation, Process, items};
use serde_json::Value;

use crate::process::holds_command;
use crate::trace_queries;

/// The expectations that the trace does not meet.
pub fn unmet(scenario: &Scenario, entries: &[Entry]) -> Vec<UnmetExpectation> {
    let seen = Seen::of(entries);
    let mut unmet: Vec<UnmetExpectation> = scenario
        .expectations
        .iter()
        .filter_map(|expect| {
            let (found, evidence) = seen.contradiction(&expect.kind)?;
            let (text, line) = (expect.to_string(), expect.span.line);
            Some(UnmetExpectation {
                text,
                line,
                found,
                evidence,
            })
        })
        .collect();
    unmet.extend(seen.unscripted().map(|(seq, found)| UnmetExpectation {
        text: "every request finds a reply".to_owned(),
        line: scenario.span.line,
        found,
        evidence: vec![seq],
    }));
    let counts_refusals = scenario
        .expectations
        .iter()
        .any(|expect| matches!(expect.kind, ExpectationKind::Refused { .. }));
    if !counts_refusals
        && let Some((found, evidence)) = seen.contradiction(&ExpectationKind::Refused { count: 0 })
    {
        let text = "no request is refused".to_owned();
        unmet.push(UnmetExpectation {
            text,
            line: scenario.span.line,
            found,
            evidence,
        });
    }
    unmet
}

struct Request {
    seq: u64,
    history: Vec<Item>,
}

struct Seen<'a> {
    entries: &'a [Entry],
    requests: Vec<Request>,
}

type Contradiction = (String, Vec<u64>);

impl<'a> Seen<'a> {
    fn of(entries: &'a [Entry]) -> Self {
        let request = |entry: &Entry| match &entry.observation {
            Observation::Request { body, history, .. } => {
                let history = match history {
                    Some(values) => items(values),
                    None => input(&body["input"]),
                };
                Some(Request {
                    seq: entry.seq,
                    history,
                })
            }
            _ => None,
        };
        Self {
            entries,
            requests: entries.iter().filter_map(request).collect(),
        }
    }

    /// The requests that nothing was scripted for, and what the server said of them.
    fn unscripted(&self) -> impl Iterator<Item = (u64, String)> {
        self.entries
            .iter()
            .filter_map(|entry| match &entry.observation {
                Observation::Unscripted { message, .. } => Some((entry.seq, message.clone())),
                _ => None,
            })
    }

    /// What speaks against the expectation.
    fn contradiction(&self, expectation: &ExpectationKind) -> Option<Contradiction> {
        match expectation {
            ExpectationKind::Answered {
                call,
                in_request,
                containing,
            } => self.answered(call, *in_request, containing.as_deref()),
            ExpectationKind::NoCall { call } => self.requests.iter().find_map(|request| {
                let carries =
                    |item: &Item| item.call_kind().is_some() && item.call_id() == Some(call);
                let found = || (format!("a request carries `{call}`"), vec![request.seq]);
                request.history.iter().any(carries).then(found)
            }),
            ExpectationKind::NoProcess { command } => self.no_process(command),
            ExpectationKind::Requests { count } => {
                let found = || {
                    let seqs = self.requests.iter().map(|request| request.seq).collect();
                    (format!("{} requests", self.requests.len()), seqs)
                };
                (self.requests.len() != *count).then(found)
            }
            ExpectationKind::Markers { count, in_request } => {
                self.in_request(*in_request, |request| {
                    let markers = request
                        .history
                        .iter()
                        .filter(|item| marker::is_marker(item))
                        .count();
                    (markers != *count).then(|| format!("{markers} markers"))
                })
            }
            ExpectationKind::Request {
                number,
                containing,
                not_containing,
            } => self.in_request(*number, |request| {
                let holds = |text: &str| {
                    request
                        .history
                        .iter()
                        .any(|item| item.all_text().contains(text))
                };
                let missing = containing.as_deref().filter(|text| !holds(text));
                let unwanted = not_containing.as_deref().filter(|text| holds(text));
                let missing = missing.map(|text| format!("no text in it contains {text:?}"));
                missing.or_else(|| unwanted.map(|text| format!("a text in it contains {text:?}")))
            }),
            ExpectationKind::Turns { outcomes } => self.turns(outcomes),
            ExpectationKind::Shown { containing } => {
                let found = || {
                    (
                        format!("no line that was shown contains {containing:?}"),
                        vec![],
                    )
                };
                self.shown(containing).is_none().then(found)
            }
            ExpectationKind::NotShown { containing } => self
                .shown(containing)
                .map(|(seq, text)| (format!("this was shown: {text:?}"), vec![seq])),
            ExpectationKind::Refused { count } => self.refused(*count),
        }
    }

    fn in_request(
        &self,
        number: usize,
        look: impl FnOnce(&Request) -> Option<String>,
    ) -> Option<Contradiction> {
        let found = number.checked_sub(1).and_then(|at| self.requests.get(at));
        let Some(request) = found else {
            return Some((
                format!("there were {} requests", self.requests.len()),
                Vec::new(),
            ));
        };
        look(request).map(|found| (found, vec![request.seq]))
    }

    fn answered(
        &self,
        call: &str,
        in_request: Option<usize>,
        containing: Option<&str>,
    ) -> Option<Contradiction> {
        let check = |request: &Request| {
            let output = request
                .history
                .iter()
                .find(|item| item.output_kind().is_some() && item.call_id() == Some(call));
            match (output, containing) {
                (None, _) => Some(format!("it carries no output of `{call}`")),
                (Some(output), Some(wanted)) => {
                    let text = output.all_text();
                    let holds = text.to_lowercase().contains(&wanted.to_lowercase());
                    (!holds).then(|| format!("the output of `{call}` is {text:?}"))
                }
                (Some(_), None) => None,
            }
        };
        if let Some(number) = in_request {
            return self.in_request(number, check);
        }
        let failures: Vec<_> = self
            .requests
            .iter()
            .map(|request| (request, check(request)))
            .collect();
        match failures.last() {
            None => Some(("there were no requests".to_owned(), Vec::new())),
            Some(_) if failures.iter().any(|(_, failure)| failure.is_none()) => None,
            Some((request, failure)) => {
                Some((failure.clone().unwrap_or_default(), vec![request.seq]))
            }
        }
    }

    fn no_process(&self, command: &str) -> Option<Contradiction> {
        let last = self
            .entries
            .iter()
            .rev()
            .find_map(|entry| match &entry.observation {
                Observation::Processes {
                    alive,
                    at_end: false,
                } => Some((entry.seq, alive)),
                _ => None,
            });
        let (seq, alive) = last?;
        let left: Vec<&Process> = alive
            .iter()
            .filter(|process| holds_command(process, command))
            .collect();
        let first = left.first()?;
        Some((
            format!("process {} is alive: {}", first.pid, first.command),
            vec![seq],
        ))
    }

    fn turns(&self, wanted: &[ExpectedTurnEnd]) -> Option<Contradiction> {
        let ends: Vec<_> = self
            .entries
            .iter()
            .filter_map(|entry| Some((entry.seq, trace_queries::turn_end(&entry.observation)?)))
            .collect();
        let matches = ends.len() == wanted.len()
            && ends.iter().zip(wanted).all(|((_, end), wanted)| {
                *wanted == ExpectedTurnEnd::Any || trace_queries::outcome(end) == *wanted
            });
        if matches {
            return None;
        }
        let words: Vec<String> = ends
            .iter()
            .map(|(_, end)| trace_queries::end_in_words(end))
            .collect();
        let found = if words.is_empty() {
            "no turn ended".to_owned()
        } else {
            words.join(", ")
        };
        Some((found, ends.iter().map(|(seq, _)| *seq).collect()))
    }

    /// The first line that was shown with this text in it.
    fn shown(&self, containing: &str) -> Option<(u64, &str)> {
        self.entries
            .iter()
            .find_map(|entry| match &entry.observation {
                Observation::Shown { line } if line.text().contains(containing) => {
                    Some((entry.seq, line.text()))
                }
                _ => None,
            })
    }

    fn refused(&self, count: usize) -> Option<Contradiction> {
        let refusals: Vec<_> = self
            .entries
            .iter()
            .filter_map(|entry| match &entry.observation {
                Observation::Refused { message, .. } => Some((entry.seq, message)),
                _ => None,
            })
            .collect();
        if refusals.len() == count {
            return None;
        }
        let mut found = format!("{} refused", refusals.len());
        if let Some((_, message)) = refusals.last() {
            found.push_str(&format!(", the last with \"{message}\""));
        }
        Some((found, refusals.iter().map(|(seq, _)| *seq).collect()))
    }
}

fn input(value: &Value) -> Vec<Item> {
    match value {
        Value::Array(values) => items(values),
        Value::String(text) => vec![Item::user_text(text)],
        _ => Vec::new(),
    }
}
