//! The body of a streamed response: frames, gates, and how it ends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use cutpoint_scenario::ast::DisconnectKind;
use cutpoint_trace::{Observation, StreamEnd};
use hyper::body::{Body, Frame as HttpFrame};
use serde_json::Value;
use tokio::time::{Instant, Sleep, sleep_until};

use super::ConnectionControl;
use super::gate::GateDecision;
use super::live_streams::LiveStream;
use super::plan::{Ending, Frame, GateHold, Position, StreamPlan};
use crate::tracer::Tracer;

/// How the frames of a stream are handed to the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pace {
    /// Each frame is flushed before the next one is taken, as the API does it.
    #[default]
    Flushed,
    /// As many frames as the connection takes at once.
    Burst,
}

/// Called once when a stream was sent whole.
pub type OnSent = Box<dyn FnOnce() + Send + Sync>;

/// The body of a streamed response. Holds no more than the plan, and nothing that grows.
pub struct GatedBody {
    frames: Arc<[Frame]>,
    ending: Ending,
    /// Gates in the order of their positions; those before the cursor are done.
    holds: Vec<GateHold>,
    next_hold: usize,
    cursor: Position,
    pace: Pace,
    /// The connection's count of flushes when something was last handed over; `None` once that is
    /// known to be flushed.
    unflushed: Option<u64>,
    timer: Option<Pin<Box<Sleep>>>,
    waited_for: Option<usize>,
    exchange: usize,
    tracer: Option<Arc<Tracer>>,
    control: Arc<ConnectionControl>,
    on_sent: Option<OnSent>,
    live: Option<LiveStream>,
    done: bool,
}

impl GatedBody {
    /// The body that sends `plan` and holds at `holds`.
    pub fn new(
        plan: &StreamPlan,
        mut holds: Vec<GateHold>,
        control: Arc<ConnectionControl>,
    ) -> Self {
        holds.sort_by_key(|hold| hold.at);
        // The head is handed over with the first piece, or before the first gate.
        let unflushed = Some(control.flushes());
        Self {
            frames: plan.frames.clone(),
            ending: plan.ending,
            holds,
            next_hold: 0,
            cursor: Position { frame: 0, byte: 0 },
            pace: Pace::default(),
            unflushed,
            timer: None,
            waited_for: None,
            exchange: 0,
            tracer: None,
            control,
            on_sent: None,
            live: None,
            done: false,
        }
    }

    /// Sets how frames are handed over.
    #[must_use]
    pub fn pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// Records what is sent.
    #[must_use]
    pub fn traced(mut self, exchange: usize, tracer: Option<Arc<Tracer>>) -> Self {
        self.exchange = exchange;
        self.tracer = tracer;
        self
    }

    /// Calls `on_sent` when the whole stream was handed to the connection.
    #[must_use]
    pub fn on_sent(mut self, on_sent: OnSent) -> Self {
        self.on_sent = Some(on_sent);
        self
    }

    /// Lets the stream be ended from outside, wherever it is.
    #[must_use]
    pub fn live(mut self, live: LiveStream) -> Self {
        self.live = Some(live);
        self
    }

    /// Lets a stream that ends at once, by dropping its connection, end before its head is sent.
    #[must_use]
    pub fn without_head(mut self) -> Self {
        self.unflushed = None;
        self
    }

    fn record(&self, what: impl FnOnce(usize) -> Observation) {
        if let Some(tracer) = &self.tracer {
            tracer.record(what(self.exchange));
        }
    }

    /// Waits until the connection has written what it was given, before anything is claimed about
    /// what the client can have seen.
    fn poll_flushed(&mut self) -> Poll<()> {
        if self
            .unflushed
            .is_some_and(|before| self.control.flushes() == before)
        {
            self.control.await_flush();
            return Poll::Pending;
        }
        self.unflushed = None;
        Poll::Ready(())
    }

    fn poll_holds(&mut self, context: &mut Context<'_>) -> Poll<Option<DisconnectKind>> {
        while let Some(hold) = self.holds.get(self.next_hold) {
            if hold.at > self.cursor {
                break;
            }
            let gate = hold.gate.clone();
            if gate.is_closed() {
                ready!(self.poll_flushed());
            }
            let verdict = ready!(gate.poll(self.control.ends(), context));
            if let GateDecision::Drop(kind) = verdict {
                // Decided before it was reached, so no task has waited for the flush yet.
                ready!(self.poll_flushed());
                return Poll::Ready(Some(kind));
            }
            self.next_hold += 1;
        }
        Poll::Ready(None)
    }

