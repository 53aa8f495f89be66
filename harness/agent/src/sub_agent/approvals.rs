//! What a sub-agent would ask its user is asked in the session that it works for.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use cutpoint_protocol::ids::CallId;
use cutpoint_protocol::session::{Decision, EventMsg, Op};

use super::runner::{SubAgentRunner, SubAgentSession, submit};
use crate::defect::Defect;
use crate::lock;
use crate::tools::{ToolCommand, patch};

type Asking = Pin<Box<dyn Future<Output = ()> + Send>>;

impl SubAgentRunner {
    /// Asks the user what the sub-agent asks, if it asks, and hands the answer back. The asking ends
    /// with the sub-agent, so it need not look for the cancellation itself.
    pub(super) fn asking(&self, child: &SubAgentSession, msg: &EventMsg) -> Option<Asking> {
        let turn_id = self.turn.id.clone();
        let cwd = &self.core.config.cwd;
        match msg.clone() {
            EventMsg::ExecApprovalRequest {
                call_id, command, ..
            } => {
                let words = ToolCommand {
                    argv: command.clone(),
                    cwd: cwd.clone(),
                    env: Vec::new(),
                    timeout: None,
                };
                let request = EventMsg::ExecApprovalRequest {
                    turn_id,
                    call_id: call_id.clone(),
                    command,
                };
                Some(
                    self.deciding(child, call_id, words, request, |call_id, decision| {
                        Op::ExecApproval { call_id, decision }
                    }),
                )
            }
            EventMsg::ApplyPatchApprovalRequest { call_id, paths, .. } => {
                let words = patch::command(&paths, cwd);
                let request = EventMsg::ApplyPatchApprovalRequest {
                    turn_id,
                    call_id: call_id.clone(),
                    paths,
                };
                Some(
                    self.deciding(child, call_id, words, request, |call_id, decision| {
                        Op::PatchApproval { call_id, decision }
                    }),
                )
            }
            EventMsg::UserInputRequest {
                call_id, questions, ..
            } => Some(self.answering(child, call_id, questions)),
            _ => None,
        }
    }

    fn deciding(
        &self,
        child: &SubAgentSession,
        call_id: CallId,
        words: ToolCommand,
        request: EventMsg,
        op: fn(CallId, Decision) -> Op,
    ) -> Asking {
        let (core, turn) = (Arc::clone(&self.core), Arc::clone(&self.turn));
        let session = Arc::clone(&child.session);
        let mut target = call_id.clone();
        if core.has(Defect::DecisionMisdirected) {
            target = lock(&self.asked_first).get_or_insert(target).clone();
        }
        Box::pin(async move {
            let decision = core.decision(&turn, &call_id, &words, request).await;
            submit(&session, op(target, decision)).await;
        })
    }

    fn answering(
        &self,
        child: &SubAgentSession,
        call_id: CallId,
        questions: Vec<String>,
    ) -> Asking {
        let (core, turn) = (Arc::clone(&self.core), Arc::clone(&self.turn));
        let session = Arc::clone(&child.session);
        Box::pin(async move {
            let answers = core.answers(&turn, &call_id, questions).await;
            let answers = answers.unwrap_or_default();
            submit(&session, Op::UserInputAnswer { call_id, answers }).await;
        })
    }
}
