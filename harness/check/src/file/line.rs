//! One line of a rollout, read in one pass: what the rules ask for is borrowed, the rest passed over.

use std::borrow::Cow;
use std::fmt;

use cutpoint_protocol::ItemKind;
use cutpoint_protocol::rollout::turn_event;
use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;

/// What a line is, by its form alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LineForm {
    /// `{timestamp, type, payload}`, with an ordinal or without.
    Wrapped,
    /// A bare item, as the oldest rollouts have them.
    BareItem,
    /// The header of such a rollout: its session's id and time.
    BareHeader,
    /// A `record_type` line of such a rollout.
    BareRecord,
}

impl LineForm {
    /// Whether it is one of the forms that the oldest rollouts consist of.
    pub(super) fn is_bare(self) -> bool {
        self != Self::Wrapped
    }
}

/// Why a line can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unreadable {
    /// The byte that it fails at, counted from 1.
    pub(super) column: usize,
    /// What is wrong, as the end of a sentence that starts with the line.
    pub(super) why: String,
}

/// A line's fields, as far as a rule asks for them.
#[derive(Debug, Default)]
pub(super) struct LineFields<'a> {
    timestamp: Text<'a>,
    /// Its number, in the forms that have one.
    pub(super) ordinal: Option<u64>,
    /// What kind of line it is; the item's type where the item is bare.
    pub(super) kind: Text<'a>,
    record_type: bool,
    payload: Payload,
    /// What the payload says, or the bare item.
    pub(super) fields: PayloadFields<'a>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Payload {
    #[default]
    Absent,
    Object,
    Other,
}

/// What a payload or a bare item says.
#[derive(Debug, Default)]
pub(super) struct PayloadFields<'a> {
    pub(super) kind: Text<'a>,
    pub(super) role: Text<'a>,
    pub(super) call_id: Text<'a>,
    pub(super) id: Text<'a>,
    pub(super) turn_id: Text<'a>,
    pub(super) reason: Text<'a>,
    /// A session that this one was taken from.
    pub(super) forked_from: Text<'a>,
    pub(super) content: Option<&'a RawValue>,
}

impl<'a> LineFields<'a> {
    /// Reads a line, without its line break.
    pub(super) fn read(bytes: &'a [u8]) -> Result<(LineForm, Self), Unreadable> {
        if bytes.trim_ascii().is_empty() {
            let why = "empty".to_owned();
            return Err(Unreadable { column: 1, why });
        }
        // What is passed over is not looked at; most lines need no more than a quick look for that.
        let line = if bytes.is_ascii() {
            serde_json::from_slice(bytes)
        } else {
            let text = std::str::from_utf8(bytes).map_err(|error| Unreadable {
                column: error.valid_up_to() + 1,
                why: "not valid UTF-8".to_owned(),
            })?;
            serde_json::from_str(text)
        };
        let line: Self = line.map_err(|error| unreadable(bytes, &error))?;
        Ok((line.form()?, line))
    }

    fn form(&self) -> Result<LineForm, Unreadable> {
        let lacks = |what: &str| {
            let why = format!("not of the form {{timestamp, type, payload}}: {what}");
            Err(Unreadable { column: 1, why })
        };
        match self.payload {
            Payload::Object if self.kind.0.is_none() => lacks("it has no `type`"),
            Payload::Object if self.timestamp.0.is_none() => lacks("it has no `timestamp`"),
            Payload::Object => Ok(LineForm::Wrapped),
            Payload::Other => lacks("its `payload` is not an object"),
            Payload::Absent if self.record_type => Ok(LineForm::BareRecord),
            Payload::Absent if self.timestamp.0.is_some() => {
                match (self.kind.0.is_some(), self.fields.id.0.is_some()) {
                    (true, _) => lacks("it has no `payload`"),
                    (false, true) => Ok(LineForm::BareHeader),
                    (false, false) => lacks("it has no `type` and no `payload`"),
                }
            }
            Payload::Absent if self.kind.0.is_some() || self.fields.role.0.is_some() => {
                Ok(LineForm::BareItem)
            }
            Payload::Absent => lacks("it has none of them"),
        }
    }

    /// What a payload can say that a rule asks for.
    fn wanted(&self) -> WantedFields {
        match self.kind.get() {
            // A line may have its type after its payload.
            None | Some("session_meta") => WantedFields::All,
            Some("response_item") => WantedFields::Items,
            Some("event_msg") => WantedFields::Events,
            Some(_) => WantedFields::Nothing,
        }
    }
}

/// Of which payloads the fields are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WantedFields {
    All,
    Items,
    Events,
    Nothing,
}

impl WantedFields {
    /// Whether more than its type is wanted of a payload.
    fn wants(self, kind: &str) -> bool {
        match self {
            Self::All => true,
            Self::Items => ItemKind::from_name(kind).is_some_and(|kind| {
                let is_paired = kind.call_kind().is_some() || kind.output_kind().is_some();
                is_paired || kind == ItemKind::Message
            }),
            Self::Events => turn_event(kind).is_some(),
            Self::Nothing => false,
        }
    }
}

