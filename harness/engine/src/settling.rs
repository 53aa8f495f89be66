//! When nothing will come of itself any more.

use std::time::Duration;

use cutpoint_trace::{AgentEvent, ClientOp, Entry, InputMode, Observation};

use crate::runner::turn_is_active;
use crate::trace_queries;
use crate::tracer::Tracer;

/// How long nothing may be observed while no turn is active. Everything that an idle agent still has
/// to tell comes within milliseconds; a machine with more to do than it can gets some more.
const PATIENCE: Duration = Duration::from_millis(400);

/// How long nothing may be observed while a stream is held. Behind an interrupt one is held for 500 ms.
const HELD_PATIENCE: Duration = Duration::from_millis(800);

/// How long a stream stays held after an interrupt that has no effect. An agent that conforms has
/// aborted within its grace period of 100 ms; one that waits for the stream first must not be held
/// for ever.
const EFFECT_LIMIT: Duration = Duration::from_millis(500);

/// How long after the end of its turn the server may take to see that the agent has closed the stream. One
/// that leaves it open is held no longer for that.
const CLOSE_LIMIT: Duration = Duration::from_millis(50);

/// Returns when nothing was observed for a while and no turn is active, or one is but its stream is
/// held for a later step: a wait would never end, as a schedule that the scenario
/// was not written for has kept it from coming.
pub async fn reached(tracer: &Tracer) {
    loop {
        let seen = tracer.len();
        let patience = if !turn_is_active(tracer) {
            PATIENCE
        } else if tracer.with(0, is_held) {
            HELD_PATIENCE
        } else {
            Duration::MAX
        };
        if tracer.wait(seen, patience, |_| Some(())).await.is_err() {
            return;
        }
    }
}

/// Whether something is held at a cut point.
pub fn is_held(entries: &[Entry]) -> bool {
    let mut held = 0_usize;
    for Entry { observation, .. } in entries {
        match observation {
            Observation::Reached { .. } => held += 1,
            Observation::Released { .. } => held = held.saturating_sub(1),
            _ => {}
        }
    }
    held > 0
}

/// Waits until it is known what has become of every steer and interrupt. A steer that comes as a turn
/// ends may start another, or be refused; nothing announces that it will, nor whether an idle agent has
/// outlived an interrupt.
pub async fn of_ops(tracer: &Tracer) {
    if tracer.with(0, an_op_is_open) {
        reached(tracer).await;
    }
}

/// Whether a steer or an interrupt was sent of which nothing was heard since.
fn an_op_is_open(entries: &[Entry]) -> bool {
    // By id, with the text of a steer.
    let mut open: Vec<(&str, Option<&str>)> = Vec::new();
    for Entry { observation, .. } in entries {
        match observation {
            Observation::Op {
                id,
                op:
                    ClientOp::Input {
                        text,
                        mode: InputMode::Steer,
                        ..
                    },
            } => open.push((id, Some(text))),
            Observation::Op {
                id,
                op: ClientOp::Interrupt { .. },
            } => open.push((id, None)),
            Observation::OpReply { id, .. } => open.retain(|(of, _)| of != id),
            Observation::Event {
                event: AgentEvent::UserMessage { text, .. },
                ..
            } => open.retain(|(_, sent)| *sent != Some(text)),
            observation if trace_queries::turn_end(observation).is_some() => {
                open.retain(|(_, sent)| sent.is_some())
            }
            Observation::AgentKilled | Observation::AgentExited { .. } => open.clear(),
            _ => {}
        }
    }
    !open.is_empty()
}

/// Waits until an interrupt has taken effect: the agent has closed the stream, or is gone, or the turn has ended
/// and no party closes it. In the lab the server sees at once what the agent does.
pub(crate) async fn of_interrupt(tracer: &Tracer, seen: usize, in_lab: bool) {
    let closed = |observation: &Observation| {
        matches!(
            observation,
            Observation::Disconnected { .. } | Observation::AgentExited { .. }
        )
        .then_some(())
    };
    let effect = |observation: &Observation| {
        closed(observation).or_else(|| trace_queries::turn_end(observation).map(|_| ()))
    };
    let took_effect = tracer.wait(seen, EFFECT_LIMIT, effect).await.is_ok();
    if took_effect && !in_lab {
        let _ = tracer.wait(seen, CLOSE_LIMIT, closed).await;
    }
}

#[cfg(test)]
mod tests {
    use cutpoint_trace::TurnEnd;

    use super::*;

    fn event(event: AgentEvent) -> Observation {
        let raw = cutpoint_trace::RawMessage::default();
        Observation::Event { event, raw }
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_waited_for_and_then_the_rest() {
        let tracer = Tracer::default();
        let turn = "t".to_owned();
        tracer.record(event(AgentEvent::TurnStarted {
            turn_id: turn.clone().into(),
        }));
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, reached(&tracer)).await.is_err());
        let point = "request 2".to_owned();
        tracer.record(Observation::Reached {
            point: point.clone(),
        });
        assert!(tokio::time::timeout(hour, reached(&tracer)).await.is_ok());
        tracer.record(Observation::Released { point });
        assert!(tokio::time::timeout(hour, reached(&tracer)).await.is_err());
        tracer.record(event(AgentEvent::TurnEnded {
            turn_id: Some(turn.into()),
            end: TurnEnd::Complete,
        }));
        let ended = tokio::time::Instant::now();
        reached(&tracer).await;
        assert_eq!(ended.elapsed(), PATIENCE);
    }
    #[test]
    fn an_op_is_open_until_it_is_answered_or_has_taken_effect() {
        let steer = || Observation::Op {
            id: "op-1".into(),
            op: crate::injections::input("and?", InputMode::Steer, None),
        };
        let open = |whats: Vec<Observation>| {
            let tracer = Tracer::default();
            tracer.record_many(whats);
            tracer.with(0, an_op_is_open)
        };
        let taken = event(AgentEvent::UserMessage {
            turn_id: None,
            text: "and?".to_owned(),
        });
        let refused = Observation::OpReply {
            id: "op-1".into(),
            turn_id: None,
            thread_id: None,
            reason: None,
            error: Some("no turn runs".to_owned()),
        };
        assert!(open(vec![steer()]));
        assert!(!open(vec![steer(), taken]));
        assert!(!open(vec![steer(), refused]));
        assert!(!open(vec![steer(), Observation::AgentKilled]));
        let interrupt = || Observation::Op {
            id: "op-2".into(),
            op: ClientOp::Interrupt { turn_id: None },
        };
        let ended = event(AgentEvent::TurnEnded {
            turn_id: None,
            end: TurnEnd::Complete,
        });
        assert!(open(vec![ended.clone(), interrupt()]));
        assert!(!open(vec![interrupt(), ended]));
    }
}
