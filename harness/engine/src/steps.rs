//! Runs the steps of a scenario: waits for their cut points, acts, lets go.

mod waits;

use std::sync::Arc;
use std::time::Duration;

use cutpoint_protocol::ids::TurnId;
use cutpoint_scenario::ast::{Action, CutPoint, Scenario, Step};
use cutpoint_trace::case::UnmetExpectation;
use cutpoint_trace::{
    AgentEvent, ClientOp, Decision, InputMode, Observation, ReadTrigger, TaskKind,
};
use tokio::task::JoinSet;

use crate::calls;
use crate::driver::{AgentError, AgentSession, CaseEnv};
use crate::injections::input;
use crate::leftovers;
use crate::passed_points;
use crate::quiescence::{self, Quiescence};
use crate::server::Endpoints;
use crate::server::case::ServerCase;
use crate::server::gate::{Gate, GateDecision};
use crate::settling;
use crate::trace_queries;

/// Why the steps were not run to the end.
pub enum StepError {
    /// What a step waits for did not come, or came differently.
    Unmet(UnmetExpectation),
    /// The agent could not be driven on.
    Agent(AgentError),
}

impl From<AgentError> for StepError {
    fn from(error: AgentError) -> Self {
        Self::Agent(error)
    }
}

/// The steps of one case.
pub struct StepRunner<'a> {
    env: &'a CaseEnv,
    server_case: &'a Arc<ServerCase>,
    /// Entries before this one were consumed by earlier awaits.
    cursor: usize,
    ops: usize,
    /// The schedule is not the scenario's own: turns may end as they like.
    rules_only: bool,
    /// Gates that wait for the effect of what was done at them; given up with the steps.
    letting_go: JoinSet<()>,
}

/// What went wrong in a step, without the step's place in the file.
enum Failure {
    Found(String),
    Agent(AgentError),
}

impl From<AgentError> for Failure {
    fn from(error: AgentError) -> Self {
        Self::Agent(error)
    }
}

/// The call of a step that waits for its turn: the language lets no other leave it out.
fn named(call: &Option<String>) -> Result<&str, Failure> {
    call.as_deref()
        .ok_or_else(|| Failure::Found("the step names no call".to_owned()))
}

/// The answer to an op, if the entry is one: the error, or nothing if it was accepted.
fn reply_to(what: &Observation, id: &str) -> Option<Option<String>> {
    match what {
        Observation::OpReply { id: of, error, .. } if of == id => Some(error.clone()),
        _ => None,
    }
}

/// Whether an op was accepted or refused as the scenario wants it.
fn refusal_as_wanted(
    answer: Option<String>,
    to_be_refused: bool,
    what: &str,
) -> Result<(), Failure> {
    match (answer, to_be_refused) {
        (None, false) | (Some(_), true) => Ok(()),
        (Some(error), false) => Err(Failure::Found(format!("the {what} was refused: {error}"))),
        (None, true) => Err(Failure::Found(format!("the {what} was accepted"))),
    }
}

impl<'a> StepRunner<'a> {
    /// The steps of a case that has just been started.
    pub fn new(env: &'a CaseEnv, server_case: &'a Arc<ServerCase>, rules_only: bool) -> Self {
        Self {
            env,
            server_case,
            cursor: 0,
            ops: 0,
            rules_only,
            letting_go: JoinSet::new(),
        }
    }

    /// Runs one step; the steps are counted from 1. Where one that stands no earlier ends the agent
    /// by itself meanwhile, whatever stands in front of that one is given up. Gives the number of
    /// the last step that is done with.
    pub async fn run(
        &mut self,
        number: usize,
        scenario: &Scenario,
        session: &mut dyn AgentSession,
    ) -> (Result<(), StepError>, usize) {
        let env = self.env;
        let ender = tokio::select! {
            biased;
            ender = env.points.ended(number) => ender,
            done = self.step(number, scenario, session) => return (done, number),
        };
        let step = &scenario.steps[ender - 1];
        let ended = self.end_with(&step.action, session).await;
        // Later steps do not wait for events from before the agent's end.
        self.cursor = self.env.tracer.len();
        (ended.map_err(|failure| self.stop(failure, step)), ender)
    }

