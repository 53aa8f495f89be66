//! The lab: the reference agent in memory, on one thread, with a virtual clock. The same schedule gives
//! the same trace each time.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use cutpoint_agent::Defect;
use cutpoint_engine::driver::in_process::ReferenceDriver;
use cutpoint_engine::lab;
use cutpoint_engine::lab::scheduler::{CLIENT, ChoicePoint, ParkedTask};
use cutpoint_engine::runner::{RunConfig, Runner, WAIT_LIMIT};
use cutpoint_engine::server::plan_cache::PlanCache;
use cutpoint_engine::server::{ReplayServer, ServerConfig};
use cutpoint_explore::{
    ChoiceExecutor, Decision, Digester, Executor, RolloutWrite, RunError, RunResult,
    behaviour_digest, trace_digest,
};
use cutpoint_scenario::ast::Scenario;
use cutpoint_trace::case::{CaseResult, CaseStatus};
use cutpoint_trace::verdict::{RuleVerdict, Verdict};
use cutpoint_trace::{Entry, Observation, StoreOp};

use super::{exercised, violations};

/// The reference agent in the lab.
pub struct LabExecutor {
    /// Planted defects that are switched on.
    pub defects: Vec<Defect>,
    /// The scenario's file: its recordings may be beside it.
    pub file: String,
    /// Where else its recordings may be.
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

/// What runs are for: only what is needed for it is computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Purpose {
    /// To see violations, and to tell traces apart.
    #[default]
    Traces,
    /// To plan crashes as well: the result has the writes and syncs, too.
    Crashes,
    /// To tell apart what the agent and its client did, however far ahead the server had sent.
    Behaviours,
}

impl LabExecutor {
    /// Runs a scenario. Returns its case and the labels of the named points that the agent passed.
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

impl ChoiceExecutor for LabExecutor {
    fn run_with_choices(
        &self,
        scenario: &Scenario,
        choices: &[usize],
    ) -> (RunResult, Vec<Decision>) {
        let decisions = Arc::new(Mutex::new(Vec::new()));
        let mut states = States::default();
        let (choices, decided) = (choices.to_vec(), decisions.clone());
        let choose = move |moment: ChoicePoint<'_>| {
            let mut decided = decided.lock().unwrap_or_else(PoisonError::into_inner);
            let choice = choices.get(decided.len()).copied().unwrap_or(0);
            let mut all = alternatives(moment.waiting);
            decided.push(Decision {
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
        let result = self.result(scenario, ran);
        let decisions =
            std::mem::take(&mut *decisions.lock().unwrap_or_else(PoisonError::into_inner));
        (result, decisions)
    }
}

/// Which tasks can go on: each waiting one by itself, and each with the client right after it, since a
/// client's op can also arrive where the agent passes no point.
fn alternatives(waiting: &[ParkedTask]) -> Vec<Vec<usize>> {
    let client = waiting.iter().position(|it| it.label == CLIENT);
    let with = |client: usize| {
        let others = (0..waiting.len()).filter(move |one| *one != client);
        others.map(move |one| vec![one, client])
    };
    let alone = (0..waiting.len()).map(|one| vec![one]);
    alone.chain(client.into_iter().flat_map(with)).collect()
}

/// Tells moments apart: by what was observed so far, in its order, by the time, and by the points that
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
    fn run(&self, scenario: &Scenario) -> RunResult {
        self.result(scenario, self.case(scenario))
    }
}

impl LabExecutor {
    fn result(
        &self,
        scenario: &Scenario,
        ran: std::io::Result<(CaseResult, Vec<&'static str>)>,
    ) -> RunResult {
        match ran {
            Ok((case, points)) => self.of_case(scenario, &case, points),
            Err(error) => RunResult {
                error: Some(RunError::Harness(error.to_string())),
                ..RunResult::default()
            },
        }
    }

    fn of_case(
        &self,
        scenario: &Scenario,
        case: &CaseResult,
        points: Vec<&'static str>,
    ) -> RunResult {
        let violations = violations(case, self.strict);
        // What another rule has shown is known nevertheless.
        let unknown = || unknown(case).filter(|_| violations.is_empty());
        let entries = &case.trace.entries;
        let (writes, syncs) = match self.purpose {
            Purpose::Crashes => writes_and_syncs(entries),
            Purpose::Traces | Purpose::Behaviours => Default::default(),
        };
        RunResult {
            digest: match self.purpose {
                Purpose::Behaviours => behaviour_digest(entries),
                Purpose::Traces | Purpose::Crashes => trace_digest(entries),
            },
            error: error(case).or_else(unknown),
            violations,
            exercised: exercised(case),
            acted: acted(scenario, entries),
            points,
            writes,
            syncs,
            ..RunResult::default()
        }
    }
}

/// Why a case shows nothing about the agent, if it does not.
fn error(case: &CaseResult) -> Option<RunError> {
    let why = || {
        let note = case.note.clone();
        note.unwrap_or_else(|| format!("{:?}", case.status))
    };
    match case.status {
        CaseStatus::Conforms | CaseStatus::Breach => None,
        CaseStatus::Skipped => Some(RunError::Unsupported(why())),
        _ => Some(RunError::Harness(why())),
    }
}

/// Why nothing is known of a rule, if that is so.
fn unknown(case: &CaseResult) -> Option<RunError> {
    let unknown = |verdict: &RuleVerdict| match &verdict.verdict {
        Verdict::Unknown { why } => {
            let why = format!("{} is unknown: {why}", verdict.rule);
            Some(RunError::Harness(why))
        }
        _ => None,
    };
    case.verdicts.iter().find_map(unknown)
}

/// The numbers of the steps at named points that were sent.
fn acted(scenario: &Scenario, entries: &[Entry]) -> Vec<usize> {
    let is_at_point = |number: usize| {
        let step = number.checked_sub(1).and_then(|at| scenario.steps.get(at));
        step.is_some_and(|step| step.yields.is_some())
    };
    let number = |entry: &Entry| match entry.observation {
        Observation::Step { number, .. } if is_at_point(number) => Some(number),
        _ => None,
    };
    entries.iter().filter_map(number).collect()
}

/// The writes to rollouts, with the lengths of the lines that they ended, and the syncs. Only those of
/// the conversation's own rollout count.
fn writes_and_syncs(entries: &[Entry]) -> (Vec<RolloutWrite>, Vec<bool>) {
    let mut contents: HashMap<&str, String> = HashMap::new();
    let mut lengths: HashMap<&str, usize> = HashMap::new();
    let (mut ends, mut syncs) = (Vec::new(), Vec::new());
    // The first rollout is the conversation's; later it is the one that was read last.
    let mut own: Option<&str> = None;
    for Entry { observation, .. } in entries {
        match observation {
            Observation::Rollout {
                path, from, text, ..
            } => {
                own = Some(path);
                let content = contents.entry(path).or_default();
                // The two differ only if something is not text, and then nothing is known.
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
    let write = |(path, end, bytes): (&String, usize, usize)| RolloutWrite {
        bytes,
        last_line_bytes: line(path, end).filter(|_| bytes > 0).unwrap_or(0),
    };
    (ends.into_iter().map(write).collect(), syncs)
}
