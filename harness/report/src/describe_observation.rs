//! One line for people about each entry of a trace.

use cutpoint_protocol::{Item, StreamEvent, marker};
use cutpoint_trace::{
    AbortReason, AgentEvent, ClientOp, Decision, Entry, InputMode, Observation, Process,
    ReadTrigger, StoreOp, StreamEnd, TaskKind, TurnEnd,
};
use serde_json::Value;

use crate::text::{clean, count, quote, shorten};

/// How long a description is at most, in characters.
const LIMIT_CHARS: usize = 120;
/// How much of a text is quoted, in characters.
const QUOTE_CHARS: usize = 48;
/// How much of an item's text is quoted where several items share a line, in characters.
const ITEM_CHARS: usize = 24;
/// How many items of a request are shown: the last ones, where requests differ.
const ITEMS: usize = 4;

/// One line about an entry: its number, its time since the start of the run, and what it is.
pub fn describe_entry(entry: &Entry) -> String {
    let (number, time) = columns(entry);
    format!(
        "{number:<5} {time:>12}  {}",
        describe_observation(&entry.observation)
    )
}

/// The number and the time of an entry, as they stand before its description.
pub(crate) fn columns(entry: &Entry) -> (String, String) {
    let at_ms = entry.at_ns as f64 / 1e6;
    (format!("#{}", entry.seq), format!("+{at_ms:.1} ms"))
}

/// One line about an observation. Long payloads are shortened in the middle, and characters that act
/// on a terminal are escaped.
pub fn describe_observation(observation: &Observation) -> String {
    let text = match observation {
        Observation::Step { number, text, .. } => format!("step {number}: {text}"),
        Observation::Reached { point } => format!("cut point reached: {point}"),
        Observation::Released { point } => format!("cut point let go: {point}"),
        Observation::Op { id, op } => format!("client: {} (op {id})", client_op(op)),
        Observation::OpReply { .. } => op_reply(observation),
        Observation::Event { event, .. } => format!("agent: {}", agent_event(event)),
        Observation::Processes { alive, at_end } => processes(alive, *at_end),
        Observation::AgentStarted { pid, resumed } => agent_started(*pid, *resumed),
        Observation::AgentKilled => "agent: killed, as the scenario asks".to_owned(),
        Observation::AgentExited {
            code,
            expected,
            stderr,
        } => agent_exited(*code, *expected, stderr),
        Observation::Garbage { text } => {
            format!(
                "agent: wrote what is no message: {}",
                quote(text, QUOTE_CHARS)
            )
        }
        Observation::TimedOut {
            waiting_for,
            limit_ms,
        } => format!("waited {limit_ms} ms in vain for {waiting_for}"),
        Observation::Trouble { message } => format!("trouble in the harness: {message}"),
        Observation::Reading { on: true } => "client: reads events again".to_owned(),
        Observation::Reading { on: false } => "client: stops reading events".to_owned(),
        Observation::Torn { bytes, .. } => format!("the rollout loses its last {bytes} bytes"),
        Observation::Redelivered { event } => {
            format!("delivered once more: {}", agent_event(event))
        }
        Observation::Shown { line } => format!("the user sees {}", quote(line.text(), QUOTE_CHARS)),
        Observation::Rollout { .. }
        | Observation::RolloutUnreadable { .. }
        | Observation::Stored { .. } => rollout(observation),
        _ => exchange(observation),
    };
    shorten(&clean(&text), LIMIT_CHARS).into_owned()
}

