//! Fills in dirty tables: those of which changes were lost because there was no room for them, as soon as
//! stores keep up again; others when asked to.

use std::time::Duration;

use super::backfill::{Backfill, Target};
use super::summary::{Interrupted, Summary};
use crate::error::Result;
use crate::model::Schema;
use crate::worker::{Filler, Marked};

/// How long the database may take to name its scopes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for tables that have to be filled in, and does it at this rate, until it is time to stop. A failure
/// is tried again.
pub(crate) fn run(filler: &Filler, rows_per_second: u32) {
    let mut attempts = 0;
    while attempts > 0 || filler.wait_for_dirt() {
        let mut failed = false;
        for marked in filler.dirty(true) {
            match mend(filler, &marked, &mut |backfill| backfill.rows_per_second(rows_per_second)) {
                Ok(done) => {
                    let rows: u64 = done.iter().map(|summary| summary.rows).sum();
                    tracing::info!(database = &*marked.database, table = marked.table, rows, "filled in");
                }
                Err(error) => {
                    failed = true;
                    tracing::warn!(database = &*marked.database, table = marked.table, %error, "will be filled in later");
                }
            }
        }
        attempts = if failed || !filler.dirty(true).is_empty() { attempts + 1 } else { 0 };
        if attempts > 0 && filler.wait(filler.pause(attempts)) {
            return;
        }
    }
}

/// Fills in one dirty table: every model of it, in every scope that it may be dirty in. `None` for a table
/// means all of its database.
pub(crate) fn mend(
    filler: &Filler,
    marked: &Marked,
    configure: &mut dyn FnMut(Backfill) -> Backfill,
) -> Result<Vec<Summary>, Interrupted> {
    let interrupted = |error| Interrupted::before_it_began(error);
    let source = filler.source(&marked.database).map_err(interrupted)?;
    let (mut done, mut named): (Vec<Summary>, bool) = (Vec::new(), false);
    let of_table = |schema: &&'static Schema| marked.table.as_deref().is_none_or(|table| schema.table == table);
    for schema in source.schemas().into_iter().filter(of_table) {
        let mut scopes = source.scopes(schema, PATIENCE).map_err(interrupted)?;
        if scopes.is_empty() {
            scopes.clone_from(&marked.scopes);
        } else {
            named = true;
        }
        for scope in scopes {
            let target = Target { database: marked.database.clone(), schema, scope };
            done.push(configure(Backfill::new(filler.clone(), Ok(target))).run()?);
        }
    }
    if done.iter().all(Summary::is_complete) {
        // Where schemas have scopes, these were all.
        let mut marked = marked.clone();
        marked.unscoped &= !named;
        filler.filled(&marked);
    }
    Ok(done)
}
