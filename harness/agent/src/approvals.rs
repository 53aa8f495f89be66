//! Calls that wait for the user's approval, and the user's answers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use cutpoint_protocol::ids::CallId;
use cutpoint_protocol::session::{Decision, EventMsg};
use tokio::sync::oneshot;

use crate::defect::Defect;
use crate::dispatch::Dispatcher;
use crate::lock;
use crate::session_core::{SessionCore, Turn};
use crate::tools::ToolCommand;
use crate::turn;

/// A call that waits.
#[derive(Debug)]
pub(crate) struct PendingApproval {
    pub(crate) call_id: CallId,
    pub(crate) turn: Arc<Turn>,
    pub(crate) command: ToolCommand,
    answer: oneshot::Sender<Decision>,
}

/// The calls that wait, and what the user allowed once and for all.
#[derive(Debug, Default)]
pub(crate) struct Approvals {
    /// By call id. An entry may outlive its call for a moment; an answer is too late then.
    waiting: HashMap<CallId, PendingApproval>,
    /// The words of commands that need not be asked for again in this session.
    allowed: HashSet<Vec<String>>,
    /// Questions to the user, by call id.
    questions: HashMap<CallId, oneshot::Sender<Vec<String>>>,
}

impl Approvals {
    /// Lets a call wait for an answer; nothing if the user has given it for the whole session.
    pub(crate) fn ask(
        &mut self,
        call_id: &CallId,
        turn: &Arc<Turn>,
        command: &ToolCommand,
    ) -> Option<oneshot::Receiver<Decision>> {
        if self.allowed.contains(&command.argv) {
            return None;
        }
        let (answer, answered) = oneshot::channel();
        let waiting = PendingApproval {
            call_id: call_id.to_owned(),
            turn: Arc::clone(turn),
            command: command.clone(),
            answer,
        };
        self.waiting.insert(call_id.to_owned(), waiting);
        Some(answered)
    }

    fn is_waiting(&self, call_id: &CallId) -> bool {
        let waiting = self.waiting.get(call_id);
        waiting.is_some_and(|waiting| !waiting.answer.is_closed())
    }

    /// Gives a call its answer. What waited no more is returned: the answer came too late, and
    /// nothing is remembered of it.
    fn answer(&mut self, call_id: &CallId, decision: Decision) -> Option<PendingApproval> {
        let mut waiting = self.waiting.remove(call_id)?;
        if waiting.answer.is_closed() {
            return Some(waiting);
        }
        let words = std::mem::take(&mut waiting.command.argv);
        if waiting.answer.send(decision).is_ok() && decision == Decision::ApprovedForSession {
            self.allowed.insert(words);
        }
        None
    }

    /// Lets a call wait for the user's answers to its questions.
    fn question(&mut self, call_id: &CallId) -> oneshot::Receiver<Vec<String>> {
        let (reply, replied) = oneshot::channel();
        self.questions.insert(call_id.to_owned(), reply);
        replied
    }

    /// Forgets who waits. For a call that still does, it is as if the user had said no, or nothing.
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
        self.questions.clear();
    }
}

impl SessionCore {
    /// The user's decision on a call of the turn, or of one of its sub-agents; `request` is what the
    /// user is asked, unless the answer is known already.
    pub(crate) async fn decision(
        &self,
        turn: &Arc<Turn>,
        call_id: &CallId,
        command: &ToolCommand,
        request: EventMsg,
    ) -> Decision {
        let asked = lock(&self.state).approvals.ask(call_id, turn, command);
        let Some(answer) = asked else {
            return Decision::ApprovedForSession;
        };
        self.events.emit(&turn.submission, request).await;
        self.hooks.point("approval.asked").await;
        // Without a client that could approve, the command must not run.
        let decision = answer.await.unwrap_or(Decision::Denied);
        self.hooks.point("approval.decided").await;
        decision
    }

    /// The user's answers to the questions of a call of the turn, or of one of its sub-agents;
    /// nothing if the turn was cancelled before they were given.
    pub(crate) async fn answers(
        &self,
        turn: &Arc<Turn>,
        call_id: &CallId,
        questions: Vec<String>,
    ) -> Option<Vec<String>> {
        let mut reply = lock(&self.state).approvals.question(call_id);
        let asked = async {
            let request = EventMsg::UserInputRequest {
                turn_id: turn.id.clone(),
                call_id: call_id.to_owned(),
                questions,
            };
            self.events.emit(&turn.submission, request).await;
            self.hooks.point("question.asked").await;
            (&mut reply).await.unwrap_or_default()
        };
        let waits = self.has(Defect::QuestionHoldsAbort);
        tokio::select! {
            biased;
            // What the user has said already is not taken back.
            () = turn.token.cancelled(), if !waits => reply.try_recv().ok(),
            answers = asked => Some(answers),
        }
    }
}

impl Dispatcher {
    /// An answer goes to the call that waits for it; "abort" is an interrupt of the turn. An answer
    /// that comes too late changes nothing.
    pub(crate) async fn approval(&mut self, call_id: &CallId, decision: Decision) {
        let core = Arc::clone(&self.core);
        core.hooks.point("approval.answered").await;
        if decision == Decision::Abort && !core.has(Defect::AbortIsDenial) {
            let waits = lock(&core.state).approvals.is_waiting(call_id);
            if waits || core.has(Defect::LateAbortInterrupts) {
                self.interrupt().await;
            }
            return;
        }
        let late = lock(&core.state).approvals.answer(call_id, decision);
        let runs = core.has(Defect::ApprovalSurvives) && decision == Decision::Approved;
        if let Some(late) = late.filter(|_| runs) {
            let work = turn::stray_call(Arc::clone(&core), late);
            self.task
                .spawn(SessionCore::until_killed(core.life.clone(), work));
        }
    }
    /// Answers go to the call that asked. Late ones change nothing.
    pub(crate) async fn user_input_answer(&mut self, call_id: &CallId, answers: Vec<String>) {
        self.core.hooks.point("question.answered").await;
        let reply = lock(&self.core.state).approvals.questions.remove(call_id);
        if let Some(reply) = reply {
            // A call that has been cut off in the meantime needs no answer.
            let _ = reply.send(answers);
        }
    }
}
