//! Gates: points of a response at which the server holds until they are released.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use cutpoint_scenario::ast::{CutPoint, DisconnectKind};
use cutpoint_trace::Observation;

use super::{CONNECTION_LIMIT, Endpoints};
use crate::tracer::Tracer;

/// What becomes of a response that was held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateDecision {
    /// It goes on.
    Release,
    /// Its connection ends here.
    Drop(DisconnectKind),
}

#[derive(Debug, Default)]
struct State {
    reached: bool,
    ends: Option<Endpoints>,
    verdict: Option<GateDecision>,
    /// Those of the responses that are held: more than one where a call or a recorded exchange is
    /// sent twice at a time.
    wakers: Vec<Waker>,
}

/// Most wakers a gate keeps: twice as many as there can be responses held at once.
const WAKERS_KEPT: usize = 2 * CONNECTION_LIMIT;

impl State {
    /// Keeps a waker. Those of responses whose clients went away look like the others, so
    /// when there are too many, all are given back to be woken: who is still held comes again.
    fn hold(&mut self, waker: &Waker) -> Vec<Waker> {
        if self.wakers.iter().any(|known| known.will_wake(waker)) {
            return Vec::new();
        }
        let full = self.wakers.len() == WAKERS_KEPT;
        let forgotten = if full {
            std::mem::take(&mut self.wakers)
        } else {
            Vec::new()
        };
        self.wakers.push(waker.clone());
        forgotten
    }
}

/// One gate. It is armed from the start, so that it can't be missed; it holds once.
#[derive(Debug)]
pub struct Gate {
    /// Its cut point.
    pub point: CutPoint,
    name: String,
    tracer: Option<Arc<Tracer>>,
    state: Mutex<State>,
}

impl Gate {
    /// A closed gate at that point.
    pub fn new(point: CutPoint, tracer: Option<Arc<Tracer>>) -> Arc<Self> {
        let name = point.to_string();
        Arc::new(Self {
            point,
            name,
            tracer,
            state: Mutex::default(),
        })
    }

    /// Opens the gate, or ends the connection that is held there. Only the first call counts.
    pub fn decide(&self, verdict: GateDecision) {
        let mut state = self.lock();
        if state.verdict.is_some() {
            return;
        }
        state.verdict = Some(verdict);
        let wakers = std::mem::take(&mut state.wakers);
        let reached = state.reached;
        drop(state);
        if reached {
            self.record(Observation::Released {
                point: self.name.clone(),
            });
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Called by the response at the gate, after everything before it was flushed.
    pub fn poll(&self, ends: Option<Endpoints>, context: &mut Context<'_>) -> Poll<GateDecision> {
        let mut state = self.lock();
        if let Some(verdict) = state.verdict {
            return Poll::Ready(verdict);
        }
        let forgotten = state.hold(context.waker());
        state.ends = ends;
        let first = !std::mem::replace(&mut state.reached, true);
        drop(state);
        forgotten.into_iter().for_each(Waker::wake);
        if first {
            self.record(Observation::Reached {
                point: self.name.clone(),
            });
        }
        Poll::Pending
    }

    /// The ends of the connection that is held, once the gate was reached.
    pub fn ends(&self) -> Option<Endpoints> {
        self.lock().ends
    }

    /// Whether the gate would hold.
    pub fn is_closed(&self) -> bool {
        self.lock().verdict.is_none()
    }

    fn record(&self, what: Observation) {
        if let Some(tracer) = &self.tracer {
            tracer.record(what);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
