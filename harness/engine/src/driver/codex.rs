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
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::sync::{Mutex as AsyncMutex, oneshot};
use tokio_util::sync::CancellationToken;

use super::child::{AgentProcess, END_PATIENCE, EXIT_PATIENCE};
use super::codex_events::meaning;
use super::jsonrpc::{Client, Inbox, Raw};
use super::lines::{Budget, GarbageLog};
use super::{AgentError, CaseEnv, Driver, START_LIMIT, Session};
use crate::process::{self, Belongs, RUN_VARIABLE};

/// How much of what `--version` prints is read.
const VERSION_LIMIT_BYTES: u64 = 4096;
/// How long a thread is watched after its last turn: the app-server has no barrier behind which no
/// notification of a thread can come any more, and events follow each other within 1 ms.
const SETTLE: Duration = Duration::from_millis(30);
/// The turn named by an interrupt when there never was one.
const NO_TURN: &str = "00000000-0000-7000-8000-000000000000";
/// Nothing listens on the discard port of loopback, so a request that is proxied there is refused.
const NOWHERE: &str = "http://127.0.0.1:9";

/// How Codex is started.
#[derive(Debug, Clone)]
pub struct CodexConfig {
    /// What is put into the environment of all that is started.
    pub mark: String,
    /// How long it may take to get ready.
    pub start_limit: Duration,
    /// Where its temporary homes are made.
    pub homes: PathBuf,
}

/// The driver.
pub struct CodexDriver {
    binary: PathBuf,
    version: String,
    config: CodexConfig,
    shared: AsyncMutex<Shared>,
}

/// The process that serves all cases that don't need one of their own.
#[derive(Default)]
enum Shared {
    #[default]
    None,
    Running(Arc<Server>),
    /// It could not be started, so it is not tried again: each try may take the whole limit.
    Failed(AgentError),
}

impl CodexDriver {
    /// A driver for that binary. `mark` is put into the environment of all it starts.
    ///
    /// # Errors
    /// If the binary does not tell its version.
    pub async fn new(binary: &Path, mark: &str) -> Result<Self, AgentError> {
        let (mark, homes) = (mark.to_owned(), std::env::temp_dir());
        Self::with(
            binary,
            CodexConfig {
                mark,
                start_limit: START_LIMIT,
                homes,
            },
        )
        .await
    }

    /// The same with other settings.
    ///
    /// # Errors
    /// If the binary does not tell its version.
    pub async fn with(binary: &Path, config: CodexConfig) -> Result<Self, AgentError> {
        let version = version_of(binary, &config).await?;
        Ok(Self {
            binary: binary.to_owned(),
            version,
            config,
            shared: AsyncMutex::default(),
        })
    }

    async fn server(&self, private: bool) -> Result<Arc<Server>, AgentError> {
        if private {
            return self.new_server().await;
        }
        let mut shared = self.shared.lock().await;
        match &*shared {
            Shared::Running(server) if !server.router.is_closed() => return Ok(server.clone()),
            Shared::Failed(error) => return Err(error.clone()),
            Shared::Running(_) | Shared::None => {}
        }
        let started = self.new_server().await;
        *shared = match &started {
            Ok(server) => Shared::Running(server.clone()),
            Err(error) => Shared::Failed(error.clone()),
        };
        started
    }

    async fn new_server(&self) -> Result<Arc<Server>, AgentError> {
        let home = tempfile::Builder::new()
            .prefix("cutpoint-codex-")
            .tempdir_in(&self.config.homes);
        let home =
            home.map_err(|error| AgentError::Start(format!("no temporary directory: {error}")))?;
        Server::start(&self.binary, &self.config, Arc::new(home)).await
    }
}

