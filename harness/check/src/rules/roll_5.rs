//! ROLL-5: what is sent to the model is in the rollout first.

use std::borrow::Cow;

use crate::fast_hash::{HashMap, HashSet};
use crate::invariant::{Findings, Invariant};
use crate::view::{At, Change, Exchange, RecordedItem, Role, RolloutFile, View};
use cutpoint_trace::verdict::{Clause, Fault, Level};
use cutpoint_trace::{Feature, ReadTrigger};

pub(super) struct RecordedBeforeSent;

const CALL_NOT_RECORDED: Clause = Clause {
    kind: "call-not-recorded",
    text: "request {request} carries call {call}, which the rollout did not have yet when it \
           arrived",
};
const OUTPUT_NOT_RECORDED: Clause = Clause {
    kind: "output-not-recorded",
    text: "request {request} carries the output of call {call}, which the rollout did not have \
           yet when it arrived",
};
const INPUT_NOT_RECORDED: Clause = Clause {
    kind: "input-not-recorded",
    text: "request {request} carries the input {text:?}, which the rollout did not have yet when \
           it arrived",
};
const MESSAGE_NOT_RECORDED: Clause = Clause {
    kind: "message-not-recorded",
    text: "request {request} carries the message {text:?}, which the rollout did not have yet \
           when it arrived",
};

impl Invariant for RecordedBeforeSent {
    fn id(&self) -> &'static str {
        "ROLL-5"
    }

    fn level(&self) -> Level {
        Level::Should
    }

    fn sentence(&self) -> &'static str {
        "A user's input, a call, an output or a message of the model is in the rollout before \
         the first request that carries it."
    }

    fn source(&self) -> &'static str {
        "openai/codex #40805, #34599 (input accepted and never persisted)"
    }

    fn needs(&self) -> &'static [Feature] {
        &[Feature::Rollout]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "An item that was written between the request and the harness's read of the file \
             passes: the read cannot distinguish the two.",
            "Instructions and the description of the environment are not judged: an agent can \
             create them anew.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a request arrives with items that no earlier request carried, and the rollout is read"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[
            CALL_NOT_RECORDED,
            OUTPUT_NOT_RECORDED,
            INPUT_NOT_RECORDED,
            MESSAGE_NOT_RECORDED,
        ]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        let reads = reads(view);
        let mut known: HashSet<RecordedItem> = HashSet::default();
        let mut lines = RecordedItems::new(view);
        for exchange in view
            .exchanges
            .iter()
            .filter(|exchange| exchange.is_the_users())
        {
            let new: Vec<RecordedItem> = carried(view, exchange)
                .filter(|item| known.insert(item.clone()))
                .collect();
            let Some(read) = reads.get(&exchange.number).filter(|_| !new.is_empty()) else {
                continue;
            };
            findings.exercised += 1;
            lines.take(view, *read);
            let missing = new.iter().find(|item| !lines.has(item));
            if let Some(item) = missing {
                let fault = not_recorded(item).with("request", exchange.number);
                findings.breach(view, fault, &[exchange.at, *read]);
            }
        }
        findings
    }
}

/// The read after each request, by the request's number. A file that could not be read had nothing.
fn reads(view: &View<'_>) -> HashMap<usize, At> {
    let read = view
        .rollouts
        .iter()
        .flat_map(|file| &file.reads)
        .map(|read| (read.at, read.trigger));
    let unreadable = view.unreadable.iter().map(|read| (read.at, read.trigger));
    let of_request = |(at, trigger): (At, &ReadTrigger)| match trigger {
        ReadTrigger::Request { exchange } => Some((*exchange, at)),
        _ => None,
    };
    read.chain(unreadable).filter_map(of_request).collect()
}

/// What a request carries that a rollout has to hold, after what it has in common with the request
/// before it: histories repeat, and what was there before was looked at then.
fn carried<'v>(
    view: &'v View<'_>,
    exchange: &'v Exchange<'_>,
) -> impl Iterator<Item = RecordedItem> + 'v {
    let previous = exchange.previous.map(|index| &view.exchanges[index]);
    let known = previous
        .filter(|previous| previous.is_the_users())
        .map_or(&[][..], |it| &it.history);
    let pairs = known.iter().zip(&exchange.history);
    let same = pairs.take_while(|(one, other)| one == other).count();
    let text = |place: usize| exchange.text(place).map(Cow::into_owned);
    let places = exchange.roles.iter().enumerate().skip(same);
    places.filter_map(move |(place, role)| match role {
        Role::Call(id, _) => Some(RecordedItem::Call((*id).to_owned())),
        Role::Output(id) => Some(RecordedItem::Output((*id).to_owned())),
        Role::User(Some(_)) => text(place).map(RecordedItem::User),
        Role::Assistant => text(place).map(RecordedItem::Assistant),
        _ => None,
    })
}

/// The items in the rollouts' lines, as far as they have been read.
struct RecordedItems {
    held: HashSet<RecordedItem>,
    /// For each file, how many of its lines were taken.
    taken: Vec<usize>,
    /// For each file, whether earlier lines stayed as they were: looked at once, as there are about as
    /// many reads as requests.
    stayed: Vec<bool>,
}

