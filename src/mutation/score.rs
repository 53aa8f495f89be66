//! What the runs of all defects have shown: for people, and for programs.

use std::collections::BTreeMap;

use cutpoint_agent::Defect;
use cutpoint_check::Invariant;
use cutpoint_report::layout::{Align, Layout, Style, Table};
use serde::Serialize;
use serde_json::json;

use cutpoint_engine::runner::Planned;

/// What became of a defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its own rule was broken.
    Caught,
    /// Only other rules or expectations were.
    CaughtByOthers,
    /// Nothing was.
    Survived,
}

impl Fate {
    /// The fate in a word or two.
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Caught => "caught",
            Self::CaughtByOthers => "missed by its own rule",
            Self::Survived => "survived",
        }
    }
}

/// A scenario as the result names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ScenarioName {
    /// Its file, as the user named it.
    pub file: String,
    /// Its name in that file.
    pub scenario: String,
}

impl ScenarioName {
    /// The name of a scenario.
    pub fn of(planned: &Planned) -> Self {
        Self {
            file: planned.file.clone(),
            scenario: planned.scenario.name.clone(),
        }
    }
}

/// A defect with what it broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutant {
    /// The defect.
    pub defect: Defect,
    /// The rules that were broken, of any level, each with the scenarios that showed it, in the
    /// order in which they were given.
    pub caught_by: BTreeMap<String, Vec<ScenarioName>>,
    /// Where an expectation was not met, or the agent could not be run to the end.
    pub unmet: Vec<ScenarioName>,
}

impl Mutant {
    pub(super) fn new(defect: Defect) -> Self {
        Self {
            defect,
            caught_by: BTreeMap::new(),
            unmet: Vec::new(),
        }
    }

    pub(super) fn take(&mut self, name: &ScenarioName, broken: Vec<String>, unmet: bool) {
        for rule in broken {
            self.caught_by.entry(rule).or_default().push(name.clone());
        }
        self.unmet.extend(unmet.then(|| name.clone()));
    }

    /// The first scenario in which the defect's own rule was broken.
    pub fn shown_by(&self) -> Option<&ScenarioName> {
        self.caught_by.get(self.defect.rule())?.first()
    }

    /// What became of the defect.
    pub fn fate(&self) -> Fate {
        if self.caught_by.contains_key(self.defect.rule()) {
            Fate::Caught
        } else if !self.caught_by.is_empty() || !self.unmet.is_empty() {
            Fate::CaughtByOthers
        } else {
            Fate::Survived
        }
    }
}

/// The result of all runs.
#[derive(Debug, Clone, Default)]
pub struct Score {
    /// The defects, in the order of their list.
    pub mutants: Vec<Mutant>,
    /// Defects that were not run, because their rule is not in the book.
    pub without_rule: Vec<Defect>,
    /// What speaks against the correct agent: scenario, and what is broken.
    pub correct: Vec<(ScenarioName, String)>,
    /// The rules that the correct agent kept, each with the scenarios that exercise it.
    pub exercised: BTreeMap<String, Vec<ScenarioName>>,
    /// How many cases ran.
    pub cases: usize,
}

impl Score {
    /// How many defects their own rules have caught.
    pub fn caught(&self) -> usize {
        self.mutants
            .iter()
            .filter(|mutant| mutant.fate() == Fate::Caught)
            .count()
    }

    /// The scenarios that exercise the rule on the correct agent.
    pub fn exercised_by(&self, rule: &str) -> &[ScenarioName] {
        self.exercised.get(rule).map_or(&[], Vec::as_slice)
    }

    /// Whether every defect was caught by its own rule, and the correct agent by none.
    pub fn is_full(&self) -> bool {
        self.caught() == self.mutants.len() && self.correct.is_empty()
    }
}

/// The score as people read it: a table, then what is wrong. A line has at most `width` columns, if
/// that is given.
pub fn table(score: &Score, width: Option<usize>) -> Layout {
    let mut table = Table::new(0, [Align::Left; 4]);
    let head = [
        "defect",
        "rule",
        "verdict",
        "shown by",
        "caught by (scenarios)",
    ];
    table.row(head.map(|name| Style::Emphasis.cell(name)));
    for mutant in &score.mutants {
        let style = match mutant.fate() {
            Fate::Caught => Style::Plain,
            Fate::CaughtByOthers | Fate::Survived => Style::Failure,
        };
        table.row([
            mutant.defect.name().into(),
            mutant.defect.rule().into(),
            style.cell(mutant.fate().in_words()),
            mutant.shown_by().map_or("", |name| &name.file).into(),
            caught_by(mutant).into(),
        ]);
    }
    for defect in &score.without_rule {
        table.row([
            defect.name().into(),
            defect.rule().into(),
            "not run: the rule is not in the book yet".into(),
        ]);
    }
    let mut layout = Layout::new(width);
    layout.table(&table);
    for (scenario, broken) in &score.correct {
        layout.blank();
        layout.text(&format!(
            "the correct agent fails in {}, {}: {broken}",
            scenario.file, scenario.scenario
        ));
    }
    let (caught, all) = (score.caught(), score.mutants.len());
    let share = if all == 0 {
        100.0
    } else {
        100.0 * caught as f64 / all as f64
    };
    layout.blank();
    layout.text(&format!(
        "mutation score: {caught} of {all} defects caught by their own rules ({share:.0} %), {} cases",
        score.cases
    ));
    layout
}

