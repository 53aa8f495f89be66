//! The progress of a search, on stderr: a bar on a terminal, a line every two seconds elsewhere.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::console::complain;

/// How often a bar is redrawn.
const BAR_EVERY: Duration = Duration::from_millis(100);
/// How often a line is written: logs are kept.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// When the search ends.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// After so many runs.
    Count(u64),
    /// After so much time.
    Time(Duration),
}

/// The progress of a search. Several threads may update it.
pub struct Progress {
    bar: ProgressBar,
    title: String,
    until: Option<Until>,
    start: Instant,
    next_ms: AtomicU64,
}

impl Progress {
    /// Starts to show a search in what the title names.
    pub fn new(title: impl Into<String>, until: Option<Until>) -> Self {
        // Draws on stderr, and nothing where that is no terminal.
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{bar:16} {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let progress = Self {
            bar,
            title: title.into(),
            until,
            start: Instant::now(),
            next_ms: AtomicU64::new(0),
        };
        let first = progress.every();
        progress.next_ms.store(millis(first), Ordering::Relaxed);
        progress
    }

    /// How long the search has taken until now.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Shows how many runs there were, of how many if that is known, and how many failures were found.
    pub fn update(&self, ran: u64, planned: Option<u64>, found: usize) {
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
        let text = line(&self.title, ran, until, found, elapsed);
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
    /// Clears the bar, so that the next output takes its place.
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn line(title: &str, ran: u64, until: Option<Until>, found: usize, elapsed: Duration) -> String {
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
    // The title comes last, since a narrow terminal may cut it off.
    format!("{ran}{of} runs, {rate:.0}/s{left}, {found} kinds of failure in {title}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_rate_the_time_left_and_the_failures() {
        let line = |until| line("a.kdl", 50, until, 2, Duration::from_secs(5));
        let counted = "50 of 100 runs, 10/s, 5 s left, 2 kinds of failure in a.kdl";
        assert_eq!(line(Some(Until::Count(100))), counted);
        let timed = "50 runs, 10/s, 3 s left, 2 kinds of failure in a.kdl";
        assert_eq!(line(Some(Until::Time(Duration::from_secs(8)))), timed);
        assert_eq!(line(None), "50 runs, 10/s, 2 kinds of failure in a.kdl");
    }
}
