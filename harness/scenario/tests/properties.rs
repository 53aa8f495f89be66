//! Properties of printing, parsing and layout over generated scenarios and broken ones.

mod support;

use cutpoint_scenario::{format, parse, parse_bytes, print};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Comments of every kind, each with a mark that is found again.
const COMMENTS: [&str; 5] = [
    " // mark",
    " /* mark */",
    "   /* mark /* inside */ */   // mark   ",
    "\t// mark { \" /* ",
    " // \"mark\" /- ;",
];

/// Lines that can stand wherever a node can.
const LINES: [&str; 7] = [
    "",
    "   ",
    "// mark",
    "\t/* mark\n   over lines */",
    "/- user \"mark\" at=\"idle\" { a; b /* mark */ }",
    "/-   node \"mark\" \\\n   more // mark",
    "/- // mark\n   node mark",
];

/// Text that does harm in the wrong place.
const HARM: [&str; 34] = [
    "{",
    "}",
    "(",
    ")",
    "=",
    ";",
    "\\",
    "\"",
    "\"\"\"",
    "#",
    "#\"",
    "\"#",
    "//",
    "/*",
    "*/",
    "/-",
    ",",
    ":",
    "'",
    "\n",
    "\r",
    "\t",
    "\u{feff}",
    "\u{202e}",
    "\0",
    "#true",
    "50ms",
    "0",
    "at=",
    "reply",
    "user",
    "🦀",
    " ",
    "\\u{d800}",
];

/// Puts comments and lines between the lines of a text, but for the lines of multi-line strings.
fn sprinkle(source: &str, picks: &[Index]) -> (String, usize) {
    let mut out = String::new();
    let mut picks = picks.iter().cycle();
    let mut pick = |count: usize| picks.next().map_or(0, |index| index.index(count));
    let mut inside = false;
    for line in source.lines() {
        let quotes = line.matches("\"\"\"").count() % 2 == 1;
        if inside || quotes {
            inside ^= quotes;
            out.push_str(line);
            out.push('\n');
            continue;
        }
        if let Some(extra) = LINES.get(pick(LINES.len() * 2)) {
            out.push_str(extra);
            out.push('\n');
        }
        out.push_str(&" ".repeat(pick(9)));
        out.push_str(line.trim_start());
        if let Some(comment) = COMMENTS.get(pick(COMMENTS.len() * 2)) {
            out.push_str(comment);
        }
        out.push_str(if pick(4) == 0 { "\r\n" } else { "\n" });
    }
    let marks = out.matches("mark").count();
    (out, marks)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_global_rejects: 100_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_printed_parses_to_the_same(file in support::file()) {
        let printed = print(&file);
        let parsed = parse("printed.kdl", &printed);
        prop_assert!(parsed.is_ok(), "{printed}\n{}", parsed.expect_err("checked"));
        prop_assert_eq!(parsed.expect("checked"), file, "{}", printed);
    }

    #[test]
    fn what_is_printed_is_laid_out(file in support::file()) {
        let printed = print(&file);
        let formatted = format("printed.kdl", &printed).expect("printed files are valid");
        prop_assert_eq!(formatted, printed);
    }

    #[test]
    fn layout_keeps_meaning_and_comments(
        file in support::file(),
        picks in vec(any::<Index>(), 1..64),
    ) {
        let printed = print(&file);
        // Texts that look like what is sprinkled would spoil the count.
        prop_assume!(!printed.contains("mark") && !format!("{file:?}").contains("\\\"\\\"\\\""));
        let (source, marks) = sprinkle(&printed, &picks);
        let parsed = parse("sprinkled.kdl", &source);
        prop_assert!(parsed.is_ok(), "{source}\n{}", parsed.expect_err("checked"));
        prop_assert_eq!(&parsed.expect("checked"), &file);

        let formatted = format("sprinkled.kdl", &source).expect("valid");
        prop_assert_eq!(formatted.matches("mark").count(), marks, "{}\n{}", source, formatted);
        prop_assert_eq!(&parse("formatted.kdl", &formatted).expect("valid"), &file);
        prop_assert_eq!(&format("formatted.kdl", &formatted).expect("valid"), &formatted);
        // Inside texts and block comments, blanks and empty lines are the author's.
        if !printed.contains("\"\"\"") {
            prop_assert!(!formatted.contains("\n\n\n"), "{}", formatted);
            let tidy = |line: &str| line.trim_end() == line && !line.starts_with('\t');
            prop_assert!(formatted.lines().all(tidy), "{}", formatted);
        }
    }

    #[test]
    fn nothing_makes_the_parser_panic(
        file in support::scenario(),
        edits in vec((any::<Index>(), 0_usize..6, select(HARM.to_vec())), 1..6),
        cut in option_of_index(),
    ) {
        let mut bytes = file.to_string().into_bytes();
        for (place, removed, harm) in edits {
            let start = place.index(bytes.len() + 1);
            let end = (start + removed).min(bytes.len());
            bytes.splice(start..end, harm.bytes());
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        survive(&bytes);
    }

    #[test]
    fn noise_is_refused_politely(bytes in vec(any::<u8>(), 0..200)) {
        survive(&bytes);
    }

    #[test]
    fn noise_of_tokens_is_refused_politely(words in vec(select(HARM.to_vec()), 0..60)) {
        survive(words.concat().as_bytes());
    }
}

fn option_of_index() -> impl Strategy<Value = Option<Index>> {
    proptest::option::weighted(0.2, any::<Index>())
}

/// Parses whatever it is; a refusal must be printable and point into the text, and a layout must
/// be final.
fn survive(bytes: &[u8]) {
    if let Err(diagnostics) = parse_bytes("noise.kdl", bytes) {
        assert!(!diagnostics.as_slice().is_empty());
        for diagnostic in &diagnostics {
            // A replaced byte is longer than the byte was.
            assert!(diagnostic.span.start <= bytes.len());
            assert!(!diagnostic.message.is_empty());
        }
        assert!(diagnostics.render(false).contains("noise.kdl"));
    }
    if let Ok(source) = std::str::from_utf8(bytes)
        && let Ok(formatted) = format("noise.kdl", source)
    {
        let again = format("noise.kdl", &formatted).expect("a layout is valid");
        assert_eq!(again, formatted);
    }
}
