//! From KDL nodes to scenarios: which nodes, arguments and properties there are, and what is wrong
//! with those there are not.

mod expect;
mod fields;
mod model;
mod scenario;
mod step;

use std::collections::BTreeMap;
use std::ops::Range;

use crate::ast::{CutPoint, ScenarioFile, Span};
use crate::diagnostic::Diagnostic;
use crate::kdl::PROBLEM_LIMIT;
use crate::kdl::{Arg, Node};
use crate::suggest;

use fields::Fields;

/// Which nodes may stand where.
pub(crate) struct Context {
    /// The surroundings, as shown in messages.
    pub(crate) name: &'static str,
    /// The names of its nodes.
    pub(crate) nodes: &'static [&'static str],
}

const FILE: Context = Context {
    name: "the file's top level",
    nodes: &["scenario"],
};

const SCENARIO: Context = Context {
    name: "`scenario { … }`",
    nodes: &[
        "about",
        "needs",
        "limit",
        "abort-within",
        "model",
        "user",
        "interrupt",
        "steer",
        "replace",
        "user-shell",
        "review",
        "compact",
        "fork",
        "rollback",
        "open-conversation",
        "truncate-rollout",
        "stop-reading",
        "resume-reading",
        "deliver-late",
        "approve",
        "deny",
        "abort",
        "answer",
        "kill",
        "resume",
        "drop",
        "shutdown",
        "hold",
        "wait",
        "await",
        "expect",
        "waive",
    ],
};

const MODEL: Context = Context {
    name: "`model { … }`",
    nodes: &["reply", "recording"],
};

const OTHER: Context = Context {
    name: "`model for=… { … }`",
    nodes: &["reply"],
};

const REPLY: Context = Context {
    name: "`reply { … }`",
    nodes: &[
        "text",
        "reasoning",
        "shell",
        "function",
        "custom",
        "local-shell",
        "item",
        "event",
        "malformed",
        "pause",
        "stall",
        "drop",
        "incomplete",
        "failed",
        "error",
    ],
};

const STATUS: Context = Context {
    name: "`reply status=… { … }`",
    nodes: &["header", "body"],
};

const EXPECT: Context = Context {
    name: "`expect { … }`",
    nodes: &[
        "answered",
        "no-call",
        "no-process",
        "requests",
        "request",
        "markers",
        "turns",
        "shown",
        "not-shown",
        "refused",
    ],
};

const CONTEXTS: [&Context; 6] = [&FILE, &SCENARIO, &MODEL, &REPLY, &STATUS, &EXPECT];

/// A call as a reply defines it.
pub(crate) struct Defined {
    /// Its line.
    pub(crate) line: usize,
    /// How many deltas its arguments are sent in.
    pub(crate) deltas: usize,
}

/// A cut point with the places of its words in the file.
pub(crate) struct PointMention {
    pub(crate) point: CutPoint,
    pub(crate) call: Option<Range<usize>>,
    pub(crate) reply: Option<Range<usize>>,
    pub(crate) nth: Option<Range<usize>>,
    /// The whole phrase.
    pub(crate) span: Range<usize>,
}

/// What the checks over a whole scenario need to know besides the scenario: places.
#[derive(Default)]
pub(crate) struct Facts {
    /// The name in `scenario "…"`.
    pub(crate) name: Range<usize>,
    /// The word `model`, if there is one.
    pub(crate) model: Option<Range<usize>>,
    /// Calls that replies make.
    pub(crate) defined: BTreeMap<String, Defined>,
    /// Rules that are waived, and on which line.
    pub(crate) waived: BTreeMap<String, usize>,
    /// Calls that steps and expectations name.
    pub(crate) mentions: Vec<(String, Range<usize>)>,
    /// Cut points.
    pub(crate) points: Vec<PointMention>,
    /// The names of the steps' nodes, in their order.
    pub(crate) steps: Vec<Range<usize>>,
    /// A node was not understood, so nothing can be said about what is missing.
    pub(crate) incomplete: bool,
    /// A reply can make calls that are not spelled out here.
    pub(crate) open_world: bool,
}

/// What reading collects.
pub(crate) struct Sink<'s> {
    pub(crate) source: &'s str,
    line_starts: Vec<usize>,
    pub(crate) problems: Vec<Diagnostic>,
    /// Facts of the scenario being read.
    pub(crate) facts: Facts,
}

