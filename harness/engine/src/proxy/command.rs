//! The command whose requests are recorded: in the foreground, with this process's own terminal.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::process::ExitStatus;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::driver::agents::AGENTS;

/// Starts the command with `base_url` in its environment, and in its arguments if it is an agent that takes
/// it there.
///
/// # Errors
/// If it can't be started.
pub fn start(command: &[OsString], base_url: &str) -> io::Result<Child> {
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut starting = Command::new(program);
    let has_key = std::env::var_os("OPENAI_API_KEY").is_some();
    let name = Path::new(program).file_name().and_then(OsStr::to_str);
    let directed = name.and_then(|name| {
        let mut kinds = AGENTS.iter();
        kinds.find_map(|kind| kind.recording_arguments(name, base_url, has_key))
    });
    starting.args(directed.unwrap_or_default());
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
