//! What sweeps have shown, as a file: of a whole bound, or of one part of it. The results of all parts,
//! put together, are those of a sweep that was never cut, byte for byte.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::crash::{Level, Tally};
use crate::executor::Broken;
use crate::schedule::{Schedule, Token};
use crate::shard::{NotWhole, Shard, whole};
use crate::sweep::{Class, Sweep, Trouble};

/// The name that stands in every file of sweeps.
pub const FORMAT: &str = "cutpoint-sweep";
/// The version of the format that this build writes, and the only one it reads.
pub const VERSION: u32 = 2;

/// What sweeps have shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Always [`FORMAT`].
    pub format: String,
    /// The format's version.
    pub version: u32,
    /// What was swept, and how: the same in each part.
    #[serde(flatten)]
    pub asked: Asked,
    /// Which part of it.
    pub shard: Shard,
    /// Whether the user stopped it before all of the part had run.
    pub interrupted: bool,
    /// The scenarios, in the order in which they were swept.
    pub sweeps: Vec<StoredSweep>,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The version of cutpoint, and so of the rules.
    pub cutpoint: String,
    /// The agent.
    pub agent: String,
    /// Its planted defects that were switched on.
    pub defects: Vec<String>,
    /// The seed of everything random.
    pub seed: u64,
    /// Whether breaches of SHOULD rules counted.
    pub strict: bool,
    /// Which schedules were run, in words.
    pub bound: String,
    /// What is known of the rollout on stable storage, and by which method, in words.
    pub durability: String,
}

/// What the sweep of one scenario has shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSweep {
    /// The scenario's file, as the user named it.
    pub file: String,
    /// Its name.
    pub scenario: String,
    /// Its fingerprint.
    #[serde(with = "hex")]
    pub fingerprint: u64,
    /// The recording that it replays, if one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording: Option<String>,
    /// How often it passes a named point as it is.
    pub points: usize,
    /// How many schedules the bound holds, the scenario as it is among them.
    pub bound: usize,
    /// How many of them fall to this part.
    pub planned: usize,
    /// How many of those were run.
    pub ran: usize,
    /// How many different traces they gave.
    pub traces: usize,
    /// In how many the agent never came to a point at which something was to be done.
    pub missed: usize,
    /// How the crashes of each level went, where crashes were swept.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub levels: BTreeMap<Level, Tally>,
    /// Runs that say nothing of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
    /// How often each rule was put to the test.
    pub exercised: BTreeMap<String, usize>,
    /// The rules that no run put to the test: not shown to hold.
    pub not_shown: Vec<String>,
    /// What was broken, by the smallest schedule.
    pub failures: Vec<Failure>,
    /// The digests of the traces.
    pub digests: Digests,
}

/// Schedules that broke the same rules in the same way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What was broken.
    pub broken: Vec<Broken>,
    /// How many schedules did.
    pub schedules: usize,
    /// How many different traces they gave.
    pub traces: usize,
    /// The number of the smallest one in the whole bound; 0 is the scenario as it is.
    pub number: usize,
    /// What replays it.
    pub token: String,
    /// The digests of the traces.
    pub digests: Digests,
}

/// Digests of traces, in order: 16 hexadecimal digits each, with nothing between them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Digests(Vec<u64>);

/// The digits of a digest.
const DIGITS: usize = 16;

impl Digests {
    fn joined(&mut self, other: Self) {
        self.0.extend(other.0);
        self.0.sort_unstable();
        self.0.dedup();
    }
}

impl Serialize for Digests {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        use std::fmt::Write as _;
        let mut text = String::with_capacity(self.0.len() * DIGITS);
        for digest in &self.0 {
            // Writing into a string can't fail.
            let _ = write!(text, "{digest:016x}");
        }
        to.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Digests {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let read = |digits: &[u8]| {
            let text = std::str::from_utf8(digits).ok()?;
            u64::from_str_radix(text, 16)
                .ok()
                .filter(|_| digits.len() == DIGITS)
        };
        let digests: Option<Vec<u64>> = text.as_bytes().chunks(DIGITS).map(read).collect();
        let digests = digests.filter(|them| them.is_sorted());
        digests.map(Self).ok_or_else(|| {
            D::Error::custom("digests are 16 hexadecimal digits each, in order, without gaps")
        })
    }
}

