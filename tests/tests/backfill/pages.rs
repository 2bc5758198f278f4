//! A table is read page by page, each row once, whatever its primary key is made of.

use std::fmt::{Debug, Write as _};
use std::sync::Arc;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::capture::{AnyDatabase, Database, Unattached};
use kvsync::change::Publish;
use kvsync::model::{Position, Source};
use kvsync::{ErrorKind, Scope, Syncable, Version};
use kvsync_tests::postgres::{FreshDatabase, fresh_database};
use kvsync_tests::recorder::Recorder;
use kvsync_tests::wait::{LONG, until};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

diesel::table! { notes (name, no) { name -> Text, no -> Integer, body -> Text, deleted -> Bool } }
diesel::table! { things (id) { id -> diesel::sql_types::Uuid, body -> Text } }
diesel::table! { loose (id) { id -> Text, body -> Text } }

/// Two columns, and rows that are not live.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = notes, primary_key(name, no))]
#[sync_key(name = "name", fmt = "note:<name>:<no>")]
#[sync(live_if = "NOT deleted")]
struct Note {
    name: String,
    no: i32,
    body: String,
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = things)]
#[sync_key(name = "id", fmt = "thing:<id>")]
struct Thing {
    id: Uuid,
    body: String,
}

/// In SQLite, a primary key of whatever class.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = loose)]
#[sync_key(name = "id", fmt = "loose:<id>")]
struct Loose {
    id: String,
    body: String,
}

/// Names that an order could trip over.
const NAMES: [&str; 10] = ["a", "B", "b", "", "a'b", "Z", "ä", "a/b", "%2F", "a b"];

fn notes_sql() -> String {
    let mut sql = String::new();
    for name in NAMES {
        for no in [-2, 0, 10, 9] {
            let name = name.replace('\'', "''");
            write!(sql, "INSERT INTO notes VALUES ('{name}', {no}, 'x', {});", no == 9).unwrap();
        }
    }
    sql
}

/// All rows, read in pages of this size: those that are live, by their home keys, and how many are not.
fn pages<M: Syncable + Clone + Debug>(source: &dyn Source, scope: &Scope, most: usize) -> (Vec<M>, usize) {
    let (mut rows, mut hidden, mut after) = (Vec::new(), 0, None);
    loop {
        let page = source.page(M::SCHEMA, scope, after.as_ref(), most, LONG).unwrap();
        assert!(page.rows.len() <= most && page.nameless.is_empty());
        for scanned in page.rows {
            match scanned.row.unwrap() {
                Some(row) => {
                    assert_eq!(row.home(), *scanned.primary_key.home());
                    rows.push(row.downcast_ref::<M>().unwrap().clone());
                }
                None => hidden += 1,
            }
        }
        // As another process would go on.
        after = page.next.map(|next| {
            let text = serde_json::to_string(&next).unwrap();
            serde_json::from_str::<Position>(&text).unwrap()
        });
        if after.is_none() {
            return (rows, hidden);
        }
    }
}

fn check_notes(source: &dyn Source, scope: &Scope) {
    let (whole, hidden) = pages::<Note>(source, scope, 1000);
    let mut seen: Vec<(String, i32)> = whole.iter().map(|note| (note.name.clone(), note.no)).collect();
    seen.sort();
    let mut all: Vec<(String, i32)> =
        NAMES.iter().flat_map(|name| [-2, 0, 10].map(|no| ((*name).to_owned(), no))).collect();
    all.sort();
    assert_eq!(seen, all);
    assert_eq!(hidden, NAMES.len());
    for most in [1, 2, 3, 4, 7, 40] {
        assert_eq!(pages::<Note>(source, scope, most), (whole.clone(), hidden), "pages of {most}");
    }
}

struct Lite {
    attached: Arc<dyn AnyDatabase>,
    path: String,
    _dir: tempfile::TempDir,
}

impl Lite {
    fn new(sql: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.db").to_string_lossy().into_owned();
        SqliteConnection::establish(&path).unwrap().batch_execute(sql).unwrap();
        let open = path.clone();
        let declared = Database::<Sqlite>::new("main", move || SqliteConnection::establish(&open));
        let declared = declared.model::<Note>().model::<Loose>();
        let attached = Box::new(declared).attach(Recorder::new() as Arc<dyn Publish>).unwrap();
        Self { attached, path, _dir: dir }
    }

