//! Runs the steps of a scenario: waits for their cut points, acts, lets go.

use std::sync::Arc;
use std::time::Duration;

use cutpoint_protocol::ids::TurnId;
use cutpoint_scenario::ast::{Action, Await, CutPoint, Scenario, Step};
use cutpoint_trace::case::UnmetExpectation;
use cutpoint_trace::{
    AgentEvent, ClientOp, Decision, InputMode, Observation, ReadTrigger, TaskKind,
};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::calls;
use crate::driver::{AgentError, AgentSession, CaseEnv};
use crate::injections::input;
use crate::leftovers;
use crate::passed_points;
use crate::quiescence::{self, Quiescence};
use crate::runner::turn_is_active;
use crate::server::Endpoints;
use crate::server::case::ServerCase;
use crate::server::gate::{Gate, GateDecision};
use crate::settling;
use crate::trace_queries;

/// How long after the report of a tool's start its process is looked for.
const SPAWN_LIMIT: Duration = Duration::from_secs(1);

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
            // It is done by itself, as the agent passes its point.
            Action::Hold { .. } => {}
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
            Action::Answer { call, text } => {
                let call = named(call)?;
                let asked = |what: &Observation| trace_queries::questions(what, call).then_some(());
                self.wait(0, &format!("the question of `{call}`"), asked)
                    .await?;
                let op = ClientOp::Answer {
                    call_id: call.into(),
                    text: text.clone(),
                };
                self.submit(op, session).await?;
            }
        }
        if let Some(gate) = gate {
            gate.decide(GateDecision::Release);
        }
        Ok(())
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

    async fn wait_for(&mut self, wanted: &Await) -> Result<(), Failure> {
        match wanted {
            Await::TurnStarted => {
                let started = |what: &Observation| trace_queries::announced(what).map(|_| ());
                self.consume("a turn to start", started).await
            }
            Await::Request { number } => {
                let arrived = |what: &Observation| {
                    matches!(what, Observation::Request { exchange, .. } if exchange == number)
                        .then_some(())
                };
                self.wait(0, &format!("request {number}"), arrived).await
            }
            Await::Running { call } => {
                self.wait(0, &format!("`{call}` to run"), calls::begins(call))
                    .await
            }
            Await::Exited { call } => {
                self.wait(0, &format!("`{call}` to end"), calls::ends(call))
                    .await
            }
            Await::Approval { call } => {
                let asks = |what: &Observation| trace_queries::asks(what, call).then_some(());
                self.wait(0, &format!("the approval request of `{call}`"), asks)
                    .await
            }
            Await::Question { call } => {
                let asks = |what: &Observation| trace_queries::questions(what, call).then_some(());
                self.wait(0, &format!("the question of `{call}`"), asks)
                    .await
            }
            Await::Compacted => {
                let compacted = |what: &Observation| match what {
                    Observation::Event {
                        event: AgentEvent::Compacted { .. },
                        ..
                    } => Some(()),
                    _ => None,
                };
                self.consume("the history to be compacted", compacted).await
            }
            Await::Output { call, containing } => {
                let mut shown = String::new();
                let prints = |what: &Observation| {
                    if let Some(AgentEvent::CallOutput { call_id, chunk, .. }) =
                        trace_queries::event_of(what)
                        && call_id == call
                    {
                        shown.push_str(chunk);
                    }
                    shown.contains(containing.as_str()).then_some(())
                };
                self.wait(0, &format!("`{call}` to print {containing:?}"), prints)
                    .await
            }
            Await::Text { containing } => {
                let mut shown = String::new();
                let shows = |what: &Observation| {
                    match trace_queries::event_of(what) {
                        Some(AgentEvent::TextDelta { text, .. }) => shown.push_str(text),
                        Some(AgentEvent::Message { text, .. }) => shown.clone_from(text),
                        _ => {}
                    }
                    shown.contains(containing.as_str()).then_some(())
                };
                self.consume(&format!("the text {containing:?}"), shows)
                    .await
            }
            Await::TurnEnded => self.turn_end("the turn to end", |_| true).await,
            Await::TurnComplete => {
                let complete = |end: &_| matches!(end, cutpoint_trace::TurnEnd::Complete);
                self.turn_end("the turn to complete", complete).await
            }
            Await::TurnFailed => {
                let failed = |end: &_| matches!(end, cutpoint_trace::TurnEnd::Failed { .. });
                self.turn_end("the turn to fail", failed).await
            }
            Await::TurnAborted { reason } => {
                let aborted = |end: &_| trace_queries::is_abort(end, *reason);
                self.turn_end("the turn to be aborted", aborted).await
            }
        }
    }

    /// Waits for the next end of a turn; another end than the wanted one will not become it.
    async fn turn_end(
        &mut self,
        waiting_for: &str,
        is_wanted: impl Fn(&cutpoint_trace::TurnEnd) -> bool,
    ) -> Result<(), Failure> {
        let ended = |what: &Observation| trace_queries::turn_end(what).cloned();
        let (at, end) = self.wait_at(self.cursor, waiting_for, ended).await?;
        self.cursor = at + 1;
        if self.rules_only || is_wanted(&end) {
            return Ok(());
        }
        Err(Failure::Found(format!(
            "the turn ended as {}",
            trace_queries::end_in_words(&end)
        )))
    }

    async fn consume(
        &mut self,
        waiting_for: &str,
        wanted: impl FnMut(&Observation) -> Option<()>,
    ) -> Result<(), Failure> {
        let (at, ()) = self.wait_at(self.cursor, waiting_for, wanted).await?;
        self.cursor = at + 1;
        Ok(())
    }

    async fn wait<T>(
        &self,
        from: usize,
        waiting_for: &str,
        wanted: impl FnMut(&Observation) -> Option<T>,
    ) -> Result<T, Failure> {
        self.wait_at(from, waiting_for, wanted)
            .await
            .map(|(_, found)| found)
    }

    /// Waits for an entry. An agent that ends in the meantime will not bring it any more.
    async fn wait_at<T>(
        &self,
        from: usize,
        waiting_for: &str,
        mut wanted: impl FnMut(&Observation) -> Option<T>,
    ) -> Result<(usize, T), Failure> {
        let limit = self.env.limit;
        let found = |what: &Observation| match wanted(what) {
            Some(found) => Some(Ok(found)),
            None => match what {
                Observation::AgentExited {
                    expected: false, ..
                }
                | Observation::Unscripted { .. } => {
                    Some(Err(matches!(what, Observation::Unscripted { .. })))
                }
                _ => None,
            },
        };
        let waited = self.env.tracer.wait(from, limit, found);
        let waited = tokio::select! {
            biased;
            waited = waited => waited,
            () = settling::reached(&self.env.tracer), if self.gives_up() => {
                return Err(Failure::Found(format!("waited for {waiting_for} in vain")));
            }
        };
        match waited {
            Ok((at, Ok(found))) => Ok((at, found)),
            Ok((_, Err(true))) => {
                let found = format!("no reply is scripted for a request; waited for {waiting_for}");
                Err(Failure::Found(found))
            }
            Ok((_, Err(false))) => {
                let why = format!("while the scenario waited for {waiting_for}");
                Err(Failure::Agent(AgentError::Died(why)))
            }
            Err(_) => {
                let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
                let waiting_for = waiting_for.to_owned();
                self.env.tracer.record(Observation::TimedOut {
                    waiting_for: waiting_for.clone(),
                    limit_ms,
                });
                let seconds = limit.as_secs_f64();
                Err(Failure::Found(format!(
                    "waited {seconds} s for {waiting_for}; it did not come"
                )))
            }
        }
    }

    /// Whether a wait is given up when nothing will come any more: the schedule is not the scenario's
    /// own, and no clock jumps ahead to the limit.
    fn gives_up(&self) -> bool {
        self.rules_only && self.env.lab.is_none()
    }

    async fn idle(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + self.env.limit;
        while turn_is_active(&self.env.tracer) {
            let left = deadline.saturating_duration_since(Instant::now());
            let seen = self.env.tracer.len();
            let changes = |what: &Observation| {
                let other = matches!(
                    what,
                    Observation::OpReply { .. }
                        | Observation::AgentExited { .. }
                        | Observation::AgentKilled
                );
                (other || trace_queries::turn_end(what).is_some()).then_some(())
            };
            if !turn_is_active(&self.env.tracer) {
                break;
            }
            if self.env.tracer.wait(seen, left, changes).await.is_err()
                && turn_is_active(&self.env.tracer)
            {
                let seconds = self.env.limit.as_secs_f64();
                return Err(Failure::Found(format!(
                    "a turn is still active after {seconds} s"
                )));
            }
        }
        Ok(())
    }

    /// An agent may report a tool's start before the tool's process exists; a cut "while it runs"
    /// waits for the process. A tool that is no process, or has ended already, has none.
    async fn wait_for_process(&self, session: &mut dyn AgentSession) {
        let deadline = Instant::now() + SPAWN_LIMIT;
        while session.processes().is_empty() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}
