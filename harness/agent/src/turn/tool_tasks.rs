//! The calls of a turn, side by side with the turn's own work.
//!
//! They are not tasks of their own: all of them are polled whenever the turn is, so none can hold a
//! place in a queue that another one of them waits for, and dropping the turn drops them at once.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Mutex;
use std::task::{Context, Poll};

use tokio::sync::Notify;

use crate::lock;

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Calls at work.
#[derive(Default)]
pub(crate) struct ToolTasks {
    /// New ones, not polled yet.
    arrived: Mutex<Vec<Job>>,
    /// At work. Taken out while they are polled.
    working: Mutex<Vec<Job>>,
    ended: Notify,
}

impl ToolTasks {
    pub(crate) fn add(&self, job: impl Future<Output = ()> + Send + 'static) {
        lock(&self.arrived).push(Box::pin(job));
    }

    /// Drives `main` and the jobs until `main` is done.
    pub(crate) async fn drive<F: Future>(&self, main: F) -> F::Output {
        let mut main = pin!(main);
        std::future::poll_fn(|context| {
            if let Poll::Ready(output) = main.as_mut().poll(context) {
                return Poll::Ready(output);
            }
            self.poll_jobs(context);
            Poll::Pending
        })
        .await
    }

    /// Drives the jobs until none is left.
    pub(crate) async fn drive_out(&self) {
        self.drive(self.idle()).await;
    }

    /// Drops what is still at work.
    pub(crate) fn dismiss(&self) {
        lock(&self.arrived).clear();
        lock(&self.working).clear();
    }

    /// Returns when no job is left. It must be driven, as the jobs are not otherwise.
    pub(crate) async fn idle(&self) {
        loop {
            let ended = self.ended.notified();
            if lock(&self.arrived).is_empty() && lock(&self.working).is_empty() {
                return;
            }
            ended.await;
        }
    }

    fn poll_jobs(&self, context: &mut Context<'_>) {
        let mut working = lock(&self.working);
        loop {
            working.append(&mut lock(&self.arrived));
            let before = working.len();
            working.retain_mut(|job| job.as_mut().poll(context).is_pending());
            if working.len() < before {
                self.ended.notify_waiters();
            }
            if lock(&self.arrived).is_empty() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn main_and_jobs_make_progress_together() {
        let tool_tasks = Arc::new(ToolTasks::default());
        let (sender, receiver) = oneshot::channel();
        let inner = Arc::clone(&tool_tasks);
        let main = async move {
            inner.add(async move {
                tokio::task::yield_now().await;
                let _ = sender.send(7);
            });
            let got = receiver.await.unwrap();
            inner.idle().await;
            got
        };
        assert_eq!(tool_tasks.drive(main).await, 7);
        tool_tasks.drive_out().await;
    }
}
