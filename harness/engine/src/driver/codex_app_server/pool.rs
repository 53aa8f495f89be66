//! The app-server that serves all cases that don't need one of their own.

use std::sync::Arc;

use tokio::sync::Mutex as AsyncMutex;

use super::server::{Server, ServerLauncher};
use crate::driver::AgentError;

/// How many cases a process serves before another one takes its place: the app-server keeps about 2 MiB
/// of each thread that it has served, and gets slower with them.
const CASES_PER_PROCESS: usize = 300;

pub(super) struct ServerPool {
    pub(super) launcher: ServerLauncher,
    shared: AsyncMutex<SharedServer>,
}

#[derive(Default)]
enum SharedServer {
    #[default]
    None,
    Running(Arc<Server>),
    /// It could not be started, so it is not tried again: each try may take the whole limit.
    Failed(AgentError),
}

impl ServerPool {
    pub(super) fn new(launcher: ServerLauncher) -> Self {
        Self {
            launcher,
            shared: AsyncMutex::default(),
        }
    }

    /// A server for one case: a private one, or the shared one.
    pub(super) async fn server(&self, private: bool) -> Result<Arc<Server>, AgentError> {
        if private {
            return self.launcher.start().await;
        }
        let mut shared = self.shared.lock().await;
        match &*shared {
            SharedServer::Running(server) if server.supervisor.is_output_closed() => {}
            SharedServer::Running(server) if server.enter(CASES_PER_PROCESS) => {
                return Ok(server.clone());
            }
            SharedServer::Running(server) => server.retire().await,
            SharedServer::Failed(error) => return Err(error.clone()),
            SharedServer::None => {}
        }
        let started = self.launcher.start().await;
        *shared = match &started {
            Ok(server) => {
                server.enter(CASES_PER_PROCESS);
                SharedServer::Running(server.clone())
            }
            Err(error) => SharedServer::Failed(error.clone()),
        };
        started
    }

    /// Ends the shared server.
    pub(super) async fn close(&self) {
        if let SharedServer::Running(server) = std::mem::take(&mut *self.shared.lock().await) {
            server.end().await;
        }
    }
}
