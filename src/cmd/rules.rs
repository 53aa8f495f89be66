//! `cutpoint rules`

use std::path::{Path, PathBuf};

use cutpoint::mutation::{MUTANT_LIMIT, MutationConfig, Score};
use cutpoint_agent::Defect;
use cutpoint_check::{Invariant, rule, rules};
use cutpoint_report::layout::{Align, Layout, Style, StyledLine, Table};
use cutpoint_report::text::count;
use cutpoint_scenario::suggest::nearest;
use cutpoint_trace::verdict::Level;
use serde_json::{Value, json};

use super::mutate::score;
use super::run::read_scenarios;
use crate::console::{self, complain, say};
use crate::exit_code::ExitCode;
use crate::{Failure, Outcome};

/// Where scenarios are looked for unless told otherwise.
const SCENARIOS: &str = "scenarios";

/// Arguments of `cutpoint rules`.
#[derive(clap::Args)]
pub struct Arguments {
    /// A rule's id, such as CALL-1.
    id: Option<String>,
    /// Scenario files, or directories of them: the correct reference agent shows which
    /// of them exercise each rule [default: scenarios, if it is there]
    #[arg(long, value_name = "PATH")]
    scenarios: Vec<PathBuf>,
    /// Where recordings are looked for that scenarios name.
    #[arg(long, value_name = "DIR", default_value = "recordings")]
    recordings: PathBuf,
    /// Print them as JSON.
    #[arg(long)]
    json: bool,
}

/// Shows the rule book, or one rule.
pub fn run(arguments: &Arguments) -> Outcome {
    let shown = match &arguments.id {
        None => rules().to_vec(),
        Some(id) => vec![named(id)?],
    };
    let scenarios = match arguments.scenarios.as_slice() {
        [] if Path::new(SCENARIOS).is_dir() => vec![PathBuf::from(SCENARIOS)],
        given => given.to_vec(),
    };
    let measured = match scenarios.is_empty() {
        true => None,
        false => Some(measure(&scenarios, &arguments.recordings)?),
    };
    if arguments.json {
        let rules: Vec<Value> = shown
            .iter()
            .map(|rule| for_programs(*rule, measured.as_ref()))
            .collect();
        let book = json!({"format": "cutpoint-rules", "version": 1, "rules": rules});
        say!("{book:#}")?;
    } else if let (Some(_), [rule]) = (&arguments.id, shown.as_slice()) {
        console::print(&describe(*rule, measured.as_ref()))?;
    } else {
        console::print(&list(&shown, measured.as_ref()))?;
    }
    let failed = measured.iter().flat_map(|score| &score.correct);
    let mut code = ExitCode::Conforms;
    for (name, broken) in failed {
        complain!(
            "the correct agent fails in {}, {}: {broken}",
            name.file,
            name.scenario
        );
        code = ExitCode::Breach;
    }
    Ok(code)
}

fn named(id: &str) -> Result<&'static dyn Invariant, Failure> {
    let id = id.to_uppercase();
    rule(&id).ok_or_else(|| {
        let ids: Vec<&str> = rules().iter().map(|rule| rule.id()).collect();
        Failure::usage(match nearest(&id, &ids) {
            Some(near) => format!("there is no rule {id}; did you mean {near}?"),
            None => format!("there is no rule {id}; there are {}", ids.join(", ")),
        })
    })
}

/// The correct agent over the scenarios, without any defect.
fn measure(scenarios: &[PathBuf], recordings: &Path) -> Result<Score, Failure> {
    let scenarios = read_scenarios(scenarios)?;
    score(|dir, workers| MutationConfig {
        scenarios,
        defects: Vec::new(),
        recordings: recordings.to_owned(),
        dir,
        workers,
        limit: MUTANT_LIMIT,
        until_caught: false,
    })
}

fn level(rule: &dyn Invariant) -> &'static str {
    match rule.level() {
        Level::Must => "MUST",
        Level::Should => "SHOULD",
    }
}

fn planted(rule: &dyn Invariant) -> Vec<Defect> {
    let breaks = |defect: &Defect| defect.rule() == rule.id();
    Defect::ALL.iter().copied().filter(breaks).collect()
}

/// The book's listing: of each rule its sentence, then what is known of it.
fn list(rules: &[&dyn Invariant], measured: Option<&Score>) -> Layout {
    let mut table = Table::new(0, [Align::Left, Align::Left]);
    for rule in rules {
        table.row([
            Style::Emphasis.cell(rule.id()),
            level(*rule).into(),
            rule.sentence().into(),
        ]);
        let names: Vec<&str> = planted(*rule).iter().map(|defect| defect.name()).collect();
        let planted = match names.as_slice() {
            [] => "no planted defect".to_owned(),
            names => format!("planted: {}", names.join(", ")),
        };
        let exercised = measured.map_or_else(String::new, |score| {
            let scenarios = score.exercised_by(rule.id()).len();
            format!("{}; ", count(scenarios, "scenario"))
        });
        let facts = Style::Dim.cell(format!("{exercised}{planted}"));
        table.row(["".into(), "".into(), facts]);
    }
    let mut layout = console::layout();
    layout.table(&table);
    layout
}

fn describe(rule: &dyn Invariant, measured: Option<&Score>) -> Layout {
    let mut layout = console::layout();
    layout.heading(&format!("{} ({})", rule.id(), level(rule)));
    layout.blank();
    layout.text(rule.sentence());
    layout.blank();
    layout.text(&format!("Exercised when: {}", rule.exercised_when()));
    layout.text(&format!("Comes from: {}", rule.source()));
    for race in rule.legal_races() {
        layout.text(&format!("Also legal: {race}"));
    }
    for (_, why) in rule.exempt() {
        layout.text(&format!("Does not apply where {why}."));
    }
    layout.blank();
    layout.text("Kinds of breach:");
    for clause in rule.clauses() {
        let start = StyledLine::indented(2);
        let start = start.then(Style::Emphasis, format!("{}/{}", rule.id(), clause.kind));
        layout.paragraph(start, 4, Style::Plain, &format!(": {}", clause.text));
    }
    let defects = planted(rule);
    if !defects.is_empty() {
        layout.blank();
        layout.text("Planted defects that break it (cutpoint run --defect NAME):");
        layout.table(&super::defects::table(&defects));
    }
    if let Some(score) = measured {
        let scenarios = score.exercised_by(rule.id());
        layout.blank();
        layout.text(&format!("Scenarios that exercise it: {}", scenarios.len()));
        for name in scenarios {
            let start = StyledLine::indented(2);
            let text = format!("{}: {}", name.file, name.scenario);
            layout.paragraph(start, 4, Style::Plain, &text);
        }
    }
    layout
}

fn for_programs(rule: &dyn Invariant, measured: Option<&Score>) -> Value {
    let exempt: Vec<&str> = rule.exempt().iter().map(|(_, why)| *why).collect();
    let defects: Vec<&str> = planted(rule).iter().map(|defect| defect.name()).collect();
    let kinds = rule.clauses().iter();
    let kinds: Vec<Value> = kinds
        .map(|clause| json!({"kind": clause.kind, "text": clause.text}))
        .collect();
    let mut value = json!({
        "id": rule.id(),
        "level": rule.level(),
        "sentence": rule.sentence(),
        "exercised_when": rule.exercised_when(),
        "source": rule.source(),
        "legal_races": rule.legal_races(),
        "exempt": exempt,
        "kinds": kinds,
        "defects": defects,
    });
    if let Some(score) = measured {
        value["exercised_by"] = json!(score.exercised_by(rule.id()));
    }
    value
}
