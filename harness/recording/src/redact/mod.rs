//! Taking secrets out of what is recorded.
//!
//! What is taken out leaves a placeholder such as `<api-key-1>`. The same secret has the same
//! placeholder wherever it stands, so what a request echoes still matches what the model said.

mod find;
mod headers;
mod json;
mod placeholders;
mod secret_kinds;
mod stream;
mod unescape;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;

use regex::Regex;

pub use self::find::{find_secrets, is_credential};
pub use self::headers::REDACTED;
pub(crate) use self::headers::exposed;
pub(crate) use self::placeholders::{has_placeholder, is_redacted, kinds_only};

use self::find::SecretFinder;
use self::json::StringLiteral;
use self::secret_kinds::{ENCRYPTED, NAMED, SECRET_NAMES};

/// A credential in a header that is shorter than this is not looked for elsewhere.
const CREDENTIAL_LEAST_BYTES: usize = 12;
/// Text under a telling name that is shorter than this is not a secret.
const NAMED_LEAST_BYTES: usize = 8;

/// Takes secrets out of texts, headers, JSON and streams.
#[derive(Debug)]
pub struct Redactor {
    is_on: bool,
    finder: SecretFinder,
    /// Secret → placeholder.
    placeholders: HashMap<String, String>,
    /// How many different secrets of each kind there were.
    different: BTreeMap<&'static str, usize>,
    /// In how many places.
    places: BTreeMap<&'static str, usize>,
    headers_left_out: usize,
}

/// A pattern of the user's is not a regular expression.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("`{pattern}` is not a regular expression: {error}")]
pub struct PatternError {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub error: Box<regex::Error>,
}

/// What was redacted, without what it was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedactionReport {
    /// Kind → how many different secrets, in how many places.
    pub kinds: BTreeMap<&'static str, (usize, usize)>,
    /// How many headers were left out.
    pub headers: usize,
}

impl Redactor {
    /// A redactor that also looks for what `custom` matches (its first group, if it has one).
    ///
    /// # Errors
    /// If one of them is not a regular expression.
    pub fn new(custom: &[String]) -> Result<Self, PatternError> {
        let custom = custom.iter().map(|text| {
            Regex::new(text).map_err(|error| PatternError {
                pattern: text.clone(),
                error: Box::new(error),
            })
        });
        let finder = SecretFinder {
            custom: custom.collect::<Result<_, _>>()?,
            literals: Vec::new(),
        };
        Ok(Self::with(finder, true))
    }

    /// One that leaves everything but headers as it is.
    pub fn off() -> Self {
        Self::with(SecretFinder::default(), false)
    }

    fn with(finder: SecretFinder, is_on: bool) -> Self {
        Self {
            is_on,
            finder,
            placeholders: HashMap::new(),
            different: BTreeMap::new(),
            places: BTreeMap::new(),
            headers_left_out: 0,
        }
    }

    /// What was redacted so far.
    pub fn report(&self) -> RedactionReport {
        let count = |(kind, places): (&&'static str, &usize)| {
            (
                *kind,
                (
                    self.different.get(kind).copied().unwrap_or_default(),
                    *places,
                ),
            )
        };
        RedactionReport {
            kinds: self.places.iter().map(count).collect(),
            headers: self.headers_left_out,
        }
    }

    /// The headers that a recording keeps, redacted. What the others held is looked for from now on.
    pub fn headers<'a>(
        &mut self,
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> BTreeMap<String, String> {
        let mut kept = BTreeMap::new();
        for (name, value) in headers {
            if headers::is_kept(name) {
                let value = self.text(value).unwrap_or_else(|| value.to_owned());
                kept.insert(name.to_ascii_lowercase(), value);
                continue;
            }
            if !self.is_on || !headers::is_secret(name) {
                continue;
            }
            self.headers_left_out += 1;
            for secret in credentials(name, value) {
                if !self.finder.literals.iter().any(|known| known == secret) {
                    self.finder.literals.push(secret.to_owned());
                }
            }
        }
        kept
    }

