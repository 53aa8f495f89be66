//! Steps that are done by themselves as the agent passes a point.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;

use cutpoint_engine::driver::in_process::ReferenceDriver;
use cutpoint_engine::lab;
use cutpoint_engine::runner::{RunConfig, Runner, WAIT_LIMIT};
use cutpoint_engine::server::{ReplayServer, ServerConfig};
use cutpoint_trace::case::{CaseResult, CaseStatus};
use cutpoint_trace::{AgentEvent, ClientOp, Decision, Entry, Observation, StoreOp, StreamEnd};

fn run(steps: &str, rules_only: bool) -> CaseResult {
    let replies =
        "reply { shell call_1 \"echo hi\" }; reply { text \"Done.\" }; reply { text \"Here.\" }";
    let source = format!("scenario \"s\" {{\n model {{ {replies} }}\n{steps}\n}}\n");
    let planned = common::parse("s.kdl", &source).remove(0);
    lab::block_on(async {
        let server = Arc::new(ReplayServer::in_memory(ServerConfig::default()));
        let config = RunConfig {
            limit: WAIT_LIMIT,
            seed: 7,
            recordings: common::root().join("recordings"),
            dir: None,
            rules_only,
            judge: cutpoint_check::judge,
        };
        let driver = Arc::new(ReferenceDriver::default());
        Runner::new(server, driver, config).run(&planned).await
    })
    .unwrap()
}

/// Runs it, once as a scenario and once as a schedule; both must conform.
fn conforming(steps: &str) -> [CaseResult; 2] {
    [false, true].map(|rules_only| {
        let case = run(steps, rules_only);
        let complaints = common::complaints(&case);
        assert_eq!(case.status(true), CaseStatus::Conforms, "{complaints}");
        case
    })
}

fn position(case: &CaseResult, wanted: impl Fn(&Observation) -> bool) -> Option<usize> {
    let mut entries = case.trace.entries.iter();
    entries.position(|entry| wanted(&entry.observation))
}

fn decided(case: &CaseResult, wanted: Decision) -> bool {
    let is = |what: &Observation| matches!(what, Observation::Op { op: ClientOp::Approval { call_id, decision }, .. } if call_id == "call_1" && *decision == wanted);
    position(case, is).is_some()
}

#[test]
fn a_kill_comes_right_behind_the_write_and_the_client_goes_on_behind_it() {
    let steps = "user \"go\"\nawait turn-ended\nuser \"more\"\nawait turn-ended\n\
                 kill at=\"point store.written 3\" yields=0\nresume\nuser \"again\"\nawait turn-ended";
    for case in conforming(steps) {
        let written = |what: &Observation| {
            matches!(
                what,
                Observation::Stored {
                    done: StoreOp::Written { .. },
                    ..
                }
            )
        };
        let entries = &case.trace.entries;
        let killed = position(&case, |what| matches!(what, Observation::AgentKilled)).unwrap();
        assert_eq!(
            entries[..killed]
                .iter()
                .filter(|it| written(&it.observation))
                .count(),
            3
        );
        // Only the step stands between the write and the kill.
        assert!(
            written(&entries[killed - 2].observation),
            "{:?}",
            entries[killed - 2]
        );
        // The second turn was given up, and nobody waited for it in vain.
        let said = |text: &str| {
            position(
                &case,
                |what| matches!(what, Observation::Op { op: ClientOp::Input { text: said, .. }, .. } if said == text),
            )
        };
        assert_eq!(said("more"), None);
        assert!(said("again").unwrap() > killed);
        assert_eq!(
            position(&case, |what| matches!(what, Observation::TimedOut { .. })),
            None
        );
    }
}

/// A session that is down tells nobody of its end a second time, and one that is killed never does.
#[test]
fn an_agent_that_is_asked_to_end_is_waited_for_until_it_has_ended_in_whatever_way() {
    let again = "user \"go\"\nshutdown at=\"end of reply 1\"\nshutdown at=\"point marker.flush\" yields=0\nresume\nuser \"again\"";
    let case = run(again, true);
    let complaints = common::complaints(&case);
    assert_eq!(case.status(true), CaseStatus::Conforms, "{complaints}");
    let exits = |what: &Observation| matches!(what, Observation::AgentExited { .. });
    let exited = position(&case, exits).unwrap();
    let resumed =
        |what: &Observation| matches!(what, Observation::AgentStarted { resumed: true, .. });
    assert!(exited < position(&case, resumed).unwrap());

    // The turn waits for the user until the case is over and the agent is asked to end.
    let killed = "needs approvals\nuser \"go\"\nawait turn-ended\nkill at=\"point event.turn_aborted\" yields=0";
    let case = run(killed, true);
    let complaints = common::complaints(&case);
    assert_eq!(case.status(true), CaseStatus::Conforms, "{complaints}");
    assert!(position(&case, |what| matches!(what, Observation::AgentKilled)).is_some());
}

#[test]
fn a_kill_whose_point_is_not_passed_leaves_the_agent_alone() {
    let steps = "user \"go\"\nawait turn-ended\nkill at=\"point store.written 99\" yields=0\nresume\nuser \"again\"";
    let case = run(steps, true);
    assert_eq!(
        case.status(true),
        CaseStatus::Conforms,
        "{}",
        common::complaints(&case)
    );
    assert_eq!(
        position(&case, |what| matches!(what, Observation::AgentKilled)),
        None
    );
    // As a scenario of its own it has not gone as written.
    assert_eq!(run(steps, false).status(true), CaseStatus::Breach);
}