async fn version_of(binary: &Path, config: &CodexConfig) -> Result<String, AgentError> {
    let failed = |why: String| AgentError::Start(format!("{}: {why}", binary.display()));
    let mut command = Command::new(binary);
    command
        .arg("--version")
        .env(RUN_VARIABLE, &config.mark)
        .stdin(Stdio::null());
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let asked = async {
        let mut printed = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout
                .take(VERSION_LIMIT_BYTES)
                .read_to_end(&mut printed)
                .await?;
        }
        std::io::Result::Ok((child.wait().await?, printed))
    };
    let (status, printed) = tokio::time::timeout(config.start_limit, asked)
        .await
        .map_err(|_| {
            let seconds = config.start_limit.as_secs_f64();
            failed(format!("`--version` did not end within {seconds} s"))
        })?
        .map_err(|error| failed(error.to_string()))?;
    if !status.success() {
        return Err(failed(format!("`--version` failed ({status})")));
    }
    let text = String::from_utf8_lossy(&printed);
    let word = text
        .lines()
        .next()
        .and_then(|line| line.split_whitespace().last());
    match word {
        Some(word) if word.starts_with(|c: char| c.is_ascii_digit()) => Ok(word.to_owned()),
        _ => Err(failed(
            "`--version` told no version; is this Codex?".to_owned(),
        )),
    }
}

#[async_trait]
impl Driver for CodexDriver {
    fn info(&self) -> AgentInfo {
        let features = [
            Feature::Rollout,
            Feature::RolloutTurns,
            Feature::Marker,
            Feature::TurnIds,
            Feature::OpReplies,
            Feature::CallEvents,
        ];
        AgentInfo {
            name: "codex".to_owned(),
            version: self.version.clone(),
            driver: "app-server-v2".to_owned(),
            features: BTreeSet::from(features),
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
            config: self.config.clone(),
            server,
            thread: None,
            env,
        };
        let opened = session.open_thread(None).await;
        if opened.is_err() && session.env.private {
            session.server.end().await;
        }
        opened.map(|()| Box::new(session) as Box<dyn Session>)
    }

    async fn close(&self) {
        if let Shared::Running(server) = std::mem::take(&mut *self.shared.lock().await) {
            server.end().await;
        }
    }
}

/// A running app-server.
struct Server {
    client: Client,
    router: Arc<Router>,
    process: Arc<AgentProcess>,
    expected_end: Arc<AtomicBool>,
    home: Arc<TempDir>,
}

