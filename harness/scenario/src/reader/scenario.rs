//! `scenario`: its head, and which node of it is read where.

use std::time::Duration;

use super::{EXPECT, NodeReader, SCENARIO, ScenarioReader, expectation, model, step};
use crate::ast::{Capability, RuleWaiver, Scenario};
use crate::diagnostic::Diagnostic;
use crate::kdl::Node;

/// Reads one scenario.
pub(super) fn read(reader: &mut ScenarioReader<'_>, node: &Node) -> Scenario {
    let mut scenario = Scenario {
        span: reader.span(node),
        ..Scenario::default()
    };
    let mut fields = NodeReader::new(reader, node, "scenario \"name\" { … }");
    let name = fields.required("a name");
    let name_span = name.map_or(node.name_span.clone(), |arg| arg.span.clone());
    if let Some(arg) = name
        && let Some(text) = fields.as_text(arg, "the name")
    {
        if text.trim().is_empty() {
            fields.problem(
                "empty-text",
                name_span.clone(),
                "a scenario needs a name".to_owned(),
                "this is empty",
                "say in a few words what happens".to_owned(),
            );
        }
        scenario.name = text;
    }
    fields.reader.facts.name = name_span;
    let block = fields.block();
    if block.is_none() {
        fields.reader.facts.incomplete = true;
        fields.problem(
            "missing-block",
            node.name_span.clone(),
            "this scenario is empty".to_owned(),
            "`{ … }` should follow",
            "write `scenario \"name\" { … }`".to_owned(),
        );
    }
    fields.finish();
    let mut seen: Vec<(&str, usize)> = Vec::new();
    for child in block.map_or(&[][..], |block| &block.nodes) {
        if reader.is_full() {
            break;
        }
        once(reader, child, &mut seen);
        child_node(reader, child, &mut scenario);
    }
    scenario
}

/// Reports the second of a node that can only be there once.
fn once<'n>(reader: &mut ScenarioReader<'_>, node: &'n Node, seen: &mut Vec<(&'n str, usize)>) {
    let alone = ["about", "limit", "abort-within", "model"].contains(&node.name.as_str());
    if !alone || is_other(node) {
        return;
    }
    let line = reader.span(node).line;
    match seen.iter().find(|(name, _)| *name == node.name) {
        None => seen.push((&node.name, line)),
        Some((name, first)) => reader.problems.push(
            Diagnostic::new(
                "duplicate-node",
                node.name_span.clone(),
                format!("a scenario has one `{name}` only"),
                format!("the first one is on line {first}"),
            )
            .help("join them into one"),
        ),
    }
}

/// Whether the node is a model of a conversation beside the main one.
fn is_other(node: &Node) -> bool {
    node.name == "model" && node.props.iter().any(|prop| prop.name == "for")
}

