//! REQ-2: every model request has a cause.

use crate::fast_hash::HashSet;
use crate::invariant::{Findings, Invariant};
use crate::view::{At, Exchange, Role, Turn, View};
use cutpoint_trace::Feature;
use cutpoint_trace::verdict::{Clause, Level};

pub(super) struct RequestsHaveCauses;

const AFTER_ABORT: Clause = Clause {
    kind: "after-abort",
    text: "request {request} was sent after an abort, without new input",
};
const ON_RESUME: Clause = Clause {
    kind: "on-resume",
    text: "request {request} was sent on resume, before any new input",
};
const NO_CAUSE: Clause = Clause {
    kind: "no-cause",
    text: "request {request} has no cause: no new input, no new output, and the request before it \
           did not fail",
};

/// How soon after the abort a request may arrive that was already on its way.
const ON_ITS_WAY_NS: u64 = 10_000_000;

impl Invariant for RequestsHaveCauses {
    fn id(&self) -> &'static str {
        "REQ-2"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "Each model request is caused by user input, by new tool outputs or by the failure of \
         the request before it; none is sent after an abort or a resume until the user sends new \
         input."
    }

    fn source(&self) -> &'static str {
        "observed in released agents: requests while loading a session; openai/codex #13874 (one \
         more request after the interrupt)"
    }

    fn needs(&self) -> &'static [Feature] {
        &[]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "A request may arrive after the interrupt and before the abort: until the abort is \
             done, the agent need not be silent.",
            "A request may arrive within 10 ms after the abort, or after the agent's end that \
             cut a later turn, if the client closes its connection without reading the response \
             to the end: it was already on its way.",
            "A request that a killed agent had sent for the turn that the kill cut may arrive \
             within 10 ms after the kill, even if its answer fitted into the connection.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a model request arrives"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[AFTER_ABORT, ON_RESUME, NO_CAUSE]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        let mut ends: Vec<(At, bool)> = view
            .turns
            .iter()
            .filter_map(|turn| turn.ending())
            .map(|ending| (ending.at, ending.aborted()))
            .collect();
        ends.sort_unstable();
        for exchange in view.exchanges.iter().filter(|exchange| exchange.generates) {
            findings.exercised += 1;
            let number = exchange.number;
            if let Some(abort) = after_abort(view, exchange, &ends) {
                let fault = AFTER_ABORT.with("request", number);
                findings.breach(view, fault, &[abort, exchange.at]);
            } else if let Some(start) = while_resuming(view, exchange) {
                let fault = ON_RESUME.with("request", number);
                findings.breach(view, fault, &[start, exchange.at]);
            } else if !has_cause(view, exchange) {
                let fault = NO_CAUSE.with("request", number);
                let previous = exchange.previous.map(|index| view.exchanges[index].at);
                findings.breach(view, fault, &[previous.unwrap_or(exchange.at), exchange.at]);
            }
        }
        findings
    }
}

/// The abort that should have silenced the agent.
fn after_abort(view: &View<'_>, exchange: &Exchange<'_>, ends: &[(At, bool)]) -> Option<At> {
    if exchange.turn.is_some() || exchange.in_flight {
        return None;
    }
    let last = ends.partition_point(|(at, _)| *at < exchange.at);
    let (abort, aborted) = *ends.get(last.checked_sub(1)?)?;
    if !aborted || new_input_in_history(view, exchange, true) {
        return None;
    }
    let unread = exchange
        .disconnected
        .is_some_and(|closed| exchange.end.is_none_or(|(end, _)| closed < end));
    // A later turn that the agent's end cut may have asked for it.
    let last_cut = |cut: fn(&Turn<'_>) -> Option<At>| {
        let cuts = view.turns.iter().filter_map(cut);
        cuts.filter(|cut| (abort..exchange.at).contains(cut)).max()
    };
    let (killed, exited) = (last_cut(|turn| turn.killed), last_cut(|turn| turn.exited));
    let silent = killed.max(exited).unwrap_or(abort);
    // An answer to the dead is cut off only where it is longer than what fits the connection.
    let nobody_reads = unread || killed == Some(silent);
    let on_its_way = nobody_reads && view.between_ns(silent, exchange.at) <= ON_ITS_WAY_NS;
    (!on_its_way).then_some(abort)
}

