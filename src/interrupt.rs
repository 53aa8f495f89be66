//! Ctrl-C and its kin: the first one ends the run in good order, the second one at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::Failure;

/// Waits for SIGINT, SIGTERM and SIGHUP.
pub struct Interrupts {
    signals: [Signal; 3],
}

impl Interrupts {
    /// Takes the signals over from the default, which would end this process and leave agents.
    pub fn new() -> Result<Self, Failure> {
        let take = |kind| {
            signal(kind).map_err(|error| Failure::trouble(format!("no signal handler: {error}")))
        };
        let signals = [
            take(SignalKind::interrupt())?,
            take(SignalKind::terminate())?,
            take(SignalKind::hangup())?,
        ];
        Ok(Self { signals })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