/// A number of 64 bits as hexadecimal digits: not every reader of JSON has so many bits.
mod hex {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(number: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{number:016x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = String::deserialize(from)?;
        u64::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}

/// What a sweep was of.
#[derive(Debug, Clone)]
pub struct Swept {
    /// The scenario's file, as the user named it.
    pub file: String,
    /// Its name.
    pub scenario: String,
    /// Its fingerprint.
    pub fingerprint: u64,
    /// The recording that it replays, if one.
    pub recording: Option<String>,
    /// The seed of everything random.
    pub seed: u64,
}

impl StoredSweep {
    /// What a sweep has shown.
    pub fn new(swept: Swept, found: Sweep) -> Self {
        let (seed, scenario) = (swept.seed, swept.fingerprint);
        let token = |schedule: Schedule| Token {
            scenario,
            seed,
            schedule,
        };
        let failure = |class: Class| Failure {
            traces: class.traces(),
            broken: class.broken,
            schedules: class.schedules,
            number: class.number,
            token: token(class.schedule).to_string(),
            digests: Digests(class.digests),
        };
        Self {
            file: swept.file,
            scenario: swept.scenario,
            fingerprint: swept.fingerprint,
            recording: swept.recording,
            points: found.points,
            bound: found.bound,
            planned: found.planned,
            ran: found.ran,
            traces: found.traces(),
            missed: found.missed,
            trouble: found.trouble,
            not_shown: not_shown(&found.exercised),
            exercised: found.exercised,
            levels: found.levels,
            failures: found.classes.into_iter().map(failure).collect(),
            digests: Digests(found.digests),
        }
    }

    fn joined(&mut self, other: Self) {
        self.planned += other.planned;
        self.ran += other.ran;
        self.missed += other.missed;
        for (level, tally) in other.levels {
            let known = self.levels.entry(level).or_default();
            known.ran += tally.ran;
            known.broken += tally.broken;
        }
        self.digests.joined(other.digests);
        self.traces = self.digests.0.len();
        add(&mut self.exercised, &other.exercised);
        self.not_shown = not_shown(&self.exercised);
        self.trouble = match (self.trouble.take(), other.trouble) {
            (Some(one), Some(two)) => {
                let runs = one.runs + two.runs;
                let first = if two.number < one.number { two } else { one };
                Some(Trouble { runs, ..first })
            }
            (one, two) => one.or(two),
        };
        for failure in other.failures {
            let same = |known: &&mut Failure| known.broken == failure.broken;
            match self.failures.iter_mut().find(same) {
                Some(known) => known.joined(failure),
                None => self.failures.push(failure),
            }
        }
        self.failures.sort_by_key(|failure| failure.number);
    }
}

impl Failure {
    fn joined(&mut self, other: Self) {
        self.schedules += other.schedules;
        self.digests.joined(other.digests);
        self.traces = self.digests.0.len();
        if other.number < self.number {
            self.number = other.number;
            self.token = other.token;
        }
    }
}

/// Adds up how often rules were put to the test.
pub fn add(exercised: &mut BTreeMap<String, usize>, more: &BTreeMap<String, usize>) {
    for (rule, count) in more {
        *exercised.entry(rule.clone()).or_default() += count;
    }
}

/// The rules that nothing put to the test, in the order of the book.
pub fn not_shown(exercised: &BTreeMap<String, usize>) -> Vec<String> {
    let shown: BTreeSet<&str> = exercised.keys().map(String::as_str).collect();
    let book = cutpoint_check::rules().iter().map(|rule| rule.id());
    book.filter(|rule| !shown.contains(rule))
        .map(str::to_owned)
        .collect()
}

/// Why a file holds no sweeps that can be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is something else.
    #[error("these are no results of a sweep: {0}")]
    Form(#[from] serde_json::Error),
    /// Another version of the format.
    #[error("these results have format version {0}; this build reads version {VERSION}")]
    Version(u64),
}

/// What tells files of sweeps from others, and their versions apart.
#[derive(Deserialize)]
struct Label {
    format: String,
    version: u64,
}

impl Stored {
    /// Reads what a sweep has stored.
    ///
    /// # Errors
    /// If it is something else, or of another version.
    pub fn read(bytes: &[u8]) -> Result<Self, ReadError> {
        let label: Label = serde_json::from_slice(bytes)?;
        if label.format != FORMAT {
            let message = format!("its format is `{}`", label.format);
            return Err(serde_json::Error::custom(message).into());
        }
        if label.version != u64::from(VERSION) {
            return Err(ReadError::Version(label.version));
        }
        Ok(serde_json::from_slice(bytes)?)
    }

    /// Whether everything that falls to this part was run.
    pub fn is_complete(&self) -> bool {
        !self.interrupted && self.sweeps.iter().all(|sweep| sweep.ran == sweep.planned)
    }
}

/// Why results can't be put together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// They make up no whole.
    #[error(transparent)]
    NotWhole(#[from] NotWhole),
    /// They are no parts of the same sweep.
    #[error(
        "{one} and {other} are parts of different sweeps: {what} differs, {first} and {second}"
    )]
    Different {
        /// The first file.
        one: String,
        /// The other one.
        other: String,
        /// What differs.
        what: &'static str,
        /// What it is in the first file.
        first: String,
        /// What it is in the other one.
        second: String,
    },
    /// One did not come to its end.
    #[error("{name} was interrupted; sweep --shard {shard} again")]
    Interrupted {
        /// The file.
        name: String,
        /// The part.
        shard: Shard,
    },
    /// The parts hold more or less than the bound does.
    #[error(
        "the parts hold {parts} schedules of {file}, its bound {bound}; sweep them again with one build"
    )]
    Sum {
        /// The scenario's file.
        file: String,
        /// How many schedules the parts hold.
        parts: usize,
        /// How many they should.
        bound: usize,
    },
}

