//! Carrying out calls.

use std::sync::Arc;
use std::time::Duration;

use cutpoint_protocol::Item;
use cutpoint_protocol::item::CallKind;
use cutpoint_protocol::session::{Decision, EventMsg};

use super::{Failure, Worker};
use crate::approvals::Waiting;
use crate::defect::Defect;
use crate::lock;
use crate::rollout::Draft;
use crate::shared::{Core, LiveCall, State, Turn};
use crate::tools::capture::{Capture, Utf8Pieces};
use crate::tools::{RunningTool, ToolCommand, ToolEvent, parse};

impl Worker {
    /// Records a call and sets it to work. Returns whether an output will follow.
    pub(super) async fn call(&mut self, item: Item, kind: CallKind) -> Result<bool, Failure> {
        let call_id = item.call_id().unwrap_or_default().to_owned();
        let command = parse::command(&item, kind, &self.core.config.cwd);
        let asks = parse::asks_approval(&item, kind);
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
                lock(&self.turn.live).calls.push(LiveCall {
                    call_id: call_id.clone(),
                    kind,
                    started: false,
                    printed: Capture::default(),
                    output: None,
                });
                vec![draft]
            })
            .await?;
        if let Some(why) = refused {
            // No output could be paired with it, so it can't stand in the history either.
            let message = format!("{why}; the call is left out");
            self.emit(EventMsg::BackgroundEvent { message }).await;
            return Ok(false);
        }
        match command {
            Ok(command) => {
                let call = Call {
                    core: Arc::clone(&self.core),
                    turn: Arc::clone(&self.turn),
                    call_id,
                };
                self.crew.add(call.run(command, asks));
            }
            Err(why) => {
                self.turn
                    .with_call(&call_id, |call| call.output = Some(parse::failed(&why)));
            }
        }
        Ok(true)
    }
}

/// A call at work.
struct Call {
    core: Arc<Core>,
    turn: Arc<Turn>,
    call_id: String,
}

impl Call {
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
        let printed = self.printed();
        tokio::select! {
            biased;
            () = token.cancelled() => {}
            () = self.emit(self.end(exit_code, printed)) => {}
        }
    }

    /// Whether the command may run: the user is asked, if the call wants that and the answer is not
    /// known yet.
    async fn is_allowed(&self, command: &ToolCommand, asks: bool) -> bool {
        if !asks {
            return true;
        }
        let asked = lock(&self.core.state)
            .approvals
            .ask(&self.call_id, &self.turn, command);
        let Some(answer) = asked else {
            return true;
        };
        self.emit(EventMsg::ExecApprovalRequest {
            turn_id: self.turn.id.clone(),
            call_id: self.call_id.clone(),
            command: command.argv.clone(),
        })
        .await;
        self.core.hooks.point("approval.asked").await;
        // When nobody is left who could say yes, the command must not run.
        let decision = answer.await.unwrap_or(Decision::Denied);
        self.core.hooks.point("approval.decided").await;
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
            || (survives_end && lock(&self.core.state).shutting_down)
        {
            return std::mem::forget(tool);
        }
        let rest = tool.kill().await;
        self.turn
            .with_call(&self.call_id, |call| call.printed.push(&rest));
        // Nobody waits for a full queue here: the abort must go on.
        let msg = self.end(None, self.printed());
        self.core.events.emit_now(&self.turn.submission, msg);
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

    async fn emit(&self, msg: EventMsg) {
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
        let outputs = calls.into_iter().map(|call| {
            let output = call
                .output
                .unwrap_or_else(|| parse::aborted(call.started, ""));
            Item::output(call.kind, &call.call_id, &output)
        });
        outputs
            .map(|item| {
                let draft = Draft::item(&item);
                state.history.push(item);
                draft
            })
            .collect()
    }
}
