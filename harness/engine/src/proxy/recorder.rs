//! Where captures go: redacted on a thread of their own, so that no stream waits for that.

use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cutpoint_recording::{
    CapturedRequest, CapturedResponse, Exchange, RecordedRequest, RedactionReport, Redactor,
    Response, ResponseCut,
};
use tokio::sync::watch;

use super::decode::decode;

/// Headers as they came.
pub(super) type Headers = Vec<(String, String)>;

/// An exchange as it came over the wire. RawExchange bytes stay in memory.
#[derive(Debug)]
pub(super) struct RawExchange {
    pub(super) order: usize,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) request_headers: Headers,
    pub(super) request_body: Bytes,
    pub(super) status: u16,
    pub(super) headers: Headers,
    pub(super) chunks: Vec<(Duration, Bytes)>,
    pub(super) cut: Option<ResponseCut>,
}

/// What was recorded.
#[derive(Debug)]
pub struct RecordedSession {
    /// The exchanges, in the order of their requests, redacted.
    pub exchanges: Vec<Exchange>,
    /// What was redacted.
    pub report: RedactionReport,
    /// What else there is to know, one sentence each.
    pub notes: Vec<String>,
}

/// Bounds of what is recorded.
#[derive(Debug, Clone, Copy)]
pub struct CaptureLimits {
    /// Of one body, in bytes, packed and unpacked.
    pub body_bytes: usize,
    /// Of all bodies together, in bytes.
    pub total_bytes: usize,
    /// Of the number of exchanges.
    pub exchanges: usize,
}

impl Default for CaptureLimits {
    /// What [`cutpoint_recording::Recording`] can be read back with.
    fn default() -> Self {
        Self {
            body_bytes: 60 << 20,
            total_bytes: 900 << 20,
            exchanges: 6000,
        }
    }
}

/// What the thread has made of the captures: exchanges by the order of their requests.
type RedactedSession = (Vec<(usize, Exchange)>, RedactionReport);

/// Takes captures from the connections.
#[derive(Debug)]
pub(super) struct Recorder {
    jobs: Mutex<Option<mpsc::Sender<RawExchange>>>,
    thread: Mutex<Option<JoinHandle<RedactedSession>>>,
    notes: Arc<Mutex<Vec<String>>>,
    next: Mutex<usize>,
    live: watch::Sender<usize>,
    pub(super) limits: CaptureLimits,
}

impl Recorder {
    pub(super) fn start(redactor: Redactor, limits: CaptureLimits) -> Arc<Self> {
        let (jobs, taken) = mpsc::channel();
        let notes = Arc::<Mutex<Vec<String>>>::default();
        let told = notes.clone();
        let thread = std::thread::spawn(move || take(&taken, redactor, limits, &told));
        Arc::new(Self {
            jobs: Mutex::new(Some(jobs)),
            thread: Mutex::new(Some(thread)),
            notes,
            next: Mutex::default(),
            live: watch::Sender::new(0),
            limits,
        })
    }

    /// Begins an exchange; it is recorded when the capture is dropped.
    pub(super) fn begin(self: &Arc<Self>, mut raw: RawExchange) -> Capture {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        raw.order = *next;
        *next += 1;
        self.live.send_modify(|live| *live += 1);
        Capture {
            recorder: self.clone(),
            raw: Some(raw),
            bytes: 0,
            started: Instant::now(),
            has_head: false,
        }
    }

    /// Keeps a sentence for the end.
    pub(super) fn note(&self, sentence: String) {
        note(&self.notes, sentence);
    }

    /// Waits until no exchange is under way, no longer than `limit`.
    pub(super) async fn idle(&self, limit: Duration) {
        let mut live = self.live.subscribe();
        // Running out of time is an answer too: what is under way is recorded as far as it came.
        let _ = tokio::time::timeout(limit, live.wait_for(|live| *live == 0)).await;
    }

    /// What was recorded; nothing is taken after that.
    pub(super) fn finish(&self) -> RecordedSession {
        drop(
            self.jobs
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let joined = thread.map(JoinHandle::join);
        let (mut exchanges, report) = match joined {
            Some(Ok(recorded)) => recorded,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Default::default(),
        };
        exchanges.sort_by_key(|(order, _)| *order);
        let numbered = exchanges.into_iter().enumerate();
        let notes = std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner));
        RecordedSession {
            exchanges: numbered
                .map(|(at, (_, exchange))| Exchange {
                    number: at + 1,
                    ..exchange
                })
                .collect(),
            report,
            notes,
        }
    }
}

fn note(notes: &Mutex<Vec<String>>, sentence: String) {
    let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
    if !notes.contains(&sentence) {
        notes.push(sentence);
    }
}

