//! The scenario language's abstract syntax.
//!
//! Everything here is plain data.
//! Equality ignores where in a file a node stood, so that parse → print → parse is the identity.

use std::time::Duration;

pub use crate::agent_event_kind::AgentEventKind;

/// A node's place in its source text: byte offsets, end exclusive.
///
/// Two spans are always equal, because equality of scenarios is about what they say.
#[derive(Debug, Clone, Copy, Default, Eq)]
pub struct Span {
    /// First byte of the node.
    pub start: usize,
    /// One past the last byte of the node.
    pub end: usize,
    /// Line of the first byte, counted from 1; 0 when the node was not read from a file.
    pub line: usize,
}

impl PartialEq for Span {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

/// A scenario file: one or more scenarios.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScenarioFile {
    /// The scenarios, in the order of the file.
    pub scenarios: Vec<Scenario>,
}

/// One scenario: what the model says, what the user does, what is expected of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scenario {
    /// Unique within its file; shown in reports.
    pub name: String,
    /// What a user would have seen, in a sentence or two.
    pub about: Option<String>,
    /// What an agent must be able to do for the scenario to apply.
    pub needs: Vec<Capability>,
    /// Upper bound of every single wait in this scenario (`limit "5s"`); the runner has a default.
    pub limit: Option<Duration>,
    /// How long an interrupted turn may take to end, beyond the grace period of 100 ms
    /// (`abort-within "500ms"`); the rule book has a default.
    pub abort_within: Option<Duration>,
    /// What the model answers, in order, for the main conversation.
    pub model: ModelScript,
    /// The client's steps, in order.
    pub steps: Vec<Step>,
    /// What must hold at the end, besides the rules.
    pub expectations: Vec<Expectation>,
    /// Rules that this scenario sets aside, each with its reason.
    pub waivers: Vec<RuleWaiver>,
    /// Its place in the file.
    pub span: Span,
}

/// What an agent must be able to do for a scenario to apply to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Capability {
    /// `shell`: the agent advertises a tool that runs a command.
    Shell,
    /// `custom-tools`: custom tool calls (free-form input).
    CustomTools,
    /// `code-mode`: with some models the agent runs scripts of the model's, which call its tools (the
    /// custom tool `exec`).
    CodeMode,
    /// `local-shell`: `local_shell_call` items.
    LocalShell,
    /// `replace`: a new turn replaces the running one.
    Replace,
    /// `steer`: user input joins the running turn.
    Steer,
    /// `resume`: a session can be continued from its rollout after the process is gone.
    Resume,
    /// `approvals`: commands can wait for the user's approval.
    Approvals,
    /// `points`: named points inside the agent can hold it.
    Points,
    /// `server-history`: the agent sends `previous_response_id` and new items only.
    ServerHistory,
    /// `shown-output`: a tool's output is shown as it comes, and not only when the tool has ended.
    ShownOutput,
    /// `patches`: `apply_patch`, which waits for the user's approval.
    Patches,
    /// `questions`: the model can ask the user.
    Questions,
    /// `sub-agents`: the model can start sub-agents.
    SubAgents,
    /// `review`: a sub-agent reviews what the user names.
    Review,
    /// `compact`: the history can be replaced by a summary.
    Compact,
    /// `user-shell`: the user can run commands of their own.
    UserShell,
    /// `fork`: the conversation can be copied into a session of its own.
    Fork,
    /// `rollback`: turns can be taken out of the history.
    Rollback,
    /// `json-rpc`: requests and answers, with ids that a caller may choose.
    JsonRpc,
    /// `transcript`: what a person sees is observed.
    Transcript,
    /// `slow-client`: the client can stop reading the agent's events.
    SlowClient,
}

/// What the model answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModelScript {
    /// `model name="gpt-6.1-sol" { … }`: the model that the agent is started with; its own default if
    /// absent.
    pub name: Option<String>,
    /// `model substitute-tools=#true { … }`: a recorded call of a tool that the agent does not offer is
    /// sent as a call of its shell tool that prints the recorded output. Without it, recorded streams
    /// are sent byte for byte.
    pub substitute_tools: bool,
    /// Replay this recording (a name under `recordings/`, or a path), matched by content.
    pub recording: Option<RecordingRef>,
    /// Composed replies, served in order within the main conversation.
    pub replies: Vec<Reply>,
    /// What is answered in other conversations, such as those of sub-agents.
    pub side_conversations: Vec<SideConversationScript>,
}

