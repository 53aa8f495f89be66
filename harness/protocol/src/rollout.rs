//! Lines of a rollout file: JSON objects `{timestamp, ordinal?, type, payload}`, one per line.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::TurnId;
use crate::item::Item;

/// One line of a rollout, kept verbatim.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutLine {
    /// When it was written, RFC 3339.
    pub timestamp: String,
    /// The line's number, counted from 0, in the forms that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordinal: Option<u64>,
    /// What kind of line it is, as it stands.
    #[serde(rename = "type")]
    pub kind: String,
    /// The line's content.
    pub payload: Map<String, Value>,
    /// Members that this form of the line has besides.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// What a line says about its session.
#[derive(Debug, Clone, PartialEq)]
pub enum LineContent {
    /// `session_meta`: the session's id, directory and agent.
    SessionMeta,
    /// `turn_context`: settings of a turn.
    TurnContext,
    /// `response_item`: an item of the history.
    Item(Item),
    /// `event_msg` that starts a turn, with the turn's id.
    TurnStarted(Option<TurnId>),
    /// `event_msg` that ends a turn, with its id and how it ended.
    TurnEnded(Option<TurnId>, TurnEnd),
    /// Any other `event_msg`, with its type.
    Event(String),
    /// `compacted`: the history was replaced by these items. A form of the line that has a summary
    /// alone gives none.
    Compacted(Vec<Item>),
    /// `event_msg` that takes that many of the last turns out of the history.
    RolledBack(usize),
    /// A line type that this version does not know.
    Unknown,
}

/// How a turn ended, as a rollout tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnEnd {
    /// The turn ran to its end.
    Complete,
    /// The turn was aborted.
    Aborted,
    /// The turn failed.
    Failed,
}

/// Why a line is not a rollout line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RolloutLineError {
    /// No JSON.
    #[error("not valid JSON: {0}")]
    Json(String),
    /// JSON of another form.
    #[error("not of the form {{timestamp, type, payload}}: {0}")]
    Form(String),
}

impl RolloutLine {
    /// Reads one line, without its line ending.
    ///
    /// # Errors
    /// If it is not JSON, or not of the form `{timestamp, type, payload}`. A line type that is not
    /// known is not an error.
    pub fn parse(line: &str) -> Result<Self, RolloutLineError> {
        serde_json::from_str(line).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => RolloutLineError::Form(error.to_string()),
            _ => RolloutLineError::Json(error.to_string()),
        })
    }

    /// Reads one line of a rollout of any generation. The bare headers, items and states of before the
    /// envelope `{timestamp, type, payload}` are given one, with an empty time.
    ///
    /// # Errors
    /// As [`RolloutLine::parse`].
    pub fn parse_any(line: &str) -> Result<Self, RolloutLineError> {
        Self::parse(line).or_else(|error| match error {
            RolloutLineError::Form(_) => Self::bare(line).ok_or(error),
            RolloutLineError::Json(_) => Err(error),
        })
    }

    fn bare(line: &str) -> Option<Self> {
        let Ok(Value::Object(map)) = serde_json::from_str(line) else {
            return None;
        };
        let has = |name: &str| map.get(name).is_some_and(Value::is_string);
        let kind = if map.contains_key("payload") {
            return None;
        } else if has("record_type") {
            "state"
        } else if has("id") && has("timestamp") && !has("type") {
            "session_meta"
        } else if (has("type") || has("role")) && !has("timestamp") {
            "response_item"
        } else {
            return None;
        };
        Some(Self {
            timestamp: String::new(),
            ordinal: None,
            kind: kind.to_owned(),
            payload: map,
            rest: Map::new(),
        })
    }

    /// What the line says.
    pub fn content(&self) -> LineContent {
        match self.kind.as_str() {
            "session_meta" => LineContent::SessionMeta,
            "turn_context" => LineContent::TurnContext,
            "compacted" => LineContent::Compacted(self.replacement()),
            "response_item" => Item::from_value(Value::Object(self.payload.clone()))
                .map_or(LineContent::Unknown, LineContent::Item),
            "event_msg" => self.event(),
            _ => LineContent::Unknown,
        }
    }

    fn replacement(&self) -> Vec<Item> {
        let items = self.payload.get("replacement_history");
        let items = items.and_then(Value::as_array).into_iter().flatten();
        items
            .filter_map(|item| Item::from_value(item.clone()).ok())
            .collect()
    }

    fn event(&self) -> LineContent {
        let name = self
            .payload
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let turn = self
            .payload
            .get("turn_id")
            .and_then(Value::as_str)
            .map(TurnId::from);
        match (turn_event(name), name) {
            (Some(None), _) => LineContent::TurnStarted(turn),
            (Some(Some(end)), _) => LineContent::TurnEnded(turn, end),
            (None, "thread_rolled_back") => {
                let turns = self.payload.get("num_turns").and_then(Value::as_u64);
                LineContent::RolledBack(
                    turns.map_or(0, |turns| usize::try_from(turns).unwrap_or(usize::MAX)),
                )
            }
            (None, other) => LineContent::Event(other.to_owned()),
        }
    }

    /// The line as JSON text, without a line ending.
    pub fn to_json(&self) -> String {
        // A struct of strings, numbers and JSON maps always serialises.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What an `event_msg` of that type says of its turn: that it starts, or how it ended. Nothing for any
/// other event.
pub fn turn_event(name: &str) -> Option<Option<TurnEnd>> {
    match name {
        "task_started" | "turn_started" => Some(None),
        "task_complete" | "turn_complete" => Some(Some(TurnEnd::Complete)),
        "turn_aborted" => Some(Some(TurnEnd::Aborted)),
        "turn_failed" => Some(Some(TurnEnd::Failed)),
        _ => None,
    }
}

/// Writes the text of a line, without a line ending: what [`RolloutLine::to_json`] gives for a line with
/// no members besides.
pub fn write_line(
    into: &mut Vec<u8>,
    timestamp: &str,
    ordinal: u64,
    kind: &str,
    payload: &impl Serialize,
) {
    #[derive(Serialize)]
    struct Line<'a, P> {
        timestamp: &'a str,
        ordinal: u64,
        #[serde(rename = "type")]
        kind: &'a str,
        payload: &'a P,
    }
    let line = Line {
        timestamp,
        ordinal,
        kind,
        payload,
    };
    let before = into.len();
    // As above, as long as the payload is JSON.
    if serde_json::to_writer(&mut *into, &line).is_err() {
        into.truncate(before);
    }
}