    /// Sees a step to its end that has ended the agent by itself.
    async fn end_with(
        &mut self,
        action: &Action,
        session: &mut dyn AgentSession,
    ) -> Result<(), Failure> {
        if matches!(action, Action::Kill) {
            return self.kill(session).await;
        }
        // It is asked once more, by the way that waits for the answer.
        Ok(session.submit("", &ClientOp::Shutdown).await?)
    }

    async fn kill(&mut self, session: &mut dyn AgentSession) -> Result<(), Failure> {
        session.kill().await?;
        self.env.rollout.read(ReadTrigger::Exit);
        leftovers::behind_the_end(session, self.env, false).await;
        Ok(())
    }

    async fn step(
        &mut self,
        number: usize,
        scenario: &Scenario,
        session: &mut dyn AgentSession,
    ) -> Result<(), StepError> {
        let step = &scenario.steps[number - 1];
        if step.yields.is_some() {
            return self.injected(number, step).await;
        }
        self.env.tracer.record(Observation::Step {
            number,
            line: step.span.line,
            text: step.to_string(),
        });
        let gate = match &step.at {
            Some(point) => self.reach(point, session).await,
            None => Ok(None),
        };
        let done = match gate {
            Ok(gate) => {
                // What the next step does at the same point is done before anything is let go.
                let next = scenario.steps.get(number).and_then(|next| next.at.as_ref());
                let gate = gate.filter(|_| next != step.at.as_ref());
                self.act(&step.action, gate, session).await
            }
            Err(failure) => {
                // The client may go on after a step that never came; the stream does, too.
                if let Some(gate) = step.at.as_ref().and_then(|at| self.held_by_server(at)) {
                    gate.decide(GateDecision::Release);
                }
                Err(failure)
            }
        };
        done.map_err(|failure| self.stop(failure, step))
    }

    /// Waits until a step that is done by itself has been done.
    async fn injected(&mut self, number: usize, step: &Step) -> Result<(), StepError> {
        if self.rules_only && !step.action.ends_agent() {
            return Ok(());
        }
        if self.rules_only {
            // What has not ended the agent when nothing goes on any more will not. The lab's clock
            // moves only then, after every task that still yields.
            let _ = self.idle().await;
            tokio::time::sleep(Duration::from_nanos(1)).await;
            self.env.points.forget_agent();
            return Err(self.stop(
                Failure::Found("its point was never passed".to_owned()),
                step,
            ));
        }
        let done = |what: &Observation| {
            matches!(what, Observation::Step { number: of, .. } if *of == number).then_some(())
        };
        let point = step
            .at
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        let waiting_for = format!("the cut point \"{point}\"");
        let waited = self.wait(0, &waiting_for, done).await;
        waited.map_err(|failure| self.stop(failure, step))
    }

    fn stop(&self, failure: Failure, step: &Step) -> StepError {
        match failure {
            Failure::Agent(error) => StepError::Agent(error),
            Failure::Found(found) => StepError::Unmet(UnmetExpectation {
                text: step.to_string(),
                line: step.span.line,
                found,
                evidence: self.last_entry(),
            }),
        }
    }

    /// Waits until no turn is active any more.
    pub async fn settle(&mut self, scenario: &Scenario) -> Option<UnmetExpectation> {
        if self.gives_up() {
            settling::of_ops(&self.env.tracer).await;
        }
        if self.idle().await.is_ok() {
            return None;
        }
        // The step that would have ended the wait may never have come; that the agent ends the turn
        // when it is told to is for the rules to see.
        if self.rules_only && self.env.tracer.with(0, trace_queries::agent_waits) {
            return None;
        }
        let found = format!(
            "a turn is still active after {} s",
            self.env.limit.as_secs_f64()
        );
        Some(UnmetExpectation {
            text: "every turn has ended when the scenario ends".to_owned(),
            line: scenario.span.line,
            found,
            evidence: self.last_entry(),
        })
    }

