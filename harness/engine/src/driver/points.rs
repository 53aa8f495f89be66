//! Holds an agent at its own named points.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use cutpoint_scenario::ast::{CutPoint, DisconnectKind};
use cutpoint_trace::{ClientOp, Decision, Observation};
use tokio::sync::watch;

use crate::lab::scheduler;
use crate::server::gate::Gate;
use crate::server::live_streams::LiveStreams;
use crate::trace_queries;
use crate::tracer::Tracer;

/// The reference agent's point inside the grace period of an abort.
pub const GRACE_POINT: &str = "abort.grace";

/// Lets every other task that can go on have that many turns. The runtime's own yield would wait until
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

/// How many passings there is room for from the start.
const USUAL_POINTS: usize = 256;

/// What is done by itself as a point is passed.
#[derive(Debug, Clone)]
pub enum Deed {
    /// A message is sent to the agent.
    Send(ClientOp),
    /// Whichever approval waits is answered; nothing is done where none does.
    Decide(Decision),
    /// Whichever question waits is answered; nothing is done where none does.
    Answer(String),
    /// The connections of the streams that are being sent end; nothing is done where none is.
    Drop(DisconnectKind),
    /// The agent is asked to end, and the client goes on behind the step.
    Shutdown,
    /// The agent is killed, and the client goes on behind the step.
    Kill,
    /// The task that passes the point is held while the others have their turns, or until nothing else
    /// can go on.
    Hold {
        /// Until nothing else can go on.
        quiet: bool,
    },
}

/// A step that is done by itself as a point is passed.
#[derive(Debug, Clone)]
pub struct Injection {
    /// The point's label.
    pub label: String,
    /// Which time it is passed, counted from 1.
    pub nth: usize,
    /// How many turns the agent's other tasks have before it is done.
    pub yields: usize,
    /// The step's number.
    pub number: usize,
    /// What is done.
    pub deed: Deed,
    /// The step, as the trace shows it.
    pub step: Observation,
}

/// How a session is reached from within its own points.
pub struct Reach {
    /// Sends an op to the agent; while it starts there is nobody to take one.
    pub send: Option<Send>,
    /// Kills the agent: none of its tasks runs on.
    pub kill: Box<dyn Fn() + std::marker::Send + Sync>,
}

/// Sends an op to the agent.
pub type Send = Box<dyn Fn(String, ClientOp) -> Hold + std::marker::Send + Sync>;

/// What waits at a point, or to be sent.
pub type Hold = Pin<Box<dyn Future<Output = ()> + std::marker::Send>>;

/// Gates and injections at named points of an agent, each for its n-th passing.
pub struct Points {
    gates: Vec<(String, usize, Arc<Gate>)>,
    injections: Vec<Injection>,
    world: Arc<World>,
    /// The points that were passed, in order.
    passed: Mutex<Vec<&'static str>>,
    /// Whether every task stops at every point, until it is chosen.
    every: bool,
}

/// What injections work on.
struct World {
    tracer: Arc<Tracer>,
    streams: Arc<LiveStreams>,
    reach: Mutex<Option<Arc<Reach>>>,
    /// The agent was killed, and no other one was started since: whatever of it still runs comes
    /// beyond no point.
    killed: AtomicBool,
    /// The number of the step that has ended the agent by itself last; 0 if none has.
    ended: watch::Sender<usize>,
}