/// Splits a file's text into its whole lines and the unterminated rest, if there is one.
pub fn split(text: &str) -> (Vec<&str>, Option<&str>) {
    let mut lines: Vec<&str> = text.split('\n').collect();
    let tail = lines.pop().filter(|tail| !tail.is_empty());
    (lines, tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_lines_and_members_are_kept() {
        let text = r#"{"timestamp":"t","ordinal":4,"type":"world_state","payload":{"a":[1]},"metadata":{"b":2}}"#;
        let line = RolloutLine::parse(text).unwrap();
        assert_eq!(line.content(), LineContent::Unknown);
        assert_eq!(line.to_json(), text);
    }

    #[test]
    fn turns_are_bracketed_in_both_spellings() {
        let line = |event: &str| {
            let text = format!(
                r#"{{"timestamp":"t","type":"event_msg","payload":{{"type":"{event}","turn_id":"7"}}}}"#
            );
            RolloutLine::parse(&text).unwrap().content()
        };
        let turn = Some(TurnId::from("7"));
        assert_eq!(line("task_started"), LineContent::TurnStarted(turn.clone()));
        assert_eq!(
            line("turn_complete"),
            LineContent::TurnEnded(turn.clone(), TurnEnd::Complete)
        );
        assert_eq!(
            line("turn_aborted"),
            LineContent::TurnEnded(turn, TurnEnd::Aborted)
        );
        assert_eq!(
            line("token_count"),
            LineContent::Event("token_count".to_owned())
        );
    }

    #[test]
    fn what_changes_the_history_is_read() {
        let content = |line: &str| RolloutLine::parse(line).unwrap().content();
        let compacted = r#"{"timestamp":"t","type":"compacted","payload":{"message":"m","replacement_history":[{"role":"user","content":"hi"},7]}}"#;
        let LineContent::Compacted(items) = content(compacted) else {
            panic!("it is a compaction")
        };
        assert_eq!(items.len(), 1);
        let rolled_back = r#"{"timestamp":"t","type":"event_msg","payload":{"type":"thread_rolled_back","num_turns":2}}"#;
        assert_eq!(content(rolled_back), LineContent::RolledBack(2));
    }

    #[test]
    fn bare_lines_are_given_the_envelope() {
        let kind = |line: &str| RolloutLine::parse_any(line).map(|line| line.kind);
        let header = r#"{"id":"5973b6c0","timestamp":"2025-06-01T10:00:00Z","instructions":null}"#;
        assert_eq!(kind(header).unwrap(), "session_meta");
        let item = r#"{"type":"message","role":"user","content":[]}"#;
        assert_eq!(kind(item).unwrap(), "response_item");
        assert_eq!(kind(r#"{"record_type":"state"}"#).unwrap(), "state");
        let foreign = r#"{"type":"message","payload":{}}"#;
        assert!(matches!(kind(foreign), Err(RolloutLineError::Form(_))));
        assert!(matches!(
            kind(r#"{"level":"info"}"#),
            Err(RolloutLineError::Form(_))
        ));
    }

    #[test]
    fn torn_and_foreign_lines_are_told_apart() {
        assert!(matches!(
            RolloutLine::parse(r#"{"timestamp":"t","ty"#),
            Err(RolloutLineError::Json(_))
        ));
        assert!(matches!(
            RolloutLine::parse(r#"{"record_type":"state"}"#),
            Err(RolloutLineError::Form(_))
        ));
        assert_eq!(split("a\nb\nto"), (vec!["a", "b"], Some("to")));
        assert_eq!(split("a\n"), (vec!["a"], None));
        assert_eq!(split(""), (vec![], None));
    }
}
