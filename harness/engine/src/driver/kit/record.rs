//! What every driver records.

use cutpoint_protocol::TurnId;
use cutpoint_trace::{AgentEvent, Observation, RawMessage, ReadTrigger};

use crate::driver::CaseEnv;
use crate::tracer::Tracer;

/// Records an event; one that ends a turn together with the rollout at this very moment.
pub(crate) fn event(env: &CaseEnv, event: AgentEvent, raw: RawMessage) {
    let ended = matches!(event, AgentEvent::TurnEnded { .. });
    let turn_id = event.turn_id().map(TurnId::from);
    let observation = Observation::Event { event, raw };
    if ended {
        env.rollout
            .record_with(observation, ReadTrigger::TurnEnded { turn_id });
    } else {
        env.tracer.record(observation);
    }
}

/// Records that an op did not reach the agent, or was refused.
pub(crate) fn refused_op(tracer: &Tracer, id: String, error: String) {
    tracer.record(Observation::OpReply {
        id: id.into(),
        turn_id: None,
        thread_id: None,
        reason: None,
        error: Some(error),
    });
}
