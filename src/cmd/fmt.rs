//! `cutpoint fmt`

use std::path::PathBuf;

use crate::exit_code::ExitCode;
use crate::{Failure, Outcome, files};

/// Arguments of `cutpoint fmt`.
#[derive(clap::Args)]
#[command(
    after_help = "Comments and blank lines are kept. A file that is no scenario file is left alone."
)]
pub struct Arguments {
    /// Scenario files, or directories of them; `-` lays out stdin to stdout.
    #[arg(default_value = "scenarios")]
    paths: Vec<PathBuf>,
    /// Change nothing; exit with 1 if a file is not laid out.
    #[arg(long)]
    check: bool,
}

/// Lays out files.
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
                anstream::eprintln!("{}", diagnostics.render(true));
                code = code.max(ExitCode::Usage);
                continue;
            }
        };
        if laid_out == source {
            continue;
        }
        if arguments.check {
            anstream::println!("{name} is not laid out; run `cutpoint fmt {name}`");
            code = code.max(ExitCode::Breach);
        } else {
            files::write_atomic(&file, laid_out.as_bytes())
                .map_err(|error| Failure::trouble(format!("{name}: {error}")))?;
            anstream::println!("{name}");
        }
    }
    Ok(code)
}

fn stdin() -> Outcome {
    let source = std::io::read_to_string(std::io::stdin())
        .map_err(|error| Failure::usage(format!("stdin: {error}")))?;
    match cutpoint_scenario::format("<stdin>", &source) {
        Ok(laid_out) => {
            anstream::print!("{laid_out}");
            Ok(ExitCode::Conforms)
        }
        Err(diagnostics) => {
            anstream::eprintln!("{}", diagnostics.render(true));
            Ok(ExitCode::Usage)
        }
    }
}
