//! ROLL-7: forks and rollbacks leave a history that can be continued.

use crate::fast_hash::HashSet;
use crate::invariant::{Findings, Invariant};
use crate::view::{At, Exchange, Fork, Role, Rollback, View};
use cutpoint_trace::Feature;
use cutpoint_trace::verdict::{Clause, Fault, Level};

pub(super) struct ForksAndRollbacksArePaired;

const FORK_UNPAIRED: Clause = Clause {
    kind: "fork-unpaired",
    text: "request {request} of the fork has a call without its output, or an output without its \
           call",
};
const FORK_TOO_FEW_MARKERS: Clause = Clause {
    kind: "fork-too-few-markers",
    text: "request {request} of the fork has {found} of {wanted} markers up to turn {turn}",
};
const FORK_MARKER_TOO_EARLY: Clause = Clause {
    kind: "fork-marker-too-early",
    text: "request {request} of the fork has the marker of turn {turn} before the last of its \
           items",
};
const FORK_MARKER_COUNT: Clause = Clause {
    kind: "fork-marker-count",
    text: "request {request} of the fork has {found} markers for turn {turn}",
};
const ROLLBACK_UNPAIRED: Clause = Clause {
    kind: "rollback-unpaired",
    text: "request {request} after the rollback has a call without its output, or an output \
           without its call",
};
const CALL_CAME_BACK: Clause = Clause {
    kind: "call-came-back",
    text: "request {request} after the rollback has call {call} of a turn that was taken back",
};
const INPUT_CAME_BACK: Clause = Clause {
    kind: "input-came-back",
    text: "request {request} after the rollback has the input {text:?}, which was taken back",
};

impl Invariant for ForksAndRollbacksArePaired {
    fn id(&self) -> &'static str {
        "ROLL-7"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "After a fork or a rollback each call of the next request has its output; a fork in \
         mid-turn carries one marker for that turn, and nothing that was rolled back returns."
    }

    fn source(&self) -> &'static str {
        "openai/codex PR 15239 (a fork in mid-turn has no marker)"
    }

    fn needs(&self) -> &'static [Feature] {
        &[]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "A client whose agent ends as it forks may stay with the first conversation: then no \
             request belongs to the fork.",
            "A turn that ends between the request for the fork and the fork may be in the fork \
             as ended, or as interrupted.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a request follows a fork or a rollback"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[
            FORK_UNPAIRED,
            FORK_TOO_FEW_MARKERS,
            FORK_MARKER_TOO_EARLY,
            FORK_MARKER_COUNT,
            ROLLBACK_UNPAIRED,
            CALL_CAME_BACK,
            INPUT_CAME_BACK,
        ]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        for fork in &view.forks {
            let Some(next) = fork.entered.and_then(|start| view.request_after(start)) else {
                continue;
            };
            findings.exercised += 1;
            let unpaired = is_unpaired(next).then(|| FORK_UNPAIRED.into());
            let fault = unpaired.or_else(|| unmarked(view, fork, next));
            if let Some(fault) = fault {
                let fault = fault.with("request", next.number);
                findings.breach(view, fault, &[fork.asked, fork.at, next.at]);
            }
        }
        for rollback in &view.rollbacks {
            let Some(next) = view.request_after(rollback.at) else {
                continue;
            };
            findings.exercised += 1;
            let unpaired = is_unpaired(next).then(|| ROLLBACK_UNPAIRED.into());
            let fault = unpaired.or_else(|| came_back(view, rollback, next));
            if let Some(fault) = fault {
                let fault = fault.with("request", next.number);
                findings.breach(view, fault, &[rollback.at, next.at]);
            }
        }
        findings
    }
}

fn is_unpaired(next: &Exchange<'_>) -> bool {
    !next.faults.is_empty()
}

/// What is wrong with the marker of the turn that a fork has cut.
fn unmarked(view: &View<'_>, fork: &Fork, next: &Exchange<'_>) -> Option<Fault> {
    let cut = fork.turn?;
    let turn = &view.turns[cut];
    let may_be_gone = next.has_compaction() || view.gone_between(fork.at, next.at);
    if !view.has(Feature::Marker) || turn.ending_before(fork.at).is_some() || may_be_gone {
        return None;
    }
    let regions = view.regions(next);
    let own = |turns: &[usize]| turns.contains(&cut);
    let region = regions
        .iter()
        .find(|region| region.turn == Some(cut) || own(&region.lost))?;
    let id = turn.id;
    if !region.lost.is_empty() {
        // Several turns share the region, of which the others have markers of their own.
        let (found, wanted) = (region.markers.len(), region.min + 1);
        let fault = || {
            FORK_TOO_FEW_MARKERS
                .with("found", found)
                .with("wanted", wanted)
        };
        return (found < wanted).then(|| fault().with("turn", id));
    }
    match region.markers[..] {
        [marker] if region.last_item.is_some_and(|last| marker < last) => {
            Some(FORK_MARKER_TOO_EARLY.with("turn", id))
        }
        [_] => None,
        ref markers => {
            let fault = FORK_MARKER_COUNT.with("found", markers.len());
            Some(fault.with("turn", id))
        }
    }
}

