//! `cutpoint record`

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use cutpoint_engine::proxy::{
    CaptureLimits, Proxy, ProxyConfig, ProxyError, RecordedSession, command,
};
use cutpoint_engine::recorded_scenario::{self, ReplySource};
use cutpoint_recording::{Recording, Redactor};

use super::run::quoted;
use crate::console::{complain, say};
use crate::exit_code::ExitCode;
use crate::interrupt::Interrupts;
use crate::{Failure, Outcome, runtime, save_recording};

/// Arguments of `cutpoint record`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cutpoint record first-try -- codex exec \"fix the test\"      Codex, with its own login
  cutpoint record sdk -- python agent.py                      any client of $OPENAI_BASE_URL
  cutpoint record by-hand                                     prints the URL, ends on Ctrl-C
  cutpoint run scenarios/recorded/first-try.kdl               then: the session once more

WebSocket is answered with 426, so that clients use HTTP.
Secrets are taken out before anything is written; what was taken out is told by kind (docs/record.md).
The exit code is 0 if a recording was saved, however the command ended; its end is told.")]
pub struct Arguments {
    /// The recording's name, and the scenario's.
    #[arg(value_parser = name)]
    name: String,
    /// The base URL that requests go to.
    #[arg(long, value_name = "URL", default_value = "https://api.openai.com/v1")]
    upstream: String,
    /// Trust the certificates of this PEM file instead of the system's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    #[command(flatten)]
    redaction: Redaction,
    /// The directory to put the recording's folder in.
    #[arg(long, value_name = "DIR", default_value = "recordings")]
    out: PathBuf,
    /// Where to write the scenario [default: scenarios/recorded/NAME.kdl]
    #[arg(long, value_name = "FILE")]
    scenario_out: Option<PathBuf>,
    /// Replace a recording and a scenario of that name.
    #[arg(long)]
    force: bool,
    /// The command whose requests are recorded, with OPENAI_BASE_URL in its environment.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What is taken out of what is written.
#[derive(clap::Args)]
pub struct Redaction {
    /// Also take out what this regular expression matches, or its first group; may be given several
    /// times.
    #[arg(long = "redact", value_name = "REGEX")]
    redact: Vec<String>,
    /// Take nothing out; of headers only harmless ones are kept all the same.
    #[arg(long, conflicts_with = "redact")]
    no_redact: bool,
}

impl Redaction {
    /// What takes it out.
    pub fn redactor(&self) -> Result<Redactor, Failure> {
        if self.no_redact {
            return Ok(Redactor::off());
        }
        Redactor::new(&self.redact).map_err(|error| Failure::usage(error.to_string()))
    }
}

/// A name that is one folder's.
fn name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !text.is_empty() && text.chars().all(plain) && !text.starts_with(['.', '-']) {
        return Ok(text.to_owned());
    }
    Err(
        "a name has letters, digits, `-`, `_` and `.` only, and begins with none of the last"
            .to_owned(),
    )
}

/// Records a session.
pub fn run(arguments: &Arguments) -> Outcome {
    let folder = arguments.out.join(&arguments.name);
    let scenario = arguments
        .scenario_out
        .clone()
        .unwrap_or_else(|| Path::new("scenarios/recorded").join(format!("{}.kdl", arguments.name)));
    for path in [&folder, &scenario] {
        if path.exists() && !arguments.force {
            return Err(Failure::usage(format!(
                "{} is there already: choose another name, or replace it with --force",
                path.display()
            )));
        }
    }
    let redactor = arguments.redaction.redactor()?;
    let (recorded, ended) = runtime()?.block_on(record(arguments, redactor))?;
    for note in &recorded.notes {
        complain!("warning: {note}");
    }
    if let Some(status) = ended {
        complain!("the command ended with {status}");
    }
    save(arguments, &folder, &scenario, recorded)
}

async fn record(
    arguments: &Arguments,
    redactor: Redactor,
) -> Result<(RecordedSession, Option<ExitStatus>), Failure> {
    let config = ProxyConfig {
        upstream: arguments.upstream.clone(),
        ca: arguments.ca.clone(),
        redactor,
        limits: CaptureLimits::default(),
    };
    let proxy = Proxy::start(config).await.map_err(|error| match error {
        ProxyError::Listen(_) => Failure::trouble(error.to_string()),
        ProxyError::Upstream(_) | ProxyError::Certificates(_) => Failure::usage(error.to_string()),
    })?;
    let mut ended = None;
    if arguments.command.is_empty() {
        let mut interrupts = Interrupts::new()?;
        say!("{}", proxy.base_url())?;
        interrupts.next().await;
    } else {
        let mut child = command::start(&arguments.command, &proxy.base_url()).map_err(|error| {
            let program = Path::new(&arguments.command[0]).display();
            Failure::agent(format!("{program} cannot be started: {error}"))
        })?;
        let status = command::ended(&mut child).await;
        ended = Some(status.map_err(|error| Failure::trouble(error.to_string()))?);
    }
    Ok((proxy.finish().await, ended))
}

fn save(
    arguments: &Arguments,
    folder: &Path,
    scenario: &Path,
    recorded: RecordedSession,
) -> Outcome {
    if recorded.exchanges.is_empty() {
        return Err(Failure::agent(
            "nothing was recorded: no request came that was answered; the client has to use the base URL from OPENAI_BASE_URL",
        ));
    }
    let source = format!("recorded from {}", arguments.upstream);
    let mut recording = Recording::new(&arguments.name, &source);
    recording.exchanges = recorded.exchanges;
    if let Some(program) = arguments.command.first() {
        let program = Path::new(program).file_name().unwrap_or_default();
        recording.agent = Some(program.to_string_lossy().into_owned());
    }
    let session = recording.session().unwrap_or_default();
    let found = save_recording::name_in_scenario(scenario, folder, &arguments.name)?;
    let replies = ReplySource::of(&found, &session);
    let text = recorded_scenario::scenario(&arguments.name, &source, replies, &session);
    let text = format!("{text}\n");
    save_recording::save(&recording, folder, &text, scenario)?;
    let count = match recording.exchanges.len() {
        1 => "1 exchange".to_owned(),
        count => format!("{count} exchanges"),
    };
    complain!("{}: {count}", folder.display());
    complain!("redacted: {}", recorded.report);
    let again = format!("cutpoint run {}", quoted(&scenario.display().to_string()));
    complain!("{}: run it with `{again}`", scenario.display());
    Ok(ExitCode::Conforms)
}