    fn source(&self) -> Arc<dyn Source> {
        self.attached.source()
    }
}

struct Postgres {
    attached: Arc<dyn AnyDatabase>,
    database: FreshDatabase,
}

impl Postgres {
    fn new(sql: &str, configure: impl FnOnce(Database<Pg>) -> Database<Pg>) -> Self {
        let database = fresh_database().unwrap();
        database.connect().unwrap().batch_execute(sql).unwrap();
        let url = database.url();
        let declared = Database::<Pg>::new("main", move || PgConnection::establish(&url));
        let declared = configure(declared.model::<Note>().model::<Thing>());
        let attached = Box::new(declared).attach(Recorder::new() as Arc<dyn Publish>).unwrap();
        Self { attached, database }
    }

    fn source(&self) -> Arc<dyn Source> {
        self.attached.source()
    }
}

const PG_NOTES: &str = "CREATE TABLE notes (name TEXT COLLATE \"und-x-icu\", no INT, body TEXT NOT NULL, \
                        deleted BOOL NOT NULL, PRIMARY KEY (name, no));";

#[test]
fn each_row_once_in_whatever_pages_on_sqlite() {
    for collation in ["BINARY", "NOCASE"] {
        let on = Lite::new(&format!(
            "CREATE TABLE notes (name TEXT COLLATE {collation}, no INTEGER, body TEXT NOT NULL, deleted BOOLEAN NOT NULL, \
             CHECK (1)); CREATE UNIQUE INDEX notes_key ON notes (name COLLATE BINARY, no);"
        ));
        let mut conn = SqliteConnection::establish(&on.path).unwrap();
        conn.batch_execute(&notes_sql()).unwrap();
        // Under NOCASE two rows are equal in the order: as a primary key they could not both stand.
        if collation == "NOCASE" {
            conn.batch_execute("DELETE FROM notes WHERE name = 'B' COLLATE BINARY").unwrap();
            let (whole, _) = pages::<Note>(&*on.source(), &Scope::NONE, 1000);
            assert_eq!(whole.len(), (NAMES.len() - 1) * 3);
            for most in [1, 3, 5] {
                assert_eq!(pages::<Note>(&*on.source(), &Scope::NONE, most).0, whole);
            }
        } else {
            check_notes(&*on.source(), &Scope::NONE);
        }
    }
}

#[test]
fn each_row_once_in_whatever_pages_on_postgres() {
    let on = Postgres::new(&format!("{PG_NOTES} {}", notes_sql()), |database| database);
    check_notes(&*on.source(), &Scope::NONE);
    assert_eq!(on.source().scopes(Note::SCHEMA, LONG).unwrap(), []);
}

