//! The command whose requests are recorded: in the foreground, with this process's own terminal.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitStatus;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// Starts the command with `base_url` in its environment; for Codex, in its settings.
///
/// # Errors
/// If it can't be started.
pub fn start(command: &[OsString], base_url: &str) -> io::Result<Child> {
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut starting = Command::new(program);
    if Path::new(program)
        .file_name()
        .is_some_and(|name| name == "codex")
    {
        starting.args(codex_settings(
            base_url,
            std::env::var_os("OPENAI_API_KEY").is_some(),
        ));
    }
    starting.args(arguments).env("OPENAI_BASE_URL", base_url);
    for name in ["NO_PROXY", "no_proxy"] {
        starting.env(name, direct(std::env::var(name).unwrap_or_default()));
    }
    starting.spawn()
}

/// Loopback is reached directly, even if the command uses a proxy otherwise.
fn direct(exempt: String) -> String {
    if exempt.is_empty() {
        "127.0.0.1".to_owned()
    } else {
        format!("{exempt},127.0.0.1")
    }
}

/// What makes Codex send its requests here, without a change of the user's own settings.
fn codex_settings(base_url: &str, has_key: bool) -> Vec<String> {
    let provider = "model_providers.cutpoint-record";
    let login = if has_key {
        "env_key=\"OPENAI_API_KEY\""
    } else {
        "requires_openai_auth=true"
    };
    let settings = [
        "model_provider=\"cutpoint-record\"".to_owned(),
        format!("{provider}.name=\"cutpoint record\""),
        format!("{provider}.base_url=\"{base_url}\""),
        format!("{provider}.wire_api=\"responses\""),
        format!("{provider}.supports_websockets=false"),
        format!("{provider}.{login}"),
    ];
    settings
        .into_iter()
        .flat_map(|setting| ["-c".to_owned(), setting])
        .collect()
}

/// Waits for the command's end. Ctrl-C reaches it by itself, from the terminal, and it may go on;
/// other signals are passed on, and the second of them ends it.
///
/// # Errors
/// If it can't be waited for.
pub async fn ended(child: &mut Child) -> io::Result<ExitStatus> {
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminations = signal(SignalKind::terminate())?;
    let mut hangups = signal(SignalKind::hangup())?;
    let mut passed_on = false;
    loop {
        tokio::select! {
            ended = child.wait() => return ended,
            _ = interrupts.recv() => continue,
            _ = terminations.recv() => {}
            _ = hangups.recv() => {}
        }
        if std::mem::replace(&mut passed_on, true) {
            child.start_kill()?;
        } else if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) {
            // If it has just ended there is nothing to pass on.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }
}
