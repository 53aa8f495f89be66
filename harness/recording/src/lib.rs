//! Recordings: what a model server answered, kept byte for byte so that it can be answered again.
//!
//! A recording is a folder. Per exchange it holds the stream as it came (`01.response.sse`), or a
//! whole body (`01.response.json`), and optionally the request (`01.request.json`); `recording.json`
//! says where all this is from. What `curl -N` prints is a valid recording as it is: a lone `.sse`
//! file, or a folder of `NN.response.sse` files.
//!
//! Floor 1 of the workspace: files and pure functions, no async, no sockets.

mod asked;
mod capture;
mod diff;
mod files;
mod import;
mod items;
mod load;
mod manifest;
mod mask;
mod matching;
mod model;
mod normal;
mod problem;
mod redact;
mod save;
pub mod session;
mod stand_in;
mod validate;
mod validate_stream;

pub use capture::{CapturedRequest, CapturedResponse, Cut};
pub use diff::{Change, Counts, count, diff};
pub use import::{Imported, import, portable};
pub use items::Conversation;
pub use load::Limits;
pub use manifest::{FORMAT, VERSION};
pub use matching::{Match, Matcher};
pub use model::{Exchange, RecordedRequest, Recording, Response};
pub use normal::{NormalItem, normalise};
pub use problem::{LoadErrors, Problem, Severity};
pub use redact::{REDACTED, Redactor, Report, find_secrets, is_credential};
pub use stand_in::StandIns;
