use super::*;
use crate::executor::Violation;
use crate::failure_group::Repeats;
use crate::schedule::Schedule;
use crate::token::Token;

fn group(rule: &str, number: usize, digests: &[u64]) -> FailureGroup {
    FailureGroup {
        violations: vec![Violation::new(
            rule,
            "broke",
            format!("schedule {number} broke"),
        )],
        schedules: digests.len(),
        traces: digests.len(),
        number,
        token: Token {
            scenario: u64::MAX,
            seed: 0,
            schedule: Schedule::default(),
        },
        repeats: None,
        digests: digests.iter().copied().collect(),
    }
}

/// The `index`th of two parts of a sweep of five schedules.
fn part(index: usize) -> SweepResults {
    let (rule, number) = [("CALL-1", 7), ("CALL-2", 3)][index];
    let digests: Digests = [vec![1, 5], vec![2, 5]][index].iter().copied().collect();
    let exercised = BTreeMap::from([(rule.to_owned(), 2), ("REQ-1".to_owned(), 1)]);
    let scenario = ScenarioResult {
        file: "a.kdl".to_owned(),
        scenario: "a".to_owned(),
        fingerprint: u64::MAX,
        points: 3,
        schedules: 5,
        planned: 2 + index,
        ran: 2 + index,
        traces: digests.len(),
        missed: 1,
        harness_errors: Some(HarnessErrors {
            runs: 1,
            number,
            why: format!("error {number}"),
        }),
        not_exercised: ["CALL-1", "CALL-2", "CALL-3"]
            .into_iter()
            .filter(|rule| !exercised.contains_key(*rule))
            .map(str::to_owned)
            .collect(),
        exercised,
        failures: [
            vec![group("A", 1, &[1]), group("B", 2, &[5])],
            vec![group("B", 0, &[2, 5])],
        ][index]
            .clone(),
        digests,
        ..ScenarioResult::default()
    };
    let settings = SweepSettings {
        cutpoint: "0".to_owned(),
        agent: "reference".to_owned(),
        agent_argument: None,
        defects: Vec::new(),
        seed: 0,
        strict: false,
        plan: "everything".to_owned(),
        durability: "unknown".to_owned(),
    };
    SweepResults {
        scenarios: vec![scenario],
        ..SweepResults::new(settings, Shard::new(index, 2).unwrap())
    }
}

fn named() -> Vec<(String, SweepResults)> {
    vec![("b".to_owned(), part(1)), ("a".to_owned(), part(0))]
}

#[test]
fn parts_are_joined_and_no_trace_counts_twice() {
    let merged = merge(named()).unwrap();
    assert_eq!(merged.shard, Shard::WHOLE);
    let [scenario] = &merged.scenarios[..] else {
        panic!("{merged:?}")
    };
    let counts = (scenario.planned, scenario.ran, scenario.schedules);
    assert_eq!(counts, (5, 5, 5));
    assert_eq!((scenario.traces, scenario.missed), (3, 2));
    assert_eq!(scenario.exercised["REQ-1"], 2);
    let exercised: Vec<&str> = scenario.exercised.keys().map(String::as_str).collect();
    assert_eq!(exercised, ["CALL-1", "CALL-2", "REQ-1"]);
    assert_eq!(scenario.not_exercised, ["CALL-3"]);
    let errors = scenario.harness_errors.as_ref().unwrap();
    assert_eq!((errors.runs, errors.why.as_str()), (2, "error 3"));
    let failure = |it: &FailureGroup| {
        let violation = &it.violations[0];
        let message = violation.message.clone();
        (violation.rule.clone(), message, it.schedules, it.traces)
    };
    let failures: Vec<_> = scenario.failures.iter().map(failure).collect();
    // The message is that of the smallest schedule.
    let expected = [
        ("B".to_owned(), "schedule 0 broke".to_owned(), 3, 2),
        ("A".to_owned(), "schedule 1 broke".to_owned(), 1, 1),
    ];
    assert_eq!(failures, expected);
}

#[test]
fn parts_of_a_sampled_sweep_may_see_different_cut_points() {
    let sampled = |index: usize| {
        let mut part = part(index);
        part.sampling = Some(Sampling {
            runs: 10,
            jobs: 16,
            interrupted_turns: 3,
            elapsed_s: 1.5,
            ..Sampling::default()
        });
        part.scenarios[0].schedules += index;
        part.scenarios[0].failures[0].repeats = Some(Repeats { failed: 1, runs: 4 });
        (index.to_string(), part)
    };
    let merged = merge(vec![sampled(0), sampled(1)]).unwrap();
    assert_eq!(merged.scenarios[0].schedules, 5);
    let sampling = merged.sampling.unwrap();
    assert_eq!((sampling.runs, sampling.jobs), (20, 16));
    assert_eq!((sampling.interrupted_turns, sampling.elapsed_s), (6, 3.0));
    let repeats = merged.scenarios[0].failures[0].repeats.unwrap();
    assert_eq!((repeats.failed, repeats.runs), (1, 4));
}

