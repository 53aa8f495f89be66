//! What a breach of a rule consists of: the clause that was broken, the facts, and the evidence.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// The kind of a breach that was stored before breaches had kinds.
pub const UNSPECIFIED: &str = "unspecified";

/// One way in which a rule can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clause {
    /// What identifies the clause within its rule: lower-case words joined by hyphens, such as
    /// `no-output`. It stays when the text is reworded.
    pub kind: &'static str,
    /// What happened, in a sentence. `{name}` stands for the fact of that name, and `{name:?}` for the
    /// fact in quotes.
    pub text: &'static str,
}

impl Clause {
    /// This clause was broken, and this is one of the facts.
    pub fn with(self, name: &'static str, fact: impl Into<Fact>) -> Fault {
        Fault::from(self).with(name, fact)
    }

    /// The names of the facts in the text, in its order.
    pub fn placeholders(&self) -> impl Iterator<Item = &'static str> {
        let names = Pieces(self.text).filter_map(|piece| match piece {
            Piece::Fact { name, .. } => Some(name),
            Piece::Text(_) => None,
        });
        names.collect::<Vec<_>>().into_iter()
    }
}

/// A fact about a breach. A unit stands in the fact's name, such as `delay_ms`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Fact {
    /// A number, such as that of a request.
    Number(u64),
    /// An id, or a piece of text.
    Text(String),
}

/// Facts by name.
pub type Facts = BTreeMap<Cow<'static, str>, Fact>;

impl From<u64> for Fact {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<u16> for Fact {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<u32> for Fact {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<usize> for Fact {
    fn from(number: usize) -> Self {
        Self::Number(number as u64)
    }
}

impl From<String> for Fact {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Fact {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// A clause that was broken, with the facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The clause.
    pub clause: Clause,
    /// The facts.
    pub facts: Facts,
}

impl From<Clause> for Fault {
    fn from(clause: Clause) -> Self {
        Self {
            clause,
            facts: Facts::new(),
        }
    }
}

impl Fault {
    /// The same with another fact.
    #[must_use]
    pub fn with(mut self, name: &'static str, fact: impl Into<Fact>) -> Self {
        self.facts.insert(Cow::Borrowed(name), fact.into());
        self
    }

    /// What happened, in a sentence.
    pub fn text(&self) -> String {
        render(self.clause.text, &self.facts)
    }

    /// A breach that is shown by these entries of the trace.
    pub fn shown_by(self, evidence: Vec<u64>) -> Breach {
        Breach {
            kind: Cow::Borrowed(self.clause.kind),
            facts: self.facts,
            evidence,
            wording: Wording::Template(self.clause.text),
        }
    }
}

/// A breach of a rule, with its evidence.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "StoredBreach", into = "StoredBreach")]
pub struct Breach {
    /// The clause that was broken, by its kind; unique within the rule.
    pub kind: Cow<'static, str>,
    /// The facts, by name.
    pub facts: Facts,
    /// The trace entries that show it, by number, in order.
    pub evidence: Vec<u64>,
    wording: Wording,
}

#[derive(Debug, Clone)]
enum Wording {
    /// The clause's text, not yet filled in.
    Template(&'static str),
    /// A text that was stored, as it stands.
    Rendered(String),
}

impl Breach {
    /// What happened, in a sentence.
    pub fn text(&self) -> Cow<'_, str> {
        match &self.wording {
            Wording::Template(template) => Cow::Owned(render(template, &self.facts)),
            Wording::Rendered(text) => Cow::Borrowed(text),
        }
    }
}

/// A breach that was read back equals the one that was stored.
impl PartialEq for Breach {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.facts == other.facts
            && self.evidence == other.evidence
            && self.text() == other.text()
    }
}

impl Eq for Breach {}

/// A breach as results store it.
#[derive(Serialize, Deserialize)]
struct StoredBreach {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    facts: Facts,
    message: String,
    evidence: Vec<u64>,
}

impl From<StoredBreach> for Breach {
    fn from(stored: StoredBreach) -> Self {
        let kind = match stored.kind.is_empty() {
            true => Cow::Borrowed(UNSPECIFIED),
            false => Cow::Owned(stored.kind),
        };
        Self {
            kind,
            facts: stored.facts,
            evidence: stored.evidence,
            wording: Wording::Rendered(stored.message),
        }
    }
}

impl From<Breach> for StoredBreach {
    fn from(breach: Breach) -> Self {
        Self {
            message: breach.text().into_owned(),
            kind: breach.kind.into_owned(),
            facts: breach.facts,
            evidence: breach.evidence,
        }
    }
}

enum Piece<'t> {
    Text(&'t str),
    Fact { name: &'t str, quoted: bool },
}

/// A template in pieces.
struct Pieces<'t>(&'t str);

impl<'t> Iterator for Pieces<'t> {
    type Item = Piece<'t>;

    fn next(&mut self) -> Option<Piece<'t>> {
        let text = self.0;
        let inner = text.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        if let Some((inner, rest)) = inner {
            self.0 = rest;
            let name = inner.strip_suffix(":?");
            return Some(Piece::Fact {
                name: name.unwrap_or(inner),
                quoted: name.is_some(),
            });
        }
        let first = text.chars().next()?.len_utf8();
        let next = text[first..].find('{').map_or(text.len(), |at| first + at);
        let (piece, rest) = text.split_at(next);
        self.0 = rest;
        Some(Piece::Text(piece))
    }
}

fn render(template: &str, facts: &Facts) -> String {
    let mut text = String::with_capacity(template.len() * 2);
    for piece in Pieces(template) {
        let written = match piece {
            Piece::Text(piece) => text.write_str(piece),
            Piece::Fact { name, quoted } => match facts.get(name) {
                Some(Fact::Number(number)) => write!(text, "{number}"),
                Some(Fact::Text(fact)) if quoted => write!(text, "{fact:?}"),
                Some(Fact::Text(fact)) => text.write_str(fact),
                None => write!(text, "{{{name}}}"),
            },
        };
        written.expect("a string takes what is written to it");
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NO_OUTPUT: Clause = Clause {
        kind: "no-output",
        text: "request {request} has no output for {call:?}",
    };

    fn breach() -> Breach {
        let fault = NO_OUTPUT.with("request", 2_u64).with("call", "c{1}");
        fault.shown_by(vec![3, 8])
    }

    #[test]
    fn the_text_is_made_from_the_facts() {
        assert_eq!(breach().text(), "request 2 has no output for \"c{1}\"");
        let names: Vec<&str> = NO_OUTPUT.placeholders().collect();
        assert_eq!(names, ["request", "call"]);
        let lacking = NO_OUTPUT.with("request", 2_u64).text();
        assert_eq!(lacking, "request 2 has no output for {call}");
    }

    #[test]
    fn a_stored_breach_reads_back_as_it_was() {
        let stored = serde_json::to_value(breach()).unwrap();
        let expected = json!({
            "kind": "no-output",
            "facts": {"call": "c{1}", "request": 2},
            "message": "request 2 has no output for \"c{1}\"",
            "evidence": [3, 8],
        });
        assert_eq!(stored, expected);
        let read: Breach = serde_json::from_value(stored).unwrap();
        assert_eq!(read, breach());
    }

    #[test]
    fn a_breach_that_was_stored_without_a_kind_keeps_its_message() {
        let stored = json!({"message": "a {turn} ended", "evidence": []});
        let read: Breach = serde_json::from_value(stored).unwrap();
        assert_eq!(read.kind, UNSPECIFIED);
        assert_eq!(read.text(), "a {turn} ended");
    }
}
