//! The reference agent, in this process.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cutpoint_agent::{
    Config, Defect, DefectSet, Endpoint, HistoryMode, Killer, Probe, Services, Session as Agent,
    Submitter,
};
use cutpoint_protocol::session::{self, Event, InputItem, Op, Submission};
use cutpoint_scenario::ast::Capability;
use cutpoint_trace::{
    AgentEvent, AgentInfo, ClientOp, Decision, Entry, Feature, InputMode, Observation, Process,
    ReadTrigger, TaskKind,
};
use tokio::task::JoinHandle;

use super::front::{self, FrontSession, How};
use super::points::{self, Reach};
use super::store_log::LoggedStore;
use super::{AgentError, CaseEnv, Driver, Session, queue_events};
use crate::lab;
use crate::process::{self, ProcessOwner};
use crate::tracer::Tracer;

/// How long an agent that hung already may take to end: a scenario waits out its limit once.
const HUNG_LIMIT: Duration = Duration::from_millis(500);

/// What can be observed of the reference agent.
pub(super) fn features() -> BTreeSet<Feature> {
    BTreeSet::from([
        Feature::Rollout,
        Feature::RolloutTurns,
        Feature::Marker,
        Feature::TurnIds,
        Feature::CallEvents,
        Feature::Replace,
        Feature::TurnHeaders,
        Feature::Transcript,
        Feature::SubAgents,
    ])
}

/// What scenarios may need of the reference agent.
pub(super) fn capabilities() -> BTreeSet<Capability> {
    BTreeSet::from([
        Capability::Shell,
        Capability::CustomTools,
        Capability::LocalShell,
        Capability::Replace,
        Capability::Steer,
        Capability::Resume,
        Capability::Points,
        Capability::ServerHistory,
        Capability::ShownOutput,
        Capability::Approvals,
        Capability::Transcript,
        Capability::UserShell,
        Capability::Compact,
        Capability::Fork,
        Capability::Rollback,
        Capability::Patches,
        Capability::Questions,
        Capability::SubAgents,
        Capability::Review,
        Capability::SlowClient,
        Capability::JsonRpc,
    ])
}

/// The op of the queue protocol; `None` if it has none.
pub(super) fn queue_op(op: &ClientOp) -> Option<Op> {
    Some(match op.clone() {
        ClientOp::Input {
            text,
            mode,
            turn_id,
        } => {
            let items = vec![InputItem::Text { text }];
            match mode {
                InputMode::Start | InputMode::Steer => Op::UserInput { items, turn_id },
                InputMode::Replace => Op::UserTurn { items, turn_id },
            }
        }
        ClientOp::Task { task, text } => match task {
            TaskKind::Shell => Op::UserShell { command: text },
            TaskKind::Review => Op::Review { prompt: text },
            TaskKind::Compact => Op::Compact,
        },
        ClientOp::Interrupt { .. } => Op::Interrupt,
        ClientOp::Approval { call_id, decision } => Op::ExecApproval {
            call_id,
            decision: match decision {
                Decision::Approve => session::Decision::Approved,
                Decision::Deny => session::Decision::Denied,
                Decision::Abort => session::Decision::Abort,
            },
        },
        ClientOp::Answer { call_id, text } => Op::UserInputAnswer {
            call_id,
            answers: vec![text],
        },
        ClientOp::Fork => Op::Fork,
        ClientOp::Rollback { turns } => Op::Rollback { turns },
        ClientOp::Open { .. } => return None,
        ClientOp::Shutdown => Op::Shutdown,
    })
}

/// How the agent is set up for a case.
pub(super) fn config(env: &CaseEnv, defects: DefectSet) -> Result<Config, AgentError> {
    let (cwd, rollouts) = (env.dir.join("work"), env.dir.join("rollouts"));
    if env.lab.is_none() {
        for directory in [&cwd, &rollouts] {
            std::fs::create_dir_all(directory).map_err(not_started)?;
        }
    }
    let endpoint = Endpoint::parse(&env.base_url).map_err(not_started)?;
    let mut config = Config::new(endpoint, rollouts, cwd);
    config.epoch = env.lab.as_ref().map(|_| lab::epoch());
    config.seed = env.seed;
    config.defects = defects;
    if env.needs.contains(&Capability::ServerHistory) {
        config.history = HistoryMode::Server;
    }
    if let Some(model) = &env.model {
        config.model.clone_from(model);
    }
    Ok(config)
}

