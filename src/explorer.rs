//! Runs schedules on the reference agent in the lab, for the explorer.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use cutpoint_agent::Defect;
use cutpoint_engine::driver::Driver as _;
use cutpoint_engine::driver::in_process::ReferenceDriver;
use cutpoint_engine::lab;
use cutpoint_engine::lab::scheduler::{CLIENT, ChoicePoint, ParkedTask};
use cutpoint_engine::required_capabilities;
use cutpoint_engine::runner::{RunConfig, Runner, WAIT_LIMIT};
use cutpoint_engine::server::plan_cache::PlanCache;
use cutpoint_engine::server::{ReplayServer, ServerConfig};
use cutpoint_explore::{
    Broken, Choosing, Decision, Digester, Executor, Observed, Write, behaviour, digest,
};
use cutpoint_scenario::ast::{Capability, Scenario};
use cutpoint_trace::case::{CaseResult, CaseStatus};
use cutpoint_trace::verdict::{RuleVerdict, Verdict};
use cutpoint_trace::{Entry, Observation, StoreOp};

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
    pub plans: PlanCache,
    /// What the runs are for.
    pub purpose: Purpose,
}

/// What runs are for: what is not asked for is not worked out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Purpose {
    /// Whether anything is broken, and whether two runs are the same.
    #[default]
    Traces,
    /// Where crashes can come, besides: the writes and syncs are told, too.
    Crashes,
    /// Whether two runs are the same to the agent and its client, whatever the server has sent ahead.
    Behaviours,
}

impl LabExecutor {
    /// The first thing that a scenario needs and the reference agent cannot do.
    pub fn lacks(&self, scenario: &Scenario) -> Option<Capability> {
        ReferenceDriver::new(self.defects.clone()).lacks(&required_capabilities::of(scenario))
    }

    /// Runs a schedule, with all that is known of it.
    ///
    /// # Errors
    /// If the runtime can't be set up.
    pub fn case(&self, scenario: &Scenario) -> std::io::Result<(CaseResult, Vec<&'static str>)> {
        lab::block_on(self.run_in_detail(scenario))
    }

    async fn run_in_detail(&self, scenario: &Scenario) -> (CaseResult, Vec<&'static str>) {
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
            judge: cutpoint_check::judge,
        };
        let runner = Runner::new(server, driver, config);
        runner.run_in_detail(scenario, &self.file).await
    }
}

impl Choosing for LabExecutor {
    fn run_choosing(&self, scenario: &Scenario, choices: &[usize]) -> (Observed, Vec<Decision>) {
        let decisions = Arc::new(Mutex::new(Vec::new()));
        let mut states = States::default();
        let (choices, told) = (choices.to_vec(), decisions.clone());
        let choose = move |moment: ChoicePoint<'_>| {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            let choice = choices.get(told.len()).copied().unwrap_or(0);
            let mut all = alternatives(moment.waiting);
            told.push(Decision {
                alternatives: all.len(),
                state: states.value(&moment),
            });
            let chosen = all.swap_remove(choice.min(all.len() - 1));
            for number in &chosen {
                states.goes_on(&moment.waiting[*number]);
            }
            chosen
        };
        let ran = lab::block_on_choosing(Box::new(choose), self.run_in_detail(scenario));
        let observed = self.shown(scenario, ran);
        let decisions =
            std::mem::take(&mut *decisions.lock().unwrap_or_else(PoisonError::into_inner));
        (observed, decisions)
    }
}

/// Who can go on: each of those that wait by itself; and each with the client right behind it, since what
/// a client sends comes also where the agent passes no point.
fn alternatives(waiting: &[ParkedTask]) -> Vec<Vec<usize>> {
    let client = waiting.iter().position(|it| it.label == CLIENT);
    let with = |client: usize| {
        let others = (0..waiting.len()).filter(move |one| *one != client);
        others.map(move |one| vec![one, client])
    };
    let alone = (0..waiting.len()).map(|one| vec![one]);
    alone.chain(client.into_iter().flat_map(with)).collect()
}

/// Tells moments apart: by what was seen so far, in its order, by the time, and by the points that
/// each task has passed and waits at.
#[derive(Default)]
struct States {
    seen: Digester,
    entries: usize,
    /// A number for what each task has passed.
    passed: BTreeMap<u64, u64>,
}

impl States {
    fn value(&mut self, moment: &ChoicePoint<'_>) -> u64 {
        let new = moment.entries.get(self.entries..).unwrap_or_default();
        new.iter().for_each(|entry| self.seen.take(entry));
        self.entries = moment.entries.len();
        let past = |task: u64| self.passed.get(&task).copied().unwrap_or(0);
        let mut passed: Vec<u64> = self.passed.values().copied().collect();
        passed.sort_unstable();
        let waiting = moment.waiting.iter();
        let mut waiting: Vec<_> = waiting.map(|it| (past(it.task), it.label)).collect();
        waiting.sort_unstable();
        number(&(self.seen.value(), moment.elapsed, passed, waiting))
    }

