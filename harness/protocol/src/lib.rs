//! What an agent and the Responses API say to each other, as plain data.
//!
//! Floor 0 of the workspace: no async, no I/O, no opinion about what is right. Everything that is
//! read keeps what it does not know verbatim, so that passing a message on never loses a field.

mod event_table;
mod item_table;

pub mod api_error;
pub mod compose;
pub mod event;
pub mod field;
pub mod field_spec;
pub mod headers;
pub mod ids;
pub mod item;
pub mod marker;
pub mod memo;
pub mod pairing;
pub mod request;
pub mod rollout;
pub mod session;
pub mod sse;

pub use event::{EventKind, StreamEvent};
pub use ids::{CallId, ConversationId, ItemId, ResponseId, SubmissionId, TurnId};
pub use item::{Item, ItemKind};
