//! Cases to report.

use std::collections::{BTreeMap, BTreeSet};

use cutpoint_report::Context;
use cutpoint_trace::case::{CaseResult, CaseStatus, UnmetExpectation};
use cutpoint_trace::verdict::{Breach, Clause, Level, RuleVerdict, Verdict};
use cutpoint_trace::{
    ABORT_BOUND_MS, AbortReason, AgentEvent, AgentInfo, ClientOp, Entry, FORMAT, Feature, Header,
    InputMode, Observation, Process, RawMessage, ReadTrigger, ShownLine, Trace, TurnEnd, VERSION,
};
use serde_json::{Value, json};

/// The sentences of the rules that the samples know.
pub(crate) fn sentence(rule: &str) -> Option<&'static str> {
    match rule {
        "CALL-1" => Some(
            "Each call in a request's history has exactly one output with its call_id, of the kind that answers it.",
        ),
        "MARK-2" => Some(
            "The marker is on stable storage before the event that tells of the abort was written.",
        ),
        "PROC-1" => Some("Foreground tools of an aborted turn are gone within 2 s of its end."),
        _ => None,
    }
}

pub(crate) fn context(strict: bool) -> Context {
    Context { strict, sentence }
}

pub(crate) fn agent() -> AgentInfo {
    AgentInfo {
        name: "codex".into(),
        version: "0.169.0".into(),
        driver: "app-server-v2".into(),
        features: BTreeSet::from([Feature::Rollout, Feature::Marker]),
        defects: vec![],
    }
}

pub(crate) fn verdict(rule: &str, level: Level, outcome: Verdict) -> RuleVerdict {
    RuleVerdict {
        rule: rule.into(),
        level,
        verdict: outcome,
        waived: None,
    }
}

pub(crate) fn fail(message: &str, evidence: &[u64]) -> Verdict {
    Verdict::Fail {
        exercised: 2,
        breaches: vec![breach_of(message, evidence.to_vec())],
    }
}

pub(crate) fn breach_of(message: &str, evidence: Vec<u64>) -> Breach {
    let clause = Clause {
        kind: "sample",
        text: "{message}",
    };
    clause.with("message", message).shown_by(evidence)
}

fn user(text: &str) -> Value {
    json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]})
}

fn step(number: usize, line: usize, text: &str) -> Observation {
    Observation::Step {
        number,
        line,
        text: text.into(),
    }
}

fn op(id: &str, op: ClientOp) -> Observation {
    Observation::Op { id: id.into(), op }
}

fn event(event: AgentEvent) -> Observation {
    Observation::Event {
        event,
        raw: RawMessage::default(),
    }
}

fn input(text: &str) -> ClientOp {
    let mode = InputMode::Start;
    ClientOp::Input {
        text: text.into(),
        mode,
        turn_id: None,
    }
}

fn request(exchange: usize, input: &[Value]) -> Observation {
    Observation::Request {
        exchange,
        conversation: 0,
        path: "/responses".into(),
        headers: BTreeMap::new(),
        body: json!({"model": "m", "input": input}).into(),
        history: None,
    }
}

