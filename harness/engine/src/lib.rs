//! cutpoint's engine: the replay server, the drivers of agents, the watchers, the runner.
//!
//! Floor 2, and the only crate that touches processes and sockets.

mod calls;
pub mod driver;
pub mod expect;
mod injections;
pub mod lab;
pub mod leftovers;
pub mod model_script;
pub mod passed_points;
pub mod process;
pub mod proxy;
pub mod quiescence;
pub mod receive_queue;
pub mod recorded_scenario;
pub mod required_capabilities;
pub mod rollout_reader;
pub mod runner;
pub mod screen;
pub mod server;
mod settling;
pub mod steps;
pub mod trace_queries;
pub mod tracer;
