//! A conversation: its session, who listens, and which answers are due.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

use cutpoint_protocol::ids::{ConversationId, SubmissionId, TurnId};
use serde_json::Value;

use super::interrupts::{PendingInterrupt, PendingInterrupts};
use super::message::RpcError;
use crate::defect::{Defect, DefectSet};
use crate::lock;
use crate::session::Session;

/// How many requests of one conversation wait for their answers at most.
const WAITING: usize = 1024;
/// How many listeners a conversation has at most: each gets a copy of every event.
const LISTENERS: usize = 16;

/// A conversation. Dropping it kills its session.
#[derive(Debug)]
pub(super) struct Conversation {
    pub(super) id: ConversationId,
    pub(super) session: Session,
    pub(super) defects: DefectSet,
    state: Mutex<ConversationState>,
}

/// What changes. The lock is never held across an await.
#[derive(Debug, Default)]
struct ConversationState {
    /// The turn that runs, as far as the client was told.
    active: Option<TurnId>,
    /// Requests for input, by the submission that carries it to the session.
    inputs: HashMap<SubmissionId, PendingInput>,
    interrupts: PendingInterrupts,
    listeners: BTreeSet<u64>,
    /// Nothing is answered by the session any more.
    over: bool,
    /// For a planted defect: the turn that was aborted last.
    aborted: Option<TurnId>,
}

#[derive(Debug)]
struct PendingInput {
    request: Value,
    wanted: Option<TurnId>,
}

/// What becomes of an interrupt request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InterruptStatus {
    /// It waits for the end of the turn.
    Waits,
    /// Nothing runs that it could abort.
    Idle,
    /// For a planted defect: it is never answered.
    Forgotten,
}

impl Conversation {
    pub(super) fn new(id: ConversationId, session: Session, defects: DefectSet) -> Self {
        Self {
            id,
            session,
            defects,
            state: Mutex::default(),
        }
    }

    /// The turn that runs, as far as the client was told.
    pub(super) fn active(&self) -> Option<TurnId> {
        lock(&self.state).active.clone()
    }

    /// A request for input waits for its answer from now on. `wanted` is the canonical form of the
    /// turn id that it asks for.
    pub(super) fn owe_input(
        &self,
        submission: &SubmissionId,
        request: Value,
        wanted: Option<TurnId>,
    ) -> Result<(), RpcError> {
        let mut state = lock(&self.state);
        state.check_room()?;
        let input = PendingInput { request, wanted };
        state.inputs.insert(submission.to_owned(), input);
        Ok(())
    }

    /// The request for input that a submission belongs to; its answer is due now.
    pub(super) fn input(&self, submission: &SubmissionId) -> Option<Value> {
        let input = lock(&self.state).inputs.remove(submission)?;
        Some(input.request)
    }

    /// Whether an interrupt request meets a turn.
    pub(super) fn meets(&self, named: Option<&TurnId>) -> Result<InterruptStatus, RpcError> {
        let state = lock(&self.state);
        state.check_room()?;
        let started = state.inputs.values();
        let on_its_way = |named: &str| {
            started
                .clone()
                .any(|one| one.wanted.as_deref() == Some(named))
        };
        match (named, state.active.as_ref()) {
            (None, active) if active.is_some() || !state.inputs.is_empty() => {
                Ok(InterruptStatus::Waits)
            }
            (Some(named), active) if active == Some(named) || on_its_way(named) => {
                Ok(InterruptStatus::Waits)
            }
            (Some(named), Some(active)) => Err(RpcError::invalid(format!(
                "turn {named} is not the active one, which is {active}"
            ))),
            (named, _) => {
                let aborted = named.is_some() && named == state.aborted.as_ref();
                let forgotten = aborted && self.defects.contains(Defect::AbortedTurnUnanswered)
                    || self.defects.contains(Defect::IdleInterruptUnanswered);
                Ok(if forgotten {
                    InterruptStatus::Forgotten
                } else {
                    InterruptStatus::Idle
                })
            }
        }
    }

    /// Lets an interrupt request wait. Gives it back if nothing will answer it any more.
    pub(super) fn queue(&self, waiting: PendingInterrupt) -> Option<PendingInterrupt> {
        let mut state = lock(&self.state);
        if state.over {
            return Some(waiting);
        }
        state.interrupts.queue(waiting);
        None
    }

    /// Takes an interrupt request back that the session did not get. False if it was answered.
    pub(super) fn take_back(&self, submission: &SubmissionId) -> bool {
        lock(&self.state).interrupts.take_back(submission)
    }

    /// The client is being told that a turn has started.
    pub(super) fn started(&self, turn_id: &TurnId) {
        lock(&self.state).active = Some(turn_id.to_owned());
    }

    /// The client was told that a turn has ended. Gives the interrupt requests that this answers.
    pub(super) fn ended(&self, turn_id: &TurnId, aborted: bool) -> Vec<PendingInterrupt> {
        let mut state = lock(&self.state);
        state.active.take_if(|active| active == turn_id);
        if aborted {
            state.aborted = Some(turn_id.to_owned());
        }
        state.interrupts.ended(turn_id)
    }

    /// The session says that an interrupt found nothing to abort. Gives the request if that is its
    /// answer.
    pub(super) fn idle(&self, submission: &SubmissionId) -> Option<PendingInterrupt> {
        let state = &mut *lock(&self.state);
        state.interrupts.idle(submission, state.active.as_ref())
    }

    /// The session is over. Gives all requests that wait: for input, and for an interrupt.
    pub(super) fn close(&self) -> (Vec<Value>, Vec<PendingInterrupt>) {
        let mut state = lock(&self.state);
        state.over = true;
        let inputs = state.inputs.drain().map(|(_, input)| input.request);
        let inputs = inputs.collect();
        (inputs, state.interrupts.take_all())
    }

    /// Adds a listener.
    pub(super) fn subscribe(&self, listener: u64) -> Result<(), RpcError> {
        let mut state = lock(&self.state);
        if state.listeners.len() >= LISTENERS {
            let message = format!("the conversation has {LISTENERS} listeners already");
            return Err(RpcError::invalid(message));
        }
        state.listeners.insert(listener);
        Ok(())
    }

    /// Takes a listener away. False if there is none of that number.
    pub(super) fn unsubscribe(&self, listener: u64) -> bool {
        lock(&self.state).listeners.remove(&listener)
    }

    /// The listeners, in the order in which they came.
    pub(super) fn listeners(&self) -> Vec<u64> {
        lock(&self.state).listeners.iter().copied().collect()
    }
}

impl ConversationState {
    fn check_room(&self) -> Result<(), RpcError> {
        if self.over {
            return Err(RpcError::invalid("the conversation has ended"));
        }
        if self.inputs.len() + self.interrupts.len() >= WAITING {
            let message = format!("{WAITING} requests of this conversation wait for their answers");
            return Err(RpcError::invalid(message));
        }
        Ok(())
    }
}
