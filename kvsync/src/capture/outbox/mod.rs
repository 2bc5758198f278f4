//! The outbox: a table in your database, in which changes wait until they are in every store.
//!
//! Without it, what is committed waits in memory, and is lost when the process is killed before the store
//! has answered. With it ([`Database::outbox`](super::Database::outbox)) every change is written into the
//! table `kvsync_outbox` by the transaction that makes it, and every process that has this database
//! delivers such rows, also those of others. Nothing is lost: not when a process dies, not while a store is
//! down. What a store forgets can be replayed ([`Outbox::replay`](crate::Outbox::replay)).
//!
//! # Setting it up
//!
//! 1. Run the migration: [`migrations`] with Diesel's harness, or its files in `migrations/` of this crate.
//! 2. Call `.outbox()` on the [`Database`](super::Database) in every program that writes or delivers.
//! 3. The factory's role needs SELECT, INSERT, UPDATE and DELETE on the table. On SQLite, where several
//!    processes have the file open, set a busy timeout first and then switch on WAL, in the factory.
//!
//! # How rows are delivered
//!
//! A thread in each process claims rows, at most some hundred at once, each for half a minute (a claim is extended while
//! they are on their way), and hands them to the workers of every store. A row counts as delivered when
//! every store has answered for it, and, where its content was not at hand, when the row was read again. Of
//! a process that is killed, the claims run out and another process delivers the rows: some twice, which is
//! harmless. The order of rows does not matter and is not kept; rows are found by their state and never by
//! an id above the last one, so a transaction that commits late is not overlooked.
//!
//! A store that is down costs a row no attempts; while it is, others go on. A row that cannot be understood,
//! or of which a store refuses a key for good (a value too large, or something that is not kvsync's stands
//! there), is tried again a few times ([`Builder::outbox_attempts`](crate::Builder::outbox_attempts)) and is
//! then a *dead letter*: its table is dirty in [`Health`](crate::Health), and
//! [`KvSync::outbox`](crate::KvSync::outbox) lists it with its error, retries it, or drops it. It blocks no
//! other row, and the row's other keys are written; where it is the row's record that a store refuses, they
//! send their readers to the database. A row that has failed before is read again when it is retried, so that
//! what the store gets is the database's row of then.
//!
//! A dead letter stays one until it is retried or dropped, also when its row was later written and delivered well: kvsync
//! does not look for that, and the table stays dirty until a [`repair`](crate::KvSync::repair) or
//! [`clear_dirty`](crate::KvSync::clear_dirty). It harms nothing: a retry reads the row again and never writes over
//! anything newer, and to drop the letter takes away nothing that was delivered since. Where the row was not written
//! since, a dropped letter leaves it as it is in the stores, unknown or old, until its next write or a repair.
//!
//! All programs that deliver the rows of one database must write the same stores, so the stores cannot be
//! in their own memory unless there is only one. They should register the same models: a row without a
//! model is about every model of the table that *the program that claims it* has registered. Rows of models
//! that a program does not know it leaves to others; those that nobody has claimed for a day are dead
//! letters. Rows of another key generation of a model that it does know it takes after two minutes, reads
//! their rows again, and writes these under its own generation.
//!
//! # The table
//!
//! Rows may be written by hand or by triggers ([`Database::triggers`](super::Database::triggers)) and read
//! by anyone. An insert needs `captured_at`, `timeline`, `sequence`, `table_name`, `action` and
//! `primary_key`; all else has a default.
//!
//! | column | what it holds |
//! |---|---|
//! | `id` | given by the database |
//! | `captured_at` | when the row was written, in milliseconds since the Unix epoch |
//! | `epoch` | the epoch of the stores; NULL for that of the moment in which the row is claimed |
//! | `timeline` | Postgres: the timeline of the WAL, which `pg_walfile_name` begins with; SQLite: 0 |
//! | `sequence` | the place among the changes of the row. Postgres: `(pg_current_wal_insert_lsn() - '0/0')::bigint`, taken while the row is locked; SQLite: the next number of `kvsync_counter`, no lower than the clock in microseconds, taken in the same transaction |
//! | `table_schema` | the table's schema; NULL for the one of the default search path, or `main` |
//! | `table_name` | the table's name |
//! | `model`, `generation` | the model that `content` is of, and its key generation; NULL for every model of the table |
//! | `scope` | what keys of the [scope](crate::Scope) begin with, such as `@tenant:`; empty for none, or for that of the schema where schemas have scopes |
//! | `action` | `insert`, `update`, `upsert`, `delete`; `truncate` for rows that were deleted unseen, which ends as a dead letter |
//! | `live` | whether `live_if` held; NULL where the model has none, or where it was not asked |
//! | `primary_key` | Postgres: a JSON object of its columns, `{"id": 7}`; SQLite: its columns as SQL literals, as `quote()` writes them, in the order of the model's primary key or with their names: `7` or `7 AS id` |
//! | `old_row` | the row as it was, where it was deleted or has left a key: Postgres a JSON object, SQLite `7 AS id, 'a@b' AS email`; NULL where that is not known |
//! | `content` | the row as it is, or as it was when it was deleted: a byte 1, the codec's number, the number of fields (2 bytes, big-endian), for each field 4 bytes as in the [envelope](crate::envelope), and the model in its codec. NULL where the row has to be read again, which needs no more than the primary key |
//! | `due_at` | when it may be claimed, in milliseconds since the Unix epoch: 0 for at once |
//! | `claimed_by` | who delivers it |
//! | `attempts`, `error` | how often it failed, and the last error |
//! | `delivered_at` | when it was in every store; such rows are deleted after [`Builder::outbox_retention`](crate::Builder::outbox_retention) |
//! | `dead_at` | since when it is a dead letter |
//!
//! `primary_key` and `old_row` are read by the database itself: a column's type decides what its text means.

pub(super) mod content;
mod decode;
mod image;
pub(super) mod literals;
mod migrations;
mod sql;
mod stored;
mod table;
mod write;

use diesel::QueryResult;

#[doc(hidden)]
pub use self::decode::Belongs;
pub use self::migrations::{Migrations, migrations};
#[doc(hidden)]
pub use self::sql::Statement;
pub(super) use self::table::OutboxTable;
#[doc(hidden)]
pub use self::write::Written;
pub(super) use self::write::write;
use super::backend::{Inner, Inside as _};
use super::statement::Dialect;

/// Whether the table is there.
pub(super) fn is_there<C: Inner>(conn: &mut C) -> QueryResult<bool> {
    let question = match C::Backend::DIALECT {
        Dialect::Postgres => "SELECT 1 WHERE pg_catalog.to_regclass('kvsync_outbox') IS NOT NULL",
        Dialect::Sqlite => "SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = 'kvsync_outbox'",
    };
    Ok(!Statement::new(question).load(conn, |_| ())?.is_empty())
}

/// What to do where it is not.
pub(super) fn missing(database: &str) -> String {
    format!("there is no table `kvsync_outbox` in the database `{database}`; {MAKE_IT}")
}

pub(super) const MAKE_IT: &str = "run the migration that makes it: `kvsync::capture::outbox::migrations()`, or its files \
                                  in the crate's folder `migrations`";
