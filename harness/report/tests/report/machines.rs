//! What CI systems and other programs read.

use cutpoint_report::json_lines::{CaseLine, Header, ReadError, Results, merge};
use cutpoint_report::{Annotations, JsonLines, Junit, Reporter, Summary};
use cutpoint_trace::case::{CaseResult, CaseStatus};

use crate::samples::{breach, context, fail, pass, should, skipped, trouble, unmet, waived};

fn cases() -> [CaseResult; 7] {
    [
        pass(),
        breach(),
        should(),
        waived(),
        unmet(),
        skipped(),
        trouble(),
    ]
}

fn summary(cases: &[CaseResult], strict: bool) -> Summary {
    let mut summary = Summary::new(42, strict);
    cases.iter().for_each(|case| summary.add(case));
    summary
}

fn junit(cases: &[CaseResult], strict: bool) -> String {
    let mut bytes = Vec::new();
    let mut junit = Junit::new(&mut bytes, context(strict));
    cases.iter().for_each(|case| junit.case(case).unwrap());
    junit.finish(&summary(cases, strict)).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn the_summary_counts() {
    let summary = summary(&cases(), false);
    let of = |status| summary.by_status.get(&status).copied();
    assert_eq!(
        (
            summary.cases,
            of(CaseStatus::Conforms),
            of(CaseStatus::Breach)
        ),
        (7, Some(3), Some(2))
    );
    assert_eq!(summary.worst(), Some(CaseStatus::Trouble));
    let names: Vec<_> = summary
        .rules
        .iter()
        .map(|rule| rule.rule.as_str())
        .collect();
    assert_eq!(
        names,
        ["CALL-1", "TURN-1", "MARK-2", "PROC-1", "APPR-1", "SUB-1"]
    );
    let call = &summary.rules[0];
    assert_eq!(
        (call.exercised, call.cases, call.breaches, call.unknown),
        (14, 5, 1, 1)
    );
    let process = &summary.rules[3];
    assert_eq!((process.breaches, process.waived), (0, 1));
    assert_eq!(summary.rules[5].not_applicable, 5);
}

#[test]
fn junit_has_a_suite_per_agent() {
    let mut other = pass();
    other.agent.name = "reference".into();
    insta::assert_snapshot!(
        "junit",
        junit(
            &[pass(), breach(), should(), skipped(), trouble(), other],
            false
        )
    );
    assert!(junit(&[should()], true).contains("type=\"MARK-2/sample\""));
}

#[test]
fn junit_is_valid_xml_whatever_an_agent_wrote() {
    let mut case = breach();
    let nasty = "a<b>&\"c\" ]]>\u{0}\u{1b}[1m\u{FFFE}\u{B}\n::x";
    case.scenario = nasty.into();
    case.verdicts[0].verdict = fail(nasty, &[]);
    case.note = Some(nasty.into());
    let text = junit(&[case], false);
    let forbidden = |c: char| matches!(c, '\0'..='\u{8}' | '\u{B}' | '\u{C}' | '\u{E}'..='\u{1F}' | '\u{FFFE}' | '\u{FFFF}');
    assert!(!text.contains(forbidden), "{text}");
    assert!(
        text.contains("a&lt;b&gt;&amp;&quot;c&quot; ]]&gt;"),
        "{text}"
    );
    // What was written is what a reader gets back.
    let read = quick_junit::Report::deserialize_from_str(&text).unwrap();
    assert_eq!(read.failures, 1);
}

fn json_lines(cases: &[CaseResult], strict: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut report = JsonLines::new(&mut bytes, &Header::new(42, strict)).unwrap();
    cases.iter().for_each(|case| report.case(case).unwrap());
    report.finish(&summary(cases, strict)).unwrap();
    bytes
}

#[test]
fn json_lines_are_read_as_they_were_written() {
    for strict in [false, true] {
        let results = Results::read(&json_lines(&cases(), strict)[..]).unwrap();
        let expected: Vec<_> = cases()
            .iter()
            .map(|case| CaseLine::new(case, strict))
            .collect();
        assert_eq!(results.cases, expected);
        assert_eq!(results.summary, Some(summary(&cases(), strict)));
        // A summary can be made again from the cases, for instance those of several machines.
        let mut again = Summary::new(42, strict);
        for case in &results.cases {
            again.count(case.status, &case.verdicts, case.duration_ms);
        }
        assert_eq!(results.summary, Some(again));
    }
}

/// The results of one of two parts of a run of four cases.
fn part(index: usize) -> (String, Results) {
    let numbered = |number: usize, mut case: CaseResult| {
        case.number = number;
        case
    };
    let cases = match index {
        0 => vec![numbered(1, pass()), numbered(4, breach())],
        _ => vec![numbered(2, skipped()), numbered(3, should())],
    };
    let mut results = Results::read(&json_lines(&cases, false)[..]).unwrap();
    results.header.cases = 4;
    results.header.shard = format!("{}/2", index + 1);
    (format!("part-{index}"), results)
}

#[test]
fn parts_of_a_run_make_up_the_whole() {
    let merged = merge(vec![part(1), part(0)]).unwrap();
    let numbers: Vec<usize> = merged.cases.iter().map(|case| case.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    assert_eq!(merged.header.shard, "1/1");
    let in_order = [pass(), skipped(), should(), breach()];
    assert_eq!(merged.summary, Some(summary(&in_order, false)));
    let mut bytes = Vec::new();
    merged.clone().write(&mut bytes).unwrap();
    assert_eq!(Results::read(&bytes[..]).unwrap(), merged);
}

#[test]
fn what_are_no_parts_of_one_run_is_refused() {
    let refused = |change: fn(&mut Results)| {
        let mut parts = vec![part(0), part(1)];
        change(&mut parts[1].1);
        merge(parts).unwrap_err().to_string()
    };
    let other = refused(|it| it.header.plan = "x".into());
    assert!(
        other.starts_with("part-0 and part-1 are parts of different runs"),
        "{other}"
    );
    assert!(refused(|it| it.header.seed = 1).contains("different runs"));
    assert!(refused(|it| it.summary = None).starts_with("part-1 was interrupted"));
    let short = refused(|it| drop(it.cases.pop()));
    assert_eq!(
        short,
        "case 3 of 4 is in none of the parts; run them again, to their end and with one build"
    );
    let twice = refused(|it| it.cases[0].number = 1);
    assert!(
        twice.starts_with("case 1 of 4 is in more than one"),
        "{twice}"
    );
}

#[test]
fn the_form_of_json_lines_is_fixed() {
    let text = String::from_utf8(json_lines(&[unmet()], false)).unwrap();
    insta::assert_snapshot!("json_lines", text);
}

#[test]
fn what_are_no_results_says_why() {
    let refusal = |text: &str| Results::read(text.as_bytes()).unwrap_err().to_string();
    assert!(refusal("").contains("no results"));
    assert!(refusal("{\"format\":\"x\"}\n").contains("`format` is \"x\""));
    assert!(refusal("{\"format\":\"cutpoint-results\",\"version\":9}\n").contains("version 9"));
    let whole = String::from_utf8(json_lines(&[pass()], false)).unwrap();
    assert!(refusal(&format!("{whole}{whole}")).starts_with("line 4: nothing may follow"));
    let torn = Results::read(&whole.as_bytes()[..whole.len() - 9]);
    assert!(matches!(torn, Err(ReadError::Line { line: 3, .. })));
    let mut endless = pass();
    endless.duration_ms = f64::NAN;
    assert_eq!(CaseLine::new(&endless, false).duration_ms, 0.0);
}

fn annotations(cases: &[CaseResult], strict: bool) -> String {
    let mut bytes = Vec::new();
    let mut report = Annotations::new(&mut bytes, context(strict));
    cases.iter().for_each(|case| report.case(case).unwrap());
    report.finish(&summary(cases, strict)).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn annotations_stand_at_the_lines_of_the_scenario() {
    insta::assert_snapshot!("annotations", annotations(&cases(), false));
    assert!(annotations(&[should()], true).starts_with("::error file="));
    assert_eq!(annotations(&[pass(), skipped(), waived()], false), "");
}

#[test]
fn annotations_are_escaped() {
    let mut case = breach();
    case.file = "./a,b:c.kdl".into();
    case.line = 0;
    case.scenario = "50%, then: more".into();
    case.replay = "x\ny".into();
    case.trace.entries.clear();
    case.verdicts[0].verdict = fail("100%\nof\r\u{1b}[0m it", &[]);
    let text = annotations(&[case], false);
    let expected = "::error file=a%2Cb%3Ac.kdl,title=CALL-1/sample (50%25%2C then%3A more)::100%25\\nof\\r\\u{1b}[0m it%0ACALL-1: ";
    assert!(text.starts_with(expected), "{text}");
    assert!(text.ends_with("%0AReplay: x\\ny\n"), "{text}");
    assert_eq!(text.lines().count(), 1);
}