/// Reads a node that bounds a time; `usage` is how it is written, what it is, and for what.
fn bound(
    reader: &mut ScenarioReader<'_>,
    node: &Node,
    usage: (&'static str, &str, &str),
) -> Option<Duration> {
    let (written, what, purpose) = usage;
    let mut fields = NodeReader::new(reader, node, written);
    let arg = fields.required("a duration");
    let bound = arg.and_then(|arg| fields.as_duration(arg, what));
    if let (Some(arg), Some(Duration::ZERO)) = (arg, bound) {
        fields.problem(
            "bad-duration",
            arg.span.clone(),
            format!("a limit of zero leaves no time {purpose}"),
            "this is zero",
            format!(
                "write a longer one, or leave `{}` out for the default",
                node.name
            ),
        );
    }
    fields.finish();
    bound
}

fn child_node(reader: &mut ScenarioReader<'_>, node: &Node, scenario: &mut Scenario) {
    match node.name.as_str() {
        "about" => {
            let mut fields = NodeReader::new(reader, node, "about \"what a user would have seen\"");
            let text = fields.text("a text");
            fields.finish();
            scenario.about = Some(text);
        }
        "needs" => needs(reader, node, &mut scenario.needs),
        "limit" => {
            let usage = ("limit \"5s\"", "the limit", "for any wait");
            scenario.limit = bound(reader, node, usage);
        }
        "abort-within" => {
            let usage = ("abort-within \"500ms\"", "the time", "for an abort");
            scenario.abort_within = bound(reader, node, usage);
        }
        "model" if is_other(node) => {
            let other = model::read_other(reader, node);
            scenario.model.side_conversations.push(other);
        }
        "model" => {
            reader.facts.model.get_or_insert(node.name_span.clone());
            let model = model::read(reader, node);
            scenario.model.replies.extend(model.replies);
            scenario.model.recording = scenario.model.recording.take().or(model.recording);
            scenario.model.name = scenario.model.name.take().or(model.name);
            scenario.model.substitute_tools |= model.substitute_tools;
        }
        "expect" => {
            let mut fields = NodeReader::new(reader, node, "expect { … }");
            let block = fields.block();
            if block.is_none_or(|block| block.nodes.is_empty()) {
                fields.problem(
                    "missing-block",
                    node.name_span.clone(),
                    "nothing is expected here".to_owned(),
                    "`{ … }` with expectations should follow",
                    format!(
                        "write `expect {{ requests 2 }}`; known: {}",
                        crate::suggest::list(EXPECT.nodes)
                    ),
                );
            }
            fields.finish();
            for child in block.map_or(&[][..], |block| &block.nodes) {
                scenario
                    .expectations
                    .extend(expectation::read(reader, child));
            }
        }
        "waive" => {
            let waive = waive(reader, node);
            scenario.waivers.push(waive);
        }
        name if SCENARIO.nodes.contains(&name) => {
            if let Some(step) = step::read(reader, node) {
                reader.facts.steps.push(node.name_span.clone());
                scenario.steps.push(step);
            }
        }
        _ => reader.unknown_node(node, &SCENARIO),
    }
}

fn needs(reader: &mut ScenarioReader<'_>, node: &Node, needs: &mut Vec<Capability>) {
    let choices = Capability::ALL.map(|capability| (capability.name(), capability));
    let mut fields = NodeReader::new(reader, node, "needs shell resume");
    let mut next = fields.required("a capability");
    while let Some(arg) = next {
        if let Some(capability) = fields.as_choice(arg, "the capability", &choices) {
            if needs.contains(&capability) {
                fields.problem(
                    "duplicate-argument",
                    arg.span.clone(),
                    format!("`{}` is named twice", capability.name()),
                    "the second time",
                    "once is enough".to_owned(),
                );
            }
            needs.push(capability);
        }
        next = fields.optional();
    }
    fields.finish();
}

fn waive(reader: &mut ScenarioReader<'_>, node: &Node) -> RuleWaiver {
    let span = reader.span(node);
    let mut fields = NodeReader::new(reader, node, "waive CALL-6 because=\"…\"");
    let mut rule = String::new();
    let mut rule_span = span;
    if let Some(arg) = fields.required("a rule")
        && let Some(text) = fields.as_text(arg, "a rule")
    {
        if text.is_empty() || text.contains(char::is_whitespace) {
            fields.problem(
                "bad-rule",
                arg.span.clone(),
                format!("`{text}` is not a rule"),
                "a rule's id is one word",
                "`cutpoint rules` lists the rules".to_owned(),
            );
        } else if let Some(first) = fields.reader.facts.waived.get(&text).copied() {
            fields.problem(
                "duplicate-waive",
                arg.span.clone(),
                format!("`{text}` is waived twice"),
                &format!("already waived on line {first}"),
                "join the reasons into one".to_owned(),
            );
        }
        fields
            .reader
            .facts
            .waived
            .entry(text.clone())
            .or_insert(span.line);
        rule = text;
        rule_span = fields.reader.place(&arg.span);
    }
    let because = match fields.prop("because") {
        None => {
            fields.missing_prop("because");
            String::new()
        }
        Some(arg) => {
            let because = fields.as_text(arg, "`because`").unwrap_or_default();
            if because.trim().is_empty() && matches!(arg.value, crate::kdl::Value::Text(_)) {
                fields.problem(
                    "empty-text",
                    arg.span.clone(),
                    "a waiver needs a reason".to_owned(),
                    "this is empty",
                    "say why this scenario waives the rule; reports show the reason".to_owned(),
                );
            }
            because
        }
    };
    fields.finish();
    RuleWaiver {
        rule,
        rule_span,
        because,
        span,
    }
}
