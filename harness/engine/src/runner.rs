//! Runs one scenario on one agent.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cutpoint_scenario::ast::{Capability, CutPoint, ExpectationKind, Scenario};
use cutpoint_trace::case::{CaseResult, CaseStatus, UnmetExpectation};
use cutpoint_trace::verdict::RuleVerdict;
use cutpoint_trace::{
    ABORT_BOUND_MS, AgentInfo, ClientOp, Entry, FORMAT, Feature, Header, Observation, Process,
    ReadTrigger, Trace, VERSION, Waiver,
};

use tokio::time::Instant;

use crate::driver::kit::points::Points;
use crate::driver::{AgentError, AgentSession, CaseEnv, Driver};
use crate::lab::Lab;
use crate::leftovers::{self, Leftovers, TOOL_LIMIT};
use crate::model_script;
use crate::process::{self, ProcessOwner};
use crate::quiescence::QuietCount;
use crate::rollout_reader::{DiskRollouts, RolloutReader, RolloutSource};
use crate::server::ReplayServer;
use crate::server::body::Pace;
use crate::server::case::{CaseConfig, RecordedCalls, RequestTally, ServerCase};
use crate::server::gate::GateDecision;
use crate::steps::{StepError, StepRunner};
use crate::tracer::Tracer;
use crate::{expect, injections, required_capabilities, settling, trace_queries};

/// Default upper bound of each single wait.
pub const WAIT_LIMIT: Duration = Duration::from_secs(10);

/// How long a case may take by the lab's clock, all its waits together. That clock moves when nothing
/// else can go on, so what waits for something that never comes ends here at once.
const LAB_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);
/// Where a case in the lab seems to work.
const LAB_DIR: &str = "/lab";

/// Judges the trace of a case by the rules, in the order of the rule book. Handed in by the caller, as
/// the engine writes traces and does not know the rules.
pub type Judge = fn(&Trace) -> Vec<RuleVerdict>;

/// Settings of a run.
#[derive(Debug, Clone)]
pub struct RunConfig {
    /// Upper bound of each single wait; a scenario's own `limit` goes before it.
    pub limit: Duration,
    /// The seed of everything random.
    pub seed: u64,
    /// Where recordings are looked for, besides the scenario's own folder.
    pub recordings: PathBuf,
    /// The directory below which every case gets one of its own; without one, cases run in the
    /// lab, which touches no disk.
    pub dir: Option<PathBuf>,
    /// Only the rules are asked, and not what the scenario expects: for schedules that it was not
    /// written for. Requests beyond its replies get a plain one.
    pub rules_only: bool,
    /// Judges each trace.
    pub judge: Judge,
}

/// A scenario and its file.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The scenario.
    pub scenario: Scenario,
    /// Its file, as the user named it.
    pub file: String,
}

/// Runs scenarios on one agent, each in a case of its own.
pub struct Runner {
    server: Arc<ReplayServer>,
    driver: Arc<dyn Driver>,
    config: RunConfig,
    cases: AtomicUsize,
    quiet: Arc<QuietCount>,
    tally: Mutex<RequestTally>,
}

impl Runner {
    /// A runner of that agent.
    pub fn new(server: Arc<ReplayServer>, driver: Arc<dyn Driver>, config: RunConfig) -> Self {
        Self {
            server,
            driver,
            config,
            cases: AtomicUsize::new(0),
            quiet: Arc::default(),
            tally: Mutex::default(),
        }
    }

