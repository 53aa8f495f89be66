//! No input exhausts the stack or the reader's patience.

use cutpoint_scenario::{SOURCE_LIMIT_BYTES, format, parse, parse_bytes};

/// Small pieces that do the most harm when they are repeated.
const UNITS: [&str; 36] = [
    "{",
    "}",
    "(",
    ")",
    "/-",
    "/*",
    "/**",
    "\"",
    "\"\"\"",
    "\"\"\"\n",
    "\\",
    "\\\n",
    ";",
    "=",
    "a ",
    "a\n",
    "a;",
    "a{",
    "a={",
    "a=",
    "a=1 ",
    "\n",
    "\r",
    "#",
    "#\"",
    "##\"#",
    " ",
    "a {}\n",
    "/-a\n",
    "a /-{}\n",
    "a /-{",
    "/-{",
    ",",
    "'",
    "usr \"x\"\n",
    "scenario \"a\" { user \"b\" }\n",
];

const LENGTH_BYTES: usize = 32 * 1024;

#[test]
fn repetition_is_refused_and_not_fatal() {
    for unit in UNITS {
        let source = unit.repeat(LENGTH_BYTES / unit.len());
        let diagnostics = parse("repeated.kdl", &source).expect_err(unit);
        assert!(diagnostics.render(false).len() < 64 * 1024, "{unit}");
        if let Ok(formatted) = format("repeated.kdl", &source) {
            assert_eq!(format("repeated.kdl", &formatted).as_ref(), Ok(&formatted));
        }
    }
    let stars = format!("/*{}*/ a", "*".repeat(LENGTH_BYTES));
    assert!(format("stars.kdl", &stars).is_ok());
}

#[test]
fn nesting_has_a_limit() {
    for opener in ["a {", "a /-{", "/-a {"] {
        let nested = |depth: usize| format!("{}{}", opener.repeat(depth), "}".repeat(depth));
        assert!(format("nested.kdl", &nested(64)).is_ok(), "{opener}");
        let diagnostics = format("nested.kdl", &nested(65)).expect_err(opener);
        assert_eq!(diagnostics.as_slice()[0].code, "too-deep");
    }
    // Braces in strings and comments do not nest.
    let braces = "{".repeat(100);
    let source = format!("a \"{braces}\" #\"{braces}\"# // {braces}\n/* {braces} */ b");
    assert!(format("quoted.kdl", &source).is_ok());
}

#[test]
fn a_file_has_a_largest_size() {
    let source = " ".repeat(SOURCE_LIMIT_BYTES + 1);
    for diagnostics in [
        parse("large.kdl", &source).expect_err("too large"),
        parse_bytes("large.kdl", source.as_bytes()).expect_err("too large"),
        format("large.kdl", &source).expect_err("too large"),
    ] {
        assert_eq!(diagnostics.as_slice()[0].code, "too-large");
        assert!(diagnostics.to_string().contains("1048577 bytes"));
    }
    let largest = parse("large.kdl", &source[1..]).expect_err("no scenario");
    assert_eq!(largest.as_slice()[0].code, "no-scenario");
}
