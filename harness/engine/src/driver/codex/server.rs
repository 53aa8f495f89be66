//! The app-server's process.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;

use super::CodexConfig;
use super::router::Router;
use crate::driver::AgentError;
use crate::driver::child::{AgentProcess, EXIT_PATIENCE};
use crate::driver::jsonrpc::Client;
use crate::driver::lines::Budget;
use crate::process::RUN_VARIABLE;

/// Nothing listens on the discard port of loopback, so a request that is proxied there is refused.
const NOWHERE: &str = "http://127.0.0.1:9";

/// A running app-server.
pub(super) struct Server {
    pub(super) client: Client,
    pub(super) router: Arc<Router>,
    pub(super) process: Arc<AgentProcess>,
    pub(super) expected_end: Arc<AtomicBool>,
    pub(super) home: Arc<TempDir>,
    serves: Mutex<Serves>,
}

/// The cases that share a process.
#[derive(Debug, Default)]
struct Serves {
    /// All that have entered.
    entered: usize,
    /// Those that have not left.
    inside: usize,
    /// No more are to come; the last one that leaves ends the process.
    retired: bool,
}

impl Server {
    pub(super) async fn start(
        binary: &Path,
        config: &CodexConfig,
        home: Arc<TempDir>,
    ) -> Result<Arc<Self>, AgentError> {
        let failed = |error: std::io::Error| AgentError::Start(error.to_string());
        std::fs::write(home.path().join("config.toml"), CONFIG).map_err(failed)?;
        let mut command = Command::new(binary);
        command
            .arg("app-server")
            .env_clear()
            .envs(environment(home.path(), &config.mark))
            .current_dir(home.path());
        let (process, stdin, stdout) = AgentProcess::spawn(&mut command).map_err(failed)?;
        let router = Arc::new(Router::default());
        let client = Client::start(stdin, stdout, router.clone());
        let expected_end = Arc::new(AtomicBool::new(false));
        tokio::spawn(watch_end(
            router.clone(),
            process.clone(),
            expected_end.clone(),
        ));
        let server = Self {
            client,
            router,
            process,
            expected_end,
            home,
            serves: Mutex::default(),
        };
        let info =
            json!({"name": "cutpoint", "title": "cutpoint", "version": env!("CARGO_PKG_VERSION")});
        let params = json!({"clientInfo": info});
        match server
            .client
            .ask("initialize", &params, config.start_limit)
            .await
        {
            Ok(_) => server.client.notify("initialized")?,
            Err(error) => {
                let error = server.explain(error).await;
                server.end().await;
                return Err(error);
            }
        }
        Ok(Arc::new(server))
    }

    /// Enters a case, unless so many have entered already.
    pub(super) fn enter(&self, limit: usize) -> bool {
        let mut serves = self.serves();
        let free = serves.entered < limit;
        serves.entered += usize::from(free);
        serves.inside += usize::from(free);
        free
    }

    /// A case that had entered has ended.
    pub(super) async fn leave(&self) {
        let last = {
            let mut serves = self.serves();
            serves.inside = serves.inside.saturating_sub(1);
            serves.retired && serves.inside == 0
        };
        if last {
            self.end().await;
        }
    }

    /// Another process takes its place; this one ends with the last case that it serves.
    pub(super) async fn retire(&self) {
        let empty = {
            let mut serves = self.serves();
            serves.retired = true;
            serves.inside == 0
        };
        if empty {
            self.end().await;
        }
    }

    fn serves(&self) -> MutexGuard<'_, Serves> {
        // Every change is one step, so a panic leaves nothing half done.
        self.serves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the process in good order, or else by force.
    pub(super) async fn end(&self) {
        self.expected_end.store(true, Ordering::Release);
        self.client.close();
        self.process.end().await;
        self.router.ended().await;
    }

    /// Why no session came about, with all that is known of it.
    pub(super) async fn explain(&self, error: AgentError) -> AgentError {
        let mut why = match error {
            AgentError::Start(why) | AgentError::Protocol(why) => why,
            AgentError::TimedOut { what, limit } => {
                format!("it did not {what} within {} s", limit.as_secs_f64())
            }
            AgentError::Died(why) => {
                self.router.ended().await;
                self.process
                    .ending()
                    .map_or(why, |ending| ending.words.clone())
            }
        };
        if let Some(text) = self.router.printed() {
            why.push_str(&format!("; it printed {text:?}"));
        }
        let stderr = self.process.last_words().await;
        AgentError::Start(format!("{why}\n{stderr}").trim_end().to_owned())
    }
}

pub(super) fn environment(home: &Path, mark: &str) -> Vec<(String, String)> {
    let home = home.display().to_string();
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned());
    let pairs = [
        ("CODEX_HOME", home.as_str()),
        ("HOME", &home),
        ("PATH", &path),
        ("LANG", "C.UTF-8"),
        ("TERM", "dumb"),
        ("HTTP_PROXY", NOWHERE),
        ("HTTPS_PROXY", NOWHERE),
        ("ALL_PROXY", NOWHERE),
        ("NO_PROXY", "127.0.0.1,localhost"),
        (RUN_VARIABLE, mark),
    ];
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
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

/// Waits until the process is gone or has closed its output, then tells every case how it ended.
pub(super) async fn watch_end(
    router: Arc<Router>,
    process: Arc<AgentProcess>,
    expected: Arc<AtomicBool>,
) {
    // What Codex left behind may hold its output open; it says nothing for Codex any more.
    let outlived = async {
        process.gone().await;
        tokio::time::sleep(EXIT_PATIENCE).await;
    };
    tokio::select! {
        biased;
        () = router.closed.cancelled() => {}
        () = outlived => router.closed.cancel(),
        () = router.flooded.cancelled() => process.condemn(Budget::overdrawn()).await,
    }
    let expected = expected.load(Ordering::Acquire);
    let ending = process.ended().await;
    process.end().await;
    let stderr = if expected {
        String::new()
    } else {
        process.last_words().await
    };
    router.agent_exited(ending.code, expected, &stderr);
}
