//! `cutpoint report`

use std::path::{Path, PathBuf};

use cutpoint_explore::results::{self, SweepResults};
use cutpoint_explore::{ParseShardError, whole};
use cutpoint_report::json_lines::{self, Results};
use cutpoint_report::{Console, Reporter as _};

use crate::console::say;
use crate::exit_code::ExitCode;
use crate::{Failure, Outcome, console, files, reports, sweep_report};

/// Arguments of `cutpoint report`.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Merge the results of all parts of a sweep or a run.
    ///
    /// Takes the files that `cutpoint sweep --shard K/N --json` or `cutpoint run --shard K/N --json`
    /// has written, and prints what the whole would have printed. A file that belongs to another
    /// sweep or run, or was interrupted, is refused; so is a whole with a part missing or given twice.
    #[command(after_help = "Examples:
  cutpoint report merge part-*.json --json whole.json        the whole, as without --shard")]
    Merge(MergeArguments),
}

#[derive(clap::Args)]
struct MergeArguments {
    /// The results of each part.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Write the whole to this file, as without --shard.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Merges results.
pub fn run(arguments: &Arguments) -> Outcome {
    let Command::Merge(arguments) = &arguments.command;
    let mut read = Vec::new();
    for file in &arguments.files {
        let bytes = std::fs::read(file).map_err(|error| files::failure(file, &error))?;
        read.push((file.display().to_string(), bytes));
    }
    // The results of a run are lines, the first with the format's name; those of a sweep are one object
    // over many lines.
    let is_run = |(_, bytes): &(String, Vec<u8>)| {
        let first = bytes
            .split(|byte| *byte == b'\n')
            .next()
            .unwrap_or_default();
        String::from_utf8_lossy(first).contains(json_lines::FORMAT_NAME)
    };
    let json = arguments.json.as_deref();
    if read.first().is_some_and(is_run) {
        merge_runs(&read, json)
    } else {
        merge_sweeps(&read, json)
    }
}

fn merge_sweeps(read: &[(String, Vec<u8>)], json: Option<&Path>) -> Outcome {
    let part = |(name, bytes): &(String, Vec<u8>)| {
        let part = SweepResults::read(bytes);
        let part = part.map_err(|error| Failure::usage(format!("{name}: {error}")))?;
        Ok((name.clone(), part))
    };
    let parts = read.iter().map(part).collect::<Result<Vec<_>, Failure>>()?;
    let merged = results::merge(parts).map_err(|error| Failure::usage(error.to_string()))?;
    for scenario in &merged.scenarios {
        sweep_report::scenario(&merged.settings, merged.shard, scenario, |_, _| Ok(()))?;
    }
    sweep_report::statement(&merged)?;
    if let Some(file) = json {
        sweep_report::store(&merged, file)?;
    }
    Ok(sweep_report::exit_code(&merged))
}

fn merge_runs(read: &[(String, Vec<u8>)], json: Option<&Path>) -> Outcome {
    let part = |(name, bytes): &(String, Vec<u8>)| {
        let wrong = |error: String| Failure::usage(format!("{name}: {error}"));
        let part = Results::read(&bytes[..]).map_err(|error| wrong(error.to_string()))?;
        let shard = part.header.shard.parse();
        let shard = shard.map_err(|error: ParseShardError| wrong(error.to_string()))?;
        Ok(((name.clone(), part), shard))
    };
    let parts = read.iter().map(part).collect::<Result<Vec<_>, Failure>>()?;
    let shards: Vec<_> = parts
        .iter()
        .map(|((name, _), shard)| (name.as_str(), *shard))
        .collect();
    whole(&shards).map_err(|error| Failure::usage(error.to_string()))?;
    let parts = parts.into_iter().map(|(part, _)| part).collect();
    let merged = json_lines::merge(parts).map_err(|error| Failure::usage(error.to_string()))?;
    for case in &merged.cases {
        if ExitCode::of(case.status) != ExitCode::Conforms {
            say!(
                "{}: {} ({:?})\n    replay: {}",
                case.file,
                case.scenario,
                case.status,
                case.replay
            )?;
        }
    }
    if let Some(summary) = &merged.summary {
        let context = reports::context(summary.strict);
        let mut console = Console::new(anstream::stdout(), context).width(console::report_width());
        console::unless_closed(console.finish(summary))?;
    }
    let codes = merged.cases.iter().map(|case| ExitCode::of(case.status));
    let code = codes.max().unwrap_or(ExitCode::Conforms);
    if let Some(file) = json {
        let mut bytes = Vec::new();
        let written = merged.write(&mut bytes);
        let written = written.and_then(|()| files::write_atomic(file, &bytes));
        written.map_err(|error| files::failure(file, &error))?;
    }
    Ok(code)
}
