//! Which exchange of a recording answers a request.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::time::Duration;

use cutpoint_protocol::Item;
use similar::{ChangeTag, TextDiff};

use crate::model_exchanges::ModelExchange;
use crate::normalise::{NormalItem, SecretHandling, normalise_with};
use crate::recording::{Recording, Response};
use crate::redact::{has_placeholder, is_redacted};
use crate::session::is_synthesized;

/// Unchanged lines around a change of a diff.
const CONTEXT_LINES: usize = 2;
/// How many lines of a diff are shown.
const DIFF_LIMIT_LINES: usize = 60;
/// How much of a line of a diff is shown, in characters.
const LINE_LIMIT_CHARS: usize = 120;
/// How much of a long line is shown before the first difference, in characters.
const LEAD_CHARS: usize = 30;
/// After this the rest of a diff is taken as one change; only its looks suffer.
const DIFF_TIME_LIMIT: Duration = Duration::from_millis(500);

/// What a recording has for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// The exchange of this number answers it.
    Exact(usize),
    /// No exchange has this history.
    Diverged {
        /// The number of the exchange whose history is most alike.
        nearest: usize,
        /// What differs, as a unified diff from the recording to the request.
        diff: String,
    },
    /// The recording has nothing (left) that could answer.
    None,
}

/// A recording made ready to be matched against many requests.
///
/// It holds the normal forms, so that they are not worked out again for every request.
#[derive(Debug, Clone)]
pub struct Matcher {
    candidates: Vec<Candidate>,
    /// Of a redacted recording only the kinds of secrets are known.
    secrets: SecretHandling,
}

#[derive(Debug, Clone)]
struct Candidate {
    number: usize,
    /// Absent where the request was not recorded.
    history: Option<Vec<NormalItem>>,
}

impl Recording {
    /// Makes the recording ready to be matched against many requests.
    pub fn matcher(&self) -> Matcher {
        let secrets = SecretHandling::of(self.is_redacted());
        let candidate = |asked: ModelExchange<'_>| {
            // What a rollout implies is not a request that an agent sends again word for word.
            let history = asked.history.filter(|_| !is_synthesized(asked.exchange));
            Candidate {
                number: asked.exchange.number,
                history: history.map(|history| normalise_with(&history, secrets)),
            }
        };
        Matcher {
            candidates: self.model_exchanges().map(candidate).collect(),
            secrets,
        }
    }

    fn is_redacted(&self) -> bool {
        self.exchanges.iter().any(|exchange| {
            let asked = exchange.request.as_ref();
            let answered = match &exchange.response {
                Response::Body { body, .. } => is_redacted(body),
                Response::Stream(document) => {
                    let mut events = document.frames.iter().filter_map(|it| it.event.as_ref());
                    events.any(|event| has_placeholder(&event.data))
                }
            };
            answered || asked.is_some_and(|request| is_redacted(&request.body))
        })
    }
}

impl Matcher {
    /// The exchange that answers a request with this whole history.
    ///
    /// `already_served` are the numbers of the exchanges that were served before. Exchanges with a
    /// recorded request match by content (see [`crate::normalise`]): the first equal one that was
    /// not served yet, else the last equal one, so that a retry gets an answer. Exchanges without a
    /// request are taken in order within the conversation. Where the recording was redacted, a secret
    /// of the request equals any placeholder of its kind.
    pub fn match_request(&self, history: &[Item], already_served: &[usize]) -> Match {
        let wanted = normalise_with(history, self.secrets);
        let served: HashSet<usize> = already_served.iter().copied().collect();
        let mut last_equal = None;
        for candidate in &self.candidates {
            if candidate.history.as_ref() == Some(&wanted) {
                if !served.contains(&candidate.number) {
                    return Match::Exact(candidate.number);
                }
                last_equal = Some(candidate.number);
            }
        }
        if let Some(number) = last_equal {
            return Match::Exact(number);
        }
        if let Some(number) = self.in_order(history, &served) {
            return Match::Exact(number);
        }
        self.nearest(&wanted, &served)
    }

    /// What answers a request that matches nothing, where that is wanted: the first exchange
    /// of its place in the conversation or after that was not served yet.
    pub fn by_place(&self, history: &[Item], already_served: &[usize]) -> Option<usize> {
        let served: HashSet<usize> = already_served.iter().copied().collect();
        let mut following = self.candidates.iter().skip(count_answers(history));
        let fresh = following.find(|candidate| !served.contains(&candidate.number));
        fresh.map(|candidate| candidate.number)
    }

    /// The exchange without a recorded request that comes next in this conversation.
    ///
    /// The history tells how many answers it holds. An answer that was cut off before its first item
    /// leaves no trace there, so exchanges that were served are passed over; if none is left, the
    /// request is taken as a repetition.
    fn in_order(&self, history: &[Item], served: &HashSet<usize>) -> Option<usize> {
        let answers = count_answers(history);
        let bare = |candidate: &&Candidate| candidate.history.is_none();
        let mut following = self.candidates.iter().skip(answers).filter(bare);
        let repeated = self.candidates.get(answers).filter(bare);
        let fresh = following.find(|candidate| !served.contains(&candidate.number));
        fresh.or(repeated).map(|candidate| candidate.number)
    }