    /// What became of the requests of cases that replay a recording, so far.
    pub fn tally(&self) -> RequestTally {
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often the agent was quiet before it was acted upon at a gate, in all cases so far.
    pub fn quiet(&self) -> &QuietCount {
        &self.quiet
    }

    /// Runs one scenario to a verdict. Whatever goes wrong is part of the result.
    pub async fn run(&self, planned: &Planned) -> CaseResult {
        self.run_in_detail(&planned.scenario, &planned.file).await.0
    }

    /// The same for a scenario of that file, with the named points that the agent passed,
    /// in order.
    pub async fn run_in_detail(
        &self,
        scenario: &Scenario,
        file: &str,
    ) -> (CaseResult, Vec<&'static str>) {
        let mut passed = Vec::new();
        let start = Instant::now();
        let needs = required_capabilities::of(scenario);
        let info = self.driver.info(&needs);
        let missing = self.driver.lacks(&needs);
        let mut case = empty_case(scenario, file, &info, self.config.seed);
        if let Some(missing) = missing {
            case.status = CaseStatus::Skipped;
            case.note = Some(format!("{} cannot do `{}`", info.name, missing.name()));
            return (case, passed);
        }
        let tracer = Arc::new(Tracer::default());
        match self.execute(scenario, file, needs, &tracer).await {
            Ok(done) => {
                passed = done.passed;
                case.unmet = done.unmet;
                (case.status, case.note) = done.status;
            }
            Err(RunError::Scenario(message)) => {
                case.status = CaseStatus::ScenarioError;
                case.note = Some(message);
            }
            Err(RunError::Harness(message)) => tracer.record(Observation::Trouble { message }),
        }
        case.trace.entries = tracer.take();
        if case.status != CaseStatus::ScenarioError && !never_began(&case) {
            case.verdicts = (self.config.judge)(&case.trace);
            if !self.config.rules_only {
                case.unmet
                    .extend(expect::unmet(scenario, &case.trace.entries));
            }
        }
        case.status = final_status(&case);
        if case.status == CaseStatus::Trouble && case.note.is_none() {
            case.note = trouble(&case.trace.entries);
        }
        case.duration_ms = start.elapsed().as_secs_f64() * 1000.0;
        (case, passed)
    }

    async fn execute(
        &self,
        scenario: &Scenario,
        file: &str,
        needs: BTreeSet<Capability>,
        tracer: &Arc<Tracer>,
    ) -> Result<DrivenCase, RunError> {
        let loaded = self
            .server
            .plans()
            .load(&scenario.model, Path::new(file), &self.config.recordings)
            .map_err(|error| RunError::Scenario(error.to_string()))?;
        let points = held_points(scenario);
        let number = self.cases.fetch_add(1, Ordering::Relaxed) + 1;
        let dir = self.case_dir(number)?;
        let lab = (dir.is_none()).then(|| Lab::new(self.server.clone()));
        let base = format!("/c/{number}/v1");
        let rollout = RolloutReader::new(tracer.clone(), rollout_source(lab.as_ref()));
        let server_case = self.server.add(
            &base,
            CaseConfig {
                script: loaded.script,
                side_conversations: loaded.side_conversations,
                gates: points.clone(),
                tracer: Some(tracer.clone()),
                on_request: Some(on_request(&rollout)),
                asks_approval: needs.contains(&Capability::Approvals),
                timed: false,
                recorded_calls: recorded_calls(scenario),
                pace: Pace::Flushed,
                fallback: self.config.rules_only.then(model_script::plain_reply),
            },
        );
        let env = CaseEnv {
            base_url: self.server.base_url(&base),
            tracer: tracer.clone(),
            rollout,
            dir: dir.clone().unwrap_or_else(|| PathBuf::from(LAB_DIR)),
            lab,
            needs,
            private: required_capabilities::own_process(scenario),
            seed: self.config.seed,
            points: Arc::new(Points::new(
                &points,
                injections::of(&scenario.steps),
                tracer,
                server_case.streams(),
            )),
            event_client: Arc::default(),
            quiet: self.quiet.clone(),
            screen: Arc::default(),
            limit: scenario.limit.unwrap_or(self.config.limit),
            model: scenario.model.name.clone(),
        };
        let in_lab = env.lab.is_some();
        let driven = self.drive(scenario, env.clone(), &server_case);
        let done = if in_lab {
            tokio::time::timeout(LAB_LIMIT, driven).await
        } else {
            Ok(driven.await)
        };
        self.server.remove(&base);
        if scenario.model.recording.is_some() {
            self.add_to_tally(server_case.tally());
        }
        if let Some(dir) = dir {
            // What the agent left running ends here, so that the next case starts clean.
            process::kill_all(&ProcessOwner::Case(env.dir.clone()), TOOL_LIMIT).await;
            // What can't be removed goes with the run's directory.
            let _ = std::fs::remove_dir_all(dir);
        }
        match server_case.scenario_errors().into_iter().next() {
            Some(message) => Err(RunError::Scenario(message)),
            None => done.map_err(|_| RunError::Harness("nothing can go on any more".to_owned())),
        }
    }

    /// Whether the steps after one that never came are run, in the real world: what the user says
    /// next shows what the agent has kept, and what is held may be held for them.
    fn goes_on(&self, env: &CaseEnv) -> bool {
        let held = || env.tracer.with(0, settling::is_held);
        self.config.rules_only && env.lab.is_none() && (!turn_is_active(&env.tracer) || held())
    }

    fn add_to_tally(&self, of_case: RequestTally) {
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner) += of_case;
    }

    /// Makes a directory for a case; there is none in the lab.
    fn case_dir(&self, number: usize) -> Result<Option<PathBuf>, RunError> {
        let Some(all) = &self.config.dir else {
            return Ok(None);
        };
        let dir = all.join(format!("case-{number}"));
        std::fs::create_dir_all(&dir)
            .map_err(|error| RunError::Harness(format!("{}: {error}", dir.display())))?;
        Ok(Some(process::real_path(&dir)))
    }

