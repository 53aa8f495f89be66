//! `cutpoint rules`

use std::path::{Path, PathBuf};

use cutpoint::mutation::{MUTANT_LIMIT, MutationConfig, Score};
use cutpoint_agent::Defect;
use cutpoint_check::{Invariant, rule, rules};
use cutpoint_scenario::suggest::nearest;
use cutpoint_trace::verdict::Level;
use serde_json::{Value, json};

use super::mutate::score;
use super::run::read_scenarios;
use crate::exit_code::ExitCode;
use crate::out::{complain, say};
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
    } else if arguments.id.is_some() {
        shown
            .iter()
            .try_for_each(|rule| show(*rule, measured.as_ref()))?;
    } else {
        shown
            .iter()
            .try_for_each(|rule| list(*rule, measured.as_ref()))?;
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

/// A rule in the book's listing: its sentence, then what is known of it.
fn list(rule: &dyn Invariant, measured: Option<&Score>) -> Result<(), Failure> {
    say!("{:7} {:6} {}", rule.id(), level(rule), rule.sentence())?;
    let names: Vec<&str> = planted(rule).iter().map(|defect| defect.name()).collect();
    let planted = match names.as_slice() {
        [] => "no planted defect".to_owned(),
        names => format!("planted: {}", names.join(", ")),
    };
    let exercised = measured.map_or_else(String::new, |score| {
        match score.exercised_by(rule.id()).len() {
            1 => "1 scenario; ".to_owned(),
            count => format!("{count} scenarios; "),
        }
    });
    say!("{:14} {exercised}{planted}", "")
}

fn show(rule: &dyn Invariant, measured: Option<&Score>) -> Result<(), Failure> {
    say!("{} ({})\n", rule.id(), level(rule))?;
    say!("{}\n", rule.sentence())?;
    say!("Exercised when: {}", rule.exercised_when())?;
    say!("Comes from: {}", rule.source())?;
    for race in rule.legal_races() {
        say!("Also legal: {race}")?;
    }
    for (_, why) in rule.exempt() {
        say!("Does not apply where {why}.")?;
    }
    say!("\nKinds of breach:")?;
    for clause in rule.clauses() {
        say!("  {}/{}: {}", rule.id(), clause.kind, clause.text)?;
    }
    let defects = planted(rule);
    if !defects.is_empty() {
        say!("\nPlanted defects that break it (cutpoint run --defect NAME):")?;
        super::defects::list(&defects)?;
    }
    if let Some(score) = measured {
        let scenarios = score.exercised_by(rule.id());
        say!("\nScenarios that exercise it: {}", scenarios.len())?;
        for name in scenarios {
            say!("  {}: {}", name.file, name.scenario)?;
        }
    }
    Ok(())
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
