//! What became of a call, whatever words an agent has put it in, and a command that gives the same.
//!
//! What a session once ran must not run again because it is imported: every call of an import is
//! replaced by a command that prints what was recorded, and does nothing else.

use std::collections::HashMap;
use std::fmt::Write as _;

use cutpoint_protocol::Item;
use cutpoint_protocol::item::CallKind;
use serde_json::{Value, json};

/// Linux takes no word of a command line above 128 KiB.
const COMMAND_LIMIT_BYTES: usize = 100_000;

/// How a stand-in that was cut off ends: it waits to be cut off again.
const WAITS: &str = "sleep 60";

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CallOutcome {
    /// What the tool printed.
    pub(crate) text: String,
    /// How it ended; `None` if it was cut off.
    pub(crate) exit_code: Option<i32>,
}

impl CallOutcome {
    fn ended(exit_code: i32, text: &str) -> Self {
        Self {
            text: text.to_owned(),
            exit_code: Some(exit_code),
        }
    }

    pub(crate) fn cut(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            exit_code: None,
        }
    }

    /// Reads an output item.
    pub(crate) fn of(output: &Item) -> Self {
        let text = match output.get("output") {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Object(map)) if map.get("content").is_some_and(Value::is_string) => {
                map["content"].as_str().unwrap_or_default().to_owned()
            }
            _ => output.all_text().to_owned(),
        };
        Self::read(&text)
    }

    /// Reads the words that an agent put around what a tool printed. Words of another form are taken
    /// for what the tool printed.
    fn read(words: &str) -> Self {
        reference(words)
            .or_else(|| in_json(words))
            .or_else(|| script(words))
            .or_else(|| headed(words))
            .or_else(|| aborted(words))
            .unwrap_or_else(|| Self::ended(0, words))
    }

    /// A command that prints the same and ends the same way. The second part says whether all of it
    /// found room.
    pub(crate) fn substitute_command(&self) -> (String, bool) {
        let (printed, whole) = format(&self.text);
        let mut acts = Vec::new();
        if !printed.is_empty() {
            acts.push(format!("printf '{printed}'"));
        }
        match self.exit_code {
            None => acts.push(WAITS.to_owned()),
            Some(0) if !acts.is_empty() => {}
            Some(0) => acts.push("true".to_owned()),
            Some(code) => acts.push(format!("exit {code}")),
        }
        (acts.join("; "), whole)
    }

    /// The words that outputs of every agent are compared in.
    fn in_words(&self) -> String {
        let text = self.text.trim_end();
        match self.exit_code {
            Some(code) => format!("exit code {code}\n{text}"),
            None if text.is_empty() => "aborted".to_owned(),
            None => format!("aborted\n{text}"),
        }
    }
}

/// The text as a format of `printf` in single quotes: what any shell could take for more than a
/// letter is written in octal.
fn format(text: &str) -> (String, bool) {
    let mut format = String::new();
    for (at, character) in text.char_indices() {
        if format.len() > COMMAND_LIMIT_BYTES {
            return (format, false);
        }
        let plain = character.is_ascii_alphanumeric() || " ._/:,=+@#()[]{}<>".contains(character);
        if character == '\n' {
            format.push_str("\\n");
        } else if plain || character == '-' && at > 0 {
            format.push(character);
        } else {
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                // Writing to a String cannot fail.
                let _ = write!(format, "\\{byte:03o}");
            }
        }
    }
    (format, true)
}

/// The reference agent's words.
fn reference(words: &str) -> Option<CallOutcome> {
    let status = words.strip_prefix("status: ")?;
    let (head, text) = status.split_once('\n').unwrap_or((status, ""));
    if let Some(code) = head.strip_prefix("completed, exit code ") {
        return Some(CallOutcome::ended(
            code.parse().ok()?,
            text.strip_prefix("output:\n")?,
        ));
    }
    if head.starts_with("aborted") {
        return Some(CallOutcome::cut(
            text.strip_prefix("output so far:\n").unwrap_or_default(),
        ));
    }
    None
}

/// `{"output": …, "metadata": {"exit_code": …}}`, as Codex wrote it at first.
fn in_json(words: &str) -> Option<CallOutcome> {
    let value: Value = serde_json::from_str(words).ok()?;
    let text = value.get("output")?.as_str()?;
    let code = value.get("metadata")?.get("exit_code")?.as_i64()?;
    Some(
        aborted(text).unwrap_or_else(|| CallOutcome::ended(i32::try_from(code).unwrap_or(1), text)),
    )
}