    async fn drive(
        &self,
        scenario: &Scenario,
        env: CaseEnv,
        server_case: &Arc<ServerCase>,
    ) -> DrivenCase {
        let mut session = match self.driver.start(env.clone()).await {
            Ok(session) => session,
            Err(error) => return DrivenCase::failed(&error),
        };
        let mut steps = StepRunner::new(&env, server_case, self.config.rules_only);
        let mut leftovers = Leftovers::new(&env);
        let mut unmet = Vec::new();
        let mut status = (CaseStatus::Conforms, None);
        let mut number = 1;
        while number <= scenario.steps.len() {
            let (done, last) = steps.run(number, scenario, session.as_mut()).await;
            number = last + 1;
            leftovers.look(session.as_mut());
            match done {
                Ok(()) => {}
                // What an injected op has changed may keep a step from ever coming.
                Err(StepError::Unmet(_)) if self.goes_on(&env) => {}
                Err(StepError::Unmet(_)) if self.config.rules_only => {
                    // What is held for a step that never comes would be taken for a hanging turn.
                    release_all(&env, server_case);
                    break;
                }
                Err(StepError::Unmet(found)) => {
                    unmet.push(found);
                    break;
                }
                Err(StepError::Agent(error)) => {
                    status = (CaseStatus::AgentFailed, Some(error.to_string()));
                    break;
                }
            }
        }
        if status.0 == CaseStatus::Conforms && unmet.is_empty() {
            unmet.extend(steps.settle(scenario).await);
        }
        drop(steps);
        env.event_client.set_reading(true);
        release_all(&env, server_case);
        leftovers.look(session.as_mut());
        // What runs on by design is no leftover, and not waited for.
        if !self
            .driver
            .info(&env.needs)
            .features
            .contains(&Feature::BackgroundTools)
        {
            leftovers.wait(session.as_mut()).await;
        }
        let patience = if expects_no_process(scenario) {
            TOOL_LIMIT
        } else {
            Duration::ZERO
        };
        let end = wind_up(session.as_mut(), &env, patience).await;
        if let (CaseStatus::Conforms, Err(error)) = (status.0, end) {
            status = (CaseStatus::AgentFailed, Some(error.to_string()));
        }
        if let Some(message) = unexpected_exit(&env.tracer, session.ending()) {
            status = (CaseStatus::AgentFailed, Some(message));
        }
        let passed = env.points.passed();
        DrivenCase {
            unmet,
            passed,
            status,
        }
    }
}

/// Why a scenario could not be run at all.
enum RunError {
    /// It asks for what is not there, or not as it must be.
    Scenario(String),
    /// The harness could not prepare it.
    Harness(String),
}

/// Whether not even the first step was reached: of an agent that did nothing, nothing is expected.
fn never_began(case: &CaseResult) -> bool {
    let begun = |what: &Observation| matches!(what, Observation::Step { .. });
    let troubled = |what: &Observation| matches!(what, Observation::Trouble { .. });
    let entries = || case.trace.entries.iter().map(|entry| &entry.observation);
    (case.status == CaseStatus::AgentFailed || entries().any(troubled)) && !entries().any(begun)
}

fn trouble(entries: &[Entry]) -> Option<String> {
    entries.iter().find_map(|entry| match &entry.observation {
        Observation::Trouble { message } => Some(message.clone()),
        _ => None,
    })
}

/// How the steps of a scenario went.
struct DrivenCase {
    unmet: Vec<UnmetExpectation>,
    passed: Vec<&'static str>,
    status: (CaseStatus, Option<String>),
}

impl DrivenCase {
    fn failed(error: &AgentError) -> Self {
        Self {
            unmet: Vec::new(),
            passed: Vec::new(),
            status: (CaseStatus::AgentFailed, Some(error.to_string())),
        }
    }
}

fn expects_no_process(scenario: &Scenario) -> bool {
    scenario
        .expectations
        .iter()
        .any(|expect| matches!(expect.kind, ExpectationKind::NoProcess { .. }))
}

fn on_request(rollout: &Arc<RolloutReader>) -> Arc<dyn Fn(usize) + Send + Sync> {
    let rollout = rollout.clone();
    Arc::new(move |exchange| rollout.read(ReadTrigger::Request { exchange }))
}

fn release_all(env: &CaseEnv, server_case: &ServerCase) {
    for gate in env.points.gates().chain(server_case.gates()) {
        gate.decide(GateDecision::Release);
    }
}

