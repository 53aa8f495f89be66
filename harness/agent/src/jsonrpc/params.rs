//! The parameters of requests.

use std::path::PathBuf;

use cutpoint_protocol::session::InputItem;
use serde_json::Value;

use super::message::RpcError;

/// A request's parameters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Params<'a>(pub(super) &'a Value);

impl Params<'_> {
    /// A text that must be there.
    pub(super) fn text(self, name: &str) -> Result<String, RpcError> {
        self.optional_text(name)?
            .ok_or_else(|| RpcError::params(format!("`{name}` is missing")))
    }

    /// A text that may be missing, or null.
    pub(super) fn optional_text(self, name: &str) -> Result<Option<String>, RpcError> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(RpcError::params(format!("`{name}` is no string"))),
        }
    }

    /// A flag, off unless given.
    pub(super) fn flag(self, name: &str) -> Result<bool, RpcError> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(on)) => Ok(*on),
            Some(_) => Err(RpcError::params(format!(
                "`{name}` is neither true nor false"
            ))),
        }
    }

    /// A number that must be there.
    pub(super) fn number(self, name: &str) -> Result<u64, RpcError> {
        let number = self.0.get(name).and_then(Value::as_u64);
        number.ok_or_else(|| RpcError::params(format!("`{name}` is no number")))
    }

    /// A path that must be there.
    pub(super) fn path(self, name: &str) -> Result<PathBuf, RpcError> {
        self.text(name).map(PathBuf::from)
    }

    /// User input: `"input": [{"type": "text", "text": "…"}]`.
    pub(super) fn input(self) -> Result<Vec<InputItem>, RpcError> {
        let input = self.0.get("input").cloned().unwrap_or(Value::Null);
        serde_json::from_value(input)
            .map_err(|fault| RpcError::params(format!("`input` is no user input: {fault}")))
    }
}