impl<'s> Sink<'s> {
    fn new(source: &'s str) -> Self {
        let line_starts = std::iter::once(0)
            .chain(source.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        Self {
            source,
            line_starts,
            problems: Vec::new(),
            facts: Facts::default(),
        }
    }

    /// Whether enough mistakes have been found. What has not been read then is not missing.
    fn is_full(&mut self) -> bool {
        let full = self.problems.len() >= PROBLEM_LIMIT;
        self.facts.incomplete |= full;
        self.facts.open_world |= full;
        full
    }

    /// A node's place for the syntax tree.
    fn span(&self, node: &Node) -> Span {
        self.place(&node.span)
    }

    /// A place for the syntax tree.
    fn place(&self, range: &Range<usize>) -> Span {
        Span {
            start: range.start,
            end: range.end,
            line: self.line(range.start),
        }
    }

    /// The line of a byte offset, counted from 1.
    fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    /// Reports a node that does not belong where it stands.
    fn unknown_node(&mut self, node: &Node, here: &Context) {
        self.facts.incomplete = true;
        // It may be a mistyped `model` or `reply`, with calls in it.
        self.facts.open_world |= node.block.is_some();
        let name = node.name.as_str();
        let elsewhere = CONTEXTS
            .iter()
            .find(|context| context.nodes.contains(&name));
        let (message, help) = match elsewhere {
            Some(_) if here.name == STATUS.name => (
                format!("`{name}` does not belong here"),
                Some(
                    "a reply with a status is no stream; write what it sends as `body \"…\"`, \
                     or make this a reply of its own"
                        .to_owned(),
                ),
            ),
            Some(context) => (
                format!("`{name}` does not belong here"),
                Some(format!("it belongs into {}", context.name)),
            ),
            None => (
                format!("unknown node `{name}`"),
                suggest::did_you_mean(name, here.nodes),
            ),
        };
        self.problems.push(
            Diagnostic::new(
                "unknown-node",
                node.name_span.clone(),
                message,
                format!("not known in {}", here.name),
            )
            .maybe_help(help),
        );
    }

    /// Reads the cut point of `at="…"`.
    fn cut_point(&mut self, arg: &Arg, phrase: &str) -> Option<CutPoint> {
        let place = |within: Range<usize>| match arg.content {
            Some(at) => at + within.start..at + within.end,
            None => arg.span.clone(),
        };
        match crate::cut_point::parse(phrase) {
            Ok(parsed) => {
                self.facts.points.push(PointMention {
                    point: parsed.point.clone(),
                    call: parsed.call.map(place),
                    reply: parsed.reply.map(place),
                    nth: parsed.nth.map(place),
                    span: arg.span.clone(),
                });
                Some(parsed.point)
            }
            Err(error) => {
                self.problems.push(
                    Diagnostic::new(
                        "bad-cut-point",
                        place(error.span),
                        error.message,
                        error.label,
                    )
                    .maybe_help(error.help),
                );
                None
            }
        }
    }
}

/// Reads a file's nodes; the file is only meaningful when no problem was found.
pub(crate) fn file(source: &str, nodes: &[Node]) -> (ScenarioFile, Vec<Diagnostic>) {
    let mut sink = Sink::new(source);
    let mut file = ScenarioFile::default();
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for node in nodes {
        if sink.is_full() {
            break;
        }
        if node.name != "scenario" {
            sink.unknown_node(node, &FILE);
            continue;
        }
        sink.facts = Facts::default();
        let scenario = scenario::read(&mut sink, node);
        crate::check::scenario(&scenario, &sink.facts, &mut sink.problems);
        let line = scenario.span.line;
        if let Some(earlier) = names.get(&scenario.name)
            && !scenario.name.is_empty()
        {
            sink.problems.push(
                Diagnostic::new(
                    "duplicate-scenario",
                    sink.facts.name.clone(),
                    format!("there are two scenarios named `{}`", scenario.name),
                    format!("the name is taken on line {earlier}"),
                )
                .help("give each scenario of a file a name of its own"),
            );
        }
        names.entry(scenario.name.clone()).or_insert(line);
        file.scenarios.push(scenario);
    }
    (file, sink.problems)
}
