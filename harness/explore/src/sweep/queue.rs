//! The jobs of a sweep: which run comes next, and what is left of each scenario.

use std::collections::VecDeque;
use std::sync::Arc;

use cutpoint_scenario::ast::Scenario;

use super::findings::Findings;
use super::{OnEvent, Progress, SweepEvent, SweepOutcome, Target};
use crate::executor::{Determinism, RunResult};
use crate::failure_group::FailureGroup;
use crate::plan::PlannedSchedules;
use crate::results::ScenarioResult;
use crate::schedule::{Schedule, fingerprint};
use crate::shard::Shard;

/// A run that is to be done.
pub(super) struct Job {
    pub(super) target: usize,
    /// The schedule's number; 0 is the scenario as it is.
    pub(super) number: usize,
    pub(super) task: Task,
    /// Nothing else runs at the same time.
    pub(super) alone: bool,
}

/// What a run is for.
pub(super) enum Task {
    /// To see a scenario's cut points and plan its schedules.
    Plain,
    /// To see what a schedule shows.
    Schedule(Arc<Planned>),
    /// To see whether the failure group of that number comes back.
    Repeat(Arc<Planned>, usize),
}

/// The schedules of a scenario.
pub(super) struct Planned {
    schedules: PlannedSchedules,
    /// The numbers of those that fall to this part, if not all do.
    own: Option<Vec<usize>>,
    /// How many cut points the scenario passes as it is.
    points: usize,
}

impl Planned {
    pub(super) fn new(
        schedules: PlannedSchedules,
        points: usize,
        scenario: &Scenario,
        shard: Shard,
    ) -> Self {
        let fingerprint = fingerprint(scenario);
        let falls_to_it = |schedule: &Schedule| {
            let case = format_args!("{fingerprint:016x}:{schedule}");
            shard.takes(case)
        };
        let own = shard.is_part().then(|| {
            let all = schedules.schedules.iter().enumerate();
            let own = all.filter(|(_, schedule)| falls_to_it(schedule));
            own.map(|(number, _)| number).collect()
        });
        Self {
            schedules,
            own,
            points,
        }
    }

    /// The schedule of that number.
    pub(super) fn schedule(&self, number: usize) -> Schedule {
        self.schedules.schedules.get(number).unwrap_or_default()
    }

    /// How many schedules fall to this part.
    fn len(&self) -> usize {
        let own = self.own.as_ref().map(Vec::len);
        own.unwrap_or_else(|| self.schedules.schedules.len())
    }

    /// The number of the schedule at that place of the part.
    fn number(&self, place: usize) -> Option<usize> {
        match &self.own {
            Some(own) => own.get(place).copied(),
            None => (place < self.len()).then_some(place),
        }
    }
}

/// What is known of a scenario, and what is left of it.
struct ScenarioState {
    file: String,
    name: String,
    fingerprint: u64,
    recording: Option<String>,
    determinism: Determinism,
    stage: Stage,
    planned: Option<Arc<Planned>>,
    /// The place of the next schedule of the part.
    next: usize,
    /// Jobs that wait or run.
    open_jobs: usize,
    findings: Findings,
    groups: Vec<FailureGroup>,
}

/// How far a scenario has come.
#[derive(PartialEq, Eq)]
enum Stage {
    New,
    Planning,
    Running,
    /// Every schedule was run, and failures are run again.
    Repeating,
    Done,
    Skipped(String),
}

impl ScenarioState {
    fn new(target: &Target<'_>) -> Self {
        let recording = target.scenario.model.recording.as_ref();
        Self {
            file: target.file.to_owned(),
            name: target.scenario.name.clone(),
            fingerprint: fingerprint(target.scenario),
            recording: recording.map(|recording| recording.name.clone()),
            determinism: target.executor.determinism(),
            stage: Stage::New,
            planned: None,
            next: 0,
            open_jobs: 0,
            findings: Findings::default(),
            groups: Vec::new(),
        }
    }

    fn next_schedule(&mut self) -> Option<(usize, Arc<Planned>)> {
        let planned = self
            .planned
            .as_ref()
            .filter(|_| self.stage == Stage::Running)?;
        let number = planned.number(self.next)?;
        self.next += 1;
        Some((number, planned.clone()))
    }

