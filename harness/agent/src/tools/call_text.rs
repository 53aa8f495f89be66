//! From a call of the model to a command, and from what came of it to an output.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use cutpoint_protocol::Item;
use cutpoint_protocol::item::CallKind;
use serde_json::Value;

use super::{CallError, ToolCommand};

/// The command that a call asks for.
///
/// # Errors
/// What is wrong with the call, for the model to read.
pub(crate) fn command(call: &Item, kind: CallKind, cwd: &Path) -> Result<ToolCommand, CallError> {
    let name = call.text("name").unwrap_or_default();
    match (kind, name) {
        (CallKind::Function, "shell") => from_fields(&arguments(call)?, "workdir", cwd),
        (CallKind::Function, "exec_command" | "shell_command") => {
            // The agent offers neither, but models that know other agents call them.
            let field = if name == "exec_command" {
                "cmd"
            } else {
                "command"
            };
            from_line(&arguments(call)?, field, cwd)
        }
        (CallKind::Custom, "run_script") => {
            let script = call.text("input").unwrap_or_default();
            let argv = ["bash", "-c", script].map(str::to_owned).to_vec();
            Ok(ToolCommand {
                argv,
                cwd: cwd.to_owned(),
                env: Vec::new(),
                timeout: None,
            })
        }
        (CallKind::LocalShell, _) => {
            let action = call.get("action").unwrap_or(&Value::Null);
            let mut command = from_fields(action, "working_directory", cwd)?;
            if let Some(env) = action["env"].as_object() {
                let text = |value: &Value| value.as_str().map(str::to_owned);
                let pairs = env
                    .iter()
                    .filter_map(|(name, value)| Some((name.clone(), text(value)?)));
                command.env = pairs.collect();
            }
            Ok(command)
        }
        _ => Err(format!(
            "there is no tool `{name}` of this kind; the request lists the tools there are"
        )
        .into()),
    }
}

/// Whether the user must allow the call's command first.
pub(crate) fn asks_approval(call: &Item, kind: CallKind) -> bool {
    let name = call.text("name").unwrap_or_default();
    let runs = matches!(name, "shell" | "exec_command" | "shell_command");
    let asks = |arguments: Value| arguments["sandbox_permissions"] == "require_escalated";
    kind == CallKind::Function && runs && arguments(call).is_ok_and(asks)
}

/// The arguments of a function call.
///
/// # Errors
/// What is wrong with them, for the model to read.
pub(crate) fn arguments(call: &Item) -> Result<Value, CallError> {
    let arguments = call.text("arguments").unwrap_or_default();
    serde_json::from_str(arguments)
        .map_err(|error| format!("the arguments are not valid JSON: {error}").into())
}

/// A command that is one line for a shell.
fn from_line(fields: &Value, field: &str, cwd: &Path) -> Result<ToolCommand, CallError> {
    let line = fields[field]
        .as_str()
        .ok_or_else(|| format!("`{field}` must be a string"))?;
    let words = serde_json::json!({
        "command": ["bash", "-c", line],
        "workdir": fields["workdir"],
        "timeout_ms": fields["timeout_ms"],
    });
    from_fields(&words, "workdir", cwd)
}

fn from_fields(fields: &Value, directory: &str, cwd: &Path) -> Result<ToolCommand, CallError> {
    let words = fields["command"].as_array();
    let words = words.ok_or("`command` must be an array of strings")?;
    let argv: Option<Vec<String>> = words
        .iter()
        .map(|word| word.as_str().map(str::to_owned))
        .collect();
    let argv = argv.ok_or("`command` must be an array of strings")?;
    if argv.first().is_none_or(String::is_empty) {
        return Err("`command` names no program".into());
    }
    if argv.iter().any(|word| word.contains('\0')) {
        return Err("`command` has a NUL character in it".into());
    }
    let cwd = fields[directory]
        .as_str()
        .map_or(cwd.to_owned(), |path| cwd.join(path));
    Ok(ToolCommand {
        argv,
        cwd,
        env: Vec::new(),
        timeout: fields["timeout_ms"].as_u64().map(Duration::from_millis),
    })
}