    fn goes_on(&mut self, who: &ParkedTask) {
        let passed = self.passed.entry(who.task).or_default();
        *passed = number(&(*passed, who.label));
    }
}

fn number(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

impl Executor for LabExecutor {
    fn run(&self, scenario: &Scenario) -> Observed {
        self.shown(scenario, self.case(scenario))
    }
}

impl LabExecutor {
    fn shown(
        &self,
        scenario: &Scenario,
        ran: std::io::Result<(CaseResult, Vec<&'static str>)>,
    ) -> Observed {
        match ran {
            Ok((case, passed)) => self.observed(scenario, &case, passed),
            Err(error) => Observed {
                trouble: Some(error.to_string()),
                ..Observed::default()
            },
        }
    }

    fn observed(
        &self,
        scenario: &Scenario,
        case: &CaseResult,
        passed: Vec<&'static str>,
    ) -> Observed {
        let said = matches!(case.status, CaseStatus::Conforms | CaseStatus::Breach);
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
        // What another rule knows is known nevertheless.
        let unknown = || {
            let mut verdicts = case.verdicts.iter();
            verdicts.find_map(unknown).filter(|_| broken.is_empty())
        };
        let trouble = (!said).then(why).or_else(unknown);
        let fires = |number: usize| {
            let step = number.checked_sub(1).and_then(|at| scenario.steps.get(at));
            step.is_some_and(|step| step.yields.is_some())
        };
        let sent =
            |what: &Observation| matches!(what, Observation::Step { number, .. } if fires(*number));
        let entries = &case.trace.entries;
        let (writes, syncs) = match self.purpose {
            Purpose::Crashes => stored(entries),
            Purpose::Traces | Purpose::Behaviours => Default::default(),
        };
        Observed {
            digest: match self.purpose {
                Purpose::Behaviours => behaviour(entries),
                Purpose::Traces | Purpose::Crashes => digest(entries),
            },
            broken,
            exercised: case.verdicts.iter().filter_map(exercised).collect(),
            passed,
            writes,
            syncs,
            sent: entries
                .iter()
                .filter(|entry| sent(&entry.observation))
                .count(),
            trouble,
        }
    }
}

/// The writes to rollouts, with the lines that they ended with as these stand in the file, and the
/// syncs. Only what is done to the conversation's own rollout counts.
fn stored(entries: &[Entry]) -> (Vec<Write>, Vec<bool>) {
    let mut contents: HashMap<&str, String> = HashMap::new();
    let mut lengths: HashMap<&str, usize> = HashMap::new();
    let (mut ends, mut syncs) = (Vec::new(), Vec::new());
    // The first rollout is the conversation's; from there on it is the one that is read.
    let mut own: Option<&str> = None;
    for Entry { observation, .. } in entries {
        match observation {
            Observation::Rollout {
                path, from, text, ..
            } => {
                own = Some(path);
                let content = contents.entry(path).or_default();
                // Nothing but what is no text can make the two differ, and then nothing is known.
                if *from as usize <= content.len() && content.is_char_boundary(*from as usize) {
                    content.truncate(*from as usize);
                    content.push_str(text);
                }
            }
            Observation::Torn { path, bytes } => {
                let length = lengths.entry(path).or_default();
                *length = length.saturating_sub(*bytes as usize);
            }
            Observation::Stored {
                path,
                done: StoreOp::Written { bytes },
            } => {
                let length = lengths.entry(path).or_default();
                *length += *bytes as usize;
                let is_own = *own.get_or_insert(path) == path;
                ends.push((path, *length, if is_own { *bytes as usize } else { 0 }));
            }
            Observation::Stored {
                path,
                done: StoreOp::Synced,
            } => syncs.push(*own.get_or_insert(path) == path),
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
        last_line_bytes: line(path, end).filter(|_| bytes > 0).unwrap_or(0),
    };
    (ends.into_iter().map(write).collect(), syncs)
}

/// What a verdict says is broken.
pub fn breaches(verdict: &RuleVerdict) -> Vec<Broken> {
    let Verdict::Fail { breaches, .. } = &verdict.verdict else {
        return Vec::new();
    };
    let broken = breaches.iter().map(|breach| Broken {
        rule: verdict.rule.clone(),
        message: breach.text().into_owned(),
    });
    broken.collect()
}

/// Why nothing is known of a rule, if that is so.
fn unknown(verdict: &RuleVerdict) -> Option<String> {
    match &verdict.verdict {
        Verdict::Unknown { why } => Some(format!("{} is unknown: {why}", verdict.rule)),
        _ => None,
    }
}

/// How often a rule was put to the test, if it was.
pub fn exercised(verdict: &RuleVerdict) -> Option<(String, usize)> {
    match &verdict.verdict {
        Verdict::Pass { exercised } | Verdict::Fail { exercised, .. } if *exercised > 0 => {
            Some((verdict.rule.clone(), *exercised))
        }
        _ => None,
    }
}
