//! MARK-3: the model learns of an interrupted turn once, in the right place.

use crate::fast_hash::HashSet;
use crate::invariant::{Findings, Invariant};
use crate::view::{At, Exchange, Region, View};
use cutpoint_trace::Feature;
use cutpoint_trace::verdict::{Clause, Fault, Level};

pub(super) struct OneMarkerInItsPlace;

const NO_MARKER: Clause = Clause {
    kind: "no-marker",
    text: "request {request} has no marker for interrupted {turns}",
};
const TOO_FEW_MARKERS: Clause = Clause {
    kind: "too-few-markers",
    text: "request {request} has {found} of {wanted} markers for {turns}",
};
const TOO_MANY_MARKERS: Clause = Clause {
    kind: "too-many-markers",
    text: "request {request} has {found} markers for interrupted {turns}",
};
const MARKER_TOO_EARLY: Clause = Clause {
    kind: "marker-too-early",
    text: "request {request} has the marker of {turns} before the last of its items",
};

impl Invariant for OneMarkerInItsPlace {
    fn id(&self) -> &'static str {
        "MARK-3"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "Requests that follow an interrupted turn carry exactly one marker for it, after the \
         turn's items and before the next user message."
    }

    fn source(&self) -> &'static str {
        "Codex's task lifecycle and openai/codex #9042 (without a marker the model repeats what was \
         aborted)"
    }

    fn needs(&self) -> &'static [Feature] {
        &[Feature::Marker]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "A turn that was cut by a kill of the agent may have a marker or none: the client \
             did not interrupt it.",
            "A marker may be gone once the history was compacted, its turn was rolled back, or \
             the rollout was torn.",
            "If the agent ended before it announced what it did with an input, the marker may \
             stand on either side of that input.",
            "The items of a turn without an input of its own come after the marker of the turn \
             before it, even if an input joined that turn later.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a request follows an interrupted turn, counted for each such turn"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[
            NO_MARKER,
            TOO_FEW_MARKERS,
            TOO_MANY_MARKERS,
            MARKER_TOO_EARLY,
        ]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        let mut reported = HashSet::default();
        for exchange in view.exchanges.iter().filter(|exchange| exchange.generates) {
            for region in view.regions(exchange) {
                findings.exercised += region.interrupted.len();
                let Some(fault) = fault(&region) else {
                    continue;
                };
                let key = (
                    exchange.conversation,
                    region.turn,
                    region.lost.len(),
                    missing_or_kind(&fault),
                );
                if reported.insert(key) {
                    report(view, exchange, &region, fault, &mut findings);
                }
            }
        }
        findings
    }
}

fn fault(region: &Region) -> Option<Fault> {
    let count = region.markers.len();
    if count < region.min {
        return Some(match (count, region.min) {
            (0, 1) => NO_MARKER.into(),
            (count, min) => TOO_FEW_MARKERS.with("found", count).with("wanted", min),
        });
    }
    if count > region.max && !region.interrupted.is_empty() {
        return Some(TOO_MANY_MARKERS.with("found", count));
    }
    // If several turns share a region, their items cannot be told apart.
    let marker = region.markers.first().filter(|_| region.lost.is_empty());
    let after = marker
        .zip(region.last_item)
        .is_some_and(|(marker, last)| *marker < last);
    (after && !region.interrupted.is_empty()).then(|| MARKER_TOO_EARLY.into())
}

/// What is reported once for a region: that markers are missing, however many, or another clause.
fn missing_or_kind(fault: &Fault) -> &'static str {
    match fault.clause {
        TOO_FEW_MARKERS => NO_MARKER.kind,
        clause => clause.kind,
    }
}

fn names(view: &View<'_>, region: &Region) -> String {
    let turns: Vec<&str> = region
        .turn
        .iter()
        .chain(&region.lost)
        .map(|turn| &view.turns[*turn])
        .filter(|turn| turn.ending().is_some_and(|ending| ending.interrupted()))
        .map(|turn| turn.id)
        .collect();
    match turns.len() {
        1 => format!("turn {}", turns.concat()),
        _ => format!("turns {}", turns.join(", ")),
    }
}