impl Points {
    /// Gates for those of the cut points that are points of the agent.
    pub fn new<'a>(
        points: impl IntoIterator<Item = &'a CutPoint>,
        injections: Vec<Injection>,
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
        let world = World {
            tracer: tracer.clone(),
            streams: streams.clone(),
            reach: Mutex::default(),
            killed: AtomicBool::new(false),
            ended: watch::Sender::new(0),
        };
        Self {
            gates: points.into_iter().filter_map(gate).collect(),
            injections,
            world: Arc::new(world),
            passed: Mutex::new(Vec::with_capacity(USUAL_POINTS)),
            every,
        }
    }

    /// Tells how injections reach the agent, which is not one that was killed.
    pub fn set_reach(&self, reach: Reach) {
        self.world.killed.store(false, Ordering::Relaxed);
        *lock(&self.world.reach) = Some(Arc::new(reach));
    }

    /// From here on injections reach nobody; what passes points is no agent that was killed.
    pub fn forget_reach(&self) {
        self.world.killed.store(false, Ordering::Relaxed);
        *lock(&self.world.reach) = None;
    }

    /// Returns when a step that is no earlier than that one has ended the agent by itself; gives its
    /// number.
    pub async fn ended(&self, number: usize) -> usize {
        let mut ended = self.world.ended.subscribe();
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
    pub fn pass(&self, label: &'static str) -> Option<Hold> {
        if self.world.killed.load(Ordering::Relaxed) {
            return Some(Box::pin(std::future::pending()));
        }
        let watched = self.every
            || self.injections.iter().any(|it| it.label == label)
            || self.gates.iter().any(|(of, ..)| of == label);
        let count = {
            let mut passed = lock(&self.passed);
            passed.push(label);
            if !watched {
                return None;
            }
            passed.iter().filter(|it| **it == label).count()
        };
        let (mut killed, mut holds) = (false, Vec::new());
        for injection in &self.injections {
            if injection.label != label || injection.nth != count {
                continue;
            }
            if let Deed::Hold { quiet } = injection.deed {
                self.world.tracer.record(injection.step.clone());
                holds.push(if quiet {
                    scheduler::wait(label)
                } else {
                    Box::pin(turns(injection.yields))
                });
            } else {
                killed |= self.inject(injection.clone());
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

    /// Does it by a task of its own, so that the agent is not held meanwhile; but what is to die at
    /// the point does not come beyond it. Says whether the agent was killed here.
    fn inject(&self, injection: Injection) -> bool {
        if injection.yields == 0 && matches!(injection.deed, Deed::Kill) {
            return self.world.kill(injection);
        }
        let world = self.world.clone();
        tokio::spawn(async move {
            turns(injection.yields).await;
            if let Some(chosen) = scheduler::parked(scheduler::CLIENT) {
                chosen.await;
            }
            world.act(injection).await;
        });
        false
    }
}

impl World {
    async fn act(&self, injection: Injection) {
        let deed = match &injection.deed {
            Deed::Kill => {
                self.kill(injection);
                return;
            }
            // Only the task that passes the point can be held.
            Deed::Hold { .. } => return,
            Deed::Drop(kind) => {
                if self.streams.any() {
                    self.tracer.record(injection.step);
                    self.streams.cut(*kind);
                }
                return;
            }
            Deed::Send(op) => Some(op.clone()),
            Deed::Shutdown => (!self.is_behind(&injection)).then_some(ClientOp::Shutdown),
            Deed::Decide(decision) => {
                let waits = self.tracer.with(0, trace_queries::waiting_approval);
                waits.map(|call_id| ClientOp::Approval {
                    call_id,
                    decision: *decision,
                })
            }
            Deed::Answer(text) => {
                let waits = self.tracer.with(0, trace_queries::waiting_question);
                waits.map(|call_id| ClientOp::Answer {
                    call_id,
                    text: text.clone(),
                })
            }
        };
        let reach = lock(&self.reach).clone();
        let send = reach.as_ref().and_then(|reach| reach.send.as_ref());
        let (Some(op), Some(send)) = (deed, send) else {
            return;
        };
        let id = format!("step-{}", injection.number);
        let sent = Observation::Op {
            id: id.as_str().into(),
            op: op.clone(),
        };
        self.tracer.record_many([injection.step, sent]);
        send(id, op).await;
        if matches!(injection.deed, Deed::Shutdown) {
            self.ended.send_replace(injection.number);
        }
    }

    /// Whether the client is behind the step already, because one that stands later has ended the
    /// agent: nobody would see to it that the session goes on.
    fn is_behind(&self, injection: &Injection) -> bool {
        *self.ended.borrow() > injection.number
    }

    /// Says whether there was an agent to kill.
    fn kill(&self, injection: Injection) -> bool {
        if self.is_behind(&injection) {
            return false;
        }
        let Some(reach) = lock(&self.reach).take() else {
            return false;
        };
        self.tracer
            .record_many([injection.step, Observation::AgentKilled]);
        (reach.kill)();
        self.killed.store(true, Ordering::Relaxed);
        self.ended.send_replace(injection.number);
        true
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is one step, so a panic leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
