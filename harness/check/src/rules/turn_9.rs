//! TURN-9: ids that a caller supplies.

use std::collections::BTreeSet;

use crate::fast_hash::{HashMap, HashSet};
use crate::ids::canonical;
use crate::invariant::{Findings, Invariant};
use crate::view::{At, Input, OpAnswer, Turn, View};
use cutpoint_trace::verdict::{Clause, Level};
use cutpoint_trace::{Feature, InputMode, Observation};

pub(super) struct CallersIdsAreKept;

const INVALID_ACCEPTED: Clause = Clause {
    kind: "invalid-accepted",
    text: "the {role} id {id:?} is not a UUID, but was accepted",
};
const REUSED_ACCEPTED: Clause = Clause {
    kind: "reused-accepted",
    text: "the {role} id {id:?} was used before, but was accepted",
};
const REFUSED_BUT_STARTED: Clause = Clause {
    kind: "refused-but-started",
    text: "the {role} id {id:?} was refused, but a turn started",
};
const FRESH_REFUSED: Clause = Clause {
    kind: "fresh-refused",
    text: "the {role} id {id:?} is a fresh UUID, but was refused",
};
const OTHER_NAME: Clause = Clause {
    kind: "other-name",
    text: "the {role} id {id:?} was accepted, but the answer names {answered}",
};
const OTHER_SPELLING: Clause = Clause {
    kind: "other-spelling",
    text: "an event calls turn {id} {spelling:?}",
};

impl Invariant for CallersIdsAreKept {
    fn id(&self) -> &'static str {
        "TURN-9"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "An id that a caller supplies is refused unless it is a UUID that was not used before, \
         in any spelling; an accepted id is used in its canonical form everywhere."
    }

    fn source(&self) -> &'static str {
        "Codex's app-server, where a caller may name what it starts; openai/codex #36926 (an id \
         that the agent knows by another name)"
    }

    fn needs(&self) -> &'static [Feature] {
        &[Feature::CallerIds, Feature::OpReplies]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "Input that names a turn of its own may be refused if a turn was active when it was \
             sent, or began before it was answered: it would join that turn.",
            "A request that was not answered is not judged: the agent may have ended.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a request that supplies an id is answered"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[
            INVALID_ACCEPTED,
            REUSED_ACCEPTED,
            REFUSED_BUT_STARTED,
            FRESH_REFUSED,
            OTHER_NAME,
            OTHER_SPELLING,
        ]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        let accepted = check_turns(view, &mut findings);
        check_threads(view, &mut findings);
        check_spellings(view, &accepted, &mut findings);
        findings
    }
}

/// What a request that supplies an id was to be answered with.
enum ExpectedAnswer {
    /// The clause that an acceptance breaks.
    Refusal(Clause),
    /// The id in its canonical form.
    Acceptance(String),
}

impl ExpectedAnswer {
    fn of(wanted: &str, is_used: impl FnOnce(&str) -> bool) -> Self {
        match canonical(wanted) {
            None => Self::Refusal(INVALID_ACCEPTED),
            Some(id) if is_used(&id) => Self::Refusal(REUSED_ACCEPTED),
            Some(id) => Self::Acceptance(id),
        }
    }
}

/// Checks the ids of turns. Gives the accepted ones with the ops that supplied them.
fn check_turns(view: &View<'_>, findings: &mut Findings) -> HashMap<String, At> {
    let mut accepted = HashMap::default();
    for (index, input) in view.inputs.iter().enumerate() {
        let (Some(wanted), Some(answer)) = (input.wanted_id, input.answers.first()) else {
            continue;
        };
        findings.exercised += 1;
        let due = ExpectedAnswer::of(wanted, |id| was_a_turn(view, id, input.at));
        match (due, answer.error) {
            (ExpectedAnswer::Refusal(clause), None) => {
                let fault = clause.with("role", "turn").with("id", wanted);
                findings.breach(view, fault, &[input.at, answer.at]);
            }
            (ExpectedAnswer::Refusal(_), Some(_)) => {
                if let Some(begun) = started_by(view, index) {
                    let fault = REFUSED_BUT_STARTED.with("role", "turn").with("id", wanted);
                    findings.breach(view, fault, &[input.at, answer.at, begun]);
                }
            }
            (ExpectedAnswer::Acceptance(id), None) => {
                check_name(view, "turn", wanted, &id, (input.at, answer), findings);
                accepted.insert(id, input.at);
            }
            (ExpectedAnswer::Acceptance(_), Some(_)) if joins(view, input, answer) => {}
            (ExpectedAnswer::Acceptance(_), Some(_)) => {
                let fault = FRESH_REFUSED.with("role", "turn").with("id", wanted);
                findings.breach(view, fault, &[input.at, answer.at]);
            }
        }
    }
    accepted
}

