//! What a wrapped connection costs on `SQLite`.

use std::path::Path;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::KvSync;
use kvsync::capture::{Database, SyncConnection};
use kvsync::store::memory::MemoryStore;

use crate::Result;
use crate::clock::Clock;
use crate::models::{CREATE_SQLITE, NewUser, User};
use crate::options::Options;
use crate::ratio::{Side, Turns};
use crate::statements::{ROWS, Statements, sqlite};
use crate::table::{Figure, Goal};

type Wrapped = SyncConnection<SqliteConnection>;

pub(crate) fn update(options: &Options) -> Result<Vec<Figure>> {
    let (mut ours, mut theirs) = (memory_wrapped(sqlite::update)?, memory_plain(sqlite::update)?);
    let rounds = memory_turns(options).measure(&mut ours, &mut theirs)?;
    Ok(vec![rounds.times("UPDATE by key, in memory: wrapped ÷ plain (cpu)", Goal::AtMost(1.10))])
}

pub(crate) fn insert(options: &Options) -> Result<Vec<Figure>> {
    let (mut ours, mut theirs) = (memory_wrapped(sqlite::insert)?, memory_plain(sqlite::insert_returning)?);
    let rounds = memory_turns(options).measure(&mut ours, &mut theirs)?;
    Ok(vec![rounds.times("INSERT, in memory: wrapped ÷ plain with returning (cpu)", Goal::AtMost(1.05))])
}

pub(crate) fn select(options: &Options) -> Result<Vec<Figure>> {
    let (mut ours, mut theirs) = (memory_wrapped(sqlite::select)?, memory_plain(sqlite::select)?);
    let rounds = memory_turns(options).measure(&mut ours, &mut theirs)?;
    Ok(vec![rounds.times("SELECT by key, in memory: wrapped ÷ plain (cpu)", Goal::AtMost(1.02))])
}

pub(crate) fn wal_insert(options: &Options) -> Result<Vec<Figure>> {
    let dir = tempfile::tempdir()?;
    let (mut ours, mut theirs) = (file_wrapped(dir.path(), sqlite::insert)?, file_plain(dir.path(), sqlite::insert)?);
    let rounds = file_turns(options).measure(&mut ours, &mut theirs)?;
    Ok(vec![rounds.times("INSERT, autocommit, file in WAL mode: wrapped ÷ plain (wall)", Goal::AtMost(1.10))])
}

pub(crate) fn wal_update(options: &Options) -> Result<Vec<Figure>> {
    let dir = tempfile::tempdir()?;
    let (mut ours, mut theirs) = (file_wrapped(dir.path(), sqlite::update)?, file_plain(dir.path(), sqlite::update)?);
    let rounds = file_turns(options).measure(&mut ours, &mut theirs)?;
    Ok(vec![rounds.times("UPDATE, autocommit, file in WAL mode: wrapped ÷ plain (wall)", Goal::AtMost(1.10))])
}

fn memory_turns(options: &Options) -> Turns {
    Turns { clock: Clock::Thread, rounds: options.rounds(60), each: 10, operations: 200 }
}

pub(super) fn file_turns(options: &Options) -> Turns {
    Turns { clock: Clock::Wall, rounds: options.rounds(40), each: 20, operations: 10 }
}

fn memory_plain(statement: fn(&mut SqliteConnection, i32, &NewUser) -> QueryResult<()>) -> Result<impl Side> {
    Ok(Statements::plain(filled(":memory:")?, statement))
}

fn memory_wrapped(statement: fn(&mut Wrapped, i32, &NewUser) -> QueryResult<()>) -> Result<impl Side> {
    wrapped(":memory:".to_owned(), statement)
}

pub(super) fn file_plain(
    dir: &Path,
    statement: fn(&mut SqliteConnection, i32, &NewUser) -> QueryResult<()>,
) -> Result<impl Side> {
    Ok(Statements::plain(filled(&dir.join("plain.db").to_string_lossy())?, statement))
}

fn file_wrapped(dir: &Path, statement: fn(&mut Wrapped, i32, &NewUser) -> QueryResult<()>) -> Result<impl Side> {
    wrapped(dir.join("wrapped.db").to_string_lossy().into_owned(), statement)
}

fn wrapped(url: String, statement: fn(&mut Wrapped, i32, &NewUser) -> QueryResult<()>) -> Result<impl Side> {
    let conn = filled(&url)?;
    let kv = KvSync::builder()
        .store(MemoryStore::new())
        .database(Database::<Sqlite>::new("main", move || SqliteConnection::establish(&url)).model::<User>())
        .build()?;
    let conn = kv.wrap(conn)?;
    Ok(Statements::wrapped(kv, conn, statement))
}

pub(super) fn filled(url: &str) -> Result<SqliteConnection> {
    let mut conn = SqliteConnection::establish(url)?;
    if url != ":memory:" {
        conn.batch_execute("PRAGMA journal_mode = WAL")?;
    }
    conn.batch_execute(CREATE_SQLITE)?;
    sqlite::fill(&mut conn, ROWS)?;
    Ok(conn)
}
