//! Carrying out calls.

use std::sync::Arc;
use std::time::Duration;

use cutpoint_protocol::Item;
use cutpoint_protocol::ids::CallId;
use cutpoint_protocol::item::CallKind;
use cutpoint_protocol::session::{Decision, EventMsg};

use super::tool_invocation::{self, ToolInvocation};
use super::{TurnFailure, TurnWorker};
use crate::approvals::PendingApproval;
use crate::defect::Defect;
use crate::lock;
use crate::rollout::LineDraft;
use crate::session_core::{ActiveCall, CallOrigin, SessionCore, SessionState, Turn};
use crate::tools::capture::Utf8Pieces;
use crate::tools::{AbandonMode, RunningTool, ToolCommand, ToolEvent, call_text};

impl TurnWorker {
    /// Records a call and sets it to work. Returns whether an output will follow.
    pub(super) async fn call(&mut self, item: Item, kind: CallKind) -> Result<bool, TurnFailure> {
        let call_id = CallId::from(item.call_id().unwrap_or_default());
        let invocation = tool_invocation::of(&item, kind, &self.core.config);
        let mut refused = None;
        self.core
            .record(|state| {
                lock(&self.turn.progress).half_call = None;
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
                let draft = LineDraft::item(&item);
                state.history.push(item);
                state.history.owe(&call_id, kind);
                let call = ActiveCall::new(&call_id, CallOrigin::Model(kind));
                lock(&self.turn.progress).calls.push(call);
                vec![draft]
            })
            .await?;
        if let Some(why) = refused {
            // No output could be paired with it, so it can't stand in the history either.
            let message = format!("{why}; the call is left out");
            self.emit(EventMsg::BackgroundEvent { message }).await;
            return Ok(false);
        }
        match invocation {
            Ok(invocation) => {
                let call = RunningCall {
                    core: Arc::clone(&self.core),
                    turn: Arc::clone(&self.turn),
                    call_id,
                };
                self.tool_tasks.add(call.carry_out(invocation));
            }
            Err(why) => {
                self.turn
                    .with_call(&call_id, |call| call.output = Some(call_text::failed(&why)));
            }
        }
        Ok(true)
    }

    /// Runs a command of the user's, which the turn has in hand under that id.
    pub(crate) async fn user_command(
        &self,
        call_id: &CallId,
        line: &str,
    ) -> Result<(), TurnFailure> {
        let argv = ["bash", "-c", line].map(str::to_owned).to_vec();
        let command = ToolCommand {
            argv,
            cwd: self.core.config.cwd.clone(),
            env: Vec::new(),
            timeout: None,
        };
        let call = RunningCall {
            core: Arc::clone(&self.core),
            turn: Arc::clone(&self.turn),
            call_id: call_id.to_owned(),
        };
        self.tool_tasks.add(call.run(command, false));
        self.finish_calls().await
    }
}

/// A call at work.
pub(crate) struct RunningCall {
    pub(crate) core: Arc<SessionCore>,
    pub(crate) turn: Arc<Turn>,
    pub(crate) call_id: CallId,
}

impl RunningCall {
    async fn carry_out(self, invocation: ToolInvocation) {
        match invocation {
            ToolInvocation::Command { command, asks } => self.run(command, asks).await,
            ToolInvocation::Question(questions) => self.question(questions).await,
            ToolInvocation::Patch(patch) => self.patch(patch).await,
            ToolInvocation::SubAgentCall(invocation) => self.delegation(invocation).await,
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
            let output = call_text::failed("the user did not allow it");
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

    /// Tells that the call ended by itself. The model will read so, and therefore the client is informed also
    /// when the turn is cancelled; but then a full queue is not waited for: the abort must go on.
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
                    call.output = Some(call_text::failed(&why))
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
            return (code, call_text::completed(code, &self.printed()));
        };
        match tokio::time::timeout(limit, self.copy(tool)).await {
            Ok(code) => (code, call_text::completed(code, &self.printed())),
            Err(_) => {
                let rest = tool.kill().await;
                self.turn
                    .with_call(&self.call_id, |call| call.printed.push(&rest));
                (None, call_text::timed_out(limit, &self.printed()))
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
            return tool.abandon(AbandonMode::Running);
        }
        if self.core.has(Defect::GrandchildSurvives) {
            return tool.abandon(AbandonMode::ChildKilled);
        }
        if self.core.has(Defect::TermOnly) {
            return tool.abandon(AbandonMode::AskedToEnd);
        }
        let rest = tool.kill().await;
        self.turn
            .with_call(&self.call_id, |call| call.printed.push(&rest));
        // A full queue is not waited for here: the abort must go on.
        let msg = self.end(None, self.printed());
        self.core.events.emit_now(&self.turn.submission, msg);
    }

    /// For a planted defect: whether the user has called, and not the model.
    fn is_the_users(&self) -> bool {
        let mut found = false;
        self.turn.with_call(&self.call_id, |call| {
            found = matches!(call.origin, CallOrigin::User(_));
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
pub(crate) async fn stray_call(core: Arc<SessionCore>, late: PendingApproval) {
    let turn = Turn::new(&late.turn.submission, late.turn.id.clone(), 0);
    let call = RunningCall {
        core,
        turn: Arc::new(turn),
        call_id: late.call_id,
    };
    call.run(late.command, false).await;
}

impl Turn {
    /// Moves the outputs of the calls in hand into the history. Called when all calls have ended.
    pub(super) fn collect_outputs(&self, state: &mut SessionState) -> Vec<LineDraft> {
        let calls = std::mem::take(&mut lock(&self.progress).calls);
        calls
            .iter()
            .map(|call| {
                let item = call.item(&call.output_now());
                let draft = LineDraft::item(&item);
                state.history.push(item);
                draft
            })
            .collect()
    }
}
