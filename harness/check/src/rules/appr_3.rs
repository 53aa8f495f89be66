//! APPR-3: a pending question gets no answer that the user did not give.

use serde_json::Value;

use crate::invariant::{Findings, Invariant};
use crate::view::{At, Call, Exchange, RecordedItem, Role, View};
use cutpoint_trace::verdict::{Clause, Fault, Level};
use cutpoint_trace::{ClientOp, Feature, Observation};

pub(super) struct PendingQuestionHasNoAnswer;

const ANSWER_LOST: Clause = Clause {
    kind: "answer-lost",
    text: "the output for question {call} in request {request} lacks the user's answer {answer:?}",
};
const CALLED_DECLINED: Clause = Clause {
    kind: "called-declined",
    text: "the output for question {call} in request {request} says that the user declined, \
           although the user gave no answer",
};
const INVENTED_ANSWER: Clause = Clause {
    kind: "invented-answer",
    text: "the output for question {call} in request {request} has answers that the user did not \
           give",
};
const NO_ABORT: Clause = Clause {
    kind: "no-abort",
    text: "the output for question {call} in request {request} neither is empty nor says that the \
           question was aborted",
};

/// Words with which an output says that there will be no answer.
const CUT: &[&str] = &["abort", "interrupt", "cancel"];
/// Words with which an output says that the user would not answer.
const DECLINED: &[&str] = &["declin", "reject", "refus", "denied", "did not want"];
/// An answer that is younger than this may not have been taken when the turn was cut.
const TAKEN_NS: u64 = 100_000_000;

impl Invariant for PendingQuestionHasNoAnswer {
    fn id(&self) -> &'static str {
        "APPR-3"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "A question to the user that is pending when its turn is aborted gets no answer: its \
         output is empty or says that it was aborted, and not that the user declined. An answer \
         that the user gave reaches the model."
    }

    fn source(&self) -> &'static str {
        "Codex's delegate and task lifecycle: a pending question resolves with empty answers"
    }

    fn needs(&self) -> &'static [Feature] {
        &[]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "An answer given less than 100 ms before the turn was cut may have come too late.",
            "So may an answer given within 100 ms before or after the failed response that made \
             the turn fail, even if the agent was killed before it could report the failure.",
            "An answer given after the cut is late and need not reach the model, even if the \
             agent was killed before it could report the cut.",
            "So is an answer given after a request to shut down: ops are taken in order.",
            "An answer whose output was not yet in the rollout when the agent died is lost with \
             the agent.",
            "A fork that was requested before the answer, or less than 100 ms after it, in the \
             middle of the turn, may have the question as cut off: the turn continues in the \
             session that was forked.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a request carries the output of a call that asked the user a question"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[ANSWER_LOST, CALLED_DECLINED, INVENTED_ANSWER, NO_ABORT]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        for call in &view.calls {
            let Some(asked) = call.questioned else {
                continue;
            };
            let Some((exchange, text)) = output(view, call, asked) else {
                continue;
            };
            findings.exercised += 1;
            let cut = call.turn.and_then(|turn| cut(view, turn));
            let number = exchange.number;
            let (fault, at) = match given(view, call, cut) {
                Some((given, answer)) => {
                    let young = cut.is_some_and(|cut| view.between_ns(given, cut) < TAKEN_NS);
                    let died = died_with_it(view, call, asked, exchange);
                    let failed = |turn| view.failed_around(turn, given).is_some();
                    let young = young || call.turn.is_some_and(failed);
                    let forked = forked_before_it_was_taken(view, call, given, exchange);
                    let late = shut_down_before(view, call, given);
                    let excused = young || died || forked || late;
                    let lost = !excused && !text.contains(&squeeze(answer));
                    (lost.then(|| ANSWER_LOST.with("answer", answer)), given)
                }
                None => (pending_fault(&text).map(Fault::from), cut.unwrap_or(asked)),
            };
            if let Some(fault) = fault {
                let fault = fault.with("request", number).with("call", call.id);
                findings.breach(view, fault, &[asked, at, exchange.at]);
            }
        }
        findings
    }
}

/// Where a turn was cut, even if the agent was killed before it could report that.
fn cut(view: &View<'_>, turn: usize) -> Option<At> {
    let killed = || view.stop_asked(turn, view.turns[turn].killed?);
    view.cut_at(turn).or_else(killed)
}

