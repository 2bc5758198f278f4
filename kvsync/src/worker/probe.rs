//! Asks stores, brokers and queues how they are, and waits no longer than it was told to.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::model::panic_message;
use crate::status::{Health, Status};
use crate::store::SyncStore;
use crate::transport::{Backlog, Broker, Subscription};

/// One store, broker or queue that is asked, on a thread of its own: one that never answers holds up nobody, and keeps
/// one thread and no more, however often it is asked.
pub(crate) struct Probe {
    asked: Asked,
    shared: Arc<Shared>,
}

#[derive(Clone)]
enum Asked {
    Store(Arc<dyn SyncStore>),
    Broker(Arc<dyn Broker>),
    Queue(Arc<dyn Subscription>),
    Backlog(Arc<dyn Subscription>),
}

/// What was answered.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) health: Health,
    /// Of a queue that was asked for it.
    pub(crate) backlog: Option<Backlog>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    answered: Condvar,
}

#[derive(Default)]
struct State {
    /// Whether a question is under way.
    asking: bool,
    /// How many questions were answered; until when the last one was given, and its answer.
    answers: u64,
    last: Option<(Instant, Answer)>,
}

impl Probe {
    pub(crate) fn of_store(store: Arc<dyn SyncStore>) -> Self {
        Self::of(Asked::Store(store))
    }

    pub(crate) fn of_broker(broker: Arc<dyn Broker>) -> Self {
        Self::of(Asked::Broker(broker))
    }

    pub(crate) fn of_queue(queue: Arc<dyn Subscription>) -> Self {
        Self::of(Asked::Queue(queue))
    }

    /// One that asks a queue what it holds.
    pub(crate) fn of_backlog(queue: Arc<dyn Subscription>) -> Self {
        Self::of(Asked::Backlog(queue))
    }

    fn of(asked: Asked) -> Self {
        Self { asked, shared: Arc::default() }
    }

    /// Whom it asks.
    pub(crate) fn name(&self) -> &str {
        self.asked.name()
    }

    /// Asks the store, unless it is being asked. Does not wait; returns which answer to wait for.
    pub(crate) fn begin(&self, until: Instant) -> u64 {
        self.begin_with(&mut self.shared.state.lock(), until)
    }

    /// How what is asked is; that it did not answer, when it has not by then.
    pub(crate) fn health(&self, awaited: u64, until: Instant, deadline: Duration) -> Health {
        self.answer(awaited, until).map_or_else(
            || {
                let why = format!("{} did not say within {deadline:.1?} how it is", self.name());
                Health::new(Status::Down, vec![why])
            },
            |answer| answer.health,
        )
    }

    /// What it answers; `None` when it has not answered by then.
    pub(crate) fn answer(&self, mut awaited: u64, until: Instant) -> Option<Answer> {
        let mut state = self.shared.state.lock();
        loop {
            while state.answers < awaited {
                if self.shared.answered.wait_until(&mut state, until).timed_out() && state.answers < awaited {
                    return None;
                }
            }
            // Another's question may have been given less time than there is for this one.
            let good = |(given, answer): &&(Instant, Answer)| *given >= until || answer.health.status != Status::Down;
            if let Some((_, answer)) = state.last.as_ref().filter(good) {
                return Some(answer.clone());
            }
            awaited = self.begin_with(&mut state, until);
        }
    }

    fn begin_with(&self, state: &mut State, until: Instant) -> u64 {
        let awaited = state.answers + 1;
        let left = until.saturating_duration_since(Instant::now());
        if state.asking || left.is_zero() {
            return awaited;
        }
        // What the store itself says of its silence is worth more than that it said nothing in time.
        let given = left / 8 * 7;
        let (asked, shared) = (self.asked.clone(), Arc::clone(&self.shared));
        let ask = move || {
            let answer = ask(&asked, given);
            // A store is let go of before the answer is there: its owner may open it anew.
            drop(asked);
            shared.answer(until, answer);
        };
        state.asking = true;
        if let Err(error) = thread::Builder::new().name("kvsync-health".to_owned()).spawn(ask) {
            let why = format!("the thread that asks {} could not be started: {error}", self.name());
            state.note(until, Answer::down(why));
        }
        awaited
    }
}

impl Shared {
    fn answer(&self, until: Instant, answer: Answer) {
        self.state.lock().note(until, answer);
        self.answered.notify_all();
    }
}

impl State {
    fn note(&mut self, until: Instant, answer: Answer) {
        self.asking = false;
        self.answers += 1;
        self.last = Some((until, answer));
    }
}

impl Answer {
    fn down(why: String) -> Self {
        Self { health: Health::new(Status::Down, vec![why]), backlog: None }
    }
}

impl Asked {
    fn name(&self) -> &str {
        match self {
            Self::Store(store) => store.name(),
            Self::Broker(broker) => broker.name(),
            Self::Queue(queue) | Self::Backlog(queue) => queue.name(),
        }
    }
}

fn ask(asked: &Asked, given: Duration) -> Answer {
    let answer = AssertUnwindSafe(|| match asked {
        Asked::Store(store) => Answer { health: store.health(given), backlog: None },
        Asked::Broker(broker) => Answer { health: broker.health(given), backlog: None },
        Asked::Queue(queue) => Answer { health: queue.health(given), backlog: None },
        Asked::Backlog(queue) => match queue.backlog() {
            Ok(backlog) => Answer { health: Health::new(Status::Up, Vec::new()), backlog: Some(backlog) },
            Err(error) => Answer::down(error.to_string()),
        },
    });
    catch_unwind(answer).unwrap_or_else(|panic| {
        Answer::down(format!("{} panicked when it was asked how it is: {}", asked.name(), panic_message(&*panic)))
    })
}
