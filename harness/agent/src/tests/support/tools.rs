//! Tools that do what the test wrote.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::{AbandonMode, Disk, Files, RunningTool, ToolCommand, ToolEvent, ToolRunner, lock};

#[derive(Clone)]
pub(crate) enum ToolStep {
    Print(&'static str),
    Gate(watch::Receiver<bool>),
    Hang,
    Exit(i32),
}

pub(crate) struct ScriptTools {
    scripts: Mutex<VecDeque<Vec<ToolStep>>>,
    pub(crate) commands: Mutex<Vec<ToolCommand>>,
    pub(crate) alive: Arc<AtomicUsize>,
    /// Whether a killed tool never goes.
    pub(crate) stubborn: Mutex<bool>,
}

impl ScriptTools {
    pub(crate) fn new(scripts: Vec<Vec<ToolStep>>) -> Self {
        Self {
            scripts: Mutex::new(scripts.into()),
            commands: Mutex::default(),
            alive: Arc::default(),
            stubborn: Mutex::default(),
        }
    }

    pub(crate) fn alive(&self) -> usize {
        self.alive.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl ToolRunner for ScriptTools {
    fn files(&self) -> &dyn Files {
        &Disk
    }

    async fn spawn(&self, command: ToolCommand) -> io::Result<Box<dyn RunningTool>> {
        lock(&self.commands).push(command);
        let Some(steps) = lock(&self.scripts).pop_front() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let number = self.alive.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(ScriptTool {
            pid: 100 + number as u32,
            steps: steps.into(),
            alive: Arc::clone(&self.alive),
            stubborn: *lock(&self.stubborn),
        }))
    }
}

struct ScriptTool {
    pid: u32,
    steps: VecDeque<ToolStep>,
    alive: Arc<AtomicUsize>,
    stubborn: bool,
}

impl Drop for ScriptTool {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl RunningTool for ScriptTool {
    fn pid(&self) -> Option<u32> {
        Some(self.pid)
    }

    async fn next(&mut self) -> ToolEvent {
        loop {
            match self.steps.front().cloned().unwrap_or(ToolStep::Hang) {
                ToolStep::Print(text) => {
                    self.steps.pop_front();
                    return ToolEvent::Output(Bytes::from(text));
                }
                ToolStep::Gate(mut gate) => {
                    let _ = gate.wait_for(|open| *open).await;
                    self.steps.pop_front();
                }
                ToolStep::Hang => std::future::pending().await,
                ToolStep::Exit(code) => return ToolEvent::Exited(Some(code)),
            }
        }
    }

    async fn kill(&mut self) -> Bytes {
        if self.stubborn {
            std::future::pending::<()>().await;
        }
        Bytes::new()
    }

    fn abandon(self: Box<Self>, _how: AbandonMode) {
        std::mem::forget(self);
    }
}
