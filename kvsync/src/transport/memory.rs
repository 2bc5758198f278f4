use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use super::{Arrival, Backlog, Broker, DeadMessage, Ends, Message, Subscription};
use crate::clock::from_now;
use crate::error::{Error, ErrorKind, Result};
use crate::status::{Health, Status};
use crate::sync::{AtomicBool, Condvar, Mutex};

/// A broker in the memory of the process, which forgets all when it ends: for tests, and for a consumer that runs
/// beside its publisher. Clones are publishers of the same broker, each closed by itself.
///
/// ```
/// use std::time::Duration;
///
/// use kvsync::transport::{Arrival, Broker, MemoryBroker, Message, Subscription};
///
/// let broker = MemoryBroker::new();
/// let queue = broker.queue("redis");
/// let message = Message {
///     table: "users".into(),
///     action: "create",
///     id: "1".to_owned(),
///     content_type: "text/plain",
///     body: "hello".into(),
/// };
/// assert!(broker.publish(&[message]).iter().all(Result::is_ok));
/// Arrival::ack_all(queue.receive(10, Duration::ZERO)?);
/// # Ok::<(), kvsync::Error>(())
/// ```
pub struct MemoryBroker {
    shared: Arc<Inner>,
    closed: AtomicBool,
}

struct Inner {
    queues: Mutex<BTreeMap<String, Arc<Held>>>,
    down: AtomicBool,
    max_body: usize,
    capacity: usize,
}

/// A subscription to a queue of a [`MemoryBroker`], which has every message that was published since it was first
/// named. Clones are the same subscription: closed together.
#[derive(Clone)]
pub struct MemoryQueue {
    name: String,
    held: Arc<Held>,
    broker: Arc<Inner>,
    own: Arc<Own>,
}

/// What tells one subscription from another.
struct Own {
    number: u64,
    closed: AtomicBool,
}

/// A message that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryDeadLetter {
    /// The message.
    pub message: Message,
    /// Why.
    pub reason: String,
    /// How often it was delivered.
    pub deliveries: u32,
    /// When it was given up.
    pub at: SystemTime,
}

#[derive(Default)]
struct Held {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// Each by its tag, with the subscription that took it.
    taken: HashMap<u64, (u64, Waiting)>,
    dead: Vec<MemoryDeadLetter>,
    next_tag: u64,
    subscriptions: u64,
}

struct Waiting {
    message: Message,
    redelivered: u32,
    due: Instant,
}

impl MemoryBroker {
    /// One that takes bodies of up to a mebibyte, and as many as there is memory for.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limits(1 << 20, usize::MAX)
    }

    /// One that takes bodies of up to so many bytes, and so many messages in each queue.
    #[must_use]
    pub fn with_limits(max_body: usize, capacity: usize) -> Self {
        let inner = Inner { queues: Mutex::default(), down: AtomicBool::new(false), max_body, capacity };
        Self { shared: Arc::new(inner), closed: AtomicBool::new(false) }
    }

    /// A subscription to the queue of this name, which is made where there is none.
    #[must_use]
    pub fn queue(&self, name: &str) -> MemoryQueue {
        let held = Arc::clone(self.shared.queues.lock().entry(name.to_owned()).or_default());
        let mut state = held.state.lock();
        state.subscriptions += 1;
        let own = Arc::new(Own { number: state.subscriptions, closed: AtomicBool::new(false) });
        drop(state);
        MemoryQueue { name: format!("queue {name} in memory"), held, broker: Arc::clone(&self.shared), own }
    }

    /// Whether it answers from now on: for tests of what happens when it does not.
    pub fn set_up(&self, up: bool) {
        self.shared.down.store(!up, Ordering::Release);
        for held in self.shared.queues.lock().values() {
            drop(held.state.lock());
            held.wake.notify_all();
        }
    }
}

impl Default for MemoryBroker {
    fn default() -> Self {
        Self::new()
    }
}

