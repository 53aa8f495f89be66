//! Finding secrets in a text, whatever escapes they are spelled with.

use std::ops::Range;
use std::sync::LazyLock;

use regex::{Regex, RegexBuilder};

use super::secret_kinds::{CREDENTIAL, CUSTOM, EMAIL, ENCRYPTED, GENERIC_USER_NAMES, HOME, KINDS};
use super::unescape::Unescaped;

/// How many levels of escapes are taken back: text in JSON, in JSON, in JSON.
const LEVELS: usize = 4;
/// How far an e-mail address may reach to either side of its `@`.
const EMAIL_REACH_BYTES: usize = 128;

/// What ends the names of files that have an `@` in them, and no address.
const FILE_ENDINGS: [&str; 8] = ["gif", "jpeg", "jpg", "js", "json", "png", "svg", "webp"];

/// All kinds at once, each in a group of its own.
static ALL: LazyLock<Regex> = LazyLock::new(|| {
    let alternatives: Vec<&str> = KINDS.iter().map(|kind| kind.pattern).collect();
    RegexBuilder::new(&alternatives.join("|"))
        .unicode(false)
        .size_limit(64 << 20)
        .dfa_size_limit(16 << 20)
        .build()
        .unwrap_or_else(|error| unreachable!("the patterns are part of the program: {error}"))
});

/// A secret in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundSecret {
    pub(super) kind: &'static str,
    pub(super) range: Range<usize>,
    /// The secret without escapes.
    pub(super) plain: String,
}

/// Finds the secrets of a text: what kind each is, and where it stands.
///
/// Escapes of JSON hide nothing, up to four levels of them. Placeholders of a redacted recording are
/// no secrets. The ranges don't overlap and come in order.
pub fn find_secrets(text: &str) -> impl Iterator<Item = (&'static str, Range<usize>)> + use<> {
    SecretFinder::default()
        .find(text)
        .into_iter()
        .map(|found| (found.kind, found.range))
}

/// Whether a secret of this kind opens doors, and does not only identify a person.
pub fn is_credential(kind: &str) -> bool {
    ![EMAIL, HOME, ENCRYPTED].contains(&kind)
}

/// What is looked for.
#[derive(Debug, Default)]
pub(super) struct SecretFinder {
    /// What the user wants to be looked for besides.
    pub(super) custom: Vec<Regex>,
    /// Credentials that were seen in headers.
    pub(super) literals: Vec<String>,
}

impl SecretFinder {
    /// The secrets of a text, in order, without overlaps.
    pub(super) fn find(&self, text: &str) -> Vec<FoundSecret> {
        let mut found = Vec::new();
        self.look(text, &mut |kind, range| {
            let plain = text[range.clone()].to_owned();
            found.push(FoundSecret { kind, range, plain });
        });
        let mut views: Vec<Unescaped> = Vec::new();
        while views.len() < LEVELS
            && let Some(view) = Unescaped::of(views.last().map_or(text, |view| &view.text))
        {
            let back = |at: usize| {
                let inner = view.start(at);
                views.iter().rev().fold(inner, |at, view| view.start(at))
            };
            let mut deeper = Vec::new();
            self.look(&view.text, &mut |kind, range| {
                let plain = view.text[range.clone()].to_owned();
                let range = back(range.start)..back(range.end);
                deeper.push(FoundSecret { kind, range, plain });
            });
            if views.is_empty() {
                // The letter of an escape is not a part of what follows it. In a path with backslashes
                // that are none, it is.
                for found in found.iter_mut().filter(|found| found.kind != HOME) {
                    found.range.start = view.boundary(found.range.start);
                }
                found.retain(|found| found.range.start < found.range.end);
            }
            found.extend(deeper);
            views.push(view);
        }
        merge(found)
    }