/// `model for="Look into it" { … }`: what the model answers in a conversation beside the main one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SideConversationScript {
    /// What the first user message of the conversation contains.
    pub opening: String,
    /// Composed replies, served in order within the conversation.
    pub replies: Vec<Reply>,
    /// Its place in the file.
    pub span: Span,
}

/// A reference to a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordingRef {
    /// Name or path.
    pub name: String,
    /// Its place in the file.
    pub span: Span,
}

/// One reply of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// What is sent.
    pub body: ReplyBody,
    /// `lenient=#true`: the request that gets this reply is not refused, whatever its history.
    pub lenient: bool,
    /// Its place in the file.
    pub span: Span,
}

/// What a reply sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyBody {
    /// `reply { … }`: a complete stream, made from parts.
    Stream {
        /// Items and raw events, in order.
        parts: Vec<ReplyPart>,
        /// How the stream ends.
        end: ReplyEnd,
    },
    /// `reply status=429 retry-after=1 { body #"…"# }`: an HTTP answer that is not a stream.
    Status {
        /// HTTP status code, 200 to 599.
        status: u16,
        /// Value of the `retry-after` header, in seconds.
        retry_after_s: Option<u64>,
        /// Further headers (`header "name" "value"` children).
        headers: Vec<(String, String)>,
        /// The body as it is sent; the API's own error body of that status if absent.
        body: Option<String>,
    },
    /// `reply recording="name" exchange=2`: one exchange of a recording, byte for byte.
    Recorded {
        /// Name or path.
        name: String,
        /// Counted from 1.
        exchange: usize,
    },
}

/// One part of a composed stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyPart {
    /// `text "Hello" chunks=3`: an assistant message.
    Text {
        /// The whole text.
        text: String,
        /// Number of deltas (split at even character counts); 1 if absent.
        chunks: usize,
    },
    /// `reasoning "Let me see" chunks=2`: a reasoning item with a summary.
    Reasoning {
        /// The summary text.
        text: String,
        /// Number of deltas.
        chunks: usize,
    },
    /// `shell call_1 "sleep 60" chunks=2`: portable; becomes the shell tool that the request advertises.
    Shell {
        /// The call id.
        call: String,
        /// The command line, given to a shell.
        command: String,
        /// Number of argument deltas.
        chunks: usize,
    },
    /// `function call_1 name #"{"a":1}"# chunks=2`: a function call with literal arguments.
    Function {
        /// The call id.
        call: String,
        /// The function's name.
        name: String,
        /// Literal arguments (JSON, but sent as they are: a model can be wrong).
        arguments: String,
        /// Number of argument deltas.
        chunks: usize,
    },
    /// `custom call_2 apply_patch "*** Begin Patch…" chunks=2`: a custom tool call.
    Custom {
        /// The call id.
        call: String,
        /// The tool's name.
        name: String,
        /// The free-form input.
        input: String,
        /// Number of input deltas.
        chunks: usize,
    },
    /// `local-shell call_3 "ls" "-l"`: a `local_shell_call` item; each argument is a word of the command.
    LocalShell {
        /// The call id.
        call: String,
        /// The command's words, at least one.
        command: Vec<String>,
    },
    /// `item #"{"type":"…"}"#`: any item, sent as added and done.
    Item {
        /// A JSON object with a `type`.
        json: String,
    },
    /// `event #"{"type":"…"}"#`: one raw event; `sequence_number` is filled in if absent.
    Event {
        /// A JSON object with a `type`.
        json: String,
    },
    /// `malformed "data: {oops"`: bytes that are not a valid event, followed by a blank line.
    Malformed {
        /// The line or lines as sent.
        text: String,
    },
    /// `pause "50ms"`: nothing is sent for that long.
    Pause {
        /// How long.
        duration: Duration,
    },
}

