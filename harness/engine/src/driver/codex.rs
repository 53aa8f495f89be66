//! Codex CLI, driven through its app-server (protocol v2).
//!
//! One process serves many cases, each a thread of its own; a scenario that ends the process gets
//! one for itself. Codex's home is a fresh temporary directory, and whatever speaks HTTP to another
//! host than loopback is sent to a closed port.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cutpoint_check::trace::{
    AgentEvent, AgentInfo, ClientOp, Decision, Feature, InputMode, Process, ReadTrigger, What,
};
use cutpoint_scenario::ast::Capability;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::{Mutex as AsyncMutex, oneshot};

use super::codex_events::meaning;
use super::jsonrpc::{Client, Inbox};
use super::lines::{GarbageLog, tail};
use super::{AgentError, CaseEnv, Driver, Session};
use crate::observe;
use crate::process::{self, Belongs, GroupLeader, RUN_VARIABLE};
use crate::runner::turn_is_active;

/// How long Codex may take to get ready. Released versions take up to 0.6 s on a 2-core machine.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long the process may take to end once its input was closed.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// How long a thread is watched after its last turn: the app-server has no barrier behind which no
/// notification of a thread can come any more, and events follow each other within 1 ms.
const SETTLE: Duration = Duration::from_millis(30);
/// The turn named by an interrupt when there never was one.
const NO_TURN: &str = "00000000-0000-7000-8000-000000000000";
/// Nothing listens on the discard port of loopback, so a request that is proxied there is refused.
const NOWHERE: &str = "http://127.0.0.1:9";

/// The first version whose commands outlive their turn on purpose (the `exec_command` tool); its marker
/// tells the model so.
const EXEC_COMMAND: (u64, u64) = (0, 98);
/// The version from which on requests were seen to carry the server's `x-codex-turn-state`.
const TURN_STATE: (u64, u64) = (0, 169);

/// The driver.
pub struct CodexDriver {
    binary: PathBuf,
    version: String,
    mark: String,
    shared: AsyncMutex<Option<Arc<Server>>>,
}

impl CodexDriver {
    /// A driver for that binary. `mark` is put into the environment of all it starts.
    ///
    /// # Errors
    /// If the binary does not tell its version.
    pub async fn new(binary: &Path, mark: &str) -> Result<Self, AgentError> {
        let version = version_of(binary).await?;
        Ok(Self {
            binary: binary.to_owned(),
            version,
            mark: mark.to_owned(),
            shared: AsyncMutex::default(),
        })
    }

    async fn server(&self, private: bool) -> Result<Arc<Server>, AgentError> {
        if private {
            let home = new_home()?;
            return Server::start(&self.binary, &self.mark, Arc::new(home)).await;
        }
        let mut shared = self.shared.lock().await;
        match &*shared {
            Some(server) if !server.router.is_closed() => Ok(server.clone()),
            _ => {
                let home = new_home()?;
                let server = Server::start(&self.binary, &self.mark, Arc::new(home)).await?;
                *shared = Some(server.clone());
                Ok(server)
            }
        }
    }
}

fn new_home() -> Result<TempDir, AgentError> {
    let home = tempfile::Builder::new().prefix("cutpoint-codex-").tempdir();
    home.map_err(|error| AgentError::Start(format!("no temporary directory: {error}")))
}

fn at_least(version: &str, wanted: (u64, u64)) -> bool {
    let mut numbers = version
        .split(['.', '-'])
        .map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= wanted
}

async fn version_of(binary: &Path) -> Result<String, AgentError> {
    let mut command = Command::new(binary);
    command
        .arg("--version")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let failed = |why: String| AgentError::Start(format!("{}: {why}", binary.display()));
    let output = tokio::time::timeout(START_LIMIT, command.output())
        .await
        .map_err(|_| failed("`--version` does not end".to_owned()))?
        .map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.split_whitespace().last() {
        Some(version) if output.status.success() => Ok(version.to_owned()),
        _ => Err(failed(format!("`--version` failed ({})", output.status))),
    }
}

