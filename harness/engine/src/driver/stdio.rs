//! An agent that speaks the submission/event queue protocol as JSON lines on its stdin and stdout:
//! `{"id","op"}` in, `{"id","msg"}` out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use cutpoint_check::trace::{AgentInfo, ClientOp, Process, ReadTrigger, What};
use cutpoint_protocol::session::{Event, EventMsg, Submission};
use cutpoint_scenario::ast::Capability;
use tokio::io::AsyncWriteExt;
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

use super::lines::{GarbageLog, JsonLines, Line, tail};
use super::{AgentError, CaseEnv, Driver, Session, queue_events, reference};
use crate::process::{self, Belongs, GroupLeader, RUN_VARIABLE};

/// How long the process may take to end once its input was closed.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// How to start the agent.
#[derive(Debug, Clone)]
pub struct StdioCommand {
    /// The program.
    pub program: PathBuf,
    /// Words before the options that every such agent takes.
    pub arguments: Vec<String>,
}

/// The driver.
pub struct StdioDriver {
    command: StdioCommand,
    info: AgentInfo,
    mark: String,
}

impl StdioDriver {
    /// A driver for that program. `mark` is put into the environment of all it starts.
    pub fn new(command: StdioCommand, name: &str, defects: Vec<String>, mark: &str) -> Self {
        let info = AgentInfo {
            name: name.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            driver: "stdio".to_owned(),
            features: reference::features(),
            defects,
        };
        Self {
            command,
            info,
            mark: mark.to_owned(),
        }
    }
}

#[async_trait]
impl Driver for StdioDriver {
    fn info(&self) -> AgentInfo {
        self.info.clone()
    }

    fn capabilities(&self) -> BTreeSet<Capability> {
        let mut all = reference::capabilities();
        // Another process can't be held at its own points.
        all.remove(&Capability::Points);
        all
    }

    async fn start(&self, env: CaseEnv) -> Result<Box<dyn Session>, AgentError> {
        let mut command = self.command.clone();
        command.arguments.extend(
            self.info
                .defects
                .iter()
                .flat_map(|defect| ["--defect".to_owned(), defect.clone()]),
        );
        let running = Running::start(&command, &self.mark, &env, None).await?;
        Ok(Box::new(StdioSession {
            command,
            mark: self.mark.clone(),
            env,
            running,
        }))
    }
}

struct StdioSession {
    command: StdioCommand,
    mark: String,
    env: CaseEnv,
    running: Running,
}

/// A running process.
struct Running {
    leader: GroupLeader,
    stdin: Option<ChildStdin>,
    reader: JoinHandle<()>,
    stderr: JoinHandle<String>,
    expected_end: Arc<AtomicBool>,
    rollout: PathBuf,
}

impl Running {
    async fn start(
        command: &StdioCommand,
        mark: &str,
        env: &CaseEnv,
        resume: Option<&Path>,
    ) -> Result<Self, AgentError> {
        let failed = |error: std::io::Error| {
            AgentError::Start(format!("{}: {error}", command.program.display()))
        };
        let (cwd, rollouts) = (env.dir.join("work"), env.dir.join("rollouts"));
        for directory in [&cwd, &rollouts] {
            std::fs::create_dir_all(directory).map_err(failed)?;
        }
        let mut process = Command::new(&command.program);
        process
            .args(&command.arguments)
            .args(["--base-url", &env.base_url, "--seed", &env.seed.to_string()])
            .arg("--rollout-dir")
            .arg(&rollouts);
        if env.needs.contains(&Capability::ServerHistory) {
            process.arg("--server-history");
        }
        if let Some(path) = resume {
            process.arg("--resume").arg(path);
        }
        process
            .env(RUN_VARIABLE, mark)
            .current_dir(&cwd)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = process.spawn().map_err(failed)?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(AgentError::Start("no pipes".to_owned()));
        };
        let pid = child.id();
        let leader = GroupLeader::new(child);
        let stderr = tokio::spawn(tail(stderr));
        env.tracer.record(What::AgentStarted {
            pid,
            resumed: resume.is_some(),
        });
        let expected_end = Arc::new(AtomicBool::new(false));
        let seen = env.tracer.len();
        let reader = tokio::spawn(read(stdout, env.clone(), expected_end.clone()));
        let mut running = Self {
            leader,
            stdin: Some(stdin),
            reader,
            stderr,
            expected_end,
            rollout: PathBuf::new(),
        };
        running.rollout = running.wait_until_ready(env, seen).await?;
        env.rollout.set_path(&running.rollout);
        Ok(running)
    }

    /// Waits for the first event, which tells where the rollout is.
    async fn wait_until_ready(
        &mut self,
        env: &CaseEnv,
        seen: usize,
    ) -> Result<PathBuf, AgentError> {
        let configured = |what: &What| match what {
            What::Event { raw, .. } if raw["msg"]["type"] == "session_configured" => {
                raw["msg"]["rollout_path"]
                    .as_str()
                    .map(PathBuf::from)
                    .map(Some)
            }
            What::AgentExited { .. } => Some(None),
            _ => None,
        };
        match env.tracer.wait(seen, env.limit, configured).await {
            Ok((_, Some(path))) => Ok(path),
            Ok((_, None)) => Err(AgentError::Start(self.last_words().await)),
            Err(_) => {
                let garbage = env.tracer.find(seen, |what| match what {
                    What::Garbage { text } => Some(text.clone()),
                    _ => None,
                });
                let printed = garbage.map(|(_, text)| format!("; it printed {text:?}"));
                let what = format!("send `session_configured`{}", printed.unwrap_or_default());
                Err(AgentError::TimedOut {
                    what,
                    limit: env.limit,
                })
            }
        }
    }

    async fn last_words(&mut self) -> String {
        let status = self.leader.end(END_PATIENCE).await;
        let stderr = tokio::time::timeout(END_PATIENCE, &mut self.stderr).await;
        let stderr = stderr.ok().and_then(Result::ok).unwrap_or_default();
        let status =
            status.map_or_else(|| "unknown status".to_owned(), |status| status.to_string());
        format!("it ended at once ({status})\n{}", stderr.trim_end())
            .trim_end()
            .to_owned()
    }

    async fn end(&mut self) {
        self.expected_end.store(true, Ordering::Release);
        self.stdin = None;
        self.leader.end(END_PATIENCE).await;
        // A tool that the agent left behind may hold its output open.
        if tokio::time::timeout(END_PATIENCE, &mut self.reader)
            .await
            .is_err()
        {
            self.reader.abort();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.reader.abort();
        self.stderr.abort();
    }
}

