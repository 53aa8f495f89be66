//! Expectations beyond the rules.

use super::{EXPECT, NodeReader, ScenarioReader};
use crate::ast::{Expectation, ExpectationKind, ExpectedTurnEnd};
use crate::kdl::Node;

fn usage(name: &str) -> &'static str {
    match name {
        "answered" => "answered call_1 in-request=2 containing=\"aborted\"",
        "no-call" => "no-call call_1",
        "no-process" => "no-process \"sleep 60\"",
        "requests" => "requests 2",
        "markers" => "markers 1 in-request=2",
        "request" => "request 2 containing=\"text\"",
        "turns" => "turns aborted complete",
        "shown" => "shown \"task interrupted\"",
        "not-shown" => "not-shown \"Hel\"",
        _ => "refused 1",
    }
}

/// Reads an expectation; nothing if it is not known.
pub(super) fn read(reader: &mut ScenarioReader<'_>, node: &Node) -> Option<Expectation> {
    if !EXPECT.nodes.contains(&node.name.as_str()) {
        reader.unknown_node(node, &EXPECT);
        return None;
    }
    let span = reader.span(node);
    let mut fields = NodeReader::new(reader, node, usage(&node.name));
    let kind = match node.name.as_str() {
        "answered" => ExpectationKind::Answered {
            call: fields.call(),
            in_request: fields.prop_position("in-request"),
            containing: fields.prop_needle("containing"),
        },
        "no-call" => ExpectationKind::NoCall {
            call: fields.call(),
        },
        "no-process" => ExpectationKind::NoProcess {
            command: fields.needle("part of a command line"),
        },
        "requests" => ExpectationKind::Requests {
            count: fields.number("a count"),
        },
        "markers" => markers(&mut fields, node),
        "request" => request(&mut fields, node),
        "turns" => turns(&mut fields),
        "shown" => ExpectationKind::Shown {
            containing: fields.needle("a text"),
        },
        "not-shown" => ExpectationKind::NotShown {
            containing: fields.needle("a text"),
        },
        _ => ExpectationKind::Refused {
            count: fields.number("a count"),
        },
    };
    fields.finish();
    Some(Expectation { kind, span })
}

fn markers(fields: &mut NodeReader<'_, '_, '_>, node: &Node) -> ExpectationKind {
    let count = fields.number("a count");
    let in_request = fields.prop_position("in-request");
    if !node.props.iter().any(|prop| prop.name == "in-request") {
        fields.missing_prop("in-request");
    }
    ExpectationKind::Markers {
        count,
        in_request: in_request.unwrap_or_default(),
    }
}

fn request(fields: &mut NodeReader<'_, '_, '_>, node: &Node) -> ExpectationKind {
    let number = fields.position("the number of a request");
    let containing = fields.prop_needle("containing");
    let not_containing = fields.prop_needle("not-containing");
    if node.props.is_empty() {
        fields.problem(
            "missing-property",
            node.name_span.clone(),
            "nothing is expected of this request".to_owned(),
            "`containing=…` or `not-containing=…` is missing",
            "say what it contains: `request 2 containing=\"text\"`; that it is sent at all is \
             `requests 2`"
                .to_owned(),
        );
    }
    ExpectationKind::Request {
        number,
        containing,
        not_containing,
    }
}

fn turns(fields: &mut NodeReader<'_, '_, '_>) -> ExpectationKind {
    let choices = ExpectedTurnEnd::ALL.map(|outcome| (outcome.name(), outcome));
    let mut outcomes = Vec::new();
    let mut next = fields.required("how a turn ended");
    while let Some(arg) = next {
        outcomes.extend(fields.as_choice(arg, "outcome of a turn", &choices));
        next = fields.optional();
    }
    ExpectationKind::Turns { outcomes }
}