fn report(
    view: &View<'_>,
    exchange: &Exchange<'_>,
    region: &Region,
    fault: Fault,
    findings: &mut Findings,
) {
    let fault = fault.with("request", exchange.number);
    let fault = fault.with("turns", names(view, region));
    let shown_by: Vec<At> = region
        .interrupted
        .iter()
        .copied()
        .chain([exchange.at])
        .collect();
    findings.breach(view, fault, &shown_by);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::{
        Tracer, assistant, breaks, call, interrupted_tool, is_idle, keeps, long_session, marker,
        output, user,
    };
    use cutpoint_trace::{ClientOp, Decision, InputMode, ReadTrigger, StreamEnd, TaskKind};

    /// An interrupted turn, and the request of the next one with this in between.
    fn between(items: &[Value]) -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "one").request(1, &[user("one")]);
        t.interrupted("t1").start("t2", "two");
        let history = [&[user("env"), user("one")], items, &[user("two")]].concat();
        t.request(2, &history);
        t
    }

    #[test]
    fn one_marker_in_its_place_passes() {
        keeps("MARK-3", &interrupted_tool(), 1);
        keeps("MARK-3", &long_session(), 6);
        let items = [assistant("x"), call("c"), output("c", "aborted"), marker()];
        keeps("MARK-3", &between(&items), 1);
    }

    #[test]
    fn none_or_two_are_breaches() {
        let none = breaks("MARK-3/no-marker", &between(&[]));
        assert_eq!(
            none.text(),
            "request 2 has no marker for interrupted turn t1"
        );
        let two = breaks("MARK-3/too-many-markers", &between(&[marker(), marker()]));
        assert!(two.text().contains("2 markers"));
    }

    #[test]
    fn a_marker_in_the_wrong_place_is_a_breach() {
        let items = [call("c"), marker(), output("c", "aborted")];
        let early = breaks("MARK-3/marker-too-early", &between(&items));
        assert!(early.text().contains("before the last of its items"));
        let mut t = between(&[marker()]);
        t.request(3, &[user("one"), user("two"), marker()]);
        assert!(
            breaks("MARK-3/no-marker", &t)
                .text()
                .contains("request 3 has no marker")
        );
        let mut t = between(&[call("c"), output("c", "aborted"), marker()]);
        let late = [
            user("one"),
            call("c"),
            marker(),
            user("two"),
            output("c", "aborted"),
        ];
        let late = breaks("MARK-3/marker-too-early", t.request(3, &late));
        assert!(late.text().contains("before the last of its items"));
    }

    #[test]
    fn a_lost_prompt_leaves_its_marker_to_the_turn_before() {
        let lost = |markers: usize| {
            let mut t = Tracer::new();
            t.start("t1", "one")
                .request(1, &[user("one")])
                .interrupted("t1");
            t.start("t2", "two").interrupted("t2").start("t3", "three");
            let mut history = vec![user("one")];
            history.extend(vec![marker(); markers]);
            history.push(user("three"));
            t.request(2, &history);
            t
        };
        keeps("MARK-3", &lost(2), 2);
        assert!(
            breaks("MARK-3/too-few-markers", &lost(1))
                .text()
                .contains("1 of 2 markers")
        );
        breaks("MARK-3/too-many-markers", &lost(3));
    }

    #[test]
    fn steered_input_belongs_to_its_turn() {
        let mut t = Tracer::new();
        t.start("t1", "one")
            .input("more", InputMode::Steer)
            .reply(Some("t1"));
        t.interrupted("t1").start("t2", "two");
        let history = [
            user("one"),
            call("c"),
            output("c", "x"),
            user("more"),
            marker(),
            user("two"),
        ];
        keeps("MARK-3", t.request(1, &history), 1);
    }

    /// What a killed agent took and did not report is in the history: a later request's turn is not
    /// its owner.
    #[test]
    fn what_an_ended_agent_was_sent_is_no_part_of_a_later_turn() {
        let resumed = |markers: &[Value]| {
            let mut t = Tracer::new();
            t.input("zero", InputMode::Start).kill().resume();
            t.start("t1", "one").interrupted("t1").start("t2", "two");
            let mut history = vec![user("zero"), user("one"), marker(), user("two")];
            t.request(1, &history).stream_end(1, StreamEnd::Cut);
            history.push(assistant("Hi"));
            history.extend_from_slice(markers);
            t.request(2, &history);
            t
        };
        keeps("MARK-3", &resumed(&[]), 2);
        breaks("MARK-4/running-turn", &resumed(&[marker()]));
    }

    #[test]
    fn what_is_said_after_the_interrupt_is_no_part_of_the_aborted_turn() {
        let killed = |items: &[Value], early: bool| {
            let mut t = Tracer::new();
            t.start("t1", "one").request(1, &[user("one")]);
            if early {
                t.input("two", InputMode::Start).interrupt();
            } else {
                t.interrupt().input("two", InputMode::Start);
            }
            t.wrote(&marker())
                .aborted("t1")
                .read_at_end("t1")
                .kill()
                .resume();
            t.start("t3", "three")
                .request(2, &[&[user("one")], items, &[user("three")]].concat());
            t
        };
        keeps("MARK-3", &killed(&[marker(), user("two")], false), 1);
        breaks("MARK-3/no-marker", &killed(&[user("two"), marker()], false));
        keeps("MARK-3", &killed(&[user("two"), marker()], true), 1);
    }

    #[test]
    fn other_conversations_and_compacted_histories_owe_nothing() {
        let mut t = Tracer::new();
        t.start("t1", "one")
            .request(1, &[user("one")])
            .interrupted("t1");
        t.request_of(1, 2, &[user("sub-task")]);
        is_idle("MARK-3", &t);
        t.wrote_line("compacted", &json!({})).read(ReadTrigger::End);
        is_idle("MARK-3", t.start("t2", "two").request(3, &[user("two")]));
    }

    #[test]
    fn a_turn_that_input_joins_may_have_items_in_front_of_it() {
        let reviewed = |joins: bool| {
            let mut t = Tracer::new();
            t.start("t1", "one")
                .request(1, &[user("one")])
                .interrupted("t1");
            t.task(TaskKind::Review, "it")
                .reply(Some("t2"))
                .started("t2");
            if joins {
                t.input("two", InputMode::Steer)
                    .completed("t2")
                    .start("t3", "three");
            } else {
                t.completed("t2").start("t3", "two");
            }
            let items = [
                user("one"),
                marker(),
                assistant("Fine."),
                user("two"),
                user("three"),
            ];
            t.request(2, &items[..if joins { 5 } else { 4 }]);
            t
        };
        keeps("MARK-3", &reviewed(true), 1);
        keeps("MARK-3", &reviewed(false), 1);
        breaks(
            "MARK-3/marker-too-early",
            &between(&[marker(), assistant("LateEvent.")]),
        );
    }

    #[test]
    fn input_that_came_too_late_may_begin_a_turn_that_a_kill_kept_from_being_announced() {
        let killed = |markers: &[Value]| {
            let mut t = Tracer::new();
            t.start("t1", "one")
                .request(1, &[user("one")])
                .interrupted("t1");
            t.task(TaskKind::Review, "it")
                .started("t2")
                .begin("t2", "c1");
            t.op(ClientOp::Approval {
                call_id: "c1".into(),
                decision: Decision::Abort,
            });
            t.input("late", InputMode::Steer).aborted("t2");
            t.kill().resume().start("t3", "three");
            let reviewed = [&[user("one"), marker(), user("the review")], markers].concat();
            t.request(2, &[&reviewed[..], &[user("late"), user("three")]].concat());
            t
        };
        keeps("MARK-3", &killed(&[marker()]), 2);
        breaks("MARK-3/too-few-markers", &killed(&[]));
        breaks("MARK-3/too-many-markers", &killed(&[marker(), marker()]));
    }

    #[test]
    fn what_replaced_an_interrupted_turn_unreported_follows_its_marker() {
        let killed = |markers: &[Value]| {
            let mut t = Tracer::new();
            t.start("t1", "one").request(1, &[user("one")]);
            t.task(TaskKind::Compact, "")
                .interrupt()
                .replaced("t1")
                .started("t2");
            t.input("two", InputMode::Replace).aborted("t2");
            t.kill().resume().start("t3", "three");
            t.request(
                2,
                &[&[user("one")], markers, &[user("two"), user("three")]].concat(),
            );
            t
        };
        keeps("MARK-3", &killed(&[marker()]), 1);
        keeps("MARK-4", &killed(&[marker()]), 1);
        keeps("MARK-5", &killed(&[marker()]), 1);
        breaks("MARK-3/no-marker", &killed(&[]));
        breaks("MARK-5/marker-lost", &killed(&[]));
        breaks("MARK-4/ended-turn", &killed(&[marker(), marker()]));
    }

    #[test]
    fn a_second_answer_to_an_approval_cuts_nothing() {
        let answered = |first: Decision, items: &[Value]| {
            let mut t = Tracer::new();
            t.start("t1", "one").request(1, &[user("one")]);
            t.emit(1, call("c")).finish(1).ask("t1", "c");
            t.decide("c", first).decide("c", Decision::Abort);
            t.input("more", InputMode::Steer)
                .interrupt()
                .aborted("t1")
                .start("t2", "two");
            let history = [
                &[user("one"), call("c"), output("c", "x")],
                items,
                &[user("two")],
            ]
            .concat();
            t.request(2, &history);
            t
        };
        let joined = [user("more"), marker()];
        keeps("MARK-3", answered(Decision::Approve, &joined).kill(), 1);
        breaks(
            "MARK-3/no-marker",
            answered(Decision::Approve, &joined[..1]).kill(),
        );
        breaks(
            "MARK-3/no-marker",
            answered(Decision::Abort, &joined).kill(),
        );
    }

    #[test]
    fn the_agents_word_goes_before_the_order_of_ops() {
        let told = |tells: bool| {
            let mut t = Tracer::new();
            t.start("t1", "one").request(1, &[user("one")]).interrupt();
            t.input("more", InputMode::Steer);
            if tells {
                t.user_message("t1", "more");
            }
            t.aborted("t1").start("t2", "two");
            t.request(2, &[user("one"), user("more"), marker(), user("two")])
                .kill();
            t
        };
        keeps("MARK-3", &told(true), 1);
        breaks("MARK-3/no-marker", &told(false));
    }
}
