//! An agent that speaks the submission/event queue protocol as JSON lines on its stdin and stdout:
//! `{"id","op"}` in, `{"id","msg"}` out.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use cutpoint_agent::{Defect, DefectSet};
use cutpoint_protocol::session::{Event, EventMsg, Submission};
use cutpoint_scenario::ast::Capability;
use cutpoint_trace::{AgentEvent, AgentInfo, ClientOp, Feature, Observation, Process, ReadTrigger};
use tokio::io::AsyncWriteExt;
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

use super::child::{AgentProcess, END_PATIENCE, EXIT_PATIENCE};
use super::front::FrontDriver;
use super::lines::{Budget, GarbageLog, JsonLines, Line};
use super::{AgentError, CaseEnv, Driver, START_LIMIT, Session, queue_events, reference};
use crate::process::{self, MODEL_VARIABLE, ProcessOwner, RUN_VARIABLE};

/// How to start the agent.
#[derive(Debug, Clone)]
pub struct StdioCommand {
    /// The program.
    pub program: PathBuf,
    /// Words before the options that every such agent takes.
    pub arguments: Vec<String>,
}

/// The name by which the reference agent is driven.
const REFERENCE: &str = "reference";

/// The driver.
pub struct StdioDriver {
    command: StdioCommand,
    /// Drives the same agent where a scenario needs its JSON-RPC front.
    front: Option<FrontDriver>,
    info: AgentInfo,
    /// The planted defects of the agent's view. Only the reference agent's view is known.
    view: Option<DefectSet>,
    mark: String,
    start_limit: Duration,
}

impl StdioDriver {
    /// A driver for that program. `mark` is put into the environment of all it starts.
    pub fn new(command: StdioCommand, name: &str, defects: Vec<String>, mark: &str) -> Self {
        let planted = defects
            .iter()
            .filter_map(|defect| defect.parse::<Defect>().ok());
        let view = (name == REFERENCE).then(|| planted.collect());
        let mut features = reference::features();
        if view.is_none() {
            features.remove(&Feature::Transcript);
        }
        let info = AgentInfo {
            name: name.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            driver: "stdio".to_owned(),
            features,
            defects,
        };
        Self {
            command,
            front: None,
            info,
            view,
            mark: mark.to_owned(),
            start_limit: START_LIMIT,
        }
    }

    /// Uses another driver of the same agent where a scenario needs its JSON-RPC front.
    pub fn front(self, front: FrontDriver) -> Self {
        let front = Some(front);
        Self { front, ..self }
    }

    /// Bounds how long the agent may take to start.
    pub fn start_limit(self, start_limit: Duration) -> Self {
        Self {
            start_limit,
            ..self
        }
    }
}

impl StdioDriver {
    fn front_for(&self, needs: &BTreeSet<Capability>) -> Option<&FrontDriver> {
        let front = self.front.as_ref();
        front.filter(|_| needs.contains(&Capability::JsonRpc))
    }
}

#[async_trait]
impl Driver for StdioDriver {
    fn info(&self, needs: &BTreeSet<Capability>) -> AgentInfo {
        match self.front_for(needs) {
            Some(front) => front.info(needs),
            None => self.info.clone(),
        }
    }

    fn capabilities(&self) -> BTreeSet<Capability> {
        let mut all = reference::capabilities();
        // Another process can't be held at its own points.
        all.remove(&Capability::Points);
        if self.view.is_none() {
            all.remove(&Capability::Transcript);
        }
        if self.front.is_none() {
            all.remove(&Capability::JsonRpc);
        }
        all
    }

    fn lacks(&self, needs: &BTreeSet<Capability>) -> Option<Capability> {
        let mut can = self.capabilities();
        if needs.contains(&Capability::JsonRpc) {
            can.retain(|capability| super::front::capabilities().contains(capability));
        }
        needs.difference(&can).next().copied()
    }

    async fn start(&self, env: CaseEnv) -> Result<Box<dyn Session>, AgentError> {
        if let Some(front) = self.front_for(&env.needs) {
            return front.start(env).await;
        }
        let how = How {
            command: self.command.with_defects(&self.info.defects),
            view: self.view,
            mark: self.mark.clone(),
            start_limit: self.start_limit,
        };
        let running = Running::start(&how, &env, None).await?;
        Ok(Box::new(StdioSession { how, env, running }))
    }
}

/// How the process of a session is started, each time.
#[derive(Debug, Clone)]
pub(super) struct How {
    pub(super) command: StdioCommand,
    /// The planted defects of the agent's view, if that is known.
    pub(super) view: Option<DefectSet>,
    /// What is put into the environment of all that is started.
    pub(super) mark: String,
    pub(super) start_limit: Duration,
}

impl StdioCommand {
    /// The same with planted defects switched on.
    pub(super) fn with_defects(&self, defects: &[String]) -> Self {
        let mut command = self.clone();
        let options = defects
            .iter()
            .flat_map(|defect| ["--defect".to_owned(), defect.clone()]);
        command.arguments.extend(options);
        command
    }
}