/// The first output of a call that a request carries, without white space.
fn output<'v, 'a>(
    view: &'v View<'a>,
    call: &Call<'_>,
    asked: At,
) -> Option<(&'v Exchange<'a>, String)> {
    let exchange = &view.exchanges[call.answered?];
    let place = exchange
        .roles
        .iter()
        .position(|role| *role == Role::Output(call.id))?;
    let text = match exchange.history.get(place)?.get("output")? {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    (exchange.at > asked).then(|| (exchange, squeeze(&text)))
}

/// Whether the session was resumed from a rollout that did not have the call's output.
fn died_with_it(view: &View<'_>, call: &Call<'_>, asked: At, exchange: &Exchange<'_>) -> bool {
    let mut resumed = view.resumptions.iter();
    let held = |held: &RecordedItem| matches!(held, RecordedItem::Output(id) if id == call.id);
    resumed.any(|it| (asked..exchange.at).contains(&it.at) && !it.held.iter().any(held))
}

/// Whether the session went on in a fork that was asked for right after the answer, or before it, in the
/// middle of the question's turn.
fn forked_before_it_was_taken(
    view: &View<'_>,
    call: &Call<'_>,
    given: At,
    exchange: &Exchange<'_>,
) -> bool {
    view.forks.iter().any(|fork| {
        let entered = fork.entered.is_some_and(|start| start < exchange.at);
        let of_turn = call.turn.is_some() && [fork.turn, fork.met].contains(&call.turn);
        let soon = given > fork.at || view.between_ns(given, fork.asked) < TAKEN_NS;
        entered && of_turn && soon
    })
}

/// Whether the session had been asked to shut down in the question's turn, before the answer.
fn shut_down_before(view: &View<'_>, call: &Call<'_>, given: At) -> bool {
    let begun = call.turn.map_or(given, |turn| view.turns[turn].begun);
    let between = view.trace.entries.get(begun..given).unwrap_or_default();
    between.iter().any(|entry| {
        let what = &entry.observation;
        matches!(
            what,
            Observation::Op {
                op: ClientOp::Shutdown,
                ..
            }
        )
    })
}

/// The answer that the user gave while the question was pending.
fn given<'a>(view: &View<'a>, call: &Call<'_>, cut: Option<At>) -> Option<(At, &'a str)> {
    let mut answers = view.answers.iter();
    let found = answers.find(|answer| answer.call_id == call.id)?;
    cut.is_none_or(|cut| found.at < cut)
        .then_some((found.at, found.text))
}

/// What is wrong with the output of a question that the user has not answered.
fn pending_fault(text: &str) -> Option<Clause> {
    let lower = text.to_lowercase();
    if DECLINED.iter().any(|word| lower.contains(&squeeze(word))) {
        return Some(CALLED_DECLINED);
    }
    let json: Option<Value> = serde_json::from_str(text).ok();
    let answers = json.as_ref().and_then(|json| json.get("answers"));
    let empty = match answers {
        Some(Value::Array(answers)) => Some(answers.is_empty()),
        Some(Value::Object(answers)) => Some(answers.is_empty()),
        _ => None,
    };
    match empty {
        Some(true) => None,
        Some(false) => Some(INVENTED_ANSWER),
        None if CUT.iter().any(|word| lower.contains(word)) => None,
        None => Some(NO_ABORT),
    }
}

