//! Every scenario file is a test of its own: on the reference agent in process, over stdio and over
//! JSON-RPC.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use cutpoint_engine::driver::agent_kind::{AgentSpec, LaunchContext};
use cutpoint_engine::driver::{Driver, START_LIMIT};
use cutpoint_engine::required_capabilities;
use cutpoint_engine::runner::Planned;
use cutpoint_trace::case::CaseStatus;
use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for planned in common::scenarios() {
        let agents = [
            ("in-process", "reference"),
            ("stdio", "reference-stdio"),
            ("json-rpc", "reference-jsonrpc"),
        ];
        for (way, agent) in agents {
            let name = format!("{way}::{}::{}", planned.file, planned.scenario.name);
            // What an agent cannot do is no test of it: it counts as ignored, not as passed.
            let needs = required_capabilities::of(&planned.scenario);
            let driver = common::runtime().block_on(driver(agent));
            let applies = driver.lacks(&needs).is_none();
            let planned = planned.clone();
            let trial = Trial::test(name, move || conforms(&planned, agent));
            trials.push(trial.with_ignored_flag(!applies));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

/// A driver for an agent as `--agent` names it.
async fn driver(agent: &str) -> Arc<dyn Driver> {
    let context = LaunchContext {
        mark: "scenario-tests".to_owned(),
        start_limit: START_LIMIT,
        dir: std::env::temp_dir(),
        cutpoint: PathBuf::from(env!("CARGO_BIN_EXE_cutpoint")),
        defects: Vec::new(),
    };
    let agent: AgentSpec = agent.parse().unwrap();
    agent.driver(&context).await.unwrap()
}

fn conforms(planned: &Planned, agent: &str) -> Result<(), Failed> {
    let case = common::runtime().block_on(async {
        let bench = common::Bench::new(driver(agent).await).await;
        bench.run(planned).await
    });
    match case.status(true) {
        CaseStatus::Conforms => Ok(()),
        _ => Err(common::complaints(&case).into()),
    }
}
