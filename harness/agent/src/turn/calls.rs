//! Carrying out calls.

use std::sync::Arc;
use std::time::Duration;

use cutpoint_protocol::Item;
use cutpoint_protocol::ids::CallId;
use cutpoint_protocol::item::CallKind;
use cutpoint_protocol::session::{Decision, EventMsg};

use super::errand::{self, Errand};
use super::{Failure, Worker};
use crate::approvals::Waiting;
use crate::defect::Defect;
use crate::lock;
use crate::rollout::Draft;
use crate::shared::{Caller, Core, LiveCall, State, Turn};
use crate::tools::capture::Utf8Pieces;
use crate::tools::{Abandon, RunningTool, ToolCommand, ToolEvent, parse};

impl Worker {
    /// Records a call and sets it to work. Returns whether an output will follow.
    pub(super) async fn call(&mut self, item: Item, kind: CallKind) -> Result<bool, Failure> {
        let call_id = CallId::from(item.call_id().unwrap_or_default());
        let errand = errand::of(&item, kind, &self.core.config);
        let mut refused = None;
        self.core
            .record(|state| {
                lock(&self.turn.live).half_call = None;
                if call_id.is_empty() {
                    refused = Some("the model called a tool without a call id".to_owned());
                    return Vec::new();
                }
                if state.history.has_call(&call_id) {
                    refused = Some(format!(
                        "the model used the call id {call_id} a second time"
                    ));
                    return Vec::new();
                }
                let draft = Draft::item(&item);
                state.history.push(item);
                state.history.owe(&call_id, kind);
                let call = LiveCall::new(&call_id, Caller::Model(kind));
                lock(&self.turn.live).calls.push(call);
                vec![draft]
            })
            .await?;
        if let Some(why) = refused {
            // No output could be paired with it, so it can't stand in the history either.
            let message = format!("{why}; the call is left out");
            self.emit(EventMsg::BackgroundEvent { message }).await;
            return Ok(false);
        }
        match errand {
            Ok(errand) => {
                let call = Call {
                    core: Arc::clone(&self.core),
                    turn: Arc::clone(&self.turn),
                    call_id,
                };
                self.crew.add(call.carry_out(errand));
            }
            Err(why) => {
                self.turn
                    .with_call(&call_id, |call| call.output = Some(parse::failed(&why)));
            }
        }
        Ok(true)
    }

    /// Runs a command of the user's, which the turn has in hand under that id.
    pub(crate) async fn user_command(&self, call_id: &CallId, line: &str) -> Result<(), Failure> {
        let argv = ["bash", "-c", line].map(str::to_owned).to_vec();
        let command = ToolCommand {
            argv,
            cwd: self.core.config.cwd.clone(),
            env: Vec::new(),
            timeout: None,
        };
        let call = Call {
            core: Arc::clone(&self.core),
            turn: Arc::clone(&self.turn),
            call_id: call_id.to_owned(),
        };
        self.crew.add(call.run(command, false));
        self.finish_calls().await
    }
}

/// A call at work.
pub(crate) struct Call {
    pub(crate) core: Arc<Core>,
    pub(crate) turn: Arc<Turn>,
    pub(crate) call_id: CallId,
}

impl Call {
    async fn carry_out(self, errand: Errand) {
        match errand {
            Errand::Command { command, asks } => self.run(command, asks).await,
            Errand::Question(questions) => self.question(questions).await,
            Errand::Patch(patch) => self.patch(patch).await,
            Errand::Delegation(errand) => self.delegation(errand).await,
        }
    }

    async fn run(self, command: ToolCommand, asks: bool) {
        let token = self.turn.token.clone();
        let allowed = tokio::select! {
            biased;
            () = token.cancelled() => return,
            allowed = self.is_allowed(&command, asks) => allowed,
        };
        if !allowed {
            let output = parse::failed("the user did not allow it");
            return self
                .turn
                .with_call(&self.call_id, |call| call.output = Some(output));
        }
        let argv = command.argv.clone();
        let timeout = command.timeout;
        let spawned = tokio::select! {
            biased;
            () = token.cancelled() => return,
            spawned = self.spawn(command) => spawned,
        };
        let Some(mut tool) = spawned else {
            return;
        };
        let ended = tokio::select! {
            biased;
            () = token.cancelled(), if !self.core.has(Defect::AbortWaitsForTool) => None,
            ended = self.follow(tool.as_mut(), argv, timeout) => Some(ended),
        };
        let Some((exit_code, output)) = ended else {
            return self.cut_off(tool).await;
        };
        self.turn
            .with_call(&self.call_id, |call| call.output = Some(output));
        self.core.hooks.point("tool.exited").await;
        let end = self.end(exit_code, self.printed());
        self.tell_end(end).await;
    }

    /// Tells that the call ended by itself. The model will read so, and therefore the client is told also
    /// when the turn is cancelled; but then nobody waits for a full queue: the abort must go on.
    pub(super) async fn tell_end(&self, end: EventMsg) {
        tokio::select! {
            biased;
            () = self.turn.token.cancelled() => {
                self.core.events.emit_now(&self.turn.submission, end.clone());
            }
            () = self.emit(end.clone()) => {}
        }
    }