    /// Makes the failure groups of what has run.
    fn group(&mut self, seed: u64) {
        if let Some(planned) = &self.planned {
            let schedule = |number| planned.schedule(number);
            self.groups = self.findings.groups((self.fingerprint, seed), schedule);
        }
    }

    fn result(&mut self, rules: &[&str]) -> ScenarioResult {
        let planned = self.planned.take();
        let of_plan = |count: fn(&Planned) -> usize| planned.as_deref().map_or(0, count);
        let findings = std::mem::take(&mut self.findings);
        let digests = findings.digests();
        let exercised = |rule: &&&str| findings.exercised.contains_key(**rule);
        let not_exercised = rules.iter().filter(|rule| !exercised(rule));
        ScenarioResult {
            file: self.file.clone(),
            scenario: self.name.clone(),
            fingerprint: self.fingerprint,
            recording: self.recording.clone(),
            points: of_plan(|it| it.points),
            schedules: of_plan(|it| it.schedules.schedules.len()),
            planned: of_plan(Planned::len),
            ran: findings.ran,
            traces: digests.len(),
            missed: findings.missed,
            levels: findings.levels,
            harness_errors: findings.harness_errors,
            not_exercised: not_exercised.map(|rule| (*rule).to_owned()).collect(),
            exercised: findings.exercised,
            failures: std::mem::take(&mut self.groups),
            digests,
        }
    }
}

/// All jobs that are left.
pub(super) struct Queue {
    seed: u64,
    /// The rule book.
    rules: Vec<&'static str>,
    scenarios: Vec<ScenarioState>,
    /// The first scenario that may have schedules left.
    first_open: usize,
    repeats: VecDeque<Job>,
    /// Runs in which the agent ended: each is done by itself, once nothing else is left.
    alone: VecDeque<Job>,
    running: usize,
    /// Whether the one that runs must be alone.
    runs_alone: bool,
    results: Vec<ScenarioResult>,
    skipped: usize,
    /// How many scenarios were reported.
    reported: usize,
}

