//! Shards: parts of a whole that several machines run.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::digest_of_text;

/// One part of a whole, written `2/5`. Whether a case falls to it depends on that case alone, so that a
/// change of one case moves no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Shard {
    /// Counted from 0.
    index: usize,
    of: usize,
}

impl Shard {
    /// All of it.
    pub const WHOLE: Self = Self { index: 0, of: 1 };

    /// A part by its index, counted from 0, and the number of all parts; `None` if there is no such part.
    pub const fn new(index: usize, of: usize) -> Option<Self> {
        if index < of {
            Some(Self { index, of })
        } else {
            None
        }
    }

    /// Which part this is, counted from 0.
    pub const fn index(self) -> usize {
        self.index
    }

    /// How many parts there are.
    pub const fn of(self) -> usize {
        self.of
    }

    /// Whether there are other parts.
    pub const fn is_part(self) -> bool {
        self.of > 1
    }

    /// Whether the case of that name falls to this part.
    pub fn takes(self, case: impl fmt::Display) -> bool {
        if !self.is_part() {
            return true;
        }
        let place =
            u128::from(mixed(digest_of_text(&case.to_string()))) * self.of as u128 / (1 << 64);
        place == self.index as u128
    }

    /// The seed of this part, so that no two parts draw the same.
    pub fn seed(self, seed: u64) -> u64 {
        match self.index {
            0 => seed,
            index => mixed(seed ^ mixed(index as u64)),
        }
    }
}

/// Spreads a difference in a few bits over all of them, as the last step of splitmix64 does.
const fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

impl Default for Shard {
    fn default() -> Self {
        Self::WHOLE
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index + 1, self.of)
    }
}

/// A text that is not a part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a part of a whole; a part looks like 2/5")]
pub struct ParseShardError(String);

impl FromStr for Shard {
    type Err = ParseShardError;

    fn from_str(text: &str) -> Result<Self, ParseShardError> {
        let read = || {
            let (part, of) = text.split_once('/')?;
            let (part, of): (usize, usize) = (part.parse().ok()?, of.parse().ok()?);
            Self::new(part.checked_sub(1)?, of)
        };
        read().ok_or_else(|| ParseShardError(text.to_owned()))
    }
}

impl TryFrom<String> for Shard {
    type Error = ParseShardError;

    fn try_from(text: String) -> Result<Self, ParseShardError> {
        text.parse()
    }
}

impl From<Shard> for String {
    fn from(shard: Shard) -> Self {
        shard.to_string()
    }
}

/// Why results of parts do not make up a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotWhole {
    /// There are no parts.
    #[error("there is nothing to merge")]
    Nothing,
    /// They are parts of different wholes.
    #[error("{one} is part {part}, {other} part {of_other}: parts of different wholes")]
    Different {
        /// The first file.
        one: String,
        /// What it is.
        part: Shard,
        /// The other one.
        other: String,
        /// What that is.
        of_other: Shard,
    },
    /// A part came twice.
    #[error("{one} and {other} are both part {part}; give each part once")]
    Twice {
        /// The first file.
        one: String,
        /// The other one.
        other: String,
        /// What both are.
        part: Shard,
    },
    /// Parts are missing.
    #[error("missing: {}; give the results of every part", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Missing(Vec<Shard>),
}

/// Checks that the parts, each with the name of its file, are all parts of one whole.
///
/// # Errors
/// If one is missing, came twice, or is a part of another whole.
pub fn whole(parts: &[(&str, Shard)]) -> Result<(), NotWhole> {
    let Some((first, shard)) = parts.first().copied() else {
        return Err(NotWhole::Nothing);
    };
    for (at, (name, part)) in parts.iter().enumerate() {
        if part.of != shard.of {
            return Err(NotWhole::Different {
                one: first.to_owned(),
                part: shard,
                other: (*name).to_owned(),
                of_other: *part,
            });
        }
        if let Some((same, _)) = parts[..at].iter().find(|(_, other)| other == part) {
            return Err(NotWhole::Twice {
                one: (*same).to_owned(),
                other: (*name).to_owned(),
                part: *part,
            });
        }
    }
    let all = (0..shard.of).filter_map(|index| Shard::new(index, shard.of));
    let missing: Vec<Shard> = all
        .filter(|wanted| parts.iter().all(|(_, part)| part != wanted))
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(NotWhole::Missing(missing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(text: &str) -> Shard {
        text.parse().unwrap()
    }

    #[test]
    fn parts_read_back() {
        assert_eq!(shard("2/5").to_string(), "2/5");
        assert_eq!(shard("1/1"), Shard::WHOLE);
        for bad in ["", "2", "0/3", "4/3", "1/0", "-1/3", "a/b", "1/2/3"] {
            assert!(bad.parse::<Shard>().is_err(), "{bad}");
        }
    }

    #[test]
    fn each_case_falls_to_one_part_and_all_parts_have_about_as_many() {
        for of in [2, 3, 7, 24] {
            let mut counts = vec![0; of];
            for case in 0..2400 {
                let takers: Vec<usize> = (0..of)
                    .filter(|index| {
                        let shard = Shard::new(*index, of).unwrap();
                        shard.takes(format_args!("interrupt@a.{case}+0"))
                    })
                    .collect();
                let [index] = takers[..] else {
                    panic!("case {case} falls to {takers:?}")
                };
                counts[index] += 1;
            }
            let fair = 2400 / of;
            let even = counts
                .iter()
                .all(|count| (fair / 2..fair * 2).contains(count));
            assert!(even, "{counts:?}");
        }
    }

    /// Results of builds of different days are merged, so the same cases must fall to each part.
    #[test]
    fn what_falls_to_a_part_never_changes() {
        let takes = |case: &str| {
            let parts = (0..5).filter_map(|index| Shard::new(index, 5));
            parts
                .filter(|part| part.takes(case))
                .map(Shard::index)
                .next()
        };
        let cases = ["", "a", "b", "interrupt@abort.take.2+3", "steer@b.1+0"];
        assert_eq!(cases.map(takes).map(Option::unwrap), [4, 0, 1, 3, 3]);
    }

    #[test]
    fn parts_draw_by_seeds_of_their_own() {
        let parts = (0..9).filter_map(|index| Shard::new(index, 9));
        let mut seeds: Vec<u64> = parts
            .flat_map(|part| (0..9).map(move |s| part.seed(s)))
            .collect();
        assert_eq!(Shard::WHOLE.seed(7), 7);
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), 81);
    }

    #[test]
    fn parts_that_are_no_whole_are_refused_with_a_reason() {
        let refused = |parts: &[(&str, Shard)]| whole(parts).unwrap_err().to_string();
        let [one, two, three] = ["1/3", "2/3", "3/3"].map(shard);
        assert_eq!(whole(&[("c", three), ("a", one), ("b", two)]), Ok(()));
        assert_eq!(whole(&[("a", Shard::WHOLE)]), Ok(()));
        let missing = "missing: 1/3, 3/3; give the results of every part";
        assert_eq!(refused(&[("b", two)]), missing);
        let twice = "a and b are both part 1/3; give each part once";
        assert_eq!(refused(&[("a", one), ("b", one)]), twice);
        let different = "a is part 1/3, b part 1/2: parts of different wholes";
        assert_eq!(refused(&[("a", one), ("b", shard("1/2"))]), different);
        assert_eq!(refused(&[]), "there is nothing to merge");
    }
}
