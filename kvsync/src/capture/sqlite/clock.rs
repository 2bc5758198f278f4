//! Versions for SQLite, which has none of its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The highest number that this process has given, of all its databases.
static LAST: AtomicU64 = AtomicU64::new(0);

/// A number higher than all that this process has given, and at least the time in microseconds. The
/// caller holds the database's write lock.
pub(super) fn next(now: SystemTime) -> u64 {
    let now = micros(now);
    let next = |last: u64| last.saturating_add(1).max(now);
    // The closure always gives a value, so the update cannot fail.
    LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last))).map_or(now, next)
}

/// From now on, gives higher numbers than this one only.
pub(super) fn raise(to: u64) {
    LAST.fetch_max(to, Ordering::Relaxed);
}

/// What a number given now would have to exceed.
pub(super) fn floor(now: SystemTime) -> u64 {
    LAST.load(Ordering::Relaxed).max(micros(now))
}

fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