fn joins(view: &View<'_>, input: &Input<'_>, answer: &OpAnswer<'_>) -> bool {
    let began = |turn: &Turn<'_>| (input.at..answer.at).contains(&turn.begun);
    let met = input.active.is_some() || view.turns.iter().any(began);
    met && input.mode != InputMode::Replace
}

/// Whether the conversation had a turn with that id before an entry.
fn was_a_turn(view: &View<'_>, id: &str, at: At) -> bool {
    let mut earlier = view.turns.iter().filter(|turn| turn.begun < at);
    let lineage = lineage_at(view, at);
    earlier.any(|turn| turn.lineage == lineage && canonical(turn.id).as_deref() == Some(id))
}

fn lineage_at(view: &View<'_>, at: At) -> usize {
    let later = view.starts.iter().skip(1);
    later
        .filter(|start| start.at < at && !start.resumed)
        .count()
}

/// Where a turn began that an input started, or nothing else.
fn started_by(view: &View<'_>, index: usize) -> Option<At> {
    let at = view.inputs[index].at;
    let until = view.inputs.get(index + 1).map_or(At::MAX, |next| next.at);
    let mut turns = view.turns.iter();
    let found = turns.find(|turn| {
        let unexplained = turn.input.is_none() && (at..until).contains(&turn.begun);
        turn.input == Some(index) || unexplained
    });
    found.map(|turn| turn.begun)
}

