//! Time and ids, both repeatable: time follows the runtime's clock, ids come from the seed.

use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use crate::lock;
use tokio::time::Instant;

/// The session's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    epoch: SystemTime,
    start: Instant,
}

impl Clock {
    pub(crate) fn new(epoch: Option<SystemTime>) -> Self {
        Self {
            epoch: epoch.unwrap_or_else(SystemTime::now),
            start: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> SystemTime {
        self.epoch + self.start.elapsed()
    }

    /// RFC 3339 with milliseconds, in UTC.
    pub(crate) fn timestamp(&self) -> String {
        humantime::format_rfc3339_millis(self.now()).to_string()
    }

    /// The time as a part of a file's name.
    pub(crate) fn file_stamp(&self) -> String {
        let text = humantime::format_rfc3339_seconds(self.now()).to_string();
        text.trim_end_matches('Z').replace(':', "-")
    }
}

/// Where ids and jitter come from.
#[derive(Debug)]
pub(crate) struct SessionRng {
    random: Mutex<fastrand::Rng>,
    clock: Clock,
}

impl SessionRng {
    pub(crate) fn new(seed: u64, clock: Clock) -> Self {
        Self {
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            clock,
        }
    }

    /// A new UUID of version 7.
    pub(crate) fn id<I: From<String>>(&self) -> I {
        let mut bytes = [0; 10];
        lock(&self.random).fill(&mut bytes);
        let since = self.clock.now().duration_since(SystemTime::UNIX_EPOCH);
        let millis = since.map_or(0, |since| since.as_millis() as u64);
        uuid::Builder::from_unix_timestamp_millis(millis, &bytes)
            .into_uuid()
            .to_string()
            .into()
    }

    /// A seed for another generator of ids.
    pub(crate) fn seed(&self) -> u64 {
        lock(&self.random).u64(..)
    }

    /// The delay before the `attempt`-th new try (counted from 1): doubled each time, up to half a
    /// minute, with a tenth of jitter so that many clients don't come back at once.
    pub(crate) fn backoff(&self, base: Duration, attempt: u32) -> Duration {
        const LIMIT: Duration = Duration::from_secs(30);
        let doubled = base.saturating_mul(1 << attempt.saturating_sub(1).min(16));
        let jitter = 0.9 + 0.2 * lock(&self.random).f64();
        doubled.min(LIMIT).mul_f64(jitter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[tokio::test(start_paused = true)]
    async fn the_same_seed_gives_the_same_ids_and_delays() {
        let clock = Clock::new(Some(
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        ));
        let (one, two) = (SessionRng::new(7, clock), SessionRng::new(7, clock));
        let id: String = one.id();
        assert_eq!(id, two.id::<String>());
        assert_eq!(Uuid::parse_str(&id).unwrap().get_version_num(), 7);
        assert_ne!(id, one.id::<String>());
        let base = Duration::from_millis(200);
        let delays: Vec<_> = (1..=4).map(|n| one.backoff(base, n).as_millis()).collect();
        assert!((180..=220).contains(&delays[0]) && (1440..=1760).contains(&delays[3]));
        assert!(one.backoff(base, 60) <= Duration::from_secs(33));
        assert_eq!(clock.timestamp(), "2023-11-14T22:13:20.000Z");
        assert_eq!(clock.file_stamp(), "2023-11-14T22-13-20");
    }
}
