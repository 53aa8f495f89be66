//! Runs one scenario on one agent.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cutpoint_check::judge;
use cutpoint_check::outcome::{Case, Status, Unmet};
use cutpoint_check::trace::{
    ABORT_BOUND_MS, AgentInfo, ClientOp, FORMAT, Feature, Header, Process, ReadTrigger, Trace,
    VERSION, Waiver, What,
};
use cutpoint_scenario::ast::{Capability, CutPoint, Expectation, Scenario};

use crate::driver::points::Points;
use crate::driver::{AgentError, CaseEnv, Driver, Session};
use crate::leftovers::{self, Leftovers, TOOL_LIMIT};
use crate::process::{self, Belongs};
use crate::rollout::RolloutReader;
use crate::script;
use crate::server::ReplayServer;
use crate::server::body::Pace;
use crate::server::case::{Case as ServerCase, CaseConfig};
use crate::server::gate::Verdict as GateVerdict;
use crate::steps::{Steps, Stop};
use crate::tracer::Tracer;
use crate::{expect, needs, observe};

/// Upper bound of each single wait unless told otherwise.
pub const WAIT_LIMIT: Duration = Duration::from_secs(10);

/// Settings of a run.
#[derive(Debug, Clone)]
pub struct RunConfig {
    /// Upper bound of each single wait; a scenario's own `limit` goes before it.
    pub limit: Duration,
    /// The seed of everything random.
    pub seed: u64,
    /// Where recordings are looked for, besides the scenario's own folder.
    pub recordings: PathBuf,
    /// The directory below which every case gets one of its own.
    pub dir: PathBuf,
}

/// A scenario with the file it stands in.
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
}

impl Runner {
    /// A runner of that agent.
    pub fn new(server: Arc<ReplayServer>, driver: Arc<dyn Driver>, config: RunConfig) -> Self {
        Self {
            server,
            driver,
            config,
            cases: AtomicUsize::new(0),
        }
    }

    /// Runs one scenario to a verdict. Whatever goes wrong is part of the result.
    pub async fn run(&self, planned: &Planned) -> Case {
        let start = Instant::now();
        let scenario = &planned.scenario;
        let needs = needs::of(scenario);
        let info = self.driver.info();
        let missing = needs
            .difference(&self.driver.capabilities())
            .next()
            .copied();
        let mut case = empty_case(planned, &info, self.config.seed);
        if let Some(missing) = missing {
            case.status = Status::Skipped;
            case.note = Some(format!("{} cannot do `{}`", info.name, missing.name()));
            return case;
        }
        let tracer = Arc::new(Tracer::default());
        match self.execute(planned, needs, &tracer).await {
            Ok(done) => {
                case.unmet = done.unmet;
                (case.status, case.note) = done.status;
            }
            Err(Obstacle::Scenario(message)) => {
                case.status = Status::ScenarioError;
                case.note = Some(message);
            }
            Err(Obstacle::Harness(message)) => tracer.record(What::Trouble { message }),
        }
        case.trace.entries = tracer.entries();
        if case.status != Status::ScenarioError && !never_began(&case) {
            case.verdicts = judge(&case.trace);
            case.unmet
                .extend(expect::unmet(scenario, &case.trace.entries));
        }
        case.status = final_status(&case);
        if case.status == Status::Trouble && case.note.is_none() {
            case.note = trouble(&tracer);
        }
        case.duration_ms = start.elapsed().as_secs_f64() * 1000.0;
        case
    }

