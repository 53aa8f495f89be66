//! What the harness holds at cut points, entry by entry.

use crate::pause_time::holds_the_agent;
use cutpoint_trace::Observation;

/// The cut points that were reached and not released.
#[derive(Debug, Default)]
pub(super) struct OpenGates<'a> {
    /// Each with the exchange whose response is held there.
    points: Vec<(&'a str, Option<usize>)>,
    /// The exchange that the server reported last: its response reaches the next cut point.
    answered: Option<usize>,
}

impl<'a> OpenGates<'a> {
    pub(super) fn entry(&mut self, what: &'a Observation) {
        match what {
            Observation::Request { exchange, .. }
            | Observation::ResponseHead { exchange, .. }
            | Observation::Sent { exchange, .. }
            | Observation::SentPart { exchange, .. } => self.answered = Some(*exchange),
            Observation::Reached { point } => {
                let response = self.answered.filter(|_| !holds_the_agent(point));
                self.points.push((point, response));
            }
            Observation::Released { point } => {
                if let Some(held) = self.points.iter().position(|(held, _)| held == point) {
                    self.points.remove(held);
                }
            }
            // A response that the client gave up holds nothing.
            Observation::Disconnected { exchange } => {
                self.points
                    .retain(|(_, response)| *response != Some(*exchange));
            }
            Observation::AgentKilled | Observation::AgentExited { .. } => self.points.clear(),
            _ => {}
        }
    }

    /// Whether something is held.
    pub(super) fn any(&self) -> bool {
        !self.points.is_empty()
    }
}
