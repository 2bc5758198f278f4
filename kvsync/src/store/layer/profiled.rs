//! What one unit of work asks of its stores.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::observe::{Call, Observed, Observer, bytes_of};
use super::size::Size;
use crate::error::Result;
use crate::store::Store;

/// A store whose calls are counted for the units of work that are open on the calling thread: see [`Profiler`].
pub type Profiled<S> = Observed<S, Profiling>;

/// What counts the calls of a [`Profiled`] store.
#[derive(Debug, Clone, Copy)]
pub struct Profiling(());

impl<S: Store> Profiled<S> {
    /// This store, counted. Outside of units of work it costs next to nothing.
    #[must_use]
    pub fn new(store: S) -> Self {
        Self::around(store, Profiling(()))
    }
}

/// Counts what one unit of work, such as a request or a job, asks of [`Profiled`] stores.
///
/// It counts the calls of the threads that have [entered](Self::enter) it: a call belongs to the thread that makes
/// it. Units nest, and an outer one counts what the inner ones do. What kvsync's own workers write later, for
/// what the unit committed, is not counted: they write the changes of many units in one call.
///
/// In asynchronous code enter it where the calls are made, within `spawn_blocking`; a thread that is left at an
/// `.await` would count for others, and an [`Entered`] cannot be sent to another thread.
///
/// ```
/// use kvsync::store::MemoryStore;
/// use kvsync::store::data::DataCommands;
/// use kvsync::store::layer::{Profiled, Profiler};
///
/// let store = Profiled::new(MemoryStore::new());
/// let profiler = Profiler::begin();
/// {
///     let _here = profiler.enter();
///     store.set("name", "ann")?;
///     store.mget(["name", "age"])?;
/// }
/// let profile = profiler.end();
/// assert_eq!((profile.calls, profile.commands), (2, 2));
/// # Ok::<(), kvsync::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Profiler(Arc<Unit>);

#[derive(Debug)]
struct Unit {
    began: Instant,
    counts: Mutex<Profile>,
}

/// What a unit of work asked of its stores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Profile {
    /// The calls: as many round trips, where a store needs one for a call.
    pub calls: u64,
    /// The commands, steps, operations and keys within the calls.
    pub commands: u64,
    /// How many answers were errors.
    pub errors: u64,
    /// The bytes of values, members and fields that were sent.
    pub sent: u64,
    /// The bytes of values, members and fields that were received.
    pub received: u64,
    /// The time within the calls, of all threads together: more than `elapsed` where they ran at once.
    pub waited: Duration,
    /// The time from the beginning of the unit.
    pub elapsed: Duration,
}

/// While it lives, the calls of the thread count for a unit of work.
#[derive(Debug)]
#[must_use = "the thread counts for the unit for as long as this is kept"]
pub struct Entered {
    unit: Arc<Unit>,
    // It has to be dropped by the thread that made it.
    here: PhantomData<*const ()>,
}

thread_local! {
    static OPEN: RefCell<Vec<Arc<Unit>>> = const { RefCell::new(Vec::new()) };
}

impl Profiler {
    /// A unit of work begins. No thread counts for it yet.
    #[must_use]
    pub fn begin() -> Self {
        Self(Arc::new(Unit { began: Instant::now(), counts: Mutex::default() }))
    }

    /// From now on the calls of this thread count, until what is returned is dropped. Clones of the profiler can be
    /// entered by other threads.
    pub fn enter(&self) -> Entered {
        // A thread that is ending counts for nobody.
        let _ = OPEN.try_with(|open| open.borrow_mut().push(Arc::clone(&self.0)));
        Entered { unit: Arc::clone(&self.0), here: PhantomData }
    }

    /// What was counted up to now. A call is counted when it is answered.
    #[must_use]
    pub fn profile(&self) -> Profile {
        Profile { elapsed: self.0.began.elapsed(), ..*self.0.counts.lock() }
    }

    /// The unit ends: what was counted. Threads that are still within go on to count for clones.
    #[must_use]
    pub fn end(self) -> Profile {
        self.profile()
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let leave = |open: &RefCell<Vec<Arc<Unit>>>| {
            let mut open = open.borrow_mut();
            if let Some(place) = open.iter().rposition(|unit| Arc::ptr_eq(unit, &self.unit)) {
                open.remove(place);
            }
        };
        let _ = OPEN.try_with(leave);
    }
}

impl Observer for Profiling {
    /// When it began; nothing outside of units of work.
    type Running = Option<Instant>;

    fn begin(&self, _call: &Call<'_>) -> Option<Instant> {
        let is_open = OPEN.try_with(|open| !open.borrow().is_empty()).unwrap_or(false);
        is_open.then(Instant::now)
    }

    fn end<T: Size>(&self, began: Option<Instant>, call: &Call<'_>, answers: &[Result<T>]) {
        let Some(began) = began else { return };
        let waited = began.elapsed();
        let errors = answers.iter().filter(|answer| answer.is_err()).count();
        let count = |open: &RefCell<Vec<Arc<Unit>>>| {
            let open = open.borrow();
            for (place, unit) in open.iter().enumerate() {
                // A thread may have entered a unit twice.
                if open.iter().take(place).any(|other| Arc::ptr_eq(other, unit)) {
                    continue;
                }
                let mut counts = unit.counts.lock();
                counts.calls += 1;
                counts.commands += call.len() as u64;
                counts.errors += errors as u64;
                counts.sent += call.bytes() as u64;
                counts.received += bytes_of(answers) as u64;
                counts.waited += waited;
            }
        };
        let _ = OPEN.try_with(count);
    }
}
