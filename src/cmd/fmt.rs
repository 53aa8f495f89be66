//! `cutpoint fmt`

use std::path::PathBuf;

use crate::console::{self, complain, say};
use crate::exit_code::ExitCode;
use crate::{Outcome, files};

/// Arguments of `cutpoint fmt`.
#[derive(clap::Args)]
#[command(
    after_help = "Comments and blank lines are kept. Old spellings are replaced. A file with syntax errors is left alone."
)]
pub struct Arguments {
    /// Scenario files, or directories of them; `-` formats stdin to stdout.
    #[arg(default_value = "scenarios")]
    paths: Vec<PathBuf>,
    /// Change nothing; exit with 1 if a file is not formatted.
    #[arg(long)]
    check: bool,
}

/// Formats files.
pub fn run(arguments: &Arguments) -> Outcome {
    if arguments.paths == [PathBuf::from("-")] {
        return stdin();
    }
    let mut code = ExitCode::Conforms;
    for file in files::scenario_files(&arguments.paths)? {
        let name = file.display().to_string();
        let source = files::read_source(&file)?;
        let laid_out = match cutpoint_scenario::format(&name, &source) {
            Ok(laid_out) => laid_out,
            Err(diagnostics) => {
                complain!("{}", diagnostics.render(true));
                code = code.max(ExitCode::Usage);
                continue;
            }
        };
        if laid_out == source {
            continue;
        }
        if arguments.check {
            say!("{name} is not formatted; run `cutpoint fmt {name}`")?;
            code = code.max(ExitCode::Breach);
        } else {
            files::write_atomic(&file, laid_out.as_bytes())
                .map_err(|error| files::failure(&file, &error))?;
            say!("{name}")?;
        }
    }
    Ok(code)
}

fn stdin() -> Outcome {
    let source = files::read_stdin()?;
    match cutpoint_scenario::format("<stdin>", &source) {
        Ok(laid_out) => {
            console::bytes(laid_out.as_bytes())?;
            Ok(ExitCode::Conforms)
        }
        Err(diagnostics) => {
            complain!("{}", diagnostics.render(true));
            Ok(ExitCode::Usage)
        }
    }
}