/// How a composed stream ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ReplyEnd {
    /// `response.completed` (implied).
    #[default]
    Completed,
    /// `stall`: nothing more is sent, the connection stays open.
    Stall,
    /// `drop` or `drop reset`, `drop close`, `drop end`: the connection ends without a terminal event.
    Drop(DisconnectKind),
    /// `incomplete "max_output_tokens"`: `response.incomplete` with that reason.
    Incomplete {
        /// `incomplete_details.reason`.
        reason: String,
    },
    /// `failed code="server_error" message="…"`: `response.failed` with that error.
    Failed {
        /// The error's code.
        code: String,
        /// The error's message; a standard text if absent.
        message: Option<String>,
    },
    /// `error code="server_error" message="…" shape="nested"`: an `error` event and nothing after it.
    Error {
        /// The error's code.
        code: String,
        /// The error's message; a standard text if absent.
        message: Option<String>,
        /// `shape="flat"` (the SDKs' type) or `shape="nested"` (as captured; the default).
        nested: bool,
    },
}

/// How a connection ends before its stream does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DisconnectKind {
    /// `reset` (the default): TCP RST.
    #[default]
    Reset,
    /// `close`: FIN in the middle of the chunked body.
    Close,
    /// `end`: the body ends in good order, but without a terminal event.
    End,
}

/// One step of the client, done at its cut point or, without one, at once after the step before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// `at="…"`: wait until this point is reached, hold it, act, let go.
    pub at: Option<CutPoint>,
    /// `yields=3`, with a named point of the agent: the point is not held. The step is done by
    /// itself as the point is passed, after the agent's other tasks have each had that many turns.
    /// A `kill` or `shutdown` that is done so cuts short whatever step is at work: the client goes
    /// on behind it.
    pub yields: Option<usize>,
    /// What is done.
    pub action: Action,
    /// Its place in the file.
    pub span: Span,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// `user "text"`: user input that starts a turn.
    User {
        /// The text.
        text: String,
        /// `id="…"`: the id that the caller wants the turn to have.
        id: Option<String>,
        /// `refused=#true`: the agent must refuse it.
        refused: bool,
    },
    /// `user-shell "ls"`: a command that the user runs; it replaces a running turn.
    UserShell {
        /// The command line.
        command: String,
    },
    /// `review "the last change"`: a review by a sub-agent; it replaces a running turn.
    Review {
        /// What is to be reviewed.
        text: String,
    },
    /// `compact`: the history is replaced by a summary; it replaces a running turn.
    Compact,
    /// `fork`: the conversation so far becomes a session of its own, which the client goes on with.
    Fork,
    /// `rollback 1`: the last turns are taken out of the history.
    Rollback {
        /// How many.
        turns: usize,
        /// `refused=#true`: the agent must refuse it.
        refused: bool,
    },
    /// `open-conversation "id"`: one more conversation is opened under an id of the caller's.
    OpenConversation {
        /// The id.
        id: String,
        /// `refused=#true`: the agent must refuse it.
        refused: bool,
    },
    /// `truncate-rollout 5`: while the agent is not running, its rollout loses that many bytes at its end.
    TruncateRollout {
        /// How many.
        bytes: usize,
    },
    /// `stop-reading`: the client reads no more of the agent's events.
    StopReading,
    /// `resume-reading`: the client goes on reading them.
    ResumeReading,
    /// `deliver-late delta`: the transcript view gets the last such event of a turn that has ended once more.
    DeliverLate(LateEvent),
    /// `steer "text"`: user input while a turn runs, which joins it.
    Steer {
        /// The text.
        text: String,
    },
    /// `replace "text"`: a new turn that replaces the running one.
    Replace {
        /// The text.
        text: String,
    },
    /// `interrupt`: the user's Esc or Ctrl-C.
    Interrupt {
        /// `id="…"`: the turn that the request names; the one that the client knows unless given.
        id: Option<String>,
    },
    /// `approve call_1`.
    Approve {
        /// The call; with `yields`, whichever waits unless given.
        call: Option<String>,
    },
    /// `deny call_1`.
    Deny {
        /// The call; with `yields`, whichever waits unless given.
        call: Option<String>,
    },
    /// `abort call_1`: the approval is answered with "abort".
    Abort {
        /// The call; with `yields`, whichever waits unless given.
        call: Option<String>,
    },
    /// `answer call_1 "text"`: answer a question to the user.
    Answer {
        /// The call that asked; with `yields`, whichever waits unless given.
        call: Option<String>,
        /// The answer.
        text: String,
    },
    /// `kill`: SIGKILL of the agent's process.
    Kill,
    /// `resume`: start the agent again and continue the session from its rollout.
    Resume,
    /// `drop` / `drop reset|close|end`: end the model connection held at the cut point.
    Drop(DisconnectKind),
    /// `shutdown`: ask the agent to end, and wait until it has.
    Shutdown,
    /// `hold at="point rollout.write 3" yields=2`: the task of the agent that passes the point is held
    /// there by itself, until its other tasks have had that many turns.
    Hold {
        /// `until=quiet` in place of `yields`: until nothing else can go on.
        quiet: bool,
    },
    /// `wait "50ms"`: let time pass.
    Wait {
        /// How long.
        duration: Duration,
    },
    /// `await …`: wait until the agent has sent an event.
    Await(Await),
}

