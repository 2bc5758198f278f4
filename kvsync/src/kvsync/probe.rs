//! Asks stores and brokers how they are, and waits no longer than it was told to.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::model::panic_message;
use crate::store::{Health, Status, SyncStore};
use crate::transport::Broker;

/// One store or broker that is asked, on a thread of its own: one that never answers holds up nobody, and keeps one
/// thread and no more, however often it is asked.
pub(super) struct Probe {
    asked: Asked,
    shared: Arc<Shared>,
}

#[derive(Clone)]
enum Asked {
    Store(Arc<dyn SyncStore>),
    Broker(Arc<dyn Broker>),
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
    last: Option<(Instant, Health)>,
}

impl Probe {
    pub(super) fn of_store(store: Arc<dyn SyncStore>) -> Self {
        Self { asked: Asked::Store(store), shared: Arc::default() }
    }

    pub(super) fn of_broker(broker: Arc<dyn Broker>) -> Self {
        Self { asked: Asked::Broker(broker), shared: Arc::default() }
    }

    /// Whom it asks.
    pub(super) fn name(&self) -> &str {
        self.asked.name()
    }

    /// Asks the store, unless it is being asked. Does not wait; returns which answer to wait for.
    pub(super) fn begin(&self, until: Instant) -> u64 {
        self.begin_with(&mut self.shared.state.lock(), until)
    }

    /// What the store answers; `None` when it has not answered by then.
    pub(super) fn answer(&self, mut awaited: u64, until: Instant) -> Option<Health> {
        let mut state = self.shared.state.lock();
        loop {
            while state.answers < awaited {
                if self.shared.answered.wait_until(&mut state, until).timed_out() && state.answers < awaited {
                    return None;
                }
            }
            // Another's question may have been given less time than there is for this one.
            let good = |(given, health): &&(Instant, Health)| *given >= until || health.status != Status::Down;
            if let Some((_, health)) = state.last.as_ref().filter(good) {
                return Some(health.clone());
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
            let health = ask(&asked, given);
            // A store is let go of before the answer is there: its owner may open it anew.
            drop(asked);
            shared.answer(until, health);
        };
        state.asking = true;
        if let Err(error) = thread::Builder::new().name("kvsync-health".to_owned()).spawn(ask) {
            let why = format!("the thread that asks {} could not be started: {error}", self.name());
            state.note(until, Health::new(Status::Down, vec![why]));
        }
        awaited
    }
}

impl Shared {
    fn answer(&self, until: Instant, health: Health) {
        self.state.lock().note(until, health);
        self.answered.notify_all();
    }
}

impl State {
    fn note(&mut self, until: Instant, health: Health) {
        self.asking = false;
        self.answers += 1;
        self.last = Some((until, health));
    }
}

impl Asked {
    fn name(&self) -> &str {
        match self {
            Self::Store(store) => store.name(),
            Self::Broker(broker) => broker.name(),
        }
    }
}

fn ask(asked: &Asked, given: Duration) -> Health {
    let health = AssertUnwindSafe(|| match asked {
        Asked::Store(store) => store.health(given),
        Asked::Broker(broker) => broker.health(given),
    });
    catch_unwind(health).unwrap_or_else(|panic| {
        let why = format!("{} panicked when it was asked how it is: {}", asked.name(), panic_message(&*panic));
        Health::new(Status::Down, vec![why])
    })
}
