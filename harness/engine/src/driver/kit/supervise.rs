//! Supervises a running agent: sees its end, has it recorded, and explains it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use cutpoint_trace::{Observation, ReadTrigger};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::json_lines::OutputBudget;
use super::process::{AgentProcess, END_PATIENCE, EXIT_PATIENCE};
use crate::driver::{AgentError, CaseEnv};

/// Where an agent runs.
#[derive(Debug, Clone)]
pub(crate) enum AgentHost {
    /// In a task of this process.
    Task(AbortHandle),
    /// In a process of its own.
    Process(Arc<AgentProcess>),
}

/// The end of an agent.
#[derive(Debug, Clone)]
pub(crate) struct AgentExit {
    code: Option<i32>,
    expected: bool,
    /// The end of its stderr, if its end was not expected.
    stderr: String,
}

impl AgentExit {
    /// An end that was asked for, of which no more is known.
    pub(crate) fn expected() -> Self {
        Self {
            code: None,
            expected: true,
            stderr: String::new(),
        }
    }

    /// Records what the agent wrote to its rollout last, and then its end.
    pub(crate) fn record(self, env: &CaseEnv) {
        env.rollout.read(ReadTrigger::Exit);
        self.record_end(env);
    }

    /// Records the end alone.
    pub(crate) fn record_end(self, env: &CaseEnv) {
        env.tracer.record(Observation::AgentExited {
            code: self.code,
            expected: self.expected,
            stderr: self.stderr,
        });
    }
}

/// Supervises one agent. Whoever reads the agent's output reports what concerns its end.
#[derive(Debug)]
pub(crate) struct Supervisor {
    host: AgentHost,
    expected: AtomicBool,
    output_closed: CancellationToken,
    budget_exceeded: CancellationToken,
    recorded: CancellationToken,
    first_garbage: OnceLock<String>,
    watching: OnceLock<AbortHandle>,
}

impl Supervisor {
    /// A supervisor of an agent that was just started. Call [`Self::watch`] next.
    pub(crate) fn new(host: AgentHost) -> Arc<Self> {
        Arc::new(Self {
            host,
            expected: AtomicBool::new(false),
            output_closed: CancellationToken::new(),
            budget_exceeded: CancellationToken::new(),
            recorded: CancellationToken::new(),
            first_garbage: OnceLock::new(),
            watching: OnceLock::new(),
        })
    }

    /// Waits for the agent's end in the background, and passes it to `record`.
    pub(crate) fn watch(self: &Arc<Self>, record: impl FnOnce(AgentExit) + Send + 'static) {
        let supervisor = self.clone();
        let watching = tokio::spawn(async move {
            record(supervisor.exit().await);
            supervisor.recorded.cancel();
            if let Some(process) = supervisor.process() {
                // It may have closed its output and lived on.
                process.end().await;
            }
        });
        self.watching.get_or_init(|| watching.abort_handle());
    }

    /// Stops watching: the agent's process is killed with its group when the last user of this is gone.
    pub(crate) fn abandon(&self) {
        self.close_output();
        self.abort();
        if let Some(watching) = self.watching.get() {
            watching.abort();
        }
    }

    async fn exit(&self) -> AgentExit {
        // A child of the agent may hold its output open, but does not speak for it.
        let outlived = async {
            match self.process() {
                Some(process) => process.gone().await,
                None => std::future::pending().await,
            }
            tokio::time::sleep(EXIT_PATIENCE).await;
        };
        tokio::select! {
            biased;
            () = self.output_closed.cancelled() => {}
            () = outlived => self.output_closed.cancel(),
            () = self.budget_exceeded.cancelled() => match &self.host {
                AgentHost::Task(task) => task.abort(),
                AgentHost::Process(process) => process.kill_because(OutputBudget::exceeded()).await,
            },
        }
        let expected = self.expected.load(Ordering::Acquire);
        let (mut code, mut stderr) = (None, String::new());
        if let Some(process) = self.process() {
            code = process.wait().await.code;
            if !expected {
                stderr = process.last_words().await;
            }
        }
        AgentExit {
            code,
            expected,
            stderr,
        }
    }

    /// From here on the agent's end is expected.
    pub(crate) fn expect_end(&self) {
        self.expected.store(true, Ordering::Release);
    }

    /// No more output will be read.
    pub(crate) fn close_output(&self) {
        self.output_closed.cancel();
    }

    /// Whether no more output will be read.
    pub(crate) fn is_output_closed(&self) -> bool {
        self.output_closed.is_cancelled()
    }

    /// Returns when no more output is to be read.
    pub(crate) async fn output_closed(&self) {
        self.output_closed.cancelled().await;
    }

    /// The agent printed more than it may, and is ended for it.
    pub(crate) fn exceed_budget(&self) {
        self.budget_exceeded.cancel();
    }

    /// The agent printed a line that is not a message.
    pub(crate) fn note_garbage(&self, line: &str) {
        self.first_garbage.get_or_init(|| line.to_owned());
    }

    /// The agent's process, if it has one of its own.
    pub(crate) fn process(&self) -> Option<&Arc<AgentProcess>> {
        match &self.host {
            AgentHost::Task(_) => None,
            AgentHost::Process(process) => Some(process),
        }
    }

    /// The id of the agent's process, if it has one of its own.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process()?.pid()
    }

    /// How the agent's process ended, as a clause, if that was seen.
    pub(crate) fn ending(&self) -> Option<String> {
        Some(self.process()?.ending()?.clause.clone())
    }

    /// Waits until the agent's end is recorded, within limits.
    pub(crate) async fn recorded(&self) {
        let recorded = self.recorded.cancelled();
        let _ = tokio::time::timeout(2 * END_PATIENCE, recorded).await;
    }

    /// Waits for the agent's end after its input was closed, or ends it by force.
    pub(crate) async fn end(&self) {
        self.expect_end();
        match &self.host {
            AgentHost::Task(_) => self.recorded().await,
            AgentHost::Process(process) => process.end().await,
        }
        self.abort();
        self.recorded().await;
        if !self.recorded.is_cancelled() {
            // Not even SIGKILL ended it. No case waits for it any longer.
            self.close_output();
            self.recorded().await;
        }
    }

    /// Ends the agent as a crash would.
    pub(crate) async fn crash(&self) -> Result<(), AgentError> {
        self.expect_end();
        if let Some(process) = self.process() {
            let killed = process.crash().await;
            killed.map_err(|error| AgentError::Died(error.to_string()))?;
        }
        self.abort();
        self.recorded().await;
        Ok(())
    }

    /// Ends the agent's task, if it runs in one, without waiting.
    pub(crate) fn abort(&self) {
        if let AgentHost::Task(task) = &self.host {
            task.abort();
        }
    }

    /// Why no session came about, with all that is known of the agent.
    pub(crate) async fn explain(&self, error: AgentError) -> AgentError {
        let mut why = match error {
            AgentError::Start(why) | AgentError::Protocol(why) => why,
            AgentError::TimedOut { what, limit } => {
                format!("it did not {what} within {} s", limit.as_secs_f64())
            }
            AgentError::Died(why) => {
                self.recorded().await;
                self.ending().unwrap_or(why)
            }
            error @ (AgentError::NotInstalled(_) | AgentError::UnsupportedOp) => return error,
        };
        if let Some(line) = self.first_garbage.get() {
            why.push_str(&format!("; it printed {line:?}"));
        }
        if let Some(process) = self.process() {
            why.push_str(&format!("\n{}", process.last_words().await));
        }
        AgentError::Start(why.trim_end().to_owned())
    }
}
