//! CALL-3: the output of a call that was cut off says so.

use serde_json::Value;

use crate::fast_hash::{HashMap, HashSet};
use crate::invariant::{Findings, Invariant};
use crate::view::{At, Call, Role, Turn, View};
use cutpoint_trace::Feature;
use cutpoint_trace::verdict::{Clause, Fault, Level};

pub(super) struct CutCallsSaySo;

const CLAIMS_COMPLETION: Clause = Clause {
    kind: "claims-completion",
    text: "request {request} claims that call {call} completed ({claim}), but its turn was \
           aborted before it did",
};
const SILENT_CUT: Clause = Clause {
    kind: "silent-cut",
    text: "request {request} does not say that call {call} was cut off: its output is {output:?}",
};

/// Words of which an output must have one to say that its call was cut off.
const CUT: &[&str] = &["abort", "interrupt", "cancel", "terminated", "killed"];
/// What an output says that claims success, without quotes and white space.
const CLAIMS: &[&str] = &[
    "exitcode:0",
    "exit_code:0",
    "completedsuccessfully",
    "success:true",
];

/// A call that an abort cut off.
struct CutCall<'v, 'a> {
    call: &'v Call<'a>,
    /// Whether its tool had begun.
    begun: Option<At>,
    /// The event that aborted its turn.
    aborted: At,
}

impl Invariant for CutCallsSaySo {
    fn id(&self) -> &'static str {
        "CALL-3"
    }

    fn level(&self) -> Level {
        Level::Must
    }

    fn sentence(&self) -> &'static str {
        "The output of a call that was cut off says that it was aborted, interrupted or cancelled, \
         and never that the tool completed."
    }

    fn source(&self) -> &'static str {
        "observed in released agents: a killed tool reported to the model as completed"
    }

    fn needs(&self) -> &'static [Feature] {
        &[Feature::CallEvents]
    }

    fn legal_races(&self) -> &'static [&'static str] {
        &[
            "If the agent reports the exit code of a call whose turn was aborted, the tool \
             finished as the interrupt arrived, and its output may say either.",
            "A call that never began may have any output that does not claim completion: there \
             was nothing to cut off.",
        ]
    }

    fn exercised_when(&self) -> &'static str {
        "a request after an abort carries the output of a call that was cut off or never began"
    }

    fn clauses(&self) -> &'static [Clause] {
        &[CLAIMS_COMPLETION, SILENT_CUT]
    }

    fn check(&self, view: &View<'_>) -> Findings {
        let cuts: HashMap<&str, CutCall<'_, '_>> = view
            .calls
            .iter()
            .filter_map(|call| cut(view, call).map(|cut| (call.id, cut)))
            .collect();
        let mut findings = Findings::default();
        if cuts.is_empty() {
            return findings;
        }
        let mut reported = HashSet::default();
        for exchange in &view.exchanges {
            for (item, role) in exchange.history.iter().zip(&exchange.roles) {
                let Role::Output(id) = role else {
                    continue;
                };
                let Some(cut) = cuts.get(id).filter(|cut| cut.aborted < exchange.at) else {
                    continue;
                };
                findings.exercised += 1;
                if let Some(fault) = fault(item, cut)
                    && reported.insert(*id)
                {
                    let fault = fault.with("request", exchange.number).with("call", *id);
                    let begun = cut.begun.unwrap_or(cut.aborted);
                    findings.breach(view, fault, &[begun, cut.aborted, exchange.at]);
                }
            }
        }
        findings
    }
}

fn cut<'v, 'a>(view: &'v View<'a>, call: &'v Call<'a>) -> Option<CutCall<'v, 'a>> {
    let turn: &Turn<'_> = view.turns.get(call.turn?)?;
    let ending = turn.ending().filter(|ending| ending.aborted())?;
    let seen = call.begun.or(call.added);
    let seen = seen.or(call.emitted.first().map(|emitted| emitted.at))?;
    let finished = call.endings.iter().any(|ending| ending.exit_code.is_some());
    // An output that went to the model before anybody stopped anything is no cut one: the tool
    // may well run on in the background.
    let interrupt = turn
        .interrupts
        .first()
        .map(|first| view.interrupts[*first].at);
    let stopped = interrupt.unwrap_or(ending.at).min(ending.at);
    let answered = (call.answered).is_some_and(|first| view.exchanges[first].at < stopped);
    (seen < ending.at && !finished && !answered).then_some(CutCall {
        call,
        begun: call.begun.filter(|begun| *begun < ending.at),
        aborted: ending.at,
    })
}

