//! A small language for traces in tests.

// Named in full, as the benchmark takes this file in from another folder.
#[path = "testing/delegation.rs"]
mod delegation;
#[path = "testing/fork_rollback.rs"]
mod fork_rollback;
#[path = "testing/front.rs"]
mod front;
#[path = "testing/screen.rs"]
mod screen;

use std::collections::{BTreeMap, BTreeSet};

use cutpoint_protocol::Item;
use serde_json::{Value, json};

use cutpoint_trace::verdict::{Breach, Verdict};
use cutpoint_trace::{
    ABORT_BOUND_MS, AbortReason, AgentEvent, AgentInfo, ClientOp, Decision, Entry, FORMAT, Feature,
    Header, InputMode, Observation, Process, RawMessage, ReadTrigger, StoreOp, StreamEnd, TaskKind,
    Trace, TurnEnd, VERSION,
};

pub(crate) use delegation::delegating_session;
pub(crate) use fork_rollback::forked_session;
pub(crate) use front::front_session;
pub(crate) use screen::{stream_error, watched_session};

/// The time between two entries, unless a test asks for more.
const STEP_NS: u64 = 1_000_000;
/// The path of the rollout that [`Tracer::wrote`] and [`Tracer::read`] speak of.
pub(crate) const ROLLOUT: &str = "sessions/rollout.jsonl";

/// Writes a trace, entry by entry.
#[derive(Debug, Clone)]
pub(crate) struct Tracer {
    trace: Trace,
    now_ns: u64,
    path: String,
    file: String,
    known: usize,
    written: usize,
    ops: usize,
}

impl Tracer {
    /// An agent of which everything can be observed.
    pub(crate) fn new() -> Self {
        let features = [
            Feature::Rollout,
            Feature::RolloutTurns,
            Feature::Marker,
            Feature::TurnIds,
            Feature::OpReplies,
            Feature::CallEvents,
            Feature::Replace,
            Feature::StoreLog,
            Feature::TurnHeaders,
            Feature::SubAgents,
            Feature::CallerIds,
        ];
        let agent = AgentInfo {
            name: "reference".into(),
            version: "1".into(),
            driver: "in-process".into(),
            features: BTreeSet::from(features),
            defects: vec![],
        };
        let header = Header {
            format: FORMAT.into(),
            version: VERSION,
            scenario: "test".into(),
            file: None,
            agent,
            seed: 0,
            abort_bound_ms: ABORT_BOUND_MS,
            waived: vec![],
        };
        let mut tracer = Self {
            trace: Trace {
                header,
                entries: vec![],
            },
            now_ns: 0,
            path: ROLLOUT.to_owned(),
            file: String::new(),
            known: 0,
            written: 0,
            ops: 0,
        };
        tracer.push(Observation::AgentStarted {
            pid: None,
            resumed: false,
        });
        tracer
    }

    pub(crate) fn without(mut self, feature: Feature) -> Self {
        self.trace.header.agent.features.remove(&feature);
        self
    }

    pub(crate) fn with(mut self, feature: Feature) -> Self {
        self.trace.header.agent.features.insert(feature);
        self
    }

    pub(crate) fn push(&mut self, observation: Observation) -> &mut Self {
        self.now_ns += STEP_NS;
        let seq = self.trace.entries.len() as u64;
        let at_ns = self.now_ns;
        self.trace.entries.push(Entry {
            seq,
            at_ns,
            observation,
        });
        self
    }

    /// Lets time pass.
    pub(crate) fn wait_ms(&mut self, ms: u64) -> &mut Self {
        self.now_ns += ms * 1_000_000;
        self
    }

    pub(crate) fn trace(&self) -> Trace {
        self.trace.clone()
    }

    pub(crate) fn event(&mut self, event: AgentEvent) -> &mut Self {
        let raw = RawMessage::default();
        self.push(Observation::Event { event, raw })
    }

    /// An op with a new id; the reply to it is up to [`Tracer::reply`].
    pub(crate) fn op(&mut self, op: ClientOp) -> &mut Self {
        self.ops += 1;
        let id = format!("op{}", self.ops).into();
        self.push(Observation::Op { id, op })
    }

