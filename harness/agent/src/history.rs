//! The conversation as the model sees it, and the debt of outputs that calls are owed.

mod rewrite;

use std::collections::HashSet;

use cutpoint_protocol::ids::{CallId, ResponseId};
use cutpoint_protocol::item::CallKind;
use cutpoint_protocol::{Item, marker};
use serde_json::json;

use crate::config::HistoryMode;

pub(crate) use rewrite::{
    TurnOpening, compaction_prompt, is_user_command, roll_back, user_command, user_messages,
};

/// The marker's text: what the model learns of an interrupt.
const MARKER_TEXT: &str = "The user stopped this turn on purpose. Commands of the turn may have \
    run in part, or not at all. Look at the state of things before you repeat any of them.";

/// A call that waits for its output to reach the server.
#[derive(Debug, Clone, PartialEq)]
struct PendingOutput {
    call_id: CallId,
    kind: CallKind,
}

/// What the server holds.
#[derive(Debug, Clone, PartialEq)]
struct ServerHistory {
    response_id: ResponseId,
    /// How many items of the history the response stands for.
    known: usize,
}

/// The conversation.
#[derive(Debug, Default)]
pub(crate) struct History {
    items: Vec<Item>,
    pending: Vec<PendingOutput>,
    base: Option<ServerHistory>,
    /// The messages that opened turns, in order.
    openings: Vec<TurnOpening>,
}

/// The input of a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RequestInput {
    pub(crate) items: Vec<Item>,
    pub(crate) previous_response_id: Option<ResponseId>,
}

impl History {
    pub(crate) fn new(items: Vec<Item>, openings: Vec<TurnOpening>) -> Self {
        Self {
            items,
            openings,
            ..Self::default()
        }
    }

    pub(crate) fn push(&mut self, item: Item) {
        self.items.push(item);
    }

    pub(crate) fn items(&self) -> &[Item] {
        &self.items
    }

    /// Whether a call of this id stands in the history.
    pub(crate) fn has_call(&self, call_id: &CallId) -> bool {
        self.call_at(call_id).is_some()
    }

    fn call_at(&self, call_id: &CallId) -> Option<usize> {
        let is_it = |item: &Item| item.call_kind().is_some() && item.call_id() == Some(call_id);
        self.items.iter().position(is_it)
    }

    /// Notes that a call is owed an output until a response shows that the server has it.
    pub(crate) fn owe(&mut self, call_id: &CallId, kind: CallKind) {
        if self
            .pending
            .iter()
            .all(|pending| pending.call_id != *call_id)
        {
            self.pending.push(PendingOutput {
                call_id: call_id.to_owned(),
                kind,
            });
        }
    }

    /// The same for a call of which only the id is known.
    pub(crate) fn owe_by_id(&mut self, call_id: &CallId, kind: CallKind) {
        let known = self
            .call_at(call_id)
            .and_then(|at| self.items[at].call_kind());
        self.owe(call_id, known.unwrap_or(kind));
    }

    /// Puts an aborted output in for each pending call that has none, and returns these outputs.
    ///
    /// Each stands right after its call, and so before any later user message. A call that only
    /// the server knows gets its output at the head of what the server does not know yet. Without
    /// a server-side history a call that is not in the history can't be answered: an output of its
    /// own would be refused just so.
    pub(crate) fn settle(&mut self) -> Vec<Item> {
        let known = self.base.as_ref().map_or(0, |base| base.known);
        let mut settled = Vec::new();
        for pending in self.pending.clone() {
            let answers = |item: &Item| {
                item.output_kind().is_some() && item.call_id() == Some(pending.call_id.as_str())
            };
            if self.items.iter().any(answers) {
                continue;
            }
            let at = match self.call_at(&pending.call_id) {
                Some(at) => (at + 1).max(known),
                None if self.base.is_some() => known,
                None => continue,
            };
            let output = Item::output(pending.kind, &pending.call_id, ABORTED);
            self.items.insert(at, output.clone());
            settled.push(output);
        }
        settled
    }