    /// A text without its secrets; `None` if it has none.
    pub fn text(&mut self, text: &str) -> Option<String> {
        let found = self.placed(text);
        (!found.is_empty()).then(|| json::replaced(text, found))
    }

    /// JSON, or any other text, without its secrets; `None` if it has none.
    pub fn json(&mut self, text: &str) -> Option<String> {
        if !self.is_on {
            return None;
        }
        let Some(parts) = json::parts(text) else {
            return self.text(text);
        };
        let mut edits = Vec::new();
        for literal in &parts.strings {
            let new = self.literal(literal);
            edits.extend(new.map(|new| (literal.range.clone(), json::quoted(&new))));
        }
        if !edits.is_empty() {
            // The tokens of a text with a secret spell it out.
            let logprobs = parts.logprobs.into_iter().filter(|range| range.len() > 2);
            edits.extend(logprobs.map(|range| (range, "[]".to_owned())));
        }
        (!edits.is_empty()).then(|| json::replaced(text, edits))
    }

    /// A string of a JSON text without its secrets; `None` if it has none.
    fn literal(&mut self, literal: &StringLiteral) -> Option<String> {
        let name = literal.name.as_deref().unwrap_or_default();
        let text = literal.text.as_str();
        let whole = if literal.is_name || is_placeholder(text) {
            None
        } else if name == "encrypted_content" && !text.is_empty() {
            Some(ENCRYPTED)
        } else if text.len() >= NAMED_LEAST_BYTES && is_secret_name(name) {
            Some(NAMED)
        } else {
            None
        };
        match whole {
            Some(kind) => Some(self.placeholder(kind, text)),
            None => self.text(text),
        }
    }

    /// The places of a text's secrets, each with its placeholder.
    fn placed(&mut self, text: &str) -> Vec<(Range<usize>, String)> {
        if !self.is_on {
            return Vec::new();
        }
        let found = self.finder.find(text);
        found
            .into_iter()
            .map(|found| (found.range, self.placeholder(found.kind, &found.plain)))
            .collect()
    }

    fn placeholder(&mut self, kind: &'static str, secret: &str) -> String {
        *self.places.entry(kind).or_default() += 1;
        if let Some(known) = self.placeholders.get(secret) {
            return known.clone();
        }
        let number = self.different.entry(kind).or_default();
        *number += 1;
        let placeholder = format!("<{kind}-{number}>");
        self.placeholders
            .insert(secret.to_owned(), placeholder.clone());
        placeholder
    }
}

/// What a header holds that opens doors: the token without its scheme, a cookie's values.
fn credentials<'a>(name: &str, value: &'a str) -> impl Iterator<Item = &'a str> {
    let is_cookie = name.to_ascii_lowercase().contains("cookie");
    let separators: &[char] = if is_cookie { &[';', '='] } else { &[' ', ','] };
    value
        .split(separators)
        .map(str::trim)
        .filter(|word| word.len() >= CREDENTIAL_LEAST_BYTES)
}

fn is_secret_name(name: &str) -> bool {
    let plain: String = name
        .chars()
        .filter(|c| !matches!(c, '_' | '-'))
        .map(|c| c.to_ascii_lowercase())
        .collect();
    SECRET_NAMES.contains(&plain.as_str())
}

/// Whether a text is a placeholder already, as in what was recorded from a redacted recording.
fn is_placeholder(text: &str) -> bool {
    let inner = text
        .strip_prefix('<')
        .and_then(|rest| rest.strip_suffix('>'));
    let number = inner.and_then(|inner| inner.rsplit_once('-'));
    number.is_some_and(|(kind, number)| {
        kind.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'-')
            && number.parse::<usize>().is_ok()
    })
}

impl fmt::Display for RedactionReport {
    /// One line: kinds with their counts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = self
            .kinds
            .iter()
            .map(|(kind, (different, places))| match places {
                1 => format!("{kind} × {different}"),
                _ => format!("{kind} × {different} (in {places} places)"),
            })
            .collect();
        if self.headers > 0 {
            parts.push(format!("secret headers × {}", self.headers));
        }
        if parts.is_empty() {
            return f.write_str("nothing");
        }
        f.write_str(&parts.join(", "))
    }
}
