use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select_biased};

use super::config::Callback;
use super::pool::Stop;
use crate::model::panic_message;
use crate::report::Report;

/// How many reports wait for a slow callback before some are dropped.
const WAITING: usize = 4096;

/// Hands reports to the callback's thread. Never waits.
#[derive(Debug, Clone)]
pub(crate) struct Reporter {
    reports: Option<Sender<Report>>,
    dropped: Arc<AtomicU64>,
}

/// What the callback's thread runs.
pub(crate) struct Listener {
    reports: Receiver<Report>,
    callback: Callback,
    stop: Stop,
}

impl Reporter {
    /// A reporter, and what its thread has to run; without a callback there is neither thread nor cost.
    pub(crate) fn new(callback: Option<Callback>, stop: &Stop) -> (Self, Option<Listener>) {
        let dropped = Arc::default();
        let Some(callback) = callback else { return (Self { reports: None, dropped }, None) };
        let (sender, reports) = bounded(WAITING);
        (Self { reports: Some(sender), dropped }, Some(Listener { reports, callback, stop: stop.clone() }))
    }

    /// Whether anyone listens.
    pub(crate) fn listens(&self) -> bool {
        self.reports.is_some()
    }

    /// Hands a report on, or drops it when the callback is too slow.
    pub(crate) fn report(&self, report: Report) {
        if let Some(reports) = &self.reports
            && let Err(TrySendError::Full(_)) = reports.try_send(report)
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many reports were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Listener {
    /// Calls back until it is told to stop and everything was told. A panic of the callback costs its own
    /// report only.
    pub(crate) fn run(&self) {
        loop {
            let next = select_biased! {
                recv(self.reports) -> report => report.ok(),
                recv(self.stop.signal()) -> _ => None,
            };
            let Some(report) = next else { return };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.callback)(&report))) {
                tracing::error!(message = panic_message(&*panic), "the report callback panicked");
            }
        }
    }
}