fn unreadable(line: &[u8], error: &serde_json::Error) -> Unreadable {
    let text = error.to_string();
    // The position is reported separately; here the line would always be the first.
    let said = text.rfind(" at line ").map_or(&text[..], |at| &text[..at]);
    match error.classify() {
        serde_json::error::Category::Data => Unreadable {
            column: 1,
            why: format!("not of the form {{timestamp, type, payload}}: {said}"),
        },
        _ => Unreadable {
            column: error.column().clamp(1, line.len().max(1)),
            why: format!("not valid JSON: {said}"),
        },
    }
}

/// The visits of a visitor to values that it is not after: they are read, and this stands for them.
macro_rules! passed_over {
    ($value:expr; $($kind:ident)*) => { $(passed_over!(@ $kind $value);)* };
    (@ str $value:expr) => {
        fn visit_str<E: de::Error>(self, _: &str) -> Result<Self::Value, E> {
            Ok($value)
        }
    };
    (@ unit $value:expr) => {
        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok($value)
        }
    };
    (@ bool $value:expr) => { passed_over!(@@ visit_bool bool $value); };
    (@ i64 $value:expr) => { passed_over!(@@ visit_i64 i64 $value); };
    (@ u64 $value:expr) => { passed_over!(@@ visit_u64 u64 $value); };
    (@ f64 $value:expr) => { passed_over!(@@ visit_f64 f64 $value); };
    (@ seq $value:expr) => {
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            Ok($value)
        }
    };
    (@ map $value:expr) => {
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok($value)
        }
    };
    (@@ $visit:ident $type:ident $value:expr) => {
        fn $visit<E: de::Error>(self, _: $type) -> Result<Self::Value, E> {
            Ok($value)
        }
    };
}

/// A string, where there is one; any other value is passed over.
#[derive(Debug, Default)]
pub(super) struct Text<'a>(pub(super) Option<Cow<'a, str>>);

impl Text<'_> {
    pub(super) fn get(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// The string, empty where there is none.
    pub(super) fn or_empty(&self) -> &str {
        self.get().unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Text(Some(Cow::Borrowed(text))))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Text(Some(Cow::Owned(text.to_owned()))))
    }

    passed_over!(Text(None); unit bool i64 u64 f64 seq map);
}

/// The names of the fields that a rule asks for.
#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum FieldName {
    Timestamp,
    Ordinal,
    Type,
    Payload,
    RecordType,
    Role,
    CallId,
    Id,
    TurnId,
    Reason,
    #[serde(alias = "forked_from_id")]
    ForkedFrom,
    Content,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for LineFields<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(LineVisitor)
    }
}

struct LineVisitor;

impl<'de> Visitor<'de> for LineVisitor {
    type Value = LineFields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    // Of a field that stands there twice the last one counts, as with every reader of JSON objects.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut line = LineFields::default();
        while let Some(name) = map.next_key()? {
            match name {
                FieldName::Timestamp => line.timestamp = map.next_value()?,
                FieldName::Ordinal => line.ordinal = map.next_value::<Count>()?.0,
                FieldName::Type => line.kind = map.next_value()?,
                FieldName::Payload => {
                    line.fields = PayloadFields::default();
                    let wanted = line.wanted();
                    let fields = &mut line.fields;
                    line.payload = map.next_value_seed(PayloadReader { fields, wanted })?;
                }
                FieldName::RecordType => {
                    map.next_value::<IgnoredAny>()?;
                    line.record_type = true;
                }
                name if line.payload == Payload::Absent => line.fields.take(name, &mut map)?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(line)
    }
}

/// A number that counts, where there is one.
struct Count(Option<u64>);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(CountVisitor)
    }
}

struct CountVisitor;

impl<'de> Visitor<'de> for CountVisitor {
    type Value = Count;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Count(Some(number)))
    }

    passed_over!(Count(None); str unit bool i64 f64 seq map);
}

/// Reads a payload into the fields of its line.
struct PayloadReader<'f, 'de> {
    fields: &'f mut PayloadFields<'de>,
    wanted: WantedFields,
}

impl<'de> DeserializeSeed<'de> for PayloadReader<'_, 'de> {
    type Value = Payload;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        if self.wanted == WantedFields::Nothing {
            let raw = <&RawValue>::deserialize(from)?;
            return Ok(match raw.get().starts_with('{') {
                true => Payload::Object,
                false => Payload::Other,
            });
        }
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for PayloadReader<'_, 'de> {
    type Value = Payload;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while let Some(name) = map.next_key()? {
            match name {
                FieldName::Type => {
                    self.fields.kind = map.next_value()?;
                    if !self.wanted.wants(self.fields.kind.or_empty()) {
                        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                        break;
                    }
                }
                name => self.fields.take(name, &mut map)?,
            }
        }
        Ok(Payload::Object)
    }

    passed_over!(Payload::Other; str unit bool i64 u64 f64 seq);
}