/// What the agent works with in a case: writes to its rollouts are seen as they return.
pub(super) fn parts(
    env: &CaseEnv,
    config: &Config,
    probe: Arc<dyn Probe>,
) -> Result<Services, AgentError> {
    let mut parts = match &env.lab {
        Some(lab) => lab.parts(config.endpoint.clone()),
        None => Services::real(config).map_err(not_started)?,
    };
    parts.store = Arc::new(LoggedStore::new(
        parts.store,
        env.tracer.clone(),
        env.points.clone(),
    ));
    parts.probe = Some(probe);
    Ok(parts)
}

fn not_started(error: impl std::error::Error) -> AgentError {
    AgentError::Start(error.to_string())
}

/// Waits until the session tells where its fork is.
pub(super) async fn fork_of(env: &CaseEnv, seen: usize) -> Result<PathBuf, AgentError> {
    let forked = |what: &Observation| match what {
        Observation::Event {
            event: AgentEvent::Forked { path },
            ..
        } => Some(PathBuf::from(path)),
        _ => None,
    };
    match env.tracer.wait(seen, env.limit, forked).await {
        Ok((_, path)) => Ok(path),
        Err(_) => Err(AgentError::TimedOut {
            what: "fork the conversation".to_owned(),
            limit: env.limit,
        }),
    }
}

/// The driver.
#[derive(Debug, Clone, Default)]
pub struct ReferenceDriver {
    defects: Vec<Defect>,
}

impl ReferenceDriver {
    /// The reference agent with these planted defects.
    pub fn new(defects: Vec<Defect>) -> Self {
        Self { defects }
    }
}

#[async_trait]
impl Driver for ReferenceDriver {
    fn info(&self, needs: &BTreeSet<Capability>) -> AgentInfo {
        let (driver, mut features) = if needs.contains(&Capability::JsonRpc) {
            (front::NAME, front::features())
        } else {
            ("in-process", features())
        };
        // What another process stores can't be seen as it returns.
        features.insert(Feature::StoreLog);
        AgentInfo {
            name: "reference".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            driver: driver.to_owned(),
            features,
            defects: self
                .defects
                .iter()
                .map(|defect| defect.name().to_owned())
                .collect(),
        }
    }

    fn capabilities(&self) -> BTreeSet<Capability> {
        capabilities()
    }

    fn lacks(&self, needs: &BTreeSet<Capability>) -> Option<Capability> {
        let mut can = self.capabilities();
        if needs.contains(&Capability::JsonRpc) {
            let mut through = front::capabilities();
            // The agent is in this process, whichever way it is spoken to.
            through.insert(Capability::Points);
            can.retain(|capability| through.contains(capability));
        }
        needs.difference(&can).next().copied()
    }

    async fn start(&self, env: CaseEnv) -> Result<Box<dyn Session>, AgentError> {
        let defects = self.defects.iter().copied().collect();
        if env.needs.contains(&Capability::JsonRpc) {
            return FrontSession::start(env, How::InProcess(defects)).await;
        }
        let mut session = ReferenceSession {
            env,
            defects,
            rollout: None,
            running: None,
            drain: None,
        };
        session.start().await?;
        Ok(Box::new(session))
    }
}

struct ReferenceSession {
    env: CaseEnv,
    defects: DefectSet,
    /// Where the conversation is; nowhere yet if the agent was killed before it wrote anything.
    rollout: Option<PathBuf>,
    running: Option<Running>,
    /// Reads the event queue, as a client does; what is observed was seen by the probe already. It ends
    /// behind the agent.
    drain: Option<JoinHandle<()>>,
}

