//! The sweep: every schedule of a plan, the smallest first.

mod findings;
mod queue;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use cutpoint_scenario::ast::Scenario;

use crate::executor::{Executor, RunError, RunResult, Violation};
use crate::plan::Plan;
use crate::results::ScenarioResult;
use crate::schedule::AppliedSchedule;
use crate::shard::Shard;

use self::queue::{Job, Planned, Queue, Task};

/// The rule that an agent violates if it ends on its own, and the clause of it.
const AGENT: &str = "AGENT";
const AGENT_ENDED: &str = "ended";

/// What a sweep runs, and how.
#[derive(Debug, Clone, Default)]
pub struct Sweep {
    /// Which schedules of each scenario there are.
    pub plan: Plan,
    /// Which part of all schedules is run.
    pub shard: Shard,
    /// The seed that tokens name: that of everything random in a run.
    pub seed: u64,
    /// How many threads run schedules.
    pub workers: usize,
    /// The ids of the rule book, in its order.
    pub rules: Vec<&'static str>,
}

/// A scenario to be swept.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// The scenario's file, as the user named it.
    pub file: &'a str,
    /// The scenario.
    pub scenario: &'a Scenario,
    /// What runs its schedules.
    pub executor: &'a dyn Executor,
}

/// What a sweep reports while it goes on.
#[derive(Debug, Clone, Copy)]
pub enum SweepEvent<'a> {
    /// A schedule was run.
    Progress(Progress),
    /// The agent cannot run a scenario.
    Skipped {
        /// The number of the target, counted from 0.
        target: usize,
        /// What it lacks.
        why: &'a str,
    },
    /// All schedules of a scenario that fall to this part were run, or the sweep was stopped.
    /// Scenarios are reported in their order.
    Finished {
        /// The number of the target, counted from 0.
        target: usize,
        /// What they have shown.
        result: &'a ScenarioResult,
    },
}

/// How far the sweep of a scenario has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The number of the target, counted from 0.
    pub target: usize,
    /// How many schedules were run.
    pub ran: usize,
    /// How many fall to this part.
    pub planned: usize,
    /// How many failure groups there are.
    pub failures: usize,
}

/// What a sweep has shown.
#[derive(Debug, Clone, Default)]
pub struct SweepOutcome {
    /// The scenarios that were swept, in their order.
    pub scenarios: Vec<ScenarioResult>,
    /// How many scenarios the agent cannot run.
    pub skipped: usize,
    /// Whether it was stopped before its end.
    pub interrupted: bool,
}

/// What is called at each event of a sweep.
type OnEvent<'a> = &'a (dyn Fn(SweepEvent<'_>) + Sync);

impl Sweep {
    /// Runs every schedule of the targets that falls to the part, until all are done or `stop` is
    /// set. Every part runs each scenario as it is, to see its cut points; that run counts in the
    /// part to which it falls.
    pub fn run(
        &self,
        targets: &[Target<'_>],
        stop: &AtomicBool,
        on_event: OnEvent<'_>,
    ) -> SweepOutcome {
        let running = Running {
            sweep: self,
            targets,
            stop,
            on_event,
            queue: Mutex::new(Queue::new(targets, self.seed, self.rules.clone())),
            changed: Condvar::new(),
        };
        std::thread::scope(|scope| {
            for _ in 1..self.workers.max(1) {
                scope.spawn(|| running.work());
            }
            running.work();
        });
        let queue = running.queue.into_inner();
        let queue = queue.unwrap_or_else(PoisonError::into_inner);
        queue.finish(on_event)
    }
}

/// A sweep that is under way.
struct Running<'a> {
    sweep: &'a Sweep,
    targets: &'a [Target<'a>],
    stop: &'a AtomicBool,
    on_event: OnEvent<'a>,
    queue: Mutex<Queue>,
    /// A job has ended: others may have become possible.
    changed: Condvar,
}

impl Running<'_> {
    fn work(&self) {
        while let Some(job) = self.next_job() {
            self.run(job);
            self.changed.notify_all();
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A panic while it is locked ends the whole sweep.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next job; there is none once the sweep is done or stopped.
    fn next_job(&self) -> Option<Job> {
        let mut queue = self.queue();
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(job) = queue.next() {
                return Some(job);
            }
            if !queue.is_running() {
                return None;
            }
            let waited = self.changed.wait(queue);
            queue = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn run(&self, job: Job) {
        let target = &self.targets[job.target];
        let applied = match &job.task {
            Task::Plain => AppliedSchedule {
                scenario: target.scenario.clone(),
                step_numbers: Vec::new(),
            },
            Task::Schedule(planned) | Task::Repeat(planned, _) => {
                planned.schedule(job.number).applied_to(target.scenario)
            }
        };
        let mut result = target.executor.run(&applied.scenario);
        if result.error == Some(RunError::Stopped) {
            return self.queue().drop_job(&job);
        }
        if let Some(why) = result.agent_exit.take() {
            if !job.alone {
                // Whether the agent ended because of this schedule or of another one that ran at the
                // same time is not known: it is run again by itself.
                return self.queue().run_alone(job);
            }
            let violation = Violation::new(AGENT, AGENT_ENDED, why);
            result.violations.push(violation);
        }
        match &job.task {
            Task::Plain => self.take_plain(&job, result),
            Task::Schedule(planned) => {
                let missed = missed(&applied, &result);
                let mut queue = self.queue();
                queue.take(&job, planned, missed, result);
                self.report(queue, &job);
            }
            Task::Repeat(_, group) => {
                let mut queue = self.queue();
                queue.take_repeat(&job, *group, &result);
                self.report(queue, &job);
            }
        }
    }

    /// Plans a scenario's schedules by its run as it is.
    fn take_plain(&self, job: &Job, mut result: RunResult) {
        let target = &self.targets[job.target];
        if let Some(RunError::Unsupported(why)) = result.error {
            let mut queue = self.queue();
            queue.skip(job, why);
            return self.report(queue, job);
        }
        let (executor, scenario) = (target.executor, target.scenario);
        let points = result.points.len() + result.gates.len();
        let schedules = self.sweep.plan.schedules(executor, scenario, &result);
        let planned = Planned::new(schedules, points, scenario, self.sweep.shard);
        (result.points, result.gates) = Default::default();
        let mut queue = self.queue();
        queue.take_plain(job, planned, result);
        self.report(queue, job);
    }

    fn report(&self, mut queue: MutexGuard<'_, Queue>, job: &Job) {
        let progress = queue.progress(job.target);
        queue.report_finished(self.on_event);
        drop(queue);
        (self.on_event)(SweepEvent::Progress(progress));
    }
}

/// Whether an act never came to its cut point.
fn missed(applied: &AppliedSchedule, result: &RunResult) -> bool {
    let acted = |number: &usize| result.acted.contains(number);
    !applied.step_numbers.iter().all(acted)
}

#[cfg(test)]
mod tests;
