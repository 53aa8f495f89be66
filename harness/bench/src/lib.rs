//! What the benchmarks share: their options, their goals, and the instruction counts that CI guards.
//!
//! A benchmark's `main` is one call of [`run`]. `cargo bench --workspace --bench '*' -- --short` runs
//! them all in a few seconds each; `-- --instructions` counts the instructions of the hot paths.

pub mod bare;
mod goals;
mod instructions;
mod measure;

use std::process::ExitCode;

pub use goals::Goals;
pub use instructions::HotPath;
pub use measure::{cpu_time, median, micros, resident_kib, time};

/// What the command line asks a benchmark for.
#[derive(Debug)]
pub struct Options {
    /// A few rounds only; a goal that is missed is an error.
    pub short: bool,
    check: bool,
    arguments: Vec<String>,
}

impl Options {
    fn from_command_line() -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
        Self {
            short: has("--short"),
            check: has("--check") || has("--short"),
            arguments,
        }
    }

    fn has(&self, flag: &str) -> bool {
        self.arguments.iter().any(|argument| argument == flag)
    }

    /// The argument right after a flag.
    pub fn value_of(&self, flag: &str) -> Option<&str> {
        let at = self.arguments.iter().position(|it| it == flag)?;
        self.arguments.get(at + 1).map(String::as_str)
    }

    /// The file that is named instead of the benchmark's own input.
    pub fn file_with(&self, extension: &str) -> Option<&str> {
        let mut arguments = self.arguments.iter().map(String::as_str);
        arguments.find(|argument| argument.ends_with(extension))
    }

    /// The first of two numbers in a short run, the second otherwise.
    pub fn rounds(&self, short: usize, full: usize) -> usize {
        if self.short { short } else { full }
    }
}

/// Runs a benchmark as the command line asks: its measurement, or its hot path under valgrind.
pub fn run(hot_path: Option<HotPath>, measure: impl FnOnce(&Options, &mut Goals)) -> ExitCode {
    let options = Options::from_command_line();
    if options.has(instructions::RUN_FLAG) {
        if let Some(path) = hot_path {
            instructions::run(&path);
        }
        return ExitCode::SUCCESS;
    }
    if options.has("--instructions") {
        return match hot_path {
            Some(path) => instructions::guard(&path, options.has("--update")),
            None => ExitCode::SUCCESS,
        };
    }
    let mut goals = Goals::new(options.short);
    measure(&options, &mut goals);
    if options.check && !goals.all_met() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
