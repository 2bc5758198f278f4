//! A wrapped connection gives what a plain one gives, leaves the same rows, and captures what changed.

mod common;
mod judged;
mod models;
mod postgres;
mod random;
mod run;
mod sqlite;

use std::fmt::Debug;
use std::sync::Arc;

use diesel::QueryResult;
use diesel::connection::SimpleConnection;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::Text;
use diesel::sqlite::Sqlite;
use kvsync::capture::{Attached, Database, SQLITE_COUNTER, SyncConnection, Unattached};
use kvsync::model::Model;
use kvsync_tests::postgres::{FreshDatabase, fresh_database};
use kvsync_tests::recorder::Recorder;

use self::models::{Counter, Membership, Note, Role, Slim, User};
use self::random::Whole;
use self::run::{Images, Mode, Pair, Rows};

pub(crate) type Wrapped<C> = SyncConnection<C>;

/// The rows that every shape finds.
const ROWS: &str = "
    INSERT INTO users (name, age, active) VALUES
        ('ada', 30, true), ('bob', 41, true), ('cyd', NULL, false), ('dan', 7, true), ('eve', 18, false);
    INSERT INTO posts (user_id, title) VALUES (1, 'first'), (2, 'second'), (1, 'third');
    INSERT INTO memberships VALUES (1, 1, 'owner', NULL), (1, 2, 'guest', 'note');
    INSERT INTO counters (hits) VALUES (5);";

/// The columns that only one of the databases has a type for.
const SQLITE_ROWS: &str =
    "INSERT INTO documents VALUES ('d', '{\"a\": 1}', '2024-02-29 12:00:00', '2024-02-29', x'00ff', 0.5, 9);";
const POSTGRES_ROWS: &str = "INSERT INTO documents VALUES ('00000000-0000-0000-0000-000000000001', '{\"a\": 1}',
    '{a,b}', '2024-02-29T12:00:00Z', '2024-02-29', '12:00', '\\x00ff', 0.5, 9);";

fn user(id: i32, name: &str) -> User {
    User { id, name: name.to_owned(), age: Some(20), active: true }
}

fn member(team_id: i32, user_id: i32, role: Role, note: Option<&str>) -> Membership {
    Membership { team_id, user_id, role, note: Note { note: note.map(str::to_owned) } }
}

/// Rows in an order of their own: a statement promises none.
fn sorted<T, K: Ord>(rows: QueryResult<Vec<T>>, key: impl Fn(&T) -> K) -> QueryResult<Vec<T>> {
    rows.map(|mut rows| {
        rows.sort_by_key(key);
        rows
    })
}

/// Reads the rows of models.
macro_rules! rows {
    ($conn:expr; $($model:ty),*) => {{
        let mut rows = Rows::new();
        $(for row in <$model as diesel::associations::HasTable>::table().select(<$model>::as_select()).load($conn).unwrap() {
            rows.insert((Model::schema(&row).model, Model::home(&row).as_str().to_owned()), content(&row));
        })*
        rows
    }};
}

fn content(row: &impl Debug) -> String {
    format!("{row:?}")
}

macro_rules! content_of {
    ($row:expr; $($model:ty),*) => {{
        let row: &dyn Model = $row;
        $(if let Some(row) = row.downcast_ref::<$model>() {
            return content(row);
        })*
        panic!("a row of an unknown model: {row:?}")
    }};
}

/// The database as capture knows it.
macro_rules! attached {
    ($backend:ty, $open:expr, $recorder:expr, $mode:expr; $($model:ty),*) => {{
        let database = Database::<$backend>::new("main", $open);
        let database = match $mode {
            Mode::Queue => database$(.model::<$model>())*,
            Mode::Outbox => database$(.model::<$model>())*.outbox(),
            Mode::Triggers => database$(.triggers::<$model>())*,
        };
        let attached = Box::new(database).attach(Arc::<Recorder>::clone($recorder)).unwrap();
        attached.downcast::<$backend>().unwrap().clone()
    }};
}

fn raw<T: Debug>(result: QueryResult<T>) -> String {
    run::outcome(|| result)
}

/// Both forms of running raw SQL.
macro_rules! raw {
    () => {
        fn plain_raw(plain: &mut Self::Plain, sql: &str, rows: bool) -> String {
            if rows {
                raw(sorted(sql_query(sql).load::<Whole>(plain), |row| format!("{row:?}")))
            } else {
                raw(sql_query(sql).execute(plain))
            }
        }

        fn wrapped_raw(wrapped: &mut Self::Wrapped, sql: &str, rows: bool) -> String {
            if rows {
                raw(sorted(sql_query(sql).load::<Whole>(wrapped), |row| format!("{row:?}")))
            } else {
                raw(sql_query(sql).execute(wrapped))
            }
        }
    };
}