#[async_trait]
impl Driver for CodexDriver {
    fn info(&self) -> AgentInfo {
        let mut features = BTreeSet::from([
            Feature::Rollout,
            Feature::RolloutTurns,
            Feature::Marker,
            Feature::TurnIds,
            Feature::OpReplies,
            Feature::CallEvents,
        ]);
        if at_least(&self.version, EXEC_COMMAND) {
            features.insert(Feature::BackgroundTools);
        }
        if at_least(&self.version, TURN_STATE) {
            features.insert(Feature::TurnHeaders);
        }
        AgentInfo {
            name: "codex".to_owned(),
            version: self.version.clone(),
            driver: "app-server-v2".to_owned(),
            features,
            defects: Vec::new(),
        }
    }

    fn capabilities(&self) -> BTreeSet<Capability> {
        BTreeSet::from([
            Capability::Shell,
            Capability::CustomTools,
            Capability::Steer,
            Capability::Resume,
            Capability::Approvals,
        ])
    }

    async fn start(&self, env: CaseEnv) -> Result<Box<dyn Session>, AgentError> {
        let server = self.server(env.private).await?;
        let mut session = CodexSession {
            binary: self.binary.clone(),
            mark: self.mark.clone(),
            server,
            thread: None,
            env,
        };
        session.open_thread(None).await?;
        Ok(Box::new(session))
    }

    async fn close(&self) {
        if let Some(server) = self.shared.lock().await.take() {
            server.end().await;
        }
    }
}

/// A running app-server.
struct Server {
    client: Client,
    router: Arc<Router>,
    leader: Arc<AsyncMutex<GroupLeader>>,
    expected_end: Arc<AtomicBool>,
    home: Arc<TempDir>,
    pid: Option<u32>,
}

impl Server {
    async fn start(binary: &Path, mark: &str, home: Arc<TempDir>) -> Result<Arc<Self>, AgentError> {
        let config = home.path().join("config.toml");
        let failed = |error: std::io::Error| AgentError::Start(error.to_string());
        std::fs::write(config, CONFIG).map_err(failed)?;
        let mut command = Command::new(binary);
        command
            .arg("app-server")
            .env_clear()
            .envs(environment(home.path(), mark))
            .current_dir(home.path())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(AgentError::Start("no pipes".to_owned()));
        };
        let pid = child.id();
        let leader = Arc::new(AsyncMutex::new(GroupLeader::new(child)));
        let router = Arc::new(Router::default());
        let client = Client::start(stdin, stdout, router.clone());
        let expected_end = Arc::new(AtomicBool::new(false));
        let stderr = tokio::spawn(tail(stderr));
        tokio::spawn(watch_end(
            router.clone(),
            leader.clone(),
            stderr,
            expected_end.clone(),
        ));
        let server = Self {
            client,
            router,
            leader,
            expected_end,
            home,
            pid,
        };
        let info =
            json!({"name": "cutpoint", "title": "cutpoint", "version": env!("CARGO_PKG_VERSION")});
        match server
            .client
            .ask("initialize", &json!({"clientInfo": info}), START_LIMIT)
            .await
        {
            Ok(_) => server.client.notify("initialized")?,
            Err(error) => {
                let stderr = server.end().await;
                let said = if stderr.is_empty() {
                    String::new()
                } else {
                    format!("\n{stderr}")
                };
                return Err(AgentError::Start(format!("{error}{said}")));
            }
        }
        Ok(Arc::new(server))
    }

    /// Ends the process in good order, or else by force. Gives the end of its stderr.
    async fn end(&self) -> String {
        self.expected_end.store(true, Ordering::Release);
        self.client.close();
        self.leader.lock().await.end(END_PATIENCE).await;
        self.router.ended().await
    }
}

