//! Where a command's agents work, and how what they start is found again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cutpoint_agent::Defect;
use cutpoint_engine::driver::agent_kind::LaunchContext;
use cutpoint_engine::process::{self, ProcessOwner};
use tempfile::TempDir;

use crate::Failure;
use crate::console::complain;

/// How long processes of the run may take to go when they are killed.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// Where a run's agents work, and how their processes are told from others.
pub struct RunDir {
    mark: String,
    dir: TempDir,
    /// This program.
    cutpoint: PathBuf,
}

impl RunDir {
    /// A fresh directory, and a mark of its own.
    pub fn new() -> Result<Self, Failure> {
        let dir = tempfile::Builder::new().prefix("cutpoint-").tempdir();
        let dir =
            dir.map_err(|error| Failure::trouble(format!("no temporary directory: {error}")))?;
        let cutpoint = std::env::current_exe()
            .map_err(|error| Failure::trouble(format!("this program is not found: {error}")))?;
        Ok(Self {
            mark: uuid::Uuid::new_v4().to_string(),
            dir,
            cutpoint,
        })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What an agent is started with here.
    pub fn context(&self, start_limit: Duration, defects: &[Defect]) -> LaunchContext {
        LaunchContext {
            mark: self.mark.clone(),
            start_limit,
            dir: self.dir.path().to_owned(),
            cutpoint: self.cutpoint.clone(),
            defects: defects.to_vec(),
        }
    }

    /// What a run has started carries its mark, or works in its directory: a tool of the agent in
    /// this process has no mark, and one that left the directory still has it.
    fn belongings(&self) -> [ProcessOwner; 2] {
        [
            ProcessOwner::Run(self.mark.clone()),
            ProcessOwner::Case(process::real_path(self.dir.path())),
        ]
    }

    /// Kills whatever the run has started and waits until it is gone.
    pub async fn clear(&self) {
        for belongs in self.belongings() {
            process::kill_all(&belongs, KILL_LIMIT).await;
        }
    }

    /// The same without waiting.
    pub fn kill_now(&self) {
        for belongs in self.belongings() {
            process::kill_now(&belongs);
        }
    }

    /// Removes the directory, once nobody writes to it any more.
    pub fn remove(mut self) {
        let path = self.dir.path().to_owned();
        self.dir.disable_cleanup(true);
        if let Err(error) = std::fs::remove_dir_all(&path) {
            complain!("{} is left behind: {error}", path.display());
        }
    }
}

impl Drop for RunDir {
    /// For a run that is left in any other way than its end, such as by a panic.
    fn drop(&mut self) {
        self.kill_now();
    }
}

/// Does the work in a directory of its own, and leaves nothing behind.
pub async fn in_run_dir<T>(
    work: impl AsyncFnOnce(&RunDir) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let run_dir = RunDir::new()?;
    let outcome = work(&run_dir).await;
    run_dir.clear().await;
    run_dir.remove();
    outcome
}