impl RecordedItems {
    fn new(view: &View<'_>) -> Self {
        Self {
            held: HashSet::default(),
            taken: vec![0; view.rollouts.len()],
            stayed: view.rollouts.iter().map(stayed).collect(),
        }
    }

    /// Takes the lines that reads up to an entry have shown; all, where earlier ones did not stay.
    fn take(&mut self, view: &View<'_>, at: At) {
        for (index, file) in view.rollouts.iter().enumerate() {
            let torn = file.torn.iter().filter(|line| line.read_at <= at);
            self.held.extend(torn.filter_map(|line| line.held.clone()));
            let shown = match self.stayed[index] {
                true => shown(file, at),
                false => file.lines.len(),
            };
            let taken = &mut self.taken[index];
            for line in file.lines.get(*taken..shown).unwrap_or_default() {
                self.held.extend(line.held.clone());
            }
            *taken = shown.max(*taken);
        }
    }

    fn has(&self, item: &RecordedItem) -> bool {
        self.held.contains(item)
    }
}

/// Whether a file has only grown.
fn stayed(file: &RolloutFile<'_>) -> bool {
    let moved = |change: Change| {
        matches!(
            change,
            Change::Rewritten { .. } | Change::Gap { .. } | Change::Outside
        )
    };
    !file.reads.iter().any(|read| moved(read.change))
}

/// How many of a file's lines had been read by then.
fn shown(file: &RolloutFile<'_>, at: At) -> usize {
    let next = file.reads.partition_point(|read| read.at <= at);
    next.checked_sub(1).map_or(0, |last| file.reads[last].lines)
}

fn not_recorded(item: &RecordedItem) -> Fault {
    let start = |text: &str| text.chars().take(40).collect::<String>();
    match item {
        RecordedItem::Call(id) => CALL_NOT_RECORDED.with("call", id.as_str()),
        RecordedItem::Output(id) => OUTPUT_NOT_RECORDED.with("call", id.as_str()),
        RecordedItem::User(text) => INPUT_NOT_RECORDED.with("text", start(text)),
        RecordedItem::Assistant(text) => MESSAGE_NOT_RECORDED.with("text", start(text)),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{ROLLOUT, Tracer, assistant, breaks, call, is_idle, keeps, output, user};
    use cutpoint_trace::{Observation, ReadTrigger};
    use serde_json::Value;

    fn asked(recorded: bool) -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "run");
        if recorded {
            t.wrote(&user("run"));
        }
        t.request(1, &[user("env"), user("run")]);
        t.read(ReadTrigger::Request { exchange: 1 });
        t
    }

    #[test]
    fn what_is_recorded_first_passes() {
        let mut t = asked(true);
        t.emit(1, call("c1")).finish(1).wrote(&call("c1"));
        t.wrote(&output("c1", "x")).wrote(&assistant("Hm."));
        t.request(
            2,
            &[user("run"), call("c1"), output("c1", "x"), assistant("Hm.")],
        );
        keeps("ROLL-5", t.read(ReadTrigger::Request { exchange: 2 }), 2);
    }

    #[test]
    fn input_that_is_not_recorded_is_a_breach() {
        breaks("ROLL-5/input-not-recorded", &asked(false));
    }

    #[test]
    fn an_output_that_is_recorded_later_is_a_breach() {
        let mut t = asked(true);
        t.emit(1, call("c1")).finish(1).wrote(&call("c1"));
        t.request(2, &[user("run"), call("c1"), output("c1", "x")]);
        t.read(ReadTrigger::Request { exchange: 2 });
        t.wrote(&output("c1", "x")).read(ReadTrigger::End);
        assert!(
            breaks("ROLL-5/output-not-recorded", &t)
                .text()
                .contains("the output of call c1")
        );
    }

    #[test]
    fn what_the_model_sent_is_recorded_before_it_is_sent_back() {
        let sent = |history: &[Value]| {
            let mut t = asked(true);
            t.finish(1).request(2, history);
            t.read(ReadTrigger::Request { exchange: 2 });
            t
        };
        let called = sent(&[user("run"), call("c1"), output("c1", "x")]);
        breaks("ROLL-5/call-not-recorded", &called);
        let said = sent(&[user("run"), assistant("Hm.")]);
        breaks("ROLL-5/message-not-recorded", &said);
    }

    #[test]
    fn a_file_that_is_not_there_is_a_breach() {
        let mut t = Tracer::new();
        t.start("t1", "run").request(1, &[user("run")]);
        t.push(Observation::RolloutUnreadable {
            trigger: ReadTrigger::Request { exchange: 1 },
            path: ROLLOUT.into(),
            error: "no such file".into(),
        });
        breaks("ROLL-5/input-not-recorded", &t);
    }

    #[test]
    fn without_a_read_there_is_no_telling() {
        let mut t = Tracer::new();
        is_idle("ROLL-5", t.start("t1", "run").request(1, &[user("run")]));
    }
}