    async fn execute(
        &self,
        planned: &Planned,
        needs: BTreeSet<Capability>,
        tracer: &Arc<Tracer>,
    ) -> Result<Done, Obstacle> {
        let scenario = &planned.scenario;
        let script = script::load(
            &scenario.model,
            Path::new(&planned.file),
            &self.config.recordings,
        )
        .map_err(Obstacle::Scenario)?;
        let points: Vec<CutPoint> = scenario
            .steps
            .iter()
            .filter_map(|step| step.at.clone())
            .collect();
        let number = self.cases.fetch_add(1, Ordering::Relaxed) + 1;
        let dir = self.config.dir.join(format!("case-{number}"));
        std::fs::create_dir_all(&dir)
            .map_err(|error| Obstacle::Harness(format!("{}: {error}", dir.display())))?;
        let base = format!("/c/{number}/v1");
        let rollout = RolloutReader::new(tracer.clone());
        let server_case = self.server.add(
            &base,
            CaseConfig {
                script,
                gates: points.clone(),
                tracer: Some(tracer.clone()),
                on_request: Some(on_request(&rollout)),
                asks_approval: needs.contains(&Capability::Approvals),
                timed: false,
                pace: Pace::Flushed,
            },
        );
        let env = CaseEnv {
            base_url: self.server.base_url(&base),
            tracer: tracer.clone(),
            rollout,
            dir: process::real_path(&dir),
            needs,
            private: needs::own_process(scenario),
            seed: self.config.seed,
            points: Arc::new(Points::new(&points, tracer)),
            limit: scenario.limit.unwrap_or(self.config.limit),
        };
        let done = self.drive(scenario, env.clone(), &server_case).await;
        self.server.remove(&base);
        // Whatever the agent left behind ends here, so that the next case starts clean.
        process::kill_all(&Belongs::Case(env.dir.clone()), TOOL_LIMIT).await;
        // What can't be removed goes with the run's directory.
        let _ = std::fs::remove_dir_all(&dir);
        match server_case.scenario_errors().into_iter().next() {
            Some(message) => Err(Obstacle::Scenario(message)),
            None => Ok(done),
        }
    }

    async fn drive(
        &self,
        scenario: &Scenario,
        env: CaseEnv,
        server_case: &Arc<ServerCase>,
    ) -> Done {
        let mut session = match self.driver.start(env.clone()).await {
            Ok(session) => session,
            Err(error) => return Done::failed(&error),
        };
        let mut steps = Steps::new(&env, server_case);
        let mut leftovers = Leftovers::new(&env);
        let mut unmet = Vec::new();
        let mut status = (Status::Conforms, None);
        for (at, step) in scenario.steps.iter().enumerate() {
            let done = steps.run(at + 1, step, session.as_mut()).await;
            leftovers.look(session.as_mut());
            match done {
                Ok(()) => {}
                Err(Stop::Unmet(found)) => {
                    unmet.push(found);
                    break;
                }
                Err(Stop::Agent(error)) => {
                    status = (Status::AgentFailed, Some(error.to_string()));
                    break;
                }
            }
        }
        if status.0 == Status::Conforms && unmet.is_empty() {
            unmet.extend(steps.settle(scenario).await);
        }
        drop(steps);
        release_all(&env, server_case);
        leftovers.look(session.as_mut());
        // What runs on by design is no leftover, and not waited for.
        if !self
            .driver
            .info()
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
        if let (Status::Conforms, Err(error)) = (status.0, end) {
            status = (Status::AgentFailed, Some(error.to_string()));
        }
        if let Some(message) = unexpected_exit(&env.tracer, session.ending()) {
            status = (Status::AgentFailed, Some(message));
        }
        Done { unmet, status }
    }
}

/// Why a scenario could not be run at all.
enum Obstacle {
    /// It asks for what is not there, or not as it must be.
    Scenario(String),
    /// The harness could not prepare it.
    Harness(String),
}

/// Whether not even the first step was reached: of an agent that did nothing, nothing is expected.
fn never_began(case: &Case) -> bool {
    let begun = |what: &What| matches!(what, What::Step { .. });
    let troubled = |what: &What| matches!(what, What::Trouble { .. });
    let entries = || case.trace.entries.iter().map(|entry| &entry.what);
    (case.status == Status::AgentFailed || entries().any(troubled)) && !entries().any(begun)
}

fn trouble(tracer: &Tracer) -> Option<String> {
    let message = |what: &What| match what {
        What::Trouble { message } => Some(message.clone()),
        _ => None,
    };
    tracer.find(0, message).map(|(_, message)| message)
}