fn environment(home: &Path, mark: &str) -> Vec<(String, String)> {
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
/// a scenario of a lasting failure ends soon.
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

[analytics]
enabled = false
"#;

/// Waits until the process has closed its output, then tells every case how it ended.
async fn watch_end(
    router: Arc<Router>,
    leader: Arc<AsyncMutex<GroupLeader>>,
    stderr: tokio::task::JoinHandle<String>,
    expected: Arc<AtomicBool>,
) {
    router.closed.cancelled().await;
    let mut leader = leader.lock().await;
    let status = leader.end(END_PATIENCE).await;
    drop(leader);
    // A child of Codex may hold the pipe open; what was read until now is enough then.
    let abort = stderr.abort_handle();
    let stderr = tokio::time::timeout(Duration::from_millis(200), stderr).await;
    abort.abort();
    let stderr = stderr.ok().and_then(Result::ok).unwrap_or_default();
    router.agent_exited(
        status.and_then(|status| status.code()),
        expected.load(Ordering::Acquire),
        stderr,
    );
}

/// Hands notifications to the thread that they belong to.
#[derive(Default)]
struct Router {
    threads: Mutex<HashMap<String, Arc<Thread>>>,
    closed: tokio_util::sync::CancellationToken,
    ended: tokio_util::sync::CancellationToken,
    stderr: Mutex<String>,
}

impl Router {
    fn threads(&self) -> MutexGuard<'_, HashMap<String, Arc<Thread>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on what belongs to the thread is observed for that case.
    fn enter(&self, id: &str, env: CaseEnv) -> Arc<Thread> {
        let thread = Arc::new(Thread {
            id: id.to_owned(),
            env,
            approvals: Mutex::default(),
            garbage: Mutex::default(),
        });
        self.threads().insert(id.to_owned(), thread.clone());
        thread
    }

    fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Waits until the end was told; gives the end of stderr. A process that Codex left behind may
    /// hold its output open, so the wait is bounded.
    async fn ended(&self) -> String {
        let _ = tokio::time::timeout(END_PATIENCE, self.ended.cancelled()).await;
        self.stderr
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn agent_exited(&self, code: Option<i32>, expected: bool, stderr: String) {
        for thread in self.threads().values() {
            let stderr = stderr.clone();
            thread.env.rollout.read(ReadTrigger::Exit);
            thread.env.tracer.record(What::AgentExited {
                code,
                expected,
                stderr,
            });
        }
        *self.stderr.lock().unwrap_or_else(PoisonError::into_inner) = stderr;
        self.ended.cancel();
    }

    fn deliver(&self, params: &Value, meaning: AgentEvent, raw: &Value) {
        let thread = params["threadId"]
            .as_str()
            .and_then(|id| self.threads().get(id).cloned());
        let Some(thread) = thread else { return };
        let ended = matches!(meaning, AgentEvent::TurnEnded { .. });
        let turn_id = meaning.turn_id().map(str::to_owned);
        let what = What::Event {
            event: meaning,
            raw: raw.clone(),
        };
        if ended {
            thread
                .env
                .rollout
                .record_with(what, ReadTrigger::TurnEnded { turn_id });
        } else {
            thread.env.tracer.record(what);
        }
    }
}

impl Inbox for Router {
    fn notification(&self, method: &str, params: &Value, raw: &Value) {
        self.deliver(params, meaning(method, params), raw);
    }

    fn request(&self, id: &Value, method: &str, params: &Value, raw: &Value) {
        let thread = params["threadId"]
            .as_str()
            .and_then(|id| self.threads().get(id).cloned());
        if let (Some(thread), Some(call)) = (thread, params["itemId"].as_str()) {
            let mut approvals = thread
                .approvals
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            approvals.insert(call.to_owned(), id.clone());
        }
        self.deliver(params, meaning(method, params), raw);
    }

    fn garbage(&self, text: String) {
        for thread in self.threads().values() {
            let mut log = thread
                .garbage
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            log.record(&thread.env.tracer, text.clone());
        }
    }

    fn closed(&self) {
        self.closed.cancel();
    }
}

/// A thread of Codex: one case.
struct Thread {
    id: String,
    env: CaseEnv,
    /// Call id → id of the request that waits for the user's answer.
    approvals: Mutex<HashMap<String, Value>>,
    garbage: Mutex<GarbageLog>,
}

struct CodexSession {
    binary: PathBuf,
    mark: String,
    server: Arc<Server>,
    thread: Option<Arc<Thread>>,
    env: CaseEnv,
}

impl CodexSession {
    /// Starts a thread, or continues one.
    async fn open_thread(&mut self, known: Option<&str>) -> Result<(), AgentError> {
        let cwd = self.env.dir.join("work");
        std::fs::create_dir_all(&cwd).map_err(|error| AgentError::Start(error.to_string()))?;
        let asks = self.env.needs.contains(&Capability::Approvals);
        let mut params = json!({
            "cwd": cwd,
            "config": {"model_providers.cutpoint.base_url": self.env.base_url},
            "approvalPolicy": if asks { "on-request" } else { "never" },
            "sandbox": if asks { "read-only" } else { "danger-full-access" },
        });
        let method = match known {
            Some(id) => {
                params["threadId"] = json!(id);
                "thread/resume"
            }
            None => "thread/start",
        };
        let started = What::AgentStarted {
            pid: self.server.pid,
            resumed: known.is_some(),
        };
        self.env.tracer.record(started);
        if let Some(id) = known {
            // What the thread tells while it is resumed belongs to the case as well.
            self.server.router.enter(id, self.env.clone());
        }
        let (give, take) = oneshot::channel();
        let (env, router) = (self.env.clone(), self.server.router.clone());
        // The thread is entered before anything else is read, so that nothing of it is missed.
        self.server.client.call(method, &params, move |reply| {
            let entered = reply.map(|answer| {
                if let Some(path) = answer["thread"]["path"].as_str() {
                    env.rollout.set_path(Path::new(path));
                }
                answer["thread"]["id"]
                    .as_str()
                    .map(|id| router.enter(id, env))
            });
            drop(give.send(entered));
        })?;
        match tokio::time::timeout(START_LIMIT, take).await {
            Ok(Ok(Ok(Some(thread)))) => self.thread = Some(thread),
            Ok(Ok(Ok(None))) => {
                return Err(AgentError::Protocol(format!(
                    "`{method}` gave no thread id"
                )));
            }
            Ok(Ok(Err(error))) => {
                return Err(AgentError::Protocol(format!(
                    "`{method}` was refused: {}",
                    error.message
                )));
            }
            Ok(Err(_)) => return Err(AgentError::Died(format!("it went away during `{method}`"))),
            Err(_) => {
                let what = format!("answer `{method}`");
                return Err(AgentError::TimedOut {
                    what,
                    limit: START_LIMIT,
                });
            }
        }
        Ok(())
    }

    fn thread(&self) -> Result<&Arc<Thread>, AgentError> {
        self.thread
            .as_ref()
            .ok_or_else(|| AgentError::Protocol("it has no thread".to_owned()))
    }

    /// From here on nothing of the thread is observed any more.
    fn leave(&self) {
        if let Some(thread) = &self.thread {
            self.server.router.threads().remove(&thread.id);
        }
    }

    /// Sends a request whose reply is recorded as the op's.
    fn call(&self, id: &str, method: &str, mut params: Value) -> Result<(), AgentError> {
        let thread = self.thread()?;
        params["threadId"] = json!(thread.id);
        let (tracer, id) = (thread.env.tracer.clone(), id.to_owned());
        self.server.client.call(method, &params, move |reply| {
            let (turn_id, error) = match reply {
                Ok(result) => {
                    let turn = result["turn"]["id"]
                        .as_str()
                        .or_else(|| result["turnId"].as_str());
                    (turn.map(str::to_owned), None)
                }
                Err(error) => (None, Some(error.message)),
            };
            tracer.record(What::OpReply { id, turn_id, error });
        })
    }

    fn approve(&self, call_id: &str, decision: Decision) -> Result<(), AgentError> {
        let thread = self.thread()?;
        let request = thread
            .approvals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(call_id)
            .cloned();
        let Some(request) = request else {
            return Err(AgentError::Protocol(format!(
                "no approval of `{call_id}` was asked for"
            )));
        };
        let word = match decision {
            Decision::Approve => "accept",
            Decision::Deny => "decline",
            Decision::Abort => "cancel",
        };
        self.server
            .client
            .answer(&request, &json!({"decision": word}))
    }
}

#[async_trait]
impl Session for CodexSession {
    async fn submit(&mut self, id: &str, op: &ClientOp) -> Result<(), AgentError> {
        match op {
            ClientOp::Input { text, mode } => {
                let input = json!([{"type": "text", "text": text}]);
                match mode {
                    InputMode::Start | InputMode::Replace => {
                        self.call(id, "turn/start", json!({"input": input}))
                    }
                    InputMode::Steer => {
                        let turn = current_turn(&self.env);
                        self.call(
                            id,
                            "turn/steer",
                            json!({"input": input, "expectedTurnId": turn}),
                        )
                    }
                }
            }
            ClientOp::Interrupt { turn_id } => {
                let turn_id = turn_id.as_deref().unwrap_or(NO_TURN);
                self.call(id, "turn/interrupt", json!({"turnId": turn_id}))
            }
            ClientOp::Approval { call_id, decision } => self.approve(call_id, *decision),
            ClientOp::Answer { call_id, .. } => Err(AgentError::Protocol(format!(
                "no question of `{call_id}` was asked"
            ))),
            ClientOp::Shutdown => {
                self.server.end().await;
                Ok(())
            }
        }
    }

    async fn kill(&mut self) -> Result<(), AgentError> {
        self.server.expected_end.store(true, Ordering::Release);
        let killed = self.server.leader.lock().await.kill_child().await;
        killed.map_err(|error| AgentError::Died(error.to_string()))?;
        self.server.router.ended().await;
        Ok(())
    }

    async fn resume(&mut self) -> Result<(), AgentError> {
        let home = self.server.home.clone();
        let known = self.thread()?.id.clone();
        self.server = Server::start(&self.binary, &self.mark, home).await?;
        self.open_thread(Some(&known)).await
    }

    async fn finish(&mut self) -> Result<(), AgentError> {
        if let Some(thread) = self
            .thread
            .clone()
            .filter(|_| !self.server.router.is_closed())
        {
            tokio::time::sleep(SETTLE).await;
            // A scenario that was given up may have left a turn running; mostly there is none. The end
            // of one is still watched, so that it is not taken for a turn that never ended.
            let (seen, active) = (self.env.tracer.len(), turn_is_active(&self.env.tracer));
            if !active {
                self.leave();
            }
            let turn_id = current_turn(&self.env);
            let interrupt = json!({"threadId": thread.id, "turnId": turn_id});
            let _ = self
                .server
                .client
                .ask("turn/interrupt", &interrupt, self.env.limit)
                .await;
            if active {
                let ended = |what: &What| observe::turn_end(what).map(|_| ());
                let _ = self.env.tracer.wait(seen, END_PATIENCE, ended).await;
                self.leave();
            }
            let params = json!({"threadId": thread.id});
            // Either may be unknown to this version, or the process may be gone: nothing is lost.
            for method in ["thread/backgroundTerminals/clean", "thread/unsubscribe"] {
                let _ = self
                    .server
                    .client
                    .ask(method, &params, self.env.limit)
                    .await;
            }
        }
        if self.env.private {
            self.server.end().await;
            if self.env.tracer.with(0, observe::is_running) {
                // Nothing of the thread is watched any more, but that its process is gone is known.
                let exited = What::AgentExited {
                    code: None,
                    expected: true,
                    stderr: String::new(),
                };
                self.env.tracer.record(exited);
            }
        }
        self.leave();
        Ok(())
    }

    fn pid(&self) -> Option<u32> {
        self.server.pid
    }

    fn processes(&self) -> Vec<Process> {
        process::find(&Belongs::Case(self.env.dir.clone()))
    }
}

impl Drop for CodexSession {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The turn that was started last, as far as the trace tells.
fn current_turn(env: &CaseEnv) -> Option<String> {
    env.tracer.with(0, |entries| {
        entries.iter().rev().find_map(|entry| match &entry.what {
            What::OpReply {
                turn_id: Some(turn_id),
                ..
            } => Some(turn_id.clone()),
            What::Event {
                event: AgentEvent::TurnStarted { turn_id },
                ..
            } => Some(turn_id.clone()),
            _ => None,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        let seen = |version| {
            (
                at_least(version, EXEC_COMMAND),
                at_least(version, TURN_STATE),
            )
        };
        assert_eq!(seen("0.23.0"), (false, false));
        assert_eq!(seen("0.104.0-alpha.1"), (true, false));
        assert_eq!(seen("0.169.0"), (true, true));
        assert_eq!(seen("1.0.0"), (true, true));
    }
}
