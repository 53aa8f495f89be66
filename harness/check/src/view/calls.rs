//! Calls: what the model emitted of them, and what their tools did.

use cutpoint_protocol::field::{field, text};
use serde_json::Value;

use super::At;
use super::exchanges::{Exchange, Role};
use super::turns::Turns;
use crate::fast_hash::HashMap;
use cutpoint_trace::{AgentEvent, ClientOp, Decision, Observation};

/// A call that the model emitted whole.
#[derive(Debug, Clone, Copy)]
pub struct Emitted<'a> {
    /// Where.
    pub at: At,
    /// The call's item.
    pub item: &'a Value,
}

/// The event that a call's tool ended.
#[derive(Debug, Clone, Copy)]
pub struct CallEnding<'a> {
    /// The event.
    pub at: At,
    /// The exit code; absent if the tool was cut off.
    pub exit_code: Option<i32>,
    /// What the tool printed.
    pub output: &'a str,
}

/// The user's answer to the question whether a call may run.
#[derive(Debug, Clone, Copy)]
pub struct Approval<'a> {
    /// The op.
    pub at: At,
    /// The call.
    pub call_id: &'a str,
    /// The answer.
    pub decision: Decision,
    /// Whether something was held at a cut point when it was given.
    pub held: bool,
}

/// The user's answer to a question.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// The op.
    pub at: At,
    /// The call that asked.
    pub call_id: &'a str,
    /// The answer.
    pub text: &'a str,
}

/// A call.
#[derive(Debug)]
pub struct Call<'a> {
    /// Its id.
    pub id: &'a str,
    /// Each time that the model emitted it whole.
    pub emitted: Vec<Emitted<'a>>,
    /// Where its item was first added to a response.
    pub added: Option<At>,
    /// The conversation in which it was emitted or added, or else the one of the newest request
    /// when it was first seen.
    pub conversation: Option<usize>,
    /// Where the user was asked whether it may run.
    pub asked: Option<At>,
    /// Where the user was asked its questions.
    pub questioned: Option<At>,
    /// Where its tool began.
    pub begun: Option<At>,
    /// Where its tool ended, each time that the agent said so.
    pub endings: Vec<CallEnding<'a>>,
    /// Pieces of its output that the client was shown, each with its event.
    pub shown: Vec<(At, &'a str)>,
    /// The first request that carries an output for it, as an index into the view's exchanges.
    pub answered: Option<usize>,
    /// The turn that it belongs to.
    pub turn: Option<usize>,
}

impl Call<'_> {
    /// Whether the agent said, before an entry, that its tool had ended.
    pub fn ended_before(&self, at: At) -> bool {
        self.endings.first().is_some_and(|ending| ending.at < at)
    }
}

/// Follows calls through a trace.
#[derive(Debug, Default)]
pub(super) struct Calls<'a> {
    pub(super) calls: Vec<Call<'a>>,
    pub(super) ids: HashMap<&'a str, usize>,
    pub(super) approvals: Vec<Approval<'a>>,
    pub(super) answers: Vec<Answer<'a>>,
    /// The conversation of each exchange.
    conversations: HashMap<usize, usize>,
    newest: Option<usize>,
}

impl<'a> Calls<'a> {
    pub(super) fn entry(&mut self, at: At, what: &'a Observation, turns: &mut Turns<'a>) {
        match what {
            Observation::Request {
                exchange,
                conversation,
                ..
            } => {
                self.conversations.insert(*exchange, *conversation);
                self.newest = Some(*conversation);
            }
            Observation::Sent { exchange, data, .. } => self.sent(at, *exchange, data, turns),
            Observation::ResponseBody { exchange, body } => self.output(at, *exchange, body, turns),
            Observation::Event { event, .. } => self.event(at, event, turns),
            Observation::Op {
                op: ClientOp::Approval { call_id, decision },
                ..
            } => self.approvals.push(Approval {
                at,
                call_id,
                decision: *decision,
                held: turns.holds(),
            }),
            Observation::Op {
                op: ClientOp::Answer { call_id, text },
                ..
            } => self.answers.push(Answer { at, call_id, text }),
            _ => {}
        }
    }

    /// Notes which calls a request answers.
    pub(super) fn request(&mut self, index: usize, exchange: &Exchange<'a>) {
        for role in &exchange.roles {
            if let Role::Output(id) = role
                && let Some(call) = self.ids.get(id)
            {
                self.calls[*call].answered.get_or_insert(index);
            }
        }
    }