/// How the steps of a scenario went.
struct Done {
    unmet: Vec<Unmet>,
    status: (Status, Option<String>),
}

impl Done {
    fn failed(error: &AgentError) -> Self {
        Self {
            unmet: Vec::new(),
            status: (Status::AgentFailed, Some(error.to_string())),
        }
    }
}

fn expects_no_process(scenario: &Scenario) -> bool {
    scenario
        .expect
        .iter()
        .any(|expect| matches!(expect.what, Expectation::NoProcess { .. }))
}

fn on_request(rollout: &Arc<RolloutReader>) -> Arc<dyn Fn(usize) + Send + Sync> {
    let rollout = rollout.clone();
    Arc::new(move |exchange| rollout.read(ReadTrigger::Request { exchange }))
}

fn release_all(env: &CaseEnv, server_case: &ServerCase) {
    for gate in env.points.gates().chain(server_case.gates()) {
        gate.decide(GateVerdict::Release);
    }
}

/// Looks at what is left running, ends the session, reads the rollout for the last time.
async fn wind_up(
    session: &mut dyn Session,
    env: &CaseEnv,
    patience: Duration,
) -> Result<(), AgentError> {
    let deadline = Instant::now() + patience;
    let alive = leftovers::look_until(session, deadline, <[Process]>::is_empty).await;
    env.tracer.record(What::Processes {
        alive,
        at_end: false,
    });
    let running = env.tracer.with(0, observe::is_running);
    // A turn that could not go on because nothing was scripted for it is not the agent's to end.
    let unscripted = |what: &What| matches!(what, What::Unscripted { .. }).then_some(());
    let abandoned = env.tracer.find(0, unscripted).is_some() && turn_is_active(&env.tracer);
    if running && !abandoned {
        // What the agent does about an active turn from here on, it does because it was told to end.
        env.tracer.record(What::Op {
            id: "end".to_owned(),
            op: ClientOp::Shutdown,
        });
    }
    let finished = session.finish().await;
    // A process that serves further cases has not ended.
    let ended = !env.tracer.with(0, observe::is_running);
    if abandoned && env.tracer.with(0, observe::is_running) {
        let exited = What::AgentExited {
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
    let exit = |what: &What| match what {
        What::AgentExited {
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

fn empty_case(planned: &Planned, info: &AgentInfo, seed: u64) -> Case {
    let scenario = &planned.scenario;
    let waiver = |waive: &cutpoint_scenario::ast::Waive| Waiver {
        rule: waive.rule.clone(),
        because: waive.because.clone(),
    };
    let header = Header {
        format: FORMAT.to_owned(),
        version: VERSION,
        scenario: scenario.name.clone(),
        file: Some(planned.file.clone()),
        agent: info.clone(),
        seed,
        abort_bound_ms: scenario.abort_within.map_or(ABORT_BOUND_MS, |bound| {
            u64::try_from(bound.as_millis()).unwrap_or(u64::MAX)
        }),
        waived: scenario.waive.iter().map(waiver).collect(),
    };
    Case {
        scenario: scenario.name.clone(),
        file: planned.file.clone(),
        line: scenario.span.line,
        about: scenario.about.clone(),
        agent: info.clone(),
        verdicts: Vec::new(),
        unmet: Vec::new(),
        note: None,
        status: Status::Conforms,
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
fn final_status(case: &Case) -> Status {
    let trouble = |what: &What| matches!(what, What::Trouble { .. });
    if case.trace.entries.iter().any(|entry| trouble(&entry.what)) {
        return Status::Trouble;
    }
    let breached = case.breaches(false).next().is_some() || !case.unmet.is_empty();
    match case.status {
        Status::Conforms if breached => Status::Breach,
        status => status,
    }
}

/// Whether a turn is active, as far as the trace tells.
pub(crate) fn turn_is_active(tracer: &Tracer) -> bool {
    tracer.with(0, observe::turn_is_active)
}