    pub(crate) fn input(&mut self, text: &str, mode: InputMode) -> &mut Self {
        let text = text.to_owned();
        let turn_id = None;
        self.op(ClientOp::Input {
            text,
            mode,
            turn_id,
        })
    }

    /// Work other than a turn with the model.
    pub(crate) fn task(&mut self, task: TaskKind, text: &str) -> &mut Self {
        let text = text.to_owned();
        self.op(ClientOp::Task { task, text })
    }

    /// The same under an id of the caller's.
    pub(crate) fn named_input(&mut self, text: &str, mode: InputMode, turn: &str) -> &mut Self {
        let (text, turn_id) = (text.to_owned(), Some(turn.into()));
        self.op(ClientOp::Input {
            text,
            mode,
            turn_id,
        })
    }

    /// The answer to the op of that number, an interrupt.
    pub(crate) fn answered(&mut self, op: usize, reason: Option<AbortReason>) -> &mut Self {
        self.push(Observation::OpReply {
            id: format!("op{op}").into(),
            turn_id: None,
            thread_id: None,
            reason,
            error: None,
        })
    }

    /// The answer to the newest op, which opened a conversation.
    pub(crate) fn opened(&mut self, thread: &str) -> &mut Self {
        self.push(Observation::OpReply {
            id: format!("op{}", self.ops).into(),
            turn_id: None,
            thread_id: Some(thread.into()),
            reason: None,
            error: None,
        })
    }

    /// The answer to the newest op.
    pub(crate) fn reply(&mut self, turn: Option<&str>) -> &mut Self {
        let (id, turn_id) = (format!("op{}", self.ops), turn.map(Into::into));
        self.push(Observation::OpReply {
            id: id.into(),
            turn_id,
            thread_id: None,
            reason: None,
            error: None,
        })
    }

    /// The newest op is refused.
    pub(crate) fn refuse(&mut self) -> &mut Self {
        let (id, error) = (format!("op{}", self.ops), Some("no".to_owned()));
        self.push(Observation::OpReply {
            id: id.into(),
            turn_id: None,
            thread_id: None,
            reason: None,
            error,
        })
    }

    /// Input that starts a turn: the op, its reply, the event, the line in the rollout.
    pub(crate) fn start(&mut self, turn: &str, text: &str) -> &mut Self {
        self.input(text, InputMode::Start).reply(Some(turn));
        self.started(turn)
    }

    pub(crate) fn started(&mut self, turn: &str) -> &mut Self {
        self.line(&json!({"type": "task_started", "turn_id": turn}));
        self.event(AgentEvent::TurnStarted {
            turn_id: turn.into(),
        })
    }

    pub(crate) fn interrupt(&mut self) -> &mut Self {
        self.op(ClientOp::Interrupt { turn_id: None })
    }

    /// An interrupt of that turn, its reply, the marker in the rollout, the event, the read.
    pub(crate) fn interrupted(&mut self, turn: &str) -> &mut Self {
        self.interrupt().reply(None).wrote(&marker());
        self.written().synced();
        self.aborted(turn).read_at_end(turn)
    }

    pub(crate) fn ended(&mut self, turn: Option<&str>, end: TurnEnd) -> &mut Self {
        let name = match &end {
            TurnEnd::Complete => "task_complete",
            TurnEnd::Aborted { .. } => "turn_aborted",
            TurnEnd::Failed { .. } => "turn_failed",
        };
        self.line(&json!({"type": name, "turn_id": turn}));
        let turn_id = turn.map(Into::into);
        self.event(AgentEvent::TurnEnded { turn_id, end })
    }

    pub(crate) fn aborted(&mut self, turn: &str) -> &mut Self {
        let reason = Some(AbortReason::Interrupted);
        self.ended(Some(turn), TurnEnd::Aborted { reason })
    }

    pub(crate) fn replaced(&mut self, turn: &str) -> &mut Self {
        let reason = Some(AbortReason::Replaced);
        self.ended(Some(turn), TurnEnd::Aborted { reason })
    }

    pub(crate) fn completed(&mut self, turn: &str) -> &mut Self {
        self.ended(Some(turn), TurnEnd::Complete)
    }

    pub(crate) fn begin(&mut self, turn: &str, call_id: &str) -> &mut Self {
        self.event(AgentEvent::CallBegin {
            turn_id: Some(turn.into()),
            call_id: call_id.into(),
            command: "sleep 60".into(),
            pid: None,
        })
    }