/// Puts the results of all parts together, each with the name of its file.
///
/// # Errors
/// If they are not all parts of one sweep, each once and run to its end.
pub fn merge(parts: Vec<(String, Stored)>) -> Result<Stored, MergeError> {
    let shards: Vec<_> = parts
        .iter()
        .map(|(name, stored)| (name.as_str(), stored.shard))
        .collect();
    whole(&shards)?;
    for (name, stored) in &parts {
        same(&parts[0], name, stored)?;
        if !stored.is_complete() {
            return Err(MergeError::Interrupted {
                name: name.clone(),
                shard: stored.shard,
            });
        }
    }
    let mut parts = parts.into_iter().map(|(_, stored)| stored);
    let mut merged = parts.next().ok_or(NotWhole::Nothing)?;
    merged.shard = Shard::WHOLE;
    for part in parts {
        for (sweep, other) in merged.sweeps.iter_mut().zip(part.sweeps) {
            sweep.joined(other);
        }
    }
    match merged.sweeps.iter().find(|it| it.planned != it.bound) {
        Some(sweep) => Err(MergeError::Sum {
            file: sweep.file.clone(),
            parts: sweep.planned,
            bound: sweep.bound,
        }),
        None => Ok(merged),
    }
}

/// Checks that a part was cut from the same sweep as the first one.
fn same((one, first): &(String, Stored), other: &str, stored: &Stored) -> Result<(), MergeError> {
    let (a, b) = (&first.asked, &stored.asked);
    let scenarios = |stored: &Stored| {
        let scenario = |sweep: &StoredSweep| {
            let StoredSweep {
                file,
                scenario,
                fingerprint,
                bound,
                ..
            } = sweep;
            format!("{file} {scenario:?} ({fingerprint:016x}, {bound} schedules)")
        };
        stored.sweeps.iter().map(scenario).collect::<Vec<_>>()
    };
    let (ours, theirs) = (scenarios(first), scenarios(stored));
    // The first one that differs says more than two long lists.
    let at = (0..ours.len().max(theirs.len())).find(|at| ours.get(*at) != theirs.get(*at));
    let named = |names: &[String]| {
        let name = at.and_then(|at| names.get(at));
        name.cloned().unwrap_or_else(|| "no more".to_owned())
    };
    let told = [
        ("the version", a.cutpoint.clone(), b.cutpoint.clone()),
        ("the agent", a.agent.clone(), b.agent.clone()),
        ("the defects", a.defects.join(", "), b.defects.join(", ")),
        ("the seed", a.seed.to_string(), b.seed.to_string()),
        ("--strict", a.strict.to_string(), b.strict.to_string()),
        ("the bound", a.bound.clone(), b.bound.clone()),
        ("the durability", a.durability.clone(), b.durability.clone()),
        ("a scenario", named(&ours), named(&theirs)),
    ];
    match told.into_iter().find(|(_, first, second)| first != second) {
        Some((what, first, second)) => Err(MergeError::Different {
            one: one.clone(),
            other: other.to_owned(),
            what,
            first: format!("`{first}`"),
            second: format!("`{second}`"),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(rule: &str, number: usize, digests: &[u64]) -> Class {
        Class {
            broken: vec![Broken {
                rule: rule.to_owned(),
                message: "it broke".to_owned(),
            }],
            schedule: Schedule::default(),
            number,
            schedules: digests.len(),
            digests: digests.to_vec(),
        }
    }

    /// The `index`th of two parts of a sweep of four schedules.
    fn part(index: usize) -> Stored {
        let of_one = |index: usize| {
            let (exercised, trouble) = [("CALL-1", 7), ("CALL-2", 3)][index];
            Sweep {
                points: 3,
                bound: 5,
                planned: 2 + index,
                ran: 2 + index,
                digests: [vec![1, 5], vec![2, 5]][index].clone(),
                missed: 1,
                levels: BTreeMap::new(),
                exercised: BTreeMap::from([(exercised.to_owned(), 2), ("REQ-1".to_owned(), 1)]),
                classes: [
                    vec![class("A", 1, &[1]), class("B", 2, &[5])],
                    vec![class("B", 0, &[2, 5])],
                ][index]
                    .clone(),
                trouble: Some(Trouble {
                    runs: 1,
                    number: trouble,
                    why: format!("trouble {trouble}"),
                }),
            }
        };
        let swept = Swept {
            file: "a.kdl".to_owned(),
            scenario: "a".to_owned(),
            fingerprint: u64::MAX,
            recording: None,
            seed: 0,
        };
        Stored {
            format: FORMAT.to_owned(),
            version: VERSION,
            asked: Asked {
                cutpoint: "0".to_owned(),
                agent: "reference".to_owned(),
                defects: Vec::new(),
                seed: 0,
                strict: false,
                bound: "everything".to_owned(),
                durability: "unknown".to_owned(),
            },
            shard: Shard::new(index, 2).unwrap(),
            interrupted: false,
            sweeps: vec![StoredSweep::new(swept, of_one(index))],
        }
    }

    fn named() -> Vec<(String, Stored)> {
        vec![("b".to_owned(), part(1)), ("a".to_owned(), part(0))]
    }

    #[test]
    fn parts_are_joined_and_no_trace_counts_twice() {
        let merged = merge(named()).unwrap();
        assert_eq!(merged.shard, Shard::WHOLE);
        let [sweep] = &merged.sweeps[..] else {
            panic!("{merged:?}")
        };
        assert_eq!((sweep.planned, sweep.ran, sweep.bound), (5, 5, 5));
        assert_eq!((sweep.traces, sweep.missed), (3, 2));
        assert_eq!(sweep.exercised["REQ-1"], 2);
        let shown: Vec<&str> = sweep.exercised.keys().map(String::as_str).collect();
        assert_eq!(shown, ["CALL-1", "CALL-2", "REQ-1"]);
        assert!(sweep.not_shown.contains(&"CALL-3".to_owned()));
        assert!(!sweep.not_shown.contains(&"CALL-2".to_owned()));
        let trouble = sweep.trouble.as_ref().unwrap();
        assert_eq!((trouble.runs, trouble.why.as_str()), (2, "trouble 3"));
        let failure = |it: &Failure| {
            (
                it.broken[0].rule.clone(),
                it.number,
                it.schedules,
                it.traces,
            )
        };
        let failures: Vec<_> = sweep.failures.iter().map(failure).collect();
        let expected = [("B".to_owned(), 0, 3, 2), ("A".to_owned(), 1, 1, 1)];
        assert_eq!(failures, expected);
    }

    #[test]
    fn what_was_stored_is_read_back_and_other_files_are_not() {
        let text = serde_json::to_string(&part(0)).unwrap();
        assert!(
            text.contains(r#""digests":"00000000000000010000000000000005""#),
            "{text}"
        );
        assert!(
            text.contains(r#""fingerprint":"ffffffffffffffff""#),
            "{text}"
        );
        assert_eq!(Stored::read(text.as_bytes()).unwrap(), part(0));
        let refused = |text: &str| Stored::read(text.as_bytes()).unwrap_err().to_string();
        let older = text.replace("\"version\":2", "\"version\":1");
        assert!(refused(&older).ends_with("have format version 1; this build reads version 2"));
        assert!(refused(&text.replace(FORMAT, "x")).contains("its format is `x`"));
        assert!(refused("{").starts_with("these are no results of a sweep"));
        for digests in ["1", "00000000000000050000000000000001", "000000000000000ä"] {
            let bad = text.replace("00000000000000010000000000000005", digests);
            assert!(refused(&bad).contains("16 hexadecimal digits"), "{digests}");
        }
    }

    #[test]
    fn what_are_no_parts_of_one_sweep_is_refused() {
        let refused = |change: fn(&mut Stored)| {
            let mut parts = named();
            change(&mut parts[1].1);
            merge(parts).unwrap_err().to_string()
        };
        let seed = "b and a are parts of different sweeps: the seed differs, `0` and `9`";
        assert_eq!(refused(|it| it.asked.seed = 9), seed);
        let bound = refused(|it| it.asked.bound.push('!'));
        assert!(bound.contains("the bound differs"), "{bound}");
        let version = refused(|it| it.asked.cutpoint.push('1'));
        assert!(version.contains("the version differs"), "{version}");
        let changed = refused(|it| it.sweeps[0].fingerprint = 1);
        assert!(
            changed.contains("a scenario differs, `a.kdl \"a\" (ffff"),
            "{changed}"
        );
        let fewer = refused(|it| it.sweeps.clear());
        assert!(fewer.ends_with("and `no more`"), "{fewer}");
        let stopped = "a was interrupted; sweep --shard 1/2 again";
        assert_eq!(refused(|it| it.interrupted = true), stopped);
        assert_eq!(refused(|it| it.sweeps[0].ran = 1), stopped);
        let twice = refused(|it| it.shard = Shard::new(1, 2).unwrap());
        assert_eq!(twice, "b and a are both part 2/2; give each part once");
        let sum = refused(|it| {
            it.sweeps[0].planned = 1;
            it.sweeps[0].ran = 1;
        });
        assert!(
            sum.starts_with("the parts hold 4 schedules of a.kdl, its bound 5"),
            "{sum}"
        );
        let missing = merge(named().split_off(1)).unwrap_err().to_string();
        assert!(missing.starts_with("missing: 2/2"), "{missing}");
    }
}
