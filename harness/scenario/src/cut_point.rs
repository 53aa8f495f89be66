//! The grammar of cut points: the phrases of `at="…"`.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::ast::{AgentEventKind, CutPoint, DeltaIndex, DeltaSource};
use crate::suggest::nearest;

/// A phrase of the grammar that begins with a fixed word.
struct Phrase {
    /// The word. It cannot be a call id: `question running` must not have two meanings.
    word: &'static str,
    /// How earlier versions spelled the word; still read, and rewritten by `cutpoint fmt`.
    old_word: Option<&'static str>,
    /// How the phrase is written.
    form: &'static str,
    /// Reads what follows the word.
    read: fn(&mut PhraseParser<'_>, form: &'static str) -> PhraseResult<CutPoint>,
}

const fn phrase(
    word: &'static str,
    form: &'static str,
    read: fn(&mut PhraseParser<'_>, &'static str) -> PhraseResult<CutPoint>,
) -> Phrase {
    Phrase {
        word,
        old_word: None,
        form,
        read,
    }
}

/// All phrases but those that begin with a call id. What is a reserved word, and what the help
/// lists, follows from this table.
const PHRASES: [Phrase; 18] = [
    phrase("request", "request 2", |words, form| {
        let reply = words.reply_number(form)?;
        Ok(CutPoint::Request { reply })
    }),
    phrase("headers", "headers of reply 2", |words, form| {
        let reply = words.of_reply(form)?;
        Ok(CutPoint::Headers { reply })
    }),
    phrase("reply", "reply 1 event 4", |words, form| {
        let (reply, event) = words.reply_event(form)?;
        Ok(CutPoint::StreamEvent { reply, event })
    }),
    phrase("byte", "byte 17 of reply 1 event 3", |words, form| {
        words.byte(form)
    }),
    phrase("delta", "delta 2 of call_1", |words, form| {
        words.numbered_delta(form)
    }),
    phrase("first", "first delta of reply 1", |words, form| {
        words.delta(DeltaIndex::At(1), form)
    }),
    phrase("middle", "middle delta of call_1", |words, form| {
        words.delta(DeltaIndex::Middle, form)
    }),
    phrase("last", "last delta of call_1", |words, form| {
        words.delta(DeltaIndex::Last, form)
    }),
    phrase("added", "added of call_1", |words, form| {
        let call = words.of_call(form)?;
        Ok(CutPoint::Added { call })
    }),
    phrase("done", "done of call_1", |words, form| {
        let call = words.of_call(form)?;
        Ok(CutPoint::Done { call })
    }),
    phrase("end", "end of reply 1", |words, form| {
        let reply = words.of_reply(form)?;
        Ok(CutPoint::End { reply })
    }),
    phrase("approval", "approval of call_1 pending", |words, form| {
        let call = words.pending(form)?;
        Ok(CutPoint::Approval { call })
    }),
    phrase("question", "question of call_1 pending", |words, form| {
        let call = words.pending(form)?;
        Ok(CutPoint::Question { call })
    }),
    phrase("started", "started", |_, _| Ok(CutPoint::Started)),
    phrase("aborting", "aborting", |_, _| Ok(CutPoint::Aborting)),
    phrase("idle", "idle", |_, _| Ok(CutPoint::Idle)),
    Phrase {
        word: "event",
        old_word: Some("told"),
        form: "event call-begin 2",
        read: |words, form| words.agent_event(form),
    },
    phrase("point", "point rollout.flush 2", |words, form| {
        words.point(form)
    }),
];

/// How the phrases about a tool's process are written: these begin with the call.
const CALL_FORMS: [&str; 2] = ["call_1 running", "call_1 exited"];

/// What a phrase may look like, for people who got it wrong.
fn forms() -> String {
    let forms = PHRASES.iter().map(|phrase| phrase.form).chain(CALL_FORMS);
    format!(
        "write one of {}",
        crate::suggest::list(&forms.collect::<Vec<_>>())
    )
}

/// Words that people put before a phrase.
const PREPOSITIONS: [&str; 6] = ["after", "at", "before", "during", "when", "while"];