/// Lines of a heading, then `Output:` and what the tool printed: Codex's later forms.
fn headed(words: &str) -> Option<CallOutcome> {
    const HEADINGS: [&str; 6] = [
        "Exit code: ",
        "Wall time: ",
        "Chunk ID: ",
        "Process exited with code ",
        "Original token count: ",
        "Total output lines: ",
    ];
    let mut code = None;
    let mut rest = words;
    loop {
        let (line, behind) = rest.split_once('\n').unwrap_or((rest, ""));
        if line == "Output:" {
            return Some(CallOutcome::ended(code?, behind));
        }
        if let Some(cut) = aborted(rest) {
            return Some(cut);
        }
        let running = line.starts_with("Process running with session ID ");
        if !running && !HEADINGS.iter().any(|heading| line.starts_with(heading)) {
            return None;
        }
        let told = ["Exit code: ", "Process exited with code "];
        let told = told.iter().find_map(|heading| line.strip_prefix(heading));
        code = told
            .and_then(|code| code.trim().parse().ok())
            .or(code)
            .or(running.then_some(0));
        if behind.is_empty() {
            return None;
        }
        rest = behind;
    }
}

/// What a script of the model's came to, as Codex tells it. A script that still runs has given its word
/// back to the model, which may wait for it by another call.
fn script(words: &str) -> Option<CallOutcome> {
    let (how, behind) = words.strip_prefix("Script ")?.split_once('\n')?;
    let code = match how {
        "failed" => 1,
        "completed" => 0,
        _ if how.starts_with("running with cell ID ") => 0,
        _ => return None,
    };
    let (_, behind) = behind.strip_prefix("Wall time ")?.split_once('\n')?;
    let text = behind.strip_prefix("Output:")?.trim_start_matches('\n');
    Some(CallOutcome::ended(code, text))
}

/// `aborted`, `aborted by user after 1.2s`: of a call that Codex cut off.
fn aborted(words: &str) -> Option<CallOutcome> {
    let words = words.trim();
    let is_it = words == "aborted" || words.starts_with("aborted by user");
    (is_it && !words.contains('\n')).then(|| CallOutcome::cut(""))
}

/// The command line that a call has a shell run, if it is such a call.
pub(crate) fn command(call: &Item) -> Option<String> {
    let words = |value: &Value| match value {
        Value::String(line) => Some(line.clone()),
        Value::Array(words) => {
            let words: Option<Vec<&str>> = words.iter().map(Value::as_str).collect();
            match words?.as_slice() {
                [shell, flag, script] if shell.ends_with("sh") && flag.starts_with('-') => {
                    Some((*script).to_owned())
                }
                words => Some(words.join(" ")),
            }
        }
        _ => None,
    };
    match (call.call_kind()?, call.text("name")) {
        (CallKind::LocalShell, _) => words(call.get("action")?.get("command")?),
        (CallKind::Custom, Some("run_script")) => call.text("input").map(str::to_owned),
        (
            CallKind::Function,
            Some("shell" | "container.exec" | "shell_command" | "exec_command"),
        ) => {
            let arguments: Value = serde_json::from_str(call.text("arguments")?).ok()?;
            words(arguments.get("command").or_else(|| arguments.get("cmd"))?)
        }
        _ => None,
    }
}

/// A call of the shell tool in the form that recordings of imports have.
pub(crate) fn shell_call(call_id: &str, command: &str) -> Item {
    let arguments = json!({"command": ["bash", "-c", command]}).to_string();
    let call = json!({
        "type": "function_call", "name": "shell", "call_id": call_id, "arguments": arguments,
    });
    item(call)
}

/// Items as all agents would have written them: calls of a shell and their outputs have one form.
pub fn portable(items: &[Item]) -> Vec<Item> {
    let one = |item: &Item| {
        let id = item.call_id().unwrap_or_default();
        if let Some(command) = command(item) {
            shell_call(id, &command)
        } else if item.output_kind().is_some() {
            Item::output(CallKind::Function, id, &CallOutcome::of(item).in_words())
        } else {
            item.clone()
        }
    };
    items.iter().map(one).collect()
}

/// What stands between answers, with the ids that calls have in an import. Outputs without a call are
/// left out: no replay gives them.
pub(crate) fn renamed(items: &[Item], ids: &HashMap<String, String>) -> Vec<Item> {
    let one = |item: &Item| {
        if item.output_kind().is_none() {
            return Some(item.clone());
        }
        let own = ids.get(item.call_id().unwrap_or_default())?;
        let mut value = item.to_value();
        value["call_id"] = json!(own);
        Some(self::item(value))
    };
    items.iter().filter_map(one).collect()
}

