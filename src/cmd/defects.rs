//! `cutpoint defects`

use cutpoint_agent::Defect;
use cutpoint_check::rule;
use cutpoint_report::layout::{Align, Layout, Style, Table};
use cutpoint_scenario::suggest::nearest;
use serde_json::{Value, json};

use crate::Outcome;
use crate::console::{self, say};
use crate::exit_code::ExitCode;

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
        console::print(&describe(defect))?;
    } else {
        let mut layout = console::layout();
        layout.table(&table(shown));
        console::print(&layout)?;
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

/// One row for each of the defects.
pub(super) fn table(defects: &[Defect]) -> Table {
    let mut table = Table::new(0, [Align::Left, Align::Left]);
    for defect in defects {
        table.row([
            Style::Emphasis.cell(defect.name()),
            defect.rule().into(),
            defect.about().into(),
        ]);
    }
    table
}

fn for_programs(defect: Defect) -> Value {
    json!({
        "name": defect.name(),
        "rule": defect.rule(),
        "about": defect.about(),
        "provenance": defect.provenance(),
    })
}

fn describe(defect: Defect) -> Layout {
    let (name, id) = (defect.name(), defect.rule());
    let mut layout = console::layout();
    layout.heading(&format!("{name} ({id})"));
    layout.blank();
    layout.text(defect.about());
    layout.blank();
    layout.text(&match rule(id) {
        Some(rule) => format!("Breaks {id}: {}", rule.sentence()),
        None => format!("Breaks {id}, which is not in the book yet."),
    });
    layout.text(&format!("Comes from: {}", defect.provenance()));
    layout.blank();
    layout.text(&format!(
        "cutpoint run --defect {name}: what the rules say of it, with the evidence"
    ));
    layout.text(&format!(
        "cutpoint mutate --defect {name}: which rules catch it, and in which scenarios"
    ));
    layout
}
