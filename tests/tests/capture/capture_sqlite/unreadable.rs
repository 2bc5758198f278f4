//! A written row that cannot be read as its model is masked, and deleted when it was deleted.

use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::sql_query;
use diesel::sql_types::Text;
use kvsync::change::Change;
use kvsync::store::memory::MemoryStore;
use kvsync::{KvSync, Lookup, Miss};

use super::*;

diesel::table! {
    orders (no) {
        no -> Integer,
        ext_ref -> Text,
        status -> Text,
    }
}

diesel::table! {
    lines (order_no, position) {
        order_no -> Integer,
        position -> Text,
        status -> Text,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, AsExpression, FromSqlRow, Serialize, Deserialize)]
#[diesel(sql_type = Text)]
enum Status {
    Open,
    Paid,
}

impl FromSql<Text, Sqlite> for Status {
    fn from_sql(value: <Sqlite as diesel::backend::Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        match <String as FromSql<Text, Sqlite>>::from_sql(value)?.as_str() {
            "open" => Ok(Self::Open),
            "paid" => Ok(Self::Paid),
            "panic" => panic!("a status that nobody foresaw"),
            other => Err(format!("`{other}` is no status").into()),
        }
    }
}

/// The primary key stands last.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = orders, primary_key(no))]
#[sync_key(name = "no", fmt = "order:<no>")]
#[sync_key(name = "ref", fmt = "ref:<ext_ref>")]
struct Order {
    status: Status,
    ext_ref: String,
    no: i32,
}

/// The columns of the primary key stand apart, in another order than the table's.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = lines, primary_key(order_no, position))]
#[sync_key(name = "id", fmt = "line:<order_no>:<position>")]
struct Line {
    position: String,
    status: Status,
    order_no: i32,
}

/// A key that no ledger lists, and that the primary key does not tell.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = orders, primary_key(no))]
#[sync_key(name = "no", fmt = "fixed:<no>")]
#[sync_key(name = "ref", fmt = "fixed:ref:<ext_ref>", immutable)]
struct Fixed {
    no: i32,
    ext_ref: String,
    status: Status,
}

const TABLES: &str = "CREATE TABLE orders (no INTEGER PRIMARY KEY, ext_ref TEXT NOT NULL UNIQUE, status TEXT NOT NULL); \
                      CREATE TABLE lines (order_no INTEGER NOT NULL, position TEXT NOT NULL, status TEXT NOT NULL, \
                      PRIMARY KEY (order_no, position))";

fn open_orders(models: impl FnOnce(Database<Sqlite>) -> Database<Sqlite>) -> (Conn, Arc<Recorder>) {
    let (mut conn, recorder) = open_with(models(database()));
    conn.batch_execute(TABLES).unwrap();
    assert_eq!(recorder.missed(), []);
    (conn, recorder)
}

fn said(changes: &[Change]) -> Vec<String> {
    changes.iter().map(|change| kvsync_tests::recorder::line(change, |row| format!("{row:?}"))).collect()
}

#[test]
fn its_primary_key_is_handed_on() {
    let (mut conn, recorder) = open_orders(Database::model::<Order>);
    for sql in [
        "INSERT INTO orders VALUES (1, 'a', 'open'), (2, 'b', 'weird')",
        "UPDATE orders SET status = 'weird', ext_ref = 'moved' WHERE no = 1",
        "INSERT INTO orders VALUES (1, 'c', 'open') ON CONFLICT (no) DO UPDATE SET status = 'panic'",
        "DELETE FROM orders",
    ] {
        sql_query(sql).execute(&mut conn).unwrap();
    }
    assert_eq!(
        said(&recorder.changes()),
        [
            "insert Order \"order:1\"",
            "insert unknown order:2",
            "update unknown order:1",
            "upsert unknown order:1",
            "delete absent order:1",
            "delete absent order:2",
        ]
    );
    assert_eq!(recorder.missed(), [], "nothing is amiss with the store");
}