    fn poll_delay(&mut self, delay: Duration, context: &mut Context<'_>) -> Poll<()> {
        if delay.is_zero() || self.waited_for == Some(self.cursor.frame) {
            return Poll::Ready(());
        }
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + delay)));
        ready!(timer.as_mut().poll(context));
        self.timer = None;
        self.waited_for = Some(self.cursor.frame);
        Poll::Ready(())
    }

    /// The next piece: up to the next gate inside the frame, or to its end.
    fn take_piece(&mut self) -> Bytes {
        let frame = &self.frames[self.cursor.frame];
        let start = self.cursor.byte;
        let inside = self.holds.get(self.next_hold).map(|hold| hold.at);
        let cut = inside.filter(|at| at.frame == self.cursor.frame && at.byte > start);
        let end = cut.map_or(frame.bytes.len(), |at| at.byte);
        let piece = frame.bytes.slice(start..end);
        if cut.is_some() {
            self.cursor.byte = end;
            let index = self.cursor.frame + 1;
            self.record(|exchange| Observation::SentPart {
                exchange,
                index,
                bytes: end,
            });
        } else {
            if self.tracer.is_some() {
                let data = data_of(frame);
                let index = self.cursor.frame + 1;
                self.record(|exchange| Observation::Sent {
                    exchange,
                    index,
                    data,
                });
            }
            self.cursor = Position {
                frame: self.cursor.frame + 1,
                byte: 0,
            };
        }
        self.unflushed = Some(self.control.flushes());
        piece
    }

    fn end(&mut self, how: StreamEnd) {
        self.done = true;
        self.live = None;
        self.record(|exchange| Observation::StreamEnd { exchange, how });
    }

    fn end_with(&mut self, kind: DisconnectKind) -> Option<Result<HttpFrame<Bytes>, io::Error>> {
        match kind {
            DisconnectKind::End => {
                self.end(StreamEnd::Cut);
                None
            }
            DisconnectKind::Close => {
                self.end(StreamEnd::Close);
                Some(Err(io::Error::other(
                    "the scenario closes the connection here",
                )))
            }
            DisconnectKind::Reset => {
                self.end(StreamEnd::Reset);
                self.control.reset_on_drop();
                Some(Err(io::Error::other(
                    "the scenario resets the connection here",
                )))
            }
        }
    }
}

fn data_of(frame: &Frame) -> Arc<Value> {
    match &frame.event {
        Some(event) => event.as_value().clone(),
        None => Arc::new(String::from_utf8_lossy(&frame.bytes).into()),
    }
}

impl Body for GatedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<HttpFrame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        if this.done {
            return Poll::Ready(None);
        }
        if let Some(kind) = this.live.as_ref().and_then(|live| live.poll(context)) {
            return Poll::Ready(this.end_with(kind));
        }
        if let Some(kind) = ready!(this.poll_holds(context)) {
            return Poll::Ready(this.end_with(kind));
        }
        if this.cursor.frame < this.frames.len() {
            if this.pace == Pace::Flushed && this.cursor.byte == 0 && this.cursor.frame > 0 {
                ready!(this.poll_flushed());
            }
            let delay = this.frames[this.cursor.frame].delay;
            ready!(this.poll_delay(delay, context));
            let piece = this.take_piece();
            return Poll::Ready(Some(Ok(HttpFrame::data(piece))));
        }
        match this.ending {
            Ending::Complete => {
                this.end(StreamEnd::Complete);
                if let Some(on_sent) = this.on_sent.take() {
                    on_sent();
                }
                Poll::Ready(None)
            }
            // Nothing wakes this task again but the client's going away.
            Ending::Stall => Poll::Pending,
            Ending::Drop(kind) => {
                ready!(this.poll_flushed());
                Poll::Ready(this.end_with(kind))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }
}

impl Drop for GatedBody {
    fn drop(&mut self) {
        if !self.done {
            self.record(|exchange| Observation::Disconnected { exchange });
        }
    }
}
