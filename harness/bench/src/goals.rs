//! The goals of a benchmark.

/// Which goals were met.
#[derive(Debug, Default)]
pub struct Goals {
    missed: usize,
}

impl Goals {
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
        let mut goals = Goals::default();
        goals.at_most("a ratio", 1.0, 1.0);
        assert!(goals.all_met());
        goals.at_most("a ratio", 1.01, 1.0);
        goals.note(true, "another");
        assert!(!goals.all_met());
    }
}
