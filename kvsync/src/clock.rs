//! What time it is. Everything that ages or expires asks a [`Clock`], so that tests need not wait.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Tells the time by which changes age and entries expire.
///
/// It is compared with times that other processes wrote, so it is the time of day and not a stopwatch.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The time now.
    fn now(&self) -> SystemTime;
}

/// The clock of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// A clock that stands still until it is moved, for tests.
#[derive(Debug)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that shows this time, to the millisecond.
    #[must_use]
    pub fn at(time: SystemTime) -> Self {
        Self(AtomicU64::new(millis(time)))
    }

    /// Moves it on.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(whole_millis(by), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// As long as for ever, where something is waited for: a year. Sums of a few of them, and with the time now, exist.
pub(crate) const FOR_EVER: Duration = Duration::from_hours(365 * 24);

/// When this much time has passed; a year is as long as for ever.
pub(crate) fn from_now(long: Duration) -> Instant {
    Instant::now() + long.min(FOR_EVER)
}

/// Milliseconds from the Unix epoch to this time; 0 for a time before it.
#[must_use]
pub fn millis(time: SystemTime) -> u64 {
    whole_millis(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// A duration in whole milliseconds.
#[must_use]
pub fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
