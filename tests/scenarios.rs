//! Every scenario file is a test of its own: on the reference agent in process, over stdio and over
//! JSON-RPC.

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use cutpoint_engine::driver::Driver;
use cutpoint_engine::driver::front::FrontDriver;
use cutpoint_engine::driver::reference::ReferenceDriver;
use cutpoint_engine::driver::stdio::{StdioCommand, StdioDriver};
use cutpoint_engine::required_capabilities;
use cutpoint_engine::runner::Planned;
use cutpoint_trace::case::CaseStatus;
use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for planned in common::scenarios() {
        let agents = [
            ("in-process", in_process as Make),
            ("stdio", stdio as Make),
            ("json-rpc", json_rpc as Make),
        ];
        for (agent, driver) in agents {
            let name = format!("{agent}::{}::{}", planned.file, planned.scenario.name);
            // What an agent cannot do is no test of it: it counts as ignored, not as passed.
            let needs = required_capabilities::of(&planned.scenario);
            let applies = needs.is_subset(&driver().capabilities());
            let planned = planned.clone();
            let trial = Trial::test(name, move || conforms(&planned, driver));
            trials.push(trial.with_ignored_flag(!applies));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

type Make = fn() -> Arc<dyn Driver>;

fn in_process() -> Arc<dyn Driver> {
    Arc::new(ReferenceDriver::default())
}

fn command(words: &[&str]) -> StdioCommand {
    StdioCommand {
        program: PathBuf::from(env!("CARGO_BIN_EXE_cutpoint")),
        arguments: words.iter().map(|word| (*word).to_owned()).collect(),
    }
}

fn stdio() -> Arc<dyn Driver> {
    let command = command(&["agent"]);
    Arc::new(StdioDriver::new(
        command,
        "reference",
        Vec::new(),
        "scenario-tests",
    ))
}

fn json_rpc() -> Arc<dyn Driver> {
    let command = command(&["agent", "--jsonrpc"]);
    Arc::new(FrontDriver::new(command, Vec::new(), "scenario-tests"))
}

fn conforms(planned: &Planned, make: Make) -> Result<(), Failed> {
    let case = common::runtime().block_on(async {
        let bench = common::Bench::new(make()).await;
        bench.run(planned).await
    });
    match case.status(true) {
        CaseStatus::Conforms => Ok(()),
        _ => Err(common::complaints(&case).into()),
    }
}
