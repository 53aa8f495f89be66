//! Makes a scenario that fails as small as it can be while it still does.

mod plain;

use cutpoint_scenario::ast::{Action, CutPoint, Reply, ReplyBody, ReplyEnd, ReplyPart, Scenario};

use crate::executor::{Executor, Violation};

/// The most runs that shrinking one scenario may take.
const RUNS: usize = 800;
/// The most steps that are taken out together: a crash with everything that belongs to it.
const GROUP: usize = 6;

/// The smallest scenario that still fails, as far as taking away one thing after another leads: steps,
/// replies, their parts, chunks, and yields. What is left gets plain words, call ids and cut points, as
/// a person would have written it. `shows_failure` decides by a scenario's violations whether it is
/// still the same failure.
pub fn shrink(
    executor: &dyn Executor,
    scenario: &Scenario,
    shows_failure: &dyn Fn(&[Violation]) -> bool,
) -> Scenario {
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
        let result = executor.run(candidate);
        if result.error.is_none() && shows_failure(&result.violations) {
            best = candidate.clone();
            smaller = candidates(&best);
            // What could not be taken away before usually can't be now: go on from here.
            at -= 1;
            since = 0;
        }
    }
    best
}

/// Whether a file could hold the scenario: no step names a call that is gone.
fn can_be_read(scenario: &Scenario) -> bool {
    cutpoint_scenario::parse("shrunk.kdl", &scenario.to_string()).is_ok()
}

/// Scenarios that are smaller by one thing, those that leave out most first.
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
    for at in 0..scenario.model.side_conversations.len() {
        found.push(changed(&|it| drop(it.model.side_conversations.remove(at))));
    }
    for place in places(scenario) {
        found.push(changed(&|it| drop(place.list(it).remove(place.reply))));
    }
    found.push(changed(&|it| it.needs.clear()));
    for at in 0..scenario.needs.len() {
        found.push(changed(&|it| {
            it.needs.remove(at);
        }));
    }
    found.push(changed(&|it| it.limit = None));
    for place in places(scenario) {
        let Some(parts) = place.parts(scenario) else {
            continue;
        };
        for part in 0..parts {
            found.extend(smaller_parts(scenario, place, part));
        }
        let plain = |it: &mut Scenario| {
            if let ReplyBody::Stream { parts, end } = &mut place.list(it)[place.reply].body {
                *end = ReplyEnd::Completed;
                if parts.is_empty() {
                    parts.push(said());
                }
            }
        };
        found.push(changed(&plain));
    }
    for at in 0..scenario.steps.len() {
        found.extend(smaller_steps(scenario, at));
    }
    found.extend(plain::plainer(scenario));
    found.retain(|smaller| smaller != scenario);
    found
}

/// Where a reply stands.
#[derive(Clone, Copy)]
struct Place {
    /// In which conversation beside the main one.
    other: Option<usize>,
    reply: usize,
}

impl Place {
    fn list(self, scenario: &mut Scenario) -> &mut Vec<Reply> {
        match self.other {
            Some(other) => &mut scenario.model.side_conversations[other].replies,
            None => &mut scenario.model.replies,
        }
    }

    /// How many parts the reply has, if it is a composed stream.
    fn parts(self, scenario: &Scenario) -> Option<usize> {
        let replies = match self.other {
            Some(other) => &scenario.model.side_conversations[other].replies,
            None => &scenario.model.replies,
        };
        match &replies[self.reply].body {
            ReplyBody::Stream { parts, .. } => Some(parts.len()),
            ReplyBody::Status { .. } | ReplyBody::Recorded { .. } => None,
        }
    }
}

fn places(scenario: &Scenario) -> Vec<Place> {
    let of = |other: Option<usize>, replies: &[Reply]| {
        let places = (0..replies.len()).map(move |reply| Place { other, reply });
        places.collect::<Vec<_>>()
    };
    let mut all = of(None, &scenario.model.replies);
    for (at, other) in scenario.model.side_conversations.iter().enumerate() {
        all.extend(of(Some(at), &other.replies));
    }
    all
}

/// The shortest text of a model.
fn said() -> ReplyPart {
    ReplyPart::Text {
        text: "Hi".to_owned(),
        chunks: 1,
    }
}

/// Without the part (a stream that ends well says something, though); with it in one piece, or in
/// half as many; with a shorter text or command.
fn smaller_parts(scenario: &Scenario, place: Place, part: usize) -> Vec<Scenario> {
    let changed = |change: &dyn Fn(&mut Vec<ReplyPart>)| {
        let mut smaller = scenario.clone();
        if let ReplyBody::Stream { parts, end } = &mut place.list(&mut smaller)[place.reply].body {
            change(parts);
            if parts.is_empty() && *end == ReplyEnd::Completed {
                parts.push(said());
            }
        }
        smaller
    };
    let in_chunks = |parts: &mut Vec<ReplyPart>, fewer: fn(usize) -> usize| {
        if let ReplyPart::Text { chunks, .. }
        | ReplyPart::Reasoning { chunks, .. }
        | ReplyPart::Shell { chunks, .. }
        | ReplyPart::Function { chunks, .. }
        | ReplyPart::Custom { chunks, .. } = &mut parts[part]
        {
            *chunks = fewer(*chunks);
        }
    };
    let short = |parts: &mut Vec<ReplyPart>| match &mut parts[part] {
        text @ (ReplyPart::Text { chunks: 1, .. } | ReplyPart::Reasoning { .. }) => *text = said(),
        ReplyPart::Shell { command, .. } => simpler(command),
        _ => {}
    };
    // Of all calls a command is the easiest to read.
    let command = |parts: &mut Vec<ReplyPart>| {
        let (ReplyPart::Custom { call, .. }
        | ReplyPart::Function { call, .. }
        | ReplyPart::LocalShell { call, .. }) = &parts[part]
        else {
            return;
        };
        parts[part] = ReplyPart::Shell {
            call: call.clone(),
            command: "sleep 60".to_owned(),
            chunks: 1,
        };
    };
    vec![
        changed(&|parts| drop(parts.remove(part))),
        changed(&|parts| in_chunks(parts, |_| 1)),
        changed(&|parts| in_chunks(parts, |chunks| chunks.div_ceil(2))),
        changed(&short),
        changed(&command),
    ]
}

/// A command that does less, and still runs for long if it did.
fn simpler(command: &mut String) {
    if command.contains("sleep 60") {
        "sleep 60".clone_into(command);
    } else {
        "true".clone_into(command);
    }
}

/// With fewer yields, at an earlier passing of the point, or with a simpler command.
fn smaller_steps(scenario: &Scenario, at: usize) -> Vec<Scenario> {
    let mut found = Vec::new();
    let changed = |change: &dyn Fn(&mut Scenario)| {
        let mut smaller = scenario.clone();
        change(&mut smaller);
        smaller
    };
    let step = &scenario.steps[at];
    for fewer in 0..step.yields.unwrap_or(0) {
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
    let short = |it: &mut Scenario| {
        if let Action::UserShell { command } = &mut it.steps[at].action {
            simpler(command);
        }
    };
    found.push(changed(&short));
    found
}
