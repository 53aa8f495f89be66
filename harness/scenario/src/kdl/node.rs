//! A KDL document as plain data with exact places.

use std::ops::Range;

/// A node.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) name_span: Range<usize>,
    /// The whole node with its block.
    pub(crate) span: Range<usize>,
    pub(crate) args: Vec<Arg>,
    pub(crate) props: Vec<Prop>,
    pub(crate) block: Option<Block>,
}

/// A node's children.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    /// The opening brace.
    pub(crate) open: Range<usize>,
    /// One past the closing brace.
    pub(crate) end: usize,
    pub(crate) nodes: Vec<Node>,
}

/// An argument, or a property's value.
#[derive(Debug, Clone)]
pub(crate) struct Arg {
    pub(crate) value: Value,
    pub(crate) span: Range<usize>,
    /// Where the text begins, when every byte of it stands in the source as it is.
    pub(crate) content: Option<usize>,
}

/// A property.
#[derive(Debug, Clone)]
pub(crate) struct Prop {
    pub(crate) name: String,
    pub(crate) name_span: Range<usize>,
    pub(crate) value: Arg,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Integer(i128),
    Float(f64),
    Bool(bool),
    Null,
}

impl Value {
    /// What the value is, in words.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "a number",
            Self::Float(_) => "a fraction",
            Self::Bool(_) => "a truth value",
            Self::Null => "`#null`",
        }
    }
}
