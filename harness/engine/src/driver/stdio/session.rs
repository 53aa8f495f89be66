//! A session of an agent that speaks the queue protocol as JSON lines.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use cutpoint_agent::DefectSet;
use cutpoint_protocol::session::{Event, EventMsg, Op, Submission};
use cutpoint_trace::{AgentEvent, ClientOp, Observation, Process};
use tokio::io::AsyncWriteExt;
use tokio::process::{ChildStdin, ChildStdout};
use tokio_util::task::AbortOnDropHandle;

use crate::driver::kit::env::tool_processes;
use crate::driver::kit::json_lines::{JsonLines, OutputBudget, OutputLine};
use crate::driver::kit::program::SessionProgram;
use crate::driver::kit::queue_protocol;
use crate::driver::kit::supervise::{AgentHost, Supervisor};
use crate::driver::{AgentError, AgentSession, CaseEnv};

pub(super) struct StdioSession {
    program: SessionProgram,
    env: CaseEnv,
    /// The planted defects of the agent's view, if that view is known.
    view: Option<DefectSet>,
    running: RunningProgram,
}

/// A running process.
struct RunningProgram {
    supervisor: Arc<Supervisor>,
    stdin: Option<ChildStdin>,
    _reader: AbortOnDropHandle<()>,
    rollout: PathBuf,
}

impl StdioSession {
    /// Starts the agent on a new conversation.
    pub(super) async fn start(
        env: CaseEnv,
        program: SessionProgram,
        view: Option<DefectSet>,
    ) -> Result<Box<dyn AgentSession>, AgentError> {
        let running = RunningProgram::start(&program, &env, view, None).await?;
        Ok(Box::new(Self {
            program,
            env,
            view,
            running,
        }))
    }

    /// Starts the agent again, on that rollout.
    async fn restart(&mut self, rollout: &Path) -> Result<(), AgentError> {
        let resume = Some(rollout);
        self.running = RunningProgram::start(&self.program, &self.env, self.view, resume).await?;
        Ok(())
    }
}

impl RunningProgram {
    async fn start(
        program: &SessionProgram,
        env: &CaseEnv,
        view: Option<DefectSet>,
        resume: Option<&Path>,
    ) -> Result<Self, AgentError> {
        let options = resume.map_or(vec![], |path| {
            vec![OsStr::new("--resume"), path.as_os_str()]
        });
        let (process, stdin, stdout) = program.spawn(env, &options)?;
        env.tracer.record(Observation::AgentStarted {
            pid: process.pid(),
            resumed: resume.is_some(),
        });
        if let Some(defects) = view {
            env.screen.open(defects);
        }
        let seen = env.tracer.len();
        let supervisor = Supervisor::new(AgentHost::Process(process));
        let reader = tokio::spawn(read(stdout, env.clone(), supervisor.clone()));
        let watched = env.clone();
        supervisor.watch(move |exit| exit.record(&watched));
        let mut running = Self {
            supervisor,
            stdin: Some(stdin),
            _reader: AbortOnDropHandle::new(reader),
            rollout: PathBuf::new(),
        };
        match running.wait_until_ready(env, seen, program).await {
            Ok(path) => {
                env.rollout.set_path(&path);
                running.rollout = path;
                Ok(running)
            }
            Err(error) => {
                running.supervisor.expect_end();
                Err(running.supervisor.explain(error).await)
            }
        }
    }

    /// Waits for the first event, which says where the rollout is.
    async fn wait_until_ready(
        &self,
        env: &CaseEnv,
        seen: usize,
        program: &SessionProgram,
    ) -> Result<PathBuf, AgentError> {
        let configured = |observation: &Observation| match observation {
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
        let limit = program.start_limit;
        match env.tracer.wait(seen, limit, configured).await {
            Ok((_, Some(path))) => Ok(path),
            Ok((_, None)) => Err(AgentError::Died("it ended at once".to_owned())),
            Err(_) => Err(AgentError::TimedOut {
                what: "send `session_configured`".to_owned(),
                limit,
            }),
        }
    }

    async fn end(&mut self) {
        self.stdin = None;
        self.supervisor.end().await;
    }
}

impl Drop for RunningProgram {
    fn drop(&mut self) {
        self.supervisor.abandon();
    }
}

/// Records the agent's output until it ends, or no more of it is to be read.
async fn read(stdout: ChildStdout, env: CaseEnv, supervisor: Arc<Supervisor>) {
    tokio::select! {
        biased;
        () = supervisor.output_closed() => {}
        () = read_messages(stdout, &env, &supervisor) => {}
    }
}

async fn read_messages(stdout: ChildStdout, env: &CaseEnv, supervisor: &Supervisor) {
    let mut lines = JsonLines::new(stdout);
    let mut budget = OutputBudget::default();
    let garbage = |budget: &mut OutputBudget, text: String| {
        supervisor.note_garbage(&text);
        budget.record_garbage(&env.tracer, text);
    };
    loop {
        env.event_client.reads().await;
        let message = match lines.next().await {
            Some(OutputLine::Message(message)) => message,
            Some(OutputLine::Garbage(text)) => {
                garbage(&mut budget, text);
                continue;
            }
            None => return supervisor.close_output(),
        };
        if !budget.spend(lines.length_bytes()) {
            return supervisor.exceed_budget();
        }
        match serde_json::from_value::<Event>(message) {
            Ok(event) => {
                if let EventMsg::SessionConfigured { rollout_path, .. } = &event.msg {
                    env.rollout.set_path(Path::new(rollout_path));
                }
                queue_protocol::record(&event, env);
            }
            Err(_) => garbage(&mut budget, lines.shortened()),
        }
    }
}

#[async_trait]
impl AgentSession for StdioSession {
    async fn submit(&mut self, id: &str, op: &ClientOp) -> Result<(), AgentError> {
        let op = queue_protocol::op(op)?;
        let ends = op == Op::Shutdown;
        let submission = Submission { id: id.into(), op };
        let line = serde_json::to_string(&submission).unwrap_or_default() + "\n";
        if ends {
            self.running.supervisor.expect_end();
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
                // The agent is gone, which was not asked for. How it ended is seen first.
                self.running.supervisor.recorded().await;
                return Err(AgentError::Died(error.to_string()));
            }
            Err(_) => {
                return Err(AgentError::TimedOut {
                    what: "read its input".to_owned(),
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
        self.running.supervisor.crash().await?;
        self.running.end().await;
        Ok(())
    }

    async fn resume(&mut self) -> Result<(), AgentError> {
        let rollout = self.running.rollout.clone();
        self.restart(&rollout).await
    }

    async fn fork(&mut self, id: &str) -> Result<(), AgentError> {
        let env = self.env.clone();
        let rollout = queue_protocol::fork(self, &env, id).await?;
        self.restart(&rollout).await
    }

    async fn finish(&mut self) -> Result<(), AgentError> {
        self.running.end().await;
        Ok(())
    }

    fn ending(&self) -> Option<String> {
        self.running.supervisor.ending()
    }

    fn pid(&self) -> Option<u32> {
        self.running.supervisor.pid()
    }

    fn processes(&self) -> Vec<Process> {
        tool_processes(&self.env, self.pid())
    }

    fn begins_after_spawn(&self) -> bool {
        true
    }
}
