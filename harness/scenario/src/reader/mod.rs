//! From KDL nodes to scenarios: which nodes, arguments and properties there are, and what is wrong
//! with those there are not.

mod expectation;
mod model;
mod node_reader;
mod scenario;
mod step;

use std::collections::BTreeMap;
use std::ops::Range;

use crate::ast::{CutPoint, ScenarioFile, Span};
use crate::diagnostic::Diagnostic;
use crate::kdl::PROBLEM_LIMIT;
use crate::kdl::{Arg, Node};
use crate::suggest;

use node_reader::NodeReader;

/// Which nodes may stand where.
pub(crate) struct NodeContext {
    /// The surroundings, as shown in messages.
    pub(crate) name: &'static str,
    /// The names of its nodes.
    pub(crate) nodes: &'static [&'static str],
}

const FILE: NodeContext = NodeContext {
    name: "the file's top level",
    nodes: &["scenario"],
};

const SCENARIO: NodeContext = NodeContext {
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

const MODEL: NodeContext = NodeContext {
    name: "`model { … }`",
    nodes: &["reply", "recording"],
};

const OTHER: NodeContext = NodeContext {
    name: "`model for=… { … }`",
    nodes: &["reply"],
};

const REPLY: NodeContext = NodeContext {
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

const STATUS: NodeContext = NodeContext {
    name: "`reply status=… { … }`",
    nodes: &["header", "body"],
};

const EXPECT: NodeContext = NodeContext {
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

const NODE_CONTEXTS: [&NodeContext; 6] = [&FILE, &SCENARIO, &MODEL, &REPLY, &STATUS, &EXPECT];

/// A call as a reply defines it.
pub(crate) struct DefinedCall {
    /// Its line.
    pub(crate) line: usize,
    /// How many deltas its arguments are sent in.
    pub(crate) deltas: usize,
}

/// A cut point with the places of its words in the file.
pub(crate) struct CutPointMention {
    pub(crate) point: CutPoint,
    pub(crate) call: Option<Range<usize>>,
    pub(crate) reply: Option<Range<usize>>,
    pub(crate) nth: Option<Range<usize>>,
    /// The whole phrase.
    pub(crate) span: Range<usize>,
}

/// What the checks over a whole scenario need to know besides the scenario: places.
#[derive(Default)]
pub(crate) struct ScenarioFacts {
    /// The name in `scenario "…"`.
    pub(crate) name: Range<usize>,
    /// The word `model`, if there is one.
    pub(crate) model: Option<Range<usize>>,
    /// Calls that replies make.
    pub(crate) defined: BTreeMap<String, DefinedCall>,
    /// Rules that are waived, and on which line.
    pub(crate) waived: BTreeMap<String, usize>,
    /// Calls that steps and expectations name.
    pub(crate) mentions: Vec<(String, Range<usize>)>,
    /// Cut points.
    pub(crate) points: Vec<CutPointMention>,
    /// The names of the steps' nodes, in their order.
    pub(crate) steps: Vec<Range<usize>>,
    /// A node was not understood, so nothing can be said about what is missing.
    pub(crate) incomplete: bool,
    /// A reply can make calls that are not spelled out here.
    pub(crate) open_world: bool,
}

/// What reading collects.
pub(crate) struct ScenarioReader<'s> {
    pub(crate) source: &'s str,
    line_starts: Vec<usize>,
    pub(crate) problems: Vec<Diagnostic>,
    /// ScenarioFacts of the scenario being read.
    pub(crate) facts: ScenarioFacts,
}

impl<'s> ScenarioReader<'s> {
    fn new(source: &'s str) -> Self {
        let line_starts = std::iter::once(0)
            .chain(source.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        Self {
            source,
            line_starts,
            problems: Vec::new(),
            facts: ScenarioFacts::default(),
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

    /// Reports a node that is in the wrong place.
    fn unknown_node(&mut self, node: &Node, here: &NodeContext) {
        self.facts.incomplete = true;
        // It may be a mistyped `model` or `reply`, with calls in it.
        self.facts.open_world |= node.block.is_some();
        let name = node.name.as_str();
        let elsewhere = NODE_CONTEXTS
            .iter()
            .find(|context| context.nodes.contains(&name));
        let (message, help) = match elsewhere {
            Some(_) if here.name == STATUS.name => (
                format!("`{name}` does not belong here"),
                Some(
                    "a reply with a status is not a stream; write what it sends as `body \"…\"`, \
                     or make this a reply of its own"
                        .to_owned(),
                ),
            ),
            Some(context) => (
                format!("`{name}` does not belong here"),
                Some(format!("it belongs in {}", context.name)),
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
                self.facts.points.push(CutPointMention {
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
pub(crate) fn read_file(source: &str, nodes: &[Node]) -> (ScenarioFile, Vec<Diagnostic>) {
    let mut reader = ScenarioReader::new(source);
    let mut file = ScenarioFile::default();
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for node in nodes {
        if reader.is_full() {
            break;
        }
        if node.name != "scenario" {
            reader.unknown_node(node, &FILE);
            continue;
        }
        reader.facts = ScenarioFacts::default();
        let scenario = scenario::read(&mut reader, node);
        crate::consistency::check(&scenario, &reader.facts, &mut reader.problems);
        let line = scenario.span.line;
        if let Some(earlier) = names.get(&scenario.name)
            && !scenario.name.is_empty()
        {
            reader.problems.push(
                Diagnostic::new(
                    "duplicate-scenario",
                    reader.facts.name.clone(),
                    format!("there are two scenarios named `{}`", scenario.name),
                    format!("the name is taken on line {earlier}"),
                )
                .help("give each scenario of a file a name of its own"),
            );
        }
        names.entry(scenario.name.clone()).or_insert(line);
        file.scenarios.push(scenario);
    }
    (file, reader.problems)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ast::Capability;

    #[test]
    fn the_reference_names_every_word_of_the_language() {
        let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/scenarios.md");
        let docs = std::fs::read_to_string(docs).expect("the language's reference is there");
        let nodes = NODE_CONTEXTS.iter().flat_map(|context| context.nodes);
        let capabilities = Capability::ALL.map(Capability::name);
        for word in nodes.copied().chain(capabilities) {
            let named = ["`", "{ ", "; "].iter().any(|before| {
                [" ", "`"]
                    .iter()
                    .any(|after| docs.contains(&format!("{before}{word}{after}")))
            });
            assert!(named, "`{word}` is not in docs/scenarios.md");
        }
    }
}
