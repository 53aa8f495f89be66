//! Holds an agent at its own named points.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use cutpoint_scenario::ast::CutPoint;

use crate::server::gate::Gate;
use crate::tracer::Tracer;

/// The reference agent's point inside the grace period of an abort.
pub const GRACE_POINT: &str = "abort.grace";

/// Gates at named points of an agent, each for its n-th passing.
#[derive(Debug, Default)]
pub struct Points {
    gates: Vec<(String, usize, Arc<Gate>)>,
    passed: Mutex<HashMap<&'static str, usize>>,
}

impl Points {
    /// Gates for those of the cut points that are points of the agent.
    pub fn new<'a>(points: impl IntoIterator<Item = &'a CutPoint>, tracer: &Arc<Tracer>) -> Self {
        let gate = |point: &CutPoint| {
            let (label, nth) = match point {
                CutPoint::Point { label, nth } => (label.clone(), *nth),
                CutPoint::Aborting => (GRACE_POINT.to_owned(), 1),
                _ => return None,
            };
            Some((label, nth, Gate::new(point.clone(), Some(tracer.clone()))))
        };
        Self {
            gates: points.into_iter().filter_map(gate).collect(),
            passed: Mutex::default(),
        }
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
    pub fn pass(&self, label: &'static str) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        if self.gates.is_empty() {
            return None;
        }
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        let count = passed.entry(label).or_default();
        *count += 1;
        let count = *count;
        let (_, _, gate) = self
            .gates
            .iter()
            .find(|(of, nth, _)| of == label && *nth == count)?;
        let gate = gate.clone();
        Some(Box::pin(async move {
            poll_fn(|context| gate.poll(None, context)).await;
        }))
    }
}