    /// The input of the next request.
    pub(crate) fn input(&self) -> RequestInput {
        match &self.base {
            Some(base) => RequestInput {
                items: self.items[base.known..].to_vec(),
                previous_response_id: Some(base.response_id.clone()),
            },
            None => RequestInput {
                items: self.items.clone(),
                previous_response_id: None,
            },
        }
    }

    /// A response was created from a request that carried `input`: the debt it paid is settled.
    pub(crate) fn created(&mut self, input: &[Item]) {
        let paid = |pending: &PendingOutput| {
            input.iter().any(|item| {
                item.output_kind().is_some() && item.call_id() == Some(pending.call_id.as_str())
            })
        };
        self.pending.retain(|pending| !paid(pending));
    }

    /// A response is complete: with a server-side history, the server now has all there is.
    pub(crate) fn completed(&mut self, response_id: Option<&str>, mode: HistoryMode) {
        if let (Some(response_id), HistoryMode::Server) = (response_id, mode) {
            self.base = Some(ServerHistory {
                response_id: response_id.into(),
                known: self.items.len(),
            });
        }
    }

    /// The server does not know the response that it was asked to continue. Returns whether there
    /// is anything to do about it: the next request carries the whole history.
    pub(crate) fn server_forgot(&mut self) -> bool {
        self.base.take().is_some()
    }

    /// Whether an output is still owed.
    #[cfg(test)]
    pub(crate) fn owes(&self, call_id: &CallId) -> bool {
        self.pending
            .iter()
            .any(|pending| pending.call_id == *call_id)
    }

    /// For planted defects: drops a call from the history.
    pub(crate) fn drop_call(&mut self, call_id: &CallId) {
        if let Some(at) = self.call_at(call_id) {
            self.remove(at);
        }
        self.pending.retain(|pending| pending.call_id != *call_id);
    }

    /// For planted defects: drops the outputs that no response has shown to be delivered.
    pub(crate) fn drop_undelivered(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            self.drop_behind(0, |item| {
                item.output_kind().is_some() && item.call_id() == Some(pending.call_id.as_str())
            });
        }
    }

    /// For a planted defect: moves items to the end of the history.
    pub(crate) fn move_to_end(&mut self, moved: Vec<Item>) {
        self.drop_behind(0, |item| moved.contains(item));
        self.items.extend(moved);
    }

    /// For a planted defect: whether any turn has left its marker.
    pub(crate) fn has_marker(&self) -> bool {
        self.items.iter().any(marker::is_marker)
    }

    /// For planted defects: forgets that outputs are owed.
    pub(crate) fn forget_debt(&mut self) {
        self.pending.clear();
    }

    /// For planted defects: drops the items after the first `keep` that `is_it` picks.
    pub(crate) fn drop_behind(&mut self, keep: usize, is_it: impl Fn(&Item) -> bool) {
        for at in (keep..self.items.len()).rev() {
            if is_it(&self.items[at]) {
                self.remove(at);
            }
        }
    }

    /// How many items there are.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    fn remove(&mut self, at: usize) {
        self.items.remove(at);
        if let Some(base) = &mut self.base {
            base.known -= usize::from(at < base.known);
        }
    }
}

/// The output of a call of which nothing is known but that it did not end.
pub(crate) const ABORTED: &str = "status: aborted before it ended";

/// The marker of an interrupted turn.
pub(crate) fn marker() -> Item {
    Item::user_text(&format!(
        "{}\n{MARKER_TEXT}\n{}",
        marker::OPEN,
        marker::CLOSE
    ))
}

/// For a planted defect: the marker without its closing tag.
pub(crate) fn half_marker() -> Item {
    Item::user_text(&format!("{}\n{MARKER_TEXT}", marker::OPEN))
}

/// A message of the assistant that was cut off.
pub(crate) fn assistant_text(text: &str) -> Option<Item> {
    let content = json!([{"type": "output_text", "text": text, "annotations": []}]);
    Item::from_value(json!({"type": "message", "role": "assistant", "content": content})).ok()
}