struct Running {
    agent: Agent,
    /// Where in the trace it was started.
    since: usize,
}

/// Sees events at the very moment they enter the event queue, and holds the agent at its points.
struct Watch(CaseEnv);

impl Probe for Watch {
    fn emitted(&self, event: &Event) {
        queue_events::record(event, &self.0);
    }

    fn point(&self, label: &'static str) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        self.0.points.pass(label)
    }
}

impl Running {
    /// Starts the agent, and with it what reads its events. Gives nothing if it was killed meanwhile.
    async fn start(
        env: &CaseEnv,
        defects: DefectSet,
        resume: Option<PathBuf>,
    ) -> Result<Option<(Self, JoinHandle<()>)>, AgentError> {
        let mut config = config(env, defects)?;
        let resumed = resume.is_some();
        if !resumed {
            // One that was killed as it started has left a rollout under its id, though an empty one.
            config.seed = config.seed.wrapping_add(starts(env));
        }
        config.resume = resume;
        let parts = parts(env, &config, Arc::new(Watch(env.clone())))?;
        env.screen.open(defects);
        let since = env.tracer.len();
        env.tracer
            .record(Observation::AgentStarted { pid: None, resumed });
        let killer = Killer::default();
        env.points.set_reach(reach(&killer, None));
        let (agent, mut events) = tokio::select! {
            biased;
            () = killer.killed() => return Ok(None),
            started = Agent::start_under(&killer, config, parts) => started.map_err(not_started)?,
        };
        env.rollout.set_path(agent.rollout_path());
        let client = client(agent.submitter(), env.tracer.clone());
        env.points.set_reach(reach(&killer, Some(client)));
        let reading = env.reading.clone();
        let drain = tokio::spawn(async move {
            loop {
                reading.wanted().await;
                if events.recv().await.is_none() {
                    return;
                }
            }
        });
        Ok(Some((Self { agent, since }, drain)))
    }
}

/// How often an agent was started so far.
fn starts(env: &CaseEnv) -> u64 {
    let is_start = |entry: &&Entry| matches!(entry.observation, Observation::AgentStarted { .. });
    env.tracer
        .with(0, |entries| entries.iter().filter(is_start).count() as u64)
}

fn reach(killer: &Killer, send: Option<points::Send>) -> Reach {
    let killer = killer.clone();
    Reach {
        send,
        kill: Box::new(move || killer.kill()),
    }
}

/// How injected ops reach a session.
fn client(submitter: Submitter, tracer: Arc<Tracer>) -> points::Send {
    Box::new(move |id, op| {
        let (submitter, tracer) = (submitter.clone(), tracer.clone());
        Box::pin(async move {
            let Some(op) = queue_op(&op) else { return };
            let submission = Submission {
                id: id.as_str().into(),
                op,
            };
            if let Err(closed) = submitter.submit(submission).await {
                // Nobody took it: a client whose agent is gone knows that.
                tracer.record(Observation::OpReply {
                    id: id.into(),
                    turn_id: None,
                    thread_id: None,
                    reason: None,
                    error: Some(closed.to_string()),
                });
            }
        })
    })
}

impl ReferenceSession {
    /// Starts the agent, on the conversation's rollout if there is one.
    async fn start(&mut self) -> Result<(), AgentError> {
        let seen = self.env.tracer.len();
        // What is read from here on, also of an agent that is killed as it starts.
        if let Some(path) = &self.rollout {
            self.env.rollout.set_path(path);
        }
        let started = Running::start(&self.env, self.defects, self.rollout.clone()).await?;
        (self.running, self.drain) = started.unzip();
        if let Some(running) = &self.running {
            self.rollout = Some(running.agent.rollout_path().to_owned());
        } else if self.rollout.is_none() {
            let stored = |what: &Observation| match what {
                Observation::Stored { path, .. } => Some(PathBuf::from(path)),
                _ => None,
            };
            self.rollout = self.env.tracer.find(seen, stored).map(|(_, path)| path);
            if let Some(path) = &self.rollout {
                self.env.rollout.set_path(path);
            }
        }
        Ok(())
    }

