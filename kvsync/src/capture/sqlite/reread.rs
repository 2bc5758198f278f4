//! Reads rows again under SQLite's write lock: nobody writes meanwhile, so an absent row is absent.

use std::time::SystemTime;

use diesel::QueryResult;
use diesel::result::Error as DieselError;
use diesel::sqlite::Sqlite;

use super::super::backend::Inner;
use super::super::hub::Hub;
use super::super::reread::{Find, Until, model_of};
use super::clock;
use super::counter::Counter;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Reread, Wanted};
use crate::version::Version;

/// How many rows are read while the write lock is held.
const BATCH: usize = 64;

pub(super) fn reread<C: Inner<Backend = Sqlite>>(
    conn: &mut C,
    hub: &Hub<Sqlite>,
    wanted: &[Wanted],
    until: Until,
) -> Result<Vec<Reread>> {
    let mut read = Vec::with_capacity(wanted.len());
    for batch in wanted.chunks(BATCH) {
        conn.batch_execute(&format!("PRAGMA busy_timeout = {}", until.millis()?)).map_err(told)?;
        conn.batch_execute("BEGIN IMMEDIATE").map_err(told)?;
        let rows = locked(conn, hub, batch)?;
        conn.batch_execute("COMMIT").map_err(told)?;
        read.extend(rows);
    }
    Ok(read)
}

fn locked<C: Inner<Backend = Sqlite>>(conn: &mut C, hub: &Hub<Sqlite>, wanted: &[Wanted]) -> Result<Vec<Reread>> {
    let floor = wanted.iter().map(|wanted| wanted.floor).max().unwrap_or_default();
    clock::raise(floor.sequence());
    let sequence = number(conn).map_err(told)?;
    // A mark of a higher epoch tells that the epoch was raised; what is read now is of that one.
    let version = Version::new(hub.publish.epoch().max(floor.epoch()), floor.timeline(), sequence);
    wanted
        .iter()
        .map(|wanted| {
            let (table, model) = model_of(hub, wanted.schema)?;
            let mut find = Find::new((table, model), &table.sql, "");
            find.want(&wanted.primary_key)?;
            let found = find.run(conn).map_err(told)?.pop();
            Ok(Reread { row: found.map_or(Ok(None), |(_, row)| row), version })
        })
        .collect()
}

/// A number above all that were given, from the counter where there is one.
pub(super) fn number<C: Inner<Backend = Sqlite>>(conn: &mut C) -> QueryResult<u64> {
    let mut counter = Counter::default();
    if counter.is_present(conn)? {
        counter.take(conn)?;
    }
    Ok(counter.next().unwrap_or_else(|| clock::next(SystemTime::now())))
}

pub(super) fn told(error: DieselError) -> Error {
    let text = error.to_string();
    if text.contains("locked") || text.contains("busy") {
        let message = "the SQLite database stayed locked, so rows could not be read in time";
        return Error::new(ErrorKind::Deadline, message).with_source(error);
    }
    let message = "rows could not be read from SQLite; does the factory open the same database file?";
    Error::new(ErrorKind::Database, message).with_source(error)
}
