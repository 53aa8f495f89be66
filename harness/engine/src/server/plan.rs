//! What a reply sends, frame by frame, and where gates stand in it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cutpoint_protocol::compose::{ComposedEvent, Composer, ItemContent};
use cutpoint_protocol::event::EventError;
use cutpoint_protocol::request::ResponsesRequest;
use cutpoint_protocol::sse::{Directive, Document};
use cutpoint_protocol::{EventKind, Item, StreamEvent};
use cutpoint_scenario::ast::{
    CutPoint, DeltaIndex, DeltaSource, DisconnectKind, ReplyEnd, ReplyPart,
};

use super::gate::Gate;

/// One frame of a stream.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The bytes as they go over the wire.
    pub bytes: Bytes,
    /// The event that the frame carries, if it carries a valid one.
    pub event: Option<StreamEvent>,
    /// How long to wait before it is sent.
    pub delay: Duration,
}

/// How a stream ends after its last frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The body ends in good order.
    Complete,
    /// Nothing more is sent; the connection stays open.
    Stall,
    /// The connection ends.
    Drop(DisconnectKind),
}

/// A whole stream.
#[derive(Debug, Clone)]
pub struct StreamPlan {
    /// The HTTP status.
    pub status: u16,
    /// The frames, in order.
    pub frames: Arc<[Frame]>,
    /// What follows the last one.
    pub ending: Ending,
}

/// A place in a stream: that many frames were sent, and that many bytes of the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Whole frames sent.
    pub frame: usize,
    /// Bytes of the frame after them.
    pub byte: usize,
}

/// A gate with its place in a stream.
#[derive(Debug, Clone)]
pub struct GateHold {
    /// Its place in the stream.
    pub at: Position,
    /// The gate.
    pub gate: Arc<Gate>,
}

/// Why a reply cannot be streamed as the scenario has it. Each is a mistake of the scenario.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A portable `shell` part, and no tool that could run it.
    #[error("the reply calls `shell {call}`, but the request advertises no shell tool")]
    NoShellTool {
        /// The call.
        call: String,
    },
    /// An `event` part that is no event.
    #[error("{0}")]
    NotAnEvent(String),
    /// An `item` part that is no item.
    #[error("{0}")]
    NotAnItem(String),
    /// A cut point inside an event that is shorter.
    #[error("event {event} has {size} bytes, so there is no cut after byte {byte} inside it")]
    NoSuchByte {
        /// The event, counted from 1.
        event: usize,
        /// Its size in bytes.
        size: usize,
        /// The byte of the cut point.
        byte: usize,
    },
    /// A cut point at an event that the stream does not have.
    #[error("the stream has {count} events, so there is no event {event}")]
    NoSuchEvent {
        /// How many events there are.
        count: usize,
        /// The event of the cut point, counted from 1.
        event: usize,
    },
    /// A cut point at a delta that the stream does not have.
    #[error("there are {count} deltas, so there is no delta {delta}")]
    NoSuchDelta {
        /// How many deltas there are.
        count: usize,
        /// The delta of the cut point, counted from 1.
        delta: usize,
    },
}

impl From<EventError> for PlanError {
    fn from(error: EventError) -> Self {
        Self::NotAnEvent(error.to_string())
    }
}