    fn last_entry(&self) -> Vec<u64> {
        self.env
            .tracer
            .with(0, |entries| entries.last().map(|entry| entry.seq))
            .into_iter()
            .collect()
    }

    /// Waits until the cut point is reached. Gives the gate that holds there, if one does.
    async fn reach(
        &mut self,
        point: &CutPoint,
        session: &mut dyn AgentSession,
    ) -> Result<Option<Arc<Gate>>, Failure> {
        if let Some(gate) = self
            .env
            .points
            .gate(point)
            .or_else(|| self.held_by_server(point))
        {
            let name = point.to_string();
            let reached = |what: &Observation| {
                matches!(what, Observation::Reached { point } if *point == name).then_some(())
            };
            self.wait(0, &format!("the cut point \"{name}\""), reached)
                .await?;
            let gate = gate.clone();
            if self.env.lab.is_some() {
                // The lab's clock moves only when nothing else can.
                tokio::time::sleep(Duration::from_nanos(1)).await;
            } else if gate.ends().is_some() {
                let found = self.quiet(gate.ends(), session).await;
                self.env.quiet.count(found);
            }
            return Ok(Some(gate));
        }
        match point {
            CutPoint::Running { call } => {
                self.wait(0, &format!("`{call}` to run"), calls::begins(call))
                    .await?;
                if !session.begins_after_spawn() {
                    self.wait_for_process(session).await;
                }
            }
            CutPoint::Exited { call } => {
                self.wait(0, &format!("`{call}` to end"), calls::ends(call))
                    .await?;
            }
            CutPoint::Approval { call } => {
                let asked = |what: &Observation| trace_queries::asks(what, call).then_some(());
                self.wait(0, &format!("the approval request of `{call}`"), asked)
                    .await?;
            }
            CutPoint::Question { call } => {
                let asked = |what: &Observation| trace_queries::questions(what, call).then_some(());
                self.wait(0, &format!("the question of `{call}`"), asked)
                    .await?;
            }
            CutPoint::AgentEvent { event, nth } => {
                let told = passed_points::nth_event(*event, *nth);
                self.wait(0, &format!("the cut point \"{point}\""), told)
                    .await?;
            }
            CutPoint::Idle => self.idle().await?,
            // A step that starts a turn has waited for the acknowledgement already.
            _ => {}
        }
        Ok(None)
    }

    async fn quiet(&self, ends: Option<Endpoints>, session: &mut dyn AgentSession) -> Quiescence {
        let shared = session.shares_process().then_some(&*self.env.tracer);
        quiescence::wait(ends, session.pid(), shared).await
    }

    fn held_by_server(&self, point: &CutPoint) -> Option<&Arc<Gate>> {
        let observed = matches!(
            point,
            CutPoint::Running { .. }
                | CutPoint::Exited { .. }
                | CutPoint::Approval { .. }
                | CutPoint::Question { .. }
                | CutPoint::AgentEvent { .. }
                | CutPoint::Started
                | CutPoint::Idle
        );
        self.server_case.gate(point).filter(|_| !observed)
    }

    async fn act(
        &mut self,
        action: &Action,
        gate: Option<Arc<Gate>>,
        session: &mut dyn AgentSession,
    ) -> Result<(), Failure> {
        match action {
            Action::Interrupt { id } => {
                let last = || self.env.tracer.with(0, trace_queries::last_turn);
                let turn_id = id.as_deref().map(TurnId::from).or_else(last);
                self.submit(ClientOp::Interrupt { turn_id }, session)
                    .await?;
                self.release_on_effect(gate);
                return Ok(());
            }
            Action::Drop(kind) => {
                if let Some(gate) = gate {
                    gate.decide(GateDecision::Drop(*kind));
                }
                return Ok(());
            }
            Action::Kill => {
                self.env.tracer.record(Observation::AgentKilled);
                self.env.points.forget_agent();
                self.kill(session).await?;
            }
            // What was to end the agent may have been left out.
            Action::Resume if self.env.tracer.agent_is_up() => {}
            Action::Resume => session.resume().await?,
            action => self.perform(action, session).await?,
        }
        if let Some(gate) = gate {
            gate.decide(GateDecision::Release);
        }
        Ok(())
    }

