//! The app-server's process.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;

use super::router::Router;
use crate::driver::AgentError;
use crate::driver::agent_kind::LaunchContext;
use crate::driver::kit::env::isolate;
use crate::driver::kit::process::AgentProcess;
use crate::driver::kit::rpc::RpcClient;
use crate::driver::kit::supervise::{AgentHost, Supervisor};

/// How app-servers are started.
#[derive(Debug, Clone)]
pub(super) struct ServerLauncher {
    binary: PathBuf,
    mark: String,
    /// How long each step of the start may take.
    pub(super) start_limit: Duration,
    /// Where Codex's temporary homes are made.
    homes: PathBuf,
}

/// A running app-server.
pub(super) struct Server {
    pub(super) client: RpcClient,
    pub(super) router: Arc<Router>,
    pub(super) supervisor: Arc<Supervisor>,
    pub(super) home: Arc<TempDir>,
    load: Mutex<Load>,
}

/// The cases that share a process.
#[derive(Debug, Default)]
struct Load {
    /// All that have entered.
    entered: usize,
    /// Those that have not left.
    inside: usize,
    /// No more are to come; the last one that leaves ends the process.
    retired: bool,
}

impl ServerLauncher {
    pub(super) fn new(binary: PathBuf, context: &LaunchContext) -> Self {
        Self {
            binary,
            mark: context.mark.clone(),
            start_limit: context.start_limit,
            homes: context.dir.clone(),
        }
    }

    /// Starts a server with a fresh home.
    pub(super) async fn start(&self) -> Result<Arc<Server>, AgentError> {
        let home = tempfile::Builder::new()
            .prefix("cutpoint-codex-")
            .tempdir_in(&self.homes);
        let home =
            home.map_err(|error| AgentError::Start(format!("no temporary directory: {error}")))?;
        self.start_in(Arc::new(home)).await
    }

    /// Starts a server with that home.
    pub(super) async fn start_in(&self, home: Arc<TempDir>) -> Result<Arc<Server>, AgentError> {
        let failed = |error: std::io::Error| AgentError::Start(error.to_string());
        std::fs::write(home.path().join("config.toml"), CONFIG).map_err(failed)?;
        let mut command = Command::new(&self.binary);
        isolate(&mut command, home.path(), &self.mark);
        command
            .arg("app-server")
            .env("CODEX_HOME", home.path())
            .current_dir(home.path());
        let (process, stdin, stdout) = AgentProcess::spawn(&mut command).map_err(failed)?;
        let supervisor = Supervisor::new(AgentHost::Process(process));
        let router = Arc::new(Router::new(supervisor.clone()));
        let client = RpcClient::start(stdin, stdout, router.clone());
        let watched = router.clone();
        supervisor.watch(move |exit| watched.agent_exited(&exit));
        let server = Server {
            client,
            router,
            supervisor,
            home,
            load: Mutex::default(),
        };
        let info =
            json!({"name": "cutpoint", "title": "cutpoint", "version": env!("CARGO_PKG_VERSION")});
        let params = json!({"clientInfo": info});
        let asked = server.client.ask("initialize", &params, self.start_limit);
        match asked.await {
            Ok(_) => server.client.notify("initialized")?,
            Err(error) => {
                let error = server.supervisor.explain(error).await;
                server.end().await;
                return Err(error);
            }
        }
        Ok(Arc::new(server))
    }
}

impl Server {
    /// Enters a case, unless so many have entered already.
    pub(super) fn enter(&self, limit: usize) -> bool {
        let mut load = self.load();
        let free = load.entered < limit;
        load.entered += usize::from(free);
        load.inside += usize::from(free);
        free
    }

    /// A case that had entered has ended.
    pub(super) async fn leave(&self) {
        let last = {
            let mut load = self.load();
            load.inside = load.inside.saturating_sub(1);
            load.retired && load.inside == 0
        };
        if last {
            self.end().await;
        }
    }

    /// Another process takes its place; this one ends with the last case that it serves.
    pub(super) async fn retire(&self) {
        let empty = {
            let mut load = self.load();
            load.retired = true;
            load.inside == 0
        };
        if empty {
            self.end().await;
        }
    }

    fn load(&self) -> MutexGuard<'_, Load> {
        // Every change is one step, so a panic leaves nothing half done.
        self.load.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the process in good order, or else by force.
    pub(super) async fn end(&self) {
        self.supervisor.expect_end();
        self.client.close();
        self.supervisor.end().await;
    }
}

/// The settings that all threads share. The base URL is given per thread. Retries are few, so that
/// a scenario of a lasting failure ends soon. The snapshot of a login shell that is taken for each thread
/// costs a fifth of all CPU time in a sweep, and nothing here needs it.
const CONFIG: &str = r#"model = "cutpoint-model"
model_provider = "cutpoint"
approval_policy = "never"
sandbox_mode = "danger-full-access"
check_for_update_on_startup = false

[model_providers.cutpoint]
name = "cutpoint"
base_url = "http://127.0.0.1:9/v1"
wire_api = "responses"
request_max_retries = 2
stream_max_retries = 2
supports_websockets = false

[features]
shell_snapshot = false

[analytics]
enabled = false
"#;
