//! `cutpoint completions`

use clap::CommandFactory;
use clap_complete::Shell;

use crate::Outcome;
use crate::exit_code::ExitCode;

/// Arguments of `cutpoint completions`.
#[derive(clap::Args)]
pub struct Arguments {
    /// The shell.
    shell: Shell,
}

/// Prints the script.
pub fn run<Root: CommandFactory>(arguments: &Arguments) -> Outcome {
    let mut command = Root::command();
    clap_complete::generate(
        arguments.shell,
        &mut command,
        "cutpoint",
        &mut std::io::stdout(),
    );
    Ok(ExitCode::Conforms)
}
