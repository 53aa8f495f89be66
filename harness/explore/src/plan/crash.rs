//! Crashes: what each can leave of a rollout, and a second one while the session is resumed.

use cutpoint_scenario::ast::Scenario;
use serde::{Deserialize, Serialize};

use super::{PassedPoint, passed_points};
use crate::executor::{Executor, RolloutWrite, RunResult};
use crate::schedule::{Schedule, ScheduledAct};

/// The point right after each write to a rollout, and the one right after each sync.
const WRITTEN: &str = "store.written";
const SYNCED: &str = "store.synced";
/// A session passes this point once it has started: it takes no input before.
const UP: &str = "submission.taken";

/// What a crash takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CrashLevel {
    /// The process: everything that was written is left.
    L0,
    /// The power: only what was synced is left.
    L1,
    /// The end of the last line that was written.
    #[serde(rename = "torn")]
    Torn,
}

impl CrashLevel {
    /// Its name and meaning.
    pub const fn description(self) -> &'static str {
        match self {
            Self::L0 => "L0 (the process dies, all that was written is left)",
            Self::L1 => "L1 (the power fails, only what was synced is left)",
            Self::Torn => "torn (the last line that was written lacks its end)",
        }
    }

    /// Its name in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::L0 => "L0",
            Self::L1 => "L1",
            Self::Torn => "torn",
        }
    }
}

/// How the crashes of one level went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrashTally {
    /// How many were run.
    pub ran: usize,
    /// How many of them violated a rule.
    pub failed: usize,
}

/// The crashes of a scenario: single ones, then those with a second one while the session is
/// resumed. Each comes first with everything that was written, then with what was synced, then with
/// the last line torn.
pub(super) fn plan(
    executor: &dyn Executor,
    scenario: &Scenario,
    plain: &RunResult,
) -> Vec<(CrashLevel, Schedule)> {
    let all = passed_points(&plain.points);
    let mut planned = images(&Schedule::default(), &all, 0, plain);
    let first = planned.clone();
    for (level, schedule) in first {
        if level == CrashLevel::Torn {
            continue;
        }
        let result = executor.run(&schedule.applied_to(scenario).scenario);
        if result.error.is_none() {
            planned.extend(second_crashes(&schedule, level, &result));
        }
    }
    // The sort is stable: equal ones stay in the order of their points.
    planned.sort_by_key(|(level, schedule)| (schedule.acts.len(), *level));
    planned
}

/// The same crash with a second one right after every write and sync of the resumed session, until
/// that has started.
fn second_crashes(
    first: &Schedule,
    level: CrashLevel,
    result: &RunResult,
) -> Vec<(CrashLevel, Schedule)> {
    let all = passed_points(&result.points);
    let crash = &first.acts[0];
    let Some(killed) = all.iter().position(|point| point.is_of(crash)) else {
        return Vec::new();
    };
    let up = all[killed..].iter().position(|point| point.label == UP);
    let until = up.map_or(all.len(), |up| killed + up);
    // A process that dies leaves what it had not synced: only a power failure takes that.
    let unsynced_bytes = match level {
        CrashLevel::L0 => unsynced(&all[..=killed], result),
        CrashLevel::L1 | CrashLevel::Torn => 0,
    };
    images(first, &all[killed + 1..until], unsynced_bytes, result)
}

fn unsynced(points: &[PassedPoint], result: &RunResult) -> usize {
    points.iter().fold(0, |bytes, point| match point.label {
        WRITTEN => bytes + write(result, point.nth).bytes,
        SYNCED if synced(result, point.nth) => 0,
        _ => bytes,
    })
}

fn write(result: &RunResult, nth: usize) -> RolloutWrite {
    result.writes.get(nth - 1).copied().unwrap_or_default()
}

fn synced(result: &RunResult, nth: usize) -> bool {
    result.syncs.get(nth - 1).is_some_and(|own| *own)
}

