//! Waits until an agent has taken in what it was sent.
//!
//! A gate is reached when its bytes have left the server. The agent may not have read them yet, and
//! an interrupt that overtakes them cuts at an earlier point than the scenario says. So the harness
//! looks until the agent's end of the connection has nothing left to read and no thread of the agent
//! runs, three times in a row. Of a process that serves many cases some thread nearly always runs; of
//! it, silence in this case is enough. This is a heuristic for agents in other processes; it held in all
//! trials it was measured in, and the rules accept both outcomes where a race remains.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::receive_queue::unread_bytes;
use crate::server::Endpoints;
use crate::tracer::Tracer;

/// How many looks in a row must find the agent quiet.
const LOOKS: u32 = 3;
/// Time between two looks.
const PAUSE: Duration = Duration::from_micros(500);
/// The same where the process serves other cases: each look reads a file for each of its many threads.
const SHARED_PAUSE: Duration = Duration::from_millis(5);
/// How long nothing may be observed of a case whose agent has read everything: so long does a busy
/// machine take at most to get a thread to run that has something to do.
const SILENCE: Duration = Duration::from_millis(100);
/// After this the action is done all the same: an agent may be busy for reasons of its own.
const LIMIT: Duration = Duration::from_millis(250);

/// How an agent was found when it was acted upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quiescence {
    /// It had read everything, and none of its threads ran.
    Quiet,
    /// It had read everything, and nothing was observed of the case for a while, although its threads
    /// ran: on behalf of other cases that it serves, say.
    Silent,
    /// Neither, as long as was waited.
    Busy,
}

/// How often agents were found in which way.
#[derive(Debug, Default)]
pub struct QuietCount([AtomicUsize; 3]);

impl QuietCount {
    /// Counts one wait.
    pub fn count(&self, found: Quiescence) {
        self.0[found as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many waits have ended in that way.
    pub fn of(&self, found: Quiescence) -> usize {
        self.0[found as usize].load(Ordering::Relaxed)
    }
}

/// Waits until the client's end has read everything and `pid`, if given, has no running thread. Of a
/// process that serves other cases it is enough that nothing more is observed of the case.
pub async fn wait(
    ends: Option<Endpoints>,
    pid: Option<u32>,
    shared: Option<&Tracer>,
) -> Quiescence {
    let deadline = Instant::now() + LIMIT;
    let mut quiet = 0;
    let observed = || shared.map_or(0, Tracer::len);
    let (mut seen, mut since) = (observed(), Instant::now());
    while Instant::now() < deadline {
        let unread = ends.is_some_and(|ends| unread_bytes(ends).is_some_and(|bytes| bytes > 0));
        if unread || observed() != seen {
            (seen, since) = (observed(), Instant::now());
        }
        let busy = unread || pid.is_some_and(has_running_thread);
        quiet = if busy { 0 } else { quiet + 1 };
        if quiet == LOOKS {
            return Quiescence::Quiet;
        }
        if shared.is_some() && since.elapsed() >= SILENCE {
            return Quiescence::Silent;
        }
        tokio::time::sleep(shared.map_or(PAUSE, |_| SHARED_PAUSE)).await;
    }
    Quiescence::Busy
}

fn has_running_thread(pid: u32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return false;
    };
    tasks.filter_map(Result::ok).any(|task| {
        fs::read_to_string(task.path().join("stat")).is_ok_and(|stat| {
            // The name in parentheses may hold anything, so the state is counted from its end.
            stat.rfind(')')
                .and_then(|at| stat[at + 1..].trim_start().chars().next())
                == Some('R')
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receive_queue::tests::connection;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn unread_bytes_are_seen_and_waited_for() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Some((mut client, mut server, ends)) = connection(address).await else {
                continue;
            };
            assert_eq!(unread_bytes(ends), Some(0), "{address}");
            server.write_all(b"hello").await.unwrap();
            client.readable().await.unwrap();
            assert_eq!(unread_bytes(ends), Some(5), "{address}");
            let mut read = [0; 5];
            let (_, found) =
                tokio::join!(client.read_exact(&mut read), wait(Some(ends), None, None));
            assert_eq!(found, Quiescence::Quiet, "{address}");
            assert_eq!(unread_bytes(ends), Some(0), "{address}");
        }
    }

    #[test]
    fn a_process_that_is_gone_is_quiet() {
        assert!(!has_running_thread(u32::MAX));
    }
}
