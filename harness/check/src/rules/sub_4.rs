//! SUB-4: a one-shot sub-agent ends by itself.

use crate::invariant::{Findings, Invariant};
use crate::view::{At, SubAgent, View};
use cutpoint_trace::verdict::{Clause, Fault, Level};
use cutpoint_trace::{AgentEvent, Feature};

pub(super) struct OneShotsEndByThemselves;

const TURN_STARTED: Clause = Clause {
    kind: "turn-started",
    text: "one-shot sub-agent {agent} began another turn",
};
const REQUEST_SENT: Clause = Clause {
    kind: "request-sent",
    text: "one-shot sub-agent {agent} sent request {request} after the end of its turn",
};
const LIVED_ON: Clause = Clause {
    kind: "lived-on",
    text: "one-shot sub-agent {agent} lived {took_ms} ms after the end of its turn; {allowed_ms} \
           ms are allowed",
};

/// How long an agent may wait for a sub-agent to shut down.
const DRAIN_NS: u64 = 500_000_000;

impl Invariant for OneShotsEndByThemselves {
    fn id(&self) -> &'static str {
        "SUB-4"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "A one-shot sub-agent shuts down by itself after its terminal event: it takes no further \
         input and sends no further request."
    }

    fn source(&self) -> &'static str {
        "Codex's delegate: a one-shot's ops are closed from the start, and it is shut down when its \
         turn has ended"
    }

    fn needs(&self) -> &'static [Feature] {
        &[Feature::SubAgents]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "The shutdown may take 500 ms plus the bound of the run; time in which the client \
             does not read does not count.",
            "A run that ends within that time shows nothing.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "the turn of a one-shot sub-agent ends"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[TURN_STARTED, REQUEST_SENT, LIVED_ON]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        for agent in view.agents.iter().filter(|agent| agent.one_shot) {
            let Some(over) = agent.first_end() else {
                continue;
            };
            findings.exercised += 1;
            if let Some((fault, at)) =
                goes_on(view, agent, over).or_else(|| stays(view, agent, over))
            {
                let fault = fault.with("agent", agent.id);
                findings.breach(view, fault, &[agent.started, over, at]);
            }
        }
        findings
    }
}

/// What the sub-agent does after the end of its turn.
fn goes_on(view: &View<'_>, agent: &SubAgent<'_>, over: At) -> Option<(Fault, At)> {
    let starts = |event: &AgentEvent| matches!(event, AgentEvent::TurnStarted { .. });
    let mut events = agent.events.iter();
    if let Some((at, _)) = events.find(|(at, event)| *at > over && starts(event)) {
        return Some((TURN_STARTED.into(), *at));
    }
    let mut exchanges = agent.exchanges.iter().map(|index| &view.exchanges[*index]);
    let later = exchanges.find(|exchange| exchange.generates && exchange.at > over)?;
    Some((REQUEST_SENT.with("request", later.number), later.at))
}

/// Where the sub-agent should have ended and had not.
fn stays(view: &View<'_>, agent: &SubAgent<'_>, over: At) -> Option<(Fault, At)> {
    let stops = view.stops.partition_point(|stop| *stop < over);
    let stop = view.stops.get(stops).copied();
    let ended = agent.ended.map(|(at, _)| at);
    let until = [ended, stop].into_iter().flatten().min();
    let until = until.unwrap_or(view.trace.entries.len() - 1);
    let (from_ns, until_ns) = (view.at_ns(over), view.at_ns(until));
    let took_ns = until_ns.saturating_sub(from_ns);
    let took_ns = took_ns.saturating_sub(view.unread_ns(from_ns, until_ns));
    let bound_ns = view.trace.header.abort_bound_ms.saturating_mul(1_000_000);
    let bound_ns = bound_ns.saturating_add(DRAIN_NS);
    (took_ns > bound_ns).then(|| {
        let fault = LIVED_ON.with("took_ms", took_ns / 1_000_000);
        (fault.with("allowed_ms", bound_ns / 1_000_000), until)
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::{Tracer, breaks, is_idle, keeps, user};
    use cutpoint_trace::AgentEvent;

    fn done(one_shot: bool) -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "go").request(1, &[user("go")]).finish(1);
        t.sub_agent("t1", "a1", "look", one_shot);
        t.request_of(1, 2, &[user("look")]).finish(2);
        t.sub_turn_ended("t1", "a1");
        t
    }

    #[test]
    fn one_that_ends_passes() {
        keeps("SUB-4", done(true).sub_ended("t1", "a1", "complete"), 1);
        keeps("SUB-4", &done(true), 1);
        is_idle("SUB-4", done(false).wait_ms(9000).completed("t1"));
    }

    #[test]
    fn one_that_stays_is_a_breach() {
        let mut t = done(true);
        breaks(
            "SUB-4/lived-on",
            t.wait_ms(2600).sub_ended("t1", "a1", "closed"),
        );
        breaks("SUB-4/lived-on", done(true).wait_ms(2600).completed("t1"));
        keeps("SUB-4", done(true).kill().wait_ms(9000).resume(), 1);
    }

    #[test]
    fn one_that_goes_on_is_a_breach() {
        let started = AgentEvent::TurnStarted {
            turn_id: "a1-2".into(),
        };
        breaks(
            "SUB-4/turn-started",
            done(true).of_sub_agent("t1", "a1", started),
        );
        let more = [user("look"), user("and now?")];
        let breach = breaks("SUB-4/request-sent", done(true).request_of(1, 3, &more));
        assert!(breach.text().contains("request 3"), "{}", breach.text());
    }
}
