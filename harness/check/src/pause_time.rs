//! The times for which the harness kept the agent from its work.

use crate::view::View;
use cutpoint_trace::Observation;

/// The times for which the harness held the agent at points of its own, or did not read what it
/// sent, without overlaps.
pub(crate) struct PauseTimes(Vec<(u64, u64)>);

impl PauseTimes {
    pub(crate) fn of(view: &View<'_>) -> Self {
        let mut spans = Vec::new();
        let (mut points, mut deaf) = (0_usize, false);
        let mut since_ns = None;
        for entry in &view.trace.entries {
            match &entry.observation {
                Observation::Reached { point } if holds_the_agent(point) => points += 1,
                Observation::Released { point } if holds_the_agent(point) => {
                    points = points.saturating_sub(1);
                }
                Observation::Reading { on } => deaf = !on,
                _ => continue,
            }
            if points > 0 || deaf {
                since_ns.get_or_insert(entry.at_ns);
            } else if let Some(since_ns) = since_ns.take() {
                spans.push((since_ns, entry.at_ns));
            }
        }
        spans.extend(since_ns.map(|since_ns| (since_ns, view.end_ns())));
        Self(spans)
    }

    /// How much of them lies between two moments.
    pub(crate) fn within_ns(&self, from_ns: u64, until_ns: u64) -> u64 {
        let within =
            |(start, end): &(u64, u64)| (*end).min(until_ns).saturating_sub((*start).max(from_ns));
        self.0.iter().map(within).sum()
    }
}

/// Whether a cut point holds the agent itself, and no response.
pub(crate) fn holds_the_agent(point: &str) -> bool {
    point == "aborting" || point.starts_with("point ")
}
