//! Catches what ordinary Diesel statements write.
//!
//! A [`SyncConnection`] makes each INSERT, UPDATE and DELETE of a registered table return the columns
//! of its models and a version, hides these from the caller, and hands the changes on once the
//! outermost COMMIT has returned. Reads pass through. Results, row counts and errors are those of the
//! connection that it wraps.
//!
//! # What is caught
//!
//! Inserts (single, batch, from a select, or-ignore, upsert, replace), updates (by filter, boxed,
//! `save_changes`) and deletes, run by `execute`, `load`, `load_iter` or `get_result`, with a
//! `returning` of the caller's or without, and the same statements through `sql_query` and
//! `batch_execute`. An UPDATE of the primary key moves the row: its old keys are found under lock before
//! it runs. On Postgres that leaves a gap: a row that another transaction inserts or moves in between, and that the
//! UPDATE then moves too, was not there when old keys were looked for. It is captured under its new key, but its old
//! keys stay: that is reported, with an outbox as well, and the table is dirty until a
//! [`repair`](crate::KvSync::repair). To leave no gap, `SELECT .. FOR UPDATE` the rows and then move
//! just those that it returned, by their keys, or run it in a SERIALIZABLE or REPEATABLE READ transaction, whose statements see the same rows. With
//! triggers there is none. On Postgres each row's `tableoid` decides which table it belongs to, so a search
//! path or a temporary table never mixes two.
//!
//! # What is not
//!
//! What a statement does not show: triggers that change a row after it was returned, cascades, rules,
//! functions that write, rows that `REPLACE` displaces by another unique key.
//! [`SyncConnection::audit`] lists what the catalog knows of these. And what cannot return its rows:
//! several statements in one string, `MERGE`, writes inside a `WITH`, `COPY`, `TRUNCATE`. Those that a
//! statement's text shows follow the [`Policy`]: by default they are run and reported, and the table is
//! dirty in [`Health`](crate::Health) until it is verified; `TRUNCATE` is an error. Raw `BEGIN` and
//! `COMMIT` are errors: use `transaction`.
//!
//! # What cannot be read back
//!
//! A statement that returns more can fail where it would not have: a column was dropped, the role may not
//! read one, a rule or row security forbids it. Such a write is captured by its primary key or, where that
//! cannot be had either, run as it is; both are reported ([`Database::misfit`]). A model may be captured by
//! key from the start: [`Database::model_by_key`].
//!
//! # Into the outbox
//!
//! With [`Database::outbox`] what is captured is written into the [`outbox`], right behind the statement and
//! in its transaction; a statement without a transaction gets one. So it goes where the statement goes: with
//! a savepoint, a rollback, a COMMIT whose answer was lost. Nothing of it stays in memory. Where a row cannot
//! be written into the outbox (the role needs INSERT on it, and SELECT of its `id`) the statement fails, with the database's own kind of error, and a transaction
//! in which that was overlooked cannot be committed. A row beyond
//! [`max_transaction_bytes`](Database::max_transaction_bytes) in one statement, or one that cannot be read as
//! its model, is written with its primary key alone, and read again when it is delivered. After such a
//! statement `last_insert_rowid()`, `changes()` and `lastval()` tell of the outbox: use `RETURNING`.
//! [`SyncConnection::captured`] shows what waits in a `begin_test_transaction`; elsewhere look into the table.
//!
//! # Triggers
//!
//! All of these are caught where the table has triggers that fill the [`outbox`]: register its model with
//! [`Database::triggers`], and run the migration that [`Database::triggers_sql`] writes, or call
//! [`SyncConnection::install_triggers`]. Statements then run as they are, whoever runs them; a TRUNCATE is
//! written down as the deletion of every row. What is left: on SQLite, rows that `REPLACE` displaces by a
//! second unique key while `PRAGMA recursive_triggers` is off (`check` and reports tell); on Postgres, rows
//! of tables that inherit from it and are no partitions, which are never synced (`check` and the first write
//! tell of such tables), a TRUNCATE of a partition by its own name, rows that go or come with a partition that is detached or
//! attached, and what was committed after the snapshot of a transaction that is not READ COMMITTED and
//! truncates (that it did is a dead letter). On Postgres `lastval()` tells the outbox's id after such a
//! statement; use `RETURNING` or `currval`.
//!
//! # Transactions
//!
//! Use Diesel's: `transaction`, nested ones, `build_transaction` on Postgres, `immediate_transaction`
//! and `exclusive_transaction` on SQLite. A savepoint that is rolled back takes its own changes with it
//! and no others. When the answer to a COMMIT is lost, its rows are masked in the store and read again.
//!
//! # Tests of your own
//!
//! In `begin_test_transaction` and `test_transaction` nothing is ever handed on, because nothing is ever
//! committed. [`SyncConnection::captured`] shows what would have been:
//!
//! ```
//! # #[cfg(feature = "sqlite")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use diesel::connection::SimpleConnection;
//! # use diesel::prelude::*;
//! # use diesel::sqlite::Sqlite;
//! # use kvsync::capture::Database;
//! # use kvsync::change::Action;
//! # use kvsync::store::memory::MemoryStore;
//! # use kvsync::{KvSync, Syncable};
//! # use serde::{Deserialize, Serialize};
//! # diesel::table! { users (id) { id -> Integer } }
//! # #[derive(Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
//! # #[sync_key(name = "id", fmt = "user:<id>")]
//! # struct User { id: i32 }
//! # let kv = KvSync::builder()
//! #     .store(MemoryStore::new())
//! #     .database(Database::<Sqlite>::new("main", || SqliteConnection::establish(":memory:")).model::<User>())
//! #     .build()?;
//! let mut conn = kv.connect::<Sqlite>("main")?;
//! # conn.batch_execute("CREATE TABLE users (id INTEGER PRIMARY KEY)")?;
//! conn.begin_test_transaction()?;
//! diesel::insert_into(users::table).values(users::id.eq(1)).execute(&mut conn)?;
//!
//! let [change] = conn.captured() else { panic!("one change") };
//! assert_eq!((change.schema.model, change.action), ("User", Action::Insert));
//! assert_eq!(change.home().as_str(), "user:1");
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "sqlite"))]
//! # fn main() {}
//! ```
//!
//! # The ways around
//!
//! [`SyncConnection::lend`] lends the wrapped connection to code that insists on its type, watches its
//! SQL, and reports writes of registered tables. [`SyncConnection::unsynced`] is it, unwatched: for
//! migrations, and for what you fill in by hand. Diesel gives `get_results` for an insert of many rows
//! on SQLite to its own connection type alone; `BatchResults::batch_results` stands in for it.
//!
//! # Versions
//!
//! A row's version is taken while its lock is held: on Postgres the WAL position, on SQLite a counter.
//! Where several processes write one SQLite database, run `SQLITE_COUNTER` on it once, as a migration;
//! without it versions are ordered within one process only.

