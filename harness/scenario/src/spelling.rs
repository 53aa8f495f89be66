//! Words of the language that were renamed. The old spelling is still read, and `cutpoint fmt`
//! rewrites it.

use std::ops::Range;

use crate::cut_point;
use crate::kdl::{Node, Value};

/// Steps: the old name and the current one.
const RENAMED_STEPS: [(&str, &str); 4] = [
    ("tear", "truncate-rollout"),
    ("late", "deliver-late"),
    ("open", "open-conversation"),
    ("read-on", "resume-reading"),
];

/// The current name of a step in its old spelling.
fn current_step(name: &str) -> Option<&'static str> {
    let renamed = RENAMED_STEPS.iter().find(|(old, _)| *old == name);
    renamed.map(|(_, current)| *current)
}

/// Gives the steps of all scenarios their current names.
pub(crate) fn rename_old_steps(nodes: &mut [Node]) {
    let scenarios = nodes.iter_mut().filter(|node| node.name == "scenario");
    for step in
        scenarios.flat_map(|scenario| scenario.block.iter_mut().flat_map(|it| &mut it.nodes))
    {
        if let Some(current) = current_step(&step.name) {
            current.clone_into(&mut step.name);
        }
    }
}

/// The first name that a step had.
pub(crate) fn first_step(name: &str) -> &str {
    let renamed = RENAMED_STEPS.iter().find(|(_, current)| *current == name);
    renamed.map_or(name, |(old, _)| old)
}

/// A cut point's phrase in its first spelling.
pub(crate) fn first_phrase(phrase: &str) -> String {
    let renamed = cut_point::renamed_words().find_map(|(old, current)| {
        let rest = phrase.strip_prefix(current)?;
        rest.starts_with(' ').then(|| format!("{old}{rest}"))
    });
    renamed.unwrap_or_else(|| phrase.to_owned())
}

/// Rewrites old spellings in a file's text; `nodes` are its nodes.
pub(crate) fn modernize(source: &str, nodes: &[Node]) -> String {
    let mut changes: Vec<(Range<usize>, &str)> = Vec::new();
    let scenarios = nodes.iter().filter(|node| node.name == "scenario");
    for step in scenarios.flat_map(|scenario| scenario.block.iter().flat_map(|it| &it.nodes)) {
        if let Some(current) = current_step(&step.name) {
            changes.push((step.name_span.clone(), current));
        }
        changes.extend(step.props.iter().filter_map(|prop| {
            let Value::Text(phrase) = &prop.value.value else {
                return None;
            };
            // A phrase with escapes does not stand in the source as it is; it is left alone.
            let start = prop.value.content.filter(|_| prop.name == "at")?;
            let (place, current) = cut_point::parse(phrase).ok()?.old_word?;
            Some((start + place.start..start + place.end, current))
        }));
    }
    changes.sort_by_key(|(place, _)| place.start);
    let mut out = source.to_owned();
    for (place, current) in changes.into_iter().rev() {
        out.replace_range(place, current);
    }
    out
}