impl Action {
    /// Whether the step can fire by itself as the agent passes a point.
    pub fn can_fire(&self) -> bool {
        matches!(
            self,
            Self::User { .. }
                | Self::Steer { .. }
                | Self::Replace { .. }
                | Self::Interrupt { .. }
                | Self::Approve { .. }
                | Self::Deny { .. }
                | Self::Abort { .. }
                | Self::Answer { .. }
                | Self::Drop(_)
                | Self::Hold { .. }
        ) || self.ends_agent()
    }

    /// Whether the step ends the agent.
    pub fn ends_agent(&self) -> bool {
        matches!(self, Self::Kill | Self::Shutdown)
    }
}

/// What is delivered late to the transcript view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LateEvent {
    /// `delta`: a piece of the model's message or of its reasoning.
    Delta,
    /// `message`: a whole message of the model.
    Message,
    /// `command`: the begin of a command.
    Command,
    /// `error`: an error.
    Error,
    /// `end`: the turn's terminal event.
    End,
}

/// What an `await` step waits for. Each looks at events after those that earlier awaits consumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Await {
    /// `await turn-started`.
    TurnStarted,
    /// `await turn-complete`.
    TurnComplete,
    /// `await turn-aborted reason=interrupted`.
    TurnAborted {
        /// The reason it must have, if given.
        reason: Option<AwaitedReason>,
    },
    /// `await turn-failed`.
    TurnFailed,
    /// `await turn-ended`: complete, aborted or failed, whichever comes (for races).
    TurnEnded,
    /// `await request 2`: the agent's n-th model request of the case has arrived.
    Request {
        /// Counted from 1.
        number: usize,
    },
    /// `await running call_1`.
    Running {
        /// The call.
        call: String,
    },
    /// `await exited call_1`.
    Exited {
        /// The call.
        call: String,
    },
    /// `await approval call_1`.
    Approval {
        /// The call.
        call: String,
    },
    /// `await question call_1`.
    Question {
        /// The call.
        call: String,
    },
    /// `await compacted`: the history was replaced by a summary.
    Compacted,
    /// `await output call_1 "first"`: what the user was shown of the call's output contains this.
    Output {
        /// The call.
        call: String,
        /// The text to look for.
        containing: String,
    },
    /// `await text "Hel"`: the text shown to the user contains this.
    Text {
        /// The text to look for.
        containing: String,
    },
}

/// Why a turn was aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AwaitedReason {
    /// `interrupted`: the user stopped it.
    Interrupted,
    /// `replaced`: a new turn took its place.
    Replaced,
}

