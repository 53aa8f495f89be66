//! `cutpoint agents`

use cutpoint_engine::driver::agent_kind::Choice;
use cutpoint_engine::driver::agents::AGENTS;

use crate::Outcome;
use crate::console::say;
use crate::exit_code::ExitCode;

/// Arguments of `cutpoint agents`.
#[derive(clap::Args)]
pub struct Arguments {}

/// Shows what `--agent` takes here.
pub fn run(_: &Arguments) -> Outcome {
    say!("Agents (cutpoint run --agent AGENT):")?;
    for kind in AGENTS {
        let declaration = kind.declaration();
        for form in declaration.forms {
            let name = format!("{}{}", declaration.name, form.suffix);
            say!("  {name:20} {}", form.help)?;
        }
        let found = kind.found();
        for choice in &found {
            if matches!(choice, Choice::Version(_)) {
                say!("  {:20} installed", format!("{}{choice}", declaration.name))?;
            }
        }
        if found.is_empty() {
            say!("  {:20} {}", "", declaration.how_to_get)?;
        }
    }
    say!("\n`cutpoint doctor` tries which of them can be run here.")?;
    say!("`cutpoint defects` lists the planted defects of the reference agent (--defect NAME).")?;
    Ok(ExitCode::Conforms)
}
