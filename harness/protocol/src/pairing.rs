//! Which calls of a history are answered, and which answers have no call.

use std::collections::HashMap;

use crate::ids::CallId;
use crate::item::{CallKind, Item, OutputKind};

/// What an item is to the pairing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairingRole {
    /// A call of that kind.
    Call(CallKind),
    /// An answer of that kind to a call.
    Output(OutputKind),
}

/// What is wrong with the calls and outputs of a history. Positions count from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PairingFault {
    /// A call without an output after it.
    Unanswered {
        /// The call's id.
        call_id: CallId,
        /// The call's kind.
        kind: CallKind,
        /// The call's position.
        at: usize,
    },
    /// An output without a call before it.
    Orphan {
        /// The output's call id.
        call_id: CallId,
        /// The output's kind.
        kind: OutputKind,
        /// The output's position.
        at: usize,
    },
    /// A second output for a call.
    Duplicate {
        /// The call's id.
        call_id: CallId,
        /// The second output's kind.
        kind: OutputKind,
        /// The second output's position.
        at: usize,
    },
    /// An output of a kind that does not answer its call.
    WrongKind {
        /// The call's id.
        call_id: CallId,
        /// The call's kind.
        call: CallKind,
        /// The output's kind.
        output: OutputKind,
        /// The output's position.
        at: usize,
    },
    /// A call or an output with an empty or absent call id.
    EmptyCallId {
        /// The item's position.
        at: usize,
    },
    /// A second call with the same id.
    RepeatedCall {
        /// The call's id.
        call_id: CallId,
        /// The second call's position.
        at: usize,
    },
}

/// Everything that is wrong with the pairing of a whole history, in the order of the items;
/// unanswered calls come last.
pub fn faults(history: &[Item]) -> Vec<PairingFault> {
    faults_between(history.iter().map(|item| {
        let call = item.call_kind().map(PairingRole::Call);
        let side = call.or_else(|| item.output_kind().map(PairingRole::Output))?;
        Some((side, item.call_id()))
    }))
}

/// The same of a history of which only the pairing is known: what each item is and its call id.
pub fn faults_between<'a>(
    history: impl IntoIterator<Item = Option<(PairingRole, Option<&'a str>)>>,
) -> Vec<PairingFault> {
    let mut faults = Vec::new();
    // Call id → kind, position, number of outputs.
    let mut calls: HashMap<&str, (CallKind, usize, usize)> = HashMap::new();
    for (at, item) in history.into_iter().enumerate() {
        let Some((side, call_id)) = item else {
            continue;
        };
        let Some(call_id) = call_id.filter(|id| !id.is_empty()) else {
            faults.push(PairingFault::EmptyCallId { at });
            continue;
        };
        match side {
            PairingRole::Call(kind) => {
                if calls.insert(call_id, (kind, at, 0)).is_some() {
                    faults.push(PairingFault::RepeatedCall {
                        call_id: call_id.into(),
                        at,
                    });
                }
            }
            PairingRole::Output(kind) => {
                faults.extend(count_output(calls.get_mut(call_id), call_id, kind, at));
            }
        }
    }
    let mut open: Vec<_> = calls
        .into_iter()
        .filter(|(_, (_, _, outputs))| *outputs == 0)
        .collect();
    open.sort_by_key(|(_, (_, at, _))| *at);
    faults.extend(
        open.into_iter()
            .map(|(call_id, (kind, at, _))| PairingFault::Unanswered {
                call_id: call_id.into(),
                kind,
                at,
            }),
    );
    faults
}

fn count_output(
    call: Option<&mut (CallKind, usize, usize)>,
    call_id: &str,
    output: OutputKind,
    at: usize,
) -> Option<PairingFault> {
    let call_id = CallId::from(call_id);
    let Some((kind, _, outputs)) = call else {
        return Some(PairingFault::Orphan {
            call_id,
            kind: output,
            at,
        });
    };
    *outputs += 1;
    if *outputs > 1 {
        return Some(PairingFault::Duplicate {
            call_id,
            kind: output,
            at,
        });
    }
    (!output.answers(*kind)).then_some(PairingFault::WrongKind {
        call_id,
        call: *kind,
        output,
        at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn items(values: &[serde_json::Value]) -> Vec<Item> {
        values
            .iter()
            .map(|value| Item::from_value(value.clone()).unwrap())
            .collect()
    }

    fn call(id: &str) -> serde_json::Value {
        json!({"type": "function_call", "call_id": id, "name": "f", "arguments": "{}"})
    }

    fn output(id: &str) -> serde_json::Value {
        json!({"type": "function_call_output", "call_id": id, "output": ""})
    }

    #[test]
    fn a_paired_history_has_no_fault() {
        let history = items(&[call("a"), call("b"), output("b"), output("a")]);
        assert_eq!(faults(&history), []);
    }

    #[test]
    fn every_fault_is_found() {
        let custom = json!({"type": "custom_tool_call_output", "call_id": "b", "output": ""});
        let history = items(&[
            output("x"),
            call("a"),
            call("b"),
            custom,
            call("c"),
            output("c"),
            output("c"),
            call(""),
            call("a"),
        ]);
        let (function, id) = (OutputKind::Function, |id: &str| CallId::from(id));
        assert_eq!(
            faults(&history),
            [
                PairingFault::Orphan {
                    call_id: id("x"),
                    kind: function,
                    at: 0
                },
                PairingFault::WrongKind {
                    call_id: id("b"),
                    call: CallKind::Function,
                    output: OutputKind::Custom,
                    at: 3
                },
                PairingFault::Duplicate {
                    call_id: id("c"),
                    kind: function,
                    at: 6
                },
                PairingFault::EmptyCallId { at: 7 },
                PairingFault::RepeatedCall {
                    call_id: id("a"),
                    at: 8
                },
                PairingFault::Unanswered {
                    call_id: id("a"),
                    kind: CallKind::Function,
                    at: 8
                },
            ]
        );
    }

    #[test]
    fn an_output_before_its_call_is_an_orphan() {
        let history = items(&[output("a"), call("a")]);
        assert_eq!(faults(&history).len(), 2);
    }
}
