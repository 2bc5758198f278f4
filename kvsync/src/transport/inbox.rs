//! What a broker has delivered and nobody has taken: between the task that holds the connection and the threads that
//! ask for messages.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::{Arrival, Ends};
use crate::error::{Error, ErrorKind, Result, failure_text};
use crate::status::{Health, Status};

/// Filled by one task, emptied by any number of threads.
pub(super) struct Inbox {
    name: String,
    state: Mutex<State>,
    news: Condvar,
    wanted: Notify,
}

#[derive(Default)]
struct State {
    arrived: VecDeque<Arrived>,
    /// Whether anybody ever asked: nothing is taken from the server before.
    asked: bool,
    /// Why nothing arrives, and why dead letters are not kept.
    trouble: Option<Error>,
    unkept: Option<Error>,
    closed: bool,
}

/// A message that nobody has taken.
pub(super) struct Arrived {
    pub(super) tag: u64,
    pub(super) body: Bytes,
    pub(super) content_type: Option<String>,
    pub(super) id: Option<String>,
    pub(super) redelivered: u32,
}

impl Inbox {
    /// Of the subscription of this name, to which nothing comes yet for this reason, if there is one.
    pub(super) fn new(name: &str, trouble: Option<Error>) -> Self {
        let state = State { trouble, ..State::default() };
        Self { name: name.to_owned(), state: Mutex::new(state), news: Condvar::new(), wanted: Notify::new() }
    }

    /// Up to `most`, which end at this origin; the first is waited for.
    pub(super) fn take(&self, most: usize, wait: Duration, origin: &Arc<dyn Ends>) -> Result<Vec<Arrival>> {
        let until = Instant::now().checked_add(wait);
        let mut state = self.state.lock();
        if most > 0 && !std::mem::replace(&mut state.asked, true) {
            self.wanted.notify_one();
        }
        loop {
            if state.closed {
                return Err(self.closed());
            }
            if most == 0 || !state.arrived.is_empty() {
                let count = most.min(state.arrived.len());
                let taken = state.arrived.drain(..count).map(|arrived| arrived.ending_at(origin)).collect();
                if state.asked && state.arrived.is_empty() {
                    self.wanted.notify_one();
                }
                return Ok(taken);
            }
            let late = if let Some(until) = until {
                self.news.wait_until(&mut state, until).timed_out()
            } else {
                self.news.wait(&mut state);
                false
            };
            if late && state.arrived.is_empty() && !state.closed {
                return state.trouble.clone().map_or(Ok(Vec::new()), Err);
            }
        }
    }

    /// Puts down what came.
    pub(super) fn put(&self, arrived: impl IntoIterator<Item = Arrived>) {
        let mut state = self.state.lock();
        let before = state.arrived.len();
        state.arrived.extend(arrived);
        if state.arrived.len() == before + 1 {
            self.news.notify_one();
        } else {
            self.news.notify_all();
        }
    }

    /// Lets go of what nobody has taken: it comes again.
    #[cfg(feature = "rabbitmq")]
    pub(super) fn forget(&self) {
        self.state.lock().arrived.clear();
    }

    /// Remembers why nothing arrives; without a reason, that it does.
    pub(super) fn trouble(&self, why: Option<Error>) {
        self.state.lock().trouble = why;
    }

    /// Remembers whether a dead letter was kept. When that is news the log is told.
    pub(super) fn kept(&self, answer: Result<()>) {
        let failure = answer.err();
        let text = failure.as_ref().map(|error| failure_text(error));
        let before = std::mem::replace(&mut self.state.lock().unkept, failure);
        match (before, text) {
            (None, Some(error)) => {
                tracing::warn!(error, "dead letters of {} cannot be kept; they are delivered again", self.name);
            }
            (Some(_), None) => tracing::info!("dead letters of {} are kept again", self.name),
            _ => {}
        }
    }

    /// Adds to what the server says of the queue what it does not know.
    pub(super) fn add_to(&self, mut health: Health) -> Health {
        if let Some(error) = &self.state.lock().unkept {
            health.status = health.status.max(Status::Degraded);
            health.details.push(format!("dead letters cannot be kept: {}", failure_text(error)));
        }
        health
    }

    /// Why nothing arrives.
    #[cfg(feature = "nats")]
    pub(super) fn why(&self) -> Option<Error> {
        self.state.lock().trouble.clone()
    }

    /// Waits until somebody asks for the first time, or has taken all that was there.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Whether anybody ever asked.
    #[cfg(feature = "nats")]
    pub(super) fn was_asked(&self) -> bool {
        self.state.lock().asked
    }

    /// Whether anybody waits, or will: something was asked for, and all of it was taken.
    #[cfg(feature = "nats")]
    pub(super) fn is_wanting(&self) -> bool {
        let state = self.state.lock();
        state.asked && state.arrived.is_empty()
    }

    /// Whoever asks from now on is told that it was closed. Returns whether it was open.
    pub(super) fn close(&self) -> bool {
        let mut state = self.state.lock();
        state.arrived.clear();
        self.news.notify_all();
        !std::mem::replace(&mut state.closed, true)
    }

    /// Fails once it was closed.
    pub(super) fn is_open(&self) -> Result<()> {
        if self.state.lock().closed { Err(self.closed()) } else { Ok(()) }
    }

    fn closed(&self) -> Error {
        Error::new(ErrorKind::Closed, format!("{} was closed", self.name))
    }
}

impl Arrived {
    fn ending_at(self, origin: &Arc<dyn Ends>) -> Arrival {
        let Self { tag, body, content_type, id, redelivered } = self;
        Arrival::new(body, content_type, redelivered, tag, Arc::clone(origin)).with_id(id)
    }
}
