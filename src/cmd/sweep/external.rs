//! `cutpoint sweep --agent`: agents in other processes.

mod told;

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use cutpoint_engine::driver::START_LIMIT;
use cutpoint_engine::passed_points;
use cutpoint_engine::runner::Planned;
use cutpoint_explore::external::{
    ExternalBound, ExternalClass, ExternalFound, Intervention, interventions,
};
use cutpoint_explore::{Act, fingerprint};
use cutpoint_scenario::ast::Capability;
use cutpoint_trace::case::CaseStatus;
use tokio::task::JoinSet;

use self::told::Totals;
use super::super::run::read_scenarios;
use crate::agent_spec::AgentSpec;
use crate::exit_code::ExitCode;
use crate::external::{Ran, Settings, Stage, on_ground};
use crate::interrupt::Interrupts;
use crate::out::complain;
use crate::{Failure, Outcome, runtime};

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// How many cases are in flight unless told otherwise.
pub const JOBS: usize = 16;

/// Options that an agent in another process has besides.
#[derive(clap::Args)]
pub struct Options {
    /// Sweep this agent instead of the reference agent in the lab (see `cutpoint agents`).
    #[arg(long, value_name = "AGENT", conflicts_with = "crash")]
    pub agent: Option<AgentSpec>,
    /// How often the first schedule of each kind of failure is run again, to tell a race from a rule.
    #[arg(long, value_name = "N", default_value_t = 10, requires = "agent",
          value_parser = clap::value_parser!(u32).range(0..=1000))]
    repeat: u32,
    /// Cut inside the events of the first reply too: behind every so many bytes.
    #[arg(long, value_name = "STRIDE", requires = "agent",
          value_parser = clap::value_parser!(u32).range(1..))]
    bytes: Option<u32>,
    /// Upper bound of each single wait, in seconds; a scenario's own `limit` goes before it.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, requires = "agent",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    limit: u64,
}

/// The acts that can be done to an agent that is not held at points of its own.
const ACTS: [Act; 6] = [
    Act::Interrupt,
    Act::Steer,
    Act::Replace,
    Act::Drop,
    Act::Shutdown,
    Act::Crash,
];

/// Sweeps scenarios on an agent in another process.
pub fn run(arguments: &super::Arguments, agent: &AgentSpec) -> Outcome {
    let planned = read_scenarios(&arguments.paths)?;
    if let Some(act) = arguments.acts.iter().find(|act| !ACTS.contains(act)) {
        return Err(Failure::usage(format!(
            "with --agent, `{}` is no act; there are {}",
            act.name(),
            ACTS.map(Act::name).join(", ")
        )));
    }
    let settings = Settings {
        agent: agent.clone(),
        defects: arguments.defects.clone(),
        limit: Duration::from_secs(arguments.external.limit),
        start_limit: START_LIMIT,
        seed: arguments.seed,
        recordings: arguments.recordings.clone(),
    };
    runtime()?.block_on(on_ground(async |ground| {
        let stage = Stage::new(&settings, ground).await?;
        let mut sweep = External::new(arguments, agent, &stage, planned);
        sweep.work().await?;
        stage.driver.close().await;
        sweep.finish()
    }))
}

/// A run that is to be done.
#[derive(Debug, Clone, Copy)]
struct Job {
    scenario: usize,
    /// The schedule's number; 0 is the scenario as it is.
    number: usize,
    /// The class that it is another run of.
    class: Option<usize>,
    /// Nothing else runs meanwhile, because the agent died when something did.
    alone: bool,
}

/// A scenario and what is known of it.
struct Swept {
    planned: Planned,
    interventions: Vec<Intervention>,
    found: ExternalFound,
    classes: Vec<ExternalClass>,
    /// Runs that are still to come of what is being done: first runs, then further ones.
    left: usize,
    again: bool,
}

impl Swept {
    fn intervention(&self, number: usize) -> Option<&Intervention> {
        self.interventions.get(number.checked_sub(1)?)
    }

    /// How many schedules there are, the scenario as it is among them.
    fn planned(&self) -> usize {
        self.interventions.len() + 1
    }
}

