//! Reads rows again on PostgreSQL: those that are there under a lock, those that are not behind a barrier.
//!
//! A plain SELECT would not do. It can return the row as it was before a change of a lower version that
//! is not committed yet, and what is read would win over that change for ever.

use std::collections::HashMap;

use diesel::RunQueryDsl;
use diesel::dsl::sql;
use diesel::pg::Pg;
use diesel::result::Error as DieselError;
use diesel::sql_types::{BigInt, Text};

use super::super::backend::{Inner, Inside};
use super::super::hub::Hub;
use super::super::reread::{Find, Until, model_of, said};
use super::super::table::{ModelEntry, Table};
use super::place::home;
use super::timeline;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, Scope};
use crate::model::{Model, Reread, Schema, Wanted};
use crate::version::Version;

/// How many rows one statement reads.
const BATCH: usize = 100;
/// How far the WAL is padded to reach a mark. A crash takes back no more than its buffers hold.
const MAX_PADDING: u64 = 256 << 20;
const PADDING: u64 = 1 << 20;

pub(super) fn reread<C: Inner<Backend = Pg>>(
    conn: &mut C,
    hub: &Hub<Pg>,
    wanted: &[Wanted],
    until: Until,
) -> Result<Vec<Reread>> {
    let mut reading = Reading::new(conn, hub, until);
    reading.durable()?;
    let mut read: Vec<Option<Reread>> = Vec::new();
    read.resize_with(wanted.len(), || None);
    reading.present(wanted, &mut read)?;
    loop {
        reading.waited(wanted, &mut read)?;
        if read.iter().all(Option::is_some) {
            break;
        }
        reading.absent(wanted, &mut read)?;
        if read.iter().all(Option::is_some) {
            break;
        }
    }
    Ok(read.into_iter().flatten().collect())
}

/// The rows that are there, each under the key that names it.
type FoundRows = HashMap<Key, Result<Option<Box<dyn Model>>>>;

pub(super) struct Reading<'a, C> {
    pub(super) conn: &'a mut C,
    pub(super) hub: &'a Hub<Pg>,
    pub(super) until: Until,
    /// The server's; nothing before it was asked for.
    timeline: Option<u32>,
    /// The schemas of scopes.
    schemas: HashMap<Scope, String>,
}

impl<'a, C: Inner<Backend = Pg>> Reading<'a, C> {
    pub(super) fn new(conn: &'a mut C, hub: &'a Hub<Pg>, until: Until) -> Self {
        Self { conn, hub, until, timeline: None, schemas: HashMap::new() }
    }

    /// What is read must be durable before it is handed on, whatever the role's default.
    pub(super) fn durable(&mut self) -> Result<()> {
        self.run("SET synchronous_commit = on")
    }

