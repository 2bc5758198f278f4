use std::time::{Duration, Instant};

/// Keeps rows to a rate, and foretells when all are done.
#[derive(Debug)]
pub(crate) struct Pace {
    began: Instant,
    rows: u64,
    /// Rows a second; nothing for as fast as can be.
    limit: Option<u32>,
}

impl Pace {
    pub(crate) fn new(limit: Option<u32>) -> Self {
        Self { began: Instant::now(), rows: 0, limit: limit.filter(|limit| *limit > 0) }
    }

    /// So many more are done. How long to wait before the next ones.
    pub(crate) fn add(&mut self, rows: u64) -> Duration {
        self.rows += rows;
        self.due(self.began.elapsed())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Rows a second so far.
    #[allow(clippy::cast_precision_loss, reason = "a rate needs no more precision")]
    pub(crate) fn rate(&self) -> f64 {
        self.rows as f64 / self.began.elapsed().as_secs_f64().max(1e-6)
    }

    fn due(&self, elapsed: Duration) -> Duration {
        let Some(limit) = self.limit else { return Duration::ZERO };
        let millis = self.rows.saturating_mul(1000) / u64::from(limit);
        Duration::from_millis(millis).saturating_sub(elapsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_due_at_the_rate() {
        let pace = Pace { rows: 500, ..Pace::new(Some(100)) };
        assert_eq!(pace.due(Duration::from_secs(2)), Duration::from_secs(3));
        assert_eq!(pace.due(Duration::from_secs(6)), Duration::ZERO);
        assert_eq!(Pace { rows: 500, ..Pace::new(None) }.due(Duration::ZERO), Duration::ZERO);
        assert_eq!(Pace { rows: 500, ..Pace::new(Some(0)) }.due(Duration::ZERO), Duration::ZERO);
    }
}