impl Queue {
    pub(super) fn new(targets: &[Target<'_>], seed: u64, rules: Vec<&'static str>) -> Self {
        Self {
            seed,
            rules,
            scenarios: targets.iter().map(ScenarioState::new).collect(),
            first_open: 0,
            repeats: VecDeque::new(),
            alone: VecDeque::new(),
            running: 0,
            runs_alone: false,
            results: Vec::new(),
            skipped: 0,
            reported: 0,
        }
    }

    /// Whether a job is being run.
    pub(super) const fn is_running(&self) -> bool {
        self.running > 0
    }

    /// The next job that can be run now.
    pub(super) fn next(&mut self) -> Option<Job> {
        if self.runs_alone {
            return None;
        }
        let mut job = self.repeats.pop_front().or_else(|| self.next_new());
        if job.is_none() && self.running == 0 {
            job = self.alone.pop_front();
            self.runs_alone = job.is_some();
        }
        self.running += usize::from(job.is_some());
        job
    }

    fn next_new(&mut self) -> Option<Job> {
        for target in self.first_open..self.scenarios.len() {
            let scenario = &mut self.scenarios[target];
            let found = match scenario.stage {
                Stage::New => {
                    scenario.stage = Stage::Planning;
                    Some((0, Task::Plain))
                }
                _ => scenario
                    .next_schedule()
                    .map(|(number, planned)| (number, Task::Schedule(planned))),
            };
            if let Some((number, task)) = found {
                scenario.open_jobs += 1;
                let alone = false;
                return Some(Job {
                    target,
                    number,
                    task,
                    alone,
                });
            }
            let open = matches!(scenario.stage, Stage::New | Stage::Planning);
            if target == self.first_open && !open {
                self.first_open += 1;
            }
        }
        None
    }

    fn ended(&mut self, job: &Job) -> &mut ScenarioState {
        self.running -= 1;
        self.runs_alone &= !job.alone;
        let scenario = &mut self.scenarios[job.target];
        scenario.open_jobs -= 1;
        scenario
    }

    /// A job was stopped before its end.
    pub(super) fn drop_job(&mut self, job: &Job) {
        // The scenario is not done without it.
        self.ended(job).open_jobs += 1;
    }

    /// The agent ended during a job: it is run again by itself.
    pub(super) fn run_alone(&mut self, job: Job) {
        self.ended(&job).open_jobs += 1;
        self.alone.push_back(Job { alone: true, ..job });
    }

    /// The agent cannot run a scenario.
    pub(super) fn skip(&mut self, job: &Job, why: String) {
        self.ended(job).stage = Stage::Skipped(why);
        self.skipped += 1;
    }

    /// Takes the run of a scenario as it is, with the plan that was made from it.
    pub(super) fn take_plain(&mut self, job: &Job, planned: Planned, result: RunResult) {
        let scenario = self.ended(job);
        scenario.stage = Stage::Running;
        if planned.number(0) == Some(0) {
            scenario.next = 1;
            scenario.findings.take(0, None, false, result);
        }
        scenario.planned = Some(Arc::new(planned));
        self.advance(job.target);
    }

    /// Takes the run of a schedule.
    pub(super) fn take(&mut self, job: &Job, planned: &Planned, missed: bool, result: RunResult) {
        let level = planned.schedules.level(job.number);
        let scenario = self.ended(job);
        scenario.findings.take(job.number, level, missed, result);
        self.advance(job.target);
    }

    /// Takes a further run of a failure group's smallest schedule.
    pub(super) fn take_repeat(&mut self, job: &Job, group: usize, result: &RunResult) {
        self.ended(job).groups[group].repeat(result);
        self.advance(job.target);
    }

    /// Once all of a scenario's schedules have run, its failures are run again, if runs are samples;
    /// then it is done.
    fn advance(&mut self, target: usize) {
        let seed = self.seed;
        let scenario = &mut self.scenarios[target];
        let Some(planned) = scenario.planned.clone() else {
            return;
        };
        if scenario.open_jobs > 0 || scenario.next < planned.len() {
            return;
        }
        if scenario.stage == Stage::Running {
            scenario.stage = Stage::Repeating;
            scenario.group(seed);
            let repeat = match scenario.determinism {
                Determinism::Exact => 0,
                Determinism::Sampled { repeat } => repeat,
            };
            for (group, it) in scenario.groups.iter().enumerate() {
                let number = it.number;
                let job = || Job {
                    target,
                    number,
                    task: Task::Repeat(planned.clone(), group),
                    alone: false,
                };
                self.repeats.extend((0..repeat).map(|_| job()));
            }
            scenario.open_jobs += repeat * scenario.groups.len();
        }
        if scenario.open_jobs == 0 {
            scenario.stage = Stage::Done;
        }
    }

    pub(super) fn progress(&self, target: usize) -> Progress {
        let scenario = &self.scenarios[target];
        let planned = scenario.planned.as_deref();
        Progress {
            target,
            ran: scenario.findings.ran,
            planned: planned.map_or(0, Planned::len),
            failures: scenario.findings.failures(),
        }
    }

    /// Reports the scenarios that are done, in their order.
    pub(super) fn report_finished(&mut self, on_event: OnEvent<'_>) {
        while let Some(scenario) = self.scenarios.get(self.reported) {
            if !matches!(scenario.stage, Stage::Done | Stage::Skipped(_)) {
                return;
            }
            self.report_next(on_event);
        }
    }

    fn report_next(&mut self, on_event: OnEvent<'_>) {
        let target = self.reported;
        self.reported += 1;
        let scenario = &mut self.scenarios[target];
        if let Stage::Skipped(why) = &scenario.stage {
            return on_event(SweepEvent::Skipped { target, why });
        }
        let result = scenario.result(&self.rules);
        on_event(SweepEvent::Finished {
            target,
            result: &result,
        });
        self.results.push(result);
    }

    /// The results, with what was found of scenarios that were not swept to the end.
    pub(super) fn finish(mut self, on_event: OnEvent<'_>) -> SweepOutcome {
        let mut interrupted = false;
        while let Some(scenario) = self.scenarios.get_mut(self.reported) {
            interrupted |= !matches!(scenario.stage, Stage::Done | Stage::Skipped(_));
            if scenario.stage == Stage::Running {
                scenario.group(self.seed);
            }
            if scenario.findings.ran > 0
                || matches!(scenario.stage, Stage::Done | Stage::Skipped(_))
            {
                self.report_next(on_event);
            } else {
                self.reported += 1;
            }
        }
        SweepOutcome {
            scenarios: self.results,
            skipped: self.skipped,
            interrupted,
        }
    }
}