struct External<'a> {
    arguments: &'a super::Arguments,
    agent: &'a AgentSpec,
    stage: &'a Stage,
    bound: ExternalBound,
    scenarios: Vec<Swept>,
    queue: VecDeque<Job>,
    /// What the agent died of, or something that ran at the same time: each is run by itself, last.
    alone: VecDeque<Job>,
    totals: Totals,
    start: Instant,
    told: Instant,
}

impl<'a> External<'a> {
    fn new(
        arguments: &'a super::Arguments,
        agent: &'a AgentSpec,
        stage: &'a Stage,
        planned: Vec<Planned>,
    ) -> Self {
        let can = stage.driver.capabilities(&BTreeSet::new());
        let able = |act: &Act| needed(*act).is_none_or(|needed| can.contains(&needed));
        let (acts, lacking): (Vec<Act>, Vec<Act>) = arguments.acts.iter().copied().partition(able);
        let jobs = (0..planned.len()).map(|scenario| Job {
            scenario,
            number: 0,
            class: None,
            alone: false,
        });
        let swept = |planned| Swept {
            planned,
            interventions: Vec::new(),
            found: ExternalFound::default(),
            classes: Vec::new(),
            left: 1,
            again: false,
        };
        Self {
            arguments,
            agent,
            stage,
            bound: ExternalBound {
                acts,
                pairs: arguments.pairs,
            },
            queue: jobs.collect(),
            scenarios: planned.into_iter().map(swept).collect(),
            alone: VecDeque::new(),
            totals: Totals::new(lacking),
            start: Instant::now(),
            told: Instant::now(),
        }
    }

    fn jobs(&self) -> usize {
        self.arguments.jobs.map_or(JOBS, |jobs| jobs as usize)
    }

    /// Runs everything, until all is done or the user has seen enough.
    async fn work(&mut self) -> Result<(), Failure> {
        let mut interrupts = Interrupts::new()?;
        let stage = self.stage;
        let strict = self.arguments.strict;
        let jobs = self.jobs();
        // Runs borrow the scenarios' texts by number, so each takes copies along.
        let mut running: JoinSet<(Job, Ran)> = JoinSet::new();
        let mut alone = false;
        loop {
            while !alone && running.len() < jobs {
                let Some(job) = self.queue.pop_front() else {
                    break;
                };
                self.spawn(&mut running, job, stage, strict);
            }
            if running.is_empty() {
                let Some(job) = self.alone.pop_front() else {
                    return Ok(());
                };
                alone = true;
                self.spawn(&mut running, job, stage, strict);
            }
            tokio::select! {
                biased;
                () = interrupts.next() => {
                    self.totals.cut_short = true;
                    return self.tell_rest();
                }
                joined = running.join_next() => if let Some(joined) = joined {
                    let (job, ran) = joined.map_err(|error| Failure::trouble(error.to_string()))?;
                    alone &= !job.alone;
                    self.take(job, ran)?;
                },
            }
        }
    }

    fn spawn(&self, running: &mut JoinSet<(Job, Ran)>, job: Job, stage: &Stage, strict: bool) {
        let swept = &self.scenarios[job.scenario];
        let (stage, planned) = (stage.clone(), swept.planned.clone());
        let what = swept.intervention(job.number).cloned();
        running.spawn(async move { (job, stage.run(&planned, what.as_ref(), strict).await) });
    }

    fn take(&mut self, mut job: Job, mut ran: Ran) -> Result<(), Failure> {
        if let Some(why) = ran.died.take() {
            if !job.alone {
                // Whether it died of this schedule or of another's is not known.
                job.alone = true;
                self.alone.push_back(job);
                return Ok(());
            }
            ran.observed.broken.push(cutpoint_explore::Broken {
                rule: "AGENT".to_owned(),
                message: why,
            });
        }
        self.totals.take(&ran);
        let swept = &mut self.scenarios[job.scenario];
        swept.left -= 1;
        if let Some(class) = job.class {
            swept.classes[class].repeat(&ran.observed);
        } else {
            if job.number == 0 && !self.plan(job.scenario, &ran) {
                return Ok(());
            }
            let swept = &mut self.scenarios[job.scenario];
            let acts = swept.intervention(job.number).map_or(0, |it| it.acts.len());
            swept.found.take(job.number, acts, ran.observed);
        }
        self.tell_progress();
        self.go_on(job.scenario)
    }

