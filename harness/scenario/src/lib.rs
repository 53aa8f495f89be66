//! cutpoint's scenario language: its syntax tree, parser, printer, layout and diagnostics.
//!
//! A text goes through three stages. The syntax check looks at KDL's tokens and refuses what is
//! malformed or would exhaust the KDL library; the library turns the rest into a document; and
//! the reader turns the document into scenarios, collecting every mistake on the way.

pub mod ast;
pub mod suggest;

mod agent_event_kind;
mod check;
mod cut_point;
mod diagnostic;
mod format;
mod lex;
mod names;
mod parse;
mod print;
mod read;
mod spelling;
mod syntax;
mod tree;
mod word;

pub use cut_point::CutPointError;
pub use diagnostic::{Diagnostic, Diagnostics};
pub use format::format;
pub use parse::{SOURCE_LIMIT_BYTES, parse, parse_bytes};
pub use print::{fingerprint_text, print};
