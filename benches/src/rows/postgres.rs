//! What a wrapped connection costs on Postgres.

use diesel::connection::SimpleConnection;
use diesel::pg::Pg;
use diesel::prelude::*;
use kvsync::KvSync;
use kvsync::capture::{Database, SyncConnection};
use kvsync::store::memory::MemoryStore;

use crate::clock::Clock;
use crate::models::{CREATE_POSTGRES, NewUser, User};
use crate::options::Options;
use crate::ratio::{Side, Turns};
use crate::statements::{ROWS, Statements, postgres};
use crate::table::{Figure, Goal};
use crate::{Result, servers};

type Wrapped = SyncConnection<PgConnection>;

pub(crate) fn insert(options: &Options) -> Result<Vec<Figure>> {
    let (mut ours, mut theirs) = (wrapped("ours", postgres::insert)?, plain("theirs", postgres::insert)?);
    let rounds = turns(options).measure(&mut ours, &mut theirs)?;
    Ok(vec![rounds.times("INSERT, autocommit: wrapped ÷ plain (wall)", Goal::AtMost(1.10))])
}

pub(crate) fn update(options: &Options) -> Result<Vec<Figure>> {
    let (mut ours, mut theirs) = (wrapped("ours", postgres::update)?, plain("theirs", postgres::update)?);
    let rounds = turns(options).measure(&mut ours, &mut theirs)?;
    Ok(vec![rounds.times("UPDATE, autocommit: wrapped ÷ plain (wall)", Goal::AtMost(1.10))])
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
