//! The scenarios on the real Codex, where it is installed (`scripts/install-codex 0.169.0`).
//!
//! A breach of Codex is a finding, not a bug of this project: each known one stands below with its
//! reason, and is described in `docs/findings/`. The suite fails on a breach that is not known, and
//! on a known one that no longer happens.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cutpoint_check::file::Checker;
use cutpoint_engine::driver::agent_kind::{AgentSpec, LaunchContext};
use cutpoint_engine::driver::codex_app_server;
use cutpoint_engine::driver::{Driver, START_LIMIT};
use cutpoint_engine::process::{ProcessOwner, find};
use cutpoint_engine::required_capabilities;
use cutpoint_engine::runner::Planned;
use cutpoint_trace::Observation;
use cutpoint_trace::case::{CaseResult, CaseStatus};
use libtest_mimic::{Arguments, Failed, Trial};

/// How long a process may take to be gone once it was killed.
const GONE_LIMIT: Duration = Duration::from_secs(5);
/// The version that the findings below are of.
const VERSION: &str = "0.169.0";

/// A known breach.
struct Known {
    /// The scenario's file.
    file: &'static str,
    /// What is broken: rule ids, `unmet` for an expectation.
    broken: &'static [&'static str],
    /// Whether every run shows it. A race of Codex's own shows only in some.
    always: bool,
}

const KNOWN: &[Known] = &[
    // docs/findings/codex-0.169.0.md#an-interrupt-right-after-the-acknowledgement-is-refused
    Known {
        file: "scenarios/turns/behind-the-acknowledgement.kdl",
        broken: &["TURN-2", "TURN-8", "unmet"],
        always: false,
    },
    // docs/findings/codex-0.169.0.md#a-steer-is-lost-with-the-interrupt
    Known {
        file: "scenarios/approvals/answered-twice.kdl",
        broken: &["REQ-5"],
        always: true,
    },
    // docs/findings/codex-0.169.0.md#a-turn-cut-by-a-crash-never-ends-in-the-rollout
    Known {
        file: "scenarios/resume/killed-in-mid-sentence.kdl",
        broken: &["ROLL-4"],
        always: true,
    },
    Known {
        file: "scenarios/resume/torn.kdl",
        broken: &["ROLL-4"],
        always: true,
    },
    // docs/findings/codex-0.169.0.md#the-answer-for-a-cut-call-is-never-written
    Known {
        file: "scenarios/history/forked-in-mid-turn.kdl",
        broken: &["ROLL-5"],
        always: true,
    },
    Known {
        file: "scenarios/resume/killed-while-a-tool-runs.kdl",
        broken: &["ROLL-4", "ROLL-5"],
        always: true,
    },
    // docs/findings/codex-0.169.0.md#a-refusal-that-names-a-call-ends-the-turn
    Known {
        file: "scenarios/history/named-call.kdl",
        broken: &["CALL-7", "unmet"],
        always: true,
    },
    Known {
        file: "scenarios/history/named-twice.kdl",
        broken: &["CALL-7"],
        always: true,
    },
    Known {
        file: "scenarios/history/named-custom-call.kdl",
        broken: &["CALL-7", "unmet"],
        always: true,
    },
    Known {
        file: "scenarios/history/recovery-and-retries.kdl",
        broken: &["CALL-7"],
        always: true,
    },
    // docs/findings/codex-0.169.0.md#text-on-the-screen-is-unknown-to-the-model
    Known {
        file: "scenarios/recorded/bare-capture.kdl",
        broken: &["VIEW-3"],
        always: true,
    },
    Known {
        file: "scenarios/history/forked-in-mid-sentence.kdl",
        broken: &["VIEW-3"],
        always: true,
    },
    Known {
        file: "scenarios/streams/first-delta.kdl",
        broken: &["VIEW-3"],
        always: true,
    },
    Known {
        file: "scenarios/streams/inside-an-event.kdl",
        broken: &["VIEW-3"],
        always: true,
    },
    Known {
        file: "scenarios/streams/last-delta.kdl",
        broken: &["VIEW-3"],
        always: true,
    },
    Known {
        file: "scenarios/streams/middle-delta.kdl",
        broken: &["VIEW-3"],
        always: true,
    },
    // The message's last event races the interrupt here.
    Known {
        file: "scenarios/streams/stalled-stream.kdl",
        broken: &["VIEW-3"],
        always: false,
    },
    Known {
        file: "scenarios/streams/stream-closed.kdl",
        broken: &["VIEW-3"],
        always: true,
    },
    Known {
        file: "scenarios/turns/twice-in-a-row.kdl",
        broken: &["VIEW-3"],
        always: true,
    },
    // docs/findings/codex-0.169.0.md#the-end-of-a-cut-command-is-reported-for-a-turn-that-has-ended
    Known {
        file: "scenarios/tools/cut-command-ends-later.kdl",
        broken: &["TURN-4"],
        always: true,
    },
    // docs/findings/codex-0.169.0.md#a-finished-command-is-reported-as-aborted
    Known {
        file: "scenarios/tools/two-calls-one-finished.kdl",
        broken: &["unmet"],
        always: false,
    },
    // docs/findings/codex-0.169.0.md#a-turn-does-not-end-when-the-client-leaves
    Known {
        file: "scenarios/tools/shut-down.kdl",
        broken: &["TURN-1", "unmet"],
        always: true,
    },
    // docs/findings/codex-0.169.0.md#a-review-has-two-ids-and-the-returned-one-does-not-stop-it
    Known {
        file: "scenarios/sub-agents/review.kdl",
        broken: &["TURN-1", "TURN-8", "ROLL-4"],
        always: true,
    },
    Known {
        file: "scenarios/sub-agents/review-waits.kdl",
        broken: &["TURN-1", "TURN-6", "TURN-8", "ROLL-4", "unmet"],
        always: true,
    },
    // docs/findings/codex-0.169.0.md#commands-outlive-the-interrupt
    Known {
        file: "scenarios/tools/no-process-left.kdl",
        broken: &["unmet"],
        always: true,
    },
    Known {
        file: "scenarios/tools/stubborn-command.kdl",
        broken: &["unmet"],
        always: true,
    },
];