/// A run in which a call is interrupted and never answered.
pub(crate) fn observations() -> Vec<Observation> {
    let turn = || Some("turn-1".into());
    let call = json!({
        "type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "shell",
        "arguments": "{\"command\":[\"bash\",\"-c\",\"sleep 60\"]}", "status": "completed",
    });
    let added = json!({
        "type": "response.output_item.done", "sequence_number": 4, "output_index": 0, "item": call,
    });
    let begin = AgentEvent::CallBegin {
        turn_id: turn(),
        call_id: "call_1".into(),
        command: "bash -c 'sleep 60'".into(),
        pid: Some(4711),
    };
    let end = TurnEnd::Aborted {
        reason: Some(AbortReason::Interrupted),
    };
    let marker = "<turn_aborted>\nThe user interrupted.\n</turn_aborted>";
    let rollout = Observation::Rollout {
        trigger: ReadTrigger::TurnEnded { turn_id: turn() },
        path: "/home/user/.codex/sessions/rollout-1.jsonl".into(),
        from: 812,
        text: "{\"type\":\"response_item\"}\n{\"type\":\"event_msg\",\"payload\":{\"type\":\"turn_aborted\"}}\n".into(),
    };
    vec![
        step(1, 7, "user \"run it\""),
        op("1", input("run it")),
        event(AgentEvent::TurnStarted {
            turn_id: "turn-1".into(),
        }),
        request(1, &[user("run it")]),
        Observation::Sent {
            exchange: 1,
            index: 5,
            data: added.into(),
        },
        event(begin),
        Observation::Reached {
            point: "call_1 running".into(),
        },
        step(2, 8, "interrupt at=\"call_1 running\""),
        op("2", ClientOp::Interrupt { turn_id: turn() }),
        event(AgentEvent::TurnEnded {
            turn_id: turn(),
            end,
        }),
        rollout,
        step(3, 10, "user \"and now?\""),
        op("3", input("and now?")),
        request(2, &[user("run it"), call, user(marker), user("and now?")]),
        Observation::Processes {
            alive: vec![Process {
                pid: 4711,
                ppid: 1,
                command: "sleep 60".into(),
            }],
            at_end: true,
        },
    ]
}

fn trace() -> Trace {
    trace_of(observations())
}

fn trace_of(observations: Vec<Observation>) -> Trace {
    let entry = |(at, what)| Entry {
        seq: at as u64,
        at_ns: 1_250_000 * at as u64 * at as u64,
        observation: what,
    };
    Trace {
        header: Header {
            format: FORMAT.into(),
            version: VERSION,
            scenario: "interrupt while a tool runs".into(),
            file: None,
            agent: agent(),
            seed: 42,
            abort_bound_ms: ABORT_BOUND_MS,
            waived: vec![],
        },
        entries: observations.into_iter().enumerate().map(entry).collect(),
    }
}

/// A case that conforms.
pub(crate) fn pass() -> CaseResult {
    let kept = |rule: &str, level| verdict(rule, level, Verdict::Pass { exercised: 3 });
    CaseResult {
        number: 1,
        scenario: "interrupt while a tool runs".into(),
        file: "scenarios/tools/tool-running.kdl".into(),
        line: 2,
        about: None,
        agent: agent(),
        verdicts: vec![
            kept("CALL-1", Level::Must),
            kept("TURN-1", Level::Must),
            kept("MARK-2", Level::Should),
            kept("PROC-1", Level::Must),
            verdict("APPR-1", Level::Must, Verdict::NotExercised),
            verdict(
                "SUB-1",
                Level::Must,
                Verdict::NotApplicable {
                    why: "the agent has no sub-agents".into(),
                },
            ),
        ],
        unmet: vec![],
        note: None,
        status: CaseStatus::Conforms,
        duration_ms: 83.4,
        replay: "cutpoint run scenarios/tools/tool-running.kdl --agent codex --seed 42".into(),
        trace_path: Some("target/cutpoint/tool-running.jsonl".into()),
        trace: trace(),
    }
}

/// A case whose agent's view was observed.
pub(crate) fn seen() -> CaseResult {
    let turn_id = || Some("turn-1".into());
    let call_id = |call: &str| call.to_owned();
    let text = |text: &str| text.to_owned();
    let shown = |line| Observation::Shown { line };
    let command = |call: &str, line: &str| {
        shown(ShownLine::Command {
            call_id: call_id(call).into(),
            text: text(line),
        })
    };
    let observations = vec![
        step(1, 7, "user \"run it\""),
        op("1", input("run it")),
        shown(ShownLine::User {
            text: text("run it\n::error::not a command"),
        }),
        // An event tells nothing where what was seen of it is known.
        event(AgentEvent::Background {
            message: text("unseen"),
        }),
        shown(ShownLine::Reasoning {
            turn_id: turn_id(),
            text: text("Let me see."),
        }),
        shown(ShownLine::Message {
            turn_id: turn_id(),
            text: text("Both at once, \u{1b}[31mquickly\u{1b}[0m. ").repeat(4),
        }),
        command("call_1", "sleep 1"),
        command("call_1", "exit code 0"),
        command("call_2", "sleep 60"),
        shown(ShownLine::Waiting {
            call_id: call_id("call_3").into(),
            text: text("run `rm`?"),
        }),
        step(2, 8, "interrupt at=\"call_2 running\""),
        shown(ShownLine::Error {
            text: text("stream error"),
            stopped: None,
        }),
        op("2", ClientOp::Interrupt { turn_id: turn_id() }),
        command("call_2", "killed"),
        shown(ShownLine::Status {
            text: text("task interrupted"),
        }),
        step(3, 9, "await turn-aborted"),
    ];
    let mut case = pass();
    case.trace = trace_of(observations);
    case.trace.header.agent.features.insert(Feature::Transcript);
    case
}

