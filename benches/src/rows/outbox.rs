//! What crash safety costs: changes written into the outbox by capture, or by triggers.
//!
//! Nobody delivers the rows meanwhile: what is measured is what a write pays, not what a relay does beside
//! it, which may be in another process.

use std::sync::Arc;

use diesel::connection::SimpleConnection;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::capture::{AnyDatabase, Database, Inner, SyncBackend, SyncConnection, Unattached};
use kvsync::change::{ChangeSet, CommitToken, Missed, OutboxRange, Publish};

use super::{postgres as pg, sqlite as lite};
use crate::Result;
use crate::models::{NewUser, User};
use crate::options::Options;
use crate::ratio::Side;
use crate::statements::{Statements, postgres, sqlite};
use crate::table::{Figure, Goal};

const SQLITE: &str = include_str!("../../../kvsync/migrations/sqlite/20250101000000_kvsync_outbox/up.sql");
const POSTGRES: &str = include_str!("../../../kvsync/migrations/postgres/20250101000000_kvsync_outbox/up.sql");

type Write<C> = fn(&mut C, i32, &NewUser) -> QueryResult<()>;
type OnSqlite = SyncConnection<SqliteConnection>;
type OnPostgres = SyncConnection<PgConnection>;

pub(crate) fn wal(options: &Options) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (name, wrapped, plain) in [
        ("INSERT", sqlite::insert as Write<OnSqlite>, sqlite::insert as Write<SqliteConnection>),
        ("UPDATE", sqlite::update, sqlite::update),
    ] {
        for by in [By::Outbox, By::Triggers] {
            let dir = tempfile::tempdir()?;
            let mut conn = lite::filled(&dir.path().join("ours.db").to_string_lossy())?;
            conn.batch_execute(SQLITE)?;
            let declared = Database::<Sqlite>::new("main", || SqliteConnection::establish(":memory:"));
            let mut ours = wrap(conn, declared, by, wrapped)?;
            let mut theirs = lite::file_plain(dir.path(), plain)?;
            let rounds = lite::file_turns(options).measure(&mut ours, &mut theirs)?;
            figures.push(rounds.times(
                format!("{name}, autocommit, file in WAL mode, {}: wrapped ÷ plain (wall)", by.name()),
                Goal::Reported,
            ));
        }
    }
    Ok(figures)
}

pub(crate) fn on_postgres(options: &Options) -> Result<Vec<Figure>> {
    let pinned = pg::pinned()?;
    let clock = pg::wall(pinned.as_ref());
    let mut figures = Vec::new();
    for (name, wrapped, plain) in [
        ("INSERT", postgres::insert as Write<OnPostgres>, postgres::insert as Write<PgConnection>),
        ("UPDATE", postgres::update, postgres::update),
    ] {
        for by in [By::Outbox, By::Triggers] {
            let mut conn = pg::filled("ours")?;
            conn.batch_execute(POSTGRES)?;
            let url = pg::url("ours")?;
            let declared = Database::<Pg>::new("main", move || PgConnection::establish(&url));
            let mut ours = wrap(conn, declared, by, wrapped)?;
            let mut theirs = pg::plain("theirs", plain)?;
            let rounds = pg::turns(options).measure(&mut ours, &mut theirs)?;
            figures.push(
                rounds.times(format!("{name}, autocommit, {}: wrapped ÷ plain ({clock})", by.name()), Goal::Reported),
            );
        }
    }
    Ok(figures)
}

/// Who fills the outbox.
#[derive(Clone, Copy)]
enum By {
    Outbox,
    Triggers,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            Self::Outbox => "outbox",
            Self::Triggers => "triggers",
        }
    }
}

fn wrap<DB, C>(conn: C, declared: Database<DB>, by: By, statement: Write<SyncConnection<C>>) -> Result<impl Side>
where
    DB: SyncBackend,
    C: Inner<Backend = DB>,
    User: kvsync::capture::SyncModel<DB>,
{
    let declared = match by {
        By::Outbox => declared.model::<User>().outbox(),
        By::Triggers => declared.triggers::<User>(),
    };
    let attached: Arc<dyn AnyDatabase> = Box::new(declared).attach(Arc::new(Nobody))?;
    let mut conn = attached.downcast::<DB>().ok_or("not of this backend")?.wrap(conn)?;
    conn.install_triggers()?;
    Ok(Statements::plain(conn, statement))
}

/// Takes note of nothing.
struct Nobody;

impl Publish for Nobody {
    fn publish(&self, _: ChangeSet) -> CommitToken {
        CommitToken { process: 0, sequence: 0, rows: Vec::new(), outbox: None }
    }

    fn outboxed(&self, range: OutboxRange) -> CommitToken {
        CommitToken { process: 0, sequence: 0, rows: Vec::new(), outbox: Some(range) }
    }

    fn epoch(&self) -> u32 {
        0
    }

    fn missed(&self, _: Missed) {}
}