/// What `cutpoint check` says of the rollouts, by scenario: the rules that a file alone shows to be broken.
/// See docs/findings/codex-0.169.0.md#what-a-rollout-alone-shows
const IN_FILES: &[(&str, &[&str])] = &[
    ("scenarios/resume/killed-in-mid-sentence.kdl", &["ROLL-4"]),
    (
        "scenarios/resume/killed-while-a-tool-runs.kdl",
        &["CALL-1", "ROLL-4"],
    ),
    // The tear is the scenario's own; Codex leaves it in place.
    ("scenarios/resume/torn.kdl", &["ROLL-1"]),
    ("scenarios/sub-agents/review.kdl", &["ROLL-4"]),
    ("scenarios/sub-agents/review-waits.kdl", &["ROLL-4"]),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if codex_app_server::program_of(VERSION).is_none() {
        let name = format!("codex {VERSION} is not installed; run scripts/install-codex {VERSION}");
        let skipped = Trial::test(name, || Ok(())).with_ignored_flag(true);
        return libtest_mimic::run(&arguments, vec![skipped]).exit_code();
    }
    let mark = format!("real-codex-tests-{}", std::process::id());
    let runtime = Arc::new(runtime());
    let homes = tempfile::tempdir().unwrap();
    let context = LaunchContext {
        mark: mark.clone(),
        start_limit: START_LIMIT,
        dir: homes.path().to_owned(),
        cutpoint: PathBuf::from(env!("CARGO_BIN_EXE_cutpoint")),
        defects: Vec::new(),
    };
    let agent: AgentSpec = format!("codex@{VERSION}").parse().unwrap();
    let driver: Arc<dyn Driver> = match runtime.block_on(agent.driver(&context)) {
        Ok(driver) => driver,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let bench = Arc::new(runtime.block_on(common::Bench::new(driver.clone())));
    let mut trials: Vec<Trial> = common::scenarios()
        .into_iter()
        .map(|planned| {
            let (runtime, bench) = (runtime.clone(), bench.clone());
            let name = format!(
                "codex-{VERSION}::{}::{}",
                planned.file, planned.scenario.name
            );
            let applies = driver
                .lacks(&required_capabilities::of(&planned.scenario))
                .is_none();
            let run = move || {
                let case = runtime.block_on(bench.run(&planned));
                as_known(&planned, &case)?;
                files_as_known(&planned, &case)
            };
            // What Codex cannot do is no test of it: it counts as ignored, not as passed.
            Trial::test(name, run).with_ignored_flag(!applies)
        })
        .collect();
    let version = driver.info(&BTreeSet::new()).version;
    trials.push(Trial::test(
        "the installed version is the one that was asked for",
        move || {
            if version == VERSION {
                Ok(())
            } else {
                Err(version.into())
            }
        },
    ));
    let conclusion = libtest_mimic::run(&arguments, trials);
    runtime.block_on(driver.close());
    if nothing_left(&mark) {
        conclusion.exit_code()
    } else {
        ExitCode::FAILURE
    }
}

/// Tests run on threads of their own and share one Codex process, so its runtime has its own too.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

fn as_known(planned: &Planned, case: &CaseResult) -> Result<(), Failed> {
    let mut found: Vec<&str> = common::broken(case);
    if !case.unmet.is_empty() {
        found.push("unmet");
    }
    let known = KNOWN.iter().find(|known| known.file == planned.file);
    let expected = known.map_or(&[][..], |known| known.broken);
    match case.status(true) {
        CaseStatus::Conforms | CaseStatus::Breach if found == expected => Ok(()),
        CaseStatus::Conforms if known.is_some_and(|known| !known.always) => Ok(()),
        _ => {
            let complaints = common::complaints(case);
            Err(format!("broken: {found:?}, known: {expected:?}\n{complaints}").into())
        }
    }
}

/// The rollouts of a case, judged as files.
fn files_as_known(planned: &Planned, case: &CaseResult) -> Result<(), Failed> {
    let findings: Vec<_> = rollouts(case)
        .values()
        .flat_map(|content| {
            let mut checker = Checker::default();
            let mut byte = 0;
            for line in content.split_inclusive(|byte| *byte == b'\n') {
                match line.strip_suffix(b"\n") {
                    Some(line) => checker.line(line, byte),
                    None => checker.tail(line, byte),
                }
                byte += line.len() as u64;
            }
            checker.finish().0
        })
        .collect();
    let found: BTreeSet<&str> = findings.iter().map(|finding| finding.rule).collect();
    let known = IN_FILES.iter().find(|(file, _)| *file == planned.file);
    let expected: BTreeSet<&str> = known
        .map_or(&[][..], |(_, rules)| *rules)
        .iter()
        .copied()
        .collect();
    if found == expected {
        return Ok(());
    }
    Err(format!("in its files: {findings:#?}, known: {expected:?}").into())
}

/// The rollouts that a case left, by path.
fn rollouts(case: &CaseResult) -> BTreeMap<&str, Vec<u8>> {
    let mut files: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    for entry in &case.trace.entries {
        if let Observation::Rollout {
            path, from, text, ..
        } = &entry.observation
        {
            let content = files.entry(path).or_default();
            content.truncate(usize::try_from(*from).unwrap());
            content.extend_from_slice(text.as_bytes());
        }
    }
    files
}

/// When all is over, nothing that was started is alive.
fn nothing_left(mark: &str) -> bool {
    // What was killed takes a moment to be gone.
    let deadline = Instant::now() + GONE_LIMIT;
    let mut left = find(&ProcessOwner::Run(mark.to_owned()));
    while !left.is_empty() && Instant::now() < deadline {
        std::thread::yield_now();
        left = find(&ProcessOwner::Run(mark.to_owned()));
    }
    for process in &left {
        eprintln!("still alive: {} {}", process.pid, process.command);
    }
    left.is_empty()
}