async fn read(stdout: ChildStdout, env: CaseEnv, expected_end: Arc<AtomicBool>) {
    let mut lines = JsonLines::new(stdout);
    let mut garbage = GarbageLog::default();
    while let Some(line) = lines.next().await {
        match line {
            Line::Message(message) => match serde_json::from_value::<Event>(message.clone()) {
                Ok(event) => {
                    if let EventMsg::SessionConfigured { rollout_path, .. } = &event.msg {
                        env.rollout.set_path(Path::new(rollout_path));
                    }
                    queue_events::record(&event, &env.tracer, &env.rollout);
                }
                Err(_) => garbage.record(&env.tracer, message.to_string()),
            },
            Line::Garbage(text) => garbage.record(&env.tracer, text),
        }
    }
    env.rollout.read(ReadTrigger::Exit);
    let expected = expected_end.load(Ordering::Acquire);
    env.tracer.record(What::AgentExited {
        code: None,
        expected,
        stderr: String::new(),
    });
}

#[async_trait]
impl Session for StdioSession {
    async fn submit(&mut self, id: &str, op: &ClientOp) -> Result<(), AgentError> {
        let Some(op) = reference::queue_op(op) else {
            return Err(AgentError::Protocol("it knows no such op".to_owned()));
        };
        let ends = matches!(op, cutpoint_protocol::session::Op::Shutdown);
        let submission = Submission {
            id: id.to_owned(),
            op,
        };
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
            Ok(Err(error)) => return Err(AgentError::Died(error.to_string())),
            Err(_) => {
                let what = "read its input".to_owned();
                return Err(AgentError::TimedOut {
                    what,
                    limit: self.env.limit,
                });
            }
        }
        if ends {
            self.running.end().await;
        }
        Ok(())
    }

    async fn kill(&mut self) -> Result<(), AgentError> {
        self.running.expected_end.store(true, Ordering::Release);
        let killed = self.running.leader.kill_child().await;
        killed.map_err(|error| AgentError::Died(error.to_string()))?;
        self.running.end().await;
        Ok(())
    }

    async fn resume(&mut self) -> Result<(), AgentError> {
        let rollout = self.running.rollout.clone();
        self.running = Running::start(&self.command, &self.mark, &self.env, Some(&rollout)).await?;
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), AgentError> {
        self.running.end().await;
        Ok(())
    }

    fn pid(&self) -> Option<u32> {
        self.running.leader.id()
    }

    fn processes(&self) -> Vec<Process> {
        let own = self.running.leader.id();
        let mut found = process::find(&Belongs::Case(self.env.dir.clone()));
        found.retain(|process| Some(process.pid) != own);
        found
    }

    fn begins_after_spawn(&self) -> bool {
        true
    }
}