    fn sent(&mut self, at: At, exchange: usize, data: &'a Value, turns: &mut Turns<'a>) {
        match text(data, "type") {
            Some("response.output_item.done") => {
                self.emitted(at, exchange, field(data, "item"), turns);
            }
            Some("response.output_item.added") => {
                if let Some((id, _)) = field(data, "item").and_then(call) {
                    let call = self.known(id, self.conversation(exchange), turns);
                    self.calls[call].added.get_or_insert(at);
                }
            }
            Some("response.completed") => {
                if let Some(response) = field(data, "response") {
                    self.output(at, exchange, response, turns);
                }
            }
            _ => {}
        }
    }

    fn output(&mut self, at: At, exchange: usize, response: &'a Value, turns: &mut Turns<'a>) {
        let output = field(response, "output").and_then(Value::as_array);
        for item in output.into_iter().flatten() {
            self.emitted(at, exchange, Some(item), turns);
        }
    }

    fn emitted(&mut self, at: At, exchange: usize, item: Option<&'a Value>, turns: &mut Turns<'a>) {
        if let Some((id, item)) = item.and_then(call) {
            let call = self.known(id, self.conversation(exchange), turns);
            let emitted = &mut self.calls[call].emitted;
            // The response's last event repeats what its items' own events said.
            if emitted.last().is_none_or(|last| last.item != item) {
                emitted.push(Emitted { at, item });
            }
        }
    }

    /// Takes an event. What a sub-agent's tool does is of the turn that started the sub-agent; what
    /// it asks is not asked by an event that is merely forwarded.
    fn event(&mut self, at: At, told: &'a AgentEvent, turns: &mut Turns<'a>) {
        let event = match told {
            AgentEvent::SubAgentEvent { event, .. } => match event.as_ref() {
                AgentEvent::ApprovalRequest { .. } | AgentEvent::Question { .. } => return,
                event => event,
            },
            event => event,
        };
        let (AgentEvent::ApprovalRequest { call_id, .. }
        | AgentEvent::Question { call_id, .. }
        | AgentEvent::CallBegin { call_id, .. }
        | AgentEvent::CallOutput { call_id, .. }
        | AgentEvent::CallEnd { call_id, .. }) = event
        else {
            return;
        };
        let index = self.known(call_id, self.newest, turns);
        let call = &mut self.calls[index];
        match event {
            AgentEvent::CallOutput { chunk, .. } => call.shown.push((at, chunk)),
            AgentEvent::CallEnd {
                exit_code, output, ..
            } => call.endings.push(CallEnding {
                at,
                exit_code: *exit_code,
                output,
            }),
            _ => {
                let first = match event {
                    AgentEvent::ApprovalRequest { .. } => &mut call.asked,
                    AgentEvent::Question { .. } => &mut call.questioned,
                    _ => &mut call.begun,
                };
                first.get_or_insert(at);
                // The event knows better than the moment at which the call was emitted.
                if let Some(turn) = turns.named(told)
                    && call.turn != Some(turn)
                {
                    call.turn = Some(turn);
                    turns.turns[turn].calls.push(index);
                }
            }
        }
    }

    fn conversation(&self, exchange: usize) -> Option<usize> {
        self.conversations.get(&exchange).copied().or(self.newest)
    }

    fn known(&mut self, id: &'a str, conversation: Option<usize>, turns: &mut Turns<'a>) -> usize {
        if let Some(index) = self.ids.get(id) {
            return *index;
        }
        let index = self.calls.len();
        let turn = turns.active();
        self.calls.push(Call {
            id,
            emitted: Vec::new(),
            added: None,
            conversation,
            asked: None,
            questioned: None,
            begun: None,
            endings: Vec::new(),
            shown: Vec::new(),
            answered: None,
            turn,
        });
        if let Some(turn) = turn {
            turns.turns[turn].calls.push(index);
        }
        self.ids.insert(id, index);
        index
    }
}

/// The call id of a call's item, with the item.
fn call(item: &Value) -> Option<(&str, &Value)> {
    let kind = text(item, "type")?;
    if !matches!(
        kind,
        "function_call" | "custom_tool_call" | "local_shell_call"
    ) {
        return None;
    }
    let id = text(item, "call_id")?;
    (!id.is_empty()).then_some((id, item))
}
