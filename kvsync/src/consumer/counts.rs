//! What a consumer counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::report::Outcome;
use crate::sync::Mutex;

/// Seconds over which the rate is measured.
const WINDOW: usize = 10;

#[derive(Debug)]
pub(super) struct Counts {
    pub(super) received: AtomicU64,
    pub(super) redelivered: AtomicU64,
    pub(super) written: AtomicU64,
    pub(super) superseded: AtomicU64,
    pub(super) unknown: AtomicU64,
    pub(super) again: AtomicU64,
    pub(super) dead: AtomicU64,
    held: AtomicU64,
    recent: Mutex<Recent>,
}

#[derive(Debug)]
struct Recent {
    since: Instant,
    /// Messages acknowledged in each second, by its number since the start, over the last of them.
    seconds: [(u64, u64); WINDOW],
    lag: Option<Duration>,
}

impl Counts {
    pub(super) fn new() -> Self {
        Self {
            received: AtomicU64::new(0),
            redelivered: AtomicU64::new(0),
            written: AtomicU64::new(0),
            superseded: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            again: AtomicU64::new(0),
            dead: AtomicU64::new(0),
            held: AtomicU64::new(0),
            recent: Mutex::new(Recent { since: Instant::now(), seconds: [(0, 0); WINDOW], lag: None }),
        }
    }

    /// So many were received.
    pub(super) fn take(&self, arrivals: u64) {
        self.received.fetch_add(arrivals, Ordering::Relaxed);
        self.held.fetch_add(arrivals, Ordering::AcqRel);
    }

    /// One of them was let go of.
    pub(super) fn let_go(&self) {
        self.held.fetch_sub(1, Ordering::AcqRel);
    }

    /// How many are held.
    pub(super) fn held(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }

    /// One was acknowledged so long after its change was captured.
    pub(super) fn acknowledge(&self, outcome: Outcome, lag: Duration) {
        let counter = match outcome {
            Outcome::Superseded => &self.superseded,
            Outcome::Masked => &self.unknown,
            _ => &self.written,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let mut recent = self.recent.lock();
        recent.lag = Some(lag);
        let now = recent.since.elapsed().as_secs();
        let place = usize::try_from(now).unwrap_or(0) % WINDOW;
        if let Some((second, count)) = recent.seconds.get_mut(place) {
            if *second != now {
                (*second, *count) = (now, 0);
            }
            *count += 1;
        }
    }

    /// All that were.
    pub(super) fn acknowledged(&self) -> u64 {
        [&self.written, &self.superseded, &self.unknown].iter().map(|counter| counter.load(Ordering::Relaxed)).sum()
    }

    /// How many a second were acknowledged lately, and the lag of the last one.
    pub(super) fn recent(&self) -> (f64, Option<Duration>) {
        let recent = self.recent.lock();
        let running = recent.since.elapsed();
        let now = running.as_secs();
        let window = u64::try_from(WINDOW).unwrap_or(1);
        let in_window = recent.seconds.iter().filter(|(second, _)| second + window > now);
        let count: u64 = in_window.map(|(_, count)| *count).sum();
        // The second at hand has just begun.
        let measured = Duration::from_secs(window - 1).min(running).as_secs_f64().max(1.0);
        #[allow(clippy::cast_precision_loss, reason = "a rate needs no more precision")]
        (count as f64 / measured, recent.lag)
    }
}
