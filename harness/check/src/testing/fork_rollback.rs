//! A session whose past is changed: forked, taken back, compacted, torn.

use serde_json::json;

use super::{Tracer, assistant, call, marker, output, user};
use cutpoint_trace::{AgentEvent, ClientOp, InputMode, ReadTrigger, TaskKind};

/// A session whose turns are taken back, forked and compacted, in which the user runs a command and
/// whose rollout is torn: everything as it should be.
pub(crate) fn forked_session() -> Tracer {
    let mut t = Tracer::new();
    t.start("t1", "one")
        .wrote(&user("one"))
        .request(1, &[user("one")]);
    t.emit(1, assistant("First."))
        .wrote(&assistant("First."))
        .finish(1);
    t.completed("t1").start("t2", "two").wrote(&user("two"));
    t.request(2, &[user("one"), assistant("First."), user("two")]);
    t.emit(2, call("c1"))
        .finish(2)
        .begin("t2", "c1")
        .interrupted("t2");
    t.op(ClientOp::Rollback { turns: 1 }).wrote_line(
        "event_msg",
        &json!({"type": "thread_rolled_back", "num_turns": 1}),
    );
    t.event(AgentEvent::RolledBack { turns: 1 })
        .start("t3", "two");
    let mut history = vec![user("one"), assistant("First."), user("two")];
    t.request(3, &history).emit(3, call("c2")).begin("t3", "c2");
    t.op(ClientOp::Fork).forked("fork.jsonl").kill().resume();
    t.goes_on_in("fork.jsonl");
    t.wrote(&call("c2")).wrote(&marker()).wrote_line(
        "event_msg",
        &json!({"type": "turn_aborted", "turn_id": "t3"}),
    );
    history.extend([call("c2"), output("c2", "aborted"), marker()]);
    t.task(TaskKind::Shell, "make")
        .reply(Some("t4"))
        .started("t4");
    t.begin("t4", "user-shell-1")
        .printed("t4", "user-shell-1", "cc main.c");
    t.wait_ms(20).interrupted("t4");
    let told = "<user_shell_command>\nmake\naborted: cc main.c\n</user_shell_command>";
    history.extend([user(told), marker(), user("three")]);
    t.start("t5", "three")
        .request(4, &history)
        .finish(4)
        .completed("t5");
    t.task(TaskKind::Compact, "")
        .reply(Some("t6"))
        .started("t6");
    t.request(5, &history)
        .input("wait", InputMode::Steer)
        .finish(5);
    t.event(AgentEvent::Compacted {
        turn_id: Some("t6".into()),
    });
    t.completed("t6").wrote_line("compacted", &json!({}));
    t.wrote(&user("wait"))
        .kill()
        .read(ReadTrigger::Exit)
        .tear(0);
    t.resume().start("t7", "four").request(
        6,
        &[user("one"), user("a summary"), user("wait"), user("four")],
    );
    t.completed("t7").read(ReadTrigger::End);
    t
}