/// A crash right after every write and sync, with each image that it can leave.
fn images(
    before: &Schedule,
    points: &[PassedPoint],
    mut unsynced_bytes: usize,
    result: &RunResult,
) -> Vec<(CrashLevel, Schedule)> {
    let crash = |point: PassedPoint, lost_bytes| {
        let mut schedule = before.clone();
        let crash = ScheduledAct::crash(point.label, point.nth, lost_bytes);
        schedule.acts.push(crash);
        schedule
    };
    let mut found = Vec::new();
    for point in points {
        match point.label {
            WRITTEN => {
                let write = write(result, point.nth);
                unsynced_bytes += write.bytes;
                let line = write.last_line_bytes.min(unsynced_bytes);
                found.extend((1..line).map(|lost| (CrashLevel::Torn, crash(*point, lost))));
                if unsynced_bytes > 0 {
                    found.push((CrashLevel::L1, crash(*point, unsynced_bytes)));
                }
            }
            SYNCED if synced(result, point.nth) => unsynced_bytes = 0,
            SYNCED => {}
            _ => continue,
        }
        found.push((CrashLevel::L0, crash(*point, 0)));
    }
    found.sort_by_key(|(level, _)| *level);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITES: [RolloutWrite; 5] = [
        bytes(9, 3),
        bytes(5, 2),
        bytes(4, 4),
        bytes(2, 2),
        bytes(7, 7),
    ];

    const fn bytes(bytes: usize, last_line_bytes: usize) -> RolloutWrite {
        RolloutWrite {
            bytes,
            last_line_bytes,
        }
    }

    /// An agent that writes three times, and once more when it is resumed.
    struct Writer;

    impl Executor for Writer {
        fn run(&self, scenario: &Scenario) -> RunResult {
            let text = scenario.to_string();
            let plain = ["request.send", WRITTEN, WRITTEN, SYNCED, WRITTEN];
            let resumed = [WRITTEN, SYNCED, UP, WRITTEN];
            let killed = [WRITTEN, WRITTEN, SYNCED, WRITTEN].iter().enumerate();
            let mut nth = 0;
            let mut cut = plain.len();
            for (at, label) in killed {
                nth += usize::from(*label == WRITTEN);
                let of = if *label == WRITTEN { nth } else { 1 };
                let number = if of == 1 {
                    String::new()
                } else {
                    format!(" {of}")
                };
                if text.contains(&format!("kill at=\"point {label}{number}\"")) {
                    cut = cut.min(at + 2);
                }
            }
            let mut points = plain[..cut].to_vec();
            if text.contains("kill ") {
                points.extend(resumed);
            }
            RunResult {
                points,
                writes: WRITES.to_vec(),
                syncs: vec![true; 3],
                ..RunResult::default()
            }
        }
    }

    fn planned() -> Vec<String> {
        let text = "scenario \"s\" {\n    model { reply { text \"Hello\" } }\n    user \"hi\"\n    await turn-ended\n}\n";
        let scenario = cutpoint_scenario::parse("s.kdl", text).unwrap();
        let scenario = &scenario.scenarios[0];
        let planned = plan(&Writer, scenario, &Writer.run(scenario));
        let words =
            |(level, schedule): &(CrashLevel, Schedule)| format!("{} {schedule}", level.name());
        planned.iter().map(words).collect()
    }

    #[test]
    fn a_crash_leaves_what_was_written_or_synced_or_a_torn_line() {
        let single = [
            "L0 crash@store.written.1+0",
            "L0 crash@store.written.2+0",
            "L0 crash@store.synced.1+0",
            "L0 crash@store.written.3+0",
            "L1 crash@store.written.1+0-9",
            "L1 crash@store.written.2+0-14",
            "L1 crash@store.written.3+0-4",
            "torn crash@store.written.1+0-1",
            "torn crash@store.written.1+0-2",
            "torn crash@store.written.2+0-1",
            "torn crash@store.written.3+0-1",
            "torn crash@store.written.3+0-2",
            "torn crash@store.written.3+0-3",
        ];
        assert_eq!(planned()[..single.len()], single);
    }

    #[test]
    fn a_second_crash_comes_while_the_session_is_resumed_and_not_later() {
        let planned = planned();
        let after = |first: &str| -> Vec<&str> {
            let all = planned.iter().map(String::as_str);
            all.filter(|it| it.contains(&format!("{first},"))).collect()
        };
        // Only a power failure takes what the dead process had written.
        assert_eq!(
            after("crash@store.written.1+0"),
            [
                "L0 crash@store.written.1+0,crash@store.written.2+0",
                "L0 crash@store.written.1+0,crash@store.synced.1+0",
                "L1 crash@store.written.1+0,crash@store.written.2+0-14",
                "torn crash@store.written.1+0,crash@store.written.2+0-1",
            ]
        );
        // The first crash left nothing unsynced.
        assert_eq!(
            after("crash@store.written.1+0-9"),
            [
                "L0 crash@store.written.1+0-9,crash@store.written.2+0",
                "L0 crash@store.written.1+0-9,crash@store.synced.1+0",
                "L1 crash@store.written.1+0-9,crash@store.written.2+0-5",
                "torn crash@store.written.1+0-9,crash@store.written.2+0-1",
            ]
        );
    }
}
