//! Properties of the correct agent for any stream, chunking and cut; and the proof that each property
//! can fail: an agent with the matching defect does not have it.
//!
//! The three named invariants: every pending call gets an output, TurnAborted is sent exactly once,
//! the marker is durable before the event.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use cutpoint_agent::Defect;
use cutpoint_engine::driver::in_process::ReferenceDriver;
use cutpoint_engine::runner::Planned;
use cutpoint_engine::server::plan;
use cutpoint_protocol::request::ResponsesRequest;
use cutpoint_scenario::ast::{
    Action, Await, CutPoint, ModelScript, Reply, ReplyBody, ReplyEnd, ReplyPart, Scenario, Span,
    Step,
};
use cutpoint_trace::case::CaseResult;
use cutpoint_trace::verdict::Verdict;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

/// How many cases each property is tried on. Each is a whole run over sockets and files.
const RUNS: u32 = 40;

const PENDING: &[&str] = &["CALL-1", "CALL-2", "CALL-3", "CALL-4", "CALL-5"];
const ONCE: &[&str] = &["TURN-1", "TURN-2", "TURN-4", "TURN-7", "TURN-8"];
const DURABLE: &[&str] = &["MARK-1", "MARK-3", "MARK-4", "ROLL-1", "ROLL-2", "ROLL-4"];

/// A stream, where it is cut, and how the user behaves there.
#[derive(Debug, Clone)]
struct CutStream {
    parts: Vec<ReplyPart>,
    /// Where the stream is cut, as fractions of its events and of the event's bytes.
    event: f64,
    byte: Option<f64>,
    /// Whether a second interrupt follows at once.
    twice: bool,
}

fn part(number: usize) -> impl Strategy<Value = ReplyPart> {
    let call = format!("call_{number}");
    let (shell, custom) = (call.clone(), call);
    let command = prop_oneof![
        Just("sleep 60"),
        Just("echo first light"),
        Just("echo one; sleep 60")
    ];
    prop_oneof![
        ("[ -~é😀]{1,40}", 1usize..6).prop_map(|(text, chunks)| {
            let chunks = chunks.min(text.chars().count());
            ReplyPart::Text { text, chunks }
        }),
        ("[a-z ]{1,20}", 1usize..3).prop_map(|(text, chunks)| {
            let chunks = chunks.min(text.chars().count());
            ReplyPart::Reasoning { text, chunks }
        }),
        (command.clone(), 1usize..5).prop_map(move |(command, chunks)| ReplyPart::Shell {
            call: shell.clone(),
            command: command.to_owned(),
            chunks,
        }),
        (command, 1usize..5).prop_map(move |(command, chunks)| ReplyPart::Custom {
            call: custom.clone(),
            name: "run_script".to_owned(),
            input: command.to_owned(),
            chunks,
        }),
    ]
}

fn cut_stream() -> impl Strategy<Value = CutStream> {
    let parts = prop_oneof![
        part(1).prop_map(|part| vec![part]),
        (part(1), part(2)).prop_map(|(first, second)| vec![first, second]),
        (part(1), part(2), part(3)).prop_map(|(first, second, third)| vec![first, second, third]),
    ];
    let share = 0.0..1.0f64;
    (
        parts,
        share.clone(),
        proptest::option::of(share),
        any::<bool>(),
    )
        .prop_map(|(parts, event, byte, twice)| CutStream {
            parts,
            event,
            byte,
            twice,
        })
}

impl CutStream {
    fn cut(&self) -> CutPoint {
        let request = br#"{"tools":[{"type":"function","name":"shell"}]}"#;
        let request = ResponsesRequest::parse(request).unwrap();
        let plan =
            plan::compose(&self.parts, &ReplyEnd::Completed, "resp_1", &request, false).unwrap();
        // The terminal event is left out: after it the turn may legally be over.
        let pick = |share: f64, count: usize| (share * count as f64) as usize;
        let event = 1 + pick(self.event, plan.frames.len() - 1);
        match self.byte {
            None => CutPoint::StreamEvent { reply: 1, event },
            Some(share) => {
                let size = plan.frames[event - 1].bytes.len();
                CutPoint::Byte {
                    reply: 1,
                    event,
                    byte: 1 + pick(share, size - 1),
                }
            }
        }
    }