/// A row of [`Pair::images`] or of [`Pair::outbox`].
#[derive(QueryableByName)]
struct Told {
    #[diesel(sql_type = Text)]
    one: String,
    #[diesel(sql_type = Text)]
    two: String,
    #[diesel(sql_type = Text)]
    three: String,
}

/// How the rows of the outbox are read: those of a test are left to nobody.
macro_rules! outbox {
    ($images:expr) => {
        fn images(wrapped: &mut Self::Wrapped) -> Images {
            let rows: Vec<Told> = sql_query($images).load(wrapped.unsynced()).unwrap();
            rows.into_iter().map(|row| ((row.one, row.two), row.three)).collect()
        }

        fn outbox(wrapped: &mut Self::Wrapped) -> Vec<(String, String, String)> {
            let ask = "SELECT table_name AS one, action AS two, primary_key AS three FROM kvsync_outbox ORDER BY id";
            let rows: Vec<Told> = sql_query(ask).load(wrapped.unsynced()).unwrap();
            sql_query("DELETE FROM kvsync_outbox").execute(wrapped.unsynced()).unwrap();
            rows.into_iter().map(|row| (row.one, row.two, row.three)).collect()
        }

        fn mode(&self) -> Mode {
            self.mode
        }
    };
}

const SQLITE_IMAGES: &str = "
    SELECT 'users' AS one, quote(id) AS two, quote(name) || quote(age) || quote(active) AS three FROM users
    UNION ALL SELECT 'memberships', quote(team_id) || ',' || quote(user_id), quote(role) || quote(note) FROM memberships
    UNION ALL SELECT 'counters', quote(id), quote(hits) FROM counters
    UNION ALL SELECT 'documents', quote(id), 'there' FROM documents";
const POSTGRES_IMAGES: &str = "
    SELECT 'users' AS one, json_build_object('id', id)::text AS two, row_to_json(t)::text AS three FROM users AS t
    UNION ALL SELECT 'memberships', json_build_object('team_id', team_id, 'user_id', user_id)::text, row_to_json(t)::text
        FROM memberships AS t
    UNION ALL SELECT 'counters', json_build_object('id', id)::text, row_to_json(t)::text FROM counters AS t
    UNION ALL SELECT 'documents', json_build_object('id', id)::text, row_to_json(t)::text FROM documents AS t";
const SQLITE_OUTBOX: &str = include_str!("../../../kvsync/migrations/sqlite/20250101000000_kvsync_outbox/up.sql");
const POSTGRES_OUTBOX: &str = include_str!("../../../kvsync/migrations/postgres/20250101000000_kvsync_outbox/up.sql");

struct SqlitePair {
    mode: Mode,
    /// Whether the wrapped one has the counter that several processes need.
    counter: bool,
    attached: Attached<Sqlite>,
    recorder: Arc<Recorder>,
}

impl Pair for SqlitePair {
    type Plain = SqliteConnection;
    type Wrapped = Wrapped<SqliteConnection>;

    fn fresh(&mut self) -> (Self::Plain, Self::Wrapped) {
        let open = || {
            let mut conn = SqliteConnection::establish(":memory:").unwrap();
            conn.batch_execute(&[sqlite::TABLES, ROWS, SQLITE_ROWS].concat()).unwrap();
            conn
        };
        let mut wrapped = open();
        if self.counter {
            wrapped.batch_execute(SQLITE_COUNTER).unwrap();
        }
        if self.mode != Mode::Queue {
            wrapped.batch_execute(SQLITE_OUTBOX).unwrap();
        }
        let mut wrapped = self.attached.wrap(wrapped).unwrap();
        if self.mode == Mode::Triggers {
            wrapped.install_triggers().unwrap();
            wrapped.unsynced().batch_execute("PRAGMA recursive_triggers = ON").unwrap();
        }
        (open(), wrapped)
    }

    outbox!(SQLITE_IMAGES);

    fn plain_rows(plain: &mut Self::Plain) -> Rows {
        rows!(plain; User, Slim, Membership, Counter, sqlite::Document)
    }

    fn wrapped_rows(wrapped: &mut Self::Wrapped) -> Rows {
        rows!(wrapped; User, Slim, Membership, Counter, sqlite::Document)
    }

    fn content(row: &dyn Model) -> String {
        content_of!(row; User, Slim, Membership, Counter, sqlite::Document)
    }

    raw!();

    fn recorder(&self) -> &Arc<Recorder> {
        &self.recorder
    }
}

struct PostgresPair {
    mode: Mode,
    plain: FreshDatabase,
    wrapped: FreshDatabase,
    attached: Attached<Pg>,
    recorder: Arc<Recorder>,
}

