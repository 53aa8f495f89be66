//! CALL-6: what a cut-off tool had shown reaches the model.

use serde_json::Value;

use crate::invariant::{Findings, Invariant};
use crate::view::{At, Call, Exchange, Role, View};
use cutpoint_trace::verdict::{Clause, Level};
use cutpoint_trace::{Feature, TaskKind};

pub(super) struct PartialOutputIsKept;

const TOOL_OUTPUT_LOST: Clause = Clause {
    kind: "tool-output-lost",
    text: "request {request} lacks what call {call} printed before it was cut off: {line:?}",
};
const COMMAND_OUTPUT_LOST: Clause = Clause {
    kind: "command-output-lost",
    text: "request {request} lacks what the user's command ({call}) printed before it was cut \
           off: {line:?}",
};

/// Up to this many characters all lines of what was shown are looked for; of more than that an
/// agent may leave out the middle, or one end.
const SHORT_CHARS: usize = 1024;

impl Invariant for PartialOutputIsKept {
    fn id(&self) -> &'static str {
        "CALL-6"
    }

    fn level(&self) -> Level {
        Level::Should
    }

    fn sentence(&self) -> &'static str {
        "What a tool printed, and the client was shown, before its turn was cut is in the output \
         that the model gets."
    }

    fn source(&self) -> &'static str {
        "openai/codex #35735 (the partial output of an interrupted command lost to the model)"
    }

    fn needs(&self) -> &'static [Feature] {
        &[Feature::CallEvents]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "Output shown after the interrupt need not reach the model: the agent may already \
             have collected the output.",
            "The output of a command that the user ran may be gone once the history was \
             compacted, its turn was rolled back, or the rollout was torn.",
            "For output longer than 1024 characters the first or the last line is enough: agents \
             shorten what they send.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a request answers a call that printed something before its turn was cut, or follows a \
         command of the user that did"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[TOOL_OUTPUT_LOST, COMMAND_OUTPUT_LOST]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let mut findings = Findings::default();
        for call in &view.calls {
            let Some((shown, last, exchange)) = cut(view, call) else {
                continue;
            };
            findings.exercised += 1;
            if let Some(line) = missing(&shown, &output_text(exchange, call)) {
                let clause = match call.emitted.is_empty() {
                    true => COMMAND_OUTPUT_LOST,
                    false => TOOL_OUTPUT_LOST,
                };
                let fault = clause.with("request", exchange.number);
                let fault = fault.with("call", call.id).with("line", line);
                findings.breach(view, fault, &[last, exchange.at]);
            }
        }
        findings
    }
}

/// What a call had shown when it was cut off, the last event that showed it, and the request that
/// answers the call.
fn cut<'v, 'a>(view: &'v View<'a>, call: &Call<'a>) -> Option<(String, At, &'v Exchange<'a>)> {
    let turn = call.turn?;
    let cut = view.cut_at(turn)?;
    let ended = view.turns[turn].ending()?.at;
    let exchange = match is_users(view, call) {
        true => after_command(view, ended)?,
        false => &view.exchanges[call.answered?],
    };
    let running = call.begun.is_some_and(|begun| begun < cut) && !call.ended_before(cut);
    // An output that went to the model before is that of a tool which runs on in the background.
    if !running || exchange.at < ended {
        return None;
    }
    let pieces = call.shown.iter().take_while(|(at, _)| *at < cut);
    let shown: String = pieces.clone().map(|(_, text)| *text).collect();
    let last = pieces.last()?.0;
    (!shown.trim().is_empty()).then_some((shown, last, exchange))
}

/// Whether the call is a command that the user ran, and no call of the model's.
fn is_users(view: &View<'_>, call: &Call<'_>) -> bool {
    let input = call.turn.and_then(|turn| view.turns[turn].input);
    let task = input.and_then(|input| view.inputs[input].task);
    call.emitted.is_empty() && task == Some(TaskKind::Shell)
}

/// The request that must report a command that was cut off.
fn after_command<'v, 'a>(view: &'v View<'a>, ended: At) -> Option<&'v Exchange<'a>> {
    let next = view.request_after(ended)?;
    let over = next.over().unwrap_or(next.at + 2) + 1;
    let gone = next.has_compaction() || view.gone_between(ended, over);
    (!gone).then_some(next)
}

/// Every text of a call's output in a request, or every note that may report a user's command,
/// without what spellings differ in.
fn output_text(exchange: &Exchange<'_>, call: &Call<'_>) -> String {
    let mut text = String::new();
    for (item, role) in exchange.history.iter().zip(&exchange.roles) {
        let field = match role {
            Role::Output(id) if *id == call.id => "output",
            Role::User(None) if call.emitted.is_empty() => "content",
            _ => continue,
        };
        collect(item.get(field).unwrap_or(&Value::Null), &mut text);
    }
    text
}