/// A case of which only the agent's events are known.
pub(crate) fn told() -> CaseResult {
    let turn_id = || Some("turn-1".into());
    let piece = |text: &str| {
        event(AgentEvent::TextDelta {
            turn_id: turn_id(),
            text: text.to_owned(),
        })
    };
    let ended = |end| {
        event(AgentEvent::TurnEnded {
            turn_id: turn_id(),
            end,
        })
    };
    let mut told = observations();
    let question = AgentEvent::Question {
        turn_id: turn_id(),
        call_id: "call_2".into(),
        questions: vec!["Which file?".into()],
    };
    let message = AgentEvent::Message {
        turn_id: turn_id(),
        text: "Which one?".into(),
    };
    let error = AgentEvent::Error {
        turn_id: turn_id(),
        message: "stream error".into(),
    };
    told.extend([piece("Whi"), piece("Which "), piece("one?")]);
    told.extend([event(message), event(question)]);
    told.extend([event(error), piece("The "), piece("first")]);
    let reason = Some(AbortReason::Replaced);
    told.push(ended(TurnEnd::Aborted { reason }));
    let message = "over".to_owned();
    told.push(ended(TurnEnd::Failed { message }));
    let mut case = pass();
    case.trace = trace_of(told);
    case
}

/// A case in which a MUST rule is broken.
pub(crate) fn breach() -> CaseResult {
    let mut case = pass();
    case.verdicts[0].verdict = fail(
        "request 2 has no output for function call call_1",
        &[4, 9, 13],
    );
    case.status = CaseStatus::Breach;
    case
}

/// A case in which a SHOULD rule is broken.
pub(crate) fn should() -> CaseResult {
    let mut case = pass();
    let message = "turn turn-1 was reported as aborted before its marker was synced to stable storage, so a crash right behind the event loses it";
    case.verdicts[2].verdict = fail(message, &[9, 10]);
    case
}

/// A case with a waived breach.
pub(crate) fn waived() -> CaseResult {
    let mut case = pass();
    case.verdicts[3].verdict = fail(
        "sleep 60 (pid 4711) is alive 2 s after the end of turn turn-1",
        &[14],
    );
    case.verdicts[3].waived = Some("background tools of 0.169 outlive the turn by design".into());
    case
}

/// A case with expectations that were not met.
pub(crate) fn unmet() -> CaseResult {
    let mut case = pass();
    case.unmet = vec![
        UnmetExpectation {
            text: "no-process \"sleep 60\"".into(),
            line: 12,
            found: "sleep 60 is alive (pid 4711)".into(),
            evidence: vec![14],
        },
        UnmetExpectation {
            text: "await turn-aborted reason=replaced".into(),
            line: 0,
            found: "turn turn-1 was aborted as interrupted".into(),
            evidence: vec![],
        },
    ];
    case.status = CaseStatus::Breach;
    case
}

/// A case that the agent cannot run.
pub(crate) fn skipped() -> CaseResult {
    let mut case = pass();
    case.verdicts.clear();
    case.status = CaseStatus::Skipped;
    case.note = Some("the agent cannot replace a running turn".into());
    case
}

/// A case that tells nothing of the agent.
pub(crate) fn trouble() -> CaseResult {
    let mut case = pass();
    let why = "the replay server could not bind a port: address in use";
    for verdict in &mut case.verdicts {
        verdict.verdict = Verdict::Unknown { why: why.into() };
    }
    case.status = CaseStatus::Trouble;
    case.note = Some(why.into());
    case
}