/// Composes the stream of a scenario's reply. A portable `shell` part becomes a call of the tool
/// that the request advertises; with `asks_approval` its arguments ask for the user's approval.
///
/// # Errors
/// If the request advertises no tool that could run a `shell` part, or an `event` part is no event.
pub fn compose(
    parts: &[ReplyPart],
    end: &ReplyEnd,
    response_id: &str,
    request: &ResponsesRequest,
    asks_approval: bool,
) -> Result<StreamPlan, PlanError> {
    let mut composer = Composer::new(response_id, request.model(), CREATED_AT_S);
    let mut extras = Vec::new();
    for part in parts {
        match part {
            ReplyPart::Malformed { text } => {
                let bytes = Bytes::from(format!("{text}\n\n"));
                extras.push((composer.len(), Extra::Raw(bytes)));
            }
            ReplyPart::Pause { duration } => extras.push((composer.len(), Extra::Pause(*duration))),
            ReplyPart::Event { json } => {
                let event = StreamEvent::parse(json)?;
                composer.event(event);
            }
            part => add_item(&mut composer, part, request, asks_approval)?,
        }
    }
    let (events, ending) = finish(composer, end);
    Ok(StreamPlan {
        status: 200,
        frames: interleave(events, extras),
        ending,
    })
}

/// When composed responses claim to have been created, in seconds since 1970: a fixed time, so that
/// the same scenario gives the same bytes.
const CREATED_AT_S: u64 = 1_760_000_000;

enum Extra {
    Raw(Bytes),
    Pause(Duration),
}

fn add_item(
    composer: &mut Composer,
    part: &ReplyPart,
    request: &ResponsesRequest,
    asks_approval: bool,
) -> Result<(), PlanError> {
    match part {
        ReplyPart::Text { text, chunks } => composer.item(&ItemContent::Text {
            text,
            chunks: *chunks,
        }),
        ReplyPart::Reasoning { text, chunks } => {
            composer.item(&ItemContent::Reasoning {
                text,
                chunks: *chunks,
            });
        }
        ReplyPart::Shell {
            call,
            command,
            chunks,
        } => {
            let tool = request
                .shell_tool()
                .ok_or_else(|| PlanError::NoShellTool { call: call.clone() })?;
            shell(
                composer,
                tool.call(command, asks_approval),
                call,
                command,
                *chunks,
            );
        }
        ReplyPart::Function {
            call,
            name,
            arguments,
            chunks,
        } => {
            composer.item(&ItemContent::Function {
                call_id: call,
                name,
                arguments,
                chunks: *chunks,
            });
        }
        ReplyPart::Custom {
            call,
            name,
            input,
            chunks,
        } => {
            composer.item(&ItemContent::Custom {
                call_id: call,
                name,
                input,
                chunks: *chunks,
            });
        }
        ReplyPart::LocalShell { call, command } => {
            composer.item(&ItemContent::LocalShell {
                call_id: call,
                command,
            });
        }
        ReplyPart::Item { json } => {
            let bad = |error: &dyn std::fmt::Display| PlanError::NotAnItem(error.to_string());
            let value = serde_json::from_str(json).map_err(|error| bad(&error))?;
            let item = Item::from_value(value).map_err(|error| bad(&error))?;
            composer.item(&ItemContent::Raw(item));
        }
        ReplyPart::Event { .. } | ReplyPart::Malformed { .. } | ReplyPart::Pause { .. } => {}
    }
    Ok(())
}

