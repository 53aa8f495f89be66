//! Schedules by number: a plan may hold millions, and each is made when it is needed.

use std::ops::Range;

use crate::schedule::Schedule;

/// Makes a schedule from a number.
type MakeSchedule = Box<dyn Fn(usize) -> Schedule + Send + Sync>;

/// Schedules in their order, each made on demand.
#[derive(Default)]
pub(crate) struct Schedules {
    blocks: Vec<Block>,
    len: usize,
}

/// Schedules that differ in one number.
struct Block {
    /// How many schedules come before it.
    before: usize,
    /// The number from which its first schedule is made.
    from: usize,
    make: MakeSchedule,
}

impl Schedules {
    /// Adds the schedules that `make` makes from the numbers.
    pub(crate) fn add(
        &mut self,
        numbers: Range<usize>,
        make: impl Fn(usize) -> Schedule + Send + Sync + 'static,
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

    /// Adds all of the others.
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
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The schedule of that number, counted from 0.
    pub(crate) fn get(&self, number: usize) -> Option<Schedule> {
        if number >= self.len {
            return None;
        }
        let after = self.blocks.partition_point(|block| block.before <= number);
        let block = self.blocks.get(after.checked_sub(1)?)?;
        Some((block.make)(block.from + (number - block.before)))
    }

    /// All of them, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Schedule> + '_ {
        (0..self.len).filter_map(|number| self.get(number))
    }
}

impl From<Vec<Schedule>> for Schedules {
    fn from(all: Vec<Schedule>) -> Self {
        let mut schedules = Self::default();
        schedules.add(0..all.len(), move |number| all[number].clone());
        schedules
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::ScheduledAct;

    fn crash(lost_bytes: usize) -> Schedule {
        Schedule::of(ScheduledAct::crash("a", 1, lost_bytes))
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
        let expected = [3, 4, 20, 1, 2].map(crash);
        assert_eq!(all.iter().collect::<Vec<_>>(), expected);
        assert_eq!((all.len(), all.get(5)), (5, None));
    }

    #[test]
    fn billions_of_schedules_take_no_room() {
        let mut all = Schedules::default();
        for _ in 0..1000 {
            all.add(0..4_000_000, crash);
        }
        assert_eq!(all.len(), 4_000_000_000);
        assert_eq!(all.get(3_999_999_999), Some(crash(3_999_999)));
    }
}