impl Inner {
    fn is_up(&self) -> Result<()> {
        if self.down.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Unavailable, "the broker in memory is down"));
        }
        Ok(())
    }

    fn health(&self) -> Health {
        match self.is_up() {
            Ok(()) => Health::new(Status::Up, Vec::new()),
            Err(error) => Health::new(Status::Down, vec![error.to_string()]),
        }
    }

    fn publish(&self, message: &Message) -> Result<()> {
        self.is_up()?;
        if message.body.len() > self.max_body {
            let message =
                format!("a body of {} bytes, the broker in memory takes {}", message.body.len(), self.max_body);
            return Err(Error::new(ErrorKind::Rejected, message));
        }
        let queues = self.queues.lock();
        if queues.is_empty() {
            return Err(Error::new(ErrorKind::Unavailable, "the broker in memory has no queue yet"));
        }
        // Others that publish wait for the lock, and queues only get emptier meanwhile.
        if queues.values().any(|held| held.state.lock().waiting.len() >= self.capacity) {
            return Err(Error::new(ErrorKind::Unavailable, "a queue in memory is full"));
        }
        for held in queues.values() {
            let waiting = Waiting { message: message.clone(), redelivered: 0, due: Instant::now() };
            held.state.lock().waiting.push_back(waiting);
            held.wake.notify_one();
        }
        Ok(())
    }
}

impl Broker for MemoryBroker {
    fn name(&self) -> &'static str {
        "broker in memory"
    }

    fn max_body(&self) -> usize {
        self.shared.max_body
    }

    fn publish(&self, messages: &[Message]) -> Vec<Result<()>> {
        let closed = || Error::new(ErrorKind::Closed, "the broker in memory was closed");
        let is_closed = self.closed.load(Ordering::Acquire);
        messages.iter().map(|one| if is_closed { Err(closed()) } else { self.shared.publish(one) }).collect()
    }

    fn health(&self, _: Duration) -> Health {
        self.shared.health()
    }

    fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        Ok(())
    }
}

impl Clone for MemoryBroker {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), closed: AtomicBool::new(false) }
    }
}

impl MemoryQueue {
    /// What was given up, the oldest first.
    #[must_use]
    pub fn dead_letters(&self) -> Vec<MemoryDeadLetter> {
        self.held.state.lock().dead.clone()
    }

    /// Gives back everything that this subscription took and that was not ended, as if its process had died: it is
    /// delivered again.
    pub fn lose_hold(&self) {
        self.held.state.lock().give_back(self.own.number);
        self.held.wake.notify_all();
    }

    fn is_open(&self) -> Result<()> {
        if self.own.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, format!("{} was closed", self.name)));
        }
        self.broker.is_up()
    }
}

impl Subscription for MemoryQueue {
    fn name(&self) -> &str {
        &self.name
    }

    fn receive(&self, most: usize, wait: Duration) -> Result<Vec<Arrival>> {
        let until = from_now(wait);
        let mut state = self.held.state.lock();
        loop {
            self.is_open()?;
            let now = Instant::now();
            let taken = state.take(self.own.number, most, now);
            if !taken.is_empty() {
                let origin: Arc<dyn Ends> = Arc::clone(&self.held) as _;
                let arrival = |(tag, message, redelivered): (u64, Message, u32)| {
                    let content_type = Some(message.content_type.to_owned());
                    Arrival::new(message.body, content_type, redelivered, tag, Arc::clone(&origin))
                        .with_id(Some(message.id))
                };
                return Ok(taken.into_iter().map(arrival).collect());
            }
            if now >= until {
                return Ok(Vec::new());
            }
            let due = state.waiting.iter().map(|waiting| waiting.due).min().unwrap_or(until);
            self.held.wake.wait_until(&mut state, due.min(until));
        }
    }