#[test]
fn a_position_keeps_the_class_of_a_value_and_every_byte_of_it() {
    let on = Lite::new(
        "CREATE TABLE loose (id PRIMARY KEY, body TEXT NOT NULL);
         INSERT INTO loose VALUES (NULL, 'x'), (1, 'x'), ('1', 'x'), (x'31', 'x'), (1.5, 'x'), (0.1, 'x'), (-3, 'x'), ('', 'x'),
         (x'', 'x'), ('a', 'x'), ('a' || char(0) || 'b', 'x'), ('a' || char(0) || 'c', 'x'), (9223372036854775807, 'x'),
         ('''; DROP TABLE loose; --', 'x')",
    );
    let source = on.source();
    let (mut after, mut rows, mut nameless) = (None, 0, 0);
    for _ in 0..14 {
        let page = source.page(Loose::SCHEMA, &Scope::NONE, after.as_ref(), 1, LONG).unwrap();
        (rows, nameless) = (rows + page.rows.len(), nameless + page.nameless.len());
        after = page.next;
    }
    assert_eq!((rows + nameless, after), (13, None));
}

#[test]
fn uuids_are_read_in_pages() {
    let on = Postgres::new(
        "CREATE TABLE things (id UUID PRIMARY KEY, body TEXT NOT NULL);
         INSERT INTO things SELECT gen_random_uuid(), 'x' FROM generate_series(1, 100)",
        |database| database,
    );
    let (whole, _) = pages::<Thing>(&*on.source(), &Scope::NONE, 1000);
    assert_eq!(whole.len(), 100);
    assert!(whole.is_sorted_by_key(|thing| thing.id));
    assert_eq!(pages::<Thing>(&*on.source(), &Scope::NONE, 9).0, whole);
    assert_eq!(on.source().estimate(Thing::SCHEMA, &Scope::NONE, LONG).unwrap(), Some(100));
}

#[test]
fn a_text_that_is_no_position_is_refused_and_harmless() {
    let lite = Lite::new("CREATE TABLE loose (id TEXT PRIMARY KEY, body TEXT NOT NULL)");
    let pg = Postgres::new("CREATE TABLE things (id UUID PRIMARY KEY, body TEXT NOT NULL)", |database| database);
    for text in ["", "loose", "loose/", "loose/i1/i2", "loose/x'00'", "loose/'; DROP TABLE loose; --", "things/i1"] {
        let position = Position::from(text.to_owned());
        let error = lite.source().page(Loose::SCHEMA, &Scope::NONE, Some(&position), 1, LONG).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{text}: {error}");
    }
    for text in ["", "things", "things/1", "things/'; DROP TABLE things; --", "loose/t31"] {
        let position = Position::from(text.to_owned());
        let error = pg.source().page(Thing::SCHEMA, &Scope::NONE, Some(&position), 1, LONG).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{text}: {error}");
    }
    assert!(pg.source().page(Thing::SCHEMA, &Scope::NONE, None, 1, LONG).unwrap().rows.is_empty());
}

#[test]
fn a_scope_is_read_in_its_schema_and_no_other() {
    let on = Postgres::new(
        &format!(
            "{PG_NOTES} CREATE SCHEMA t2; SET search_path TO t2; {PG_NOTES} INSERT INTO notes VALUES ('a', 1, 'x', false)"
        ),
        |database| database.scopes(|schema| schema.starts_with(['t', 'p']).then(|| Scope::named(schema))),
    );
    let source = on.source();
    let (two, public) = (Scope::named("t2"), Scope::named("public"));
    assert_eq!(source.scopes(Note::SCHEMA, LONG).unwrap(), [public.clone(), two.clone()]);
    assert_eq!(pages::<Note>(&*source, &two, 10).0.len(), 1);
    assert_eq!(pages::<Note>(&*source, &public, 10).0.len(), 0);
    assert_eq!(source.estimate(Note::SCHEMA, &two, LONG).unwrap(), Some(1));
    let error = source.page(Note::SCHEMA, &Scope::named("t9"), None, 1, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
}

#[test]
fn the_barrier_waits_for_who_was_there_and_not_for_who_comes() {
    let on = Postgres::new(PG_NOTES, |database| database);
    let source = on.source();
    let mut writer = on.database.connect().unwrap();
    let position = "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::int8";
    let at = |conn: &mut PgConnection| -> u64 {
        diesel::dsl::sql::<diesel::sql_types::BigInt>(position).get_result::<i64>(conn).unwrap().unsigned_abs()
    };
    let before = at(&mut writer);
    let version = source.barrier(LONG).unwrap();
    assert!(version.sequence() >= before && version < Version::new(0, version.timeline(), at(&mut writer)));
    writer.batch_execute("BEGIN; INSERT INTO notes VALUES ('a', 1, 'x', false)").unwrap();
    until("it says who holds it", || {
        let error = source.barrier(Duration::from_secs(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Deadline, "{error}");
        error.to_string().contains("process ")
    });
    // A page waits for nobody.
    assert!(source.page(Note::SCHEMA, &Scope::NONE, None, 1, LONG).unwrap().rows.is_empty());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| source.barrier(LONG).unwrap());
        writer.batch_execute("COMMIT").unwrap();
        waiting.join().unwrap();
    });
}

#[test]
fn a_scan_goes_on_after_its_idle_connection_broke() {
    let on = Postgres::new(PG_NOTES, |database| database);
    let source = on.source();
    source.barrier(LONG).unwrap();
    let kill = "SELECT pg_terminate_backend(pid, 600000) FROM pg_stat_activity \
                WHERE datname = current_database() AND pid <> pg_backend_pid()";
    on.database.connect().unwrap().batch_execute(kill).unwrap();
    source.barrier(LONG).unwrap();
}
