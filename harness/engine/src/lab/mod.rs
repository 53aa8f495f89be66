//! The lab: the reference agent with nothing around it that is not repeatable.
//!
//! A run is one thread with a clock that stops while any task can run. HTTP goes through
//! this process's memory, byte for byte as over TCP; rollouts are kept in memory; commands are
//! interpreted. So the same scenario gives the same trace, and thousands run in a second.

mod memory_files;
mod memory_store;
pub mod scheduler;
mod scripted_tools;

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use cutpoint_agent::Endpoint;
use cutpoint_agent::{Connector, HttpModel, Services, Transport};

use crate::server::ReplayServer;

pub use memory_files::MemoryFiles;
pub use memory_store::MemoryStore;
pub use scripted_tools::ScriptedTools;

/// What every run of the lab takes for the time of its start: 2025-01-01, 00:00 UTC.
pub fn epoch() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_735_689_600)
}

/// Runs a future on a thread whose clock stops while any task can run.
///
/// # Errors
/// If the runtime can't be set up.
pub fn block_on<F: Future>(future: F) -> io::Result<F::Output> {
    scheduler::block_on(None, future)
}

/// The same; but every task of the agent stops at each named point, and whenever nothing else can go
/// on, it is chosen which one does.
///
/// # Errors
/// If the runtime can't be set up.
pub fn block_on_choosing<F: Future>(
    choose: scheduler::ChooseTasks,
    future: F,
) -> io::Result<F::Output> {
    scheduler::block_on(Some(choose), future)
}

/// A world of its own for one case.
#[derive(Clone)]
pub struct Lab {
    server: Arc<ReplayServer>,
    /// The rollouts.
    pub store: Arc<MemoryStore>,
    /// The commands.
    pub tools: Arc<ScriptedTools>,
}

impl Lab {
    /// An empty world around a server.
    pub fn new(server: Arc<ReplayServer>) -> Self {
        Self {
            server,
            store: Arc::default(),
            tools: Arc::default(),
        }
    }

    /// What an agent in this world works with.
    pub fn parts(&self, endpoint: Endpoint) -> Services {
        let connector = Arc::new(MemoryConnector(self.server.clone()));
        Services {
            model: Arc::new(HttpModel::new(endpoint, connector)),
            store: self.store.clone(),
            tools: self.tools.clone(),
            probe: None,
        }
    }
}

/// Connects to the server within this process.
struct MemoryConnector(Arc<ReplayServer>);

#[async_trait]
impl Connector for MemoryConnector {
    async fn connect(&self, _authority: &str) -> io::Result<Box<dyn Transport>> {
        Ok(Box::new(self.0.connect()))
    }
}