    fn nearest(&self, wanted: &[NormalItem], served: &HashSet<usize>) -> Match {
        let likeness = |candidate: &Candidate, history: &[NormalItem]| {
            let prefix = wanted.iter().zip(history).take_while(|(a, b)| a == b);
            let fresh = !served.contains(&candidate.number);
            (shared_permille(wanted, history), prefix.count(), fresh)
        };
        let nearest = self
            .candidates
            .iter()
            .rev() // `max_by_key` takes the last of several; the first exchange is wanted.
            .filter_map(|candidate| Some((candidate, candidate.history.as_deref()?)))
            .max_by_key(|(candidate, history)| likeness(candidate, history));
        match nearest {
            Some((candidate, history)) => Match::Diverged {
                nearest: candidate.number,
                diff: diff(candidate.number, history, wanted),
            },
            None => Match::None,
        }
    }
}

/// How many answers of the model a history holds: runs of its items between those of the client.
fn count_answers(history: &[Item]) -> usize {
    let from_model = |item: &Item| item.role() == Some("assistant") || item.call_kind().is_some();
    let from_client = |item: &Item| {
        item.role().is_some_and(|role| role != "assistant") || item.output_kind().is_some()
    };
    let mut answers = 0;
    let mut in_answer = false;
    for item in history {
        if from_model(item) {
            answers += usize::from(!in_answer);
            in_answer = true;
        } else if from_client(item) {
            in_answer = false;
        }
    }
    answers
}

/// How much two histories have in common, in thousandths of both together.
fn shared_permille(a: &[NormalItem], b: &[NormalItem]) -> usize {
    let mut counts: HashMap<&NormalItem, usize> = HashMap::new();
    for item in a {
        *counts.entry(item).or_default() += 1;
    }
    let mut shared = 0;
    for item in b {
        if let Some(count) = counts.get_mut(item).filter(|count| **count > 0) {
            *count -= 1;
            shared += 1;
        }
    }
    2000 * shared / (a.len() + b.len()).max(1)
}

/// The unified diff from a recorded history to the one that came.
fn diff(number: usize, recorded: &[NormalItem], wanted: &[NormalItem]) -> String {
    let text =
        |items: &[NormalItem]| -> String { items.iter().map(|item| format!("{item}\n")).collect() };
    let (old, new) = (text(recorded), text(wanted));
    let diff = TextDiff::configure()
        .timeout(DIFF_TIME_LIMIT)
        .diff_lines(old.as_str(), new.as_str());
    let mut lines = Vec::new();
    for group in diff.grouped_ops(CONTEXT_LINES) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else {
            continue;
        };
        lines.push(format!(
            "@@ -{},{} +{},{} @@",
            first.old_range().start + 1,
            last.old_range().end - first.old_range().start,
            first.new_range().start + 1,
            last.new_range().end - first.new_range().start,
        ));
        for op in &group {
            let changes: Vec<_> = diff.iter_changes(op).collect();
            let of = |tag| changes.iter().filter(move |change| change.tag() == tag);
            let pairs: Vec<_> = of(ChangeTag::Delete).zip(of(ChangeTag::Insert)).collect();
            for tag in [ChangeTag::Equal, ChangeTag::Delete, ChangeTag::Insert] {
                lines.extend(of(tag).enumerate().map(|(n, change)| {
                    let from = pairs
                        .get(n)
                        .map_or(0, |(old, new)| common_chars(old.value(), new.value()));
                    format!(
                        "{tag}{}",
                        window(change.value().trim_end_matches('\n'), from)
                    )
                }));
            }
        }
    }
    let mut text = format!("--- exchange {number} as recorded\n+++ the request that came\n");
    for line in lines.iter().take(DIFF_LIMIT_LINES) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{line}");
    }
    if lines.len() > DIFF_LIMIT_LINES {
        let _ = writeln!(text, "… and {} more lines", lines.len() - DIFF_LIMIT_LINES);
    }
    text
}

fn common_chars(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count()
}

/// A line, cut so that what differs from character `from` on is seen, without control characters.
fn window(line: &str, from: usize) -> String {
    let length = line.chars().count();
    let start = if length <= LINE_LIMIT_CHARS {
        0
    } else {
        from.saturating_sub(LEAD_CHARS)
    };
    let mut shown = String::new();
    if start > 0 {
        shown.push('…');
    }
    for c in line.chars().skip(start).take(LINE_LIMIT_CHARS) {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    if start + LINE_LIMIT_CHARS < length {
        shown.push('…');
    }
    shown
}