/// Looks at what is left running, ends the session, reads the rollout for the last time.
async fn wind_up(
    session: &mut dyn AgentSession,
    env: &CaseEnv,
    patience: Duration,
) -> Result<(), AgentError> {
    let deadline = Instant::now() + patience;
    let alive = leftovers::look_until(session, deadline, <[Process]>::is_empty).await;
    env.tracer.record(Observation::Processes {
        alive,
        at_end: false,
    });
    let running = env.tracer.with(0, trace_queries::is_running);
    // A turn that could not go on because nothing was scripted for it is not the agent's to end.
    let unscripted =
        |what: &Observation| matches!(what, Observation::Unscripted { .. }).then_some(());
    let abandoned = env.tracer.find(0, unscripted).is_some() && turn_is_active(&env.tracer);
    if running && !abandoned {
        // What the agent does about an active turn from here on, it does because it was asked to end.
        env.tracer.record(Observation::Op {
            id: "end".into(),
            op: ClientOp::Shutdown,
        });
    }
    let finished = session.finish().await;
    // A process that serves further cases has not ended.
    let ended = !env.tracer.with(0, trace_queries::is_running);
    if abandoned && env.tracer.with(0, trace_queries::is_running) {
        let exited = Observation::AgentExited {
            code: None,
            expected: true,
            stderr: String::new(),
        };
        env.tracer.record(exited);
    }
    env.rollout.read(ReadTrigger::End);
    if ended {
        leftovers::behind_the_end(session, env, true).await;
    }
    finished
}

fn unexpected_exit(tracer: &Tracer, ending: Option<String>) -> Option<String> {
    let exit = |what: &Observation| match what {
        Observation::AgentExited {
            expected: false,
            stderr,
            ..
        } => Some(stderr.clone()),
        _ => None,
    };
    let (_, stderr) = tracer.find(0, exit)?;
    let mut message = "the agent ended unexpectedly".to_owned();
    if let Some(ending) = ending {
        message.push_str(&format!(": {ending}"));
    }
    if !stderr.trim().is_empty() {
        message.push_str(&format!("; its last words:\n{}", stderr.trim()));
    }
    Some(message)
}

/// The cut points at which steps act, each once: two steps at one point share what holds there.
fn held_points(scenario: &Scenario) -> Vec<CutPoint> {
    let mut points: Vec<CutPoint> = Vec::new();
    for step in scenario.steps.iter().filter(|step| step.yields.is_none()) {
        let new = |at: &&CutPoint| !points.contains(at);
        points.extend(step.at.as_ref().filter(new).cloned());
    }
    points
}

fn rollout_source(lab: Option<&Lab>) -> Arc<dyn RolloutSource> {
    match lab {
        Some(lab) => lab.store.clone(),
        None => Arc::new(DiskRollouts),
    }
}

fn recorded_calls(scenario: &Scenario) -> RecordedCalls {
    if scenario.model.substitute_tools {
        RecordedCalls::Substituted
    } else {
        RecordedCalls::Portable
    }
}

fn empty_case(scenario: &Scenario, file: &str, info: &AgentInfo, seed: u64) -> CaseResult {
    let waiver = |waive: &cutpoint_scenario::ast::RuleWaiver| Waiver {
        rule: waive.rule.clone(),
        because: waive.because.clone(),
    };
    let header = Header {
        format: FORMAT.to_owned(),
        version: VERSION,
        scenario: scenario.name.clone(),
        file: Some(file.to_owned()),
        agent: info.clone(),
        seed,
        abort_bound_ms: scenario.abort_within.map_or(ABORT_BOUND_MS, |bound| {
            u64::try_from(bound.as_millis()).unwrap_or(u64::MAX)
        }),
        waived: scenario.waivers.iter().map(waiver).collect(),
    };
    CaseResult {
        number: 0,
        scenario: scenario.name.clone(),
        file: file.to_owned(),
        line: scenario.span.line,
        about: scenario.about.clone(),
        agent: info.clone(),
        verdicts: Vec::new(),
        unmet: Vec::new(),
        note: None,
        status: CaseStatus::Conforms,
        duration_ms: 0.0,
        replay: String::new(),
        trace_path: None,
        trace: Trace {
            header,
            entries: Vec::new(),
        },
    }
}

/// A breach is a breach also where the agent could not be run to the end; trouble of the harness
/// goes before everything.
fn final_status(case: &CaseResult) -> CaseStatus {
    let trouble = |what: &Observation| matches!(what, Observation::Trouble { .. });
    if case
        .trace
        .entries
        .iter()
        .any(|entry| trouble(&entry.observation))
    {
        return CaseStatus::Trouble;
    }
    let breached = case.breaches(false).next().is_some() || !case.unmet.is_empty();
    match case.status {
        CaseStatus::Conforms if breached => CaseStatus::Breach,
        status => status,
    }
}

/// Whether a turn is active, as far as the trace shows.
pub(crate) fn turn_is_active(tracer: &Tracer) -> bool {
    tracer.with(0, trace_queries::turn_is_active)
}