/// Why a phrase is not a cut point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutPointError {
    /// The mistake in one line.
    pub message: String,
    /// The wrong word: byte offsets within the phrase, end exclusive.
    pub span: Range<usize>,
    /// The text next to the caret.
    pub label: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl fmt::Display for CutPointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(help) = &self.help {
            write!(f, " ({help})")?;
        }
        Ok(())
    }
}

impl std::error::Error for CutPointError {}

impl FromStr for CutPoint {
    type Err = CutPointError;

    fn from_str(phrase: &str) -> Result<Self, Self::Err> {
        parse(phrase).map(|parsed| parsed.point)
    }
}

/// A cut point with the places of what can only be checked against the scenario.
#[derive(Debug, Clone)]
pub(crate) struct ParsedPhrase {
    pub(crate) point: CutPoint,
    /// The call id's place within the phrase.
    pub(crate) call: Option<Range<usize>>,
    /// The reply number's place within the phrase.
    pub(crate) reply: Option<Range<usize>>,
    /// The place of the delta's number within the phrase.
    pub(crate) nth: Option<Range<usize>>,
    /// A word in an old spelling, with the current one.
    pub(crate) old_word: Option<(Range<usize>, &'static str)>,
}

/// Parses a phrase.
pub(crate) fn parse(phrase: &str) -> Result<ParsedPhrase, CutPointError> {
    let mut words = PhraseParser::new(phrase);
    let point = words.phrase()?;
    words.end()?;
    Ok(ParsedPhrase {
        point,
        call: words.call_span,
        reply: words.reply_span,
        nth: words.nth_span,
        old_word: words.old_word,
    })
}

/// Whether a text is a call id: letters, digits, `_` and `-`.
pub(crate) fn is_call_id(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

/// Whether a call id could be mistaken for the beginning of another phrase.
pub(crate) fn is_reserved(call: &str) -> bool {
    PHRASES
        .iter()
        .any(|phrase| phrase.word == call || phrase.old_word == Some(call))
}

/// PhraseParser that were renamed: the old spelling and the current one.
pub(crate) fn renamed_words() -> impl Iterator<Item = (&'static str, &'static str)> {
    PHRASES
        .iter()
        .filter_map(|phrase| Some((phrase.old_word?, phrase.word)))
}

/// Whether a text is a label of a point.
fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

struct PhraseParser<'a> {
    phrase: &'a str,
    words: Vec<(&'a str, Range<usize>)>,
    at: usize,
    call_span: Option<Range<usize>>,
    reply_span: Option<Range<usize>>,
    nth_span: Option<Range<usize>>,
    old_word: Option<(Range<usize>, &'static str)>,
}

type PhraseResult<T> = Result<T, CutPointError>;

impl<'a> PhraseParser<'a> {
    fn new(phrase: &'a str) -> Self {
        let mut words = Vec::new();
        let mut at = 0;
        for word in phrase.split_whitespace() {
            // The word was cut out of what is left, so it is found there.
            let start = phrase[at..].find(word).map_or(at, |offset| at + offset);
            at = start + word.len();
            words.push((word, start..at));
        }
        Self {
            phrase,
            words,
            at: 0,
            call_span: None,
            reply_span: None,
            nth_span: None,
            old_word: None,
        }
    }

    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).map(|(word, _)| *word)
    }

    fn span(&self) -> Range<usize> {
        self.words.get(self.at).map_or_else(
            || {
                let end = self.phrase.trim_end().len();
                end..end
            },
            |(_, span)| span.clone(),
        )
    }

    fn error<T>(&self, message: String, label: &str, help: String) -> PhraseResult<T> {
        Err(CutPointError {
            message,
            span: self.span(),
            label: label.to_owned(),
            help: Some(help),
        })
    }

    fn phrase(&mut self) -> PhraseResult<CutPoint> {
        let Some(first) = self.peek() else {
            return self.error(
                "the cut point is empty".to_owned(),
                "expected a cut point",
                forms(),
            );
        };
        let current = PHRASES.iter().find(|phrase| phrase.word == first);
        let old = || PHRASES.iter().find(|phrase| phrase.old_word == Some(first));
        let Some(phrase) = current.or_else(old) else {
            return self.tool();
        };
        if phrase.word != first {
            self.old_word = Some((self.span(), phrase.word));
        }
        self.at += 1;
        (phrase.read)(self, phrase.form)
    }

    fn end(&self) -> PhraseResult<()> {
        let Some(word) = self.peek() else {
            return Ok(());
        };
        let before = &self.phrase[..self.words[self.at - 1].1.end];
        self.error(
            format!("the cut point ends before `{word}`"),
            "not expected here",
            format!("write `{}`", before.trim()),
        )
    }

    fn word(&mut self, wanted: &str, form: &str) -> PhraseResult<()> {
        match self.peek() {
            Some(word) if word == wanted => {
                self.at += 1;
                Ok(())
            }
            Some(word) => self.error(
                format!("`{wanted}` is expected instead of `{word}`"),
                &format!("expected `{wanted}`"),
                format!("write it like `{form}`"),
            ),
            None => self.error(
                format!("the cut point is not finished: `{wanted}` is missing"),
                &format!("expected `{wanted}` after this"),
                format!("write it like `{form}`"),
            ),
        }
    }

    fn number(&mut self, what: &str, form: &str) -> PhraseResult<usize> {
        let Some(word) = self.peek() else {
            return self.error(
                format!("the cut point is not finished: {what} is missing"),
                "expected a number after this",
                format!("write it like `{form}`"),
            );
        };
        let digits = word.bytes().all(|b| b.is_ascii_digit());
        match word.parse::<usize>() {
            Ok(0) if digits => self.error(
                format!("{what} cannot be 0"),
                "numbers count from 1",
                format!("write it like `{form}`"),
            ),
            Ok(number) if digits => {
                self.at += 1;
                Ok(number)
            }
            _ if digits => self.error(
                format!("{what} is too large"),
                "too large a number",
                format!("write it like `{form}`"),
            ),
            _ => self.error(
                format!("{what} is expected instead of `{word}`"),
                "expected a number, counted from 1",
                format!("write it like `{form}`"),
            ),
        }
    }

    fn reply_number(&mut self, form: &str) -> PhraseResult<usize> {
        let span = self.span();
        let number = self.number("the number of the reply", form)?;
        self.reply_span = Some(span);
        Ok(number)
    }

    fn of_reply(&mut self, form: &str) -> PhraseResult<usize> {
        self.word("of", form)?;
        self.word("reply", form)?;
        self.reply_number(form)
    }

    fn call(&mut self, form: &str) -> PhraseResult<String> {
        let Some(word) = self.peek() else {
            return self.error(
                "the cut point is not finished: the call is missing".to_owned(),
                "expected a call id after this",
                format!("write it like `{form}`"),
            );
        };
        if !is_call_id(word) {
            return self.error(
                format!("`{word}` is not a call id"),
                "not a call id",
                "a call id has letters, digits, `_` and `-`".to_owned(),
            );
        }
        if is_reserved(word) {
            return self.error(
                format!("a call id is expected instead of `{word}`"),
                "this word has a meaning of its own in a cut point",
                format!("write it like `{form}`"),
            );
        }
        self.call_span = Some(self.span());
        self.at += 1;
        Ok(word.to_owned())
    }

    fn of_call(&mut self, form: &str) -> PhraseResult<String> {
        self.word("of", form)?;
        self.call(form)
    }

    /// `of call_1 pending`.
    fn pending(&mut self, form: &str) -> PhraseResult<String> {
        let call = self.of_call(form)?;
        self.word("pending", form)?;
        Ok(call)
    }

    /// `1 event 4`: the numbers of the reply and of its event.
    fn reply_event(&mut self, form: &str) -> PhraseResult<(usize, usize)> {
        let reply = self.reply_number(form)?;
        self.word("event", form)?;
        let event = self.number("the number of the event", form)?;
        Ok((reply, event))
    }

    fn byte(&mut self, form: &'static str) -> PhraseResult<CutPoint> {
        let byte = self.number("the number of bytes", form)?;
        self.word("of", form)?;
        self.word("reply", form)?;
        let (reply, event) = self.reply_event(form)?;
        Ok(CutPoint::Byte { reply, event, byte })
    }

    fn numbered_delta(&mut self, form: &'static str) -> PhraseResult<CutPoint> {
        self.nth_span = Some(self.span());
        let nth = DeltaIndex::At(self.number("the number of the delta", form)?);
        let of = self.delta_source(form)?;
        Ok(CutPoint::Delta { nth, of })
    }

    fn delta(&mut self, nth: DeltaIndex, form: &'static str) -> PhraseResult<CutPoint> {
        self.word("delta", form)?;
        let of = self.delta_source(form)?;
        Ok(CutPoint::Delta { nth, of })
    }

    fn delta_source(&mut self, form: &str) -> PhraseResult<DeltaSource> {
        self.word("of", form)?;
        if self.peek() == Some("reply") {
            self.at += 1;
            let reply = self.reply_number("last delta of reply 1")?;
            Ok(DeltaSource::Reply(reply))
        } else {
            Ok(DeltaSource::Call(self.call(form)?))
        }
    }

    fn point(&mut self, form: &'static str) -> PhraseResult<CutPoint> {
        let Some(label) = self.peek() else {
            return self.error(
                "the cut point is not finished: the point's label is missing".to_owned(),
                "expected a label after this",
                format!("write it like `{form}`"),
            );
        };
        if !is_label(label) {
            return self.error(
                format!("`{label}` is not the label of a point"),
                "not a label",
                "a label has letters, digits, `.`, `-` and `_`".to_owned(),
            );
        }
        self.at += 1;
        let nth = self.nth("which time the point is passed", form)?;
        Ok(CutPoint::Point {
            label: label.to_owned(),
            nth,
        })
    }

    fn agent_event(&mut self, form: &'static str) -> PhraseResult<CutPoint> {
        let word = self.peek().unwrap_or_default();
        if word.bytes().all(|b| b.is_ascii_digit()) && !word.is_empty() {
            return self.error(
                format!("an event of the agent is expected instead of `{word}`"),
                "expected an event of the agent",
                format!("write it like `{form}`; an event of a reply is `reply 1 event {word}`"),
            );
        }
        let Some(event) = AgentEventKind::ALL
            .into_iter()
            .find(|event| event.name() == word)
        else {
            let known = AgentEventKind::ALL.map(AgentEventKind::name);
            let help = match nearest(word, &known) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("write one of {}", known.join(", ")),
            };
            let message = "the cut point does not say which event of the agent is meant".to_owned();
            return self.error(message, "expected an event of the agent", help);
        };
        self.at += 1;
        let nth = self.nth("the number of the event", form)?;
        Ok(CutPoint::AgentEvent { event, nth })
    }

