//! MARK-4: no marker where nothing was interrupted.

use crate::fast_hash::HashSet;
use crate::invariant::{Findings, Invariant};
use crate::view::{At, Region, View};
use cutpoint_trace::Feature;
use cutpoint_trace::verdict::{Clause, Fault, Level};

pub(super) struct NoMarkerWithoutInterrupt;

const IDLE_INTERRUPT: Clause = Clause {
    kind: "idle-interrupt",
    text: "request {request} has one marker too many, and an interrupt met no turn",
};
const BEFORE_ANY_INPUT: Clause = Clause {
    kind: "before-any-input",
    text: "request {request} has a marker before any input of the user",
};
const RUNNING_TURN: Clause = Clause {
    kind: "running-turn",
    text: "request {request} has a marker for turn {turn}, which is still running",
};
const ENDED_TURN: Clause = Clause {
    kind: "ended-turn",
    text: "request {request} has a marker for turn {turn}, which is {end}",
};

impl Invariant for NoMarkerWithoutInterrupt {
    fn id(&self) -> &'static str {
        "MARK-4"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "No request carries a marker for a turn that completed, failed, was replaced or is still \
         running, nor for an interrupt that aborted nothing."
    }

    fn source(&self) -> &'static str {
        "Codex's task lifecycle: only an abort as interrupted records the marker"
    }

    fn needs(&self) -> &'static [Feature] {
        &[Feature::Marker]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "The marker of a turn whose abort is received just after the request may already be \
             in the request: requests and events take different paths.",
            "A turn that was cut by a kill of the agent may have a marker or none.",
            "If the agent ended before it announced what it did with an input, the marker may \
             stand on either side of that input.",
            "In a fork, a turn that was active when the fork was requested, when it was made, or \
             in between counts as interrupted.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a request follows a turn that was not interrupted, or an interrupt that met no turn"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[IDLE_INTERRUPT, BEFORE_ANY_INPUT, RUNNING_TURN, ENDED_TURN]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        let mut reported = HashSet::default();
        for exchange in view.exchanges.iter().filter(|exchange| exchange.generates) {
            let regions = view.regions(exchange);
            let tests = |region: &Region| !region.unmarked.is_empty() || !region.idle.is_empty();
            findings.exercised += usize::from(regions.iter().any(tests));
            for region in regions {
                let Some((cause, shown_by)) = fault(view, &region) else {
                    continue;
                };
                let key = (exchange.conversation, region.turn, region.is_first);
                if reported.insert(key) {
                    let fault = cause.with("request", exchange.number);
                    let shown_by: Vec<At> = shown_by.into_iter().chain([exchange.at]).collect();
                    findings.breach(view, fault, &shown_by);
                }
            }
        }
        findings
    }
}