fn fault(output: &Value, cut: &CutCall<'_, '_>) -> Option<Fault> {
    let text = match output.get("output") {
        Some(Value::String(text)) => text.to_lowercase(),
        Some(other) => other.to_string().to_lowercase(),
        None => String::new(),
    };
    if let Some(claim) = claim(&text, cut.call) {
        return Some(CLAIMS_COMPLETION.with("claim", claim));
    }
    let silent = !CUT.iter().any(|word| text.contains(word));
    (silent && cut.begun.is_some()).then(|| SILENT_CUT.with("output", shorten(&text)))
}

/// The claim of completion in an output, if it has one that the tool itself did not print.
fn claim(text: &str, call: &Call<'_>) -> Option<&'static str> {
    let text = squeeze(text);
    let printed = || {
        let ended = call.endings.iter().map(|ending| ending.output);
        let printed: String = call
            .shown
            .iter()
            .map(|(_, text)| *text)
            .chain(ended)
            .collect();
        squeeze(&printed.to_lowercase())
    };
    CLAIMS
        .iter()
        .find(|claim| claims(&text, claim) && !claims(&printed(), claim))
        .copied()
}

fn claims(text: &str, claim: &str) -> bool {
    let digit = |rest: &str| rest.starts_with(|next: char| next.is_ascii_digit() || next == '.');
    text.match_indices(claim)
        .any(|(at, _)| !claim.ends_with('0') || !digit(&text[at + claim.len()..]))
}

/// Drops what differs between spellings of a claim: quotes, escapes, white space.
fn squeeze(text: &str) -> String {
    text.chars()
        .filter(|letter| !matches!(letter, '"' | '\'' | '\\') && !letter.is_whitespace())
        .collect()
}

fn shorten(text: &str) -> String {
    const LIMIT_CHARS: usize = 80;
    match text.char_indices().nth(LIMIT_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Tracer, breaks, call, interrupted_tool, is_idle, keeps, output, user};
    use cutpoint_trace::AgentEvent;

    /// A call, begun and ended as given, whose turn is interrupted; the next request has this output.
    fn cut_call(begun: bool, exit_code: Option<Option<i32>>, text: &str) -> Tracer {
        let mut t = Tracer::new();
        t.start("t1", "run").request(1, &[user("run")]);
        t.emit(1, call("c1")).finish(1);
        if begun {
            t.begin("t1", "c1");
        }
        t.event(AgentEvent::CallOutput {
            turn_id: Some("t1".into()),
            call_id: "c1".into(),
            chunk: "step 1 completed successfully".into(),
        });
        t.interrupt();
        if let Some(exit_code) = exit_code {
            t.end("t1", "c1", exit_code);
        }
        t.aborted("t1").start("t2", "next");
        t.request(
            2,
            &[user("run"), call("c1"), output("c1", text), user("next")],
        );
        t
    }

    #[test]
    fn an_output_that_says_so_passes() {
        keeps("CALL-3", &interrupted_tool(), 1);
        keeps(
            "CALL-3",
            &cut_call(true, None, "Interrupted by the user"),
            1,
        );
        let printed = "step 1 completed successfully\ncommand was killed";
        keeps("CALL-3", &cut_call(true, None, printed), 1);
        keeps("CALL-3", &cut_call(false, None, ""), 1);
    }

    #[test]
    fn a_claim_of_completion_is_a_breach() {
        for claim in [
            "aborted. Exit code: 0",
            "{\"output\":\"\",\"metadata\":{\"exit_code\": 0}}",
            "success: true",
        ] {
            for begun in [true, false] {
                let breach = breaks("CALL-3/claims-completion", &cut_call(begun, None, claim));
                assert!(breach.text().contains("claims"), "{claim}");
            }
        }
        keeps("CALL-3", &cut_call(true, None, "killed, exit code: 09"), 1);
    }

    #[test]
    fn silence_about_the_cut_is_a_breach() {
        for exit_code in [None, Some(None)] {
            let breach = breaks(
                "CALL-3/silent-cut",
                &cut_call(true, exit_code, "half a line"),
            );
            assert!(breach.text().contains("does not say"));
        }
    }

    #[test]
    fn a_tool_that_finished_in_time_may_say_so() {
        is_idle("CALL-3", &cut_call(true, Some(Some(0)), "Exit code: 0"));
    }

    #[test]
    fn a_call_answered_before_the_interrupt_was_not_cut() {
        let mut t = Tracer::new();
        t.start("t1", "run").request(1, &[user("run")]);
        t.emit(1, call("c1")).finish(1).begin("t1", "c1");
        let history = [
            user("run"),
            call("c1"),
            output("c1", "runs in the background"),
        ];
        t.request(2, &history).interrupted("t1");
        t.start("t2", "next").request(3, &history);
        is_idle("CALL-3", &t);
    }
}
