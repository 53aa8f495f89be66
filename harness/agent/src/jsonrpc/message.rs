//! JSON-RPC messages: what a line says, what is written back.

use serde_json::{Value, json};
use tokio::sync::mpsc;

/// An error as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RpcError {
    code: i32,
    message: String,
}

impl RpcError {
    fn new(code: i32, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message }
    }

    /// The line is not JSON.
    pub(super) fn parse(message: impl Into<String>) -> Self {
        Self::new(-32700, message)
    }

    /// The request is none, or none that can be carried out as things are.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(-32600, message)
    }

    /// The method is not known.
    pub(super) fn method(name: &str) -> Self {
        Self::new(-32601, format!("there is no method `{name}`"))
    }

    /// The method can't do anything with the parameters.
    pub(super) fn params(message: impl Into<String>) -> Self {
        Self::new(-32602, message)
    }

    /// The agent itself is in trouble.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(-32603, message)
    }
}

/// What a line says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum RpcMessage {
    /// To be answered under this id.
    Request {
        id: Value,
        method: String,
        params: Value,
    },
    /// Not to be answered, whatever it says.
    Notification,
    /// The answer to a request of the agent's; null in place of a result if there is none.
    Reply { id: Value, result: Value },
}

/// Reads a line. An error comes with the id that it is to be sent under.
pub(super) fn read(line: &[u8]) -> Result<RpcMessage, (Value, RpcError)> {
    let message: Value = serde_json::from_slice(line).map_err(|fault| {
        let message = format!("the line is no JSON: {fault}");
        (Value::Null, RpcError::parse(message))
    })?;
    let Value::Object(mut fields) = message else {
        let fault = RpcError::invalid("a message is an object");
        return Err((Value::Null, fault));
    };
    let id = fields.remove("id");
    let usable = match &id {
        None => true,
        Some(id) => id.is_string() || id.is_number(),
    };
    if !usable {
        let fault = RpcError::invalid("an id is a string or a number");
        return Err((Value::Null, fault));
    }
    match (fields.remove("method"), id) {
        (Some(Value::String(method)), Some(id)) => {
            let params = fields.remove("params").unwrap_or(Value::Null);
            Ok(RpcMessage::Request { id, method, params })
        }
        (Some(Value::String(_)), None) => Ok(RpcMessage::Notification),
        (None, Some(id)) if fields.contains_key("result") || fields.contains_key("error") => {
            let result = fields.remove("result").unwrap_or(Value::Null);
            Ok(RpcMessage::Reply { id, result })
        }
        (_, id) => {
            let fault = RpcError::invalid("the message has no method and answers nothing");
            Err((id.unwrap_or(Value::Null), fault))
        }
    }
}

/// The way to the client. A full one makes the sender wait; a client that is gone is not an error here,
/// as the writer ends the agent for it.
#[derive(Debug, Clone)]
pub(super) struct Outbox(mpsc::Sender<Value>);

impl Outbox {
    pub(super) fn new(sender: mpsc::Sender<Value>) -> Self {
        Self(sender)
    }

    pub(super) async fn send(&self, message: Value) {
        let _ = self.0.send(message).await;
    }

    /// Answers a request.
    pub(super) async fn answer(&self, id: Value, answer: Result<Value, RpcError>) {
        self.send(answer_to(id, answer)).await;
    }
}

/// The answer to a request.
pub(super) fn answer_to(id: Value, answer: Result<Value, RpcError>) -> Value {
    match answer {
        Ok(result) => json!({"id": id, "result": result}),
        Err(RpcError { code, message }) => {
            json!({"id": id, "error": {"code": code, "message": message}})
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart() {
        let request = read(br#"{"jsonrpc":"2.0","id":"a","method":"m","params":[1]}"#).unwrap();
        let expected = RpcMessage::Request {
            id: json!("a"),
            method: "m".to_owned(),
            params: json!([1]),
        };
        assert_eq!(request, expected);
        let notification = read(br#"{"method":"initialized"}"#);
        assert_eq!(notification, Ok(RpcMessage::Notification));
        let reply = read(br#"{"id":3,"error":{"code":1}}"#).unwrap();
        let (id, result) = (json!(3), Value::Null);
        assert_eq!(reply, RpcMessage::Reply { id, result });
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        let cases: [(&[u8], Value, i32); 8] = [
            (b"{", Value::Null, -32700),
            (b"\xFF", Value::Null, -32700),
            (b"[]", Value::Null, -32600),
            (br#"{"id":{},"method":"m"}"#, Value::Null, -32600),
            (br#"{"id":null,"method":"m"}"#, Value::Null, -32600),
            (br#"{"id":1,"method":7}"#, json!(1), -32600),
            (br#"{"id":1}"#, json!(1), -32600),
            (b"{}", Value::Null, -32600),
        ];
        for (line, id, code) in cases {
            let (found, error) = read(line).unwrap_err();
            let shown = String::from_utf8_lossy(line).into_owned();
            assert_eq!((found, error.code), (id, code), "{shown}");
        }
    }
}
