//! cutpoint's scenario language.

pub mod ast;