    pub(crate) fn end(&mut self, turn: &str, call_id: &str, exit_code: Option<i32>) -> &mut Self {
        self.event(AgentEvent::CallEnd {
            turn_id: Some(turn.into()),
            call_id: call_id.into(),
            exit_code,
            output: String::new(),
        })
    }

    pub(crate) fn printed(&mut self, turn: &str, call_id: &str, chunk: &str) -> &mut Self {
        self.event(AgentEvent::CallOutput {
            turn_id: Some(turn.into()),
            call_id: call_id.into(),
            chunk: chunk.to_owned(),
        })
    }

    pub(crate) fn delta(&mut self, turn: &str, text: &str) -> &mut Self {
        let (turn_id, text) = (Some(turn.into()), text.to_owned());
        self.event(AgentEvent::TextDelta { turn_id, text })
    }

    pub(crate) fn message(&mut self, turn: &str, text: &str) -> &mut Self {
        let (turn_id, text) = (Some(turn.into()), text.to_owned());
        self.event(AgentEvent::Message { turn_id, text })
    }

    pub(crate) fn background(&mut self, message: &str) -> &mut Self {
        let message = message.to_owned();
        self.event(AgentEvent::Background { message })
    }

    /// The user is asked whether a call may run.
    pub(crate) fn ask(&mut self, turn: &str, call_id: &str) -> &mut Self {
        let (turn_id, call_id) = (Some(turn.into()), call_id.to_owned());
        self.event(AgentEvent::ApprovalRequest {
            turn_id,
            call_id: call_id.into(),
        })
    }

    /// The user says whether a call may run.
    pub(crate) fn decide(&mut self, call_id: &str, decision: Decision) -> &mut Self {
        let call_id = call_id.to_owned();
        self.op(ClientOp::Approval {
            call_id: call_id.into(),
            decision,
        })
    }

    /// The agent reports that a turn took a text of the user.
    pub(crate) fn user_message(&mut self, turn: &str, text: &str) -> &mut Self {
        let (turn_id, text) = (Some(turn.into()), text.to_owned());
        self.event(AgentEvent::UserMessage { turn_id, text })
    }

    /// A look at the processes below the agent.
    pub(crate) fn alive(&mut self, pids: &[u32]) -> &mut Self {
        let process = |pid: &u32| Process {
            pid: *pid,
            ppid: 1,
            command: format!("sleep {pid}"),
        };
        let alive = pids.iter().map(process).collect();
        self.push(Observation::Processes {
            alive,
            at_end: false,
        })
    }

    pub(crate) fn request(&mut self, exchange: usize, input: &[Value]) -> &mut Self {
        self.request_of(0, exchange, input)
    }

    pub(crate) fn request_of(
        &mut self,
        conversation: usize,
        exchange: usize,
        input: &[Value],
    ) -> &mut Self {
        self.push(Observation::Request {
            exchange,
            conversation,
            path: "/responses".into(),
            headers: BTreeMap::new(),
            body: json!({"model": "m", "input": input, "stream": true}).into(),
            history: None,
        })
    }

    /// A request that carries the header of a turn.
    pub(crate) fn request_with(
        &mut self,
        exchange: usize,
        state: &str,
        input: &[Value],
    ) -> &mut Self {
        let headers = BTreeMap::from([(
            cutpoint_protocol::headers::TURN_STATE.to_owned(),
            state.to_owned(),
        )]);
        self.push(Observation::Request {
            exchange,
            conversation: 0,
            path: "/responses".into(),
            headers,
            body: json!({"model": "m", "input": input, "stream": true}).into(),
            history: None,
        })
    }

    /// The response begins.
    pub(crate) fn created(&mut self, exchange: usize) -> &mut Self {
        let reply = Some(exchange);
        self.push(Observation::ResponseHead {
            exchange,
            status: 200,
            reply,
            retry_after_ms: None,
        });
        self.sent(
            exchange,
            json!({"type": "response.created", "response": {}}),
        )
    }