    /// The actions after which the cut point is simply released.
    async fn perform(
        &mut self,
        action: &Action,
        session: &mut dyn AgentSession,
    ) -> Result<(), Failure> {
        match action {
            Action::Shutdown => self.submit(ClientOp::Shutdown, session).await.map(|_| ())?,
            Action::Wait { duration } => tokio::time::sleep(*duration).await,
            Action::Await(wanted) => self.wait_for(wanted).await?,
            Action::User { text, id, refused } => {
                if self.ops > 0 && self.env.lab.is_none() {
                    // A request that was sent before the last turn's end is to be seen before this.
                    self.quiet(None, session).await;
                }
                let op = input(text, InputMode::Start, id.as_deref().map(TurnId::from));
                self.begin(op, *refused, session).await?;
            }
            Action::Steer { text } => {
                self.submit(input(text, InputMode::Steer, None), session)
                    .await?;
            }
            Action::Replace { text } => {
                self.begin(input(text, InputMode::Replace, None), false, session)
                    .await?;
            }
            Action::UserShell { command } => {
                self.task(TaskKind::Shell, command, session).await?;
            }
            Action::Review { text } => self.task(TaskKind::Review, text, session).await?,
            Action::Compact => self.task(TaskKind::Compact, "", session).await?,
            Action::Fork => self.fork(session).await?,
            Action::Rollback { turns, refused } => {
                let op = ClientOp::Rollback { turns: *turns };
                self.ask(op, *refused, session).await?;
            }
            Action::OpenConversation { id, refused } => {
                let op = ClientOp::Open {
                    thread_id: id.as_str().into(),
                };
                self.ask(op, *refused, session).await?;
            }
            Action::TruncateRollout { bytes } => self.tear(*bytes)?,
            Action::StopReading => self.read_events(false),
            Action::ResumeReading => self.read_events(true),
            Action::DeliverLate(event) => {
                let late = self.env.screen.redeliver(*event, &self.env.tracer);
                late.map_err(|error| Failure::Found(error.to_string()))?;
            }
            Action::Approve { call } => self.approve(call, Decision::Approve, session).await?,
            Action::Deny { call } => self.approve(call, Decision::Deny, session).await?,
            Action::Abort { call } => self.approve(call, Decision::Abort, session).await?,
            Action::Answer { call, text } => self.answer(named(call)?, text, session).await?,
            // A hold acts on its own, as the agent passes its point. `act` handles the others.
            Action::Hold { .. }
            | Action::Interrupt { .. }
            | Action::Drop(_)
            | Action::Kill
            | Action::Resume => {}
        }
        Ok(())
    }

    async fn answer(
        &mut self,
        call: &str,
        text: &str,
        session: &mut dyn AgentSession,
    ) -> Result<(), Failure> {
        let asked = |what: &Observation| trace_queries::questions(what, call).then_some(());
        self.wait(0, &format!("the question of `{call}`"), asked)
            .await?;
        let op = ClientOp::Answer {
            call_id: call.into(),
            text: text.to_owned(),
        };
        self.submit(op, session).await.map(|_| ())
    }

    /// Records the op, then sends it, so that its effects come later in the trace.
    async fn submit(
        &mut self,
        op: ClientOp,
        session: &mut dyn AgentSession,
    ) -> Result<String, Failure> {
        let id = self.record_op(op.clone());
        session.submit(&id, &op).await?;
        Ok(id)
    }

    /// Records an op that is about to be sent. Gives its id.
    fn record_op(&mut self, op: ClientOp) -> String {
        self.ops += 1;
        let id = format!("op-{}", self.ops);
        let sent = id.as_str().into();
        self.env.tracer.record(Observation::Op { id: sent, op });
        id
    }

