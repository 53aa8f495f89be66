//! Makes a scenario that fails as small as it can be while it still does.

use cutpoint_scenario::ast::{CutPoint, End, Part, ReplyBody, Scenario};

use crate::executor::Executor;

/// The most runs that one scenario is worth.
const RUNS: usize = 800;
/// The most steps that are taken out together: a crash with all that belongs to it.
const GROUP: usize = 6;

/// The smallest scenario that still breaks the rule, as far as taking away one thing after the other
/// leads: steps, replies, their parts, chunks, and turns of other tasks.
pub fn shrink(executor: &dyn Executor, scenario: &Scenario, rule: &str) -> Scenario {
    let mut best = scenario.clone();
    let (mut runs, mut at, mut since) = (0, 0, 0);
    let mut smaller = candidates(&best);
    while runs < RUNS && since < smaller.len() {
        let candidate = &smaller[at % smaller.len()];
        at += 1;
        since += 1;
        if !can_be_read(candidate) {
            continue;
        }
        runs += 1;
        let observed = executor.run(candidate);
        let breaks = observed.broken.iter().any(|broken| broken.rule == rule);
        if breaks && observed.trouble.is_none() {
            best = candidate.clone();
            smaller = candidates(&best);
            // What could not be taken away a moment ago can't be now, as a rule: go on from here.
            at -= 1;
            since = 0;
        }
    }
    best
}

/// Whether the scenario is one that a file could hold: no step names a call that is gone.
fn can_be_read(scenario: &Scenario) -> bool {
    cutpoint_scenario::parse("shrunk.kdl", &scenario.to_string()).is_ok()
}

/// Scenarios that are smaller by one thing, those first that leave out most.
fn candidates(scenario: &Scenario) -> Vec<Scenario> {
    let mut found = Vec::new();
    let changed = |change: &dyn Fn(&mut Scenario)| {
        let mut smaller = scenario.clone();
        change(&mut smaller);
        smaller
    };
    for size in (1..=GROUP.min(scenario.steps.len())).rev() {
        for from in 0..=scenario.steps.len() - size {
            found.push(changed(&|it| drop(it.steps.drain(from..from + size))));
        }
    }
    for at in 0..scenario.model.replies.len() {
        found.push(changed(&|it| drop(it.model.replies.remove(at))));
    }
    found.push(changed(&|it| it.needs.clear()));
    for (at, reply) in scenario.model.replies.iter().enumerate() {
        match &reply.body {
            ReplyBody::Stream { parts, .. } => {
                for part in 0..parts.len() {
                    found.extend(smaller_parts(scenario, at, part));
                }
                let plain = |it: &mut Scenario| {
                    if let ReplyBody::Stream { end, .. } = &mut it.model.replies[at].body {
                        *end = End::Completed;
                    }
                };
                found.push(changed(&plain));
            }
            ReplyBody::Status { .. } | ReplyBody::Recorded { .. } => {}
        }
    }
    for (at, step) in scenario.steps.iter().enumerate() {
        let yields = step.yields.unwrap_or(0);
        for fewer in 0..yields {
            found.push(changed(&|it| it.steps[at].yields = Some(fewer)));
        }
        if let Some(CutPoint::Point { nth: last, .. }) = &step.at {
            for earlier in 1..*last {
                let sooner = |it: &mut Scenario| {
                    if let Some(CutPoint::Point { nth, .. }) = &mut it.steps[at].at {
                        *nth = earlier;
                    }
                };
                found.push(changed(&sooner));
            }
        }
    }
    found.retain(|smaller| smaller != scenario);
    found
}

/// Without the part; with it in one piece; with a shorter text or command.
fn smaller_parts(scenario: &Scenario, reply: usize, part: usize) -> Vec<Scenario> {
    let changed = |change: &dyn Fn(&mut Vec<Part>)| {
        let mut smaller = scenario.clone();
        if let ReplyBody::Stream { parts, .. } = &mut smaller.model.replies[reply].body {
            change(parts);
        }
        smaller
    };
    let whole = |parts: &mut Vec<Part>| {
        if let Part::Text { chunks, .. }
        | Part::Reasoning { chunks, .. }
        | Part::Shell { chunks, .. } = &mut parts[part]
        {
            *chunks = 1;
        }
    };
    let short = |parts: &mut Vec<Part>| match &mut parts[part] {
        Part::Text { text, chunks } if *chunks == 1 => "Hi".clone_into(text),
        Part::Shell { command, .. } if command.contains("sleep 60") => {
            "sleep 60".clone_into(command);
        }
        Part::Shell { command, .. } => "true".clone_into(command),
        _ => {}
    };
    vec![
        changed(&|parts| drop(parts.remove(part))),
        changed(&whole),
        changed(&short),
    ]
}