fn exchange(observation: &Observation) -> String {
    match observation {
        Observation::Request {
            exchange,
            conversation,
            path,
            body,
            history,
            ..
        } => request(*exchange, *conversation, path, body, history.as_deref()),
        Observation::Refused {
            exchange,
            status,
            message,
        } => format!("request {exchange}: refused with {status}: {message}"),
        Observation::Unscripted { exchange, message } => {
            format!("request {exchange}: no reply for it: {message}")
        }
        Observation::ResponseHead {
            exchange,
            status,
            reply,
            ..
        } => {
            let reply = reply
                .map(|reply| format!(", reply {reply}"))
                .unwrap_or_default();
            format!("response {exchange}: starts with status {status}{reply}")
        }
        Observation::ResponseBody { exchange, body } => {
            format!("response {exchange}: body {}", compact(body))
        }
        Observation::Sent {
            exchange,
            index,
            data,
        } => format!("response {exchange}: event {index}, {}", stream_event(data)),
        Observation::SentPart {
            exchange,
            index,
            bytes,
        } => format!(
            "response {exchange}: event {index}, its first {}",
            count(*bytes, "byte")
        ),
        Observation::StreamEnd { exchange, how } => {
            let how = match how {
                StreamEnd::Complete => "all of it was sent",
                StreamEnd::Reset => "the connection was reset (RST)",
                StreamEnd::Close => "the connection was closed in the middle (FIN)",
                StreamEnd::Cut => "ended in good order without a terminal event",
            };
            format!("response {exchange}: {how}")
        }
        Observation::Disconnected { exchange } => {
            format!("response {exchange}: the client hung up before its end")
        }
        // The caller has described the other kinds.
        _ => String::new(),
    }
}

fn request(
    exchange: usize,
    conversation: usize,
    path: &str,
    body: &Value,
    history: Option<&[Value]>,
) -> String {
    let mut text = format!("request {exchange}");
    if path != "/responses" {
        text.push_str(&format!(" to {path}"));
    }
    if conversation > 0 {
        text.push_str(&format!(" of conversation {conversation}"));
    }
    let input = body.get("input");
    let items = match (history, input) {
        (Some(history), _) => history,
        (None, Some(Value::Array(items))) => items.as_slice(),
        (None, Some(Value::String(input))) => {
            return format!("{text}: user {}", quote(input, QUOTE_CHARS));
        }
        _ => return format!("{text}: no input"),
    };
    let last: Vec<String> = items.iter().rev().take(ITEMS).rev().map(item).collect();
    let earlier = if items.len() > last.len() { "… " } else { "" };
    format!(
        "{text}, {}: {earlier}{}",
        count(items.len(), "item"),
        last.join("; ")
    )
}

/// A few words about an item.
fn item(value: &Value) -> String {
    let Ok(item) = Item::from_value(value.clone()) else {
        return shorten(&compact(value), ITEM_CHARS).into_owned();
    };
    if marker::is_marker(&item) {
        return "marker".to_owned();
    }
    let text = quote(item.all_text().trim(), ITEM_CHARS);
    let call_id = item.call_id().unwrap_or("without id");
    if item.call_kind().is_some() {
        let name = item
            .text("name")
            .map(|name| format!(" {name}"))
            .unwrap_or_default();
        format!("call {call_id}{name}")
    } else if item.output_kind().is_some() {
        format!("output {call_id} {text}")
    } else if let Some(role) = item.role() {
        format!("{role} {text}")
    } else {
        item.type_name().to_owned()
    }
}

fn stream_event(data: &Value) -> String {
    let Ok(event) = StreamEvent::from_value(data.clone()) else {
        let text = data.as_str().map_or_else(|| compact(data), str::to_owned);
        return format!("no valid event: {}", quote(&text, QUOTE_CHARS));
    };
    let name = event.type_name();
    let detail = if let Some(delta) = event.text("delta") {
        quote(delta, QUOTE_CHARS)
    } else if let Some(of) = data.get("item") {
        item(of)
    } else {
        String::new()
    };
    format!("{name} {detail}").trim_end().to_owned()
}

fn compact(value: &Value) -> String {
    shorten(&value.to_string(), LIMIT_CHARS).into_owned()
}

