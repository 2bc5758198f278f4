//! Random histories of larger tables, delivered in disorder, twice, by workers that die in the middle
//! and by some that wake up after all is done: every store ends equal to the database, and no reader
//! ever sees something older than what was acknowledged.

mod table;
mod workers;

use std::sync::Arc;

use kvsync::store::conformance::{Harness, Verdict};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use self::table::Table;
use self::workers::Workers;
use crate::matrix::Case;

/// The cases that make random runs on a store.
pub(crate) fn cases(name: &str, harness: &Arc<dyn Harness>) -> Vec<(&'static str, Case)> {
    // Fewer runs where an operation is a round trip, and fewer still where each is signed.
    let runs = match name {
        "memory" => 300,
        "dynamodb" => 4,
        _ => 25,
    };
    let own = Arc::clone(harness);
    vec![("random_deliveries_end_equal_to_the_database", Box::new(move || protocol(&*own, runs)))]
}

/// Makes so many runs of the protocol.
fn protocol(harness: &dyn Harness, runs: u64) -> Verdict {
    if harness.fresh().sync.is_none() {
        return Verdict::NotApplicable("it takes no rows");
    }
    let failed = (0..runs).find_map(|seed| run(harness, seed).err().map(|why| format!("seed {seed}: {why}")));
    failed.map_or(Verdict::Passed, Verdict::Failed)
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
