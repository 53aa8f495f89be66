//! JSON's escapes taken back, with the way back to where everything stood.
//!
//! Text that a model streams is often JSON itself, and so is what tools print: a secret in it may be
//! spelled with escapes, and escaped once more by what carries it.

/// A text with its escapes taken back.
pub(super) struct Unescaped {
    /// The text.
    pub(super) text: String,
    /// For each byte of `text`, where in the original it starts; one more for the end.
    starts: Vec<usize>,
}

impl Unescaped {
    /// Takes back one level of escapes; `None` if there are none.
    pub(super) fn of(original: &str) -> Option<Self> {
        original.contains('\\').then_some(())?;
        let mut view = Self {
            text: String::with_capacity(original.len()),
            starts: Vec::with_capacity(original.len() + 1),
        };
        let mut at = 0;
        let mut changed = false;
        while let Some(next) = original[at..].chars().next() {
            let (shown, length) = escape(&original[at..]).unwrap_or((next, next.len_utf8()));
            changed |= length != next.len_utf8();
            view.text.push(shown);
            view.starts.resize(view.text.len(), at);
            at += length;
        }
        view.starts.push(at);
        changed.then_some(view)
    }

    /// Where in the original what stands at this byte starts.
    pub(super) fn start(&self, at: usize) -> usize {
        self.starts[at]
    }

    /// The first place in the original at or after this byte that is not inside an escape.
    pub(super) fn boundary(&self, original: usize) -> usize {
        let behind = self.starts.partition_point(|start| *start < original);
        self.starts[behind.min(self.starts.len() - 1)]
    }
}

/// The character that an escape at the start of the text stands for, and the escape's length.
fn escape(text: &str) -> Option<(char, usize)> {
    let rest = text.strip_prefix('\\')?;
    let shown = match rest.chars().next()? {
        c @ ('"' | '\\' | '/') => c,
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => return unicode(text),
        _ => return None,
    };
    Some((shown, 2))
}

fn unicode(text: &str) -> Option<(char, usize)> {
    let unit = |text: &str| {
        let digits = text.strip_prefix("\\u")?.get(..4)?;
        let hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        u16::from_str_radix(digits, 16).ok().filter(|_| hexadecimal)
    };
    let first = unit(text)?;
    if let Some(c) = char::from_u32(u32::from(first)) {
        return Some((c, 6));
    }
    let second = unit(text.get(6..)?)?;
    let decoded = char::decode_utf16([first, second]).next()?.ok()?;
    Some((decoded, 12))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_are_taken_back_one_level_at_a_time() {
        let view = Unescaped::of(r#"a\u0062\/\\u0063\ud83d\ude00\x\n"#).unwrap();
        assert_eq!(view.text, "ab/\\u0063\u{1F600}\\x\n");
        assert_eq!(view.start(1), 1);
        assert_eq!(view.start(2), 7);
        assert_eq!(view.boundary(3), 7);
        assert_eq!(
            Unescaped::of(&view.text).unwrap().text,
            "ab/c\u{1F600}\\x\n"
        );
        assert!(Unescaped::of("plain").is_none());
        assert!(Unescaped::of(r"C:\Xerox").is_none());
        assert!(Unescaped::of(r"\u12").is_none());
    }

    proptest! {
        #[test]
        fn what_json_escapes_is_seen_plain(text in "[ -~é\u{1F600}\n]{0,40}") {
            let escaped = serde_json::to_string(&text).unwrap();
            let inner = &escaped[1..escaped.len() - 1];
            let seen = Unescaped::of(inner).map_or(inner.to_owned(), |view| view.text);
            prop_assert_eq!(seen, text);
        }

        #[test]
        fn any_text_can_be_viewed(text in r#"[a-c0-9u\\"/é]{0,40}"#) {
            if let Some(view) = Unescaped::of(&text) {
                prop_assert_eq!(view.start(view.text.len()), text.len());
                for at in 0..=text.len() {
                    prop_assert!(view.boundary(at) >= at);
                }
            }
        }
    }
}
