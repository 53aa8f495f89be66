//! cutpoint's engine: the replay server, the drivers of agents, the watchers, the runner.
//!
//! Floor 2, and the only crate that touches processes and sockets.

mod calls;
pub mod cuts;
pub mod driver;
pub mod expect;
mod injections;
pub mod lab;
pub mod leftovers;
pub mod needs;
pub mod observe;
pub mod process;
pub mod proxy;
pub mod quiescence;
pub mod receive_queue;
pub mod rollout;
pub mod runner;
pub mod screen;
pub mod script;
pub mod server;
pub mod skeleton;
pub mod steps;
mod stillness;
pub mod tracer;