    /// Plans the schedules of a scenario by its plain run. Gives whether the agent can run it.
    fn plan(&mut self, scenario: usize, ran: &Ran) -> bool {
        let swept = &mut self.scenarios[scenario];
        if ran.case.status == CaseStatus::Skipped {
            self.totals.skipped += 1;
            return false;
        }
        let stride = self.arguments.external.bytes.map(|stride| stride as usize);
        let passed =
            passed_points::passed(&swept.planned.scenario, &ran.case.trace.entries, stride);
        swept.interventions = interventions(&passed, &self.bound);
        let shard = self.arguments.shard;
        let fingerprint = fingerprint(&swept.planned.scenario);
        let planned = swept.interventions.iter().zip(1..);
        let mine = planned
            .filter(|(one, _)| shard.takes(format_args!("{fingerprint:016x}:{one}")))
            .map(|(_, number)| number);
        let before = self.queue.len();
        self.queue.extend(mine.map(|number| Job {
            scenario,
            number,
            class: None,
            alone: false,
        }));
        swept.left += self.queue.len() - before;
        true
    }

    /// Once all of a scenario's schedules have run, the classes are run again; then they are told.
    fn go_on(&mut self, scenario: usize) -> Result<(), Failure> {
        let swept = &mut self.scenarios[scenario];
        if swept.left > 0 {
            return Ok(());
        }
        if !swept.again {
            swept.again = true;
            swept.classes = swept.found.classes();
            for (class, it) in swept.classes.iter().enumerate() {
                for _ in 0..self.arguments.external.repeat {
                    swept.left += 1;
                    self.queue.push_front(Job {
                        scenario,
                        number: it.first,
                        class: Some(class),
                        alone: false,
                    });
                }
            }
        }
        if swept.left == 0 {
            self.tell(scenario)?;
        }
        Ok(())
    }

    fn tell(&mut self, scenario: usize) -> Result<(), Failure> {
        let swept = &self.scenarios[scenario];
        self.totals.tell(self.arguments, self.agent, swept)
    }

    /// What was found so far of the scenarios that were not swept to the end.
    fn tell_rest(&mut self) -> Result<(), Failure> {
        for scenario in 0..self.scenarios.len() {
            let swept = &mut self.scenarios[scenario];
            if swept.left > 0 && swept.found.ran > 0 {
                if !swept.again {
                    swept.classes = swept.found.classes();
                }
                self.tell(scenario)?;
            }
        }
        Ok(())
    }

    fn tell_progress(&mut self) {
        if self.told.elapsed() < TELL_EVERY {
            return;
        }
        self.told = Instant::now();
        complain!(
            "{} runs, {:.1} interrupted turns/s, {} are planned besides",
            self.totals.runs,
            self.totals.interrupted_per_s(self.start.elapsed()),
            self.queue.len() + self.alone.len()
        );
    }

    fn finish(&mut self) -> Outcome {
        let quiet = self.stage.runner.quiet();
        let elapsed = self.start.elapsed();
        let info = self.stage.driver.info(&BTreeSet::new());
        self.totals.finish(
            self.arguments,
            &self.bound,
            &info,
            quiet,
            elapsed,
            self.jobs(),
        )?;
        Ok(if self.totals.failures > 0 {
            ExitCode::Breach
        } else if self.totals.troubled > 0 || self.totals.cut_short {
            ExitCode::Trouble
        } else {
            ExitCode::Conforms
        })
    }
}

/// What an agent must be able to do for an act to be tried on it.
fn needed(act: Act) -> Option<Capability> {
    match act {
        Act::Steer => Some(Capability::Steer),
        Act::Replace => Some(Capability::Replace),
        Act::Shutdown | Act::Crash => Some(Capability::Resume),
        _ => None,
    }
}
