//! The report on the console.

use cutpoint_report::layout::DEFAULT_WIDTH;
use cutpoint_report::{Console, Reporter, Summary};
use cutpoint_trace::case::{CaseResult, CaseStatus};
use cutpoint_trace::verdict::{Level, Verdict};

use crate::samples::{
    self, breach, breach_of, context, pass, should, skipped, trouble, unmet, verdict, waived,
};

/// What a console shows of the cases, with escape sequences for colours.
fn coloured(cases: &[CaseResult], strict: bool, width: usize, finish: bool) -> String {
    let mut bytes = Vec::new();
    let mut console = Console::new(&mut bytes, context(strict)).width(width);
    let mut summary = Summary::new(42, strict);
    for case in cases {
        summary.add(case);
        console.case(case).unwrap();
    }
    if finish {
        console.finish(&summary).unwrap();
    }
    String::from_utf8(bytes).unwrap()
}

fn plain(coloured: &str) -> String {
    anstream::adapter::strip_str(coloured).to_string()
}

fn console(cases: &[CaseResult], strict: bool, finish: bool) -> String {
    plain(&coloured(cases, strict, DEFAULT_WIDTH, finish))
}

/// The lines about one case.
fn lines(case: &CaseResult, strict: bool) -> String {
    console(std::slice::from_ref(case), strict, false)
}

#[test]
fn a_case_that_conforms() {
    insta::assert_snapshot!("pass", lines(&pass(), false));
}

/// What a verbose console shows of a case.
fn verbose(case: &CaseResult) -> String {
    let mut bytes = Vec::new();
    let mut console = Console::new(&mut bytes, context(false)).verbose(true);
    console.case(case).unwrap();
    plain(&String::from_utf8(bytes).unwrap())
}

#[test]
fn a_case_as_its_user_saw_it() {
    insta::assert_snapshot!("seen", verbose(&samples::seen()));
}

#[test]
fn a_case_of_an_agent_whose_view_is_not_observed() {
    insta::assert_snapshot!("guessed", verbose(&samples::told()));
}

#[test]
fn a_breach() {
    insta::assert_snapshot!("breach", lines(&breach(), false));
}

#[test]
fn an_expectation_not_met() {
    insta::assert_snapshot!("unmet", lines(&unmet(), false));
}

#[test]
fn a_skipped_case() {
    insta::assert_snapshot!("skipped", lines(&skipped(), false));
}

#[test]
fn a_waived_breach() {
    insta::assert_snapshot!("waived", lines(&waived(), false));
}

#[test]
fn a_waiver_that_was_not_needed_is_reported() {
    let mut case = pass();
    case.verdicts[3].waived = Some("background tools outlive the turn".into());
    assert!(lines(&case, false).contains("waiver not needed: PROC-1: the rule was not broken"));
    case.verdicts[3].verdict = Verdict::NotExercised;
    assert!(lines(&case, false).contains("waiver not needed: PROC-1: the rule was not exercised"));
    let why = "the trace is broken".to_owned();
    case.verdicts[3].verdict = Verdict::Unknown { why };
    assert!(!lines(&case, false).contains("waiver not needed"));
    assert!(!lines(&waived(), false).contains("waiver not needed"));
}

#[test]
fn a_should_is_a_warning() {
    insta::assert_snapshot!("should", lines(&should(), false));
}

#[test]
fn a_should_is_a_breach_under_strict() {
    insta::assert_snapshot!("strict", lines(&should(), true));
}

#[test]
fn trouble_is_told_once() {
    insta::assert_snapshot!("trouble", lines(&trouble(), false));
}

#[test]
fn a_scenario_error_and_an_agent_that_fails() {
    let mut wrong = pass();
    wrong.status = CaseStatus::ScenarioError;
    wrong.note = Some("the scenario waits for call_2, and no reply has such a call".into());
    let mut dead = pass();
    dead.status = CaseStatus::AgentFailed;
    dead.note =
        Some("codex exited with code 1 before it answered `initialize`: no such file".into());
    dead.agent.defects = vec!["marker-after-event".into()];
    insta::assert_snapshot!("errors", console(&[wrong, dead], false, false));
}

#[test]
fn many_breaches_and_much_evidence_are_cut() {
    let mut case = breach();
    let one = |n: u64| {
        let evidence = match n {
            0 => (0..15).chain([99]).collect(),
            _ => vec![],
        };
        breach_of(&format!("breach {n}"), evidence)
    };
    let breaches = (0..8).map(one).collect();
    case.verdicts[0].verdict = Verdict::Fail {
        exercised: 9,
        breaches,
    };
    case.verdicts[1].verdict = Verdict::Unknown {
        why: "the rule crashed: index out of bounds".into(),
    };
    insta::assert_snapshot!("much", lines(&case, false));
}

#[test]
fn a_whole_run() {
    let cases = [
        pass(),
        breach(),
        should(),
        waived(),
        unmet(),
        skipped(),
        trouble(),
    ];
    insta::assert_snapshot!("run", console(&cases, false, true));
}

#[test]
fn a_run_in_which_all_is_well() {
    insta::assert_snapshot!("well", console(&[pass(), pass()], false, true));
}

#[test]
fn a_run_without_cases() {
    assert_eq!(
        console(&[], true, true),
        "\n0 cases (0.00 s, seed 42, strict)\n"
    );
}

#[test]
fn only_failures_are_red() {
    let red = "\u{1b}[31m";
    let of = |case: CaseResult| coloured(&[case], false, DEFAULT_WIDTH, true);
    let failed = of(breach());
    assert!(failed.contains("\u{1b}[31mFAIL\u{1b}[0m"), "{failed}");
    let conforms = of(pass());
    assert!(!conforms.contains(red), "{conforms}");
}

#[test]
fn what_an_agent_wrote_cannot_act_on_the_terminal() {
    let mut case = breach();
    let nasty = "\u{1b}[2J\rgone\n::error::forged \u{202E}x";
    case.scenario = nasty.into();
    case.file = nasty.into();
    case.note = Some(nasty.into());
    case.replay = nasty.into();
    case.agent.name = nasty.into();
    case.agent.defects = vec![nasty.into()];
    case.verdicts[0].rule = nasty.into();
    case.verdicts[0].verdict = samples::fail(nasty, &[0]);
    case.verdicts.push(verdict(
        "X-1",
        Level::Must,
        Verdict::Unknown { why: nasty.into() },
    ));
    case.unmet = unmet().unmet;
    case.unmet[0].found = nasty.into();
    case.unmet[0].text = nasty.into();
    let text = console(&[case], false, true);
    assert!(
        !text.contains(|c: char| (c.is_control() && c != '\n') || c == '\u{202E}'),
        "{text}"
    );
    assert!(
        text.lines()
            .all(|line| !line.trim_start().starts_with("::")),
        "{text}"
    );
}

/// Commands and paths are kept whole, so that they can be copied.
#[test]
fn no_word_is_broken_at_any_width() {
    let cases = [
        pass(),
        breach(),
        should(),
        waived(),
        unmet(),
        skipped(),
        trouble(),
    ];
    let words =
        |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
    let wide = plain(&coloured(&cases, false, 1000, true));
    for width in [60, DEFAULT_WIDTH, 160] {
        let text = plain(&coloured(&cases, false, width, true));
        for line in text.lines() {
            let is_verbatim = line.contains("replay") || line.contains(".jsonl");
            assert!(
                line.chars().count() <= width || is_verbatim,
                "{width}: {line}"
            );
        }
        assert_eq!(words(&text), words(&wide), "{width}");
    }
}
