//! A conversation: its session, who listens, and which answers are due.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

use cutpoint_protocol::ids::{ConversationId, SubmissionId, TurnId};
use serde_json::Value;

use super::interrupts::{Interrupts, Waiting};
use super::wire::RpcError;
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
    desk: Mutex<Desk>,
}

/// What changes. The lock is never held across an await.
#[derive(Debug, Default)]
struct Desk {
    /// The turn that runs, as far as the client was told.
    active: Option<TurnId>,
    /// Requests for input, by the submission that carries it to the session.
    inputs: HashMap<SubmissionId, Input>,
    interrupts: Interrupts,
    listeners: BTreeSet<u64>,
    /// Nothing is answered by the session any more.
    over: bool,
    /// For a planted defect: the turn that was aborted last.
    aborted: Option<TurnId>,
}

#[derive(Debug)]
struct Input {
    request: Value,
    wanted: Option<TurnId>,
}

/// What becomes of an interrupt request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interrupt {
    /// It waits for the end of the turn.
    Waits,
    /// Nothing runs that it could abort.
    Idle,
    /// For a planted defect: nobody will answer it.
    Forgotten,
}

impl Conversation {
    pub(super) fn new(id: ConversationId, session: Session, defects: DefectSet) -> Self {
        Self {
            id,
            session,
            defects,
            desk: Mutex::default(),
        }
    }

    /// The turn that runs, as far as the client was told.
    pub(super) fn active(&self) -> Option<TurnId> {
        lock(&self.desk).active.clone()
    }

    /// A request for input waits for its answer from now on. `wanted` is the canonical form of the
    /// turn id that it asks for.
    pub(super) fn owe_input(
        &self,
        submission: &SubmissionId,
        request: Value,
        wanted: Option<TurnId>,
    ) -> Result<(), RpcError> {
        let mut desk = lock(&self.desk);
        desk.check_room()?;
        let input = Input { request, wanted };
        desk.inputs.insert(submission.to_owned(), input);
        Ok(())
    }

    /// The request for input that a submission belongs to; its answer is due now.
    pub(super) fn input(&self, submission: &SubmissionId) -> Option<Value> {
        let input = lock(&self.desk).inputs.remove(submission)?;
        Some(input.request)
    }

    /// Whether an interrupt request meets a turn.
    pub(super) fn meets(&self, named: Option<&TurnId>) -> Result<Interrupt, RpcError> {
        let desk = lock(&self.desk);
        desk.check_room()?;
        let started = desk.inputs.values();
        let on_its_way = |named: &str| {
            started
                .clone()
                .any(|one| one.wanted.as_deref() == Some(named))
        };
        match (named, desk.active.as_ref()) {
            (None, active) if active.is_some() || !desk.inputs.is_empty() => Ok(Interrupt::Waits),
            (Some(named), active) if active == Some(named) || on_its_way(named) => {
                Ok(Interrupt::Waits)
            }
            (Some(named), Some(active)) => Err(RpcError::invalid(format!(
                "turn {named} is not the active one, which is {active}"
            ))),
            (named, _) => {
                let aborted = named.is_some() && named == desk.aborted.as_ref();
                let forgotten = aborted && self.defects.contains(Defect::AbortedTurnUnanswered)
                    || self.defects.contains(Defect::IdleInterruptUnanswered);
                Ok(if forgotten {
                    Interrupt::Forgotten
                } else {
                    Interrupt::Idle
                })
            }
        }
    }

    /// Lets an interrupt request wait. Gives it back if nothing will answer it any more.
    pub(super) fn queue(&self, waiting: Waiting) -> Option<Waiting> {
        let mut desk = lock(&self.desk);
        if desk.over {
            return Some(waiting);
        }
        desk.interrupts.queue(waiting);
        None
    }

    /// Takes an interrupt request back that the session did not get. False if it was answered.
    pub(super) fn take_back(&self, submission: &SubmissionId) -> bool {
        lock(&self.desk).interrupts.take_back(submission)
    }

    /// The client is being told that a turn has started.
    pub(super) fn started(&self, turn_id: &TurnId) {
        lock(&self.desk).active = Some(turn_id.to_owned());
    }

    /// The client was told that a turn has ended. Gives the interrupt requests that this answers.
    pub(super) fn ended(&self, turn_id: &TurnId, aborted: bool) -> Vec<Waiting> {
        let mut desk = lock(&self.desk);
        desk.active.take_if(|active| active == turn_id);
        if aborted {
            desk.aborted = Some(turn_id.to_owned());
        }
        desk.interrupts.ended(turn_id)
    }

    /// The session says that an interrupt found nothing to abort. Gives the request if that is its
    /// answer.
    pub(super) fn idle(&self, submission: &SubmissionId) -> Option<Waiting> {
        let desk = &mut *lock(&self.desk);
        desk.interrupts.idle(submission, desk.active.as_ref())
    }

    /// The session is over. Gives all requests that wait: for input, and for an interrupt.
    pub(super) fn close(&self) -> (Vec<Value>, Vec<Waiting>) {
        let mut desk = lock(&self.desk);
        desk.over = true;
        let inputs = desk.inputs.drain().map(|(_, input)| input.request);
        let inputs = inputs.collect();
        (inputs, desk.interrupts.take_all())
    }

    /// Adds a listener.
    pub(super) fn subscribe(&self, listener: u64) -> Result<(), RpcError> {
        let mut desk = lock(&self.desk);
        if desk.listeners.len() >= LISTENERS {
            let message = format!("the conversation has {LISTENERS} listeners already");
            return Err(RpcError::invalid(message));
        }
        desk.listeners.insert(listener);
        Ok(())
    }

    /// Takes a listener away. False if there is none of that number.
    pub(super) fn unsubscribe(&self, listener: u64) -> bool {
        lock(&self.desk).listeners.remove(&listener)
    }

    /// The listeners, in the order in which they came.
    pub(super) fn listeners(&self) -> Vec<u64> {
        lock(&self.desk).listeners.iter().copied().collect()
    }
}

impl Desk {
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
