//! Random histories of larger tables, delivered in disorder, twice, by workers that die in the middle
//! and by some that wake up after all is done: every store ends equal to the database, and no reader
//! ever sees something older than what was acknowledged.

mod table;
mod workers;

use std::sync::Arc;

use kvsync::store::conformance::Harness;
use libtest_mimic::{Failed, Trial};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use self::table::Table;
use self::workers::Workers;

/// One trial that makes so many runs on a store.
pub(crate) fn trial(name: &str, harness: Arc<dyn Harness>, runs: u64) -> Trial {
    Trial::test(format!("{name}::random_deliveries_end_equal_to_the_database"), move || {
        (0..runs).try_for_each(|seed| run(&*harness, seed).map_err(|why| Failed::from(format!("seed {seed}: {why}"))))
    })
}

/// One run; an error says what went wrong.
pub(crate) fn run(harness: &dyn Harness, seed: u64) -> Result<(), String> {
    let store = harness.fresh().sync.ok_or("it takes no rows")?;
    let mut random = StdRng::seed_from_u64(seed);
    let mut table = Table::new(random.random_range(2..=6), random.random_range(2..=5));
    let transactions = random.random_range(5..=25);
    let mut changes: Vec<_> = (0..transactions).flat_map(|_| table.transact(&mut random)).collect();
    // Some changes are told as unknown, and some of those later for certain.
    let mut deliveries = Vec::new();
    for change in changes.drain(..) {
        if random.random_bool(0.1) {
            deliveries.push(Table::forget(&change));
            if random.random_bool(0.5) {
                continue;
            }
        }
        deliveries.push(change);
    }
    let whole = store.capabilities().whole_changes && random.random_bool(0.3);
    let mut workers = Workers::new(&*store, &table, whole);
    workers.deliver(deliveries, &mut random)?;
    workers.check_rest("at rest")?;
    workers.settle(&mut random)?;
    workers.check_rest("once every row was settled")?;
    workers.wake_the_dead(&mut random)?;
    workers.check_rest("after the dead had written")
}