/// The items with every call paired as far as the items themselves allow.
///
/// Outputs without a call, second outputs and items with an empty call id are left out, as are
/// second calls of one id. An output that stands after a later user message (the debt of a call
/// can be settled late) moves to its call. Calls without an output stay as they are.
pub(crate) fn paired(items: Vec<Item>) -> Vec<Item> {
    let mut out: Vec<Item> = Vec::with_capacity(items.len());
    let (mut calls, mut answered) = (HashSet::new(), HashSet::new());
    for item in items {
        let id = item.call_id().unwrap_or_default().to_owned();
        if item.call_kind().is_some() {
            if !id.is_empty() && calls.insert(id) {
                out.push(item);
            }
        } else if let Some(kind) = item.output_kind() {
            let is_call = |it: &Item| {
                it.call_id() == Some(id.as_str())
                    && it.call_kind().is_some_and(|call| kind.answers(call))
            };
            let Some(call) = out
                .iter()
                .position(is_call)
                .filter(|_| answered.insert(id.clone()))
            else {
                continue;
            };
            let late = out[call..].iter().any(|it| it.role() == Some("user"));
            out.insert(if late { call + 1 } else { out.len() }, item);
        } else {
            out.push(item);
        }
    }
    out
}

/// The calls that have no output, with their kinds.
pub(crate) fn open_calls(items: &[Item]) -> Vec<(CallId, CallKind)> {
    let answered: HashSet<&str> = items
        .iter()
        .filter(|item| item.output_kind().is_some())
        .filter_map(Item::call_id)
        .collect();
    items
        .iter()
        .filter_map(|item| Some((item.call_id()?, item.call_kind()?)))
        .filter(|(id, _)| !answered.contains(id))
        .map(|(id, kind)| (id.into(), kind))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cutpoint_protocol::pairing;

    fn call(id: &str) -> Item {
        Item::from_value(
            json!({"type": "function_call", "call_id": id, "name": "f", "arguments": "{}"}),
        )
        .unwrap()
    }

    fn output(id: &str) -> Item {
        Item::output(CallKind::Function, id, "ok")
    }

    #[test]
    fn a_debt_is_settled_behind_its_call_and_cleared_by_a_response_only() {
        let mut history = History::new(vec![call("a"), Item::user_text("next")], Vec::new());
        history.owe(&"a".into(), CallKind::Function);
        assert_eq!(history.settle().len(), 1);
        assert_eq!(history.items()[1].call_id(), Some("a"));
        assert!(history.settle().is_empty() && history.owes(&"a".into()));
        let input = history.input();
        history.created(&[]);
        assert!(history.owes(&"a".into()));
        history.created(&input.items);
        assert!(!history.owes(&"a".into()));
    }

    #[test]
    fn with_a_server_side_history_the_debt_is_at_the_head() {
        let mut history = History::new(vec![Item::user_text("one"), call("a")], Vec::new());
        history.owe(&"a".into(), CallKind::Function);
        history.completed(Some("resp_1"), HistoryMode::Server);
        history.push(Item::user_text("two"));
        history.settle();
        let input = history.input();
        assert_eq!(input.previous_response_id.as_deref(), Some("resp_1"));
        assert_eq!(input.items[0].call_id(), Some("a"));
        assert_eq!(input.items.len(), 2);
        assert!(history.server_forgot() && !history.server_forgot());
        assert_eq!(history.input().items.len(), 4);
    }

    #[test]
    fn an_unknown_call_is_answered_only_where_the_server_may_know_it() {
        let mut history = History::new(vec![Item::user_text("one")], Vec::new());
        history.owe_by_id(&"x".into(), CallKind::Custom);
        assert!(history.settle().is_empty());
        history.completed(Some("resp_1"), HistoryMode::Server);
        assert_eq!(history.settle()[0].type_name(), "custom_tool_call_output");
    }

    #[test]
    fn what_a_rollout_holds_is_paired() {
        let items = vec![
            output("x"),
            call("a"),
            call("a"),
            call(""),
            call("b"),
            Item::user_text("u"),
            output("a"),
            output("a"),
            output("b"),
            call("c"),
        ];
        let items = paired(items);
        assert_eq!(
            open_calls(&items),
            [(CallId::from("c"), CallKind::Function)]
        );
        let faults = pairing::faults(&items);
        assert!(
            matches!(
                faults[..],
                [pairing::PairingFault::Unanswered { at: 5, .. }]
            ),
            "{faults:?}"
        );
        assert!(marker::is_marker(&marker()));
    }
}
