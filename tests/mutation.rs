//! Every planted defect is caught by its own rule, and the correct agent by none.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use cutpoint_agent::Defect;
use cutpoint_engine::mutation::{self, MUTANT_LIMIT, MutationConfig};

#[test]
fn every_planted_defect_is_caught_by_its_own_rule() {
    let dir = tempfile::tempdir().unwrap();
    let config = MutationConfig {
        scenarios: common::scenarios(),
        defects: Defect::ALL.to_vec(),
        recordings: common::root().join("recordings"),
        dir: dir.path().to_owned(),
        workers: std::thread::available_parallelism().map_or(2, usize::from),
        limit: MUTANT_LIMIT,
        until_caught: true,
    };
    let score = mutation::run(&config).unwrap();
    assert!(score.is_full(), "{}", mutation::table(&score));
}
