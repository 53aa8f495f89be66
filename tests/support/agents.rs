//! Fake agents: small shell scripts, each with one fault.

use std::path::PathBuf;

use cutpoint_engine::driver::codex_app_server;

use super::Place;

/// The version of Codex that the tests know the behaviour of.
pub const CODEX_VERSION: &str = "0.169.0";

/// That version as `--agent` takes it, wherever it is installed; says so if it is not.
pub fn installed_codex() -> Option<String> {
    let program = codex_app_server::program_of(CODEX_VERSION);
    if program.is_none() {
        eprintln!("skipped: run scripts/install-codex {CODEX_VERSION}");
    }
    Some(named("codex", program?))
}

/// The first event of an agent on the queue protocol, as a shell command.
pub const CONFIGURED: &str = r#"echo '{"id":"","msg":{"type":"session_configured","session_id":"s","rollout_path":"'"$PWD"'/rollout.jsonl"}}'"#;

/// Answers `initialize` and `thread/start` of the app-server, as shell commands. The harness counts
/// its requests from 0, and `initialized` is sent between the two.
pub const THREAD: &str = r#"read -r _; echo '{"id":0,"result":{}}'
read -r _; read -r _; echo '{"id":1,"result":{"thread":{"id":"t","path":"'"$PWD"'/rollout.jsonl"}}}'"#;

/// A fake that speaks the queue protocol, as `--agent` takes it.
pub fn stdio(place: &Place, body: &str) -> String {
    named("stdio", place.script("fake-agent", body))
}

/// A fake Codex that tells its version.
pub fn codex(place: &Place, body: &str) -> String {
    let version = "if [ \"$1\" = --version ]; then echo codex-cli 0.0.1; exit; fi";
    named(
        "codex",
        place.script("fake-codex", &format!("{version}\n{body}")),
    )
}

/// A program as `--agent` takes it.
pub fn named(kind: &str, program: PathBuf) -> String {
    format!("{kind}:{}", program.display())
}
