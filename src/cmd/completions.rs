//! `cutpoint completions`

use clap::CommandFactory;
use clap_complete::Shell;

use crate::exit_code::ExitCode;
use crate::{Outcome, console};

/// Arguments of `cutpoint completions`.
#[derive(clap::Args)]
pub struct Arguments {
    /// The shell.
    shell: Shell,
}

/// Prints the script.
pub fn run<Root: CommandFactory>(arguments: &Arguments) -> Outcome {
    let mut command = Root::command();
    // Into memory first: the generator panics if what it writes to fails.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "cutpoint", &mut script);
    console::bytes(&script)?;
    Ok(ExitCode::Conforms)
}
