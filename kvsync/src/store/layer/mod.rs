//! Stores around a store.
//!
//! A layer is a store that asks another one: it keeps whichever contracts that one keeps
//! ([`SyncStore`](super::SyncStore), [`DataStore`](super::data::DataStore)), and may stand around any
//! store, another layer, or a store that is chosen at run time (`Arc<dyn SyncStore>`).
//!
//! | layer | what it adds |
//! |---|---|
#![cfg_attr(
    feature = "near-cache",
    doc = "| [`NearCache`] (feature `near-cache`) | answers what may lag from memory |"
)]
#![cfg_attr(
    feature = "metrics",
    doc = "| [`Metered`] (feature `metrics`) | counts, errors, times and bytes, to the `metrics` facade |"
)]
//! | [`Traced`] | a `tracing` span around each call |
//! | [`Profiled`] | what one unit of work asked, by a [`Profiler`] |
//! | [`Retry`] | repeats what failed, where that is harmless |
//! | [`Prefix`] | every key under a prefix |
//! | [`Fault`] | fails on purpose, for tests |
//!
//! # Their order
//!
//! From the outermost to the store:
//!
//! 1. `Profiled`, `Traced`, `Metered`, in any order: they see the calls that the program makes, and how long it
//!    waited for all that is below.
//! 2. `NearCache`: what it answers costs nothing below, and every write of the program has to pass through it. A
//!    second `Metered` right below it counts what was not in memory.
//! 3. `Retry`: a try that fails is not cached and counts as one call above; one more `Metered` below it counts tries.
//! 4. `Prefix`: everything above it sees keys as the program has them. Two programs that share a store must not
//!    share what is above, so it stands below the cache.
//! 5. `Fault`: what it does is met by everything above, as a real outage is.
//!
//! ```
//! # #[cfg(all(feature = "near-cache", feature = "metrics"))]
//! # fn main() -> Result<(), kvsync::Error> {
//! use std::time::Duration;
//!
//! use kvsync::store::MemoryStore;
//! use kvsync::store::data::DataCommands;
//! use kvsync::store::layer::{Metered, NearCache, Prefix, Retry};
//!
//! let store = Retry::new(Prefix::new("app:", MemoryStore::new())?);
//! let store = Metered::new(NearCache::new(store, 64 << 20, Duration::from_secs(5)));
//! store.set("name", "ann")?;
//! assert!(store.eventual().get("name")?.is_some());
//! # Ok(())
//! # }
//! # #[cfg(not(all(feature = "near-cache", feature = "metrics")))]
//! # fn main() {}
//! ```

mod fault;
#[cfg(feature = "metrics")]
mod metered;
#[cfg(feature = "near-cache")]
mod near_cache;
mod observe;
mod prefix;
mod profiled;
mod retry;
mod size;
mod traced;

pub use self::fault::{Fault, Injected, Odds};
#[cfg(feature = "metrics")]
pub use self::metered::{Meter, Metered};
#[cfg(feature = "near-cache")]
pub use self::near_cache::NearCache;
pub use self::observe::Observed;
pub use self::prefix::Prefix;
pub use self::profiled::{Entered, Profile, Profiled, Profiler, Profiling};
pub use self::retry::Retry;
pub use self::traced::{Traced, Tracer};
use super::{Outcome, Step};
use crate::error::{Error, ErrorKind, Result};

/// What a layer passes on as it is.
macro_rules! passes_on {
    ($layer:ident) => {
        #[deny(clippy::missing_trait_methods)]
        impl<S: Store> Store for $layer<S> {
            fn name(&self) -> &str {
                self.store.name()
            }

            fn health(&self, deadline: Duration) -> $crate::store::Health {
                self.store.health(deadline)
            }

            fn close(&self) -> Result<()> {
                self.store.close()
            }
        }
    };
}

use passes_on;

/// Runs steps, each as `make` has it, for a layer that takes no change as a whole: those are refused, as are those
/// that cannot be made, and the others run.
fn in_steps(
    steps: &[Step],
    make: impl Fn(&Step) -> Result<Step>,
    execute: impl FnOnce(&[Step]) -> Vec<Result<Outcome>>,
) -> Vec<Result<Outcome>> {
    let whole =
        || Error::new(ErrorKind::Rejected, "this layer takes no change as a whole; merge, write and confirm it");
    let ready: Vec<Result<Step>> =
        steps.iter().map(|step| if matches!(step, Step::Apply(_)) { Err(whole()) } else { make(step) }).collect();
    let run: Vec<Step> = ready.iter().flatten().cloned().collect();
    let mut answers = if run.is_empty() { Vec::new() } else { execute(&run) }.into_iter();
    ready.into_iter().map_while(|step| step.map_or_else(|error| Some(Err(error)), |_| answers.next())).collect()
}

#[cfg(test)]
mod tests;
