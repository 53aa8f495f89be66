//! Sub-agents and questions in traces.

use super::{Tracer, assistant, call, marker, output, user};
use cutpoint_protocol::ids::{CallId, TurnId};
use cutpoint_trace::{AgentEvent, ClientOp, Decision, Observation, TurnEnd};

impl Tracer {
    /// A sub-agent is started.
    pub(crate) fn sub_agent(
        &mut self,
        turn: &str,
        agent: &str,
        task: &str,
        one_shot: bool,
    ) -> &mut Self {
        self.event(AgentEvent::SubAgentStarted {
            turn_id: Some(turn.into()),
            agent_id: agent.into(),
            task: task.to_owned(),
            one_shot,
        })
    }

    /// An event of a sub-agent is forwarded.
    pub(crate) fn of_sub_agent(&mut self, turn: &str, agent: &str, event: AgentEvent) -> &mut Self {
        self.event(AgentEvent::SubAgentEvent {
            turn_id: Some(turn.into()),
            agent_id: agent.into(),
            event: Box::new(event),
        })
    }

    /// The end of a sub-agent's own turn is forwarded.
    pub(crate) fn sub_turn_ended(&mut self, turn: &str, agent: &str) -> &mut Self {
        let turn_id = Some(format!("{agent}-1").into());
        let end = TurnEnd::Complete;
        self.of_sub_agent(turn, agent, AgentEvent::TurnEnded { turn_id, end })
    }

    pub(crate) fn sub_ended(&mut self, turn: &str, agent: &str, how: &str) -> &mut Self {
        self.event(AgentEvent::SubAgentEnded {
            turn_id: Some(turn.into()),
            agent_id: agent.into(),
            how: how.to_owned(),
        })
    }

    /// The user is asked a question.
    pub(crate) fn question(&mut self, turn: &str, call_id: &str) -> &mut Self {
        self.event(AgentEvent::Question {
            turn_id: Some(turn.into()),
            call_id: call_id.into(),
            questions: vec!["Which?".to_owned()],
        })
    }

    /// The user answers a question.
    pub(crate) fn reply_to(&mut self, call_id: &str, text: &str) -> &mut Self {
        self.op(ClientOp::Answer {
            call_id: call_id.into(),
            text: text.to_owned(),
        })
    }

    /// The client stops reading, or goes on.
    pub(crate) fn reading(&mut self, on: bool) -> &mut Self {
        self.push(Observation::Reading { on })
    }
}

/// A session with sub-agents and questions, all as it should be.
pub(crate) fn delegating_session() -> Tracer {
    let mut t = Tracer::new();
    t.start("t1", "ask me").request(1, &[user("ask me")]);
    t.created(1).emit(1, call("c1")).finish(1);
    t.question("t1", "c1").reply_to("c1", "blue");
    let mut history = vec![user("ask me"), call("c1"), output("c1", "blue")];
    t.request(2, &history)
        .created(2)
        .emit(2, call("c2"))
        .finish(2);
    t.sub_agent("t1", "a1", "look", true);
    t.request_of(1, 3, &[user("look")]).created(3);
    t.emit(3, call("s1")).finish(3).ask("t1", "s1");
    t.decide("s1", Decision::Approve);
    let turn_id = Some(TurnId::from("a1-1"));
    let (call_id, command) = (CallId::from("s1"), "ls".to_owned());
    let begin = AgentEvent::CallBegin {
        turn_id: turn_id.clone(),
        call_id: call_id.clone(),
        command,
        pid: None,
    };
    let end = AgentEvent::CallEnd {
        turn_id,
        call_id,
        exit_code: Some(0),
        output: String::new(),
    };
    t.of_sub_agent("t1", "a1", begin)
        .of_sub_agent("t1", "a1", end);
    let looked = [user("look"), call("s1"), output("s1", "nothing")];
    t.request_of(1, 4, &looked).created(4);
    t.emit(4, assistant("Nothing.")).finish(4);
    t.sub_turn_ended("t1", "a1")
        .sub_ended("t1", "a1", "complete");
    history.extend([call("c2"), output("c2", "Nothing.")]);
    t.request(5, &history)
        .created(5)
        .emit(5, call("c3"))
        .finish(5);
    t.sub_agent("t1", "a2", "count", false);
    t.request_of(2, 6, &[user("count")]).created(6).finish(6);
    t.sub_turn_ended("t1", "a2");
    t.request_of(2, 7, &[user("count"), user("again")])
        .created(7);
    t.reading(false).interrupt().reply(None).disconnected(7);
    t.wrote(&marker()).written().synced().reading(true);
    t.sub_ended("t1", "a2", "closed")
        .aborted("t1")
        .read_at_end("t1");
    history.extend([call("c3"), output("c3", "aborted"), marker(), user("more")]);
    t.start("t2", "more")
        .request(8, &history)
        .created(8)
        .finish(8);
    t.completed("t2").read_at_end("t2").exit().alive(&[]);
    t
}
