//! `cutpoint agents`

use cutpoint_agent::Defect;

use crate::Outcome;
use crate::agent_spec;
use crate::exit_code::ExitCode;

/// Arguments of `cutpoint agents`.
#[derive(clap::Args)]
pub struct Arguments {}

/// Shows what `--agent` and `--defect` take here.
pub fn run(_: &Arguments) -> Outcome {
    anstream::println!("Agents (cutpoint run --agent NAME):");
    anstream::println!(
        "  {:24} the embedded reference agent, in this process (the default)",
        "reference"
    );
    anstream::println!(
        "  {:24} the same agent as a process of its own",
        "reference-stdio"
    );
    anstream::println!(
        "  {:24} any program that speaks the same JSON lines",
        "stdio:PROGRAM"
    );
    let installed = agent_spec::installed_codex();
    for (version, path) in &installed {
        anstream::println!("  {:24} {}", format!("codex@{version}"), path.display());
    }
    if installed.is_empty() {
        let how = "not installed; run scripts/install-codex 0.169.0";
        anstream::println!("  {:24} {how}", "codex");
    } else {
        anstream::println!("  {:24} the newest of these", "codex");
    }
    anstream::println!("  {:24} a Codex binary of your own", "codex:PATH");
    anstream::println!("\nPlanted defects of the reference agent (cutpoint run --defect NAME):");
    for defect in Defect::ALL {
        anstream::println!(
            "  {:26} {:7} {}",
            defect.name(),
            defect.rule(),
            defect.about()
        );
    }
    Ok(ExitCode::Conforms)
}