fn fault(view: &View<'_>, region: &Region) -> Option<(Fault, Vec<At>)> {
    if region.markers.len() <= region.max {
        return None;
    }
    if !region.idle.is_empty() {
        return Some((IDLE_INTERRUPT.into(), region.idle.clone()));
    }
    if region.max > 0 {
        // One too many for a turn that was interrupted is MARK-3's.
        return None;
    }
    if region.is_first {
        // What stood there before the run was not observed.
        return (!view.inherited).then(|| (BEFORE_ANY_INPUT.into(), Vec::new()));
    }
    let turn = &view.turns[region.turn?];
    let fault = match region.unmarked.is_empty() {
        true => RUNNING_TURN.with("turn", turn.id),
        false => {
            let end = turn.ending().map_or("over", |ending| ending.in_words());
            ENDED_TURN.with("turn", turn.id).with("end", end)
        }
    };
    let mut shown_by = vec![turn.begun];
    shown_by.extend(&region.unmarked);
    Some((fault, shown_by))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::testing::{
        Tracer, assistant, breaks, interrupted_tool, is_idle, keeps, long_session, marker, user,
    };
    use cutpoint_trace::{AgentEvent, ClientOp, InputMode, TaskKind};

    fn completed(idle: bool, history: &[Value]) -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "one").request(1, &[user("one")]).finish(1);
        t.completed("t1");
        if idle {
            t.interrupt().reply(None);
        }
        t.start("t2", "two").request(2, history);
        t
    }

    #[test]
    fn turns_that_were_not_interrupted_have_no_marker() {
        is_idle("MARK-4", &interrupted_tool());
        keeps("MARK-4", &long_session(), 5);
        let history = [user("one"), assistant("x"), user("two")];
        keeps("MARK-4", &completed(false, &history), 1);
        keeps("MARK-4", &completed(true, &history), 1);
    }

    #[test]
    fn a_turn_that_begins_in_front_of_a_fork_is_interrupted_in_it() {
        let forked = |place: usize| {
            let mut t = Tracer::new();
            t.input("one", InputMode::Steer).op(ClientOp::Fork);
            let forks = |t: &mut Tracer, here: usize| {
                if here == place {
                    t.forked("f.jsonl");
                }
            };
            forks(&mut t, 0);
            t.started("t1");
            forks(&mut t, 1);
            t.request(1, &[user("one")]).finish(1).completed("t1");
            forks(&mut t, 2);
            t.kill().resume();
            t.start("t2", "two")
                .request(2, &[user("one"), marker(), user("two")]);
            t
        };
        breaks("MARK-4/ended-turn", &forked(0));
        keeps("MARK-4", &forked(1), 1);
        keeps("MARK-4", &forked(2), 1);
    }

    #[test]
    fn what_was_sent_into_a_turn_may_stand_in_a_later_one_that_was_killed() {
        let killed = |completes: bool| {
            let mut t = Tracer::new();
            t.start("t1", "one")
                .request(1, &[user("one")])
                .finish(1)
                .completed("t1");
            t.task(TaskKind::Shell, "true").started("t2");
            t.input("two", InputMode::Steer)
                .input("three", InputMode::Steer)
                .completed("t2");
            t.started("t3").user_message("t3", "two").interrupt();
            if completes {
                t.completed("t3");
            }
            t.kill().resume().start("t4", "four");
            t.request(
                2,
                &[
                    user("one"),
                    user("two"),
                    user("three"),
                    marker(),
                    user("four"),
                ],
            );
            t
        };
        keeps("MARK-4", &killed(false), 1);
        breaks("MARK-4/ended-turn", &killed(true));
    }

    #[test]
    fn a_marker_of_a_completed_turn_is_a_breach() {
        let history = [user("one"), assistant("x"), marker(), user("two")];
        let breach = breaks("MARK-4/ended-turn", &completed(false, &history));
        assert!(breach.text().ends_with("turn t1, which is complete"));
    }

    #[test]
    fn a_marker_of_an_idle_interrupt_is_a_breach() {
        let history = [user("one"), marker(), user("two")];
        let breach = breaks("MARK-4/idle-interrupt", &completed(true, &history));
        assert!(breach.text().contains("met no turn"));
    }

    #[test]
    fn a_marker_of_the_running_turn_or_of_none_is_a_breach() {
        let history = [user("one"), user("two"), marker()];
        let running = breaks("MARK-4/running-turn", &completed(false, &history));
        assert!(running.text().contains("still running"));
        let history = [marker(), user("one"), user("two")];
        let first = breaks("MARK-4/before-any-input", &completed(false, &history));
        assert!(first.text().contains("before any input"));
    }

    #[test]
    fn a_marker_of_a_replaced_turn_is_a_breach() {
        let mut t = Tracer::new();
        t.start("t1", "one").input("two", InputMode::Replace);
        t.reply(Some("t2")).replaced("t1").started("t2");
        t.request(1, &[user("one"), marker(), user("two")]);
        breaks("MARK-4/ended-turn", &t);
    }

    #[test]
    fn a_request_may_overtake_the_abort_event() {
        let mut t = Tracer::new();
        t.start("t1", "one")
            .interrupt()
            .input("two", InputMode::Start);
        t.request(1, &[user("one"), marker(), user("two")]);
        t.aborted("t1").started("t2");
        is_idle("MARK-4", &t);
    }

    #[test]
    fn a_turn_that_began_before_the_one_that_was_taken_back_keeps_its_marker() {
        let taken_back = |interrupted: bool| {
            let mut t = Tracer::new();
            t.start("t1", "one").request(1, &[user("one")]);
            // The input for the third turn is sent before the second one starts.
            t.task(TaskKind::Shell, "true")
                .input("three", InputMode::Start);
            t.replaced("t1").started("t2");
            if interrupted {
                t.interrupt().aborted("t2");
            } else {
                t.replaced("t2");
            }
            t.started("t3").user_message("t3", "three").completed("t3");
            t.op(ClientOp::Rollback { turns: 1 })
                .event(AgentEvent::RolledBack { turns: 1 });
            t.start("t4", "four")
                .request(2, &[user("one"), marker(), user("four")]);
            t
        };
        keeps("MARK-4", &taken_back(true), 1);
        breaks("MARK-4/ended-turn", &taken_back(false));
    }
}
