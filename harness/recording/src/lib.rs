//! Recordings: what a model server answered, kept byte for byte so that it can be answered again.
//!
//! A recording is a folder. Per exchange it holds the stream as it came (`01.response.sse`), or a
//! whole body (`01.response.json`), and optionally the request (`01.request.json`); `recording.json`
//! says where all this is from. What `curl -N` prints is a valid recording as it is: a lone `.sse`
//! file, or a folder of `NN.response.sse` files.
//!
//! Floor 1 of the workspace: files and pure functions, no async, no sockets.

mod capture;
mod conversation;
mod diff;
mod file_names;
mod import;
mod load;
mod manifest;
mod mask;
mod matching;
mod model_exchanges;
mod normalise;
mod problem;
mod recording;
mod redact;
mod save;
pub mod session;
mod tool_substitutes;
mod validate;
mod validate_stream;

pub use capture::{CapturedRequest, CapturedResponse, ResponseCut};
pub use conversation::Conversation;
pub use diff::{ChangeCounts, HistoryChange, count, diff};
pub use import::{Imported, import, portable};
pub use load::LoadLimits;
pub use manifest::{FORMAT, VERSION};
pub use matching::{Match, Matcher};
pub use normalise::{NormalItem, normalise};
pub use problem::{LoadErrors, Problem, Severity};
pub use recording::{Exchange, RecordedRequest, Recording, Response};
pub use redact::{PatternError, REDACTED, RedactionReport, Redactor, find_secrets, is_credential};
pub use tool_substitutes::ToolSubstitutes;