    /// Whether the command may run: the user is asked, if the call wants that and the answer is not
    /// known yet.
    async fn is_allowed(&self, command: &ToolCommand, asks: bool) -> bool {
        if !asks {
            return true;
        }
        let request = EventMsg::ExecApprovalRequest {
            turn_id: self.turn.id.clone(),
            call_id: self.call_id.clone(),
            command: command.argv.clone(),
        };
        let decision = self
            .core
            .decision(&self.turn, &self.call_id, command, request)
            .await;
        matches!(decision, Decision::Approved | Decision::ApprovedForSession)
    }

    async fn spawn(&self, command: ToolCommand) -> Option<Box<dyn RunningTool>> {
        self.core.hooks.point("tool.spawn").await;
        let program = command.argv.first().cloned().unwrap_or_default();
        match self.core.tools.spawn(command).await {
            Ok(tool) => {
                self.turn
                    .with_call(&self.call_id, |call| call.started = true);
                Some(tool)
            }
            Err(error) => {
                let why = format!("`{program}` could not be started: {error}");
                self.turn.with_call(&self.call_id, |call| {
                    call.output = Some(parse::failed(&why))
                });
                None
            }
        }
    }

    /// Follows the tool to its end. Returns its exit code and the call's output.
    async fn follow(
        &self,
        tool: &mut dyn RunningTool,
        command: Vec<String>,
        timeout: Option<Duration>,
    ) -> (Option<i32>, String) {
        self.emit(EventMsg::ExecCommandBegin {
            turn_id: self.turn.id.clone(),
            call_id: self.call_id.clone(),
            command,
            pid: tool.pid(),
        })
        .await;
        let Some(limit) = timeout else {
            let code = self.copy(tool).await;
            return (code, parse::completed(code, &self.printed()));
        };
        match tokio::time::timeout(limit, self.copy(tool)).await {
            Ok(code) => (code, parse::completed(code, &self.printed())),
            Err(_) => {
                let rest = tool.kill().await;
                self.turn
                    .with_call(&self.call_id, |call| call.printed.push(&rest));
                (None, parse::timed_out(limit, &self.printed()))
            }
        }
    }

    async fn copy(&self, tool: &mut dyn RunningTool) -> Option<i32> {
        let mut pieces = Utf8Pieces::default();
        loop {
            match tool.next().await {
                ToolEvent::Output(bytes) => {
                    // Kept before it is shown: the model must learn what the user saw.
                    self.turn
                        .with_call(&self.call_id, |call| call.printed.push(&bytes));
                    let chunk = pieces.push(&bytes);
                    if !chunk.is_empty() {
                        self.emit(EventMsg::ExecCommandOutputDelta {
                            turn_id: self.turn.id.clone(),
                            call_id: self.call_id.clone(),
                            chunk,
                        })
                        .await;
                    }
                }
                ToolEvent::Exited(code) => return code,
            }
        }
    }

    /// The turn is cancelled: the tool goes with it.
    async fn cut_off(&self, mut tool: Box<dyn RunningTool>) {
        self.core.hooks.point("tool.kill").await;
        let survives_end = self.core.has(Defect::ToolSurvivesShutdown);
        if self.core.has(Defect::ToolSurvives)
            || (self.core.has(Defect::UserCommandSurvives) && self.is_the_users())
            || (survives_end && lock(&self.core.state).shutting_down)
        {
            return tool.abandon(Abandon::Running);
        }
        if self.core.has(Defect::GrandchildSurvives) {
            return tool.abandon(Abandon::ChildKilled);
        }
        if self.core.has(Defect::TermOnly) {
            return tool.abandon(Abandon::AskedToEnd);
        }
        let rest = tool.kill().await;
        self.turn
            .with_call(&self.call_id, |call| call.printed.push(&rest));
        // Nobody waits for a full queue here: the abort must go on.
        let msg = self.end(None, self.printed());
        self.core.events.emit_now(&self.turn.submission, msg);
    }

    /// For a planted defect: whether the user has called, and not the model.
    fn is_the_users(&self) -> bool {
        let mut found = false;
        self.turn.with_call(&self.call_id, |call| {
            found = matches!(call.caller, Caller::User(_));
        });
        found
    }

    fn printed(&self) -> String {
        let mut text = String::new();
        self.turn
            .with_call(&self.call_id, |call| text = call.printed.text());
        text
    }

    fn end(&self, exit_code: Option<i32>, output: String) -> EventMsg {
        EventMsg::ExecCommandEnd {
            turn_id: self.turn.id.clone(),
            call_id: self.call_id.clone(),
            exit_code,
            output,
        }
    }

    /// Gives the call its output.
    pub(crate) fn output(&self, output: String) {
        self.turn
            .with_call(&self.call_id, |call| call.output = Some(output));
    }

    pub(crate) async fn emit(&self, msg: EventMsg) {
        self.core.events.emit(&self.turn.submission, msg).await;
    }
}

/// For a planted defect: a call of a dead turn, run after all.
pub(crate) async fn stray_call(core: Arc<Core>, late: Waiting) {
    let turn = Turn::new(&late.turn.submission, late.turn.id.clone(), 0);
    let call = Call {
        core,
        turn: Arc::new(turn),
        call_id: late.call_id,
    };
    call.run(late.command, false).await;
}

impl Turn {
    /// Moves the outputs of the calls in hand into the history. Called when all calls have ended.
    pub(super) fn collect_outputs(&self, state: &mut State) -> Vec<Draft> {
        let calls = std::mem::take(&mut lock(&self.live).calls);
        calls
            .iter()
            .map(|call| {
                let item = call.item(&call.output_now());
                let draft = Draft::item(&item);
                state.history.push(item);
                draft
            })
            .collect()
    }
}
