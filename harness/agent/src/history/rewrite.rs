//! What a session can do to its history: replace it by a summary, take turns out of it.

use cutpoint_protocol::ids::TurnId;
use cutpoint_protocol::{Item, marker};

use super::{History, open_calls, paired};

/// The prompt that asks for a summary. It is sent and never kept, and the tag says that it is not
/// what the user said.
const PROMPT: &str = "<compaction_prompt>\nSummarise the conversation so far for a colleague who \
    takes over: what the user wants, what was done and found, what is left to do. Call no tools.\n\
    </compaction_prompt>";
const SUMMARY: [&str; 2] = ["<conversation_summary>", "</conversation_summary>"];
const USER_COMMAND: [&str; 2] = ["<user_shell_command>", "</user_shell_command>"];

/// The message that opened a turn.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TurnOpening {
    pub(crate) turn_id: TurnId,
    /// Which of the messages in the user's name it is, counted from 0. Unlike a place in the
    /// history this stays as it is when outputs are put in.
    pub(crate) message: usize,
}

impl History {
    /// Takes the message that opens a turn.
    pub(crate) fn open_turn(&mut self, turn_id: &TurnId, item: Item) {
        self.openings.push(TurnOpening {
            turn_id: turn_id.to_owned(),
            message: user_messages(&self.items),
        });
        self.items.push(item);
    }

    /// The messages that opened turns, in order.
    pub(crate) fn openings(&self) -> &[TurnOpening] {
        &self.openings
    }

    /// Takes the last turns out, with everything after the first one's opening. Returns what was
    /// taken out; nothing if there are fewer turns.
    pub(crate) fn roll_back(&mut self, turns: usize) -> Option<Vec<Item>> {
        let gone = roll_back(&mut self.items, &mut self.openings, turns)?;
        let known = self.base.as_ref().map_or(0, |base| base.known);
        if known > self.items.len() {
            // The server's history has more than ours now, so it can't be continued.
            self.base = None;
        }
        self.pending.clear();
        for (call_id, kind) in open_calls(&self.items) {
            self.owe(&call_id, kind);
        }
        Some(gone)
    }

    /// Replaces the history by what the user said and a summary of the rest. The calls are gone
    /// with the rest, and with them what they were owed. The turns are no longer told apart.
    pub(crate) fn compact(&mut self, summary: &str) -> &[Item] {
        self.items.retain(is_the_users);
        self.items.push(wrapped(SUMMARY, summary));
        self.pending.clear();
        self.openings.clear();
        self.base = None;
        &self.items
    }
}

/// Takes the last turns out of a list of items, each of whose openings is named. Returns what was
/// taken out; nothing if there are fewer turns.
pub(crate) fn roll_back(
    items: &mut Vec<Item>,
    openings: &mut Vec<TurnOpening>,
    turns: usize,
) -> Option<Vec<Item>> {
    let first = openings.len().checked_sub(turns)?;
    let message = openings.get(first)?.message;
    // An output that was recorded late must not be taken out with a later turn.
    *items = paired(std::mem::take(items));
    let mut users = items.iter().enumerate().filter(|(_, item)| is_user(item));
    let (at, _) = users.nth(message)?;
    openings.truncate(first);
    Some(items.split_off(at))
}

/// The message that reports a command which the user ran.
pub(crate) fn user_command(command: &str, result: &str) -> Item {
    wrapped(USER_COMMAND, &format!("command: {command}\n{result}"))
}

/// Whether the item reports a command which the user ran.
pub(crate) fn is_user_command(item: &Item) -> bool {
    is_user(item) && item.all_text().starts_with(USER_COMMAND[0])
}

/// The message that asks for a summary.
pub(crate) fn compaction_prompt() -> Item {
    Item::user_text(PROMPT)
}

fn wrapped([open, close]: [&str; 2], text: &str) -> Item {
    Item::user_text(&format!("{open}\n{text}\n{close}"))
}

fn is_user(item: &Item) -> bool {
    item.role() == Some("user")
}

/// How many messages are in the user's name.
pub(crate) fn user_messages(items: &[Item]) -> usize {
    items.iter().filter(|item| is_user(item)).count()
}

/// Whether the item is what the user said, and not a note in the user's name.
fn is_the_users(item: &Item) -> bool {
    let is_summary = || item.all_text().starts_with(SUMMARY[0]);
    is_user(item) && !marker::is_marker(item) && !is_user_command(item) && !is_summary()
}

#[cfg(test)]
mod tests {
    use cutpoint_protocol::item::CallKind;
    use cutpoint_protocol::pairing;
    use serde_json::json;

    use super::super::{assistant_text, marker};
    use super::*;
    use crate::config::HistoryMode;

    fn call(id: &str) -> Item {
        Item::from_value(
            json!({"type": "function_call", "call_id": id, "name": "f", "arguments": "{}"}),
        )
        .unwrap()
    }

    /// Two turns: the first with a call and a steered message, the second interrupted.
    fn two_turns() -> History {
        let mut history = History::default();
        history.open_turn(&"t1".into(), Item::user_text("one"));
        history.push(call("a"));
        history.push(Item::output(CallKind::Function, "a", "ok"));
        history.push(Item::user_text("steered"));
        history.open_turn(&"t2".into(), Item::user_text("two"));
        history.push(call("b"));
        history.owe(&"b".into(), CallKind::Function);
        history.push(marker());
        history
    }

    #[test]
    fn a_rollback_takes_whole_turns() {
        let mut history = two_turns();
        assert!(history.roll_back(3).is_none() && history.roll_back(0).is_none());
        assert_eq!(history.len(), 7, "a refusal changes nothing");
        assert_eq!(history.roll_back(1).map(|gone| gone.len()), Some(3));
        assert_eq!(history.items()[3].all_text(), "steered");
        assert!(!history.owes(&"b".into()) && history.settle().is_empty());
        assert_eq!(history.roll_back(1).map(|gone| gone.len()), Some(4));
        assert_eq!((history.len(), history.openings().len()), (0, 0));
    }

    #[test]
    fn a_rollback_keeps_an_output_that_was_recorded_late() {
        let mut items = vec![
            Item::user_text("one"),
            call("a"),
            Item::user_text("two"),
            Item::output(CallKind::Function, "a", "late"),
        ];
        let opening = |message: usize| TurnOpening {
            turn_id: message.to_string().into(),
            message,
        };
        let mut openings = vec![opening(0), opening(1)];
        assert!(roll_back(&mut items, &mut openings, 1).is_some());
        assert_eq!((items.len(), openings.len()), (3, 1));
        assert_eq!(pairing::faults(&items), []);
    }

    #[test]
    fn behind_a_rollback_the_server_gets_the_whole_history() {
        let mut history = two_turns();
        history.completed(Some("resp_1"), HistoryMode::Server);
        history.roll_back(1);
        let input = history.input();
        assert_eq!((input.items.len(), input.previous_response_id), (4, None));
    }

    #[test]
    fn a_compaction_keeps_what_the_user_said() {
        let mut history = two_turns();
        history.push(user_command("ls", "status: completed"));
        history.compact("first");
        history.push(assistant_text("x").unwrap());
        history.push(Item::user_text("three"));
        let texts: Vec<String> = history
            .compact("second")
            .iter()
            .map(|item| item.all_text().to_owned())
            .collect();
        assert_eq!(texts[..4], ["one", "steered", "two", "three"]);
        assert!(texts[4].contains("second") && texts.len() == 5);
        assert!(
            history.roll_back(1).is_none(),
            "a summary can't be taken apart"
        );
        assert!(history.settle().is_empty());
    }
}