/// Drops what differs between spellings.
fn squeeze(text: &str) -> String {
    text.chars()
        .filter(|letter| !letter.is_whitespace())
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Tracer, breaks, call, is_idle, keeps, output, user};
    use cutpoint_trace::{ClientOp, ReadTrigger, TurnEnd};

    fn asked() -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "run").request(1, &[user("run")]);
        t.emit(1, call("c1")).finish(1).question("t1", "c1");
        t
    }

    fn told(mut t: Tracer, text: &str) -> Tracer {
        let history = [user("run"), call("c1"), output("c1", text), user("next")];
        t.start("t2", "next").request(2, &history);
        t
    }

    fn interrupted(text: &str) -> Tracer {
        told(asked().interrupted("t1").clone(), text)
    }

    #[test]
    fn no_answer_is_what_a_pending_question_gets() {
        keeps("APPR-3", &interrupted(r#"{"answers": []}"#), 1);
        keeps(
            "APPR-3",
            &interrupted(r#"{"answers": {}, "status": "aborted"}"#),
            1,
        );
        keeps("APPR-3", &interrupted("interrupted by the user"), 1);
        is_idle("APPR-3", asked().interrupted("t1"));
    }

    #[test]
    fn an_answer_that_the_user_did_not_give_is_a_breach() {
        breaks(
            "APPR-3/invented-answer",
            &interrupted(r#"{"answers": ["yes"]}"#),
        );
        breaks("APPR-3/no-abort", &interrupted("yes"));
        let breach = breaks(
            "APPR-3/called-declined",
            &interrupted(r#"{"answers": [], "why": "The user declined"}"#),
        );
        assert!(breach.text().contains("declined"), "{}", breach.text());
    }

    #[test]
    fn a_given_answer_reaches_the_model() {
        let mut t = asked();
        t.reply_to("c1", "the blue one");
        let history = |text| [user("run"), call("c1"), output("c1", text)];
        keeps(
            "APPR-3",
            t.clone().request(2, &history(r#"["the blue one"]"#)),
            1,
        );
        breaks(
            "APPR-3/answer-lost",
            t.request(2, &history(r#"{"answers": []}"#)),
        );
    }

    #[test]
    fn a_fork_right_after_an_answer_or_before_it_may_lack_it() {
        let forked = |ms: u64, before: bool| {
            let mut t = asked();
            if before {
                t.op(ClientOp::Fork)
                    .forked("f.jsonl")
                    .wait_ms(ms)
                    .reply_to("c1", "blue");
            } else {
                t.reply_to("c1", "blue")
                    .wait_ms(ms)
                    .op(ClientOp::Fork)
                    .forked("f.jsonl");
            }
            t.kill().resume().set_file("").goes_on_in("f.jsonl");
            t.request(2, &[user("run"), call("c1"), output("c1", "aborted")]);
            t.read(ReadTrigger::Request { exchange: 2 });
            t
        };
        keeps("APPR-3", &forked(0, false), 1);
        breaks("APPR-3/answer-lost", &forked(500, false));
        keeps("APPR-3", &forked(500, true), 1);
    }

    #[test]
    fn an_answer_is_lost_with_an_agent_that_had_not_written_it_down() {
        let resumed = |written: bool| {
            let mut t = asked();
            t.wrote(&call("c1")).reply_to("c1", "blue");
            if written {
                t.wrote(&output("c1", r#"["blue"]"#));
            }
            t.kill().read(ReadTrigger::Exit).resume();
            t.request(2, &[user("run"), call("c1"), output("c1", "aborted")]);
            t
        };
        keeps("APPR-3", &resumed(false), 1);
        breaks("APPR-3/answer-lost", &resumed(true));
    }

    #[test]
    fn an_answer_after_an_interrupt_is_late_though_a_kill_cut_the_abort() {
        let killed = |interrupted: bool| {
            let mut t = asked();
            t.wrote(&call("c1"));
            if interrupted {
                t.interrupt();
            }
            t.wrote(&output("c1", "aborted")).reply_to("c1", "blue");
            t.kill().read(ReadTrigger::Exit).resume();
            t.request(2, &[user("run"), call("c1"), output("c1", "aborted")]);
            t
        };
        keeps("APPR-3", &killed(true), 1);
        breaks("APPR-3/answer-lost", &killed(false));
    }

    #[test]
    fn an_answer_may_come_too_late_for_a_turn_that_fails() {
        let failed = |response: &str, ms: u64| {
            let mut t = Tracer::new();
            t.start("t1", "run").request(1, &[user("run")]);
            t.emit(1, call("c1")).question("t1", "c1");
            t.sent(1, json!({"type": response})).wait_ms(ms);
            let message = "too long".to_owned();
            t.reply_to("c1", "blue")
                .ended(Some("t1"), TurnEnd::Failed { message });
            told(t, r#"{"answers": []}"#)
        };
        let killed = |response: &str, ms: u64| {
            let mut t = Tracer::new();
            t.start("t1", "run").request(1, &[user("run")]);
            t.emit(1, call("c1"))
                .wrote(&call("c1"))
                .question("t1", "c1");
            t.sent(1, json!({"type": response})).wait_ms(ms);
            t.reply_to("c1", "blue").wrote(&output("c1", "aborted"));
            t.kill().read(ReadTrigger::Exit).resume();
            told(t, "aborted")
        };
        keeps("APPR-3", &killed("response.incomplete", 10), 1);
        breaks("APPR-3/answer-lost", &killed("response.incomplete", 200));
        breaks("APPR-3/answer-lost", &killed("response.completed", 10));
        keeps("APPR-3", &failed("response.incomplete", 10), 1);
        breaks("APPR-3/answer-lost", &failed("response.incomplete", 200));
        breaks("APPR-3/answer-lost", &failed("response.completed", 10));
    }

    #[test]
    fn an_answer_after_a_shutdown_is_late() {
        let answered = |late: bool, told: &str| {
            let mut t = asked();
            if late {
                t.op(ClientOp::Shutdown).reply_to("c1", "blue");
            } else {
                t.reply_to("c1", "blue").wait_ms(200).op(ClientOp::Shutdown);
            }
            t.wrote(&output("c1", told))
                .kill()
                .read(ReadTrigger::Exit)
                .resume();
            t.request(2, &[user("run"), call("c1"), output("c1", told)]);
            t
        };
        keeps("APPR-3", &answered(true, r#"{"answers": []}"#), 1);
        keeps("APPR-3", &answered(true, r#"{"answers": ["blue"]}"#), 1);
        breaks("APPR-3/answer-lost", &answered(false, r#"{"answers": []}"#));
    }

    #[test]
    fn a_late_answer_has_no_addressee() {
        let mut t = asked();
        t.interrupt().reply_to("c1", "blue").aborted("t1");
        keeps("APPR-3", &told(t.clone(), "aborted"), 1);
        breaks(
            "APPR-3/invented-answer",
            &told(t, r#"{"answers": ["blue"]}"#),
        );
        let mut t = asked();
        t.reply_to("c1", "blue").interrupted("t1");
        keeps("APPR-3", &told(t.clone(), "aborted"), 1);
        keeps("APPR-3", &told(t, r#"{"answers": ["blue"]}"#), 1);
    }
}
