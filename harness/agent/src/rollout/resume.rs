//! Reading a session back from its rollout, whatever a crash left of it.

use cutpoint_protocol::Item;
use cutpoint_protocol::ids::{ConversationId, TurnId};
use cutpoint_protocol::rollout::{LineContent, RolloutLine, TurnEnd};

use crate::history::{self, TurnOpening};

/// What a rollout says about its session.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct RestoredSession {
    /// The session's id, if its line was written.
    pub(crate) session_id: Option<ConversationId>,
    /// The items, each output after its call and before any later user message.
    pub(crate) items: Vec<Item>,
    /// Which of the user's messages opened turns.
    pub(crate) openings: Vec<TurnOpening>,
    /// Whether another session's conversation was copied into the rollout.
    pub(crate) is_fork: bool,
    /// The turn that was started and not ended.
    pub(crate) open_turn: Option<TurnId>,
    /// The ids of all turns that were started.
    pub(crate) turn_ids: Vec<TurnId>,
    /// The ordinal of the next line.
    pub(crate) next_ordinal: u64,
    /// How many bytes of the file are good.
    pub(crate) keep_bytes: usize,
    /// The last good line lacks its line break only.
    pub(crate) lacks_newline: bool,
}

/// Reads a rollout. The last line may be torn: it is kept if nothing but its line break is missing,
/// and dropped otherwise. A whole line that can't be read is passed over, never a reason to lose
/// the others.
pub(crate) fn restore(content: &[u8]) -> RestoredSession {
    let mut restored = RestoredSession::default();
    let whole = content
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    restored.keep_bytes = whole;
    for line in content[..whole].split(|byte| *byte == b'\n') {
        read_line(line)
            .into_iter()
            .for_each(|line| restored.take(&line));
    }
    if let Some(line) = read_line(&content[whole..]) {
        restored.take(&line);
        restored.keep_bytes = content.len();
        restored.lacks_newline = true;
    }
    restored.items = history::paired(std::mem::take(&mut restored.items));
    restored
}

fn read_line(line: &[u8]) -> Option<RolloutLine> {
    RolloutLine::parse(std::str::from_utf8(line).ok()?).ok()
}

impl RestoredSession {
    fn take(&mut self, line: &RolloutLine) {
        self.next_ordinal = line.ordinal.unwrap_or(self.next_ordinal) + 1;
        match line.content() {
            LineContent::SessionMeta => {
                let id = line.payload.get("id").and_then(|id| id.as_str());
                self.session_id = self.session_id.take().or(id.map(ConversationId::from));
                self.is_fork |= line.payload.contains_key("forked_from");
            }
            LineContent::Item(item) => self.items.push(item),
            LineContent::TurnStarted(turn_id) => {
                self.turn_ids.extend(turn_id.clone());
                self.open_turn = turn_id;
            }
            LineContent::TurnEnded(_, TurnEnd::Complete | TurnEnd::Aborted | TurnEnd::Failed) => {
                self.open_turn = None;
            }
            LineContent::Event(name) if name == "user_message" => self.take_opening(line),
            LineContent::Compacted(items) => {
                self.items = items;
                self.openings.clear();
            }
            LineContent::RolledBack(turns) => {
                history::roll_back(&mut self.items, &mut self.openings, turns);
            }
            LineContent::TurnContext | LineContent::Event(_) | LineContent::Unknown => {}
        }
    }

    /// The line after a user's message tells whether the message opened a turn.
    fn take_opening(&mut self, line: &RolloutLine) {
        let text = |name: &str| line.payload.get(name).and_then(|it| it.as_str());
        let opens = line.payload.get("opens_turn").and_then(|it| it.as_bool());
        let messages = history::user_messages(&self.items);
        if let (Some(true), Some(message)) = (opens, messages.checked_sub(1)) {
            self.openings.push(TurnOpening {
                turn_id: text("turn_id").unwrap_or_default().into(),
                message,
            });
        }
    }

    /// The markers in the history.
    #[cfg(test)]
    pub(crate) fn markers(&self) -> usize {
        self.items
            .iter()
            .filter(|item| cutpoint_protocol::marker::is_marker(item))
            .count()
    }
}
