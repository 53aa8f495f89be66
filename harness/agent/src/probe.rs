//! How a harness in the same process looks on: named points, and events as they are emitted.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use cutpoint_protocol::session::Event;

/// What the agent awaits at a point.
pub type Hold = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Somebody who looks on.
pub trait Probe: Send + Sync {
    /// Called as the event enters the event queue: from now on the client could receive it.
    fn emitted(&self, event: &Event) {
        let _ = event;
    }

    /// Called as the agent reaches a named point; it goes on when the future, if there is one, is
    /// done.
    fn point(&self, label: &'static str) -> Option<Hold> {
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
