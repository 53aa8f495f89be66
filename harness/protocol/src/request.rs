//! Requests to the Responses API.

use std::cell::RefCell;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::event::EventError;
use crate::field::{field, text};
use crate::item::{Item, ItemKind};
use crate::memo::{HeapSize, Memo, json_heap_bytes};

thread_local! {
    static READ: RefCell<Memo<ResponsesRequest>> = RefCell::default();
}

/// A request's body, kept verbatim, with its input read.
#[derive(Debug, Clone, PartialEq)]
pub struct ResponsesRequest {
    /// The whole body, a JSON object.
    pub body: Arc<Value>,
    /// The items of `input`; a plain string is one user message.
    pub input: Arc<[Item]>,
}

impl HeapSize for ResponsesRequest {
    fn heap_bytes(&self) -> usize {
        let items = self.input.iter().map(Item::heap_bytes).sum::<usize>();
        size_of::<Value>() + json_heap_bytes(&self.body) + size_of_val(&*self.input) + items
    }
}

/// Why a body is not a request of the Responses API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The body is not JSON.
    #[error("We could not parse the JSON body of your request: {0}")]
    Json(String),
    /// The body is JSON of another type.
    #[error("The request's body is not a JSON object.")]
    NotAnObject,
    /// `input` is neither a string nor an array.
    #[error("Invalid type for 'input': expected a string or an array.")]
    InputType,
    /// An element of `input` is not an item.
    #[error("Invalid 'input[{at}]': {error}.")]
    Item {
        /// Its position in `input`, counted from 0.
        at: usize,
        /// What is wrong with it.
        error: EventError,
    },
}

/// The tool through which the model runs a command, as the request advertises it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ShellTool {
    /// A function (`shell`, `container.exec`) that takes `command` as a list of words.
    Words(&'static str),
    /// A function (`shell_command`) that takes `command` as one line.
    Line,
    /// A function (`exec_command`) that takes `cmd` as one line.
    Exec,
    /// The built-in `local_shell` tool.
    LocalShell,
}

impl ShellTool {
    /// The arguments with which this tool runs a command line; `None` for the built-in tool, whose
    /// calls are items of their own kind. With `asks_approval` the model asks for more than the
    /// sandbox allows, which makes Codex ask its user (`sandbox_permissions`, seen in 0.169).
    pub fn call(self, command: &str, asks_approval: bool) -> Option<(&'static str, String)> {
        let (name, mut arguments) = match self {
            Self::Words(name) => (name, json!({"command": ["bash", "-c", command]})),
            Self::Line => ("shell_command", json!({"command": command})),
            Self::Exec => ("exec_command", json!({"cmd": command})),
            Self::LocalShell => return None,
        };
        if asks_approval {
            arguments["sandbox_permissions"] = json!("require_escalated");
            arguments["justification"] = json!("The command needs more than the sandbox allows.");
        }
        Some((name, arguments.to_string()))
    }
}

