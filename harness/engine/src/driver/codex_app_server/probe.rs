//! What a binary says of itself.

use std::path::Path;
use std::process::Stdio;

use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use crate::driver::AgentError;
use crate::driver::agent_kind::LaunchContext;
use crate::driver::kit::env::isolate;

/// How much of what a binary prints is read.
const PRINTED_LIMIT_BYTES: u64 = 4096;

/// The version of a binary.
///
/// # Errors
/// If the binary does not print one.
pub(super) async fn version_of(
    binary: &Path,
    context: &LaunchContext,
) -> Result<String, AgentError> {
    let failed = |why: String| AgentError::Start(format!("{}: {why}", binary.display()));
    let printed = ask(binary, &["--version"], context).await.map_err(failed)?;
    let word = printed
        .lines()
        .next()
        .and_then(|line| line.split_whitespace().last());
    match word {
        Some(word) if word.starts_with(|c: char| c.is_ascii_digit()) => Ok(word.to_owned()),
        _ => Err(failed(
            "`--version` printed no version; is this Codex?".to_owned(),
        )),
    }
}

/// Whether the binary has an app-server. A version without it takes the word for a prompt, and prints
/// the help of the whole program.
pub(super) async fn has_app_server(binary: &Path, context: &LaunchContext) -> bool {
    let printed = ask(binary, &["app-server", "--help"], context).await;
    let is_usage = |line: &str| line.starts_with("Usage:") && line.contains(" app-server");
    printed.is_ok_and(|printed| printed.lines().any(is_usage))
}

/// What the binary prints when it is run with these arguments.
async fn ask(binary: &Path, arguments: &[&str], context: &LaunchContext) -> Result<String, String> {
    let words = arguments.join(" ");
    let home = tempfile::tempdir_in(&context.dir).map_err(|error| error.to_string())?;
    let mut command = Command::new(binary);
    isolate(&mut command, home.path(), &context.mark);
    let mut child = command
        .args(arguments)
        .env("CODEX_HOME", home.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| error.to_string())?;
    let asked = async {
        let mut printed = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout
                .take(PRINTED_LIMIT_BYTES)
                .read_to_end(&mut printed)
                .await?;
        }
        std::io::Result::Ok((child.wait().await?, printed))
    };
    let (status, printed) = tokio::time::timeout(context.start_limit, asked)
        .await
        .map_err(|_| {
            let seconds = context.start_limit.as_secs_f64();
            format!("`{words}` did not end within {seconds} s")
        })?
        .map_err(|error| error.to_string())?;
    if !status.success() {
        return Err(format!("`{words}` failed ({status})"));
    }
    Ok(String::from_utf8_lossy(&printed).into_owned())
}