    fn plan(&self) -> Planned {
        let reply = |parts: Vec<ReplyPart>| Reply {
            body: ReplyBody::Stream {
                parts,
                end: ReplyEnd::Completed,
            },
            lenient: false,
            span: Span::default(),
        };
        let text = || {
            reply(vec![ReplyPart::Text {
                text: "Stopped.".to_owned(),
                chunks: 1,
            }])
        };
        let step = |at, action| Step {
            yields: None,
            at,
            action,
            span: Span::default(),
        };
        let user = |text: &str| {
            step(
                None,
                Action::User {
                    text: text.to_owned(),
                    id: None,
                    refused: false,
                },
            )
        };
        let mut steps = vec![
            user("go"),
            step(Some(self.cut()), Action::Interrupt { id: None }),
        ];
        if self.twice {
            steps.push(step(None, Action::Interrupt { id: None }));
        }
        steps.extend([
            step(None, Action::Await(Await::TurnEnded)),
            user("and now?"),
            step(None, Action::Await(Await::TurnEnded)),
        ]);
        let scenario = Scenario {
            name: "generated".to_owned(),
            limit: Some(Duration::from_secs(5)),
            model: ModelScript {
                side_conversations: Vec::new(),
                name: None,
                substitute_tools: false,
                recording: None,
                replies: vec![reply(self.parts.clone()), text()],
            },
            steps,
            ..Scenario::default()
        };
        Planned {
            scenario,
            file: "generated.kdl".to_owned(),
        }
    }
}

/// Runs cases until one violates one of the rules. Returns it (the smallest one, if `shrink`) and what it
/// violated.
fn search(defects: &[Defect], rules: &[&str], shrink: bool) -> Option<(CutStream, String)> {
    let runtime = common::runtime();
    let driver = Arc::new(ReferenceDriver::new(defects.to_vec()));
    let bench = runtime.block_on(common::Bench::new(driver));
    let defaults = Config::default();
    let max_shrink_iters = if shrink { defaults.max_shrink_iters } else { 0 };
    let config = Config {
        cases: RUNS,
        max_shrink_iters,
        failure_persistence: None,
        ..defaults
    };
    let found = TestRunner::new(config).run(&cut_stream(), |stream| {
        let case = runtime.block_on(bench.run(&stream.plan()));
        match complaint(&case, rules) {
            None => Ok(()),
            Some(complaint) => Err(TestCaseError::fail(complaint)),
        }
    });
    match found {
        Ok(()) => None,
        Err(TestError::Fail(why, stream)) => Some((stream, why.message().to_owned())),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

fn complaint(case: &CaseResult, rules: &[&str]) -> Option<String> {
    let broken = |rule: &&&str| {
        case.verdicts.iter().any(|verdict| {
            verdict.rule == ***rule
                && matches!(
                    verdict.verdict,
                    Verdict::Fail { .. } | Verdict::Unknown { .. }
                )
        })
    };
    let broken: Vec<&str> = rules.iter().filter(broken).copied().collect();
    (!broken.is_empty()).then(|| format!("{}\n{}", broken.join(" "), common::complaints(case)))
}

/// The correct agent keeps the rules; an agent with a defect is caught by the rule that it breaks.
fn holds(rules: &[&str], defects: &[(Defect, &str)]) {
    if let Some((stream, why)) = search(&[], rules, true) {
        panic!("the correct agent breaks {why}\nwith {stream:#?}");
    }
    for (defect, rule) in defects {
        let (_, why) = search(&[*defect], rules, false)
            .unwrap_or_else(|| panic!("{RUNS} cases don't show the defect {}", defect.name()));
        let broken = why.lines().next().unwrap_or_default();
        assert!(
            broken.split(' ').any(|found| found == *rule),
            "{} broke {why}",
            defect.name()
        );
    }
}

#[test]
fn every_pending_call_gets_an_output() {
    holds(
        PENDING,
        &[
            (Defect::ForgetOutput, "CALL-1"),
            (Defect::HalfCallInvented, "CALL-5"),
        ],
    );
}

#[test]
fn turn_aborted_is_sent_exactly_once() {
    holds(
        ONCE,
        &[
            (Defect::TerminalTwice, "TURN-1"),
            (Defect::AbortTwice, "TURN-7"),
        ],
    );
}

#[test]
fn the_marker_is_durable_before_the_event() {
    holds(
        DURABLE,
        &[
            (Defect::MarkerAfterEvent, "MARK-1"),
            (Defect::RewritesRollout, "ROLL-2"),
        ],
    );
}
