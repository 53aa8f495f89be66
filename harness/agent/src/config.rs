//! The configuration of a session.

use cutpoint_protocol::ids::ConversationId;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use crate::defect::DefectSet;

/// How a request carries the conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HistoryMode {
    /// Every request carries the whole history.
    #[default]
    Full,
    /// The server keeps the history: a request names the last completed response and carries what
    /// came since.
    Server,
}

/// Where the Responses API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host and port: `127.0.0.1:1234`.
    pub authority: String,
    /// The path before `/responses`, without a slash at its end: `/c/7/v1`.
    pub path: String,
}

/// Why a text is not an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The scheme is not `http`.
    #[error("`{0}` does not start with `http://`; the reference agent speaks plain HTTP only")]
    Scheme(String),
    /// There is no host, or a character that an authority or a path can't have.
    #[error("`{0}` has no host that can be connected to")]
    Host(String),
}

impl Endpoint {
    /// Reads `http://host[:port][/path]`; the port is 80 unless given.
    ///
    /// # Errors
    /// If the text is no such URL.
    pub fn parse(url: &str) -> Result<Self, EndpointError> {
        let rest = url
            .strip_prefix("http://")
            .ok_or_else(|| EndpointError::Scheme(url.to_owned()))?;
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let strange = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '@' | '?' | '#');
        if authority.is_empty() || authority.starts_with(':') || rest.contains(strange) {
            return Err(EndpointError::Host(url.to_owned()));
        }
        let has_port = authority
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let authority = if has_port {
            authority.to_owned()
        } else {
            format!("{authority}:80")
        };
        Ok(Self {
            authority,
            path: path.trim_end_matches('/').to_owned(),
        })
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        Self::parse(url)
    }
}

/// The configuration of a session.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the Responses API is.
    pub endpoint: Endpoint,
    /// The model asked for.
    pub model: String,
    /// Where new rollout files are created.
    pub rollout_dir: PathBuf,
    /// The directory in which tools run.
    pub cwd: PathBuf,
    /// How long an aborted turn may take to end by itself.
    pub grace: Duration,
    /// How often a request is sent again when it was refused with 429 or 5xx, or not answered.
    pub request_retries: u32,
    /// How often a broken stream is asked for again.
    pub stream_retries: u32,
    /// The first delay between two tries; each further one is twice as long.
    pub backoff_base: Duration,
    /// How long a stream may be silent before it counts as broken.
    pub stream_idle: Duration,
    /// How requests carry the conversation.
    pub history: HistoryMode,
    /// The planted defects that are switched on.
    pub defects: DefectSet,
    /// Ids and the jitter of delays come from this.
    pub seed: u64,
    /// The rollout to continue.
    pub resume: Option<PathBuf>,
    /// The id of a new session, a UUID in its canonical form; one from the seed unless given.
    pub session_id: Option<ConversationId>,
    /// How many events fit into the event queue; at least one.
    pub event_queue: usize,
    /// How many agents stand between the user and this one: 0 is the user's own, and only that one
    /// may start sub-agents.
    pub depth: u32,
    /// What the session takes as the time of its start, for runs that must be repeatable; the
    /// system's time unless given.
    pub epoch: Option<SystemTime>,
}

impl Config {
    /// The defaults, with a random seed and no defects.
    pub fn new(
        endpoint: Endpoint,
        rollout_dir: impl Into<PathBuf>,
        cwd: impl Into<PathBuf>,
    ) -> Self {
        Self {
            endpoint,
            model: "gpt-5".to_owned(),
            rollout_dir: rollout_dir.into(),
            cwd: cwd.into(),
            grace: Duration::from_millis(100),
            request_retries: 4,
            stream_retries: 5,
            backoff_base: Duration::from_millis(200),
            stream_idle: Duration::from_secs(300),
            history: HistoryMode::Full,
            defects: DefectSet::default(),
            seed: fastrand::u64(..),
            resume: None,
            session_id: None,
            event_queue: 256,
            depth: 0,
            epoch: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read() {
        let parse = |url| Endpoint::parse(url).map(|it| (it.authority, it.path));
        let pair = |a: &str, b: &str| Ok((a.to_owned(), b.to_owned()));
        assert_eq!(
            parse("http://127.0.0.1:1234/c/7/v1"),
            pair("127.0.0.1:1234", "/c/7/v1")
        );
        assert_eq!(parse("http://host/v1/"), pair("host:80", "/v1"));
        assert_eq!(parse("http://[::1]:9"), pair("[::1]:9", ""));
        for bad in [
            "https://x",
            "x:1",
            "http://",
            "http:///v1",
            "http://a b/",
            "http://u@h/",
        ] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }
}
