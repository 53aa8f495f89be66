//! The reference agent, in this process.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use cutpoint_agent::{
    Config, Defect, DefectSet, Endpoint, HistoryMode, Parts, Probe, Session as Agent,
};
use cutpoint_check::trace::{
    AgentEvent, AgentInfo, ClientOp, Decision, Feature, InputMode, Process, ReadTrigger, What,
};
use cutpoint_protocol::session::{self, Event, InputItem, Op, Submission};
use cutpoint_scenario::ast::Capability;
use tokio::task::JoinHandle;

use super::points::Points;
use super::store_log::LoggedStore;
use super::{AgentError, CaseEnv, Driver, Session, queue_events};
use crate::process::{self, Belongs};
use crate::rollout::RolloutReader;
use crate::tracer::Tracer;

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
    ])
}

/// The op of the queue protocol; `None` if it has none.
pub(super) fn queue_op(op: &ClientOp) -> Option<Op> {
    Some(match op {
        ClientOp::Input { text, mode } => {
            let items = vec![InputItem::Text { text: text.clone() }];
            match mode {
                InputMode::Start | InputMode::Steer => Op::UserInput { items },
                InputMode::Replace => Op::UserTurn { items },
            }
        }
        ClientOp::Interrupt { .. } => Op::Interrupt,
        ClientOp::Approval { call_id, decision } => Op::ExecApproval {
            call_id: call_id.clone(),
            decision: match decision {
                Decision::Approve => session::Decision::Approved,
                Decision::Deny => session::Decision::Denied,
                Decision::Abort => session::Decision::Abort,
            },
        },
        ClientOp::Answer { .. } => return None,
        ClientOp::Shutdown => Op::Shutdown,
    })
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
    fn info(&self) -> AgentInfo {
        let mut features = features();
        // What another process stores can't be seen as it returns.
        features.insert(Feature::StoreLog);
        AgentInfo {
            name: "reference".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            driver: "in-process".to_owned(),
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

    async fn start(&self, env: CaseEnv) -> Result<Box<dyn Session>, AgentError> {
        let defects = self.defects.iter().copied().collect();
        let running = Running::start(&env, defects, None).await?;
        Ok(Box::new(ReferenceSession {
            env,
            defects,
            rollout: running.rollout(),
            running: Some(running),
        }))
    }
}

struct ReferenceSession {
    env: CaseEnv,
    defects: DefectSet,
    rollout: PathBuf,
    running: Option<Running>,
}

struct Running {
    agent: Agent,
    /// Reads the event queue, as a client does; what is observed was seen by the probe already.
    drain: JoinHandle<()>,
}

/// Sees events at the very moment they enter the event queue, and holds the agent at its points.
struct Watch {
    tracer: Arc<Tracer>,
    rollout: Arc<RolloutReader>,
    points: Arc<Points>,
}

impl Probe for Watch {
    fn emitted(&self, event: &Event) {
        queue_events::record(event, &self.tracer, &self.rollout);
    }

    fn point(&self, label: &'static str) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        self.points.pass(label)
    }
}

impl Running {
    async fn start(
        env: &CaseEnv,
        defects: DefectSet,
        resume: Option<PathBuf>,
    ) -> Result<Self, AgentError> {
        let (cwd, rollouts) = (env.dir.join("work"), env.dir.join("rollouts"));
        let failed = |error: std::io::Error| AgentError::Start(error.to_string());
        for directory in [&cwd, &rollouts] {
            std::fs::create_dir_all(directory).map_err(failed)?;
        }
        let endpoint =
            Endpoint::parse(&env.base_url).map_err(|error| AgentError::Start(error.to_string()))?;
        let mut config = Config::new(endpoint, rollouts, cwd);
        config.seed = env.seed;
        config.defects = defects;
        if env.needs.contains(&Capability::ServerHistory) {
            config.history = HistoryMode::Server;
        }
        let resumed = resume.is_some();
        config.resume = resume;
        let mut parts = Parts::real(&config).map_err(failed)?;
        parts.store = Arc::new(LoggedStore::new(parts.store, env.tracer.clone()));
        parts.probe = Some(Arc::new(Watch {
            tracer: env.tracer.clone(),
            rollout: env.rollout.clone(),
            points: env.points.clone(),
        }));
        env.tracer.record(What::AgentStarted { pid: None, resumed });
        let (agent, mut events) = Agent::start(config, parts)
            .await
            .map_err(|error| AgentError::Start(error.to_string()))?;
        env.rollout.set_path(agent.rollout_path());
        let drain = tokio::spawn(async move { while events.recv().await.is_some() {} });
        Ok(Self { agent, drain })
    }

    fn rollout(&self) -> PathBuf {
        self.agent.rollout_path().to_owned()
    }
}

impl ReferenceSession {
    async fn end(&mut self) -> Result<(), AgentError> {
        let Some(running) = self.running.take() else {
            return Ok(());
        };
        let Running { agent, drain } = running;
        let submission = Submission {
            id: "shutdown".to_owned(),
            op: Op::Shutdown,
        };
        let seen = self.env.tracer.len();
        let ended = |what: &What| {
            matches!(
                what,
                What::Event {
                    event: AgentEvent::ShutdownComplete,
                    ..
                }
            )
            .then_some(())
        };
        // A closed queue means that the session has ended already.
        let waited = match agent.submit(submission).await {
            Ok(()) => self
                .env
                .tracer
                .wait(seen, self.env.limit, ended)
                .await
                .map(|_| ()),
            Err(_) => Ok(()),
        };
        agent.kill();
        let _ = tokio::time::timeout(self.env.limit, drain).await;
        self.env.rollout.read(ReadTrigger::Exit);
        let exited = What::AgentExited {
            code: None,
            expected: true,
            stderr: String::new(),
        };
        self.env.tracer.record(exited);
        waited.map_err(|_| AgentError::TimedOut {
            what: "shut down".to_owned(),
            limit: self.env.limit,
        })
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
        let submission = Submission {
            id: id.to_owned(),
            op,
        };
        running
            .agent
            .submit(submission)
            .await
            .map_err(|error| AgentError::Died(error.to_string()))
    }

    async fn kill(&mut self) -> Result<(), AgentError> {
        if let Some(Running { agent, drain }) = self.running.take() {
            agent.kill();
            let _ = tokio::time::timeout(self.env.limit, drain).await;
        }
        self.env.rollout.read(ReadTrigger::Exit);
        Ok(())
    }

    async fn resume(&mut self) -> Result<(), AgentError> {
        let rollout = self.rollout.clone();
        self.running = Some(Running::start(&self.env, self.defects, Some(rollout)).await?);
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), AgentError> {
        self.end().await
    }

    fn pid(&self) -> Option<u32> {
        None
    }

    fn processes(&self) -> Vec<Process> {
        process::find(&Belongs::Case(self.env.dir.clone()))
    }

    fn begins_after_spawn(&self) -> bool {
        true
    }
}
