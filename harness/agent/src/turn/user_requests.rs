//! Calls that wait for the user: questions, and patches that need approval.

use cutpoint_protocol::session::{Decision, EventMsg};
use serde_json::json;

use super::calls::RunningCall;
use crate::defect::Defect;
use crate::tools::call_text;
use crate::tools::patch::Patch;

impl RunningCall {
    /// Asks the user and gives the answers to the model. A question whose turn is cancelled has no
    /// answers: the agent must not speak for the user.
    pub(super) async fn question(self, questions: Vec<String>) {
        let count = questions.len();
        let answers = self
            .core
            .answers(&self.turn, &self.call_id, questions)
            .await;
        let output = match answers {
            _ if self.core.has(Defect::AnswerLost) => json!({"answers": []}),
            Some(answers) => json!({"answers": answers}),
            None if self.core.has(Defect::QuestionMadeUp) => json!({"answers": vec!["yes"; count]}),
            None if self.core.has(Defect::QuestionDeclined) => {
                json!({"answers": [], "status": "the user declined to answer"})
            }
            None => json!({"answers": [], "status": "aborted before the user answered"}),
        };
        self.output(output.to_string());
    }

    /// Changes files, if the user allows it.
    pub(super) async fn patch(self, patch: Patch) {
        let command = patch.command(&self.core.config.cwd);
        let request = EventMsg::ApplyPatchApprovalRequest {
            turn_id: self.turn.id.clone(),
            call_id: self.call_id.clone(),
            paths: patch.paths(),
        };
        let decision = tokio::select! {
            biased;
            () = self.turn.token.cancelled() => None,
            decision = self.core.decision(&self.turn, &self.call_id, &command, request) => {
                Some(decision)
            }
        };
        match decision {
            Some(Decision::Approved | Decision::ApprovedForSession) => {}
            None if self.core.has(Defect::PatchOnInterrupt) => {}
            None => return,
            Some(_) => return self.output(call_text::failed("the user did not allow it")),
        }
        // From here on nothing is awaited before the files are changed: an interrupt finds either
        // none of the patch or all of it.
        let begin = EventMsg::ExecCommandBegin {
            turn_id: self.turn.id.clone(),
            call_id: self.call_id.clone(),
            command: command.argv.clone(),
            pid: None,
        };
        self.core.events.emit_now(&self.turn.submission, begin);
        let (exit_code, output) = match patch.apply(&self.core.config.cwd, self.core.tools.files())
        {
            Ok(changed) => (0, format!("changed: {}", changed.join(", "))),
            Err(error) => (1, error.to_string()),
        };
        self.output(match exit_code {
            0 => call_text::completed(Some(0), &output),
            _ => call_text::failed(&output),
        });
        let end = EventMsg::ExecCommandEnd {
            turn_id: self.turn.id.clone(),
            call_id: self.call_id.clone(),
            exit_code: Some(exit_code),
            output,
        };
        self.tell_end(end).await;
    }
}
