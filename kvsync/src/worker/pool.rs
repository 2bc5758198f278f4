use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::reporter::Reporter;
use crate::error::{Error, ErrorKind, Result};
use crate::model::panic_message;
use crate::report::Report;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Mutex, is_dropped};

/// How long a thread that panicked waits before it goes on.
const AFTER_A_PANIC: Duration = Duration::from_millis(10);

/// The threads of a pipeline. Each has a name, is started again after a panic, and ends when told to.
pub(crate) struct Pool {
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Every thread holds a sender and drops it at its end.
    running: Mutex<Option<Sender<Infallible>>>,
    ended: Receiver<Infallible>,
    restarts: Arc<AtomicU64>,
    stop: Stop,
    reporter: Reporter,
}

/// Says when to stop, and wakes whoever waits.
#[derive(Debug, Clone)]
pub(crate) struct Stop {
    held: Arc<Mutex<Option<Sender<Infallible>>>>,
    stopped: Receiver<Infallible>,
}

impl Pool {
    pub(crate) fn new(stop: Stop, reporter: Reporter) -> Self {
        let (running, ended) = bounded(0);
        Self {
            threads: Mutex::default(),
            running: Mutex::new(Some(running)),
            ended,
            restarts: Arc::default(),
            stop,
            reporter,
        }
    }

    /// Starts a thread that runs `body` until it returns, and again whenever it panics.
    pub(crate) fn spawn(&self, name: &str, body: impl Fn() + Send + 'static) -> Result<()> {
        let running = self.running.lock().clone();
        let (restarts, stop, reporter) = (Arc::clone(&self.restarts), self.stop.clone(), self.reporter.clone());
        let thread = name.to_owned();
        let run = move || {
            while let Err(panic) = catch_unwind(AssertUnwindSafe(&body)) {
                restarts.fetch_add(1, Ordering::Relaxed);
                let message = panic_message(&*panic);
                tracing::error!(thread, message, "a thread panicked and goes on");
                reporter.report(Report::Panicked { thread: thread.clone(), message });
                if stop.wait(AFTER_A_PANIC) {
                    break;
                }
            }
            // What the body holds ends before the thread counts as ended.
            drop(body);
            drop(running);
        };
        let handle = thread::Builder::new().name(name.to_owned()).spawn(run).map_err(|error| {
            Error::new(ErrorKind::Unavailable, format!("the thread `{name}` could not be started")).with_source(error)
        })?;
        self.threads.lock().push(handle);
        Ok(())
    }

    /// Waits for the threads to end, and returns how many are still busy at the deadline. These are let
    /// go of: each ends by itself once its store or callback answers.
    pub(crate) fn join(&self, deadline: Instant) -> usize {
        *self.running.lock() = None;
        let wait = deadline.saturating_duration_since(Instant::now());
        let ended = is_dropped(&self.ended, wait);
        let threads = std::mem::take(&mut *self.threads.lock());
        let own = thread::current().id();
        let mut busy = 0;
        for thread in threads {
            if thread.thread().id() != own && (ended || is_finished(&thread)) {
                // It has caught its panics; there is nothing that a join could tell.
                let _ = thread.join();
            } else {
                busy += 1;
            }
        }
        busy
    }

    /// How many threads run.
    pub(crate) fn running(&self) -> usize {
        self.threads.lock().iter().filter(|thread| !is_finished(thread)).count()
    }

    /// How often a thread panicked.
    pub(crate) fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }
}

impl Stop {
    pub(crate) fn new() -> Self {
        let (sender, stopped) = bounded(0);
        Self { held: Arc::new(Mutex::new(Some(sender))), stopped }
    }

    /// Tells everyone to stop.
    pub(crate) fn stop(&self) {
        *self.held.lock() = None;
    }

    /// Whether it is time to stop.
    pub(crate) fn is_stopped(&self) -> bool {
        self.held.lock().is_none()
    }

    /// Waits this long, or until it is time to stop; then `true`.
    pub(crate) fn wait(&self, long: Duration) -> bool {
        is_dropped(&self.stopped, long)
    }

    /// Is disconnected when it is time to stop.
    pub(crate) fn signal(&self) -> &Receiver<Infallible> {
        &self.stopped
    }
}

#[cfg(not(kvsync_shuttle))]
fn is_finished(thread: &JoinHandle<()>) -> bool {
    thread.is_finished()
}

/// Shuttle's threads do not tell; a model waits for all of them.
#[cfg(kvsync_shuttle)]
fn is_finished(_: &JoinHandle<()>) -> bool {
    false
}