/// What a request carries of the turns that were taken back.
fn came_back(view: &View<'_>, rollback: &Rollback, next: &Exchange<'_>) -> Option<Fault> {
    let of_them = |turn: Option<usize>| turn.is_some_and(|turn| rollback.turns.contains(&turn));
    let emitted = |at: Option<At>| at.is_some_and(|at| at < rollback.at);
    let calls = view.calls.iter().filter(|call| {
        of_them(call.turn) && emitted(call.emitted.first().map(|emitted| emitted.at))
    });
    let gone: HashSet<&str> = calls.map(|call| call.id).collect();
    if let Some(id) = next.calls().find(|id| gone.contains(id)) {
        return Some(CALL_CAME_BACK.with("call", id));
    }
    let said = rollback.inputs.iter().map(|input| view.inputs[*input].text);
    let said: HashSet<&str> = said.filter(|text| !text.is_empty()).collect();
    // A message that somebody's input explains was said once more.
    let places = next.roles.iter().enumerate();
    let mut unexplained = places.filter(|(_, role)| **role == Role::User(None));
    unexplained.find_map(|(place, _)| {
        let text = next.text(place)?;
        let text = text.trim();
        said.contains(text)
            .then(|| INPUT_CAME_BACK.with("text", text))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::testing::{
        ROLLOUT, Tracer, assistant, breaks, call, forked_session, is_idle, keeps, marker, output,
        user,
    };
    use cutpoint_trace::{AgentEvent, ClientOp, InputMode, ReadTrigger, TaskKind};

    /// A turn is forked while its call runs; the fork's request carries these items between.
    fn forked(items: &[Value]) -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "one")
            .request(1, &[user("one")])
            .emit(1, call("c"));
        t.op(ClientOp::Fork).forked("f.jsonl").kill().resume();
        t.start("t2", "two");
        t.request(2, &[&[user("one")], items, &[user("two")]].concat());
        t
    }

    /// The second of two turns is taken back; the next request carries these items between.
    fn rolled_back(items: &[Value]) -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "one")
            .request(1, &[user("one")])
            .finish(1)
            .completed("t1");
        t.start("t2", "two").request(2, &[user("one"), user("two")]);
        t.emit(2, call("c")).finish(2).interrupted("t2");
        t.op(ClientOp::Rollback { turns: 1 })
            .event(AgentEvent::RolledBack { turns: 1 });
        t.start("t3", "three");
        t.request(3, &[&[user("one")], items, &[user("three")]].concat());
        t
    }

    #[test]
    fn paired_and_marked_forks_pass() {
        keeps(
            "ROLL-7",
            &forked(&[call("c"), output("c", "aborted"), marker()]),
            1,
        );
        keeps("ROLL-7", &forked_session(), 2);
    }

    #[test]
    fn a_fork_without_its_marker_is_a_breach() {
        let bare = breaks(
            "ROLL-7/fork-marker-count",
            &forked(&[call("c"), output("c", "aborted")]),
        );
        assert!(bare.text().contains("has 0 markers for turn t1"));
        breaks("ROLL-7/fork-marker-count", &forked(&[marker(), marker()]));
        let early = forked(&[marker(), call("c"), output("c", "aborted")]);
        breaks("ROLL-7/fork-marker-too-early", &early);
    }

    #[test]
    fn a_fork_that_lacks_the_input_of_its_turn_has_a_marker_for_each_turn() {
        let forked = |items: &[Value]| {
            let mut t = Tracer::new();
            t.start("t1", "one").request(1, &[user("one")]);
            t.interrupted("t1").start("t2", "two");
            t.op(ClientOp::Fork).forked("f.jsonl").kill().resume();
            t.start("t3", "three");
            t.request(2, &[&[user("one")], items, &[user("three")]].concat());
            t
        };
        keeps("ROLL-7", &forked(&[marker(), marker()]), 1);
        breaks("ROLL-7/fork-too-few-markers", &forked(&[marker()]));
    }

    #[test]
    fn a_conversation_that_does_not_go_on_in_the_fork_needs_no_marker() {
        let ended = |goes_on_in: &str| {
            let mut t = Tracer::new();
            t.start("t1", "one")
                .request(1, &[user("one")])
                .read(ReadTrigger::Request { exchange: 1 });
            t.op(ClientOp::Fork)
                .forked("f.jsonl")
                .finish(1)
                .completed("t1");
            t.kill().resume().goes_on_in(goes_on_in).start("t2", "two");
            t.request(2, &[user("one"), user("two")])
                .read(ReadTrigger::Request { exchange: 2 });
            t
        };
        is_idle("ROLL-7", &ended(ROLLOUT));
        breaks("ROLL-7/fork-marker-count", &ended("f.jsonl"));
    }

    #[test]
    fn a_fork_with_an_open_call_is_a_breach() {
        let open = breaks("ROLL-7/fork-unpaired", &forked(&[call("c"), marker()]));
        assert!(open.text().contains("without its output"));
    }

    #[test]
    fn a_turn_that_ended_before_the_fork_needs_no_marker() {
        let mut t = Tracer::new();
        t.start("t1", "one")
            .request(1, &[user("one")])
            .op(ClientOp::Fork);
        t.finish(1)
            .completed("t1")
            .forked("f.jsonl")
            .kill()
            .resume();
        t.start("t2", "two").request(2, &[user("one"), user("two")]);
        keeps("ROLL-7", &t, 1);
    }

    #[test]
    fn what_was_taken_back_may_be_said_again_only() {
        keeps("ROLL-7", &rolled_back(&[]), 1);
        let kept = breaks("ROLL-7/input-came-back", &rolled_back(&[user("two")]));
        assert!(kept.text().contains("\"two\""), "{}", kept.text());
        let call_kept = [call("c"), output("c", "aborted")];
        breaks("ROLL-7/call-came-back", &rolled_back(&call_kept));
        let orphan = breaks(
            "ROLL-7/rollback-unpaired",
            &rolled_back(&[output("c", "aborted")]),
        );
        assert!(orphan.text().contains("without its call"));
        let mut t = rolled_back(&[]);
        t.completed("t3").start("t4", "two");
        t.request(
            4,
            &[user("one"), user("three"), assistant("x"), user("two")],
        );
        keeps("ROLL-7", &t, 1);
    }

    #[test]
    fn what_is_said_after_the_request_for_a_rollback_is_not_taken_back() {
        let said = |after: bool| {
            let mut t = Tracer::new();
            t.start("t1", "one")
                .request(1, &[user("one")])
                .finish(1)
                .completed("t1");
            t.start("t2", "two").request(2, &[user("one"), user("two")]);
            t.finish(2).completed("t2");
            let undo = ClientOp::Rollback { turns: 1 };
            if after {
                t.op(undo).input("three", InputMode::Replace);
            } else {
                t.input("three", InputMode::Replace).op(undo);
            }
            t.event(AgentEvent::RolledBack { turns: 1 }).started("t3");
            t.request(3, &[user("one"), user("three")]);
            t
        };
        keeps("ROLL-7", &said(true), 1);
        breaks("ROLL-7/input-came-back", &said(false));
    }

    #[test]
    fn a_review_is_a_turn_that_can_be_taken_back() {
        let reviewed = |task: TaskKind| {
            let mut t = Tracer::new();
            t.start("t1", "one")
                .request(1, &[user("one")])
                .finish(1)
                .completed("t1");
            t.task(task, "look").started("t2").completed("t2");
            t.op(ClientOp::Rollback { turns: 1 })
                .event(AgentEvent::RolledBack { turns: 1 });
            t.start("t3", "three")
                .request(2, &[user("one"), user("three")]);
            t
        };
        keeps("ROLL-7", &reviewed(TaskKind::Review), 1);
        breaks("ROLL-7/input-came-back", &reviewed(TaskKind::Shell));
    }

    #[test]
    fn what_stood_before_a_rollback_stays() {
        let mut t = rolled_back(&[]);
        keeps("REQ-5", &t, 3);
        t.completed("t3").start("t4", "four");
        breaks(
            "REQ-5/input-lost",
            t.request(4, &[user("three"), user("four")]),
        );
        is_idle("ROLL-7", &Tracer::new());
    }

    #[test]
    fn input_that_joined_the_cut_turn_unreported_precedes_its_marker() {
        let forked = |mode: InputMode, items: &[Value]| {
            let mut t = Tracer::new();
            t.input("one", InputMode::Start)
                .input("more", mode)
                .started("t1");
            t.op(ClientOp::Fork)
                .forked("f.jsonl")
                .kill()
                .resume()
                .start("t2", "two");
            t.request(1, &[&[user("one")], items, &[user("two")]].concat());
            t
        };
        let joined = [user("more"), marker()];
        keeps("ROLL-7", &forked(InputMode::Steer, &joined), 1);
        keeps("ROLL-7", &forked(InputMode::Start, &joined), 1);
        breaks(
            "ROLL-7/fork-marker-count",
            &forked(InputMode::Steer, &joined[..1]),
        );
        breaks(
            "ROLL-7/fork-marker-count",
            &forked(InputMode::Replace, &joined),
        );
    }
}
