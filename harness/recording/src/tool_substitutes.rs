//! What is called in place of tools that an agent does not have.

use std::collections::HashMap;

use cutpoint_protocol::Item;

use crate::import::{CallOutcome, command, shell_call};
use crate::recording::Recording;
use crate::session::is_synthesized;

/// The calls of a recording whose tool is not a shell, each with the command that gives what was recorded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ToolSubstitutes(HashMap<String, ToolSubstitute>);

#[derive(Debug, Clone, PartialEq)]
struct ToolSubstitute {
    call: Item,
    command: String,
}

impl Recording {
    /// The stand-ins for its calls. The calls of an import are stand-ins already, so it has none.
    pub fn substitutes(&self) -> ToolSubstitutes {
        let mut calls: Vec<Item> = Vec::new();
        let mut outcomes: HashMap<String, CallOutcome> = HashMap::new();
        let own = self
            .model_exchanges()
            .filter(|asked| !is_synthesized(asked.exchange));
        for asked in own {
            for output in asked.history.unwrap_or_default() {
                if output.output_kind().is_some() {
                    let id = output.call_id().unwrap_or_default();
                    let outcome = || CallOutcome::of(&output);
                    outcomes.entry(id.to_owned()).or_insert_with(outcome);
                }
            }
            let foreign = |it: &Item| it.call_kind().is_some() && command(it).is_none();
            calls.extend(asked.answer.items.into_iter().filter(foreign));
        }
        let substitute = |call: Item| {
            let id = call.call_id()?.to_owned();
            // What has no output was cut off.
            let cut = CallOutcome::cut("");
            let (command, _) = outcomes.get(&id).unwrap_or(&cut).substitute_command();
            Some((id, ToolSubstitute { call, command }))
        };
        ToolSubstitutes(calls.into_iter().filter_map(substitute).collect())
    }
}

impl ToolSubstitutes {
    /// Returns true if the recording has no call that needs one.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The call of a shell that stands in for this one, in the form that imports have.
    pub fn of(&self, call: &Item) -> Option<Item> {
        let id = call.call_id()?;
        let substitute = self.0.get(id)?;
        Some(shell_call(id, &substitute.command))
    }

    /// The items of a replay, in the form of [`crate::portable`], with what the stand-ins stood for.
    pub fn undone(&self, items: &mut [Item]) {
        for item in items {
            let substitute = self.0.get(item.call_id().unwrap_or_default());
            if let Some(substitute) = substitute
                && command(item).as_deref() == Some(&substitute.command)
            {
                item.clone_from(&substitute.call);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cutpoint_protocol::sse::{Document, EVENT_LIMIT_BYTES};
    use serde_json::{Value, json};

    use super::*;
    use crate::recording::{Exchange, RecordedRequest, Response};

    fn item(value: Value) -> Item {
        Item::from_value(value).unwrap()
    }

    fn script(id: &str) -> Value {
        json!({"type": "custom_tool_call", "id": "ctc", "name": "exec", "call_id": id, "input": "text(1)"})
    }

    /// A recording in which these calls were made, and the outputs came with the second request.
    fn recording(calls: &[Value], outputs: &[Value]) -> Recording {
        let mut recording = Recording::new("r", "test");
        let stream: String = calls
            .iter()
            .map(|call| json!({"type": "response.output_item.done", "item": call}))
            .map(|event| format!("event: response.output_item.done\ndata: {event}\n\n"))
            .collect();
        for (number, input) in [(1, &[][..]), (2, outputs)] {
            recording.exchanges.push(Exchange {
                number,
                request: Some(RecordedRequest {
                    method: "POST".to_owned(),
                    path: "/v1/responses".to_owned(),
                    headers: Default::default(),
                    body: json!({"model": "m", "stream": true, "input": input}),
                }),
                response: Response::Stream(
                    Document::parse(stream.as_bytes(), EVENT_LIMIT_BYTES).unwrap(),
                ),
            });
        }
        recording
    }

    #[test]
    fn a_call_of_another_tool_is_stood_in_for_by_what_it_printed() {
        let texts = ["Script failed\nWall time 0.1 seconds\nOutput:\n", "it's"];
        let parts = texts.map(|text| json!({"type": "input_text", "text": text}));
        let output =
            json!({"type": "custom_tool_call_output", "call_id": "call_1", "output": parts});
        let recording = recording(&[script("call_1"), script("call_2")], &[output]);
        let substitutes = recording.substitutes();
        let first = substitutes.of(&item(script("call_1"))).unwrap();
        assert_eq!(
            command(&first).as_deref(),
            Some("printf 'it\\047s'; exit 1")
        );
        let second = substitutes.of(&item(script("call_2"))).unwrap();
        assert_eq!(
            command(&second).as_deref(),
            Some("sleep 60"),
            "it was cut off"
        );
        let other = shell_call("call_2", "sleep 61");
        let mut items = [first, other.clone()];
        substitutes.undone(&mut items);
        assert_eq!(items, [item(script("call_1")), other]);
    }

    #[test]
    fn calls_of_shells_stay_as_they_are() {
        let shell = shell_call("call_1", "ls").to_value();
        let recording = recording(std::slice::from_ref(&shell), &[]);
        assert_eq!(recording.substitutes().of(&item(shell)), None);
    }
}