/// The resume since which the user has said nothing.
fn while_resuming(view: &View<'_>, exchange: &Exchange<'_>) -> Option<At> {
    let last = view.starts.partition_point(|start| start.at < exchange.at);
    let start = view.starts.get(last.checked_sub(1)?)?;
    let spoken = || {
        let inputs = view.inputs[..exchange.inputs_before].iter().rev();
        let mut inputs = inputs.take_while(|input| input.at > start.at);
        inputs.any(|input| !input.refused())
    };
    (start.resumed && !spoken()).then_some(start.at)
}

fn has_cause(view: &View<'_>, exchange: &Exchange<'_>) -> bool {
    let previous = exchange.previous.map(|index| &view.exchanges[index]);
    let heard = previous.map_or(0, |previous| previous.inputs_before);
    let new = view.inputs.get(heard..exchange.inputs_before);
    if new.is_some_and(|inputs| inputs.iter().any(|input| !input.refused())) {
        return true;
    }
    let Some(previous) = previous else {
        // A conversation beside the user's (of a sub-agent) begins within a turn.
        return exchange.turn.is_some();
    };
    previous.failed_before(exchange.at)
        || new_output(previous, exchange)
        || new_input_in_history(view, exchange, false)
        || instructed_by_its_parent(view, previous, exchange)
        || begins_a_task(view, previous, exchange)
        || view.gone_between(previous.at, exchange.over().unwrap_or(exchange.at + 2) + 1)
}

/// Whether the request is the first one of a task that the user has asked for, even while the request
/// before was on its way.
fn begins_a_task(view: &View<'_>, previous: &Exchange<'_>, exchange: &Exchange<'_>) -> bool {
    let input = exchange.turn.and_then(|turn| view.turns[turn].input);
    let asked = input.is_some_and(|input| view.inputs[input].task.is_some());
    asked && previous.turn != exchange.turn
}

/// Whether the agent that holds a conversation beside the user's has said something new in it.
fn instructed_by_its_parent(
    view: &View<'_>,
    previous: &Exchange<'_>,
    exchange: &Exchange<'_>,
) -> bool {
    let said = |exchange: &Exchange<'_>| {
        let users = exchange.roles.iter();
        users.filter(|role| matches!(role, Role::User(_))).count()
    };
    let live = exchange
        .turn
        .is_some_and(|turn| view.turns[turn].ending_before(exchange.at).is_none());
    live && !exchange.is_the_users() && said(exchange) > said(previous)
}

fn new_output(previous: &Exchange<'_>, exchange: &Exchange<'_>) -> bool {
    let known: HashSet<&str> = previous.outputs().collect();
    exchange.outputs().any(|id| !known.contains(id))
}

/// Whether the history has an input that the conversation's request before it lacks: one that was
/// accepted while that was on its way. Input of a turn that is over causes nothing if `live`.
fn new_input_in_history(view: &View<'_>, exchange: &Exchange<'_>, live: bool) -> bool {
    let carried = |exchange: &Exchange<'_>| -> Option<usize> {
        exchange.roles.iter().rev().find_map(|role| match role {
            Role::User(input) => *input,
            _ => None,
        })
    };
    let Some(newest) = carried(exchange) else {
        return false;
    };
    let before = exchange.previous.map(|index| &view.exchanges[index]);
    if before
        .and_then(carried)
        .is_some_and(|before| before >= newest)
    {
        return false;
    }
    let over = |turn: usize| view.turns[turn].ending_before(exchange.at).is_some();
    !live || !view.inputs[newest].turn.is_some_and(over)
}

#[cfg(test)]
mod tests {
    use crate::testing::{
        Tracer, breaks, call, interrupted_tool, keeps, long_session, output, user,
    };
    use cutpoint_trace::{InputMode, StreamEnd, TaskKind};

