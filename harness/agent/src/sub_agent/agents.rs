//! The sub-agents of a turn, seen from the turn.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use cutpoint_protocol::ids::{CallId, ConversationId};
use cutpoint_protocol::session::{EventMsg, Op, SubAgentEnd};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::runner::SubAgentRunner;
use crate::defect::Defect;
use crate::lock;
use crate::session_core::{SessionCore, Turn};

/// How many ops wait for a sub-agent at most.
const OPS: usize = 16;

/// The sub-agents of a turn.
#[derive(Debug, Default)]
pub(crate) struct SubAgents {
    known: Mutex<Vec<Arc<SubAgentHandle>>>,
    /// Ends of sub-agents that were not reported to the client yet.
    unreported: Mutex<VecDeque<(ConversationId, SubAgentEnd)>>,
    /// Held while ends are told: whoever has the turn's own end to tell waits for that.
    telling: tokio::sync::Mutex<()>,
}

/// A sub-agent.
#[derive(Debug)]
pub(super) struct SubAgentHandle {
    /// The call that started it.
    call_id: CallId,
    /// Ends the sub-agent, and nothing else.
    pub(super) token: CancellationToken,
    /// Where its ops come from; absent for a one-shot.
    pub(super) ops: Option<mpsc::Sender<Op>>,
    pub(super) status: watch::Receiver<SubAgentStatus>,
    /// For a planted defect: the end of its turn is not its own.
    outlives: bool,
}

/// What is known of a sub-agent.
#[derive(Debug, Clone, Default)]
pub(super) struct SubAgentStatus {
    /// Its session's id, once it has started.
    pub(super) id: Option<ConversationId>,
    /// How many of its turns have ended.
    pub(super) turns: usize,
    /// Whether it has nothing to do.
    pub(super) idle: bool,
    pub(super) last_message: Option<String>,
    /// Why its last turn failed, or why it could not start.
    pub(super) failure: Option<String>,
    pub(super) end: Option<SubAgentEnd>,
}

impl SubAgentHandle {
    /// Waits until the status is as wanted, or will not change any more.
    pub(super) async fn until(
        &self,
        wanted: impl FnMut(&SubAgentStatus) -> bool,
    ) -> SubAgentStatus {
        let mut status = self.status.clone();
        let found = status.wait_for(wanted).await.map(|status| status.clone());
        found.unwrap_or_else(|_| self.status.borrow().clone())
    }

    /// Returns when the sub-agent is gone, whether it has ended or its task has.
    pub(super) async fn ended(&self) {
        self.until(|status| status.end.is_some()).await;
    }
}

impl SubAgents {
    /// Starts a sub-agent for a call of a turn.
    pub(super) fn start(
        core: &Arc<SessionCore>,
        turn: &Arc<Turn>,
        call_id: &CallId,
        task: String,
        one_shot: bool,
    ) -> Arc<SubAgentHandle> {
        let (status, known) = watch::channel(SubAgentStatus::default());
        let (sender, ops) = mpsc::channel(OPS);
        let token = if core.has(Defect::SubAgentOutlives) {
            CancellationToken::new()
        } else {
            turn.token.child_token()
        };
        let takes_ops = !one_shot || core.has(Defect::OneShotTakesInput);
        let agent = Arc::new(SubAgentHandle {
            call_id: call_id.to_owned(),
            token: token.clone(),
            ops: takes_ops.then_some(sender),
            status: known,
            outlives: core.has(Defect::SubAgentOutlives),
        });
        lock(&turn.agents.known).push(Arc::clone(&agent));
        let delegate = SubAgentRunner {
            core: Arc::clone(core),
            turn: Arc::clone(turn),
            token,
            task,
            one_shot,
            status,
            asked_first: Mutex::default(),
        };
        tokio::spawn(SessionCore::until_killed(
            core.life.clone(),
            delegate.run(ops),
        ));
        agent
    }

    /// The sub-agent of that id; that of the call which started it is as good.
    pub(super) fn find(&self, id: &str) -> Option<Arc<SubAgentHandle>> {
        let is_it = |agent: &&Arc<SubAgentHandle>| {
            agent.call_id == id || agent.status.borrow().id.as_deref() == Some(id)
        };
        lock(&self.known).iter().find(is_it).cloned()
    }

    /// Cancels all sub-agents and waits until they are gone, which each is in bounded time. Nobody
    /// is waited for who waits for the client.
    pub(crate) async fn wind_up(&self) {
        let agents = lock(&self.known).clone();
        for agent in agents.iter().filter(|agent| !agent.outlives) {
            agent.token.cancel();
        }
        for agent in agents.iter().filter(|agent| !agent.outlives) {
            agent.ended().await;
        }
    }

    /// Notes an end for the client.
    pub(super) fn note_end(&self, id: ConversationId, end: SubAgentEnd) {
        lock(&self.unreported).push_back((id, end));
    }

    /// Tells the client of the ends that it has not heard of, and returns when it has been told of
    /// all: what follows comes after them.
    pub(crate) async fn tell_ends(&self, core: &SessionCore, turn: &Turn) {
        let _telling = self.telling.lock().await;
        loop {
            let next = lock(&self.unreported).pop_front();
            let Some((agent_id, end)) = next else { return };
            let turn_id = turn.id.clone();
            let msg = EventMsg::SubAgentEnded {
                turn_id,
                agent_id,
                end,
            };
            core.events.emit(&turn.submission, msg).await;
        }
    }
}
