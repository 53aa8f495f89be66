//! A recording in memory.

use std::collections::BTreeMap;
use std::path::Path;

use cutpoint_protocol::request::{RequestError, ResponsesRequest};
use cutpoint_protocol::sse::Document;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::file_names::FileKind;
use crate::load::{self, LoadLimits};
use crate::manifest::VERSION;
use crate::problem::{LoadErrors, Problem};
use crate::{save, validate};

/// A recording: exchanges with a model server, in order.
#[derive(Debug, Clone)]
pub struct Recording {
    /// The recording's name: its folder's.
    pub name: String,
    /// Where the exchanges are from, in the words of the person who recorded them.
    pub source: String,
    /// The version of the format that the recording was read from.
    pub version: u32,
    /// When it was recorded, as a date and time of RFC 3339.
    pub created: Option<String>,
    /// Which agent made the requests.
    pub agent: Option<String>,
    /// The exchanges, in the order of their numbers.
    pub exchanges: Vec<Exchange>,
    /// What is known from the files and cannot be seen from the exchanges.
    pub(crate) origin: Origin,
}

/// One request with its answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    /// The exchange's number, counted from 1.
    pub number: usize,
    /// The request, if it was recorded.
    pub request: Option<RecordedRequest>,
    /// The answer.
    pub response: Response,
}

/// A request as `NN.request.json` holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedRequest {
    /// The method.
    pub method: String,
    /// The path, such as `/v1/responses`.
    pub path: String,
    /// The headers; secret ones are masked (see [`RecordedRequest::redact`]).
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Value,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Response {
    /// An event stream, byte for byte, with the directives of `cutpoint` in its comments.
    Stream(Document),
    /// A whole body.
    Body {
        /// The HTTP status.
        status: u16,
        /// The headers.
        headers: BTreeMap<String, String>,
        /// The body: a string is sent as it is, everything else as JSON.
        body: Value,
    },
}

/// What the loader knows of the files beyond what stands in the exchanges.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origin {
    /// The folder or file as the user named it; empty if the recording was never stored.
    pub(crate) place: String,
    /// Each file's path for messages, and the line that its content of interest starts on.
    pub(crate) parts: BTreeMap<(usize, FileKind), (String, usize)>,
    /// Problems that only the loader can see: changed, missing and unknown files.
    pub(crate) findings: Vec<Problem>,
}

impl Recording {
    /// An empty recording, to be filled and saved.
    pub fn new(name: &str, source: &str) -> Self {
        Self {
            name: name.to_owned(),
            source: source.to_owned(),
            version: VERSION,
            created: None,
            agent: None,
            exchanges: Vec::new(),
            origin: Origin::default(),
        }
    }

    /// Loads a recording: its folder, a folder of bare `NN.response.sse` captures, or one `.sse` file.
    ///
    /// If a crash interrupted [`Recording::save`] between its two renames, the old recording is read
    /// from where it was put aside.
    ///
    /// # Errors
    /// Everything that keeps the recording from being read, each with file and line.
    pub fn load(path: &Path) -> Result<Self, LoadErrors> {
        Self::load_within(path, &LoadLimits::default())
    }

    /// Loads a recording with limits of your own.
    ///
    /// # Errors
    /// As [`Recording::load`].
    pub fn load_within(path: &Path, limits: &LoadLimits) -> Result<Self, LoadErrors> {
        load::load(path, limits)
    }

    /// Stores the recording as the folder `dir`; a recording that stands there is replaced.
    ///
    /// A crash at any moment leaves the old or the new recording where [`Recording::load`] finds it.
    /// One writer at a time: of two that save the same folder at once, one may get an error.
    ///
    /// # Errors
    /// If writing fails, if the exchanges are not numbered from 1 without gaps, if a stream is empty,
    /// or if `dir` holds files that are no part of a recording and would be lost.
    pub fn save(&self, dir: &Path) -> std::io::Result<()> {
        save::save(self, dir)
    }

    /// Everything that is wrong or odd with the recording, in the order of the files.
    pub fn validate(&self) -> Vec<Problem> {
        validate::validate(self)
    }

    /// The exchange of that number.
    pub fn exchange(&self, number: usize) -> Option<&Exchange> {
        self.exchanges
            .iter()
            .find(|exchange| exchange.number == number)
    }
}

impl RecordedRequest {
    /// Whether this asks for a response of the model, and is not, say, a look at the list of models.
    pub fn is_responses(&self) -> bool {
        let path = self.path.split(['?', '#']).next().unwrap_or_default();
        self.method.eq_ignore_ascii_case("POST")
            && path.trim_end_matches('/').ends_with("/responses")
    }

    /// The body as a request of the Responses API.
    ///
    /// # Errors
    /// As [`ResponsesRequest::parse`].
    pub fn parse(&self) -> Result<ResponsesRequest, RequestError> {
        ResponsesRequest::parse(self.body.to_string().as_bytes())
    }
}

impl Exchange {
    /// An exchange whose request is not known.
    pub fn bare(number: usize, response: Response) -> Self {
        Self {
            number,
            request: None,
            response,
        }
    }
}

impl Response {
    /// The HTTP status: a stream's own setting, else 200.
    pub fn status(&self) -> u16 {
        match self {
            Self::Stream(document) => document
                .setting("status")
                .and_then(|status| status.parse().ok())
                .unwrap_or(200),
            Self::Body { status, .. } => *status,
        }
    }
}
