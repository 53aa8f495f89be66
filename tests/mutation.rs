//! Every rule is put to the test and can fail: every planted defect is caught by its own rule, and
//! the correct agent by none.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use cutpoint::mutation::{self, MUTANT_LIMIT, MutationConfig, Score};
use cutpoint_agent::Defect;

/// As in the command line: most of a schedule's work is small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn score(defects: &[Defect]) -> Score {
    let dir = tempfile::tempdir().unwrap();
    let config = MutationConfig {
        scenarios: common::scenarios(),
        defects: defects.to_vec(),
        recordings: common::root().join("recordings"),
        dir: dir.path().to_owned(),
        workers: std::thread::available_parallelism().map_or(2, usize::from),
        limit: MUTANT_LIMIT,
        until_caught: true,
    };
    mutation::run(&config).unwrap()
}

#[test]
fn every_planted_defect_is_caught_by_its_own_rule() {
    let score = score(Defect::ALL);
    assert!(score.is_full(), "{}", mutation::table(&score, None));
}

/// The catalogue names defects; nothing else keeps it from naming one that is gone, or from having
/// nothing to say of a symptom.
#[test]
fn the_catalogue_names_defects_that_exist() {
    let text = std::fs::read_to_string(common::root().join("docs/defects.md")).unwrap();
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| ")).collect();
    assert!(rows.len() > 30, "{} rows", rows.len());
    for row in rows {
        let cell = row.trim_end_matches('|').rsplit('|').next().unwrap();
        assert!(
            !cell.contains('—'),
            "neither a defect nor a reason in {row}"
        );
        for name in cell.split('`').skip(1).step_by(2) {
            assert!(name.parse::<Defect>().is_ok(), "{name} in {row}");
        }
    }
}

#[test]
fn every_rule_is_put_to_the_test_by_a_scenario_and_by_a_defect() {
    let score = score(&[]);
    assert!(
        score.correct.is_empty(),
        "{}",
        mutation::table(&score, None)
    );
    for rule in cutpoint_check::rules() {
        let id = rule.id();
        let exercised = !score.exercised_by(id).is_empty();
        let planted = Defect::ALL.iter().any(|defect| defect.rule() == id);
        assert!(exercised, "no scenario puts {id} to the test");
        assert!(planted, "no planted defect breaks {id}");
    }
}
