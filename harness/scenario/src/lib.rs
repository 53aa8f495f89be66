//! cutpoint's scenario language: its syntax tree, parser, printer, layout and diagnostics.
//!
//! A text goes through two stages. `kdl` turns it into nodes, or refuses what is malformed or
//! too large; and the reader turns the nodes into scenarios, collecting every mistake on the way.

pub mod ast;
pub mod suggest;

mod agent_event_kind;
mod consistency;
mod cut_point;
mod diagnostic;
mod format;
mod kdl;
mod keywords;
mod parse;
mod print;
mod reader;
mod spelling;
mod waivers;

pub use cut_point::CutPointError;
pub use diagnostic::{Diagnostic, Diagnostics};
pub use format::format;
pub use parse::{SOURCE_LIMIT_BYTES, parse, parse_bytes};
pub use print::{fingerprint_text, print};
pub use waivers::check_waivers;
