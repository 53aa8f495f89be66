//! The parts of a session that can be replaced.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::config::Config;
use crate::model::{HttpModel, ModelClient, TcpConnector};
use crate::probe::Probe;
use crate::rollout::{FileStore, RolloutStore};
use crate::tools::{ProcessTools, ToolRunner};

/// What a session works with.
#[derive(Clone)]
pub struct Services {
    /// Asks the model.
    pub model: Arc<dyn ModelClient>,
    /// Keeps the rollout.
    pub store: Arc<dyn RolloutStore>,
    /// Runs tools.
    pub tools: Arc<dyn ToolRunner>,
    /// Looks on.
    pub probe: Option<Arc<dyn Probe>>,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services").finish_non_exhaustive()
    }
}

impl Services {
    /// HTTP over TCP, files and processes.
    ///
    /// # Errors
    /// If the rollout directory can't be created.
    pub fn real(config: &Config) -> io::Result<Self> {
        std::fs::create_dir_all(&config.rollout_dir)?;
        let connector = Arc::new(TcpConnector);
        Ok(Self {
            model: Arc::new(HttpModel::new(config.endpoint.clone(), connector)),
            store: Arc::new(FileStore::new(&config.rollout_dir)),
            tools: Arc::new(ProcessTools),
            probe: None,
        })
    }
}