    /// Which time something happens: the first one where nothing is said.
    fn nth(&mut self, what: &str, form: &str) -> PhraseResult<usize> {
        if self.peek().is_none() {
            return Ok(1);
        }
        self.number(what, form)
    }

    /// `call_1 running`, `call_1 exited`, or a phrase that begins with no word of the grammar.
    fn tool(&mut self) -> PhraseResult<CutPoint> {
        let first = self.peek().unwrap_or_default();
        let second = self.words.get(self.at + 1).map(|(word, _)| *word);
        match second {
            Some("running") => {
                let call = self.call("call_1 running")?;
                self.at += 1;
                Ok(CutPoint::Running { call })
            }
            Some("exited") => {
                let call = self.call("call_1 exited")?;
                self.at += 1;
                Ok(CutPoint::Exited { call })
            }
            _ => self.unknown(first, second),
        }
    }

    /// A phrase that is none, with the nearest one that is.
    fn unknown(&mut self, first: &str, second: Option<&str>) -> PhraseResult<CutPoint> {
        if let Some(help) = misordered(first, second) {
            return self.error(
                format!("no cut point begins with `{first}`"),
                "unexpected here",
                help,
            );
        }
        let rest = self.phrase[self.span().end..].trim();
        if PREPOSITIONS.contains(&first) && parse(rest).is_ok() {
            return self.error(
                format!("no cut point begins with `{first}`"),
                "unexpected here",
                format!("leave it out: `{rest}`"),
            );
        }
        let known: Vec<&str> = PHRASES.iter().map(|phrase| phrase.word).collect();
        let meant = nearest(first, &known);
        let state = second.and_then(|word| nearest(word, &["running", "exited"]));
        if let (None, Some(state)) = (meant, state) {
            self.at += 1;
            return self.error(
                format!("`{}` is not a state of a call", second.unwrap_or_default()),
                "not a state of a call",
                format!("did you mean `{state}`?"),
            );
        }
        if let Some(meant) = meant {
            return self.error(
                format!("no cut point begins with `{first}`"),
                "not a word of the cut point grammar",
                format!("did you mean `{meant}`?"),
            );
        }
        match second {
            Some(word) if is_call_id(first) => {
                self.at += 1;
                self.error(
                    format!("`{word}` is not a state of a call"),
                    "not a state of a call",
                    format!("write `{first} running` or `{first} exited`"),
                )
            }
            None if is_call_id(first) => self.error(
                format!("`{first}` alone is not a cut point"),
                "which point of it is meant?",
                format!(
                    "for a call, write `{first} running`, `{first} exited`, `added of {first}`, \
                     `delta 2 of {first}`, `done of {first}` or `approval of {first} pending`"
                ),
            ),
            _ => self.error(
                format!("no cut point begins with `{first}`"),
                "not a word of the cut point grammar",
                forms(),
            ),
        }
    }
}

