//! Schedules by number: a bound may hold millions, and none of them is kept.

use std::ops::Range;

use crate::schedule::Schedule;

/// Makes a schedule out of a number.
type Make<'a> = Box<dyn Fn(usize) -> Schedule + Send + Sync + 'a>;

/// Schedules in their order, each made when it is asked for.
#[derive(Default)]
pub(crate) struct Schedules<'a> {
    blocks: Vec<Block<'a>>,
    len: usize,
}

/// Schedules that differ in one number.
struct Block<'a> {
    /// How many stand in front of it.
    before: usize,
    /// The number from which its first one is made.
    from: usize,
    make: Make<'a>,
}

impl<'a> Schedules<'a> {
    /// Adds those that `make` makes out of the numbers.
    pub(crate) fn add(
        &mut self,
        numbers: Range<usize>,
        make: impl Fn(usize) -> Schedule + Send + Sync + 'a,
    ) {
        if numbers.is_empty() {
            return;
        }
        self.blocks.push(Block {
            before: self.len,
            from: numbers.start,
            make: Box::new(make),
        });
        self.len += numbers.len();
    }

    /// Adds all of another bound's.
    pub(crate) fn append(&mut self, others: Self) {
        let before = self.len;
        self.blocks
            .extend(others.blocks.into_iter().map(|block| Block {
                before: before + block.before,
                ..block
            }));
        self.len += others.len;
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The one of that number, counted from 0.
    pub(crate) fn get(&self, number: usize) -> Option<Schedule> {
        if number >= self.len {
            return None;
        }
        let behind = self.blocks.partition_point(|block| block.before <= number);
        let block = self.blocks.get(behind.checked_sub(1)?)?;
        Some((block.make)(block.from + (number - block.before)))
    }

    /// All of them, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Schedule> + '_ {
        (0..self.len).filter_map(|number| self.get(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{Act, Injection};

    fn crash(lost_bytes: usize) -> Schedule {
        Schedule {
            injections: vec![Injection {
                yields: 0,
                act: Act::Crash,
                label: "a".to_owned(),
                nth: 1,
                lost_bytes,
            }],
        }
    }

    #[test]
    fn schedules_come_by_number_in_the_order_in_which_they_were_added() {
        let mut all = Schedules::default();
        all.add(3..5, crash);
        all.add(7..7, crash);
        let mut more = Schedules::default();
        more.add(0..1, |lost| crash(lost + 20));
        more.add(1..3, crash);
        all.append(more);
        let lost: Vec<usize> = all.iter().map(|it| it.injections[0].lost_bytes).collect();
        assert_eq!(lost, [3, 4, 20, 1, 2]);
        assert_eq!((all.len(), all.get(5)), (5, None));
    }

    #[test]
    fn a_bound_of_billions_takes_no_room() {
        let mut all = Schedules::default();
        for _ in 0..1000 {
            all.add(0..4_000_000, crash);
        }
        assert_eq!(all.len(), 4_000_000_000);
        assert_eq!(all.get(3_999_999_999), Some(crash(3_999_999)));
    }
}
