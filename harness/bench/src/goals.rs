//! The goals of a benchmark.

/// A short run has few rounds, and a machine may be busy: it fails where the ratio is clearly missed.
const SHORT_SLACK: f64 = 1.6;

/// Which goals were met.
#[derive(Debug)]
pub struct Goals {
    missed: usize,
    slack: f64,
}

impl Goals {
    /// No goals yet, for a short run or a full one.
    pub(crate) fn new(short: bool) -> Self {
        let slack = if short { SHORT_SLACK } else { 1.0 };
        Self { missed: 0, slack }
    }

    /// Prints a ratio of times beside its limit, and notes whether it was kept.
    pub fn ratio(&mut self, name: &str, found: f64, limit: f64) {
        self.at_most(name, found, limit * self.slack);
    }

    /// Prints a figure beside its limit, and notes whether it was kept.
    pub fn at_most(&mut self, name: &str, found: f64, limit: f64) {
        self.note(
            found <= limit,
            &format!("{name} {found:.2}, goal ≤ {limit:.2}"),
        );
    }

    /// Prints whether a goal was met, and notes it.
    pub fn note(&mut self, met: bool, text: &str) {
        println!("{} {text}", if met { "met:   " } else { "MISSED:" });
        self.missed += usize::from(!met);
    }

    /// Whether no goal was missed.
    pub fn all_met(&self) -> bool {
        self.missed == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_missed_goal_is_enough() {
        let mut goals = Goals::new(false);
        goals.ratio("a ratio", 1.0, 1.0);
        assert!(goals.all_met());
        goals.ratio("a ratio", 1.01, 1.0);
        goals.note(true, "another");
        assert!(!goals.all_met());
    }

    #[test]
    fn a_short_run_forgives_some_noise_in_times_and_none_in_sizes() {
        let mut goals = Goals::new(true);
        goals.ratio("a ratio", 1.5, 1.0);
        assert!(goals.all_met());
        goals.at_most("a size", 1.5, 1.0);
        assert!(!goals.all_met());
    }
}