    /// An answer that is no stream.
    pub(crate) fn answer(&mut self, exchange: usize, status: u16, message: &str) -> &mut Self {
        self.push(Observation::ResponseHead {
            exchange,
            status,
            reply: None,
            retry_after_ms: None,
        });
        let body = json!({"error": {"message": message}});
        self.push(Observation::ResponseBody { exchange, body });
        self.stream_end(exchange, StreamEnd::Complete)
    }

    pub(crate) fn sent(&mut self, exchange: usize, data: Value) -> &mut Self {
        let index = 1 + self.trace.entries.len();
        self.push(Observation::Sent {
            exchange,
            index,
            data: data.into(),
        })
    }

    /// The model emits an item whole.
    pub(crate) fn emit(&mut self, exchange: usize, item: Value) -> &mut Self {
        self.add(exchange, item.clone());
        self.sent(
            exchange,
            json!({"type": "response.output_item.done", "item": item}),
        )
    }

    /// The model begins an item.
    pub(crate) fn add(&mut self, exchange: usize, item: Value) -> &mut Self {
        self.sent(
            exchange,
            json!({"type": "response.output_item.added", "item": item}),
        )
    }

    /// The response's terminal event and the stream's end.
    pub(crate) fn finish(&mut self, exchange: usize) -> &mut Self {
        self.sent(
            exchange,
            json!({"type": "response.completed", "response": {"output": []}}),
        );
        self.stream_end(exchange, StreamEnd::Complete)
    }

    pub(crate) fn stream_end(&mut self, exchange: usize, how: StreamEnd) -> &mut Self {
        self.push(Observation::StreamEnd { exchange, how })
    }

    pub(crate) fn disconnected(&mut self, exchange: usize) -> &mut Self {
        self.push(Observation::Disconnected { exchange })
    }

    /// The agent appends an item to its rollout, unobserved.
    pub(crate) fn wrote(&mut self, item: &Value) -> &mut Self {
        self.wrote_line("response_item", item)
    }

    fn line(&mut self, event: &Value) -> &mut Self {
        self.wrote_line("event_msg", event)
    }

    pub(crate) fn wrote_line(&mut self, kind: &str, payload: &Value) -> &mut Self {
        let ordinal = self.file.matches('\n').count();
        let line = json!({"timestamp": "t", "ordinal": ordinal, "type": kind, "payload": payload});
        self.wrote_raw(&format!("{line}\n"))
    }

    pub(crate) fn wrote_raw(&mut self, text: &str) -> &mut Self {
        self.file.push_str(text);
        self
    }

    /// The rollout as it is.
    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    /// What was appended to the rollout since the last such write reaches the file.
    pub(crate) fn written(&mut self) -> &mut Self {
        let bytes = (self.file.len() - self.written) as u64;
        self.written = self.file.len();
        let done = StoreOp::Written { bytes };
        self.push(Observation::Stored {
            path: self.path.clone(),
            done,
        })
    }

    pub(crate) fn synced(&mut self) -> &mut Self {
        let done = StoreOp::Synced;
        self.push(Observation::Stored {
            path: self.path.clone(),
            done,
        })
    }

    /// Something other than appending happens to the rollout.
    pub(crate) fn set_file(&mut self, text: &str) -> &mut Self {
        text.clone_into(&mut self.file);
        self
    }

    /// The harness reads what was appended to the rollout.
    pub(crate) fn read(&mut self, trigger: ReadTrigger) -> &mut Self {
        let (from, text) = (self.known as u64, self.file[self.known..].to_owned());
        self.known = self.file.len();
        self.read_as(trigger, from, &text)
    }

    /// The harness finds that the rollout's beginning has changed.
    pub(crate) fn read_anew(&mut self, trigger: ReadTrigger) -> &mut Self {
        self.known = 0;
        self.read(trigger)
    }

    pub(crate) fn read_as(&mut self, trigger: ReadTrigger, from: u64, text: &str) -> &mut Self {
        self.push(Observation::Rollout {
            trigger,
            path: self.path.clone(),
            from,
            text: text.to_owned(),
        })
    }

    pub(crate) fn read_at_end(&mut self, turn: &str) -> &mut Self {
        let turn_id = Some(turn.into());
        self.read(ReadTrigger::TurnEnded { turn_id })
    }