impl How {
    /// Starts the process for a case, with options besides.
    pub(super) fn spawn(
        &self,
        env: &CaseEnv,
        options: &[&OsStr],
    ) -> Result<(Arc<AgentProcess>, ChildStdin, ChildStdout), AgentError> {
        let program = &self.command.program;
        let (cwd, rollouts) = (env.dir.join("work"), env.dir.join("rollouts"));
        for directory in [&cwd, &rollouts] {
            let made = std::fs::create_dir_all(directory);
            made.map_err(|error| AgentError::Start(format!("{}: {error}", directory.display())))?;
        }
        let mut command = Command::new(program);
        command
            .args(&self.command.arguments)
            .args(["--base-url", &env.base_url, "--seed", &env.seed.to_string()])
            .arg("--rollout-dir")
            .arg(&rollouts);
        if env.needs.contains(&Capability::ServerHistory) {
            command.arg("--server-history");
        }
        // Not an option: a program that has no use for it need not know it.
        match &env.model {
            Some(model) => command.env(MODEL_VARIABLE, model),
            None => command.env_remove(MODEL_VARIABLE),
        };
        command.args(options);
        command.env(RUN_VARIABLE, &self.mark).current_dir(&cwd);
        AgentProcess::spawn(&mut command)
            .map_err(|error| AgentError::Start(format!("{}: {error}", program.display())))
    }
}

struct StdioSession {
    how: How,
    env: CaseEnv,
    running: Running,
}

/// A running process.
struct Running {
    process: Arc<AgentProcess>,
    stdin: Option<ChildStdin>,
    reader: JoinHandle<()>,
    expected_end: Arc<AtomicBool>,
    rollout: PathBuf,
}

impl Running {
    async fn start(how: &How, env: &CaseEnv, resume: Option<&Path>) -> Result<Self, AgentError> {
        let options = resume.map_or(vec![], |path| {
            vec![OsStr::new("--resume"), path.as_os_str()]
        });
        let (process, stdin, stdout) = how.spawn(env, &options)?;
        env.tracer.record(Observation::AgentStarted {
            pid: process.pid(),
            resumed: resume.is_some(),
        });
        if let Some(defects) = how.view {
            env.screen.open(defects);
        }
        let expected_end = Arc::new(AtomicBool::new(false));
        let seen = env.tracer.len();
        let reader = tokio::spawn(read(
            stdout,
            env.clone(),
            process.clone(),
            expected_end.clone(),
        ));
        let stdin = Some(stdin);
        let mut running = Self {
            process,
            stdin,
            reader,
            expected_end,
            rollout: PathBuf::new(),
        };
        running.rollout = running.wait_until_ready(env, seen, how.start_limit).await?;
        env.rollout.set_path(&running.rollout);
        Ok(running)
    }

    /// Waits for the first event, which tells where the rollout is.
    async fn wait_until_ready(
        &mut self,
        env: &CaseEnv,
        seen: usize,
        limit: Duration,
    ) -> Result<PathBuf, AgentError> {
        let configured = |what: &Observation| match what {
            Observation::Event {
                event: AgentEvent::Other { name, .. },
                raw,
            } if name == "session_configured" => raw.value()["msg"]["rollout_path"]
                .as_str()
                .map(PathBuf::from)
                .map(Some),
            Observation::AgentExited { .. } => Some(None),
            _ => None,
        };
        let mut why = match env.tracer.wait(seen, limit, configured).await {
            Ok((_, Some(path))) => return Ok(path),
            Ok((_, None)) => {
                let ending = self.process.ending().map(|ending| ending.words.clone());
                ending.unwrap_or_else(|| "it ended at once".to_owned())
            }
            Err(_) => {
                format!(
                    "it did not send `session_configured` within {} s",
                    limit.as_secs_f64()
                )
            }
        };
        let garbage = env.tracer.find(seen, |what| match what {
            Observation::Garbage { text } => Some(text.clone()),
            _ => None,
        });
        if let Some((_, text)) = garbage {
            why.push_str(&format!("; it printed {text:?}"));
        }
        self.expected_end.store(true, Ordering::Release);
        let stderr = self.process.last_words().await;
        Err(AgentError::Start(
            format!("{why}\n{stderr}").trim_end().to_owned(),
        ))
    }

    /// Waits for the reader's end. May be asked again, unlike the task's handle itself.
    async fn reader_has_ended(&mut self) -> bool {
        self.reader.is_finished()
            || tokio::time::timeout(END_PATIENCE, &mut self.reader)
                .await
                .is_ok()
    }

