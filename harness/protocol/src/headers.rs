//! Headers of the Responses API that more than one crate knows.

/// The response header that a client sends back with each request of the rest of its turn, and with
/// none of the next: by it the server finds what it keeps for the turn.
pub const TURN_STATE: &str = "x-codex-turn-state";

/// How the names of further headers begin that describe a request or an answer, and not who made it.
pub const DESCRIPTIVE_PREFIXES: [&str; 3] = ["x-codex-", "x-ratelimit-", "x-stainless-"];