impl Server {
    async fn start(
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

    /// Ends the process in good order, or else by force.
    async fn end(&self) {
        self.expected_end.store(true, Ordering::Release);
        self.client.close();
        self.process.end().await;
        self.router.ended().await;
    }

    /// Why no session came about, with all that is known of it.
    async fn explain(&self, error: AgentError) -> AgentError {
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

/// Waits until the process is gone or has closed its output, then tells every case how it ended.
async fn watch_end(router: Arc<Router>, process: Arc<AgentProcess>, expected: Arc<AtomicBool>) {
    // What Codex left behind may hold its output open; it says nothing for Codex any more.
    let outlived = async {
        process.gone().await;
        tokio::time::sleep(EXIT_PATIENCE).await;
    };
    tokio::select! {
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

/// Hands notifications to the thread that they belong to.
#[derive(Default)]
struct Router {
    threads: Mutex<HashMap<String, Arc<Thread>>>,
    /// No output comes any more.
    closed: CancellationToken,
    /// More output came than a case may have.
    flooded: CancellationToken,
    /// Every case knows of the end.
    ended: CancellationToken,
    /// The first line that was no message.
    printed: Mutex<Option<String>>,
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
            budget: Mutex::default(),
        });
        self.threads().insert(id.to_owned(), thread.clone());
        thread
    }

    fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Waits until the end was told.
    async fn ended(&self) {
        let _ = tokio::time::timeout(2 * END_PATIENCE, self.ended.cancelled()).await;
    }

    fn printed(&self) -> Option<String> {
        self.printed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn agent_exited(&self, code: Option<i32>, expected: bool, stderr: &str) {
        for thread in self.threads().values() {
            thread.env.rollout.read(ReadTrigger::Exit);
            let exited = What::AgentExited {
                code,
                expected,
                stderr: stderr.to_owned(),
            };
            thread.env.tracer.record(exited);
        }
        self.ended.cancel();
    }

    fn deliver(&self, params: &Value, meaning: AgentEvent, raw: &Raw<'_>) {
        let thread = params["threadId"]
            .as_str()
            .and_then(|id| self.threads().get(id).cloned());
        let Some(thread) = thread else { return };
        if !thread
            .budget
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .spend(raw.bytes)
        {
            self.flooded.cancel();
            return;
        }
        let ended = matches!(meaning, AgentEvent::TurnEnded { .. });
        let turn_id = meaning.turn_id().map(str::to_owned);
        let what = What::Event {
            event: meaning,
            raw: raw.message.clone(),
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
    fn notification(&self, method: &str, params: &Value, raw: &Raw<'_>) {
        self.deliver(params, meaning(method, params), raw);
    }

    fn request(&self, id: &Value, method: &str, params: &Value, raw: &Raw<'_>) {
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
        let mut printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        printed.get_or_insert_with(|| text.clone());
        drop(printed);
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
    budget: Mutex<Budget>,
}

struct CodexSession {
    binary: PathBuf,
    config: CodexConfig,
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
            pid: self.server.process.pid(),
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
        let limit = self.config.start_limit;
        let error = match tokio::time::timeout(limit, take).await {
            Ok(Ok(Ok(Some(thread)))) => {
                self.thread = Some(thread);
                return Ok(());
            }
            Ok(Ok(Ok(None))) => AgentError::Protocol(format!("`{method}` gave no thread id")),
            Ok(Ok(Err(error))) => {
                AgentError::Protocol(format!("`{method}` was refused: {}", error.message))
            }
            Ok(Err(_)) => AgentError::Died(format!("it went away during `{method}`")),
            Err(_) => AgentError::TimedOut {
                what: format!("answer `{method}`"),
                limit,
            },
        };
        Err(self.server.explain(error).await)
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
        let killed = self.server.process.crash().await;
        killed.map_err(|error| AgentError::Died(error.to_string()))?;
        self.server.router.ended().await;
        Ok(())
    }

    async fn resume(&mut self) -> Result<(), AgentError> {
        let home = self.server.home.clone();
        let known = self.thread()?.id.clone();
        self.server = Server::start(&self.binary, &self.config, home).await?;
        self.open_thread(Some(&known)).await
    }

    async fn finish(&mut self) -> Result<(), AgentError> {
        if let Some(thread) = self
            .thread
            .clone()
            .filter(|_| !self.server.router.is_closed())
        {
            tokio::time::sleep(SETTLE).await;
            self.leave();
            let turn_id = current_turn(&self.env);
            let interrupt = json!({"threadId": thread.id, "turnId": turn_id});
            let params = json!({"threadId": thread.id});
            // A scenario that was given up may have left a turn running; mostly there is none. The
            // others may be unknown to this version, or the process may be gone: nothing is lost.
            let asks = [
                ("turn/interrupt", &interrupt),
                ("thread/backgroundTerminals/clean", &params),
                ("thread/unsubscribe", &params),
            ];
            for (method, params) in asks {
                let asked = self.server.client.ask(method, params, self.env.limit).await;
                // Who doesn't answer one won't answer the next.
                if matches!(asked, Err(AgentError::TimedOut { .. })) {
                    break;
                }
            }
        }
        if self.env.private {
            self.server.end().await;
        }
        self.leave();
        Ok(())
    }

    fn ending(&self) -> Option<String> {
        self.server
            .process
            .ending()
            .map(|ending| ending.words.clone())
    }

    fn pid(&self) -> Option<u32> {
        self.server.process.pid()
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