    async fn end(&mut self, env: &CaseEnv) {
        self.expected_end.store(true, Ordering::Release);
        self.stdin = None;
        self.process.end().await;
        // The reader stops by itself soon after the process; this is for what nobody thought of.
        if !self.reader_has_ended().await {
            self.reader.abort();
            let exited = Observation::AgentExited {
                code: None,
                expected: true,
                stderr: String::new(),
            };
            env.tracer.record(exited);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Records what the process tells, and its end.
async fn read(
    stdout: ChildStdout,
    env: CaseEnv,
    process: Arc<AgentProcess>,
    expected_end: Arc<AtomicBool>,
) {
    let mut lines = JsonLines::new(stdout);
    let messages = read_messages(&mut lines, &env, &process);
    // What the agent left behind may hold its output open; it says nothing for the agent any more.
    let outlived = async {
        process.gone().await;
        tokio::time::sleep(EXIT_PATIENCE).await;
    };
    tokio::select! {
        biased;
        () = messages => {}
        () = outlived => {}
    }
    let expected = expected_end.load(Ordering::Acquire);
    env.rollout.read(ReadTrigger::Exit);
    let ending = process.ended().await;
    let stderr = if expected {
        String::new()
    } else {
        process.last_words().await
    };
    env.tracer.record(Observation::AgentExited {
        code: ending.code,
        expected,
        stderr,
    });
}

async fn read_messages(lines: &mut JsonLines<ChildStdout>, env: &CaseEnv, process: &AgentProcess) {
    let mut garbage = GarbageLog::default();
    let mut budget = Budget::default();
    loop {
        env.reading.wanted().await;
        let Some(line) = lines.next().await else {
            return;
        };
        let message = match line {
            Line::Message(message) => message,
            Line::Garbage(text) => {
                garbage.record(&env.tracer, text);
                continue;
            }
        };
        if !budget.spend(lines.length_bytes()) {
            return process.condemn(Budget::overdrawn()).await;
        }
        match serde_json::from_value::<Event>(message) {
            Ok(event) => {
                if let EventMsg::SessionConfigured { rollout_path, .. } = &event.msg {
                    env.rollout.set_path(Path::new(rollout_path));
                }
                queue_events::record(&event, env);
            }
            Err(_) => garbage.record(&env.tracer, lines.shown()),
        }
    }
}

#[async_trait]
impl Session for StdioSession {
    async fn submit(&mut self, id: &str, op: &ClientOp) -> Result<(), AgentError> {
        let Some(op) = reference::queue_op(op) else {
            return Err(AgentError::Protocol("it knows no such op".to_owned()));
        };
        let ends = matches!(op, cutpoint_protocol::session::Op::Shutdown);
        let submission = Submission { id: id.into(), op };
        let line = serde_json::to_string(&submission).unwrap_or_default() + "\n";
        if ends {
            self.running.expected_end.store(true, Ordering::Release);
        }
        let Some(stdin) = &mut self.running.stdin else {
            return Err(AgentError::Died("its input is closed".to_owned()));
        };
        let written = async {
            stdin.write_all(line.as_bytes()).await?;
            stdin.flush().await
        };
        match tokio::time::timeout(self.env.limit, written).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                // The agent is gone: the reader tells how, and this was not asked for.
                self.running.reader_has_ended().await;
                return Err(AgentError::Died(error.to_string()));
            }
            Err(_) => {
                let what = "read its input".to_owned();
                return Err(AgentError::TimedOut {
                    what,
                    limit: self.env.limit,
                });
            }
        }
        if ends {
            self.running.end(&self.env).await;
        }
        Ok(())
    }

    async fn kill(&mut self) -> Result<(), AgentError> {
        self.running.expected_end.store(true, Ordering::Release);
        let killed = self.running.process.crash().await;
        killed.map_err(|error| AgentError::Died(error.to_string()))?;
        self.running.end(&self.env).await;
        Ok(())
    }

    async fn resume(&mut self) -> Result<(), AgentError> {
        let rollout = self.running.rollout.clone();
        self.running = Running::start(&self.how, &self.env, Some(&rollout)).await?;
        Ok(())
    }

    async fn fork(&mut self, id: &str) -> Result<(), AgentError> {
        let seen = self.env.tracer.len();
        self.submit(id, &ClientOp::Fork).await?;
        let path = reference::fork_of(&self.env, seen).await?;
        self.env.tracer.record(Observation::AgentKilled);
        self.kill().await?;
        self.running.rollout = path;
        self.resume().await
    }

    async fn finish(&mut self) -> Result<(), AgentError> {
        self.running.end(&self.env).await;
        Ok(())
    }

    fn ending(&self) -> Option<String> {
        self.running
            .process
            .ending()
            .map(|ending| ending.words.clone())
    }

    fn pid(&self) -> Option<u32> {
        self.running.process.pid()
    }

    fn processes(&self) -> Vec<Process> {
        let own = self.running.process.pid();
        let mut found = process::find(&ProcessOwner::Case(self.env.dir.clone()));
        found.retain(|process| Some(process.pid) != own);
        found
    }

    fn begins_after_spawn(&self) -> bool {
        true
    }
}
