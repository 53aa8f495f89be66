//! Looks for processes that outlive what started them: a turn, or the agent.

use std::time::Duration;

use cutpoint_trace::{Observation, Process};

use tokio::time::Instant;

use crate::driver::{AgentSession, CaseEnv};
use crate::trace_queries;

/// How long a tool may outlive its turn, or the agent (rules PROC-1 and PROC-2).
pub const TOOL_LIMIT: Duration = Duration::from_secs(2);
/// The first pause between two looks at processes that are waited for. Most are about to go.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// No pause is longer. Each look reads all of `/proc`, and what is left for good would cost as much
/// as everything else together.
const PAUSE_LIMIT: Duration = Duration::from_millis(200);

/// The processes that were alive right after each abort of a case.
pub struct Leftovers<'a> {
    env: &'a CaseEnv,
    /// Entries before this one were looked through for aborts.
    seen: usize,
    left: Vec<(Instant, Vec<Process>)>,
}

impl<'a> Leftovers<'a> {
    /// Nothing was seen yet.
    pub fn new(env: &'a CaseEnv) -> Self {
        Self {
            env,
            seen: 0,
            left: Vec::new(),
        }
    }

    /// Called after each step: a turn that was aborted since the last call gets a look at what is
    /// alive, before anything else is started.
    pub fn look(&mut self, session: &mut dyn AgentSession) {
        let (from, tracer) = (self.seen, &self.env.tracer);
        self.seen = tracer.len();
        let aborted = |what: &Observation| {
            trace_queries::turn_end(what)
                .filter(|end| trace_queries::is_abort(end, None))
                .map(|_| ())
        };
        if tracer.find(from, aborted).is_none() {
            return;
        }
        let alive = session.processes();
        tracer.record(Observation::Processes {
            alive: alive.clone(),
            at_end: false,
        });
        if !alive.is_empty() {
            self.left.push((Instant::now(), alive));
        }
    }

    /// Waits until all that was alive after an abort is gone, or has had its time, and looks once
    /// more.
    pub async fn wait(self, session: &mut dyn AgentSession) {
        let Some(last) = self.left.iter().map(|(since, _)| *since + TOOL_LIMIT).max() else {
            return;
        };
        let left: Vec<Process> = self.left.into_iter().flat_map(|(_, alive)| alive).collect();
        let gone = |alive: &[Process]| !left.iter().any(|process| alive.contains(process));
        let alive = look_until(session, last, gone).await;
        self.env.tracer.record(Observation::Processes {
            alive,
            at_end: false,
        });
    }
}

/// Waits until nothing of the case is alive after the agent's end, at most for the limit, and tells
/// what is.
pub async fn behind_the_end(session: &mut dyn AgentSession, env: &CaseEnv, at_end: bool) {
    let deadline = Instant::now() + TOOL_LIMIT;
    let alive = look_until(session, deadline, <[Process]>::is_empty).await;
    env.tracer.record(Observation::Processes { alive, at_end });
}

/// Looks until what is alive is as wanted, or the time is up.
pub async fn look_until(
    session: &mut dyn AgentSession,
    deadline: Instant,
    wanted: impl Fn(&[Process]) -> bool,
) -> Vec<Process> {
    let mut pause = FIRST_PAUSE;
    loop {
        let late = Instant::now() >= deadline;
        let alive = session.processes();
        if late || wanted(&alive) {
            return alive;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        tokio::time::sleep(pause.min(left)).await;
        pause = (pause * 2).min(PAUSE_LIMIT);
    }
}
