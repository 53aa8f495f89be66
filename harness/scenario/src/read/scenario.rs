//! `scenario`: its head, and which node of it is read where.

use std::time::Duration;

use super::{EXPECT, Fields, SCENARIO, Sink, expect, model, step};
use crate::ast::{Capability, RuleWaiver, Scenario};
use crate::diagnostic::Diagnostic;
use crate::kdl::Node;

/// Reads one scenario.
pub(super) fn read(sink: &mut Sink<'_>, node: &Node) -> Scenario {
    let mut scenario = Scenario {
        span: sink.span(node),
        ..Scenario::default()
    };
    let mut fields = Fields::new(sink, node, "scenario \"name\" { … }");
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
    fields.sink.facts.name = name_span;
    let block = fields.block();
    if block.is_none() {
        fields.sink.facts.incomplete = true;
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
        if sink.is_full() {
            break;
        }
        once(sink, child, &mut seen);
        child_node(sink, child, &mut scenario);
    }
    scenario
}

/// Reports the second of a node that can only be there once.
fn once<'n>(sink: &mut Sink<'_>, node: &'n Node, seen: &mut Vec<(&'n str, usize)>) {
    let alone = ["about", "limit", "abort-within", "model"].contains(&node.name.as_str());
    if !alone || is_other(node) {
        return;
    }
    let line = sink.span(node).line;
    match seen.iter().find(|(name, _)| *name == node.name) {
        None => seen.push((&node.name, line)),
        Some((name, first)) => sink.problems.push(
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
fn bound(sink: &mut Sink<'_>, node: &Node, usage: (&'static str, &str, &str)) -> Option<Duration> {
    let (written, what, purpose) = usage;
    let mut fields = Fields::new(sink, node, written);
    let arg = fields.required("a duration");
    let bound = arg.and_then(|arg| fields.as_duration(arg, what));
    if let (Some(arg), Some(Duration::ZERO)) = (arg, bound) {
        fields.problem(
            "bad-duration",
            arg.span.clone(),
            format!("a limit of nothing leaves no time {purpose}"),
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

fn child_node(sink: &mut Sink<'_>, node: &Node, scenario: &mut Scenario) {
    match node.name.as_str() {
        "about" => {
            let mut fields = Fields::new(sink, node, "about \"what a user would have seen\"");
            let text = fields.text("a text");
            fields.finish();
            scenario.about = Some(text);
        }
        "needs" => needs(sink, node, &mut scenario.needs),
        "limit" => {
            let usage = ("limit \"5s\"", "the limit", "for any wait");
            scenario.limit = bound(sink, node, usage);
        }
        "abort-within" => {
            let usage = ("abort-within \"500ms\"", "the time", "for an abort");
            scenario.abort_within = bound(sink, node, usage);
        }
        "model" if is_other(node) => {
            let other = model::read_other(sink, node);
            scenario.model.side_conversations.push(other);
        }
        "model" => {
            sink.facts.model.get_or_insert(node.name_span.clone());
            let model = model::read(sink, node);
            scenario.model.replies.extend(model.replies);
            scenario.model.recording = scenario.model.recording.take().or(model.recording);
            scenario.model.name = scenario.model.name.take().or(model.name);
        }
        "expect" => {
            let mut fields = Fields::new(sink, node, "expect { … }");
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
                scenario.expectations.extend(expect::read(sink, child));
            }
        }
        "waive" => {
            let waive = waive(sink, node);
            scenario.waivers.push(waive);
        }
        name if SCENARIO.nodes.contains(&name) => {
            if let Some(step) = step::read(sink, node) {
                sink.facts.steps.push(node.name_span.clone());
                scenario.steps.push(step);
            }
        }
        _ => sink.unknown_node(node, &SCENARIO),
    }
}

fn needs(sink: &mut Sink<'_>, node: &Node, needs: &mut Vec<Capability>) {
    let choices = Capability::ALL.map(|capability| (capability.name(), capability));
    let mut fields = Fields::new(sink, node, "needs shell resume");
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

fn waive(sink: &mut Sink<'_>, node: &Node) -> RuleWaiver {
    let span = sink.span(node);
    let mut fields = Fields::new(sink, node, "waive CALL-6 because=\"…\"");
    let mut rule = String::new();
    let mut rule_span = span;
    if let Some(arg) = fields.required("a rule")
        && let Some(text) = fields.as_text(arg, "a rule")
    {
        if text.is_empty() || text.contains(char::is_whitespace) {
            fields.problem(
                "bad-rule",
                arg.span.clone(),
                format!("`{text}` is no rule"),
                "a rule's id is one word",
                "`cutpoint rules` lists the rules".to_owned(),
            );
        } else if let Some(first) = fields.sink.facts.waived.get(&text).copied() {
            fields.problem(
                "duplicate-waive",
                arg.span.clone(),
                format!("`{text}` is waived twice"),
                &format!("already waived on line {first}"),
                "join the reasons into one".to_owned(),
            );
        }
        fields
            .sink
            .facts
            .waived
            .entry(text.clone())
            .or_insert(span.line);
        rule = text;
        rule_span = fields.sink.place(&arg.span);
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
                    "a rule is waived for a reason".to_owned(),
                    "this is empty",
                    "say why this scenario sets the rule aside; reports show it".to_owned(),
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
