//! Named points inside an agent: holds it there, and acts there.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use cutpoint_scenario::ast::{CutPoint, DisconnectKind};
use cutpoint_trace::{ClientOp, Decision, Observation};
use tokio::sync::watch;

use super::record;
use crate::lab::scheduler;
use crate::server::gate::Gate;
use crate::server::live_streams::LiveStreams;
use crate::trace_queries;
use crate::tracer::Tracer;

/// The reference agent's point inside the grace period of an abort.
pub const GRACE_POINT: &str = "abort.grace";

/// Gives every other task that can go on that many turns. The runtime's own yield would wait until
/// none of them can go on any more.
async fn turns(count: usize) {
    for _ in 0..count {
        let mut had = false;
        poll_fn(|context| {
            if std::mem::replace(&mut had, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

/// How many passed points there is room for from the start.
const USUAL_POINTS: usize = 256;

/// What is done at a point by itself.
#[derive(Debug, Clone)]
pub enum InjectedOp {
    /// An op is sent to the agent.
    Send(ClientOp),
    /// The approval that waits is answered; nothing is done if there is none.
    Decide(Decision),
    /// The question that waits is answered; nothing is done if there is none.
    Answer(String),
    /// The connections of the streams that are being sent end; nothing is done if there is none.
    Disconnect(DisconnectKind),
    /// The agent is asked to end, and the client goes on after the step.
    Shutdown,
    /// The agent is killed, and the client goes on after the step.
    Kill,
    /// The task that passes the point is held while the others have their turns, or until nothing else
    /// can go on.
    Hold {
        /// Until nothing else can go on.
        quiet: bool,
    },
}

/// A step that is done by itself when the agent passes a point.
#[derive(Debug, Clone)]
pub struct InjectedStep {
    /// The point's label.
    pub label: String,
    /// Which time the point is passed, counted from 1.
    pub nth: usize,
    /// How many turns the agent's other tasks have before the step is done.
    pub yields: usize,
    /// The step's number.
    pub number: usize,
    /// What is done.
    pub op: InjectedOp,
    /// The step, as the trace shows it.
    pub step: Observation,
}

/// How a running agent is reached from its own points.
pub struct AgentHandle {
    /// Sends an op to the agent; `None` while it starts, as it takes none yet.
    pub send: Option<SendOp>,
    /// Kills the agent: none of its tasks runs on.
    pub kill: Box<dyn Fn() + Send + Sync>,
}

/// Sends an op to the agent, under that id. An error says that the agent did not take it.
pub type SendOp = Box<dyn Fn(String, ClientOp) -> Sending + Send + Sync>;

/// An op on its way to the agent.
pub type Sending = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// What a task of the agent waits for at a point.
pub type PointHold = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Gates and injected steps at named points of an agent, each for its n-th passing.
pub struct Points {
    gates: Vec<(String, usize, Arc<Gate>)>,
    injected: Vec<InjectedStep>,
    target: Arc<Target>,
    /// The points that were passed, in order.
    passed: Mutex<Vec<&'static str>>,
    /// Every task stops at every point until it is chosen.
    every: bool,
}

/// What injected steps act upon.
struct Target {
    tracer: Arc<Tracer>,
    streams: Arc<LiveStreams>,
    agent: Mutex<Option<Arc<AgentHandle>>>,
    /// The agent was killed, and no other one was started since. What still runs of it gets no further
    /// than its next point.
    killed: AtomicBool,
    /// The number of the last injected step that ended the agent; 0 if none has.
    ended: watch::Sender<usize>,
}

impl Points {
    /// Gates for those of the cut points that are points of the agent.
    pub fn new<'a>(
        points: impl IntoIterator<Item = &'a CutPoint>,
        injected: Vec<InjectedStep>,
        tracer: &Arc<Tracer>,
        streams: &Arc<LiveStreams>,
    ) -> Self {
        let every = scheduler::watch(tracer);
        let gate = |point: &CutPoint| {
            let (label, nth) = match point {
                CutPoint::Point { label, nth } => (label.clone(), *nth),
                CutPoint::Aborting => (GRACE_POINT.to_owned(), 1),
                _ => return None,
            };
            Some((label, nth, Gate::new(point.clone(), Some(tracer.clone()))))
        };
        let target = Target {
            tracer: tracer.clone(),
            streams: streams.clone(),
            agent: Mutex::default(),
            killed: AtomicBool::new(false),
            ended: watch::Sender::new(0),
        };
        Self {
            gates: points.into_iter().filter_map(gate).collect(),
            injected,
            target: Arc::new(target),
            passed: Mutex::new(Vec::with_capacity(USUAL_POINTS)),
            every,
        }
    }

    /// From here on injected steps reach this agent, which was not killed.
    pub fn set_agent(&self, agent: AgentHandle) {
        self.target.killed.store(false, Ordering::Relaxed);
        *lock(&self.target.agent) = Some(Arc::new(agent));
    }

    /// From here on injected steps reach no agent.
    pub fn forget_agent(&self) {
        self.target.killed.store(false, Ordering::Relaxed);
        *lock(&self.target.agent) = None;
    }

    /// Returns when an injected step of this number or a later one has ended the agent; gives its
    /// number.
    pub async fn ended(&self, number: usize) -> usize {
        let mut ended = self.target.ended.subscribe();
        loop {
            let by = *ended.borrow_and_update();
            if by >= number {
                return by;
            }
            // The sender lives in `self`, so the channel can't be closed.
            let _ = ended.changed().await;
        }
    }

    /// The points that were passed, in order.
    pub fn passed(&self) -> Vec<&'static str> {
        lock(&self.passed).clone()
    }

    /// The gate at that cut point.
    pub fn gate(&self, point: &CutPoint) -> Option<&Arc<Gate>> {
        self.gates
            .iter()
            .map(|(_, _, gate)| gate)
            .find(|gate| gate.point == *point)
    }

    /// All gates.
    pub fn gates(&self) -> impl Iterator<Item = &Arc<Gate>> {
        self.gates.iter().map(|(_, _, gate)| gate)
    }

    /// Called when the agent passes a point; gives what it has to wait for there.
    pub fn pass(&self, label: &'static str) -> Option<PointHold> {
        if self.target.killed.load(Ordering::Relaxed) {
            return Some(Box::pin(std::future::pending()));
        }
        let count = self.count(label)?;
        let (mut killed, mut holds) = (false, Vec::new());
        for injected in &self.injected {
            if injected.label != label || injected.nth != count {
                continue;
            }
            if let InjectedOp::Hold { quiet } = injected.op {
                self.target.tracer.record(injected.step.clone());
                holds.push(if quiet {
                    scheduler::wait(label)
                } else {
                    Box::pin(turns(injected.yields))
                });
            } else {
                killed |= self.inject(injected.clone());
            }
        }
        if killed {
            return Some(Box::pin(std::future::pending()));
        }
        let here = |(of, nth, _): &&(String, usize, Arc<Gate>)| of == label && *nth == count;
        if let Some((_, _, gate)) = self.gates.iter().find(here) {
            let gate = gate.clone();
            holds.push(Box::pin(async move {
                poll_fn(|context| gate.poll(None, context)).await;
            }));
        }
        holds.extend(scheduler::parked(label));
        if holds.is_empty() {
            return None;
        }
        Some(Box::pin(async move {
            for hold in holds {
                hold.await;
            }
        }))
    }

    /// Remembers that a point was passed. Gives which time it was, if anything may happen there.
    fn count(&self, label: &'static str) -> Option<usize> {
        let watched = self.every
            || self.injected.iter().any(|it| it.label == label)
            || self.gates.iter().any(|(of, ..)| of == label);
        let mut passed = lock(&self.passed);
        passed.push(label);
        watched.then(|| passed.iter().filter(|it| **it == label).count())
    }

    /// Does the step in a task of its own, so that the agent is not held meanwhile; but an agent that
    /// is to die at the point gets no further. Returns true if it was killed here.
    fn inject(&self, injected: InjectedStep) -> bool {
        if injected.yields == 0 && matches!(injected.op, InjectedOp::Kill) {
            return self.target.kill(injected);
        }
        let target = self.target.clone();
        tokio::spawn(async move {
            turns(injected.yields).await;
            if let Some(chosen) = scheduler::parked(scheduler::CLIENT) {
                chosen.await;
            }
            target.act(injected).await;
        });
        false
    }
}

impl Target {
    async fn act(&self, injected: InjectedStep) {
        let op = match &injected.op {
            InjectedOp::Kill => {
                self.kill(injected);
                return;
            }
            // Only the task that passes the point can be held.
            InjectedOp::Hold { .. } => return,
            InjectedOp::Disconnect(kind) => {
                if self.streams.any() {
                    self.tracer.record(injected.step);
                    self.streams.cut(*kind);
                }
                return;
            }
            InjectedOp::Send(op) => Some(op.clone()),
            InjectedOp::Shutdown => (!self.is_past(&injected)).then_some(ClientOp::Shutdown),
            InjectedOp::Decide(decision) => {
                let waits = self.tracer.with(0, trace_queries::waiting_approval);
                waits.map(|call_id| ClientOp::Approval {
                    call_id,
                    decision: *decision,
                })
            }
            InjectedOp::Answer(text) => {
                let waits = self.tracer.with(0, trace_queries::waiting_question);
                waits.map(|call_id| ClientOp::Answer {
                    call_id,
                    text: text.clone(),
                })
            }
        };
        let agent = lock(&self.agent).clone();
        let send = agent.as_ref().and_then(|agent| agent.send.as_ref());
        let (Some(op), Some(send)) = (op, send) else {
            return;
        };
        let id = format!("step-{}", injected.number);
        let sent = Observation::Op {
            id: id.as_str().into(),
            op: op.clone(),
        };
        self.tracer.record_many([injected.step, sent]);
        if let Err(error) = send(id.clone(), op).await {
            // A client whose agent is gone knows that its op was not taken.
            record::refused_op(&self.tracer, id, error);
        }
        if matches!(injected.op, InjectedOp::Shutdown) {
            self.ended.send_replace(injected.number);
        }
    }

    /// Whether the client is past the step, because a later one has ended the agent: it would not
    /// start the agent again for this one.
    fn is_past(&self, injected: &InjectedStep) -> bool {
        *self.ended.borrow() > injected.number
    }

    /// Returns true if there was an agent to kill.
    fn kill(&self, injected: InjectedStep) -> bool {
        if self.is_past(&injected) {
            return false;
        }
        let Some(agent) = lock(&self.agent).take() else {
            return false;
        };
        self.tracer
            .record_many([injected.step, Observation::AgentKilled]);
        (agent.kill)();
        self.killed.store(true, Ordering::Relaxed);
        self.ended.send_replace(injected.number);
        true
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is one step, so a panic leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