// Each database uses its own part of what they share. With both, everything has to be in use.
#![cfg_attr(
    not(all(feature = "sqlite", feature = "postgres")),
    allow(dead_code, unused_imports, reason = "a part of it serves the other database")
)]

mod audit;
mod backend;
mod check;
mod connection;
mod database;
mod fallback;
mod finding;
mod fit;
mod fragment;
mod hub;
mod lend;
mod look;
mod moves;
pub mod outbox;
mod outboxed;
mod pending;
mod plan;
#[cfg(feature = "r2d2")]
mod pool;
#[cfg(feature = "postgres")]
mod postgres;
mod primary;
mod reread;
mod row;
mod run;
mod scan;
mod scopes;
mod secrets;
mod slot;
#[cfg(feature = "sqlite")]
mod sqlite;
mod state;
mod statement;
mod table;
mod traits;
mod transaction;
mod triggers;
mod ways;
mod weigh;

/// What derived models ask for the names of their columns.
#[doc(hidden)]
pub use diesel::Column;

pub use self::backend::{Inner, SyncBackend};
pub use self::connection::SyncConnection;
pub use self::database::{AnyDatabase, Attached, Database, Policy, Unattached};
pub use self::finding::{Finding, FindingKind, Severity};
#[cfg(feature = "fuzzing")]
pub(crate) use self::outbox::content::{Content as OutboxContent, encode as encode_outbox};
#[cfg(feature = "r2d2")]
pub use self::pool::ConnectionManager;
#[cfg(feature = "postgres")]
pub use self::postgres::TransactionBuilder;
pub use self::row::{SyncCursor, SyncField, SyncRow};
#[cfg(feature = "sqlite")]
pub use self::sqlite::{BatchResults, SQLITE_COUNTER};
#[cfg(feature = "fuzzing")]
pub(crate) use self::statement::fuzzing;
pub use self::table::SyncModel;
pub use self::transaction::SyncTransactionManager;
pub use self::triggers::TriggersSql;