/// The output of a command that ran to its end.
pub(crate) fn completed(exit_code: Option<i32>, output: &str) -> String {
    match exit_code {
        Some(code) => format!("status: completed, exit code {code}\noutput:\n{output}"),
        None => format!("status: failed, ended by a signal\noutput:\n{output}"),
    }
}

/// The output of a command that took too long.
pub(crate) fn timed_out(limit: Duration, output: &str) -> String {
    let limit_ms = limit.as_millis();
    format!("status: failed, killed after {limit_ms} ms\noutput so far:\n{output}")
}

/// The output of a call that could not be carried out.
pub(crate) fn failed(why: impl Display) -> String {
    format!("status: failed, nothing was run\nerror: {why}")
}

/// The output of a call that was cut off.
pub(crate) fn aborted(started: bool, output: &str) -> String {
    match (started, output) {
        (false, _) => "status: aborted before it was started".to_owned(),
        (true, "") => "status: aborted while it ran; it had printed nothing".to_owned(),
        (true, output) => format!("status: aborted while it ran\noutput so far:\n{output}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<ToolCommand, CallError> {
        let call = Item::from_value(value).unwrap();
        let kind = call.call_kind().unwrap();
        command(&call, kind, Path::new("/w"))
    }

    #[test]
    fn calls_become_commands() {
        let shell = |arguments: Value| {
            read(
                json!({"type": "function_call", "call_id": "c", "name": "shell", "arguments": arguments.to_string()}),
            )
        };
        let command =
            shell(json!({"command": ["ls", "-l"], "workdir": "sub", "timeout_ms": 5})).unwrap();
        assert_eq!(command.argv, ["ls", "-l"]);
        assert_eq!(command.cwd, Path::new("/w/sub"));
        assert_eq!(command.timeout, Some(Duration::from_millis(5)));
        for bad in [
            json!({}),
            json!({"command": []}),
            json!({"command": "ls"}),
            json!({"command": [1]}),
            json!([]),
            json!({"command": ["a\0b"]}),
        ] {
            assert!(shell(bad.clone()).is_err(), "{bad}");
        }
        for (name, field) in [("exec_command", "cmd"), ("shell_command", "command")] {
            let call = |arguments: Value| {
                read(
                    json!({"type": "function_call", "call_id": "c", "name": name, "arguments": arguments.to_string()}),
                )
            };
            let command = call(json!({field: "ls | wc", "workdir": "sub"})).unwrap();
            assert_eq!(command.argv, ["bash", "-c", "ls | wc"]);
            assert_eq!(command.cwd, Path::new("/w/sub"));
            assert!(call(json!({field: ["ls"]})).is_err());
        }
        let local = read(json!({"type": "local_shell_call", "call_id": "c", "action": {"type": "exec", "command": ["env"], "env": {"A": "1"}, "working_directory": "/x"}})).unwrap();
        assert_eq!((local.cwd.as_path(), local.env.len()), (Path::new("/x"), 1));
        let script = read(json!({"type": "custom_tool_call", "call_id": "c", "name": "run_script", "input": "echo"})).unwrap();
        assert_eq!(script.argv, ["bash", "-c", "echo"]);
        assert!(
            read(
                json!({"type": "function_call", "call_id": "c", "name": "fly", "arguments": "{}"})
            )
            .unwrap_err()
            .to_string()
            .contains("fly")
        );
        assert!(
            read(
                json!({"type": "function_call", "call_id": "c", "name": "shell", "arguments": "{"})
            )
            .is_err()
        );
    }

    #[test]
    fn an_aborted_output_never_claims_more() {
        for text in [aborted(false, ""), aborted(true, ""), aborted(true, "half")] {
            assert!(
                text.contains("aborted")
                    && !text.contains("completed")
                    && !text.contains("exit code")
            );
        }
    }
}