    fn look(&self, text: &str, tell: &mut dyn FnMut(&'static str, Range<usize>)) {
        patterns(text, tell);
        emails(text, tell);
        for literal in &self.literals {
            for (at, _) in text.match_indices(literal.as_str()) {
                tell(CREDENTIAL, at..at + literal.len());
            }
        }
        for regex in &self.custom {
            for captures in regex.captures_iter(text) {
                let wanted = captures.get(1).or_else(|| captures.get(0));
                if let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) {
                    tell(CUSTOM, wanted.range());
                }
            }
        }
    }
}

fn patterns(text: &str, tell: &mut dyn FnMut(&'static str, Range<usize>)) {
    let mut from = 0;
    while let Some(captures) = ALL.captures_at(text, from) {
        let whole = captures
            .get(0)
            .map_or(text.len()..text.len(), |whole| whole.range());
        let group = (1..=KINDS.len()).find_map(|at| Some((at, captures.get(at)?)));
        from = whole.end.max(from + 1);
        let Some((at, secret)) = group else { continue };
        let kind = &KINDS[at - 1];
        if is_likely(kind.name, kind.wordy, secret.as_str()) {
            tell(kind.name, secret.range());
        } else {
            // What was taken for a secret may hold one.
            from = next_char(text, whole.start);
        }
        if from > text.len() {
            break;
        }
    }
}

fn next_char(text: &str, at: usize) -> usize {
    at + text[at..].chars().next().map_or(1, char::len_utf8)
}

fn is_likely(kind: &str, wordy: bool, secret: &str) -> bool {
    let telling = |c: char| c.is_ascii_digit() || c.is_ascii_uppercase();
    (!wordy || secret.contains(telling)) && (kind != HOME || !GENERIC_USER_NAMES.contains(&secret))
}

/// Addresses are found from their `@` outwards: they begin with nothing that could be searched for.
fn emails(text: &str, tell: &mut dyn FnMut(&'static str, Range<usize>)) {
    let bytes = text.as_bytes();
    for (at, _) in text.match_indices('@') {
        let local = |byte: &&u8| byte.is_ascii_alphanumeric() || b"._%+-".contains(byte);
        let before = bytes[..at].iter().rev().take(EMAIL_REACH_BYTES);
        let before = before.take_while(local).count();
        let start = at - before;
        let skipped = bytes[start..at]
            .iter()
            .take_while(|byte| !byte.is_ascii_alphanumeric());
        let start = start + skipped.count();
        let domain = |byte: &&u8| byte.is_ascii_alphanumeric() || b".-".contains(byte);
        let after = bytes[at + 1..].iter().take(EMAIL_REACH_BYTES);
        let length = after.take_while(domain).count();
        let domain = text[at + 1..at + 1 + length].trim_end_matches(['.', '-']);
        let top = domain.rsplit_once('.').map_or("", |(_, top)| top);
        let is_top = top.len() >= 2
            && top.bytes().all(|byte| byte.is_ascii_alphabetic())
            && !FILE_ENDINGS.contains(&top);
        // `git@host` is how a repository is named, and nobody's address.
        if start < at && is_top && &text[start..at] != "git" {
            tell(EMAIL, start..at + 1 + domain.len());
        }
    }
}

/// Puts together what overlaps. Of several views of one place, the widest tells what it is.
fn merge(mut found: Vec<FoundSecret>) -> Vec<FoundSecret> {
    found.sort_by_key(|found| (found.range.start, std::cmp::Reverse(found.range.end)));
    let mut merged: Vec<FoundSecret> = Vec::new();
    for next in found {
        match merged.last_mut() {
            Some(last) if next.range.start < last.range.end => {
                if next.range.end > last.range.end {
                    let start = last.range.start;
                    if next.range.len() > last.range.len() {
                        *last = next;
                    } else {
                        last.range.end = next.range.end;
                    }
                    last.range.start = start;
                } else if next.range == last.range {
                    // Found again with an escape less.
                    *last = FoundSecret {
                        kind: last.kind,
                        ..next
                    };
                }
            }
            _ => merged.push(next),
        }
    }
    merged
}
