//! What keeps stores in order beside the writes: the epoch, entries that have expired, and whether a store
//! has forgotten what it acknowledged.

mod sweep;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use self::sweep::Sweep;
use self::watch::Watch;
use crate::record::Terms;
use crate::store::SyncStore;
use crate::sync::Mutex;

/// Told of a store that may have forgotten, and how that was noticed.
pub(crate) type Forgot = dyn Fn(&dyn SyncStore, &str) + Send + Sync;

/// Keeps stores in order, again and again.
pub(crate) struct Upkeep {
    stores: Vec<Arc<dyn SyncStore>>,
    watches: Mutex<Vec<Watch>>,
    epoch: Arc<AtomicU32>,
    terms: Box<dyn Fn() -> Terms + Send + Sync>,
    forgot: Box<Forgot>,
}

impl Upkeep {
    /// Of these stores. `epoch` is what everyone shares; `terms` says what time it is; `forgot` is told of
    /// stores that may have forgotten what they acknowledged.
    pub(crate) fn new(
        stores: Vec<Arc<dyn SyncStore>>,
        epoch: Arc<AtomicU32>,
        terms: impl Fn() -> Terms + Send + Sync + 'static,
        forgot: impl Fn(&dyn SyncStore, &str) + Send + Sync + 'static,
    ) -> Self {
        let watches = Mutex::new(stores.iter().map(Watch::new).collect());
        Self { stores, watches, epoch, terms: Box::new(terms), forgot: Box::new(forgot) }
    }

    /// Works every so often until `wait` says that it is time to stop.
    pub(crate) fn run(&self, every: Duration, wait: impl Fn(Duration) -> bool) {
        let mut sweeps: Vec<Sweep> =
            self.stores.iter().filter(|store| !store.capabilities().expires).map(Sweep::new).collect();
        while !wait(every) {
            self.refresh_epoch();
            self.watch();
            for sweep in &mut sweeps {
                sweep.go_on(&*self.terms, || wait(Duration::ZERO));
            }
        }
    }

    /// Looks whether a store has forgotten what it acknowledged, for the first time or again.
    pub(crate) fn watch(&self) {
        for watch in self.watches.lock().iter_mut() {
            if let Some(why) = watch.look(&self.epoch, &*self.terms) {
                (self.forgot)(watch.store(), &why);
            }
        }
    }

    /// Takes over the highest epoch of the stores, and raises those that stand lower: one that was down
    /// when the epoch was raised. Stores that do not answer are left for the next time.
    pub(crate) fn refresh_epoch(&self) {
        let read: Vec<_> = self.stores.iter().map(SyncStore::epoch).collect();
        let highest = read.iter().flatten().copied().max().unwrap_or(0);
        let epoch = self.epoch.fetch_max(highest, Ordering::AcqRel).max(highest);
        for (store, read) in self.stores.iter().zip(read) {
            let told = match read {
                Ok(read) if read < epoch => store.raise_epoch(epoch).map(|_| ()),
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = told {
                tracing::warn!(store = store.name(), %error, "the epoch could not be read or raised");
            }
        }
    }
}

impl fmt::Debug for Upkeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upkeep").field("stores", &self.stores).finish_non_exhaustive()
    }
}
