//! `cutpoint defects`

use cutpoint_agent::Defect;
use cutpoint_check::rule;
use cutpoint_scenario::suggest::nearest;
use serde_json::{Value, json};

use crate::Outcome;
use crate::exit_code::ExitCode;
use crate::out::say;

/// Arguments of `cutpoint defects`.
#[derive(clap::Args)]
pub struct Arguments {
    /// A defect's name, such as no-sync.
    #[arg(value_parser = named)]
    name: Option<Defect>,
    /// Print them as JSON.
    #[arg(long)]
    json: bool,
}

/// Shows the planted defects, or one.
pub fn run(arguments: &Arguments) -> Outcome {
    let shown = match &arguments.name {
        None => Defect::ALL,
        Some(defect) => std::slice::from_ref(defect),
    };
    if arguments.json {
        let defects: Vec<Value> = shown.iter().copied().map(for_programs).collect();
        let listing = json!({"format": "cutpoint-defects", "version": 1, "defects": defects});
        say!("{listing:#}")?;
    } else if let Some(defect) = arguments.name {
        show(defect)?;
    } else {
        list(shown)?;
    }
    Ok(ExitCode::Conforms)
}

/// The defect that the user means.
///
/// # Errors
/// If there is none of that name: what to write instead.
pub(super) fn named(name: &str) -> Result<Defect, String> {
    name.parse().map_err(|unknown| {
        let names: Vec<&str> = Defect::ALL.iter().map(|defect| defect.name()).collect();
        match nearest(name, &names) {
            Some(near) => format!("{unknown}; did you mean `{near}`?"),
            None => format!("{unknown}; `cutpoint defects` lists them"),
        }
    })
}

/// Prints one line for each of the defects.
pub(super) fn list(defects: &[Defect]) -> Result<(), crate::Failure> {
    for defect in defects {
        let (name, rule) = (defect.name(), defect.rule());
        say!("{name:26} {rule:7} {}", defect.about())?;
    }
    Ok(())
}

fn for_programs(defect: Defect) -> Value {
    json!({
        "name": defect.name(),
        "rule": defect.rule(),
        "about": defect.about(),
        "provenance": defect.provenance(),
    })
}

fn show(defect: Defect) -> Result<(), crate::Failure> {
    let (name, id) = (defect.name(), defect.rule());
    say!("{name} ({id})\n")?;
    say!("{}\n", defect.about())?;
    match rule(id) {
        Some(rule) => say!("Breaks {id}: {}", rule.sentence())?,
        None => say!("Breaks {id}, which is not in the book yet.")?,
    }
    say!("Comes from: {}", defect.provenance())?;
    say!("\ncutpoint run --defect {name}: what the rules say of it, with the evidence")?;
    say!("cutpoint mutate --defect {name}: which rules catch it, and in which scenarios")
}
