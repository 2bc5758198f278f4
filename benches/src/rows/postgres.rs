//! What a wrapped connection costs on Postgres.
//!
//! Client and server share one processor: where they do not, each statement pays for waking the other one up, several
//! times what is measured here, and by chance more on one side than on the other.

use diesel::connection::SimpleConnection;
use diesel::dsl::sql;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::Integer;
use kvsync::KvSync;
use kvsync::capture::{Database, SyncConnection};
use kvsync::store::memory::MemoryStore;

use crate::clock::Clock;
use crate::models::{CREATE_POSTGRES, NewUser, User};
use crate::options::Options;
use crate::pin::Pinned;
use crate::ratio::{Side, Turns};
use crate::statements::{ROWS, Statements, postgres};
use crate::table::{Figure, Goal};
use crate::{Result, servers};

type Wrapped = SyncConnection<PgConnection>;

pub(crate) fn insert(options: &Options) -> Result<Vec<Figure>> {
    let pinned = pinned()?;
    let (mut ours, mut theirs) = (wrapped("ours", postgres::insert)?, plain("theirs", postgres::insert)?);
    let rounds = turns(options).measure(&mut ours, &mut theirs)?;
    Ok(vec![
        rounds.times(format!("INSERT, autocommit: wrapped ÷ plain ({})", wall(pinned.as_ref())), Goal::AtMost(1.10)),
    ])
}

pub(crate) fn update(options: &Options) -> Result<Vec<Figure>> {
    let pinned = pinned()?;
    let (mut ours, mut theirs) = (wrapped("ours", postgres::update)?, plain("theirs", postgres::update)?);
    let rounds = turns(options).measure(&mut ours, &mut theirs)?;
    Ok(vec![
        rounds.times(format!("UPDATE, autocommit: wrapped ÷ plain ({})", wall(pinned.as_ref())), Goal::AtMost(1.10)),
    ])
}

/// Keeps this thread and the server on one processor until dropped. Nothing, and a line that says so, where the system
/// does not let us.
pub(super) fn pinned() -> Result<Option<Pinned>> {
    let mut conn = PgConnection::establish(&servers::postgres()?)?;
    let session: i32 = diesel::select(sql::<Integer>("pg_backend_pid()")).get_result(&mut conn)?;
    let pinned = parent(session).and_then(Pinned::with);
    Ok(pinned.inspect_err(|error| eprintln!("client and server are not pinned to one processor: {error}")).ok())
}

/// How a figure says by which clock, and whether on one processor.
pub(super) const fn wall(pinned: Option<&Pinned>) -> &'static str {
    if pinned.is_some() { "wall, one core" } else { "wall" }
}

pub(super) fn turns(options: &Options) -> Turns {
    Turns { clock: Clock::Wall, rounds: options.rounds(40), each: 20, operations: 20 }
}

pub(super) fn plain(
    schema: &str,
    statement: fn(&mut PgConnection, i32, &NewUser) -> QueryResult<()>,
) -> Result<impl Side> {
    Ok(Statements::plain(filled(schema)?, statement))
}

fn wrapped(schema: &str, statement: fn(&mut Wrapped, i32, &NewUser) -> QueryResult<()>) -> Result<impl Side> {
    let (conn, url) = (filled(schema)?, url(schema)?);
    let kv = KvSync::builder()
        .store(MemoryStore::new())
        .database(Database::<Pg>::new("main", move || PgConnection::establish(&url)).model::<User>())
        .build()?;
    let conn = kv.wrap(conn)?;
    Ok(Statements::wrapped(kv, conn, statement))
}

/// A connection whose tables stand in a schema of its own, so that no side writes the other's.
pub(super) fn filled(schema: &str) -> Result<PgConnection> {
    PgConnection::establish(&servers::postgres()?)?.batch_execute(&format!(
        "SET client_min_messages = warning; DROP SCHEMA IF EXISTS bench_{schema} CASCADE; CREATE SCHEMA bench_{schema}"
    ))?;
    let mut conn = PgConnection::establish(&url(schema)?)?;
    conn.batch_execute(CREATE_POSTGRES)?;
    postgres::fill(&mut conn, ROWS)?;
    Ok(conn)
}

/// Sessions that begin in this schema.
pub(super) fn url(schema: &str) -> Result<String> {
    Ok(format!("{}?options=-csearch_path%3Dbench_{schema}", servers::postgres()?))
}

/// The process whose child a session is.
fn parent(process: i32) -> Result<i32> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("PPid:")).ok_or("the process does not tell its parent")?;
    Ok(line.trim().parse()?)
}
