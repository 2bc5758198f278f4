//! Waits on PostgreSQL until every transaction has ended that may have a change of a lower version.
//!
//! A change takes its version when its transaction has an id already. So the transactions that may hold one
//! as low as the barrier's are those with an id below `xid`, which is taken after the barrier's version, and
//! that still run. `pg_current_snapshot()` lists all of these and may list more: a savepoint's id is above
//! its transaction's, which is listed; one that was prepared is listed until it is committed; whoever only
//! reads has no id. It leaves out what vacuums and what decodes the WAL, and these write no rows.
//!
//! The list is the cluster's, and a transaction changes rows of one database: its own. One that is known to
//! be of another is not waited for, however long it stays open. It is known by the lock that each
//! transaction holds exclusively on its own id until it ends: its process (whose database `pg_stat_activity`
//! tells to everybody), or, where it was prepared, `pg_prepared_xacts`. The list is made before the locks
//! are read. So a lock of a listed id is that of a transaction that ran all the while, and its process cannot
//! have been replaced by another of the same number. Everything else is waited for: one that has its id and
//! not yet its lock, one that is just being prepared or is ending, a process of no database.

use std::thread;
use std::time::{Duration, Instant};

use diesel::dsl::sql;
use diesel::pg::Pg;
use diesel::sql_types::{BigInt, Nullable, Text};
use diesel::{QueryableByName, RunQueryDsl, sql_query};

use super::super::backend::Inner;
use super::reread::{Reading, told};
use crate::error::{Error, ErrorKind, Result};
use crate::version::Version;

/// How long the wait is no news.
const NEWS: Duration = Duration::from_secs(5);

/// Who is waited for, in words; nothing when nobody is. The locks are not looked at before somebody is.
const HELD_BY: &str = "\
    SELECT CASE WHEN pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) < b.xid THEN ( \
        SELECT coalesce( \
            'process ' || a.pid || coalesce(' of database ' || a.datname, '') || coalesce(' (' || nullif( \
                pg_catalog.concat_ws(', ', nullif(a.application_name, ''), a.state, 'in it since ' || a.xact_start), \
            '') || ')', ''), \
            'prepared transaction ' || pg_catalog.quote_literal(p.gid) || ', since ' || p.prepared, \
            'transaction ' || held.xid::pg_catalog.text) \
        FROM pg_catalog.pg_snapshot_xip(pg_catalog.pg_current_snapshot()) AS held (xid) \
        LEFT JOIN pg_catalog.pg_locks l ON l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted \
            AND l.transactionid = held.xid::pg_catalog.xid \
        LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
        LEFT JOIN pg_catalog.pg_prepared_xacts p ON p.transaction = held.xid::pg_catalog.xid \
        WHERE held.xid < b.xid AND NOT coalesce( \
            a.datid <> (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()), \
            p.database <> pg_catalog.current_database(), \
            false) \
        ORDER BY held.xid LIMIT 1 \
    ) END FROM (SELECT ";

impl<C: Inner<Backend = Pg>> Reading<'_, C> {
    /// A version below that of every change that a reading begun from now on does not see.
    pub(super) fn barrier(&mut self, floor: Version) -> Result<Version> {
        #[derive(QueryableByName)]
        struct Now {
            #[diesel(sql_type = BigInt)]
            xid: i64,
        }
        let version = self.version(floor)?;
        // The message makes the transaction flush the WAL, so that the version survives a crash.
        let now: Now = sql_query(
            "SELECT pg_catalog.pg_current_xact_id()::text::int8 AS xid, \
             pg_catalog.pg_logical_emit_message(true, 'kvsync', '')",
        )
        .get_result(self.conn)
        .map_err(told)?;
        let (began, mut news) = (Instant::now(), true);
        let mut pause = Duration::from_millis(1);
        while let Some(holder) = self.held_by(now.xid)? {
            if news && began.elapsed() >= NEWS {
                news = false;
                let database = &*self.hub.name;
                tracing::warn!(database, holder, "reading goes on when a transaction has ended that is open");
            }
            if self.until.millis().is_err() {
                let message = format!(
                    "a transaction has been open for too long ({holder}); until it ends, nobody can tell what it will \
                     change"
                );
                return Err(Error::new(ErrorKind::Deadline, message));
            }
            // The server tells nobody when a transaction ends.
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
        Ok(version)
    }

    /// One whose transaction is older than `xid` and may be of this database, in words.
    fn held_by(&mut self, xid: i64) -> Result<Option<String>> {
        sql::<Nullable<Text>>(HELD_BY)
            .bind::<Text, _>(xid.to_string())
            .sql("::pg_catalog.xid8 AS xid) AS b")
            .get_result(self.conn)
            .map_err(told)
    }
}