#[test]
fn results_read_back_and_other_files_are_refused() {
    let text = serde_json::to_string(&part(0)).unwrap();
    assert!(
        text.contains(r#""digests":"00000000000000010000000000000005""#),
        "{text}"
    );
    assert!(
        text.contains(r#""fingerprint":"ffffffffffffffff""#),
        "{text}"
    );
    assert_eq!(SweepResults::read(text.as_bytes()).unwrap(), part(0));
    let refused = |text: &str| SweepResults::read(text.as_bytes()).unwrap_err().to_string();
    for version in [1, 4] {
        let other = text.replace("\"version\":3", &format!("\"version\":{version}"));
        let says = format!(
            "these results have format version {version}; this build reads versions 2 and 3"
        );
        assert!(refused(&other).starts_with(&says));
    }
    let process = r#"{"format":"cutpoint-external-sweep","version":1,"sweeps":[]}"#;
    assert!(refused(process).ends_with("sweep again with this version"));
    assert!(refused(&text.replace(FORMAT, "x")).contains("the format is `x`"));
    assert!(refused("{").starts_with("these are not the results of a sweep"));
    for digests in ["1", "00000000000000050000000000000001", "000000000000000ä"] {
        let bad = text.replace("00000000000000010000000000000005", digests);
        assert!(refused(&bad).contains("16 hexadecimal digits"), "{digests}");
    }
}

/// A results file as version 2 wrote it.
const VERSION_2: &str = r#"{
  "format": "cutpoint-sweep", "version": 2, "cutpoint": "0.1.0",
  "agent": "reference 0.1.0, in the lab", "defects": ["forget-output"], "seed": 0,
  "strict": false, "bound": "crash at every named point", "durability": "L0",
  "shard": "1/1", "interrupted": false,
  "sweeps": [{
    "file": "a.kdl", "scenario": "a", "fingerprint": "00000000000000ab", "points": 2,
    "bound": 3, "planned": 3, "ran": 3, "traces": 1, "missed": 0,
    "levels": {"L0": {"ran": 2, "broken": 1}},
    "trouble": {"runs": 1, "number": 2, "why": "CALL-1 is unknown"},
    "exercised": {"CALL-1": 2}, "not_shown": ["CALL-2"],
    "failures": [{
      "broken": [{"rule": "CALL-1", "message": "request N has no output"}],
      "schedules": 1, "traces": 1, "number": 1,
      "token": "cp1:00000000000000ab:0:crash@store.written.1+0",
      "digests": "0000000000000001"
    }],
    "digests": "0000000000000001"
  }]
}"#;

#[test]
fn results_of_version_2_are_read_and_merged() {
    let old = SweepResults::read(VERSION_2.as_bytes()).unwrap();
    let scenario = &old.scenarios[0];
    assert_eq!((old.version, scenario.schedules, scenario.ran), (2, 3, 3));
    let level = scenario.levels[&CrashLevel::L0];
    assert_eq!((level.ran, level.failed), (2, 1));
    assert_eq!(scenario.harness_errors.as_ref().unwrap().number, 2);
    let group = &scenario.failures[0];
    assert_eq!(group.violations[0].kind, "request N has no output");
    let token = "cp2:00000000000000ab:0:crash@store.written.1+0";
    assert_eq!(group.token.to_string(), token);
    let merged = merge(vec![("old".to_owned(), old)]).unwrap();
    assert_eq!(merged.version, VERSION);
    let text = serde_json::to_string(&merged).unwrap();
    assert_eq!(SweepResults::read(text.as_bytes()).unwrap(), merged);
}

#[test]
fn parts_of_different_sweeps_are_refused() {
    let refused = |change: fn(&mut SweepResults)| {
        let mut parts = named();
        change(&mut parts[1].1);
        merge(parts).unwrap_err().to_string()
    };
    let seed = "b and a are parts of different sweeps: the seed differs, `0` and `9`";
    assert_eq!(refused(|it| it.settings.seed = 9), seed);
    let plan = refused(|it| it.settings.plan.push('!'));
    assert!(plan.contains("the plan differs"), "{plan}");
    let version = refused(|it| it.settings.cutpoint.push('1'));
    assert!(version.contains("the version differs"), "{version}");
    let format = refused(|it| it.version = 2);
    assert!(format.contains("the format version differs"), "{format}");
    let changed = refused(|it| it.scenarios[0].fingerprint = 1);
    assert!(
        changed.contains("a scenario differs, `a.kdl \"a\" (ffff"),
        "{changed}"
    );
    let fewer = refused(|it| it.scenarios.clear());
    assert!(fewer.ends_with("and `no more`"), "{fewer}");
    let stopped = "a was interrupted; sweep --shard 1/2 again";
    assert_eq!(refused(|it| it.interrupted = true), stopped);
    assert_eq!(refused(|it| it.scenarios[0].ran = 1), stopped);
    let twice = refused(|it| it.shard = Shard::new(1, 2).unwrap());
    assert_eq!(twice, "b and a are both part 2/2; give each part once");
    let sum = refused(|it| {
        it.scenarios[0].planned = 1;
        it.scenarios[0].ran = 1;
    });
    assert!(
        sum.starts_with("the parts hold 4 schedules of a.kdl, its plan 5"),
        "{sum}"
    );
    let missing = merge(named().split_off(1)).unwrap_err().to_string();
    assert!(missing.starts_with("missing: 2/2"), "{missing}");
}