/// Advice for phrases whose words are known but stand in the wrong order.
fn misordered(first: &str, second: Option<&str>) -> Option<String> {
    match (first, second) {
        ("running" | "exited", Some(call)) => Some(format!("write `{call} {first}`")),
        ("running" | "exited", None) => Some(format!("write it like `call_1 {first}`")),
        ("pending", _) => Some("write it like `approval of call_1 pending`".to_owned()),
        _ => {
            let number: String = first.chars().take_while(char::is_ascii_digit).collect();
            let ordinal = matches!(&first[number.len()..], "st" | "nd" | "rd" | "th" | "");
            (!number.is_empty() && ordinal && second == Some("delta"))
                .then(|| format!("write it like `delta {number} of call_1`"))
        }
    }
}

impl fmt::Display for CutPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request { reply } => write!(f, "request {reply}"),
            Self::Headers { reply } => write!(f, "headers of reply {reply}"),
            Self::StreamEvent { reply, event } => write!(f, "reply {reply} event {event}"),
            Self::Byte { reply, event, byte } => {
                write!(f, "byte {byte} of reply {reply} event {event}")
            }
            Self::Delta { nth, of } => {
                match nth {
                    DeltaIndex::At(number) => write!(f, "delta {number} of ")?,
                    DeltaIndex::Middle => f.write_str("middle delta of ")?,
                    DeltaIndex::Last => f.write_str("last delta of ")?,
                }
                match of {
                    DeltaSource::Call(call) => f.write_str(call),
                    DeltaSource::Reply(reply) => write!(f, "reply {reply}"),
                }
            }
            Self::Added { call } => write!(f, "added of {call}"),
            Self::Done { call } => write!(f, "done of {call}"),
            Self::End { reply } => write!(f, "end of reply {reply}"),
            Self::Running { call } => write!(f, "{call} running"),
            Self::Exited { call } => write!(f, "{call} exited"),
            Self::Approval { call } => write!(f, "approval of {call} pending"),
            Self::Question { call } => write!(f, "question of {call} pending"),
            Self::Started => f.write_str("started"),
            Self::Aborting => f.write_str("aborting"),
            Self::Idle => f.write_str("idle"),
            Self::AgentEvent { event, nth: 1 } => write!(f, "event {event}"),
            Self::AgentEvent { event, nth } => write!(f, "event {event} {nth}"),
            Self::Point { label, nth: 1 } => write!(f, "point {label}"),
            Self::Point { label, nth } => write!(f, "point {label} {nth}"),
        }
    }
}

#[cfg(test)]
mod tests;
