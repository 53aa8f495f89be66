//! Runs schedules on the reference agent in the lab, for the explorer.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use cutpoint_agent::Defect;
use cutpoint_check::outcome::{Case, Status};
use cutpoint_check::trace::{Entry, Stored, What};
use cutpoint_check::verdict::{Outcome, Verdict};
use cutpoint_engine::driver::reference::ReferenceDriver;
use cutpoint_engine::lab;
use cutpoint_engine::runner::{Planned, RunConfig, Runner, WAIT_LIMIT};
use cutpoint_engine::server::plans::Plans;
use cutpoint_engine::server::{ReplayServer, ServerConfig};
use cutpoint_explore::{Broken, Executor, Observed, Write, digest};
use cutpoint_scenario::ast::Scenario;

/// The reference agent in the lab.
pub struct LabExecutor {
    /// Planted defects that are switched on.
    pub defects: Vec<Defect>,
    /// The file that the scenario stands in: recordings are looked for beside it.
    pub file: String,
    /// Where else recordings are looked for.
    pub recordings: PathBuf,
    /// The seed of everything random.
    pub seed: u64,
    /// Whether breaches of SHOULD rules count.
    pub strict: bool,
    /// The streams of the scenario's replies, which its schedules share.
    pub plans: Plans,
}

impl LabExecutor {
    /// Runs a schedule, with all that is known of it.
    ///
    /// # Errors
    /// If the runtime can't be set up.
    pub fn case(&self, scenario: &Scenario) -> std::io::Result<(Case, Vec<&'static str>)> {
        let planned = Planned {
            scenario: scenario.clone(),
            file: self.file.clone(),
        };
        lab::block_on(async {
            let server = Arc::new(ReplayServer::in_memory(ServerConfig {
                plans: self.plans.clone(),
                ..ServerConfig::default()
            }));
            let driver = Arc::new(ReferenceDriver::new(self.defects.clone()));
            let config = RunConfig {
                limit: WAIT_LIMIT,
                seed: self.seed,
                recordings: self.recordings.clone(),
                dir: None,
                rules_only: true,
            };
            Runner::new(server, driver, config)
                .run_in_detail(&planned)
                .await
        })
    }
}

impl Executor for LabExecutor {
    fn run(&self, scenario: &Scenario) -> Observed {
        match self.case(scenario) {
            Ok((case, passed)) => self.observed(scenario, &case, passed),
            Err(error) => Observed {
                trouble: Some(error.to_string()),
                ..Observed::default()
            },
        }
    }
}

impl LabExecutor {
    fn observed(&self, scenario: &Scenario, case: &Case, passed: Vec<&'static str>) -> Observed {
        let said = matches!(case.status, Status::Conforms | Status::Breach);
        let why = || {
            case.note
                .clone()
                .unwrap_or_else(|| format!("{:?}", case.status))
        };
        let mut broken: Vec<Broken> = case.breaches(self.strict).flat_map(breaches).collect();
        broken.extend(case.unmet.iter().map(|unmet| Broken {
            rule: "END".to_owned(),
            message: format!("{}: {}", unmet.text, unmet.found),
        }));
        let fires = |number: usize| {
            let step = number.checked_sub(1).and_then(|at| scenario.steps.get(at));
            step.is_some_and(|step| step.yields.is_some())
        };
        let sent = |what: &What| matches!(what, What::Step { number, .. } if fires(*number));
        let entries = &case.trace.entries;
        Observed {
            digest: digest(entries),
            broken,
            exercised: case.verdicts.iter().filter_map(exercised).collect(),
            passed,
            writes: writes(entries),
            sent: entries.iter().filter(|entry| sent(&entry.what)).count(),
            trouble: (!said).then(why),
        }
    }
}

/// The writes to rollouts, with the lines that they ended with as these stand in the files.
fn writes(entries: &[Entry]) -> Vec<Write> {
    let mut contents: HashMap<&str, String> = HashMap::new();
    let mut lengths: HashMap<&str, usize> = HashMap::new();
    let mut ends = Vec::new();
    for Entry { what, .. } in entries {
        match what {
            What::Rollout {
                path, from, text, ..
            } => {
                let content = contents.entry(path).or_default();
                // Nothing but what is no text can make the two differ, and then nothing is known.
                if *from as usize <= content.len() && content.is_char_boundary(*from as usize) {
                    content.truncate(*from as usize);
                    content.push_str(text);
                }
            }
            What::Stored {
                path,
                done: Stored::Written { bytes },
            } => {
                let length = lengths.entry(path).or_default();
                *length += *bytes as usize;
                ends.push((path, *length, *bytes as usize));
            }
            _ => {}
        }
    }
    let line = |path: &str, end: usize| {
        let written = contents.get(path)?.as_bytes().get(..end)?;
        let before = written.strip_suffix(b"\n").unwrap_or(written);
        let start = before.iter().rposition(|byte| *byte == b'\n');
        Some(end - start.map_or(0, |at| at + 1))
    };
    let write = |(path, end, bytes): (&String, usize, usize)| Write {
        bytes,
        last_line_bytes: line(path, end).unwrap_or(0),
    };
    ends.into_iter().map(write).collect()
}

/// What a verdict says is broken.
pub fn breaches(verdict: &Verdict) -> Vec<Broken> {
    let Outcome::Fail { breaches, .. } = &verdict.outcome else {
        return Vec::new();
    };
    let broken = breaches.iter().map(|breach| Broken {
        rule: verdict.rule.clone(),
        message: breach.message.clone(),
    });
    broken.collect()
}

/// How often a rule was put to the test, if it was.
pub fn exercised(verdict: &Verdict) -> Option<(String, usize)> {
    match &verdict.outcome {
        Outcome::Pass { exercised } | Outcome::Fail { exercised, .. } if *exercised > 0 => {
            Some((verdict.rule.clone(), *exercised))
        }
        _ => None,
    }
}
