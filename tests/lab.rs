//! In the lab every scenario runs as in the real world, and the same way each time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;

use cutpoint_engine::driver::in_process::ReferenceDriver;
use cutpoint_engine::lab;
use cutpoint_engine::runner::{Planned, RunConfig, Runner, WAIT_LIMIT};
use cutpoint_engine::server::{ReplayServer, ServerConfig};
use cutpoint_scenario::ast::Capability;
use cutpoint_trace::case::{CaseResult, CaseStatus};

fn run(planned: &Planned) -> CaseResult {
    lab::block_on(async {
        let server = Arc::new(ReplayServer::in_memory(ServerConfig::default()));
        let config = RunConfig {
            limit: WAIT_LIMIT,
            seed: 7,
            recordings: common::root().join("recordings"),
            dir: None,
            rules_only: false,
            judge: cutpoint_check::judge,
        };
        let driver = Arc::new(ReferenceDriver::default());
        Runner::new(server, driver, config).run(planned).await
    })
    .unwrap()
}

#[test]
fn every_scenario_conforms_and_repeats_byte_for_byte() {
    let mut wrong = Vec::new();
    for planned in common::scenarios() {
        let (one, two) = (run(&planned), run(&planned));
        // It runs no scripts of the model's; there is nothing else that it cannot do.
        let due = match planned.scenario.needs.contains(&Capability::CodeMode) {
            true => CaseStatus::Skipped,
            false => CaseStatus::Conforms,
        };
        if one.status(true) != due {
            let broken: Vec<_> = one.breaches(true).map(|verdict| &verdict.rule).collect();
            wrong.push(format!(
                "{}: {:?} {broken:?} {:?} {:?}",
                planned.file, one.status, one.unmet, one.note
            ));
        }
        let stored = |case: &CaseResult| {
            let mut bytes = Vec::new();
            case.trace.write(&mut bytes).unwrap();
            bytes
        };
        if stored(&one) != stored(&two) {
            let mut pairs = one.trace.entries.iter().zip(&two.trace.entries);
            let first = pairs.find(|(one, two)| one != two);
            wrong.push(format!("{}: two runs differ: {first:?}", planned.file));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