    /// The harness takes bytes off the rollout's end.
    pub(crate) fn tear(&mut self, bytes: usize) -> &mut Self {
        self.file.truncate(self.file.len() - bytes);
        (self.known, self.written) = (self.file.len(), self.file.len());
        self.push(Observation::Torn {
            path: self.path.clone(),
            bytes: bytes as u64,
        })
    }

    pub(crate) fn forked(&mut self, path: &str) -> &mut Self {
        let path = path.to_owned();
        self.event(AgentEvent::Forked { path })
    }

    /// The session goes on in a fork, whose rollout is read from its beginning.
    pub(crate) fn goes_on_in(&mut self, path: &str) -> &mut Self {
        (self.path, self.known) = (path.to_owned(), 0);
        self
    }

    pub(crate) fn kill(&mut self) -> &mut Self {
        self.push(Observation::AgentKilled)
    }

    pub(crate) fn resume(&mut self) -> &mut Self {
        self.push(Observation::AgentStarted {
            pid: None,
            resumed: true,
        })
    }

    pub(crate) fn reached(&mut self, point: &str) -> &mut Self {
        let point = point.to_owned();
        self.push(Observation::Reached { point })
    }

    pub(crate) fn released(&mut self, point: &str) -> &mut Self {
        let point = point.to_owned();
        self.push(Observation::Released { point })
    }

    pub(crate) fn exit(&mut self) -> &mut Self {
        self.push(Observation::AgentExited {
            code: Some(0),
            expected: true,
            stderr: String::new(),
        })
    }
}

pub(crate) fn user(text: &str) -> Value {
    Item::user_text(text).into_value()
}

pub(crate) fn marker() -> Value {
    user("<turn_aborted>\nThe user stopped the turn.\n</turn_aborted>")
}

pub(crate) fn assistant(text: &str) -> Value {
    let content = json!([{"type": "output_text", "text": text}]);
    json!({"type": "message", "role": "assistant", "content": content})
}

pub(crate) fn call(id: &str) -> Value {
    json!({"type": "function_call", "call_id": id, "name": "shell", "arguments": "{\"cmd\":\"x\"}"})
}

pub(crate) fn output(id: &str, text: &str) -> Value {
    json!({"type": "function_call_output", "call_id": id, "output": text})
}

/// What a rule says of a trace.
pub(crate) fn verdict_of(rule: &str, tracer: &Tracer) -> Verdict {
    let verdicts = crate::judge(&tracer.trace());
    let verdict = verdicts.into_iter().find(|verdict| verdict.rule == rule);
    verdict.expect("the rule is in the book").verdict
}

/// The rule holds and was exercised that often.
#[track_caller]
pub(crate) fn keeps(rule: &str, tracer: &Tracer, exercised: usize) {
    assert_eq!(
        verdict_of(rule, tracer),
        Verdict::Pass { exercised },
        "{rule}"
    );
}

/// The rule, such as `CALL-1`, or one clause of it, such as `CALL-1/no-output`, is broken once; the
/// breach is returned.
#[track_caller]
pub(crate) fn breaks(rule: &str, tracer: &Tracer) -> Breach {
    let (rule, kind) = match rule.split_once('/') {
        Some((rule, kind)) => (rule, Some(kind)),
        None => (rule, None),
    };
    let breach = match verdict_of(rule, tracer) {
        Verdict::Fail { mut breaches, .. } if breaches.len() == 1 => breaches.remove(0),
        other => panic!("{rule} should have one breach: {other:?}"),
    };
    if let Some(kind) = kind {
        assert_eq!(breach.kind, kind, "{rule}: {}", breach.text());
    }
    let known = crate::rules().iter().find(|known| known.id() == rule);
    let known = known.expect("the rule is in the book");
    let mut clauses = known.clauses().iter();
    let clause = clauses.find(|clause| clause.kind == breach.kind);
    let clause = clause.unwrap_or_else(|| panic!("{rule} has no clause {:?}", breach.kind));
    for name in clause.placeholders() {
        assert!(breach.facts.contains_key(name), "{name}: {breach:?}");
    }
    breach
}

/// Nothing exercises the rule.
#[track_caller]
pub(crate) fn is_idle(rule: &str, tracer: &Tracer) {
    assert_eq!(verdict_of(rule, tracer), Verdict::NotExercised, "{rule}");
}

