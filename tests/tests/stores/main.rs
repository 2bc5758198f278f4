//! Every store keeps the contracts that it names: one table of cases, run over each of them.
//!
//! A trial is a store and a case. A case that asks for what a store does not have is named as such, and
//! a store whose server is missing is a failure.

mod broken;
mod embedded;
mod random;
mod redis;

use std::sync::Arc;

use kvsync::store::MemoryStore;
use kvsync::store::conformance::{self, Harness, Stores, Verdict};
use libtest_mimic::{Arguments, Failed, Trial};

/// A store, and how it is made; an error says why it cannot be.
type Store = (&'static str, Result<Arc<dyn Harness>, String>);

/// Every store of this crate. A new one is one line here.
fn stores() -> Vec<Store> {
    let mut stores: Vec<Store> = vec![
        ("memory", Ok(Arc::new(Memory))),
        ("embedded", Ok(Arc::new(embedded::Fresh::new(false)))),
        ("embedded_sync", Ok(Arc::new(embedded::Fresh::new(true)))),
    ];
    stores.extend(redis::stores());
    stores
}

fn main() {
    if embedded::child() {
        return;
    }
    let mut trials: Vec<Trial> = stores().into_iter().flat_map(|(name, store)| conforms(name, store)).collect();
    trials.extend(broken::trials());
    trials.extend(embedded::trials());
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// One trial for each case.
fn conforms(name: &'static str, store: Result<Arc<dyn Harness>, String>) -> Vec<Trial> {
    let harness = match store {
        Ok(harness) => harness,
        Err(missing) => return vec![Trial::test(name, || Err(Failed::from(missing)))],
    };
    let stores = harness.fresh();
    let trial = |case: &'static conformance::Case| {
        if let Err(why) = case.applies(&*harness, &stores) {
            return Trial::test(format!("{name}::{} (not applicable: {why})", case.name), || Ok(()));
        }
        let harness = Arc::clone(&harness);
        Trial::test(format!("{name}::{}", case.name), move || match case.run(&*harness) {
            Verdict::Passed => Ok(()),
            Verdict::NotApplicable(why) => Err(Failed::from(why)),
            Verdict::Failed(why) => Err(Failed::from(why)),
        })
    };
    // Fewer runs where an operation is a round trip.
    let runs = if name == "memory" { 300 } else { 25 };
    conformance::cases().map(trial).chain([random::trial(name, Arc::clone(&harness), runs)]).collect()
}

struct Memory;

impl Harness for Memory {
    fn fresh(&self) -> Stores {
        Stores::both(Arc::new(MemoryStore::new()))
    }

    fn unreachable(&self) -> Option<Stores> {
        None
    }
}
