//! Collects the trace of one case while it runs, and lets the runner wait for what it waits for.

use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cutpoint_trace::{Entry, Observation};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Most entries one case may produce. An agent that floods its client would otherwise eat the
/// machine's memory; real cases stay well below a thousandth of this.
pub const ENTRY_LIMIT: usize = 1_000_000;

/// How many entries there is room for from the start.
const USUAL_ENTRIES: usize = 128;

/// The trace of a case in the making. Every observer records into it; the lock decides the order.
#[derive(Debug)]
pub struct Tracer {
    start: Instant,
    entries: Mutex<Vec<Entry>>,
    recorded: Notify,
}

/// A wait ran into its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimedOut;

impl Default for Tracer {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            entries: Mutex::new(Vec::with_capacity(USUAL_ENTRIES)),
            recorded: Notify::new(),
        }
    }
}

impl Tracer {
    /// Adds an observation, made now.
    pub fn record(&self, observation: Observation) {
        self.record_many([observation]);
    }

    /// Adds observations that belong together: nothing comes between them.
    pub fn record_many(&self, observations: impl IntoIterator<Item = Observation>) {
        let mut entries = self.lock();
        for observation in observations {
            let at_ns = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let seq = entries.len() as u64;
            if entries.len() < ENTRY_LIMIT {
                entries.push(Entry {
                    seq,
                    at_ns,
                    observation,
                });
            } else if entries.len() == ENTRY_LIMIT {
                let message = format!("the case produced more than {ENTRY_LIMIT} trace entries");
                entries.push(Entry {
                    seq,
                    at_ns,
                    observation: Observation::Trouble { message },
                });
            }
        }
        drop(entries);
        self.recorded.notify_waiters();
    }

    /// The number of entries so far: where a later search may start.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nothing was recorded yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Looks at the entries from `from` on.
    pub fn with<T>(&self, from: usize, look: impl FnOnce(&[Entry]) -> T) -> T {
        let entries = self.lock();
        look(entries.get(from..).unwrap_or_default())
    }

    /// Whether an agent runs: it was started, and neither killed nor gone since.
    pub fn agent_is_up(&self) -> bool {
        let change = |entry: &Entry| match entry.observation {
            Observation::AgentStarted { .. } => Some(true),
            Observation::AgentKilled | Observation::AgentExited { .. } => Some(false),
            _ => None,
        };
        let last = |entries: &[Entry]| entries.iter().rev().find_map(change);
        self.with(0, last).unwrap_or(false)
    }

    /// The first entry from `from` on for which `wanted` gives something, with its position.
    pub fn find<T>(
        &self,
        from: usize,
        mut wanted: impl FnMut(&Observation) -> Option<T>,
    ) -> Option<(usize, T)> {
        self.with(from, |entries| {
            entries
                .iter()
                .enumerate()
                .find_map(|(at, entry)| wanted(&entry.observation).map(|found| (from + at, found)))
        })
    }

    /// Waits until [`Tracer::find`] finds something.
    ///
    /// # Errors
    /// If it does not within the limit.
    pub async fn wait<T>(
        &self,
        from: usize,
        limit: Duration,
        mut wanted: impl FnMut(&Observation) -> Option<T>,
    ) -> Result<(usize, T), TimedOut> {
        let search = async {
            let mut from = from;
            loop {
                let mut recorded = pin!(self.recorded.notified());
                // From here on nothing that is recorded goes unnoticed.
                recorded.as_mut().enable();
                let seen = self.len();
                if let Some(found) = self.find(from, &mut wanted) {
                    return found;
                }
                // Entries below `seen` were looked at; they don't change any more.
                from = from.max(seen);
                recorded.await;
            }
        };
        tokio::time::timeout(limit, search)
            .await
            .map_err(|_| TimedOut)
    }

    /// The entries, copied.
    pub fn entries(&self) -> Vec<Entry> {
        self.lock().clone()
    }

    /// The entries, taken out at the end of a case; what comes later is dropped.
    pub fn take(&self) -> Vec<Entry> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        // A panic while the lock is held leaves whole entries only.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(number: usize) -> Observation {
        Observation::Step {
            number,
            line: 0,
            text: String::new(),
        }
    }

    fn wanted(n: usize) -> impl FnMut(&Observation) -> Option<()> {
        move |what| matches!(what, Observation::Step { number, .. } if *number == n).then_some(())
    }

    #[test]
    fn an_agent_is_up_until_it_ends() {
        let tracer = Tracer::default();
        let start = |resumed| Observation::AgentStarted { pid: None, resumed };
        let mut seen = vec![tracer.agent_is_up()];
        for what in [start(false), step(1), Observation::AgentKilled, start(true)] {
            tracer.record(what);
            seen.push(tracer.agent_is_up());
        }
        assert_eq!(seen, [false, true, true, false, true]);
    }

    #[tokio::test]
    async fn a_wait_sees_what_was_there_and_what_comes() {
        let tracer = std::sync::Arc::new(Tracer::default());
        tracer.record(step(1));
        let limit = Duration::from_secs(5);
        assert_eq!(tracer.wait(0, limit, wanted(1)).await, Ok((0, ())));
        let waiting = tokio::spawn({
            let tracer = tracer.clone();
            async move { tracer.wait(1, limit, wanted(3)).await }
        });
        tokio::task::yield_now().await;
        tracer.record_many([step(2), step(3)]);
        assert_eq!(waiting.await.unwrap(), Ok((2, ())));
    }

    #[tokio::test]
    async fn a_wait_has_a_limit() {
        let tracer = Tracer::default();
        assert_eq!(
            tracer.wait(0, Duration::from_millis(1), wanted(1)).await,
            Err(TimedOut)
        );
    }
}