fn client_op(op: &ClientOp) -> String {
    match op {
        ClientOp::Input {
            text,
            mode,
            turn_id,
        } => {
            let mode = match mode {
                InputMode::Start => "user input",
                InputMode::Steer => "steering input",
                InputMode::Replace => "replacing input",
            };
            let id = turn_id.as_ref().map(|id| format!(", as turn {id}"));
            format!(
                "{mode} {}{}",
                quote(text, QUOTE_CHARS),
                id.unwrap_or_default()
            )
        }
        ClientOp::Task { task, text } => match task {
            TaskKind::Shell => format!("the user runs {}", quote(text, QUOTE_CHARS)),
            TaskKind::Review => format!("review {}", quote(text, QUOTE_CHARS)),
            TaskKind::Compact => "compact the history".to_owned(),
        },
        ClientOp::Open { thread_id } => format!("open conversation {thread_id}"),
        ClientOp::Fork => "fork the conversation".to_owned(),
        ClientOp::Rollback { turns } => format!("take back the last {}", count(*turns, "turn")),
        ClientOp::Interrupt { turn_id: None } => "interrupt".to_owned(),
        ClientOp::Interrupt {
            turn_id: Some(turn),
        } => format!("interrupt turn {turn}"),
        ClientOp::Approval { call_id, decision } => {
            let decision = match decision {
                Decision::Approve => "approve",
                Decision::Deny => "deny",
                Decision::Abort => "abort at the approval of",
            };
            format!("{decision} {call_id}")
        }
        ClientOp::Answer { call_id, text } => {
            format!("answer {call_id} with {}", quote(text, QUOTE_CHARS))
        }
        ClientOp::Shutdown => "shut down".to_owned(),
    }
}

fn op_reply(observation: &Observation) -> String {
    let Observation::OpReply {
        id,
        turn_id,
        thread_id,
        reason,
        error,
    } = observation
    else {
        return String::new();
    };
    let reason = reason.map(|reason| format!(", the turn was {}", abort_reason(reason)));
    let reason = reason.unwrap_or_default();
    match (turn_id, thread_id, error) {
        (_, _, Some(error)) => format!("agent: refuses op {id}: {error}"),
        (Some(turn), _, None) => format!("agent: takes op {id} as turn {turn}{reason}"),
        (None, Some(thread), None) => format!("agent: takes op {id} as conversation {thread}"),
        (None, None, None) => format!("agent: takes op {id}{reason}"),
    }
}

fn abort_reason(reason: AbortReason) -> &'static str {
    match reason {
        AbortReason::Interrupted => "interrupted",
        AbortReason::Replaced => "replaced",
    }
}

fn agent_event(event: &AgentEvent) -> String {
    let turn = match event.turn_id() {
        Some(turn) => format!("turn {turn}"),
        None => "a turn".to_owned(),
    };
    match event {
        AgentEvent::TurnStarted { .. } => format!("{turn} started"),
        AgentEvent::TurnEnded { end, .. } => match end {
            TurnEnd::Complete => format!("{turn} complete"),
            TurnEnd::Aborted { reason } => {
                let reason = reason.map(|reason| format!(" ({})", abort_reason(reason)));
                format!("{turn} aborted{}", reason.unwrap_or_default())
            }
            TurnEnd::Failed { message } => format!("{turn} failed: {message}"),
        },
        AgentEvent::TextDelta { text, .. } => {
            format!("shows {} in {turn}", quote(text, QUOTE_CHARS))
        }
        AgentEvent::ReasoningDelta { text, .. } => {
            format!("shows the reasoning {} in {turn}", quote(text, QUOTE_CHARS))
        }
        AgentEvent::Message { text, .. } => {
            format!("shows the message {} in {turn}", quote(text, QUOTE_CHARS))
        }
        AgentEvent::ApprovalRequest { call_id, .. } => format!("asks for approval of {call_id}"),
        AgentEvent::Background { message } => format!("notes {}", quote(message, QUOTE_CHARS)),
        AgentEvent::Error { message, .. } => format!("shows an error: {message}"),
        AgentEvent::ShutdownComplete => "session ended".to_owned(),
        AgentEvent::Other { name, .. } => format!("event {name}"),
        AgentEvent::UserMessage { text, .. } => {
            format!("takes {} into {turn}", quote(text, QUOTE_CHARS))
        }
        AgentEvent::Compacted { .. } => format!("compacts the history in {turn}"),
        AgentEvent::Forked { .. } => "forked the conversation".to_owned(),
        AgentEvent::RolledBack { turns } => format!("took back {}", count(*turns, "turn")),
        AgentEvent::SubAgentStarted { agent_id, task, .. } => {
            format!("sub-agent {agent_id} started: {}", quote(task, QUOTE_CHARS))
        }
        AgentEvent::SubAgentEnded { agent_id, how, .. } => {
            format!("sub-agent {agent_id} ended: {how}")
        }
        AgentEvent::SubAgentEvent {
            agent_id, event, ..
        } => format!("sub-agent {agent_id}: {}", agent_event(event)),
        AgentEvent::Question { .. }
        | AgentEvent::CallBegin { .. }
        | AgentEvent::CallOutput { .. }
        | AgentEvent::CallEnd { .. } => call_event(event),
    }
}