/// The rules that a defect broke, its own first, then the most broken ones.
fn caught_by(mutant: &Mutant) -> String {
    let own = mutant.defect.rule();
    let mut rules: Vec<_> = mutant.caught_by.iter().collect();
    rules.sort_by_key(|(rule, shown)| (rule.as_str() != own, usize::MAX - shown.len()));
    let mut words: Vec<String> = rules
        .iter()
        .map(|(rule, shown)| format!("{rule} ({})", shown.len()))
        .collect();
    if !mutant.unmet.is_empty() {
        words.push(format!("expectations ({})", mutant.unmet.len()));
    }
    words.join(", ")
}

/// The score for programs.
pub fn json(score: &Score) -> serde_json::Value {
    let mutant = |mutant: &Mutant| {
        json!({
            "defect": mutant.defect.name(),
            "rule": mutant.defect.rule(),
            "verdict": match mutant.fate() {
                Fate::Caught => "caught",
                Fate::CaughtByOthers => "caught_by_others",
                Fate::Survived => "survived",
            },
            "caught_by": mutant.caught_by,
            "unmet": mutant.unmet,
        })
    };
    let rule = |rule: &&dyn Invariant| {
        let catches = |mutant: &&Mutant| mutant.caught_by.contains_key(rule.id());
        let caught = score.mutants.iter().filter(catches);
        json!({
            "rule": rule.id(),
            "exercised_by": score.exercised_by(rule.id()),
            "catches": caught.map(|mutant| mutant.defect.name()).collect::<Vec<_>>(),
        })
    };
    let fails = |(name, broken): &(ScenarioName, String)| json!({"file": name.file, "scenario": name.scenario, "broken": broken});
    json!({
        "format": "cutpoint-mutation",
        "version": 2,
        "caught": score.caught(),
        "planted": score.mutants.len(),
        "cases": score.cases,
        "defects": score.mutants.iter().map(mutant).collect::<Vec<_>>(),
        "rules": cutpoint_check::rules().iter().map(rule).collect::<Vec<_>>(),
        "without_rule": score.without_rule.iter().map(|defect| defect.name()).collect::<Vec<_>>(),
        "correct_agent_fails": score.correct.iter().map(fails).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(file: &str) -> ScenarioName {
        ScenarioName {
            file: file.to_owned(),
            scenario: "one".to_owned(),
        }
    }

    fn mutant(rules: &[(&str, usize)], unmet: usize) -> Mutant {
        let mut mutant = Mutant::new(Defect::NoSync);
        for (rule, count) in rules {
            for number in 0..*count {
                mutant.take(
                    &name(&format!("{number}.kdl")),
                    vec![(*rule).to_owned()],
                    false,
                );
            }
        }
        for _ in 0..unmet {
            mutant.take(&name("unmet.kdl"), Vec::new(), true);
        }
        mutant
    }

    #[test]
    fn a_defect_is_caught_by_its_own_rule_alone() {
        assert_eq!(
            mutant(&[("MARK-2", 1), ("CALL-1", 3)], 0).fate(),
            Fate::Caught
        );
        assert_eq!(mutant(&[("CALL-1", 3)], 1).fate(), Fate::CaughtByOthers);
        assert_eq!(mutant(&[], 1).fate(), Fate::CaughtByOthers);
        assert_eq!(mutant(&[], 0).fate(), Fate::Survived);
    }

    #[test]
    fn the_score_is_full_only_without_any_fault() {
        let mut score = Score {
            mutants: vec![mutant(&[("MARK-2", 2), ("CALL-1", 3)], 0)],
            ..Score::default()
        };
        assert!(score.is_full());
        let text = table(&score, None).to_string();
        assert!(
            text.contains("MARK-2 (2), CALL-1 (3)") && text.contains("1 of 1 defects"),
            "{text}"
        );
        score.correct.push((name("a.kdl"), "CALL-1".to_owned()));
        assert!(
            !score.is_full()
                && table(&score, None)
                    .to_string()
                    .contains("fails in a.kdl, one: CALL-1")
        );
        score = Score {
            mutants: vec![mutant(&[("CALL-1", 1)], 0)],
            ..Score::default()
        };
        assert!(!score.is_full());
        assert_eq!(json(&score)["defects"][0]["verdict"], "caught_by_others");
    }

    #[test]
    fn the_result_tells_which_scenario_shows_a_defect_and_what_a_rule_catches() {
        let score = Score {
            mutants: vec![mutant(&[("CALL-1", 1), ("MARK-2", 2)], 0)],
            exercised: BTreeMap::from([("MARK-2".to_owned(), vec![name("a.kdl")])]),
            ..Score::default()
        };
        assert_eq!(score.mutants[0].shown_by(), Some(&name("0.kdl")));
        let json = json(&score);
        assert_eq!(
            json["defects"][0]["caught_by"]["MARK-2"][1]["file"],
            "1.kdl"
        );
        let rules = json["rules"].as_array().unwrap();
        let of = |id: &str| rules.iter().find(|rule| rule["rule"] == id).unwrap();
        assert_eq!(of("MARK-2")["exercised_by"][0]["file"], "a.kdl");
        assert_eq!(of("CALL-1")["exercised_by"], json!([]));
        assert_eq!(of("CALL-1")["catches"], json!(["no-sync"]));
    }
}