    fn stopped() -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "run").request(1, &[user("run")]);
        t.emit(1, call("c1"))
            .finish(1)
            .begin("t1", "c1")
            .interrupt();
        t
    }

    fn answered() -> Vec<serde_json::Value> {
        vec![user("run"), call("c1"), output("c1", "aborted")]
    }

    #[test]
    fn input_outputs_and_retries_are_causes() {
        keeps("REQ-2", &interrupted_tool(), 2);
        keeps("REQ-2", &long_session(), 7);
        let mut t = Tracer::new();
        t.start("t1", "run").request(1, &[user("run")]);
        t.input("more", InputMode::Steer).reply(Some("t1"));
        keeps(
            "REQ-2",
            t.finish(1).request(2, &[user("run"), user("more")]),
            2,
        );
    }

    #[test]
    fn a_task_is_a_cause_though_it_was_asked_for_before_the_last_request() {
        let begun = |task: bool| {
            let mut t = stopped();
            t.end("t1", "c1", Some(0));
            if task {
                t.task(TaskKind::Compact, "");
            }
            let mut history = vec![user("run"), call("c1"), output("c1", "out")];
            t.request(2, &history).finish(2).completed("t1");
            t.started("t2");
            history.push(user("summarize"));
            t.request(3, &history);
            t
        };
        keeps("REQ-2", &begun(true), 3);
        breaks("REQ-2/no-cause", &begun(false));
    }

    #[test]
    fn a_request_after_an_abort_is_a_breach() {
        let mut t = stopped();
        t.aborted("t1").request(2, &answered());
        breaks("REQ-2/after-abort", &t);
        t.disconnected(2);
        keeps("REQ-2", &t, 2);
        let mut t = stopped();
        t.aborted("t1")
            .wait_ms(20)
            .request(2, &answered())
            .disconnected(2);
        breaks("REQ-2", &t);
    }

    #[test]
    fn a_request_of_a_turn_that_a_kill_cut_may_be_on_its_way() {
        let killed = |turn: bool, ms: u64| {
            let mut t = stopped();
            t.aborted("t1");
            let mut history = answered();
            history.push(user("next"));
            t.wait_ms(20);
            if turn {
                t.start("t2", "next").request(2, &history);
                t.emit(2, call("c2"))
                    .finish(2)
                    .begin("t2", "c2")
                    .end("t2", "c2", Some(0));
            }
            history.extend([call("c2"), output("c2", "done")]);
            t.kill().wait_ms(ms).request(3, &history);
            t
        };
        for unread in [true, false] {
            let end = |mut t: Tracer| {
                if unread {
                    t.disconnected(3)
                } else {
                    t.finish(3)
                };
                t
            };
            keeps("REQ-2", &end(killed(true, 0)), 3);
            breaks("REQ-2/after-abort", &end(killed(true, 20)));
            breaks("REQ-2/after-abort", &end(killed(false, 0)));
        }
    }

    #[test]
    fn a_request_before_the_abort_is_a_race() {
        let mut t = stopped();
        keeps(
            "REQ-2",
            t.request(2, &answered()).disconnected(2).aborted("t1"),
            2,
        );
    }

    #[test]
    fn a_late_first_request_of_an_aborted_turn_is_a_breach() {
        let mut t = Tracer::new();
        t.start("t1", "run").interrupt().aborted("t1");
        breaks(
            "REQ-2/after-abort",
            t.wait_ms(50).request(1, &[user("run")]),
        );
    }

    #[test]
    fn a_request_while_resuming_is_a_breach() {
        let mut t = Tracer::new();
        t.start("t1", "run")
            .request(1, &[user("run")])
            .kill()
            .resume();
        t.request(2, &[user("run")]);
        breaks("REQ-2/on-resume", &t);
    }

    #[test]
    fn who_asked_for_a_stream_may_ask_again_when_a_body_came() {
        let asked = |again: u64| {
            let mut t = Tracer::new();
            t.start("t1", "run")
                .request(1, &[user("run")])
                .answer(1, 200, "");
            t.wait_ms(again)
                .request(2, &[user("run")])
                .finish(2)
                .completed("t1");
            t
        };
        keeps("REQ-2", &asked(300), 2);
        let mut t = asked(300);
        breaks("REQ-2/no-cause", t.request(3, &[user("run")]));
    }

    #[test]
    fn a_request_without_a_cause_is_a_breach() {
        let mut t = Tracer::new();
        t.start("t1", "run").request(1, &[user("run")]).finish(1);
        breaks("REQ-2/no-cause", t.request(2, &[user("run")]));
        let mut t = Tracer::new();
        t.start("t1", "run").request(1, &[user("run")]);
        breaks("REQ-2/no-cause", t.request(2, &[user("run")]));
        let mut t = Tracer::new();
        t.start("t1", "run").request(1, &[user("run")]);
        keeps(
            "REQ-2",
            t.stream_end(1, StreamEnd::Cut).request(2, &[user("run")]),
            2,
        );
        breaks("REQ-2/no-cause", Tracer::new().request(1, &[user("hello")]));
    }
}