impl Pair for PostgresPair {
    type Plain = PgConnection;
    type Wrapped = Wrapped<PgConnection>;

    fn fresh(&mut self) -> (Self::Plain, Self::Wrapped) {
        let open = |database: &FreshDatabase| {
            let mut conn = database.connect().unwrap();
            let empty = "TRUNCATE users, posts, memberships, counters, documents RESTART IDENTITY;";
            conn.batch_execute(&[empty, ROWS, POSTGRES_ROWS].concat()).unwrap();
            conn
        };
        let mut wrapped = open(&self.wrapped);
        if self.mode != Mode::Queue {
            wrapped.batch_execute("DELETE FROM kvsync_outbox").unwrap();
        }
        (open(&self.plain), self.attached.wrap(wrapped).unwrap())
    }

    outbox!(POSTGRES_IMAGES);

    fn plain_rows(plain: &mut Self::Plain) -> Rows {
        rows!(plain; User, Slim, Membership, Counter, postgres::Document)
    }

    fn wrapped_rows(wrapped: &mut Self::Wrapped) -> Rows {
        rows!(wrapped; User, Slim, Membership, Counter, postgres::Document)
    }

    fn content(row: &dyn Model) -> String {
        content_of!(row; User, Slim, Membership, Counter, postgres::Document)
    }

    raw!();

    fn recorder(&self) -> &Arc<Recorder> {
        &self.recorder
    }
}

fn sqlite_pair(mode: Mode, counter: bool) -> SqlitePair {
    let recorder = Recorder::new();
    let open = || SqliteConnection::establish(":memory:");
    let attached = attached!(Sqlite, open, &recorder, mode; User, Slim, Membership, Counter, sqlite::Document);
    SqlitePair { mode, counter, attached, recorder }
}

fn postgres_pair(mode: Mode) -> PostgresPair {
    let (plain, wrapped) = (fresh_database().unwrap(), fresh_database().unwrap());
    for database in [&plain, &wrapped] {
        database.connect().unwrap().batch_execute(postgres::TABLES).unwrap();
    }
    let recorder = Recorder::new();
    let url = wrapped.url();
    let open = move || PgConnection::establish(&url);
    let attached = attached!(Pg, open, &recorder, mode; User, Slim, Membership, Counter, postgres::Document);
    if mode != Mode::Queue {
        wrapped.connect().unwrap().batch_execute(POSTGRES_OUTBOX).unwrap();
    }
    if mode == Mode::Triggers {
        attached.connect().unwrap().install_triggers().unwrap();
    }
    PostgresPair { mode, plain, wrapped, attached, recorder }
}

#[test]
fn every_shape_on_sqlite() {
    run::run(sqlite_pair(Mode::Queue, false), sqlite::all());
}

#[test]
fn every_shape_on_sqlite_with_a_counter() {
    run::run(sqlite_pair(Mode::Queue, true), sqlite::all());
}

#[test]
fn every_shape_on_sqlite_with_an_outbox() {
    run::run(sqlite_pair(Mode::Outbox, true), sqlite::all());
}

#[test]
fn every_shape_on_sqlite_with_triggers() {
    run::run(sqlite_pair(Mode::Triggers, true), sqlite::all());
}

#[test]
fn every_shape_on_postgres() {
    run::run(postgres_pair(Mode::Queue), postgres::all());
}

#[test]
fn every_shape_on_postgres_with_an_outbox() {
    run::run(postgres_pair(Mode::Outbox), postgres::all());
}

#[test]
fn every_shape_on_postgres_with_triggers() {
    run::run(postgres_pair(Mode::Triggers), postgres::all());
}

#[test]
fn random_statements_on_sqlite() {
    random::run(sqlite_pair(Mode::Queue, false), false, 300);
}

#[test]
fn random_statements_on_sqlite_with_a_counter() {
    random::run(sqlite_pair(Mode::Queue, true), false, 200);
}

#[test]
fn random_statements_on_sqlite_with_an_outbox() {
    random::run(sqlite_pair(Mode::Outbox, true), false, 60);
}

#[test]
fn random_statements_on_sqlite_with_triggers() {
    random::run(sqlite_pair(Mode::Triggers, true), false, 60);
}

#[test]
fn random_statements_on_postgres() {
    random::run(postgres_pair(Mode::Queue), true, 100);
}

#[test]
fn random_statements_on_postgres_with_an_outbox() {
    random::run(postgres_pair(Mode::Outbox), true, 20);
}

#[test]
fn random_statements_on_postgres_with_triggers() {
    random::run(postgres_pair(Mode::Triggers), true, 20);
}
