//! A store that fails on purpose, for tests.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::record::Terms;
use crate::store::data::{self, Command, DataCapabilities, DataStore, Operation, Reads, Reply};
use crate::store::{Capabilities, Cursor, Health, Outcome, Page, Status, Step, Store, SyncStore};

/// A store that fails, delays, does half or loses its answers, as told: **for tests** of how a program bears it.
///
/// Faults come from a [script](Self::script), one for each call, and where it is empty from the
/// [odds](Self::seeded), drawn from a seed. Without either it passes everything on. It degrades the store's
/// health, and while it [is down](Self::set_down) it is down. To keep a hand on it, share it: an
/// `Arc<Fault<S>>` is a store, too.
///
/// ```
/// use kvsync::ErrorKind;
/// use kvsync::store::MemoryStore;
/// use kvsync::store::data::DataCommands;
/// use kvsync::store::layer::{Fault, Injected};
///
/// let store = Fault::new(MemoryStore::new());
/// store.script([Injected::LoseAnswer]);
/// let lost = store.incr_by("visits", 1);
/// assert_eq!(lost.map_err(|error| error.kind()), Err(ErrorKind::UnknownOutcome));
/// assert_eq!(store.incr_by("visits", 0)?, 1, "it was done all the same");
/// # Ok::<(), kvsync::Error>(())
/// ```
#[derive(Debug)]
pub struct Fault<S> {
    store: S,
    script: Mutex<VecDeque<Injected>>,
    odds: Option<(Odds, Mutex<StdRng>)>,
    is_down: AtomicBool,
    injected: AtomicU64,
}

/// What is done to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Injected {
    /// Nothing: it passes.
    Nothing,
    /// Nothing is done, and all of it fails with this kind.
    Refuse(ErrorKind),
    /// The steps or commands at these places are not done and fail with this kind; the others pass. A call with
    /// a single answer (a reading, a scan, an atomic write) fails as a whole, unless there are no places.
    RefuseAt(Vec<usize>, ErrorKind),
    /// It is done, and then fails: as [`ErrorKind::UnknownOutcome`] what writes, as [`ErrorKind::Unavailable`] what
    /// reads.
    LoseAnswer,
    /// It passes after so long. Blocks the thread that calls.
    Delay(Duration),
}

/// How often which fault happens: each a share of the calls, 0 to 1, their sum at most 1.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Odds {
    /// Nothing is done, and all of it is [`ErrorKind::Unavailable`].
    pub refuse: f64,
    /// Each step or command of the call is refused by the flip of a coin.
    pub refuse_some: f64,
    /// It is done, and the answer is lost.
    pub lose_answer: f64,
    /// It passes after [`Odds::by`].
    pub delay: f64,
    /// How long a delay takes.
    pub by: Duration,
}

impl<S> Fault<S> {
    /// This store, without faults until a script brings some.
    #[must_use]
    pub const fn new(store: S) -> Self {
        Self {
            store,
            script: Mutex::new(VecDeque::new()),
            odds: None,
            is_down: AtomicBool::new(false),
            injected: AtomicU64::new(0),
        }
    }

    /// This store, with faults by chance. The same calls in the same order meet the same faults for one seed.
    #[must_use]
    pub fn seeded(store: S, seed: u64, odds: Odds) -> Self {
        Self { odds: Some((odds, Mutex::new(StdRng::seed_from_u64(seed)))), ..Self::new(store) }
    }

    /// What the next calls meet, each one of these, behind those of an earlier script.
    pub fn script(&self, faults: impl IntoIterator<Item = Injected>) {
        self.script.lock().extend(faults);
    }