fn call_event(event: &AgentEvent) -> String {
    match event {
        AgentEvent::Question {
            call_id, questions, ..
        } => format!(
            "{call_id} asks {}",
            quote(&questions.join(" "), QUOTE_CHARS)
        ),
        AgentEvent::CallBegin {
            call_id,
            command,
            pid,
            ..
        } => {
            let pid = pid.map(|pid| format!(", pid {pid}")).unwrap_or_default();
            format!("{call_id} begins: {}{pid}", quote(command, QUOTE_CHARS))
        }
        AgentEvent::CallOutput { call_id, chunk, .. } => {
            format!("{call_id} prints {}", quote(chunk, QUOTE_CHARS))
        }
        AgentEvent::CallEnd {
            call_id,
            exit_code,
            output,
            ..
        } => {
            let how = exit_code.map_or_else(
                || "was cut off".to_owned(),
                |code| format!("ends with exit code {code}"),
            );
            format!("{call_id} {how}, output {}", quote(output, QUOTE_CHARS))
        }
        _ => String::new(),
    }
}

fn rollout(observation: &Observation) -> String {
    let name = |path: &str| {
        let name = path.rsplit(['/', '\\']).next().unwrap_or_default();
        shorten(name, ITEM_CHARS).into_owned()
    };
    let when = |trigger: &ReadTrigger| match trigger {
        ReadTrigger::TurnEnded {
            turn_id: Some(turn),
        } => format!("as turn {turn} ended"),
        ReadTrigger::TurnEnded { turn_id: None } => "as a turn ended".to_owned(),
        ReadTrigger::Request { exchange } => format!("at request {exchange}"),
        ReadTrigger::Exit => "as the agent exited".to_owned(),
        ReadTrigger::End => "at the end".to_owned(),
    };
    match observation {
        Observation::Rollout {
            trigger,
            path,
            from,
            text,
        } => {
            let (path, lines) = (name(path), count(text.lines().count(), "line"));
            let last = text.lines().last().unwrap_or_default();
            format!(
                "rollout {path}, {}: {lines} from byte {from}, last {}",
                when(trigger),
                quote(last, ITEM_CHARS)
            )
        }
        Observation::Stored { path, done } => match done {
            StoreOp::Written { bytes } => format!("rollout {}: {bytes} bytes written", name(path)),
            StoreOp::Synced => format!("rollout {}: synced", name(path)),
        },
        Observation::RolloutUnreadable {
            trigger,
            path,
            error,
        } => format!(
            "rollout {}, {}: cannot be read: {error}",
            name(path),
            when(trigger)
        ),
        _ => String::new(),
    }
}

fn processes(alive: &[Process], at_end: bool) -> String {
    let when = if at_end { " at the end" } else { "" };
    if alive.is_empty() {
        return format!("processes{when}: none alive");
    }
    let shown: Vec<String> = alive
        .iter()
        .map(|process| format!("{} {}", process.pid, quote(&process.command, ITEM_CHARS)))
        .collect();
    format!(
        "processes{when}: {} alive: {}",
        alive.len(),
        shown.join(", ")
    )
}

fn agent_started(pid: Option<u32>, resumed: bool) -> String {
    let how = if resumed {
        "started, resuming a session"
    } else {
        "started"
    };
    let pid = pid.map(|pid| format!(", pid {pid}")).unwrap_or_default();
    format!("agent: {how}{pid}")
}

fn agent_exited(code: Option<i32>, expected: bool, stderr: &str) -> String {
    let code = code
        .map(|code| format!(" with code {code}"))
        .unwrap_or_default();
    let unasked = if expected { "" } else { ", unasked" };
    let said = match stderr.trim() {
        "" => String::new(),
        stderr => format!(", stderr ends with {}", quote(stderr, QUOTE_CHARS)),
    };
    format!("agent: exited{code}{unasked}{said}")
}