fn shell(
    composer: &mut Composer,
    function: Option<(&'static str, String)>,
    call_id: &str,
    command: &str,
    chunks: usize,
) {
    match function {
        Some((name, arguments)) => {
            composer.item(&ItemContent::Function {
                call_id,
                name,
                arguments: &arguments,
                chunks,
            });
        }
        None => {
            let words = ["bash", "-c", command].map(str::to_owned);
            composer.item(&ItemContent::LocalShell {
                call_id,
                command: &words,
            });
        }
    }
}

fn finish(composer: Composer, end: &ReplyEnd) -> (Vec<ComposedEvent>, Ending) {
    const MESSAGE: &str = "The server had an error while processing your request.";
    match end {
        ReplyEnd::Completed => (composer.completed(), Ending::Complete),
        ReplyEnd::Stall => (composer.unfinished(), Ending::Stall),
        ReplyEnd::Drop(kind) => (composer.unfinished(), Ending::Drop(*kind)),
        ReplyEnd::Incomplete { reason } => (composer.incomplete(reason), Ending::Complete),
        ReplyEnd::Failed { code, message } => (
            composer.failed(code, message.as_deref().unwrap_or(MESSAGE)),
            Ending::Complete,
        ),
        ReplyEnd::Error {
            code,
            message,
            nested,
        } => {
            let message = message.as_deref().unwrap_or(MESSAGE);
            (composer.error(code, message, *nested), Ending::Complete)
        }
    }
}

fn interleave(events: Vec<ComposedEvent>, extras: Vec<(usize, Extra)>) -> Arc<[Frame]> {
    let mut extras = extras.into_iter().peekable();
    let mut frames = Vec::new();
    let mut delay = Duration::ZERO;
    for (at, ComposedEvent { event, bytes }) in events.into_iter().enumerate() {
        while let Some((_, extra)) = extras.next_if(|(before, _)| *before <= at) {
            match extra {
                Extra::Raw(bytes) => {
                    let delay = std::mem::take(&mut delay);
                    frames.push(Frame {
                        bytes,
                        event: None,
                        delay,
                    });
                }
                Extra::Pause(pause) => delay += pause,
            }
        }
        let delay = std::mem::take(&mut delay);
        frames.push(Frame {
            bytes,
            event: Some(event),
            delay,
        });
    }
    for (_, extra) in extras {
        if let Extra::Raw(bytes) = extra {
            frames.push(Frame {
                bytes,
                event: None,
                delay: Duration::ZERO,
            });
        }
    }
    frames.into()
}

/// The stream of a recorded exchange, byte for byte; with its original timing if `timed`.
pub fn recorded(document: &Document, timed: bool) -> StreamPlan {
    let frames = document.frames.iter().map(|frame| Frame {
        bytes: Bytes::copy_from_slice(&frame.wire),
        event: frame
            .event
            .as_ref()
            .and_then(|event| StreamEvent::parse(&event.data).ok()),
        delay: if timed {
            delay_of(&frame.directives)
        } else {
            Duration::ZERO
        },
    });
    let status = document
        .setting("status")
        .and_then(|status| status.parse().ok())
        .unwrap_or(200);
    let ending = match document.setting("end") {
        Some("reset") => Ending::Drop(DisconnectKind::Reset),
        Some("close") => Ending::Drop(DisconnectKind::Close),
        Some("stall") => Ending::Stall,
        _ => Ending::Complete,
    };
    StreamPlan {
        status,
        frames: frames.collect(),
        ending,
    }
}

fn delay_of(directives: &[Directive]) -> Duration {
    let delay = |directive: &Directive| match directive {
        Directive::Delay(delay) => *delay,
        Directive::Settings(_) => Duration::ZERO,
    };
    directives.iter().map(delay).sum()
}

impl StreamPlan {
    /// The terminal event's `response`: the answer to a request that does not stream.
    pub fn whole_response(&self) -> Option<&serde_json::Value> {
        let terminal = |frame: &Frame| frame.event.as_ref().is_some_and(StreamEvent::is_terminal);
        let frame = self.frames.iter().rev().find(|frame| terminal(frame))?;
        frame.event.as_ref()?.response()
    }

    /// The items that the stream emits whole.
    pub fn output(&self) -> impl Iterator<Item = Item> {
        let done = |event: &&StreamEvent| event.kind() == Some(EventKind::OutputItemDone);
        self.frames
            .iter()
            .filter_map(|frame| frame.event.as_ref())
            .filter(done)
            .filter_map(StreamEvent::item)
    }

    /// The place of a gate at `point` in this stream, which is reply number `reply`
    /// (counted from 1). `None` if the point is elsewhere.
    ///
    /// # Errors
    /// If the point names something that this stream does not have.
    pub fn place(&self, point: &CutPoint, reply: usize) -> Result<Option<Position>, PlanError> {
        let after = |frame: usize| Ok(Some(Position { frame, byte: 0 }));
        match point {
            CutPoint::Headers { reply: n } if *n == reply => after(0),
            CutPoint::StreamEvent { reply: n, event } if *n == reply => {
                after(self.event_frame(*event)? + 1)
            }
            CutPoint::Byte {
                reply: n,
                event,
                byte,
            } if *n == reply => {
                let frame = self.event_frame(*event)?;
                let size = self.frames[frame].bytes.len();
                if *byte >= size {
                    return Err(PlanError::NoSuchByte {
                        event: *event,
                        size,
                        byte: *byte,
                    });
                }
                Ok(Some(Position { frame, byte: *byte }))
            }
            CutPoint::End { reply: n } if *n == reply => {
                let terminal =
                    |frame: &Frame| frame.event.as_ref().is_some_and(StreamEvent::is_terminal);
                let at = self.frames.iter().position(terminal);
                after(at.unwrap_or(self.frames.len()))
            }
            CutPoint::Delta {
                nth,
                of: DeltaSource::Reply(n),
            } if *n == reply => self.delta(*nth, None),
            CutPoint::Delta {
                nth,
                of: DeltaSource::Call(call),
            } => match self.item_of(call) {
                Some(item_id) => self.delta(*nth, Some(&item_id)),
                None => Ok(None),
            },
            CutPoint::Added { call } => Ok(self.item_event(call, EventKind::OutputItemAdded)),
            CutPoint::Done { call } => Ok(self.item_event(call, EventKind::OutputItemDone)),
            _ => Ok(None),
        }
    }

    /// The frame that carries the n-th event, counted from 1. Frames without one (comments that keep
    /// a connection alive, malformed ones) don't count.
    fn event_frame(&self, event: usize) -> Result<usize, PlanError> {
        let mut frames = (0..self.frames.len()).filter(|at| self.frames[*at].event.is_some());
        event
            .checked_sub(1)
            .and_then(|skipped| frames.nth(skipped))
            .ok_or_else(|| {
                let count = self
                    .frames
                    .iter()
                    .filter(|frame| frame.event.is_some())
                    .count();
                PlanError::NoSuchEvent { count, event }
            })
    }

    fn delta(&self, nth: DeltaIndex, item_id: Option<&str>) -> Result<Option<Position>, PlanError> {
        let is_one = |event: &StreamEvent| {
            event.is_delta() && item_id.is_none_or(|id| event.item_id() == Some(id))
        };
        let frames = self.frames.iter().enumerate();
        let deltas: Vec<usize> = frames
            .filter(|(_, frame)| frame.event.as_ref().is_some_and(is_one))
            .map(|(at, _)| at + 1)
            .collect();
        let at = match nth {
            DeltaIndex::At(n) => n,
            DeltaIndex::Middle => deltas.len().div_ceil(2),
            DeltaIndex::Last => deltas.len(),
        };
        match deltas.get(at.wrapping_sub(1)) {
            Some(frame) => Ok(Some(Position {
                frame: *frame,
                byte: 0,
            })),
            None => Err(PlanError::NoSuchDelta {
                count: deltas.len(),
                delta: at,
            }),
        }
    }

    fn item_of(&self, call: &str) -> Option<String> {
        let items = self
            .frames
            .iter()
            .filter_map(|frame| frame.event.as_ref()?.item());
        items
            .filter(|item| item.call_id() == Some(call))
            .find_map(|item| item.id().map(str::to_owned))
    }

    fn item_event(&self, call: &str, kind: EventKind) -> Option<Position> {
        let is_it = |frame: &Frame| {
            frame.event.as_ref().is_some_and(|event| {
                event.kind() == Some(kind)
                    && event
                        .item()
                        .is_some_and(|item| item.call_id() == Some(call))
            })
        };
        let at = self.frames.iter().position(is_it)?;
        Some(Position {
            frame: at + 1,
            byte: 0,
        })
    }
}