fn check_name(
    view: &View<'_>,
    role: &str,
    wanted: &str,
    id: &str,
    (asked, answer): (At, &OpAnswer<'_>),
    findings: &mut Findings,
) {
    let named = if role == "turn" {
        answer.turn_id
    } else {
        answer.thread_id
    };
    if named != Some(id) {
        let named = named.unwrap_or("nothing");
        let fault = OTHER_NAME.with("role", role).with("id", wanted);
        let fault = fault.with("answered", named);
        findings.breach(view, fault, &[asked, answer.at]);
    }
}

/// Checks the ids of further conversations. A new process knows none of an earlier one's.
fn check_threads(view: &View<'_>, findings: &mut Findings) {
    let mut used: HashSet<(usize, String)> = HashSet::default();
    for open in &view.opens {
        let Some(answer) = open.answers.first() else {
            continue;
        };
        findings.exercised += 1;
        let session = view.starts.partition_point(|start| start.at < open.at);
        let wanted = open.wanted_id;
        let due = ExpectedAnswer::of(wanted, |id| used.contains(&(session, id.to_owned())));
        let clause = match (due, answer.error) {
            (ExpectedAnswer::Refusal(clause), None) => clause,
            (ExpectedAnswer::Acceptance(_), Some(_)) => FRESH_REFUSED,
            (ExpectedAnswer::Refusal(_), Some(_)) => continue,
            (ExpectedAnswer::Acceptance(id), None) => {
                check_name(view, "thread", wanted, &id, (open.at, answer), findings);
                used.insert((session, id));
                continue;
            }
        };
        let fault = clause.with("role", "thread").with("id", wanted);
        findings.breach(view, fault, &[open.at, answer.at]);
    }
}

/// Checks that every event spells an accepted id in the same way.
fn check_spellings(view: &View<'_>, accepted: &HashMap<String, At>, findings: &mut Findings) {
    if accepted.is_empty() {
        return;
    }
    let mut reported = BTreeSet::new();
    for (at, entry) in view.trace.entries.iter().enumerate() {
        let carried = match &entry.observation {
            Observation::Event { event, .. } => event.turn_id(),
            _ => None,
        };
        let Some(carried) = carried else {
            continue;
        };
        let known = canonical(carried).and_then(|id| accepted.get_key_value(&id));
        if let Some((id, asked)) = known
            && id != carried
            && reported.insert(carried)
        {
            let fault = OTHER_SPELLING
                .with("id", id.as_str())
                .with("spelling", carried);
            findings.breach(view, fault, &[*asked, at]);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Tracer, breaks, front_session, is_idle, keeps, verdict_of};
    use cutpoint_trace::verdict::Verdict;
    use cutpoint_trace::{ClientOp, Feature, InputMode};

    const ID: &str = "0193e0f4-5c2a-7e0b-9f7d-2f6a8c1b4d5e";
    const SHOUTED: &str = "{0193E0F4-5C2A-7E0B-9F7D-2F6A8C1B4D5E}";
    const BARE: &str = "0193e0f45c2a7e0b9f7d2f6a8c1b4d5e";

    fn open(t: &mut Tracer, id: &str) {
        let thread_id = id.to_owned();
        t.op(ClientOp::Open {
            thread_id: thread_id.into(),
        });
    }

    #[test]
    fn ids_that_are_kept_pass() {
        keeps("TURN-9", &front_session(), 5);
        let mut t = Tracer::new();
        t.named_input("hi", InputMode::Start, SHOUTED)
            .reply(Some(ID));
        t.started(ID).completed(ID);
        t.named_input("again", InputMode::Start, BARE).refuse();
        keeps("TURN-9", &t, 2);
    }

    /// What had been said before begins its turn as the request that names one is on its way.
    #[test]
    fn input_that_meets_a_turn_on_its_way_may_be_refused() {
        let mut t = Tracer::new();
        t.named_input("hi", InputMode::Start, ID)
            .started("t1")
            .refuse();
        keeps("TURN-9", &t, 1);
        let mut t = Tracer::new();
        t.named_input("hi", InputMode::Start, ID)
            .refuse()
            .started("t1");
        breaks("TURN-9/fresh-refused", &t);
    }

    #[test]
    fn a_text_that_is_no_uuid_is_refused() {
        let mut t = Tracer::new();
        t.named_input("hi", InputMode::Start, "seven")
            .reply(Some("seven"));
        breaks("TURN-9/invalid-accepted", &t);
        let mut t = Tracer::new();
        t.named_input("hi", InputMode::Start, "seven")
            .refuse()
            .started("x");
        breaks("TURN-9/refused-but-started", &t);
        let mut t = Tracer::new();
        open(&mut t, "seven");
        t.opened("seven");
        breaks("TURN-9", &t);
    }

    #[test]
    fn an_id_is_used_once_in_whatever_spelling() {
        let mut t = Tracer::new();
        t.start(ID, "one").completed(ID);
        t.named_input("two", InputMode::Start, BARE).reply(Some(ID));
        breaks("TURN-9/reused-accepted", &t);
        let mut t = Tracer::new();
        t.start(ID, "one").completed(ID).kill().resume();
        t.named_input("two", InputMode::Start, ID).reply(Some(ID));
        breaks("TURN-9/reused-accepted", &t);
        let mut t = Tracer::new();
        open(&mut t, SHOUTED);
        t.opened(ID);
        open(&mut t, BARE);
        t.opened(ID);
        breaks("TURN-9/reused-accepted", &t);
    }

    #[test]
    fn a_fresh_uuid_is_accepted() {
        let mut t = Tracer::new();
        t.named_input("hi", InputMode::Start, SHOUTED).refuse();
        breaks("TURN-9/fresh-refused", &t);
        let mut t = Tracer::new();
        open(&mut t, SHOUTED);
        t.refuse();
        breaks("TURN-9/fresh-refused", &t);
        let mut t = Tracer::new();
        t.start("t1", "hi")
            .named_input("joins", InputMode::Start, ID)
            .refuse();
        keeps("TURN-9", &t, 1);
        let mut t = Tracer::new();
        t.start("t1", "hi")
            .named_input("replaces", InputMode::Replace, ID)
            .refuse();
        breaks("TURN-9/fresh-refused", &t);
    }

    #[test]
    fn a_turn_is_called_by_one_name() {
        let mut t = Tracer::new();
        t.named_input("hi", InputMode::Start, BARE)
            .reply(Some(BARE));
        breaks("TURN-9/other-name", &t);
        let mut t = Tracer::new();
        t.named_input("hi", InputMode::Start, BARE).reply(Some(ID));
        t.started(ID).delta(ID, "hello").completed(BARE);
        breaks("TURN-9/other-spelling", &t);
    }

    #[test]
    fn nothing_is_asked_of_who_names_nothing() {
        let mut t = Tracer::new();
        is_idle("TURN-9", t.start("t1", "hi").completed("t1"));
        t.named_input("and now?", InputMode::Start, ID).kill();
        is_idle("TURN-9", &t);
        let t = t.without(Feature::CallerIds);
        assert!(matches!(
            verdict_of("TURN-9", &t),
            Verdict::NotApplicable { .. }
        ));
    }
}