/// The thread: takes captures until all senders are gone.
fn take(
    jobs: &mpsc::Receiver<RawExchange>,
    mut redactor: Redactor,
    limits: CaptureLimits,
    notes: &Mutex<Vec<String>>,
) -> RedactedSession {
    let mut taken = Vec::new();
    let mut total = 0;
    for raw in jobs {
        total += raw.request_body.len()
            + raw
                .chunks
                .iter()
                .map(|(_, bytes)| bytes.len())
                .sum::<usize>();
        if total > limits.total_bytes || taken.len() == limits.exchanges {
            note(notes, "the session is longer than a recording can be: its end is missing; record a shorter one".to_owned());
            continue;
        }
        let mut tell = |what: &str, problem: Option<String>| {
            let path = raw.path.split('?').next().unwrap_or_default();
            if let Some(problem) = problem {
                note(notes, format!("{what} {} {path}: {problem}", raw.method));
            }
        };
        let (request, response) = redacted(&raw, &mut redactor, limits, &mut tell);
        let exchange = Exchange {
            number: taken.len() + 1,
            request: Some(request),
            response,
        };
        taken.push((raw.order, exchange));
    }
    (taken, redactor.report())
}

fn redacted(
    raw: &RawExchange,
    redactor: &mut Redactor,
    limits: CaptureLimits,
    tell: &mut dyn FnMut(&str, Option<String>),
) -> (RecordedRequest, Response) {
    let body = [(Duration::ZERO, raw.request_body.clone())];
    let (body, problem) = decode(encoding(&raw.request_headers), &body, limits.body_bytes);
    tell("a request's body is not recorded whole,", problem);
    let body: Vec<u8> = body.into_iter().flat_map(|(_, bytes)| bytes).collect();
    let (chunks, problem) = decode(encoding(&raw.headers), &raw.chunks, limits.body_bytes);
    let cut = raw.cut.or(problem.is_some().then_some(ResponseCut::Close));
    tell("an answer's body is not recorded whole,", problem);
    let request = CapturedRequest {
        method: &raw.method,
        path: &raw.path,
        headers: &raw.request_headers,
        body: &body,
    };
    let response = CapturedResponse {
        status: raw.status,
        headers: &raw.headers,
        chunks: &chunks,
        cut,
    };
    (request.redacted(redactor), response.redacted(redactor))
}

fn encoding(headers: &Headers) -> &str {
    let found = headers.iter().find(|(name, _)| name == "content-encoding");
    found.map_or("", |(_, value)| value)
}

/// An exchange under way. Dropped, it is recorded: as cut off by the client, unless it was ended.
#[derive(Debug)]
pub(super) struct Capture {
    recorder: Arc<Recorder>,
    /// Absent once the exchange is not to be recorded.
    raw: Option<RawExchange>,
    bytes: usize,
    started: Instant,
    has_head: bool,
}

impl Capture {
    /// The answer's head has come.
    pub(super) fn head(&mut self, status: u16, headers: Headers) {
        self.has_head = true;
        if let Some(raw) = &mut self.raw {
            (raw.status, raw.headers) = (status, headers);
        }
    }

    /// A piece of the body has come.
    pub(super) fn data(&mut self, bytes: &Bytes) {
        let limit = self.recorder.limits.body_bytes;
        let Some(raw) = &mut self.raw else { return };
        let too_large = self.bytes.saturating_add(bytes.len()) > limit;
        if !too_large {
            self.bytes += bytes.len();
            raw.chunks.push((self.started.elapsed(), bytes.clone()));
            return;
        }
        if self.bytes < usize::MAX {
            self.bytes = usize::MAX;
            self.recorder.note(format!(
                "an answer was larger than the {limit} bytes that one may have: the client got all of it, the recording is cut off there"
            ));
        }
    }

    /// The exchange has ended, well or not.
    pub(super) fn end(&mut self, cut: Option<ResponseCut>) {
        if let Some(raw) = &mut self.raw {
            raw.cut = if self.bytes == usize::MAX {
                Some(ResponseCut::Close)
            } else {
                cut
            };
        }
    }

    /// The exchange is not to be recorded, because there was none.
    pub(super) fn forget(&mut self) {
        self.raw = None;
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if let Some(raw) = self
            .raw
            .take()
            .filter(|raw| self.has_head || raw.asks_model())
        {
            let jobs = self
                .recorder
                .jobs
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(jobs) = &*jobs {
                // The other end is there until the sender is taken away.
                let _ = jobs.send(raw);
            }
        }
        self.recorder.live.send_modify(|live| *live -= 1);
    }
}

impl RawExchange {
    /// Whether the model is asked, so that a request which the client gave up says something.
    fn asks_model(&self) -> bool {
        self.method == "POST"
            && self
                .path
                .split('?')
                .next()
                .is_some_and(|path| path.ends_with("/responses"))
    }
}
