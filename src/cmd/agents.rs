//! `cutpoint agents`

use crate::Outcome;
use crate::agent_spec;
use crate::exit_code::ExitCode;
use crate::out::say;

/// Arguments of `cutpoint agents`.
#[derive(clap::Args)]
pub struct Arguments {}

/// Shows what `--agent` takes here.
pub fn run(_: &Arguments) -> Outcome {
    say!("Agents (cutpoint run --agent NAME):")?;
    say!(
        "  {:24} the embedded reference agent, in this process (the default)",
        "reference"
    )?;
    say!(
        "  {:24} the same agent as a process of its own",
        "reference-stdio"
    )?;
    say!(
        "  {:24} the same through its JSON-RPC front, in every scenario that this can run",
        "reference-jsonrpc"
    )?;
    say!(
        "  {:24} any program that speaks the same JSON lines",
        "stdio:PROGRAM"
    )?;
    let installed = agent_spec::installed_codex();
    for (version, path) in &installed {
        say!("  {:24} {}", format!("codex@{version}"), path.display())?;
    }
    if installed.is_empty() {
        let how = "not installed; run scripts/install-codex 0.169.0";
        say!("  {:24} {how}", "codex")?;
    } else {
        say!("  {:24} the newest of these", "codex")?;
    }
    say!("  {:24} a Codex binary of your own", "codex:PATH")?;
    say!("\n`cutpoint defects` lists the planted defects of the reference agent (--defect NAME).")?;
    Ok(ExitCode::Conforms)
}
