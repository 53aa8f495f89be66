//! Time and memory.

use std::hint::black_box;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// The time that a call takes.
pub fn time<T>(run: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    black_box(run());
    start.elapsed()
}

/// The CPU time of this thread so far, which other work on the machine does not add to.
///
/// # Panics
/// If the system has no such clock.
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("the thread has a clock");
    Duration::from(time)
}

/// The one in the middle.
///
/// # Panics
/// If there are none.
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// A time in microseconds.
pub fn micros(time: Duration) -> f64 {
    1e6 * time.as_secs_f64()
}

/// The process's resident memory, in KiB.
///
/// # Panics
/// On a system without `/proc`.
pub fn resident_kib() -> i64 {
    const PAGE_KIB: i64 = 4;
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has /proc/self/statm");
    let pages = statm
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<i64>().ok());
    pages.expect("statm's second field is a number") * PAGE_KIB
}