    /// Reads the rows that nobody has locked, many at once. Waiting for several locks might deadlock
    /// with a transaction of the application, and it might be that one which is aborted.
    fn present(&mut self, wanted: &[Wanted], read: &mut [Option<Reread>]) -> Result<()> {
        let mut groups: HashMap<(String, &'static str), Vec<usize>> = HashMap::new();
        for (at, wanted) in wanted.iter().enumerate() {
            let table = self.table(wanted.schema, &wanted.scope)?;
            groups.entry((table, wanted.schema.model)).or_default().push(at);
        }
        for ((table, _), members) in groups {
            for batch in members.chunks(BATCH) {
                let some: Vec<(usize, &Wanted)> = batch.iter().filter_map(|at| Some((*at, wanted.get(*at)?))).collect();
                self.locked(&table, &some, " FOR SHARE SKIP LOCKED", read)?;
            }
        }
        Ok(())
    }

    /// Reads what is still to be read row by row, and waits for the lock of each.
    fn waited(&mut self, wanted: &[Wanted], read: &mut [Option<Reread>]) -> Result<()> {
        for (at, wanted) in missing(wanted, read) {
            let table = self.table(wanted.schema, &wanted.scope)?;
            self.locked(&table, &[(at, wanted)], " FOR SHARE", read)?;
        }
        Ok(())
    }

    /// In one transaction: locks rows, then takes the version. They are of one model.
    fn locked(
        &mut self,
        table: &str,
        wanted: &[(usize, &Wanted)],
        lock: &'static str,
        read: &mut [Option<Reread>],
    ) -> Result<()> {
        let millis = self.until.millis()?;
        self.run("BEGIN")?;
        self.run(&format!("SET LOCAL lock_timeout = {millis}; SET LOCAL statement_timeout = {millis}"))?;
        let mut found = self.find(table, wanted, lock)?;
        if found.is_empty() {
            return self.run("ROLLBACK");
        }
        let present = || wanted.iter().filter(|(_, wanted)| found.contains_key(wanted.primary_key.home()));
        let floor = present().map(|(_, wanted)| wanted.floor).max().unwrap_or_default();
        let version = self.version(floor)?;
        // The lock took a transaction id, so COMMIT makes the version durable.
        self.run("COMMIT")?;
        for (at, wanted) in wanted {
            if let Some(row) = found.remove(wanted.primary_key.home())
                && let Some(place) = read.get_mut(*at)
            {
                *place = Some(Reread { row, version });
            }
        }
        Ok(())
    }

    /// Finds out which of the rows that are still to be read are not there.
    fn absent(&mut self, wanted: &[Wanted], read: &mut [Option<Reread>]) -> Result<()> {
        let absent: Vec<(usize, &Wanted)> = missing(wanted, read).collect();
        let floor = absent.iter().map(|(_, wanted)| wanted.floor).max().unwrap_or_default();
        let version = self.barrier(floor)?;
        for (at, wanted) in absent {
            let table = self.table(wanted.schema, &wanted.scope)?;
            // One that came meanwhile is read under its lock.
            if self.find(&table, &[(at, wanted)], "")?.is_empty()
                && let Some(place) = read.get_mut(at)
            {
                *place = Some(Reread { row: Ok(None), version });
            }
        }
        Ok(())
    }

    /// The version of now, at least `floor`.
    pub(super) fn version(&mut self, floor: Version) -> Result<Version> {
        // A mark of a higher epoch tells that the epoch was raised; what is read now is of that one.
        let epoch = self.hub.publish.epoch().max(floor.epoch());
        let timeline = match self.timeline {
            Some(timeline) => timeline,
            None => *self.timeline.insert(timeline(self.conn).map_err(told)?),
        };
        let mut padded = 0;
        loop {
            let at = "SELECT (pg_catalog.pg_current_wal_insert_lsn() - '0/0'::pg_catalog.pg_lsn)::int8";
            let at: i64 = sql::<BigInt>(at).get_result(self.conn).map_err(told)?;
            let at = u64::try_from(at).unwrap_or_default();
            let version = Version::new(epoch, timeline, at);
            if version >= floor {
                return Ok(version);
            }
            let lack = floor.sequence().saturating_sub(at);
            if timeline < floor.timeline() || padded + lack > MAX_PADDING {
                let message = "the database stands before what was read from it; if it was restored or failed over, \
                               raise the epoch";
                return Err(Error::new(ErrorKind::Database, message));
            }
            // A crash took back what was written behind the mark: the WAL is made to pass it again.
            let length = lack.min(PADDING);
            let pad =
                format!("SELECT pg_catalog.pg_logical_emit_message(false, 'kvsync', pg_catalog.repeat('-', {length}))");
            self.run(&pad)?;
            padded += length;
        }
    }

    fn find(&mut self, table: &str, wanted: &[(usize, &Wanted)], lock: &'static str) -> Result<FoundRows> {
        let Some((_, first)) = wanted.first() else { return Ok(FoundRows::new()) };
        let (named, model): (_, &ModelEntry<Pg>) = model_of(self.hub, first.schema)?;
        let mut find = Find::new((named, model), table, lock);
        for (_, wanted) in wanted {
            find.want(&wanted.primary_key)?;
        }
        let found = find.run(self.conn).map_err(told)?;
        Ok(found.into_iter().collect())
    }

    /// The table of a model in a scope as it stands in SQL, with its schema.
    pub(super) fn table(&mut self, schema: &Schema, scope: &Scope) -> Result<String> {
        let (table, _) = model_of(self.hub, schema)?;
        let schema = match (&table.schema, self.hub.scopes.is_some()) {
            (Some(schema), _) => schema.clone(),
            (None, true) => self.schema_of(scope)?,
            (None, false) => self.home_of(table)?,
        };
        Ok(format!("{}.{}", Pg::quote(&schema), Pg::quote(&table.name)))
    }

    fn home_of(&mut self, table: &Table<Pg>) -> Result<String> {
        home(self.conn, table).map_err(told)?.ok_or_else(|| {
            let message = format!(
                "the table `{}` is in none of the schemas of the default search path; name its schema in `table!`",
                table.name
            );
            Error::new(ErrorKind::Config, message)
        })
    }

    /// The schema of each scope.
    pub(super) fn scopes(&mut self) -> Result<&HashMap<Scope, String>> {
        let all: Vec<String> =
            sql::<Text>("SELECT nspname::text FROM pg_catalog.pg_namespace").get_results(self.conn).map_err(told)?;
        for schema in all {
            if let Some(scope) = self.hub.scopes.as_ref().and_then(|scopes| scopes(&schema)) {
                self.schemas.insert(scope, schema);
            }
        }
        Ok(&self.schemas)
    }

    fn schema_of(&mut self, scope: &Scope) -> Result<String> {
        if let Some(schema) = self.schemas.get(scope) {
            return Ok(schema.clone());
        }
        self.scopes()?;
        self.schemas.get(scope).cloned().ok_or_else(|| {
            let message = format!("no schema of the database `{}` has the scope `{}`", self.hub.name, scope.prefix());
            Error::new(ErrorKind::Config, message)
        })
    }

    pub(super) fn run(&mut self, statement: &str) -> Result<()> {
        self.conn.batch_execute(statement).map_err(told)
    }
}

fn missing<'a>(wanted: &'a [Wanted], read: &[Option<Reread>]) -> impl Iterator<Item = (usize, &'a Wanted)> + use<'a> {
    let missing: Vec<usize> = read.iter().enumerate().filter(|(_, read)| read.is_none()).map(|(at, _)| at).collect();
    missing.into_iter().filter_map(|at| Some((at, wanted.get(at)?)))
}

pub(super) fn told(error: DieselError) -> Error {
    if let Some(error) = said(&error) {
        return error;
    }
    let text = error.to_string();
    let (kind, message) = if text.contains("lock timeout") || text.contains("statement timeout") {
        (ErrorKind::Deadline, "rows could not be read in time; a transaction may have held one of them for too long")
    } else if matches!(&error, DieselError::DatabaseError(diesel::result::DatabaseErrorKind::ClosedConnection, _)) {
        (ErrorKind::Unavailable, "the connection to PostgreSQL broke while rows were read")
    } else {
        (
            ErrorKind::Database,
            "rows could not be read from PostgreSQL; the factory's role needs SELECT and UPDATE on the table",
        )
    };
    Error::new(kind, message).with_source(error)
}