    fn backlog(&self) -> Result<Backlog> {
        self.broker.is_up()?;
        let state = self.held.state.lock();
        let count = |len: usize| u64::try_from(len).unwrap_or(u64::MAX);
        Ok(Backlog {
            waiting: count(state.waiting.len()),
            taken: count(state.taken.len()),
            dead: count(state.dead.len()),
        })
    }

    fn dead(&self, most: usize) -> Result<Vec<DeadMessage>> {
        self.is_open()?;
        let of = |letter: &MemoryDeadLetter| DeadMessage {
            body: letter.message.body.clone(),
            content_type: Some(letter.message.content_type.to_owned()),
            id: Some(letter.message.id.clone()),
            reason: letter.reason.clone(),
            deliveries: letter.deliveries,
            at: Some(letter.at),
        };
        Ok(self.held.state.lock().dead.iter().take(most).map(of).collect())
    }

    fn redrive(&self, most: usize) -> Result<usize> {
        self.is_open()?;
        let mut state = self.held.state.lock();
        let count = most.min(state.dead.len());
        let letters: Vec<MemoryDeadLetter> = state.dead.drain(..count).collect();
        let now = Instant::now();
        state.waiting.extend(letters.into_iter().map(|letter| Waiting {
            message: letter.message,
            redelivered: 0,
            due: now,
        }));
        drop(state);
        self.held.wake.notify_all();
        Ok(count)
    }

    fn health(&self, _: Duration) -> Health {
        self.broker.health()
    }

    fn close(&self) -> Result<()> {
        let mut state = self.held.state.lock();
        self.own.closed.store(true, Ordering::Release);
        state.give_back(self.own.number);
        drop(state);
        self.held.wake.notify_all();
        Ok(())
    }
}

impl State {
    /// Up to so many that are due, each with its tag.
    fn take(&mut self, by: u64, most: usize, now: Instant) -> Vec<(u64, Message, u32)> {
        let mut taken = Vec::new();
        let mut later = VecDeque::new();
        while taken.len() < most
            && let Some(waiting) = self.waiting.pop_front()
        {
            if waiting.due > now {
                later.push_back(waiting);
                continue;
            }
            self.next_tag += 1;
            taken.push((self.next_tag, waiting.message.clone(), waiting.redelivered));
            self.taken.insert(self.next_tag, (by, waiting));
        }
        while let Some(waiting) = later.pop_back() {
            self.waiting.push_front(waiting);
        }
        taken
    }

    fn give_back(&mut self, of: u64) {
        let taken = self.taken.iter().filter(|(_, (by, _))| *by == of);
        let mut tags: Vec<u64> = taken.map(|(tag, _)| *tag).collect();
        tags.sort_unstable();
        for tag in tags {
            self.again(tag, Duration::ZERO);
        }
    }

    fn again(&mut self, tag: u64, after: Duration) {
        if let Some((_, waiting)) = self.taken.remove(&tag) {
            let redelivered = waiting.redelivered.saturating_add(1);
            self.waiting.push_back(Waiting { redelivered, due: from_now(after), ..waiting });
        }
    }
}

impl Ends for Held {
    fn done(&self, tags: Vec<u64>) {
        let mut state = self.state.lock();
        for tag in tags {
            state.taken.remove(&tag);
        }
    }

    fn again(&self, tag: u64, after: Duration) {
        self.state.lock().again(tag, after);
        self.wake.notify_one();
    }

    fn dead(&self, tag: u64, reason: &str) {
        let mut state = self.state.lock();
        if let Some((_, waiting)) = state.taken.remove(&tag) {
            let (reason, deliveries) = (reason.to_owned(), waiting.redelivered.saturating_add(1));
            let letter = MemoryDeadLetter { message: waiting.message, reason, deliveries, at: SystemTime::now() };
            state.dead.push(letter);
        }
    }
}

impl fmt::Debug for MemoryBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBroker").field("queues", &self.shared.queues.lock().len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for MemoryQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryQueue").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").finish_non_exhaustive()
    }
}
