//! Interrupt requests that wait for the abort that answers them.

use cutpoint_protocol::ids::{SubmissionId, TurnId};
use serde_json::Value;

/// A request that waits.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PendingInterrupt {
    /// The submission that carries the interrupt to the session.
    pub(super) submission: SubmissionId,
    /// The request's id.
    pub(super) request: Value,
    /// The turn that it names; the one that runs unless given.
    pub(super) named: Option<TurnId>,
}

/// The requests of one conversation that wait, in order.
#[derive(Debug, Default)]
pub(super) struct PendingInterrupts(Vec<PendingInterrupt>);

impl PendingInterrupts {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Lets a request wait. This comes before the interrupt is on its way to the session, so that
    /// no abort can be quicker.
    pub(super) fn queue(&mut self, waiting: PendingInterrupt) {
        self.0.push(waiting);
    }

    /// The requests that the end of a turn answers: those that name no other turn.
    pub(super) fn ended(&mut self, turn_id: &TurnId) -> Vec<PendingInterrupt> {
        let answers = |waiting: &mut PendingInterrupt| {
            let named = waiting.named.as_deref();
            named.is_none_or(|named| named == turn_id)
        };
        self.0.extract_if(.., answers).collect()
    }

    /// The request whose interrupt found nothing to abort, unless the turn that it waits for still
    /// has to be told as ended: then that answers it.
    pub(super) fn idle(
        &mut self,
        submission: &SubmissionId,
        active: Option<&TurnId>,
    ) -> Option<PendingInterrupt> {
        let mut waiting = self.0.iter();
        let at = waiting.position(|waiting| waiting.submission == *submission)?;
        let named = self.0[at].named.as_deref();
        let waits = active.is_some_and(|active| named.is_none_or(|named| named == active));
        (!waits).then(|| self.0.remove(at))
    }

    /// Takes a request back that never got on its way.
    pub(super) fn take_back(&mut self, submission: &SubmissionId) -> bool {
        let before = self.0.len();
        self.0.retain(|waiting| waiting.submission != *submission);
        self.0.len() < before
    }

    /// All requests: the conversation is over.
    pub(super) fn take_all(&mut self) -> Vec<PendingInterrupt> {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(submission: &str, named: Option<&str>) -> PendingInterrupt {
        PendingInterrupt {
            submission: submission.into(),
            request: Value::from(submission),
            named: named.map(TurnId::from),
        }
    }

    #[test]
    fn the_end_of_a_turn_answers_all_that_do_not_name_another() {
        let mut interrupts = PendingInterrupts::default();
        let all = [
            waiting("1", Some("a")),
            waiting("2", None),
            waiting("3", Some("b")),
        ];
        all.iter().cloned().for_each(|one| interrupts.queue(one));
        assert_eq!(interrupts.ended(&"a".into()), all[..2]);
        assert!(interrupts.ended(&"a".into()).is_empty());
        assert_eq!(interrupts.take_all(), all[2..]);
    }

    #[test]
    fn an_idle_interrupt_waits_for_the_end_that_is_still_to_be_told() {
        let mut interrupts = PendingInterrupts::default();
        interrupts.queue(waiting("1", Some("a")));
        interrupts.queue(waiting("2", None));
        assert_eq!(interrupts.idle(&"1".into(), Some(&"a".into())), None);
        assert_eq!(interrupts.idle(&"2".into(), Some(&"a".into())), None);
        assert!(interrupts.idle(&"1".into(), Some(&"b".into())).is_some());
        assert!(interrupts.idle(&"2".into(), None).is_some());
        assert_eq!(interrupts.idle(&"2".into(), None), None);
    }
}