/// A turn that is interrupted while its tool runs, and the turn after it: everything as it should
/// be.
pub(crate) fn interrupted_tool() -> Tracer {
    let mut t = Tracer::new();
    t.start("t1", "run it").request(1, &[user("run it")]);
    t.emit(1, call("c1")).finish(1);
    t.begin("t1", "c1").wait_ms(20);
    t.wrote(&user("run it")).wrote(&call("c1"));
    t.wrote(&output("c1", "aborted by the user"));
    t.interrupted("t1");
    t.start("t2", "and now?");
    let history = [
        user("run it"),
        call("c1"),
        output("c1", "aborted by the user"),
        marker(),
        user("and now?"),
    ];
    t.request(2, &history).emit(2, assistant("Nothing."));
    t.finish(2).completed("t2").read_at_end("t2");
    t
}

/// A session in which the user is asked, requests fail, and processes are looked at: everything as it
/// should be.
pub(crate) fn eventful_session() -> Tracer {
    let mut t = Tracer::new();
    t.start("t1", "run it").wrote(&user("run it"));
    t.request(1, &[user("run it")])
        .read(ReadTrigger::Request { exchange: 1 });
    t.created(1).delta("t1", "Let me").delta("t1", " see.");
    t.emit(1, assistant("Let me see."))
        .emit(1, call("c1"))
        .finish(1);
    t.begin("t1", "c1").printed("t1", "c1", "first light\n");
    t.wait_ms(200)
        .interrupted("t1")
        .alive(&[7])
        .wait_ms(30)
        .alive(&[]);
    let told = "aborted; it had printed: first light";
    let mut history = vec![
        user("run it"),
        assistant("Let me see."),
        call("c1"),
        output("c1", told),
    ];
    history.extend([marker(), user("go on")]);
    t.start("t2", "go on").request(2, &history);
    t.answer(2, 400, "No tool output found for function call c1.");
    t.background("c1 is answered once more")
        .request(3, &history)
        .created(3);
    t.emit(3, call("c2")).finish(3).ask("t2", "c2");
    t.decide("c2", Decision::Abort)
        .wrote(&marker())
        .written()
        .synced();
    t.end("t2", "c2", None).aborted("t2").read_at_end("t2");
    t.decide("c2", Decision::Approve).kill().alive(&[]).resume();
    history.extend([call("c2"), output("c2", "aborted"), marker(), user("more")]);
    t.start("t3", "more").request(4, &history).created(4);
    t.emit(4, call("c3"))
        .finish(4)
        .ask("t3", "c3")
        .interrupted("t3");
    history.extend([call("c3"), output("c3", "aborted"), marker(), user("last")]);
    t.start("t4", "last")
        .request(5, &history)
        .created(5)
        .interrupt()
        .reply(None);
    t.wrote(&marker()).written().synced().disconnected(5);
    t.aborted("t4").read_at_end("t4").exit().alive(&[]);
    t
}

/// A long session with about everything in it, all as it should be.
pub(crate) fn long_session() -> Tracer {
    let mut t = interrupted_tool();
    let mut history = vec![
        user("run it"),
        call("c1"),
        output("c1", "aborted by the user"),
        marker(),
        user("and now?"),
        assistant("Nothing."),
        user("three"),
    ];
    t.interrupt().reply(None);
    t.start("t3", "three").request(3, &history);
    t.add(3, call("c2")).input("four", InputMode::Replace);
    t.reply(Some("t4")).replaced("t3").disconnected(3);
    t.started("t4").read_at_end("t3");
    history.push(user("four"));
    t.request(4, &history).stream_end(4, StreamEnd::Reset);
    t.request(5, &history).emit(5, call("c3")).finish(5);
    t.begin("t4", "c3").end("t4", "c3", Some(0));
    history.extend([call("c3"), output("c3", "Exit code: 0")]);
    t.request(6, &history).add(6, assistant("")).kill();
    t.read(ReadTrigger::Exit).resume();
    t.wrote_line(
        "event_msg",
        &json!({"type": "turn_aborted", "turn_id": "t4"}),
    );
    history.push(user("five"));
    t.start("t5", "five").request(7, &history).finish(7);
    t.interrupt()
        .interrupt()
        .completed("t5")
        .read_at_end("t5")
        .read(ReadTrigger::End);
    t
}