impl ResponsesRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// If the body is not JSON, not an object, or its `input` is not a list of items.
    pub fn parse(body: &[u8]) -> Result<Self, RequestError> {
        READ.with_borrow_mut(|memo| memo.read(body, || Self::parse_anew(body)))
    }

    fn parse_anew(body: &[u8]) -> Result<Self, RequestError> {
        let value: Value =
            serde_json::from_slice(body).map_err(|error| RequestError::Json(error.to_string()))?;
        if !value.is_object() {
            return Err(RequestError::NotAnObject);
        }
        let input = match value.get("input") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(text)) => vec![Item::user_text(text)],
            Some(Value::Array(values)) => read_items(values)?,
            Some(_) => return Err(RequestError::InputType),
        };
        Ok(Self {
            body: Arc::new(value),
            input: input.into(),
        })
    }

    /// Whether the answer is to be streamed.
    pub fn stream(&self) -> bool {
        field(&self.body, "stream") == Some(&Value::Bool(true))
    }

    /// The response that this request continues.
    pub fn previous_response_id(&self) -> Option<&str> {
        text(&self.body, "previous_response_id")
    }

    /// The model asked for.
    pub fn model(&self) -> &str {
        text(&self.body, "model").unwrap_or("unknown-model")
    }

    /// Whether the model may call a tool of that name. With some models Codex reports its tools in the
    /// history, and of some by groups.
    pub fn advertises(&self, name: &str) -> bool {
        let named = self
            .input
            .iter()
            .filter(|item| item.kind() == Some(ItemKind::AdditionalTools));
        let told = named.filter_map(|item| item.get("tools"));
        field(&self.body, "tools")
            .into_iter()
            .chain(told)
            .any(|tools| has_tool(tools, name))
    }

    /// The tool with which the model can run a command, in the order of preference of the field.
    pub fn shell_tool(&self) -> Option<ShellTool> {
        let tools = field(&self.body, "tools")?.as_array()?;
        let any = |name: &str, wanted: &str| {
            let mut tools = tools.iter();
            tools.any(|tool| text(tool, name) == Some(wanted))
        };
        let has = |wanted: &str| any("name", wanted);
        if has("exec_command") {
            Some(ShellTool::Exec)
        } else if has("shell_command") {
            Some(ShellTool::Line)
        } else if has("shell") {
            Some(ShellTool::Words("shell"))
        } else if has("container.exec") {
            Some(ShellTool::Words("container.exec"))
        } else {
            any("type", "local_shell").then_some(ShellTool::LocalShell)
        }
    }
}

fn has_tool(tools: &Value, name: &str) -> bool {
    let is_it = |tool: &Value| {
        text(tool, "name") == Some(name)
            || field(tool, "tools").is_some_and(|group| has_tool(group, name))
    };
    tools
        .as_array()
        .is_some_and(|tools| tools.iter().any(is_it))
}

fn read_items(values: &[Value]) -> Result<Vec<Item>, RequestError> {
    let read = |(at, value): (usize, &Value)| {
        Item::from_value(value.clone()).map_err(|error| RequestError::Item { at, error })
    };
    values.iter().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_one_user_message() {
        let request = ResponsesRequest::parse(br#"{"input":"hi","stream":true}"#).unwrap();
        assert_eq!(*request.input, [Item::user_text("hi")]);
        assert!(request.stream());
    }

    #[test]
    fn the_advertised_shell_tool_is_found() {
        let with = |tools: Value| {
            let body = json!({"tools": tools}).to_string();
            ResponsesRequest::parse(body.as_bytes())
                .unwrap()
                .shell_tool()
        };
        let function = |name: &str| json!([{"type": "function", "name": name}]);
        assert_eq!(with(function("shell")), Some(ShellTool::Words("shell")));
        assert_eq!(with(function("exec_command")), Some(ShellTool::Exec));
        assert_eq!(
            with(json!([{"type": "local_shell"}])),
            Some(ShellTool::LocalShell)
        );
        assert_eq!(with(function("web")), None);
    }

    #[test]
    fn tools_are_found_in_groups_and_in_the_history() {
        let group =
            json!([{"type": "namespace", "name": "functions", "tools": [{"name": "exec"}]}]);
        let item = json!({"type": "additional_tools", "role": "developer", "tools": group});
        let body = json!({"tools": [{"name": "shell"}], "input": [item]}).to_string();
        let request = ResponsesRequest::parse(body.as_bytes()).unwrap();
        assert!(request.advertises("shell") && request.advertises("exec"));
        assert!(!request.advertises("apply_patch"));
    }

    #[test]
    fn what_is_no_request_says_why() {
        for body in ["", "[]", r#"{"input":3}"#, r#"{"input":[{"x":1}]}"#] {
            assert!(ResponsesRequest::parse(body.as_bytes()).is_err(), "{body}");
        }
    }
}