/// Collects the texts of a value, and of the JSON that a text may be.
fn collect(value: &Value, into: &mut String) {
    match value {
        Value::String(text) => {
            into.push_str(&squeeze(text));
            if let Ok(inner @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str(text) {
                collect(&inner, into);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, into)),
        Value::Object(fields) => fields.values().for_each(|value| collect(value, into)),
        _ => {}
    }
}

/// A line of what was shown that the output lacks.
fn missing<'s>(shown: &'s str, output: &str) -> Option<&'s str> {
    let has = |line: &&str| output.contains(&squeeze(line));
    let mut lines = shown.lines().filter(|line| !squeeze(line).is_empty());
    if shown.chars().count() <= SHORT_CHARS {
        return lines.find(|line| !has(line));
    }
    let (first, last) = (lines.next()?, lines.next_back());
    let kept = has(&first) || last.is_some_and(|last| has(&last));
    (!kept).then_some(first)
}

fn squeeze(text: &str) -> String {
    let printed = |letter: &char| !letter.is_whitespace() && !letter.is_control();
    text.chars().filter(printed).collect()
}

#[cfg(test)]
mod tests {
    use crate::testing::{Tracer, breaks, call, interrupted_tool, is_idle, keeps, output, user};
    use cutpoint_trace::TaskKind;

    /// A call that prints before and after the interrupt, and the output that the model gets.
    fn printed(before: &str, after: &str, told: &str) -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "run").request(1, &[user("run")]);
        t.emit(1, call("c1")).finish(1).begin("t1", "c1");
        t.printed("t1", "c1", before).interrupt();
        t.printed("t1", "c1", after)
            .aborted("t1")
            .start("t2", "next");
        t.request(
            2,
            &[user("run"), call("c1"), output("c1", told), user("next")],
        );
        t
    }

    #[test]
    fn output_that_is_sent_passes() {
        let told = "{\"output\":\"first \\\"light\\\"\\n\",\"status\":\"aborted\"}";
        keeps("CALL-6", &printed("first \"light\"\n", "late", told), 1);
        keeps(
            "CALL-6",
            &printed("one\r\ntwo\r\n", "", "one\ntwo\naborted"),
            1,
        );
        is_idle("CALL-6", &printed("\n", "late", "aborted"));
        is_idle("CALL-6", &interrupted_tool());
    }

    #[test]
    fn lost_output_is_a_breach() {
        let breach = breaks(
            "CALL-6/tool-output-lost",
            &printed("first light\n", "", "aborted by the user"),
        );
        assert!(
            breach.text().ends_with("\"first light\""),
            "{}",
            breach.text()
        );
    }

    #[test]
    fn a_lost_line_is_a_breach() {
        breaks(
            "CALL-6/tool-output-lost",
            &printed("one\ntwo\n", "", "aborted\none"),
        );
    }

    #[test]
    fn long_output_may_be_shortened() {
        let long: String = (0..400).map(|number| format!("line {number}\n")).collect();
        keeps("CALL-6", &printed(&long, "", "aborted; … line 399"), 1);
        breaks(
            "CALL-6/tool-output-lost",
            &printed(&long, "", "aborted; line 200"),
        );
    }

    #[test]
    fn a_command_of_the_user_is_reported_in_a_message() {
        let command = |told: &str| {
            let mut t = Tracer::new();
            t.task(TaskKind::Shell, "make")
                .reply(Some("t1"))
                .started("t1");
            t.begin("t1", "user-shell-1")
                .printed("t1", "user-shell-1", "cc main.c\n");
            t.interrupted("t1").start("t2", "next");
            t.request(1, &[user(told), user("next")]);
            t
        };
        keeps(
            "CALL-6",
            &command("<user_shell_command>make: cc main.c</user_shell_command>"),
            1,
        );
        let breach = breaks(
            "CALL-6/command-output-lost",
            &command("<user_shell_command>make</user_shell_command>"),
        );
        assert!(breach.text().contains("the user's command"));
        breaks(
            "REQ-5/input-lost",
            &command("<user_shell_command>cc main.c</user_shell_command>"),
        );
    }

    #[test]
    fn a_tool_that_had_ended_was_not_cut() {
        let mut t = Tracer::new();
        t.start("t1", "run").request(1, &[user("run")]);
        t.emit(1, call("c1")).finish(1).begin("t1", "c1");
        t.printed("t1", "c1", "x")
            .end("t1", "c1", Some(0))
            .interrupted("t1");
        t.start("t2", "next")
            .request(2, &[call("c1"), output("c1", "")]);
        is_idle("CALL-6", &t);
    }
}
