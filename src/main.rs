//! The command line of cutpoint.

mod agent_spec;
mod cmd;
mod console;
mod exit_code;
mod files;
mod inputs;
mod inspect;
mod interrupt;
mod line_reader;
mod process_agent;
mod progress;
mod recorded_session;
mod report_files;
mod reports;
mod rollout_file;
mod run_dir;
mod save_recording;
mod session_items;
mod shard;
mod sweep_report;

use std::process;

use clap::{Parser, Subcommand};

use crate::exit_code::ExitCode;

/// A schedule of the lab is thousands of small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Cuts a coding agent's turn at any point and proves that nothing was lost.
///
/// cutpoint replays a model's streams from a mock Responses API server, drives an agent, interrupts
/// it at exact points, and checks a rule book over the trace of what happened.
///
/// Start with `cutpoint run`: it runs every scenario below ./scenarios on the embedded reference
/// agent. Then `cutpoint run --agent codex@0.169.0`, and `cutpoint rules` for what is checked.
#[derive(Parser)]
#[command(version, propagate_version = true, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes:
  0  everything conforms
  1  a rule was broken or an expectation not met
  2  the command line, a scenario or a recording is not as it must be
  3  an agent could not be run, or not to the end
  4  interrupted, or trouble in the harness itself: nothing can be said of what did not end";

#[derive(Subcommand)]
enum Command {
    /// Run scenarios on agents and check the rule book.
    Run(cmd::run::Arguments),
    /// Try what a user does at every point of the reference agent, exhaustively within a bound.
    Sweep(cmd::sweep::Arguments),
    /// Search beyond what a sweep tries: draw scenarios and schedules at random.
    Fuzz(cmd::fuzz::Arguments),
    /// Run a schedule that a sweep has found, or a recorded session, once more.
    Replay(cmd::replay::Arguments),
    /// Merge the results of several machines.
    Report(cmd::report::Arguments),
    /// Prove the rules: run every planted defect, and see that its rule catches it.
    Mutate(cmd::mutate::Arguments),
    /// Record a client's session with the Responses API as a recording and a scenario.
    Record(cmd::record::Arguments),
    /// Make a recording and a scenario from a session's rollout.
    Import(cmd::import::Arguments),
    /// Serve a recording as a stand-alone mock of the Responses API.
    Serve(cmd::serve::Arguments),
    /// Check rollouts, recordings and traces, without running anything.
    Check(cmd::check::Arguments),
    /// Compare two rollouts, recordings or traces, item by item.
    Diff(cmd::diff::Arguments),
    /// Show the rule book, or one rule in full.
    Rules(cmd::rules::Arguments),
    /// Lay out scenario files in the canonical form.
    Fmt(cmd::fmt::Arguments),
    /// Show the planted defects of the reference agent, or one in full.
    Defects(cmd::defects::Arguments),
    /// Show what --agent takes, and what is installed here.
    Agents(cmd::agents::Arguments),
    /// Check this machine, and try which agents can be run here.
    Doctor(cmd::doctor::Arguments),
    /// Run the reference agent on stdin and stdout, as JSON lines.
    Agent(cmd::agent::Arguments),
    /// Print a completion script for a shell.
    Completions(cmd::completions::Arguments),
}

fn main() -> process::ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Command::Run(arguments) => cmd::run::run(&arguments),
        Command::Mutate(arguments) => cmd::mutate::run(&arguments),
        Command::Sweep(arguments) => cmd::sweep::run(&arguments),
        Command::Fuzz(arguments) => cmd::fuzz::run(&arguments),
        Command::Replay(arguments) => cmd::replay::run(&arguments),
        Command::Report(arguments) => cmd::report::run(&arguments),
        Command::Record(arguments) => cmd::record::run(&arguments),
        Command::Import(arguments) => cmd::import::run(&arguments),
        Command::Serve(arguments) => cmd::serve::run(&arguments),
        Command::Check(arguments) => cmd::check::run(&arguments),
        Command::Diff(arguments) => cmd::diff::run(&arguments),
        Command::Rules(arguments) => cmd::rules::run(&arguments),
        Command::Fmt(arguments) => cmd::fmt::run(&arguments),
        Command::Defects(arguments) => cmd::defects::run(&arguments),
        Command::Agents(arguments) => cmd::agents::run(&arguments),
        Command::Doctor(arguments) => cmd::doctor::run(&arguments),
        Command::Agent(arguments) => cmd::agent::run(&arguments),
        Command::Completions(arguments) => cmd::completions::run::<Arguments>(&arguments),
    };
    let code = result.unwrap_or_else(|failure| {
        console::complain!("error: {}", failure.message);
        failure.code
    });
    code.into()
}

/// Why a command could not do what it was asked to.
struct Failure {
    code: ExitCode,
    message: String,
}

impl Failure {
    fn usage(message: impl Into<String>) -> Self {
        Self {
            code: ExitCode::Usage,
            message: message.into(),
        }
    }

    fn agent(message: impl Into<String>) -> Self {
        Self {
            code: ExitCode::AgentFailed,
            message: message.into(),
        }
    }

    fn trouble(message: impl Into<String>) -> Self {
        Self {
            code: ExitCode::Trouble,
            message: message.into(),
        }
    }
}

type Outcome = Result<ExitCode, Failure>;

/// Everything async runs on this thread, so that nothing is reordered between cores that need not
/// be.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::trouble(format!("no async runtime: {error}")))
}
