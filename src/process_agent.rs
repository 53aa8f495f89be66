//! An agent in another process, kept running while schedules are run on it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cutpoint_agent::Defect;
use cutpoint_engine::driver::{Driver, START_LIMIT};
use cutpoint_engine::runner::{RunConfig, Runner};
use cutpoint_engine::server::{ReplayServer, ServerConfig};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{oneshot, watch};

use crate::agent_spec::{self, AgentSpec};
use crate::interrupt::Interrupts;
use crate::run_dir::RunDir;
use crate::{Failure, runtime};
use cutpoint::executor::process::{ProcessCounts, ProcessExecutor};

/// How many cases run at once unless the user says otherwise.
pub const JOBS: usize = 16;

/// Which agent is driven, and how.
#[derive(Debug, Clone)]
pub struct AgentSettings {
    /// The agent.
    pub agent: AgentSpec,
    /// Planted defects that are switched on, if it is the reference agent.
    pub defects: Vec<Defect>,
    /// The upper bound of each single wait.
    pub limit: Duration,
    /// The seed of everything random.
    pub seed: u64,
    /// Where recordings may be.
    pub recordings: PathBuf,
}

/// An agent with everything that runs schedules on it.
pub struct ProcessAgent {
    /// What starts it.
    pub driver: Arc<dyn Driver>,
    /// What drives it.
    pub runner: Arc<Runner>,
    /// What the runs have counted.
    pub counts: Arc<ProcessCounts>,
    /// Set at the first signal.
    pub stop: AtomicBool,
    runtime: Handle,
    stopped: watch::Receiver<bool>,
}

impl ProcessAgent {
    /// An executor of a file's schedules, which runs each failure's first schedule so many times more.
    pub fn executor(
        &self,
        file: &str,
        strict: bool,
        repeat: usize,
        stride_bytes: Option<usize>,
    ) -> ProcessExecutor {
        ProcessExecutor {
            runner: self.runner.clone(),
            runtime: self.runtime.clone(),
            stopped: self.stopped.clone(),
            counts: self.counts.clone(),
            file: file.to_owned(),
            strict,
            repeat,
            stride_bytes,
        }
    }
}

/// Starts an agent, works with it on a thread beside the runtime's, and leaves no process behind. The
/// first signal stops the runs that are under way.
pub fn with_agent<T: Send>(
    settings: &AgentSettings,
    work: impl FnOnce(&ProcessAgent) -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    let runtime = runtime()?;
    let run_dir = RunDir::new()?;
    let result = drive(&runtime, settings, &run_dir, work);
    runtime.block_on(run_dir.clear());
    run_dir.remove();
    result
}

fn drive<T: Send>(
    runtime: &Runtime,
    settings: &AgentSettings,
    run_dir: &RunDir,
    work: impl FnOnce(&ProcessAgent) -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    let (stopper, stopped) = watch::channel(false);
    let start = async {
        let (driver, runner) = start(settings, run_dir).await?;
        Ok::<_, Failure>((driver, runner, Interrupts::new()?))
    };
    let (driver, runner, mut interrupts) = runtime.block_on(start)?;
    let agent = ProcessAgent {
        driver,
        runner,
        counts: Arc::default(),
        stop: AtomicBool::new(false),
        runtime: runtime.handle().clone(),
        stopped,
    };
    let (done, mut is_done) = oneshot::channel::<()>();
    let result = std::thread::scope(|scope| {
        let working = scope.spawn(|| {
            let _done = done;
            work(&agent)
        });
        runtime.block_on(async {
            tokio::select! {
                biased;
                () = interrupts.next() => {
                    agent.stop.store(true, Ordering::Relaxed);
                    let _ = stopper.send(true);
                    let _ = is_done.await;
                }
                _ = &mut is_done => {}
            }
        });
        match working.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    runtime.block_on(agent.driver.close());
    result
}

/// Prepares to drive an agent, whose files stay in the run directory. It shares its process among cases if its
/// protocol allows it.
async fn start(
    settings: &AgentSettings,
    run_dir: &RunDir,
) -> Result<(Arc<dyn Driver>, Arc<Runner>), Failure> {
    agent_spec::check_defects(&settings.defects, [&settings.agent])?;
    let context = run_dir.context(START_LIMIT, &settings.defects);
    let driver = settings.agent.driver(&context).await?;
    let server = ReplayServer::start(ServerConfig::default())
        .await
        .map_err(|error| Failure::trouble(error.to_string()))?;
    let config = RunConfig {
        limit: settings.limit,
        seed: settings.seed,
        recordings: settings.recordings.clone(),
        dir: Some(run_dir.dir().join("cases")),
        rules_only: true,
        judge: cutpoint_check::judge,
    };
    let runner = Runner::new(Arc::new(server), driver.clone(), config);
    Ok((driver, Arc::new(runner)))
}
