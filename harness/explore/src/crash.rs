//! Crashes: what each of them can leave of a rollout, and a second one while the session is resumed.

use std::collections::BTreeMap;

use cutpoint_scenario::ast::Scenario;
use serde::{Deserialize, Serialize};

use crate::executor::{Executor, Observed, Write};
use crate::schedule::{Act, Injection, Schedule};
use crate::sweep::{Anchor, anchors};

/// The point behind each write to a rollout, and the one behind each sync.
const WRITTEN: &str = "store.written";
const SYNCED: &str = "store.synced";
/// A session passes it when it has started: not before does it take what the user says.
const UP: &str = "submission.taken";

/// What a crash takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    /// The process: all that was written is left.
    L0,
    /// The power: what was synced is left.
    L1,
    /// The end of the last line that was written.
    #[serde(rename = "torn")]
    Torn,
}

impl Level {
    /// What it is called, and what it means.
    pub const fn in_words(self) -> &'static str {
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

/// How the schedules of one level went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// How many were run.
    pub ran: usize,
    /// In how many of them something was broken.
    pub broken: usize,
}

/// The crashes of a scenario: single ones, then those in which a second one comes while the session
/// is resumed. Each time first with all that was written, then with what was synced, then with the
/// last line torn.
pub(crate) fn plan(
    executor: &dyn Executor,
    scenario: &Scenario,
    plain: &Observed,
) -> Vec<(Level, Schedule)> {
    let all = anchors(&plain.passed);
    let mut planned = images(&Schedule::default(), &all, 0, plain);
    let first = planned.clone();
    for (level, schedule) in first {
        if level == Level::Torn {
            continue;
        }
        let observed = executor.run(&schedule.applied_to(scenario));
        if observed.trouble.is_none() {
            planned.extend(again(&schedule, level, &observed));
        }
    }
    // The sort is stable: what is equal stays in the order of its points.
    planned.sort_by_key(|(level, schedule)| (schedule.injections.len(), *level));
    planned
}

/// The same crash with another one behind every write and sync of the session that goes on from it,
/// until that has started.
fn again(first: &Schedule, level: Level, observed: &Observed) -> Vec<(Level, Schedule)> {
    let all = anchors(&observed.passed);
    let crash = &first.injections[0];
    let is_crash = |anchor: &Anchor| anchor.0 == crash.label && anchor.1 == crash.nth;
    let Some(killed) = all.iter().position(is_crash) else {
        return Vec::new();
    };
    let up = all[killed..].iter().position(|(label, _)| *label == UP);
    let until = up.map_or(all.len(), |up| killed + up);
    // A process that dies leaves unsynced what was: only a power failure takes it.
    let unsynced_bytes = match level {
        Level::L0 => unsynced(&all[..=killed], observed),
        Level::L1 | Level::Torn => 0,
    };
    images(first, &all[killed + 1..until], unsynced_bytes, observed)
}

fn unsynced(anchors: &[Anchor], observed: &Observed) -> usize {
    anchors.iter().fold(0, |bytes, (label, nth)| match *label {
        WRITTEN => bytes + write(observed, *nth).bytes,
        SYNCED if synced(observed, *nth) => 0,
        _ => bytes,
    })
}

fn write(observed: &Observed, nth: usize) -> Write {
    observed.writes.get(nth - 1).copied().unwrap_or_default()
}

fn synced(observed: &Observed, nth: usize) -> bool {
    observed.syncs.get(nth - 1).is_some_and(|own| *own)
}

/// A crash behind every write and sync, with each image that it can leave.
fn images(
    before: &Schedule,
    anchors: &[Anchor],
    mut unsynced_bytes: usize,
    observed: &Observed,
) -> Vec<(Level, Schedule)> {
    let crash = |(label, nth): Anchor, lost_bytes| {
        let mut schedule = before.clone();
        schedule.injections.push(Injection {
            yields: 0,
            act: Act::Crash,
            label: label.to_owned(),
            nth,
            lost_bytes,
        });
        schedule
    };
    let mut found = Vec::new();
    for anchor in anchors {
        match anchor.0 {
            WRITTEN => {
                let write = write(observed, anchor.1);
                unsynced_bytes += write.bytes;
                let line = write.last_line_bytes.min(unsynced_bytes);
                found.extend((1..line).map(|lost| (Level::Torn, crash(*anchor, lost))));
                if unsynced_bytes > 0 {
                    found.push((Level::L1, crash(*anchor, unsynced_bytes)));
                }
            }
            SYNCED if synced(observed, anchor.1) => unsynced_bytes = 0,
            SYNCED => {}
            _ => continue,
        }
        found.push((Level::L0, crash(*anchor, 0)));
    }
    found.sort_by_key(|(level, _)| *level);
    found
}

