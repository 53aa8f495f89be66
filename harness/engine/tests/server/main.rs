//! The replay server, seen from a bare socket.

mod abuse;
mod client;
mod disconnects;
mod drops;
mod gates;
mod http;
mod matching;
mod properties;
mod refusals;
mod rig;
mod whole;