#[test]
fn keys_without_a_ledger_are_named_as_far_as_they_are_known() {
    let (mut conn, recorder) = open_orders(Database::model::<Line>);
    sql_query("INSERT INTO lines VALUES (7, 'x', 'weird')").execute(&mut conn).unwrap();
    sql_query("DELETE FROM lines").execute(&mut conn).unwrap();
    let changes = recorder.changes();
    assert_eq!(said(&changes), ["insert unknown line:7:x", "delete absent line:7:x"]);
    for change in &changes {
        let kept = change.row.unknown().kept;
        assert_eq!(kept.iter().map(kvsync::Key::as_str).collect::<Vec<_>>(), ["line:7:x"]);
    }
    assert_eq!(recorder.missed(), []);

    let (mut conn, recorder) = open_orders(Database::model::<Fixed>);
    sql_query("INSERT INTO orders VALUES (1, 'a', 'weird')").execute(&mut conn).unwrap();
    assert_eq!(said(&recorder.changes()), ["insert unknown fixed:1"]);
    let missed = recorder.missed();
    assert_eq!(missed.len(), 1);
    assert!(missed[0].reason.contains("`weird` is no status"), "{missed:?}");
    assert!(missed[0].reason.contains("only the one made of the primary key"), "{missed:?}");
}

struct App {
    kv: KvSync,
    conn: Conn,
    dir: tempfile::TempDir,
}

const SECONDS: Duration = Duration::from_mins(1);

fn app() -> App {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db").to_string_lossy().into_owned();
    let declared = Database::<Sqlite>::new("main", move || {
        let mut conn = SqliteConnection::establish(&path)?;
        conn.batch_execute("PRAGMA busy_timeout = 300000").map_err(ConnectionError::CouldntSetupConfiguration)?;
        Ok::<_, ConnectionError>(conn)
    });
    let kv = KvSync::builder().store(MemoryStore::new()).database(declared.model::<Order>()).build().unwrap();
    let mut conn = kv.connect::<Sqlite>("main").unwrap();
    conn.batch_execute(TABLES).unwrap();
    App { kv, conn, dir }
}

impl App {
    fn run(&mut self, sql: &str) {
        sql_query(sql).execute(&mut self.conn).unwrap();
        self.kv.flush(SECONDS).unwrap();
    }

    fn under(&self, ext_ref: &str) -> [Lookup<Order>; 2] {
        [Order::lookup_by_no(&self.kv, 1).unwrap(), Order::lookup_by_ref(&self.kv, ext_ref).unwrap()]
    }
}

#[test]
fn its_readers_are_sent_to_the_database_until_it_is_written_anew() {
    let mut app = app();
    app.run("INSERT INTO orders VALUES (1, 'a', 'open')");
    let order = Order { no: 1, ext_ref: "a".into(), status: Status::Open };
    assert_eq!(app.under("a"), [Lookup::Found(order.clone()), Lookup::Found(order)]);
    app.run("UPDATE orders SET status = 'weird', ext_ref = 'moved' WHERE no = 1");
    assert_eq!(app.under("a"), [Lookup::Unknown(Miss::Masked), Lookup::Unknown(Miss::Masked)]);
    app.run("UPDATE orders SET status = 'paid'");
    let order = Order { no: 1, ext_ref: "moved".into(), status: Status::Paid };
    assert_eq!(app.under("moved"), [Lookup::Found(order.clone()), Lookup::Found(order)]);
    assert_eq!(app.under("a")[1], Lookup::Absent);
    app.run("UPDATE orders SET status = 'weird'");
    app.run("DELETE FROM orders");
    assert_eq!(app.under("moved"), [Lookup::Absent, Lookup::Absent]);
}

#[test]
fn one_that_is_read_again_fails_alone_and_says_why() {
    let mut app = app();
    app.run("INSERT INTO orders VALUES (1, 'a', 'weird'), (2, 'b', 'paid')");
    let recorder = Recorder::new();
    let path = app.dir.path().join("app.db").to_string_lossy().into_owned();
    let declared = Database::<Sqlite>::new("main", move || SqliteConnection::establish(&path)).model::<Order>();
    let database = attach(declared, &recorder);
    let wanted = |no: i32| Wanted {
        schema: Order::SCHEMA,
        scope: Scope::NONE,
        primary_key: PrimaryKey::of::<Order>(no),
        floor: Version::ZERO,
    };
    let read = database.source().reread(&[wanted(1), wanted(2), wanted(3)], SECONDS).unwrap();
    let error = read[0].row.as_ref().unwrap_err().to_string();
    for part in ["`orders`", "`Order`", "`weird` is no status"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(read[1].row.as_ref().unwrap().is_some());
    assert!(read[2].row.as_ref().unwrap().is_none());
}