pub(crate) fn item(value: Value) -> Item {
    // Every value that comes here is an object with a type; a user's message is what no reader takes
    // for an answer.
    Item::from_value(value).unwrap_or_else(|_| Item::user_text(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_every_agent_are_read() {
        let cases = [
            (
                "status: completed, exit code 3\noutput:\nhi\n",
                CallOutcome::ended(3, "hi\n"),
            ),
            (
                "status: aborted while it ran\noutput so far:\nup\n",
                CallOutcome::cut("up\n"),
            ),
            (
                "status: aborted before it was started",
                CallOutcome::cut(""),
            ),
            (
                r#"{"output":"hi\n","metadata":{"exit_code":1,"duration_seconds":0.1}}"#,
                CallOutcome::ended(1, "hi\n"),
            ),
            (
                "Exit code: 0\nWall time: 0.1 seconds\nOutput:\nhi\n",
                CallOutcome::ended(0, "hi\n"),
            ),
            (
                "Chunk ID: 790a38\nWall time: 0.0000 seconds\nProcess exited with code 2\nOriginal token count: 3\nOutput:\nhi\n",
                CallOutcome::ended(2, "hi\n"),
            ),
            (
                "Wall time: 0.2 seconds\naborted by user",
                CallOutcome::cut(""),
            ),
            (
                "Script completed\nWall time 0.1 seconds\nOutput:\n\nhi\n",
                CallOutcome::ended(0, "hi\n"),
            ),
            (
                "Script failed\nWall time 0.0 seconds\nOutput:\n\nScript error:\nError: no",
                CallOutcome::ended(1, "Script error:\nError: no"),
            ),
            (
                "Script running with cell ID 1\nWall time 0.1 seconds\nOutput:\n\na",
                CallOutcome::ended(0, "a"),
            ),
            ("aborted by user after 0.3s", CallOutcome::cut("")),
            ("aborted", CallOutcome::cut("")),
            ("Plan updated", CallOutcome::ended(0, "Plan updated")),
            ("", CallOutcome::ended(0, "")),
        ];
        for (words, outcome) in cases {
            assert_eq!(CallOutcome::read(words), outcome, "{words:?}");
        }
    }

    #[test]
    fn a_stand_in_does_nothing_but_print() {
        let wild = "-n $(rm -rf /); `x` 'y' \"z\" & | % \\ é\n";
        let (command, whole) = CallOutcome::ended(4, wild).substitute_command();
        assert!(whole && command.starts_with("printf '") && command.ends_with("'; exit 4"));
        let quoted = &command["printf '".len()..command.len() - "'; exit 4".len()];
        assert!(
            !quoted.contains(['\'', '"', '$', '`', ';', '&', '|', '%']),
            "{quoted}"
        );
        assert_eq!(CallOutcome::ended(0, "").substitute_command().0, "true");
        assert_eq!(
            CallOutcome::cut("a").substitute_command().0,
            "printf 'a'; sleep 60"
        );
        let (long, whole) = CallOutcome::ended(0, &"é".repeat(100_000)).substitute_command();
        assert!(!whole && long.len() < 128 << 10);
    }

    #[test]
    fn shell_calls_of_every_agent_are_one() {
        let call = |kind: &str, name: &str, field: &str, value: Value| {
            item(json!({"type": kind, "name": name, "call_id": "c", field: value}))
        };
        let line = |call: Item| command(&call);
        let words = r#"{"command":["bash","-lc","ls -l"]}"#;
        let calls = [
            call("function_call", "shell", "arguments", json!(words)),
            call(
                "function_call",
                "exec_command",
                "arguments",
                json!(r#"{"cmd":"ls -l"}"#),
            ),
            call(
                "function_call",
                "shell_command",
                "arguments",
                json!(r#"{"command":"ls -l"}"#),
            ),
            call("custom_tool_call", "run_script", "input", json!("ls -l")),
            call(
                "local_shell_call",
                "",
                "action",
                json!({"command": ["ls", "-l"]}),
            ),
        ];
        for call in calls {
            assert_eq!(line(call).as_deref(), Some("ls -l"));
        }
        assert_eq!(
            line(call(
                "function_call",
                "update_plan",
                "arguments",
                json!("{}")
            )),
            None
        );
    }
}