impl<'de> PayloadFields<'de> {
    fn take<A: MapAccess<'de>>(&mut self, name: FieldName, map: &mut A) -> Result<(), A::Error> {
        match name {
            FieldName::Role => self.role = map.next_value()?,
            FieldName::CallId => self.call_id = map.next_value()?,
            FieldName::Id => self.id = map.next_value()?,
            FieldName::TurnId => self.turn_id = map.next_value()?,
            FieldName::Reason => self.reason = map.next_value()?,
            FieldName::ForkedFrom => self.forked_from = map.next_value()?,
            FieldName::Content => self.content = Some(map.next_value()?),
            FieldName::Timestamp
            | FieldName::Ordinal
            | FieldName::Type
            | FieldName::Payload
            | FieldName::RecordType
            | FieldName::Other => {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use cutpoint_protocol::rollout::RolloutLine;
    use proptest::prelude::*;

    use super::*;

    fn form(text: &str) -> Result<LineForm, Unreadable> {
        LineFields::read(text.as_bytes()).map(|(form, _)| form)
    }

    #[test]
    fn the_forms_of_all_generations_are_known() {
        let cases = [
            (
                r#"{"timestamp":"t","type":"x","payload":{}}"#,
                LineForm::Wrapped,
            ),
            (
                r#"{"payload":{"a":[{}]},"ordinal":7,"type":"x","timestamp":"t"}"#,
                LineForm::Wrapped,
            ),
            (
                r#"{"id":"u","timestamp":"t","instructions":null,"git":{}}"#,
                LineForm::BareHeader,
            ),
            (r#"{"record_type":"state"}"#, LineForm::BareRecord),
            (
                r#"{"type":"message","role":"user","content":[]}"#,
                LineForm::BareItem,
            ),
            (r#"{"role":"user","content":"x"}"#, LineForm::BareItem),
        ];
        for (text, expected) in cases {
            assert_eq!(form(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_line_says_where_and_why() {
        let cases: [(&[u8], usize, &str); 9] = [
            (
                b"{\"timestamp\":\"t\",\"ty",
                20,
                "not valid JSON: EOF while parsing a string",
            ),
            (b"{\"a\":\xff}", 6, "not valid UTF-8"),
            (b"", 1, "empty"),
            (b"[1]", 1, "invalid type: sequence"),
            (b"7", 1, "invalid type: integer"),
            (b"{\"type\":\"x\",\"payload\":{}}", 1, "no `timestamp`"),
            (b"{\"timestamp\":\"t\",\"payload\":{}}", 1, "no `type`"),
            (
                b"{\"timestamp\":\"t\",\"type\":\"x\",\"payload\":3}",
                1,
                "not an object",
            ),
            (b"{\"timestamp\":\"t\",\"type\":\"x\"}", 1, "no `payload`"),
        ];
        for (bytes, column, why) in cases {
            let unreadable = LineFields::read(bytes).unwrap_err();
            let shown = String::from_utf8_lossy(bytes);
            assert!(unreadable.why.contains(why), "{shown}: {unreadable:?}");
            assert_eq!(unreadable.column, column, "{shown}");
        }
        let two = format!("{0}{0}", r#"{"timestamp":"t","type":"x","payload":{}}"#);
        assert_eq!(form(&two).unwrap_err().column, 42);
    }

    #[test]
    fn fields_of_any_type_are_taken_or_passed_over() {
        let text = r#"{"timestamp":"t","type":"event_msg","ordinal":-1,"payload":{"type":"a\u0062","role":[1,{"x":2}],"call_id":{"y":[]},"id":5,"turn_id":null,"reason":true,"content":1.5}}"#;
        let (_, line) = LineFields::read(text.as_bytes()).unwrap();
        let fields = &line.fields;
        assert_eq!(fields.kind.get(), Some("ab"));
        assert_eq!(line.ordinal, None);
        for other in [&fields.role, &fields.call_id, &fields.id, &fields.turn_id] {
            assert_eq!(other.get(), None);
        }
    }

    proptest! {
        /// What the reader of single lines takes, this one takes as the same.
        #[test]
        fn both_readers_agree(
            kind in "[a-z_]{0,8}",
            name in "(type|role|call_id|turn_id|content|payload|x)",
            value in "(\"[a-z\\\\\\\\n]{0,4}\"|[0-9]{1,3}|null|\\{\\}|\\[1,\"a\"\\])",
            ordinal in prop::option::of(0..9_u64),
            cut in 0..200_usize,
        ) {
            let ordinal = ordinal.map(|ordinal| format!("\"ordinal\":{ordinal},")).unwrap_or_default();
            let text = format!(
                "{{\"timestamp\":\"t\",{ordinal}\"type\":\"{kind}\",\"payload\":{{\"{name}\":{value}}}}}"
            );
            let text = &text[..text.len().min(cut)];
            let (one, other) = (LineFields::read(text.as_bytes()), RolloutLine::parse_any(text));
            prop_assert_eq!(one.is_ok(), other.is_ok(), "{}", text);
            if let (Ok((_, one)), Ok(other)) = (one, other) {
                prop_assert_eq!(one.ordinal, other.ordinal);
                prop_assert_eq!(one.kind.or_empty(), other.kind);
            }
        }
    }
}