    async fn approve(
        &mut self,
        call: &Option<String>,
        decision: Decision,
        session: &mut dyn AgentSession,
    ) -> Result<(), Failure> {
        let call = named(call)?;
        // The answer is for a request that was made; without one there is no call to take it.
        let asked = |what: &Observation| trace_queries::asks(what, call).then_some(());
        self.wait(0, &format!("the approval request of `{call}`"), asked)
            .await?;
        let op = ClientOp::Approval {
            call_id: call.into(),
            decision,
        };
        self.submit(op, session).await.map(|_| ())
    }

    /// Sends what starts a turn and waits until the turn was announced, or the op refused, or what
    /// it says taken into the turn that runs.
    async fn begin(
        &mut self,
        op: ClientOp,
        to_be_refused: bool,
        session: &mut dyn AgentSession,
    ) -> Result<(), Failure> {
        let seen = self.env.tracer.len();
        let running = self.env.tracer.with(0, trace_queries::last_turn);
        let said = match &op {
            ClientOp::Input { text, .. } => Some(text.clone()),
            _ => None,
        };
        let id = self.submit(op, session).await?;
        let answered = |what: &Observation| match what {
            Observation::Event {
                event: AgentEvent::TurnStarted { .. },
                ..
            } => Some(None),
            // A protocol without answers says so when input has joined the running turn.
            Observation::Event {
                event: AgentEvent::UserMessage { turn_id, text },
                ..
            } if running.is_some() && *turn_id == running && said.as_ref() == Some(text) => {
                Some(None)
            }
            what => reply_to(what, &id),
        };
        let answer = self
            .wait(seen, "the acknowledgement of the turn's start", answered)
            .await?;
        refusal_as_wanted(answer, to_be_refused, "input")
    }

    async fn task(
        &mut self,
        task: TaskKind,
        text: &str,
        session: &mut dyn AgentSession,
    ) -> Result<(), Failure> {
        let text = text.to_owned();
        self.begin(ClientOp::Task { task, text }, false, session)
            .await
    }

    /// Sends an op that starts nothing and waits for its answer, or for the event that says that it
    /// was carried out or refused, where the protocol has no answers.
    async fn ask(
        &mut self,
        op: ClientOp,
        to_be_refused: bool,
        session: &mut dyn AgentSession,
    ) -> Result<(), Failure> {
        let seen = self.env.tracer.len();
        let id = self.submit(op, session).await?;
        let answered = |what: &Observation| match what {
            Observation::Event {
                event: AgentEvent::RolledBack { .. },
                ..
            } => Some(None),
            Observation::Event {
                event: AgentEvent::Error { message, .. },
                raw,
            } if raw.value()["id"] == id.as_str() => Some(Some(message.clone())),
            what => reply_to(what, &id),
        };
        let answer = self
            .wait(seen, "the answer to the request", answered)
            .await?;
        refusal_as_wanted(answer, to_be_refused, "request")
    }

    async fn fork(&mut self, session: &mut dyn AgentSession) -> Result<(), Failure> {
        let id = self.record_op(ClientOp::Fork);
        Ok(session.fork(&id).await?)
    }

    /// Takes bytes off the end of the rollout, as a crash in the middle of a write leaves it.
    fn tear(&self, bytes: usize) -> Result<(), Failure> {
        let torn = self.env.rollout.tear(bytes);
        torn.map_err(|error| Failure::Found(format!("the rollout could not be torn: {error}")))
    }

    fn read_events(&self, on: bool) {
        self.env.tracer.record(Observation::Reading { on });
        self.env.event_client.set_reading(on);
    }

    /// Lets the stream go once the interrupt has taken effect: the turn has ended or the agent has
    /// closed the stream. Otherwise the rest of the stream would race the interrupt.
    fn release_on_effect(&mut self, gate: Option<Arc<Gate>>) {
        let Some(gate) = gate else { return };
        let tracer = self.env.tracer.clone();
        let seen = tracer.len();
        let in_lab = self.env.lab.is_some();
        self.letting_go.spawn(async move {
            settling::of_interrupt(&tracer, seen, in_lab).await;
            gate.decide(GateDecision::Release);
        });
    }
}