    fn end_limit(&self) -> Duration {
        let ran_out =
            |what: &Observation| matches!(what, Observation::TimedOut { .. }).then_some(());
        match self.env.tracer.find(0, ran_out) {
            Some(_) => self.env.limit.min(HUNG_LIMIT),
            None => self.env.limit,
        }
    }

    /// Ends the agent in good order, or else by force. This may be given up and asked for once more.
    async fn end(&mut self) -> Result<(), AgentError> {
        if self.drain.is_none() {
            return Ok(());
        }
        let limit = self.end_limit();
        let waited = match &self.running {
            Some(running) => self.shut_down(running, limit).await,
            None => Ok(()),
        };
        self.take_away(limit).await;
        self.env.rollout.read(ReadTrigger::Exit);
        let exited = Observation::AgentExited {
            code: None,
            expected: true,
            stderr: String::new(),
        };
        self.env.tracer.record(exited);
        waited
    }

    /// Asks the agent to shut down, and waits until it has.
    async fn shut_down(&self, running: &Running, limit: Duration) -> Result<(), AgentError> {
        let submission = Submission {
            id: "shutdown".into(),
            op: Op::Shutdown,
        };
        // It may have been asked before, and one that is killed meanwhile tells nobody of its end.
        let ended = |what: &Observation| {
            matches!(
                what,
                Observation::AgentKilled
                    | Observation::Event {
                        event: AgentEvent::ShutdownComplete,
                        ..
                    }
            )
            .then_some(())
        };
        // A closed queue means that the session has ended already.
        if running.agent.submit(submission).await.is_err() {
            return Ok(());
        }
        match self.env.tracer.wait(running.since, limit, ended).await {
            Ok(_) => Ok(()),
            Err(_) => Err(AgentError::TimedOut {
                what: "shut down".to_owned(),
                limit,
            }),
        }
    }

    /// Kills the agent, if it still runs, and waits until nothing of it is left.
    async fn take_away(&mut self, limit: Duration) {
        if let Some(Running { agent, .. }) = self.running.take() {
            agent.kill();
        }
        if let Some(drain) = &mut self.drain {
            let _ = tokio::time::timeout(limit, drain).await;
        }
        self.drain = None;
    }
}

#[async_trait]
impl Session for ReferenceSession {
    async fn submit(&mut self, id: &str, op: &ClientOp) -> Result<(), AgentError> {
        let Some(op) = queue_op(op) else {
            return Err(AgentError::Protocol("it knows no such op".to_owned()));
        };
        if op == Op::Shutdown {
            return self.end().await;
        }
        let Some(running) = &self.running else {
            return Err(AgentError::Died("its session was closed".to_owned()));
        };
        let submission = Submission { id: id.into(), op };
        running
            .agent
            .submit(submission)
            .await
            .map_err(|error| AgentError::Died(error.to_string()))
    }

    async fn kill(&mut self) -> Result<(), AgentError> {
        self.take_away(self.env.limit).await;
        self.env.rollout.read(ReadTrigger::Exit);
        Ok(())
    }

    async fn resume(&mut self) -> Result<(), AgentError> {
        self.start().await
    }

    async fn fork(&mut self, id: &str) -> Result<(), AgentError> {
        let seen = self.env.tracer.len();
        self.submit(id, &ClientOp::Fork).await?;
        let path = fork_of(&self.env, seen).await?;
        self.env.tracer.record(Observation::AgentKilled);
        self.kill().await?;
        self.rollout = Some(path);
        self.resume().await
    }

    async fn finish(&mut self) -> Result<(), AgentError> {
        self.end().await
    }

    fn pid(&self) -> Option<u32> {
        None
    }

    fn processes(&self) -> Vec<Process> {
        match &self.env.lab {
            Some(lab) => lab.tools.processes(),
            None => process::find(&ProcessOwner::Case(self.env.dir.clone())),
        }
    }

    fn begins_after_spawn(&self) -> bool {
        true
    }
}
