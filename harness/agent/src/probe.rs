//! How a harness in the same process looks on: named points, and events as they are emitted.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use cutpoint_protocol::session::Event;

/// The labels of all points. A client's op, a request, an event and a write each pass through some
/// of them; `event.…` stands before the event's way into the queue.
pub const POINTS: &[&str] = &[
    "abort.grace",
    "abort.hard",
    "abort.take",
    "abort.taken",
    "approval.answered",
    "approval.asked",
    "approval.cleared",
    "approval.decided",
    "compact.replace",
    "event.agent_message",
    "event.agent_message_delta",
    "event.agent_reasoning_delta",
    "event.apply_patch_approval_request",
    "event.background_event",
    "event.context_compacted",
    "event.error",
    "event.exec_approval_request",
    "event.exec_command_begin",
    "event.exec_command_end",
    "event.exec_command_output_delta",
    "event.forked",
    "event.rolled_back",
    "event.session_configured",
    "event.shutdown_complete",
    "event.stream_error",
    "event.sub_agent_ended",
    "event.sub_agent_event",
    "event.sub_agent_started",
    "event.token_count",
    "event.turn_aborted",
    "event.turn_complete",
    "event.turn_failed",
    "event.turn_started",
    "event.unknown",
    "event.user_input_request",
    "event.user_message",
    "input.join",
    "interrupt.submitted",
    "marker.append",
    "marker.flush",
    "question.answered",
    "question.asked",
    "request.backoff",
    "request.build",
    "request.recover",
    "request.send",
    "rollout.append",
    "rollout.open",
    "rollout.sync",
    "rollout.write",
    "shutdown.flush",
    "state.lock",
    "stream.backoff",
    "stream.event",
    "submission.taken",
    "tool.exited",
    "tool.kill",
    "tool.spawn",
    "turn.calls",
    "turn.finish",
    "turn.flush",
    "turn.spawn",
    "turn.taken",
];

/// What the agent awaits at a point.
pub type PointFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An observer.
pub trait Probe: Send + Sync {
    /// Called as the event enters the event queue: from now on the client could receive it.
    fn emitted(&self, event: &Event) {
        let _ = event;
    }

    /// Called as the agent reaches a named point; it goes on when the future, if there is one, is
    /// done.
    fn point(&self, label: &'static str) -> Option<PointFuture> {
        let _ = label;
        None
    }
}

/// The probe, if there is one.
#[derive(Clone, Default)]
pub(crate) struct Hooks(Option<Arc<dyn Probe>>);

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hooks").field(&self.0.is_some()).finish()
    }
}

impl Hooks {
    pub(crate) fn new(probe: Option<Arc<dyn Probe>>) -> Self {
        Self(probe)
    }

    /// The probe for a sub-agent of the session: it is held at the same points, while its events are
    /// seen only as they are forwarded.
    pub(crate) fn of_sub_agent(&self) -> Option<Arc<dyn Probe>> {
        let probe = self.0.clone()?;
        Some(Arc::new(PointsOnly(probe)))
    }

    pub(crate) fn emitted(&self, event: &Event) {
        if let Some(probe) = &self.0 {
            probe.emitted(event);
        }
    }

    /// A cut point. Without a probe it is one comparison.
    pub(crate) async fn point(&self, label: &'static str) {
        if let Some(hold) = self.0.as_ref().and_then(|probe| probe.point(label)) {
            hold.await;
        }
    }
}

/// A probe that does not see events.
struct PointsOnly(Arc<dyn Probe>);

impl Probe for PointsOnly {
    fn point(&self, label: &'static str) -> Option<PointFuture> {
        self.0.point(label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    fn collect(directory: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for (at, start) in text
                .match_indices(".point(\"")
                .chain(text.match_indices("=> \"event."))
            {
                let rest = &text[at + start.find('"').unwrap() + 1..];
                found.insert(rest[..rest.find('"').unwrap()].to_owned());
            }
        }
    }

    #[test]
    fn every_point_is_listed() {
        let mut found = BTreeSet::new();
        collect(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
            &mut found,
        );
        let listed: BTreeSet<String> = POINTS.iter().map(|point| (*point).to_owned()).collect();
        assert_eq!(found, listed);
    }
}