#[test]
fn a_shutdown_is_waited_for_and_the_session_goes_on() {
    let steps = "user \"go\"\nawait turn-ended\n\
                 shutdown at=\"point event.exec_command_begin\" yields=1\nresume\nuser \"again\"\nawait turn-ended";
    for case in conforming(steps) {
        let asked = |what: &Observation| matches!(what, Observation::Op { id, op: ClientOp::Shutdown } if id == "step-3");
        let asked = position(&case, asked).unwrap();
        let exited = position(&case, |what| {
            matches!(what, Observation::AgentExited { .. })
        })
        .unwrap();
        let resumed =
            |what: &Observation| matches!(what, Observation::AgentStarted { resumed: true, .. });
        assert!(asked < exited && exited < position(&case, resumed).unwrap());
    }
}

#[test]
fn a_drop_ends_the_stream_that_is_sent_and_nothing_else() {
    let steps = |point: &str| {
        format!("user \"go\"\ndrop reset at=\"point {point}\" yields=0\nawait turn-ended")
    };
    let reset = |case: &CaseResult| {
        position(case, |what| {
            matches!(
                what,
                Observation::StreamEnd {
                    how: StreamEnd::Reset,
                    ..
                }
            )
        })
    };
    for case in conforming(&steps("stream.event 3")) {
        assert!(reset(&case).is_some());
    }
    let before = run(&steps("request.build"), true);
    assert_eq!(reset(&before), None, "there is no stream yet");
}

#[test]
fn whichever_approval_waits_is_answered() {
    for (word, decision) in [
        ("approve", Decision::Approve),
        ("deny", Decision::Deny),
        ("abort", Decision::Abort),
    ] {
        let steps =
            format!("user \"go\"\n{word} at=\"point approval.asked\" yields=1\nawait turn-ended");
        for case in conforming(&steps) {
            assert!(decided(&case, decision), "{word}");
        }
    }
    let early = "needs approvals\nuser \"go\"\ndeny at=\"point request.send\" yields=0\n\
                 approve call_1\nawait turn-ended";
    let case = run(early, true);
    assert!(!decided(&case, Decision::Deny), "nothing waited yet");
    assert!(decided(&case, Decision::Approve));
}

#[test]
fn an_end_that_comes_when_the_client_is_behind_it_does_not_come() {
    let again = "resume\nuser \"again\"\nawait turn-ended";
    let kill = |nth: usize| format!("kill at=\"point store.written {nth}\" yields=0\n{again}");
    let steps = format!("user \"go\"\nawait turn-ended\n{}\n{}", kill(6), kill(3));
    let case = run(&steps, true);
    assert_eq!(
        case.status(true),
        CaseStatus::Conforms,
        "{}",
        common::complaints(&case)
    );
    let killed = |what: &Observation| matches!(what, Observation::AgentKilled);
    let kills = case
        .trace
        .entries
        .iter()
        .filter(|it| killed(&it.observation));
    assert_eq!(kills.count(), 1);
}

/// What is done by itself reaches the agent by the methods of its JSON-RPC front as well.
#[test]
fn a_front_is_reached_by_its_own_methods() {
    let through = |steps: &str| conforming(&format!("needs json-rpc\n{steps}"));
    let interrupt = "user \"go\"\ninterrupt at=\"point stream.event 3\" yields=2\nawait turn-ended";
    for case in through(interrupt) {
        assert_eq!(case.agent.driver, "json-rpc");
        let answered = |what: &Observation| matches!(what, Observation::OpReply { id, error: None, .. } if id == "step-2");
        assert!(
            position(&case, answered).is_some(),
            "the interrupt was not answered"
        );
    }
    let steer = "user \"go\"\nsteer \"more\" at=\"point tool.spawn\" yields=0\nawait turn-ended";
    for case in through(steer) {
        let said = |what: &Observation| matches!(what, Observation::Event { event: AgentEvent::UserMessage { text, .. }, .. } if text == "more");
        assert!(position(&case, said).is_some(), "nothing was steered");
    }
    for (word, decision) in [("approve", Decision::Approve), ("deny", Decision::Deny)] {
        // The request has to come out of the pipe before it can be answered.
        let steps =
            format!("user \"go\"\n{word} at=\"point approval.asked\" yields=9\nawait turn-ended");
        for case in through(&steps) {
            assert!(decided(&case, decision), "{word}");
        }
    }
}

#[test]
fn a_front_is_killed_and_shut_down_at_a_point() {
    let again = "resume\nuser \"again\"\nawait turn-ended";
    for end in ["kill", "shutdown"] {
        for point in ["store.written 3", "stream.event 3", "tool.spawn 1"] {
            let steps = format!(
                "needs json-rpc\nuser \"go\"\nawait turn-ended\n\
                 {end} at=\"point {point}\" yields=0\n{again}"
            );
            for case in conforming(&steps) {
                let resumed = |what: &Observation| {
                    matches!(what, Observation::AgentStarted { resumed: true, .. })
                };
                assert!(position(&case, resumed).is_some(), "{end} at {point}");
                let killed = position(&case, |what| matches!(what, Observation::AgentKilled));
                assert_eq!(killed.is_some(), end == "kill", "{end} at {point}");
                if let Some(killed) = killed {
                    let mut behind = case.trace.entries[killed..].iter();
                    let next = behind
                        .position(|entry| resumed(&entry.observation))
                        .unwrap();
                    let stored =
                        |entry: &Entry| matches!(entry.observation, Observation::Stored { .. });
                    let late = case.trace.entries[killed..killed + next]
                        .iter()
                        .find(|it| stored(it));
                    assert_eq!(late, None, "a killed agent writes no more");
                }
            }
        }
    }
}
