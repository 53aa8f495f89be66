//! `cutpoint rules`

use cutpoint_agent::Defect;
use cutpoint_check::verdict::Level;
use cutpoint_check::{Invariant, rule, rules};

use crate::exit_code::ExitCode;
use crate::out::say;
use crate::{Failure, Outcome};

/// Arguments of `cutpoint rules`.
#[derive(clap::Args)]
pub struct Arguments {
    /// A rule's id, such as CALL-1.
    id: Option<String>,
}

/// Shows the rule book, or one rule.
pub fn run(arguments: &Arguments) -> Outcome {
    match &arguments.id {
        None => {
            for rule in rules() {
                say!("{:7} {:6} {}", rule.id(), level(*rule), rule.sentence())?;
            }
        }
        Some(id) => {
            let id = id.to_uppercase();
            let Some(found) = rule(&id) else {
                let ids: Vec<_> = rules().iter().map(|rule| rule.id()).collect();
                return Err(Failure::usage(format!(
                    "there is no rule {id}; there are {}",
                    ids.join(", ")
                )));
            };
            show(found)?;
        }
    }
    Ok(ExitCode::Conforms)
}

fn level(rule: &dyn Invariant) -> &'static str {
    match rule.level() {
        Level::Must => "MUST",
        Level::Should => "SHOULD",
    }
}

fn show(rule: &dyn Invariant) -> Result<(), Failure> {
    say!("{} ({})\n", rule.id(), level(rule))?;
    say!("{}\n", rule.sentence())?;
    say!("Put to the test by: {}", rule.exercised_when())?;
    say!("Comes from: {}", rule.source())?;
    for race in rule.legal_races() {
        say!("Also legal: {race}")?;
    }
    for (_, why) in rule.exempt() {
        anstream::println!("Does not apply where {why}.");
    }
    let defects: Vec<_> = Defect::ALL
        .iter()
        .filter(|defect| defect.rule() == rule.id())
        .collect();
    if !defects.is_empty() {
        say!("\nPlanted defects that break it (cutpoint run --defect NAME):")?;
        for defect in defects {
            say!("  {:24} {}", defect.name(), defect.about())?;
        }
    }
    Ok(())
}
