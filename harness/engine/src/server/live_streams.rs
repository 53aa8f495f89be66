//! Ends the streams of a case wherever they are, without a gate.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use cutpoint_scenario::ast::DisconnectKind;

/// The streams of a case that are being sent.
#[derive(Debug, Default)]
pub struct LiveStreams {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    opened: u64,
    /// By number; each with how it is to end, once that is decided, and who waits for that.
    live: BTreeMap<u64, (Option<DisconnectKind>, Option<Waker>)>,
}

impl LiveStreams {
    /// Enters a stream that is about to be sent.
    pub fn open(self: &Arc<Self>) -> LiveStream {
        let mut state = self.lock();
        state.opened += 1;
        let number = state.opened;
        state.live.insert(number, (None, None));
        LiveStream {
            streams: self.clone(),
            number,
        }
    }

    /// Whether any stream is being sent.
    pub fn any(&self) -> bool {
        !self.lock().live.is_empty()
    }

    /// Ends the connections of all streams that are being sent.
    pub fn cut(&self, kind: DisconnectKind) {
        let mut state = self.lock();
        let decide = |(decided, waker): &mut (Option<DisconnectKind>, Option<Waker>)| {
            decided.get_or_insert(kind);
            waker.take()
        };
        let wakers: Vec<Waker> = state.live.values_mut().filter_map(decide).collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is one step, so a panic leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that is being sent, until this is dropped.
#[derive(Debug)]
pub struct LiveStream {
    streams: Arc<LiveStreams>,
    number: u64,
}

impl LiveStream {
    /// How the stream's connection is to end at once, if it is; otherwise the task is woken when
    /// that is decided.
    pub fn poll(&self, context: &Context<'_>) -> Option<DisconnectKind> {
        let mut state = self.streams.lock();
        let (decided, waker) = state.live.get_mut(&self.number)?;
        if decided.is_none()
            && !waker
                .as_ref()
                .is_some_and(|it| it.will_wake(context.waker()))
        {
            *waker = Some(context.waker().clone());
        }
        *decided
    }
}

impl Drop for LiveStream {
    fn drop(&mut self) {
        self.streams.lock().live.remove(&self.number);
    }
}