/// Which level each schedule belongs to, and how those of each level went.
#[derive(Debug, Default)]
pub(crate) struct Levels {
    of: BTreeMap<Schedule, Level>,
    tallies: BTreeMap<Level, Tally>,
}

impl Levels {
    /// Keeps the levels of these, and gives the schedules.
    pub(crate) fn note(&mut self, planned: Vec<(Level, Schedule)>) -> Vec<Schedule> {
        let schedules = planned.iter().map(|(_, schedule)| schedule.clone());
        let schedules = schedules.collect();
        let by_schedule = planned.into_iter();
        self.of = by_schedule.map(|(level, it)| (it, level)).collect();
        schedules
    }

    pub(crate) fn count(&mut self, schedule: &Schedule, observed: &Observed) {
        let Some(level) = self.of.get(schedule) else {
            return;
        };
        let tally = self.tallies.entry(*level).or_default();
        tally.ran += 1;
        tally.broken += usize::from(!observed.broken.is_empty());
    }

    pub(crate) fn tallies(self) -> BTreeMap<Level, Tally> {
        self.tallies
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITES: [Write; 5] = [
        bytes(9, 3),
        bytes(5, 2),
        bytes(4, 4),
        bytes(2, 2),
        bytes(7, 7),
    ];

    const fn bytes(bytes: usize, last_line_bytes: usize) -> Write {
        Write {
            bytes,
            last_line_bytes,
        }
    }

    /// An agent that writes three times, and once more when it is resumed.
    struct Writes;

    impl Executor for Writes {
        fn run(&self, scenario: &Scenario) -> Observed {
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
            let mut passed = plain[..cut].to_vec();
            if text.contains("kill ") {
                passed.extend(resumed);
            }
            Observed {
                passed,
                writes: WRITES.to_vec(),
                syncs: vec![true; 3],
                ..Observed::default()
            }
        }
    }

    fn planned() -> Vec<String> {
        let text = "scenario \"s\" {\n    model { reply { text \"Hello\" } }\n    user \"hi\"\n    await turn-ended\n}\n";
        let scenario = cutpoint_scenario::parse("s.kdl", text).unwrap();
        let scenario = &scenario.scenarios[0];
        let planned = plan(&Writes, scenario, &Writes.run(scenario));
        let words = |(level, schedule): &(Level, Schedule)| {
            let acts = schedule.injections.iter().map(ToString::to_string);
            let acts: Vec<String> = acts.collect();
            format!("{} {}", level.name(), acts.join(","))
        };
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
        let behind = |first: &str| -> Vec<&str> {
            let all = planned.iter().map(String::as_str);
            all.filter(|it| it.contains(&format!("{first},"))).collect()
        };
        // What the dead process had written is lost only with the power.
        assert_eq!(
            behind("crash@store.written.1+0"),
            [
                "L0 crash@store.written.1+0,crash@store.written.2+0",
                "L0 crash@store.written.1+0,crash@store.synced.1+0",
                "L1 crash@store.written.1+0,crash@store.written.2+0-14",
                "torn crash@store.written.1+0,crash@store.written.2+0-1",
            ]
        );
        // Nothing unsynced was left of the first crash.
        assert_eq!(
            behind("crash@store.written.1+0-9"),
            [
                "L0 crash@store.written.1+0-9,crash@store.written.2+0",
                "L0 crash@store.written.1+0-9,crash@store.synced.1+0",
                "L1 crash@store.written.1+0-9,crash@store.written.2+0-5",
                "torn crash@store.written.1+0-9,crash@store.written.2+0-1",
            ]
        );
    }
}
