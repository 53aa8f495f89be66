//! Kinds of failure over all scenarios: what breaks in one of them mostly breaks in others, too.

use cutpoint_explore::Broken;

use crate::Failure;
use crate::out::say;

/// What scenarios have in common that break the same rules in the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kind {
    broken: Vec<Broken>,
    scenarios: usize,
    schedules: usize,
    /// In how many of how many further runs of a first schedule it came again.
    again: (usize, usize),
    /// What replays the first one.
    replay: String,
}

/// The kinds of failure that scenarios have shown so far.
#[derive(Debug, Default)]
pub struct Kinds(Vec<Kind>);

impl Kinds {
    /// Takes a kind of failure of the next scenario, as its class has it, with what replays it.
    pub fn take(
        &mut self,
        broken: &[Broken],
        schedules: usize,
        again: (usize, usize),
        replay: String,
    ) {
        match self.0.iter_mut().find(|kind| kind.broken == broken) {
            Some(kind) => {
                kind.scenarios += 1;
                kind.schedules += schedules;
                kind.again.0 += again.0;
                kind.again.1 += again.1;
            }
            None => self.0.push(Kind {
                broken: broken.to_vec(),
                scenarios: 1,
                schedules,
                again,
                replay,
            }),
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Tells them if any came in several scenarios: that of the most scenarios first.
    pub fn tell(mut self) -> Result<(), Failure> {
        if self.0.iter().all(|kind| kind.scenarios == 1) {
            return Ok(());
        }
        self.0
            .sort_by_key(|kind| std::cmp::Reverse((kind.scenarios, kind.schedules)));
        say!("\nOver all scenarios, {}:", in_words(self.count()))?;
        for kind in self.0 {
            let (again, of) = kind.again;
            let again = match of {
                0 => String::new(),
                _ => format!("; the first ones again: {again} of {of} runs"),
            };
            let scenarios = match kind.scenarios {
                1 => "1 scenario".to_owned(),
                count => format!("{count} scenarios"),
            };
            say!("  in {scenarios}, {} schedules{again}", kind.schedules)?;
            for broken in &kind.broken {
                say!("    {:7} {}", broken.rule, broken.message)?;
            }
            say!("    replay: {}", kind.replay)?;
        }
        Ok(())
    }
}

/// A number of kinds of failure.
pub fn in_words(count: usize) -> String {
    match count {
        1 => "1 kind of failure".to_owned(),
        count => format!("{count} kinds of failure"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_breaks_in_the_same_way_is_one_kind() {
        let broken = |message: &str| {
            vec![Broken {
                rule: "REQ-5".to_owned(),
                message: message.to_owned(),
            }]
        };
        let mut kinds = Kinds::default();
        kinds.take(&broken("request N lacks it"), 3, (1, 10), "one".to_owned());
        kinds.take(&broken("request N lacks it"), 4, (9, 10), "two".to_owned());
        kinds.take(&broken("nothing came"), 1, (0, 0), "three".to_owned());
        assert_eq!(kinds.count(), 2);
        let first = &kinds.0[0];
        assert_eq!(
            (first.scenarios, first.schedules, first.again),
            (2, 7, (10, 20))
        );
        assert_eq!(first.replay, "one");
    }
}
