//! Sees to dirty tables: fills them in from the database, then looks in the stores for entries of deleted
//! rows, if a deletion may have been lost. Those that lost changes for want of room are seen to as soon as
//! stores keep up again, others when asked to.

use std::slice;
use std::time::Duration;

use super::backfill::{Backfill, Target};
use super::repair::Repair;
use super::scope::known;
use super::summary::{Interrupted, Summary};
use super::verify::{IN_FLIGHT, Verify};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Scope;
use crate::model::{Kind, Schema};
use crate::worker::{Access, Filler, Marked};

/// How long the database may take to name its scopes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for tables that have to be seen to, and does it at this rate, until it is time to stop. A failure
/// is tried again.
pub(crate) fn run(filler: &Filler, access: &Access, rows_per_second: u32) {
    let mut attempts = 0;
    while attempts > 0 || filler.wait_for_dirt() {
        for marked in filler.dirty(true) {
            let (database, table) = (&*marked.database, marked.table.as_deref());
            match clean(filler, access, slice::from_ref(&marked), Some(rows_per_second)) {
                Ok(()) => tracing::info!(database, table, "a dirty table was seen to"),
                Err(error) if error.kind() == ErrorKind::Config => {
                    tracing::error!(database, table, %error, "a dirty table stays so");
                }
                Err(error) => tracing::warn!(database, table, %error, "a dirty table will be seen to later"),
            }
        }
        attempts = if filler.dirty(true).is_empty() { 0 } else { attempts + 1 };
        if attempts > 0 && filler.wait(filler.pause(attempts)) {
            return;
        }
    }
}

/// Fills in dirty tables, and takes out what stands in the stores for rows that were deleted. Sees to all of them,
/// and fails with the first failure.
pub(crate) fn clean(filler: &Filler, access: &Access, all: &[Marked], rate: Option<u32>) -> Result<()> {
    let (mut rest, mut ended) = (Vec::new(), Ok(()));
    for marked in all {
        match refilled(filler, marked, rate) {
            Ok(true) => rest.push(marked),
            Ok(false) => {}
            Err(error) => ended = ended.and(Err(error)),
        }
    }
    // What made a table dirty was told of before it ran. One wait serves all tables and scopes; a table that is marked
    // meanwhile stays so.
    if !rest.is_empty() && filler.wait(IN_FLIGHT) {
        return ended.and(Err(Error::new(ErrorKind::Closed, "kvsync was shut down")));
    }
    for marked in rest {
        ended = ended.and(searched(filler, access, marked, rate));
    }
    ended
}

/// Fills in a dirty table, and tells whether it has to be searched for entries of deleted rows.
fn refilled(filler: &Filler, marked: &Marked, rate: Option<u32>) -> Result<bool> {
    if !marked.filled {
        let paced = &mut |backfill: Backfill| match rate {
            Some(rate) => backfill.rows_per_second(rate),
            None => backfill,
        };
        fill(filler, marked, paced)?;
    }
    let as_it_was = |now: &Marked| now.is_still(marked) && now.filled;
    Ok(filler.dirty(false).iter().any(as_it_was))
}

/// Takes out what stands in the stores for rows of a table that were deleted.
fn searched(filler: &Filler, access: &Access, marked: &Marked, rate: Option<u32>) -> Result<()> {
    let source = filler.source(&marked.database)?;
    let of_table = |schema: &Schema| marked.table.as_deref().is_none_or(|table| schema.table == table);
    let kinds: Vec<Kind> = source.kinds().into_iter().filter(|kind| of_table(kind.schema)).collect();
    // Without a scope, those of all schemas are compared, where schemas have scopes.
    let mut scopes = marked.scopes.clone();
    for kind in &kinds {
        if !source.scopes(kind.schema, PATIENCE)?.is_empty() {
            scopes = vec![Scope::NONE];
        }
    }
    // What the consumers of a broker keep cannot be compared from here: the table stays dirty, and says so.
    let mut left = marked.untold && filler.publishes();
    if !filler.stores() {
        filler.mended(marked, true);
    }
    for scope in scopes {
        let verify = Verify::new(access.clone(), scope, Some(kinds.clone())).keeping_marks();
        let verify = match rate {
            Some(rate) => verify.rate(rate),
            None => verify,
        };
        left |= !Repair::new(verify).run()?.is_clean();
    }
    filler.mended(marked, left);
    Ok(())
}

/// Fills in one dirty table: every model of it, in every scope that it may be dirty in. `None` for a table
/// means all of its database. Where it is not known which rows a scope has, the table stays dirty, and it fails in
/// the end.
pub(crate) fn fill(
    filler: &Filler,
    marked: &Marked,
    configure: &mut dyn FnMut(Backfill) -> Backfill,
) -> Result<Vec<Summary>, Interrupted> {
    let interrupted = |error| Interrupted::before_it_began(error);
    let source = filler.source(&marked.database).map_err(interrupted)?;
    let (mut done, mut named): (Vec<Summary>, bool) = (Vec::new(), false);
    let mut refused = None;
    let of_table = |schema: &&'static Schema| marked.table.as_deref().is_none_or(|table| schema.table == table);
    for schema in source.schemas().into_iter().filter(of_table) {
        let mut scopes = source.scopes(schema, PATIENCE).map_err(interrupted)?;
        if scopes.is_empty() {
            scopes.clone_from(&marked.scopes);
        } else {
            named = true;
        }
        for scope in scopes {
            if let Err(error) = known(&*source, schema, &scope) {
                refused = Some(error);
                continue;
            }
            let target = Target { database: marked.database.clone(), schema, scope };
            done.push(configure(Backfill::new(filler.clone(), Ok(target))).run()?);
        }
    }
    if done.iter().all(Summary::is_complete) {
        // Where schemas have scopes, these were all.
        let mut marked = marked.clone();
        marked.unscoped &= !named;
        marked.unscoped |= refused.is_some();
        filler.filled(&marked);
    }
    refused.map_or(Ok(done), |error| Err(interrupted(error)))
}