/// A point at which a turn can be cut.
///
/// The grammar, as written in `at="…"`: words separated by single spaces; numbers count from 1.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CutPoint {
    /// `request 2`: the request has arrived, no header has been sent.
    Request {
        /// Which reply it will get, counted from 1.
        reply: usize,
    },
    /// `headers of reply 2`: the response's headers have been sent, no event has.
    Headers {
        /// Which reply.
        reply: usize,
    },
    /// `reply 1 event 4`: right after the event; `last delta of reply 1` and the like are `Nth`.
    StreamEvent {
        /// Which reply.
        reply: usize,
        /// Which event of its stream.
        event: usize,
    },
    /// `byte 17 of reply 1 event 3`: inside an event, after that many of its bytes.
    Byte {
        /// Which reply.
        reply: usize,
        /// Which event of its stream.
        event: usize,
        /// How many bytes of the event have been sent, at least 1.
        byte: usize,
    },
    /// `delta 2 of call_1`, `last delta of reply 1`, `first delta of reply 2`: after the n-th delta.
    Delta {
        /// Which delta.
        nth: DeltaIndex,
        /// Of which call, or of all items of which reply.
        of: DeltaSource,
    },
    /// `added of call_1`: after the item's `output_item.added`.
    Added {
        /// The call.
        call: String,
    },
    /// `done of call_1`: after the item's `output_item.done`.
    Done {
        /// The call.
        call: String,
    },
    /// `end of reply 1`: everything but the terminal event has been sent.
    End {
        /// Which reply.
        reply: usize,
    },
    /// `call_1 running`: the tool runs.
    Running {
        /// The call.
        call: String,
    },
    /// `call_1 exited`: the tool has ended, its result has not been sent to the model.
    Exited {
        /// The call.
        call: String,
    },
    /// `approval of call_1 pending`.
    Approval {
        /// The call.
        call: String,
    },
    /// `question of call_1 pending`.
    Question {
        /// The call.
        call: String,
    },
    /// `started`: the start of a turn has been acknowledged to the client.
    Started,
    /// `aborting`: an abort is under way, in its grace period.
    Aborting,
    /// `idle`: no turn is active.
    Idle,
    /// `event call-begin 2`: the agent has sent its n-th event of that kind (the first if absent).
    AgentEvent {
        /// The kind of event.
        event: AgentEventKind,
        /// Which time, counted from the start of the case.
        nth: usize,
    },
    /// `point rollout.flush` / `point rollout.flush 2`: a named point of the reference agent, n-th time (1 if absent).
    Point {
        /// Its label: letters, digits, `.`, `-` and `_`.
        label: String,
        /// Which time it is passed, counted from the start of the case.
        nth: usize,
    },
}

/// Which one of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeltaIndex {
    /// `first`, `delta 2`: counted from 1 (`first` prints as a number: `delta 1 of …`).
    At(usize),
    /// `middle`: at half of the series, rounded up.
    Middle,
    /// `last`.
    Last,
}

/// What a delta belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DeltaSource {
    /// A call's arguments or input.
    Call(String),
    /// Any item of the reply.
    Reply(usize),
}

/// An expectation beyond the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// What must hold.
    pub kind: ExpectationKind,
    /// Its place in the file.
    pub span: Span,
}

/// What can be expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpectationKind {
    /// `answered call_1 in-request=2 containing="aborted"`.
    Answered {
        /// The call.
        call: String,
        /// Which request; any later one if absent.
        in_request: Option<usize>,
        /// What the output's text contains, ignoring case.
        containing: Option<String>,
    },
    /// `no-call call_1`: no request carries this call.
    NoCall {
        /// The call.
        call: String,
    },
    /// `no-process "sleep 60"`: no process whose command line contains this outlives the scenario.
    NoProcess {
        /// Part of the command line.
        command: String,
    },
    /// `requests 2`: the exact number of model requests.
    Requests {
        /// How many.
        count: usize,
    },
    /// `markers 1 in-request=2`: number of abort markers in that request's history.
    Markers {
        /// How many.
        count: usize,
        /// Which request, counted from 1.
        in_request: usize,
    },
    /// `request 2 containing="and now?"` / `request 2 not-containing="…"`: text in that request's history.
    Request {
        /// Which request, counted from 1.
        number: usize,
        /// What a text in it contains.
        containing: Option<String>,
        /// What no text in it contains.
        not_containing: Option<String>,
    },
    /// `turns aborted complete`: how the turns ended, in order; `any` stands for either outcome.
    Turns {
        /// The outcomes.
        outcomes: Vec<ExpectedTurnEnd>,
    },
    /// `shown "task interrupted"`: a line that the user sees contains this.
    Shown {
        /// The text.
        containing: String,
    },
    /// `not-shown "Hel"`: no line that the user sees contains this.
    NotShown {
        /// The text.
        containing: String,
    },
    /// `refused 1`: number of requests that the server refused as the API would; 0 is implied.
    Refused {
        /// How many.
        count: usize,
    },
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExpectedTurnEnd {
    /// `complete`.
    Complete,
    /// `aborted`: interrupted by the user.
    Aborted,
    /// `replaced`: aborted by a new turn.
    Replaced,
    /// `failed`.
    Failed,
    /// `any`: a legal race.
    Any,
}

/// A rule set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleWaiver {
    /// The rule's id, as in `cutpoint rules`.
    pub rule: String,
    /// The place of the id.
    pub rule_span: Span,
    /// Why.
    pub because: String,
    /// Its place in the file.
    pub span: Span,
}
