//! `cutpoint import`

use std::path::{Path, PathBuf};

use cutpoint_engine::runner::Planned;
use cutpoint_recording::session::SessionOutline;
use cutpoint_recording::{Imported, import};

use super::record::Redaction;
use crate::agent_spec::AgentSpec;
use crate::console::{complain, say};
use crate::exit_code::ExitCode;
use crate::interrupt::SignalGuard;
use crate::{Failure, Outcome, recorded_session, rollout_file, save_recording};

/// Up to so much of history in all requests together a replay is checked: it takes several times that in memory.
const CHECK_LIMIT_BYTES: usize = 256 << 20;

/// Arguments of `cutpoint import`.
#[derive(clap::Args)]
#[command(
    after_help = "What the rollout's agent once ran is not run again: each call of a tool becomes a shell command
that prints the recorded output and ends with the recorded exit code. What cannot be read is told
with file, line and byte; the rest is imported. Secrets are taken out before anything is written; what
was taken out is told by kind. Interrupted, it leaves both files whole or none, and ends with 4. See
docs/import.md.

Examples:
  cutpoint import rollout.jsonl --name lost-output
  cutpoint run scenarios/imported/lost-output.kdl --agent codex
  cutpoint replay recordings/lost-output --agent codex"
)]
pub struct Arguments {
    /// Rollout files of one session, in their order.
    #[arg(required = true, value_name = "ROLLOUT")]
    rollouts: Vec<PathBuf>,
    /// The name of the recording and of the scenario.
    #[arg(long, value_parser = name)]
    name: String,
    /// Where the recording goes [default: recordings/NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Where the scenario goes [default: scenarios/imported/NAME.kdl]
    #[arg(long, value_name = "FILE")]
    scenario_out: Option<PathBuf>,
    /// Read that many lines of the last rollout only.
    #[arg(long, value_name = "N")]
    until_line: Option<usize>,
    #[command(flatten)]
    redaction: Redaction,
    /// Replace a recording or a scenario that is there.
    #[arg(long)]
    force: bool,
    /// Don't run the result to see that it gives the same items.
    #[arg(long)]
    no_check: bool,
}

fn name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if text.is_empty() || text.starts_with('.') || !text.chars().all(plain) {
        return Err("a name has letters, digits, `-`, `_` and `.`".to_owned());
    }
    Ok(text.to_owned())
}

/// Makes a recording and a scenario from rollouts.
pub fn run(arguments: &Arguments) -> Outcome {
    let name = &arguments.name;
    let out = arguments.out.clone();
    let out = out.unwrap_or_else(|| Path::new("recordings").join(name));
    let file = arguments.scenario_out.clone();
    let file = file.unwrap_or_else(|| Path::new("scenarios/imported").join(format!("{name}.kdl")));
    for place in [&out, &file] {
        if !arguments.force && place.exists() {
            let place = place.display();
            return Err(Failure::usage(format!(
                "{place} is there already; replace it with --force, or choose another --name"
            )));
        }
    }
    let guard = SignalGuard::new("nothing was written")?;
    let rollouts = arguments
        .rollouts
        .iter()
        .map(|path| rollout_file::read(path));
    let rollouts: Vec<(String, Vec<u8>)> = rollouts.collect::<Result<_, _>>()?;
    let mut redactor = arguments.redaction.redactor()?;
    let imported = import(name, &rollouts, arguments.until_line, &mut redactor)
        .map_err(|problem| Failure::usage(problem.to_string()))?;
    for problem in &imported.problems {
        complain!("{problem}");
    }
    let session = imported.recording.session().unwrap_or_default();
    let about = &imported.recording.source;
    let found = save_recording::name_in_scenario(&file, &out, name)?;
    let scenario = recorded_session::scenario(name, about, &found, &session);
    let text = format!("{scenario}\n");
    let parsed = cutpoint_scenario::parse(&file.display().to_string(), &text);
    if let Err(diagnostics) = parsed {
        let why = "the session makes no scenario; import less of it with --until-line";
        return Err(Failure::usage(format!("{why}\n{diagnostics}")));
    }
    let kept = "recording and scenario are written, and whole; they were not checked";
    guard.whole(kept, || {
        save_recording::save(&imported.recording, &out, &text, &file)
    })?;
    say!(
        "{} lines, {} exchanges: {} and {}",
        imported.lines,
        imported.recording.exchanges.len(),
        out.display(),
        file.display()
    )?;
    complain!("redacted: {}", redactor.report());
    if arguments.no_check {
        return Ok(ExitCode::Conforms);
    }
    let carried = carried_bytes(&session, imported.recording.exchanges.len());
    if carried > CHECK_LIMIT_BYTES {
        complain!(
            "not checked: the requests of a replay would carry {} MiB of history; \
             import less with --until-line to have it checked",
            carried >> 20
        );
        return Ok(ExitCode::Conforms);
    }
    let planned = Planned {
        scenario,
        file: file.display().to_string(),
    };
    check(session, imported, &planned)
}

/// How much all requests of a replay carry together, about: each has half of the session on average.
fn carried_bytes(session: &SessionOutline, exchanges: usize) -> usize {
    let items = session.items.iter();
    let bytes = items.map(|item| serde_json::to_string(item).map_or(0, |json| json.len()));
    bytes.sum::<usize>().saturating_mul(exchanges) / 2
}

/// Runs the import once on the reference agent, and compares with what the rollout itself says.
fn check(session: SessionOutline, imported: Imported, planned: &Planned) -> Outcome {
    let ran = recorded_session::run(planned, &AgentSpec::default(), Path::new("recordings"))?;
    let items = imported.items;
    let code = recorded_session::tell(&SessionOutline { items, ..session }, &ran)?;
    if code == ExitCode::Conforms {
        say!("checked: a replay gives the same items")?;
    } else {
        complain!("a replay of the import is not the same");
    }
    Ok(code)
}
