//! KDL 2, read by a lexer and a parser of our own.
//!
//! The `kdl` crate does not fit a tool that reads files written by hand or given by mistake:
//! it recovers from a mistake by guessing and then points at the guess, its stack grows with
//! stray brackets, long comments and nested blocks, and a document that it prints again has lost
//! the comments after a block. Here every mistake gets a caret at the character that is wrong and
//! advice in the terms of a scenario, nesting and sizes have limits, and the tokens that the
//! parser reads are the ones that `format` lays out again.
//!
//! Not read, because no scenario has a use for it: type annotations, `(type)value`.

mod bare_word;
mod lexer;
mod node;
mod parser;
mod string;

pub(crate) use bare_word::is_bare;
pub(crate) use lexer::{PROBLEM_LIMIT, Token, TokenKind, is_disallowed, is_newline, is_space, lex};
pub(crate) use node::{Arg, Block, Node, Value};
pub(crate) use parser::parse;
