//! How far a long search has come: a bar where somebody watches, a line now and then elsewhere.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::out::complain;

/// How often a bar changes.
const BAR_EVERY: Duration = Duration::from_millis(100);
/// How often a line is written: logs are kept.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// When the search is over.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// After so many of them.
    Count(u64),
    /// After so long.
    Time(Duration),
}

/// How far a search has come. Many threads may tell.
pub struct Progress {
    bar: ProgressBar,
    what: String,
    until: Option<Until>,
    start: Instant,
    next_ms: AtomicU64,
}

impl Progress {
    /// Starts a search in `what`, which it names.
    pub fn new(what: impl Into<String>, until: Option<Until>) -> Self {
        // Draws on stderr, and nothing where that is no terminal.
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{bar:16} {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let progress = Self {
            bar,
            what: what.into(),
            until,
            start: Instant::now(),
            next_ms: AtomicU64::new(0),
        };
        let first = progress.every();
        progress.next_ms.store(millis(first), Ordering::Relaxed);
        progress
    }

    /// How long it has taken until now.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Tells how many runs there were, of how many if that is known, and what was found.
    pub fn tell(&self, ran: u64, planned: Option<u64>, found: usize) {
        let elapsed = self.elapsed();
        let (now_ms, due_ms) = (millis(elapsed), self.next_ms.load(Ordering::Relaxed));
        let next_ms = now_ms + millis(self.every());
        let taken = || {
            let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
            self.next_ms.compare_exchange(due_ms, next_ms, set, get)
        };
        if now_ms < due_ms || taken().is_err() {
            return;
        }
        let until = planned.map(Until::Count).or(self.until);
        let text = told(&self.what, ran, until, found, elapsed);
        if self.bar.is_hidden() {
            complain!("{text}");
            return;
        }
        match until {
            Some(Until::Count(planned)) => {
                self.bar.set_length(planned);
                self.bar.set_position(ran);
            }
            Some(Until::Time(time)) => {
                self.bar.set_length(millis(time));
                self.bar.set_position(now_ms);
            }
            None => {}
        }
        self.bar.set_message(text);
    }

    fn every(&self) -> Duration {
        if self.bar.is_hidden() {
            LINE_EVERY
        } else {
            BAR_EVERY
        }
    }
}

impl Drop for Progress {
    /// What is printed next stands where the bar was.
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn told(what: &str, ran: u64, until: Option<Until>, found: usize, elapsed: Duration) -> String {
    let rate = ran as f64 / elapsed.as_secs_f64().max(0.001);
    let (of, left) = match until {
        Some(Until::Count(planned)) => {
            let left_s = planned.saturating_sub(ran) as f64 / rate.max(1.0);
            (format!(" of {planned}"), Some(left_s))
        }
        Some(Until::Time(time)) => {
            let left_s = time.saturating_sub(elapsed).as_secs_f64();
            (String::new(), Some(left_s))
        }
        None => (String::new(), None),
    };
    let left = left.map_or(String::new(), |left_s| format!(", {left_s:.0} s left"));
    // What a narrow terminal has no room for stands last.
    format!("{ran}{of} runs, {rate:.0}/s{left}, {found} kinds of failure in {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_rate_what_is_left_and_what_was_found() {
        let told = |until| told("a.kdl", 50, until, 2, Duration::from_secs(5));
        let counted = "50 of 100 runs, 10/s, 5 s left, 2 kinds of failure in a.kdl";
        assert_eq!(told(Some(Until::Count(100))), counted);
        let timed = "50 runs, 10/s, 3 s left, 2 kinds of failure in a.kdl";
        assert_eq!(told(Some(Until::Time(Duration::from_secs(8)))), timed);
        assert_eq!(told(None), "50 runs, 10/s, 2 kinds of failure in a.kdl");
    }
}