    /// Whether every call is refused as [`ErrorKind::Unavailable`], whatever script and odds say.
    pub fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::SeqCst);
    }

    /// How many calls have met a fault.
    #[must_use]
    pub fn injected(&self) -> u64 {
        self.injected.load(Ordering::SeqCst)
    }

    /// The store inside, without faults.
    #[must_use]
    pub const fn inner(&self) -> &S {
        &self.store
    }

    /// What the next call meets, which asks so many things.
    fn next(&self, asked: usize) -> Injected {
        let fault = if self.is_down.load(Ordering::SeqCst) {
            Injected::Refuse(ErrorKind::Unavailable)
        } else {
            let scripted = self.script.lock().pop_front();
            scripted
                .or_else(|| self.odds.as_ref().map(|(odds, dice)| odds.draw(&mut dice.lock(), asked)))
                .unwrap_or(Injected::Nothing)
        };
        if fault != Injected::Nothing {
            self.injected.fetch_add(1, Ordering::SeqCst);
        }
        if let Injected::Delay(by) = fault {
            thread::sleep(by);
        }
        fault
    }

    fn each<Q: Clone, T>(
        &self,
        asked: &[Q],
        writes: impl Fn(&Q) -> bool,
        call: impl Fn(&[Q]) -> Vec<Result<T>>,
    ) -> Vec<Result<T>> {
        match self.next(asked.len()) {
            Injected::Nothing | Injected::Delay(_) => call(asked),
            Injected::Refuse(kind) => asked.iter().map(|_| Err(refused(kind))).collect(),
            Injected::LoseAnswer => {
                call(asked);
                asked.iter().map(|one| Err(lost(writes(one)))).collect()
            }
            Injected::RefuseAt(places, kind) => {
                let is_refused = |place: &usize| places.contains(place);
                let passing = asked.iter().enumerate().filter(|(place, _)| !is_refused(place));
                let mut answers = call(&passing.map(|(_, one)| one.clone()).collect::<Vec<_>>()).into_iter();
                let answer = |place| if is_refused(&place) { Some(Err(refused(kind))) } else { answers.next() };
                (0..asked.len()).map_while(answer).collect()
            }
        }
    }

    fn one<T>(&self, writes: bool, call: impl Fn() -> Result<T>) -> Result<T> {
        match self.next(1) {
            Injected::Nothing | Injected::Delay(_) => call(),
            Injected::RefuseAt(places, _) if places.is_empty() => call(),
            Injected::Refuse(kind) | Injected::RefuseAt(_, kind) => Err(refused(kind)),
            Injected::LoseAnswer => call().and_then(|_| Err(lost(writes))),
        }
    }
}

impl Odds {
    fn draw(&self, dice: &mut StdRng, asked: usize) -> Injected {
        let drawn: f64 = dice.random();
        let mut up_to = 0.0;
        let mut within = |share: f64| {
            up_to += share;
            drawn < up_to
        };
        if within(self.refuse) {
            Injected::Refuse(ErrorKind::Unavailable)
        } else if within(self.refuse_some) {
            Injected::RefuseAt((0..asked).filter(|_| dice.random()).collect(), ErrorKind::Unavailable)
        } else if within(self.lose_answer) {
            Injected::LoseAnswer
        } else if within(self.delay) {
            Injected::Delay(self.by)
        } else {
            Injected::Nothing
        }
    }
}

fn refused(kind: ErrorKind) -> Error {
    Error::new(kind, "a fault was injected, and nothing was done")
}

fn lost(writes: bool) -> Error {
    let kind = if writes { ErrorKind::UnknownOutcome } else { ErrorKind::Unavailable };
    Error::new(kind, "a fault was injected, and the answer was lost")
}

#[deny(clippy::missing_trait_methods)]
impl<S: Store> Store for Fault<S> {
    fn name(&self) -> &str {
        self.store.name()
    }

    fn health(&self, deadline: Duration) -> Health {
        let mut health = self.store.health(deadline);
        let is_down = self.is_down.load(Ordering::SeqCst);
        health.status = health.status.max(if is_down { Status::Down } else { Status::Degraded });
        health.details.push("faults are injected into this store; it is for tests".to_owned());
        health
    }

    fn close(&self) -> Result<()> {
        self.store.close()
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: SyncStore> SyncStore for Fault<S> {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    fn execute(&self, steps: &[Step], terms: &Terms) -> Vec<Result<Outcome>> {
        self.each(steps, |_| true, |steps| self.store.execute(steps, terms))
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>> {
        self.one(false, || self.store.get_many(keys))
    }

    fn scan(&self, prefix: &str, cursor: Option<Cursor>, limit: usize) -> Result<Page> {
        self.one(false, || self.store.scan(prefix, cursor.clone(), limit))
    }

    fn epoch(&self) -> Result<u32> {
        self.one(false, || self.store.epoch())
    }

    fn raise_epoch(&self, epoch: u32) -> Result<u32> {
        self.one(true, || self.store.raise_epoch(epoch))
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: DataStore> DataStore for Fault<S> {
    fn data_capabilities(&self) -> DataCapabilities {
        self.store.data_capabilities()
    }

    fn run(&self, commands: &[Command], reads: Reads) -> Vec<Result<Reply>> {
        self.each(commands, Command::writes, |commands| self.store.run(commands, reads))
    }

    fn run_atomic(&self, operations: &[Operation]) -> Result<data::Outcome> {
        self.one(true, || self.store.run_atomic(operations))
    }
}
