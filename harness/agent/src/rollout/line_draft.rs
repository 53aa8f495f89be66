//! Rollout lines before the writer gives them their ordinal and time.

use cutpoint_protocol::Item;
use cutpoint_protocol::ids::{ConversationId, TurnId};
use cutpoint_protocol::session::AbortReason;
use serde::Serialize;

/// A line to be written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LineDraft {
    pub(crate) kind: &'static str,
    pub(crate) payload: LinePayload,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum LinePayload {
    /// An item, shared with the history.
    Item(Item),
    /// What session this is.
    Meta {
        id: ConversationId,
        cwd: String,
        originator: &'static str,
        cli_version: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        forked_from: Option<ConversationId>,
    },
    /// What a turn works with.
    Context {
        turn_id: TurnId,
        cwd: String,
        model: String,
    },
    /// A summary, and what the history is from there on.
    Compacted {
        message: String,
        replacement_history: Vec<Item>,
    },
    /// Something that happened, for people.
    RolloutEvent(RolloutEvent),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum RolloutEvent {
    TurnStarted {
        turn_id: TurnId,
    },
    UserMessage {
        turn_id: TurnId,
        message: String,
        /// Whether a turn begins with it: a later rollback finds the turn by that.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        opens_turn: bool,
    },
    AgentMessage {
        turn_id: TurnId,
        message: String,
    },
    TokenCount {
        turn_id: TurnId,
        input_tokens: u64,
        output_tokens: u64,
    },
    TurnComplete {
        turn_id: TurnId,
        last_agent_message: Option<String>,
    },
    TurnAborted {
        turn_id: TurnId,
        reason: AbortReason,
    },
    TurnFailed {
        turn_id: TurnId,
        message: String,
    },
    ThreadRolledBack {
        num_turns: usize,
    },
}

impl From<RolloutEvent> for LineDraft {
    fn from(event: RolloutEvent) -> Self {
        Self {
            kind: "event_msg",
            payload: LinePayload::RolloutEvent(event),
        }
    }
}

impl LineDraft {
    pub(crate) fn session_meta(
        id: &ConversationId,
        cwd: &str,
        forked_from: Option<&ConversationId>,
    ) -> Self {
        let payload = LinePayload::Meta {
            id: id.clone(),
            cwd: cwd.to_owned(),
            originator: "cutpoint-agent",
            cli_version: env!("CARGO_PKG_VERSION"),
            forked_from: forked_from.cloned(),
        };
        Self {
            kind: "session_meta",
            payload,
        }
    }

    pub(crate) fn turn_context(turn_id: &TurnId, cwd: &str, model: &str) -> Self {
        let payload = LinePayload::Context {
            turn_id: turn_id.clone(),
            cwd: cwd.to_owned(),
            model: model.to_owned(),
        };
        Self {
            kind: "turn_context",
            payload,
        }
    }

    pub(crate) fn item(item: &Item) -> Self {
        Self {
            kind: "response_item",
            payload: LinePayload::Item(item.clone()),
        }
    }

    pub(crate) fn turn_started(turn_id: &TurnId) -> Self {
        let turn_id = turn_id.clone();
        RolloutEvent::TurnStarted { turn_id }.into()
    }

    /// A user's message: as an item for the model, and as an event for people.
    pub(crate) fn user_input(turn_id: &TurnId, item: &Item) -> [Self; 2] {
        Self::from_user(turn_id, item, false)
    }

    /// The message that opens a turn.
    pub(crate) fn opening(turn_id: &TurnId, item: &Item) -> [Self; 2] {
        Self::from_user(turn_id, item, true)
    }

    fn from_user(turn_id: &TurnId, item: &Item, opens_turn: bool) -> [Self; 2] {
        let message = RolloutEvent::UserMessage {
            turn_id: turn_id.clone(),
            message: item.all_text().to_owned(),
            opens_turn,
        };
        [Self::item(item), message.into()]
    }

    pub(crate) fn compacted(summary: &str, items: &[Item]) -> Self {
        let payload = LinePayload::Compacted {
            message: summary.to_owned(),
            replacement_history: items.to_vec(),
        };
        Self {
            kind: "compacted",
            payload,
        }
    }

    pub(crate) fn rolled_back(num_turns: usize) -> Self {
        RolloutEvent::ThreadRolledBack { num_turns }.into()
    }

    pub(crate) fn agent_message(turn_id: &TurnId, message: &str) -> Self {
        let (turn_id, message) = (turn_id.clone(), message.to_owned());
        RolloutEvent::AgentMessage { turn_id, message }.into()
    }

    pub(crate) fn token_count(turn_id: &TurnId, input_tokens: u64, output_tokens: u64) -> Self {
        let event = RolloutEvent::TokenCount {
            turn_id: turn_id.clone(),
            input_tokens,
            output_tokens,
        };
        event.into()
    }

    pub(crate) fn turn_complete(turn_id: &TurnId, last_agent_message: Option<&str>) -> Self {
        let event = RolloutEvent::TurnComplete {
            turn_id: turn_id.clone(),
            last_agent_message: last_agent_message.map(str::to_owned),
        };
        event.into()
    }

    pub(crate) fn turn_aborted(turn_id: &TurnId, reason: AbortReason) -> Self {
        let turn_id = turn_id.clone();
        RolloutEvent::TurnAborted { turn_id, reason }.into()
    }

    pub(crate) fn turn_failed(turn_id: &TurnId, message: &str) -> Self {
        let (turn_id, message) = (turn_id.clone(), message.to_owned());
        RolloutEvent::TurnFailed { turn_id, message }.into()
    }
}
