//! From an ordinary Diesel statement to a typed fetch, for every kind of model.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::capture::{Database, SyncConnection};
use kvsync::clock::ManualClock;
use kvsync::codec::Codec;
use kvsync::store::embedded::EmbeddedStore;
use kvsync::store::memory::MemoryStore;
use kvsync::store::{Status, SyncStore};
use kvsync::{Builder, Error, ErrorKind, Key, KvSync, Lookup, Miss, Scope, Syncable};
use kvsync_tests::Tested;
use kvsync_tests::wait::LONG;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

diesel::table! {
    users (id) {
        id -> Integer,
        org -> Integer,
        email -> Nullable<Text>,
        name -> Text,
        deleted -> Bool,
    }
}

const TABLE: &str = "CREATE TABLE users (id INTEGER PRIMARY KEY, org INTEGER NOT NULL, email TEXT, name TEXT NOT NULL, deleted BOOLEAN NOT NULL DEFAULT 0, UNIQUE (org, email))";

#[derive(
    Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Insertable, Serialize, Deserialize, Syncable,
)]
#[diesel(table_name = users)]
#[sync_key(name = "id", fmt = "user:<id>")]
#[sync_key(name = "email", fmt = "user:<org>:<email>")]
struct User {
    id: i32,
    org: i32,
    email: Option<String>,
    name: String,
}

fn ann() -> User {
    User { id: 1, org: 7, email: Some("ann@example.com".into()), name: "ann".into() }
}

/// A database in a folder that goes with it.
struct App {
    kv: KvSync,
    conn: SyncConnection<SqliteConnection>,
    path: String,
    _dir: tempfile::TempDir,
}

fn app(builder: Builder, models: impl FnOnce(Database<Sqlite>) -> Database<Sqlite>) -> App {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db").to_string_lossy().into_owned();
    let open = path.clone();
    let database = Database::<Sqlite>::new("main", move || {
        let mut conn = SqliteConnection::establish(&open)?;
        conn.batch_execute("PRAGMA busy_timeout = 300000")
            .map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
        Ok::<_, diesel::ConnectionError>(conn)
    });
    let kv = builder.database(models(database)).build().unwrap();
    let mut conn = kv.connect::<Sqlite>("main").unwrap();
    conn.batch_execute(TABLE).unwrap();
    App { kv, conn, path, _dir: dir }
}

fn in_memory() -> (MemoryStore, App) {
    let store = MemoryStore::new();
    (store.clone(), app(KvSync::builder().store(store), Database::model::<User>))
}

impl App {
    fn insert(&mut self, user: &User) {
        diesel::insert_into(users::table).values(user).execute(&mut self.conn).unwrap();
        self.kv.flush(LONG).unwrap();
    }

    fn run(&mut self, sql: &str) {
        diesel::sql_query(sql).execute(&mut self.conn).unwrap();
        self.kv.flush(LONG).unwrap();
    }
}

#[test]
fn a_null_part_means_no_key_and_a_new_value_brings_it_back() -> Tested {
    let (_, mut app) = in_memory();
    app.insert(&ann());
    assert_eq!(User::fetch_by_email(&app.kv, 7, "ann@example.com")?, Some(ann()));
    app.run("UPDATE users SET email = NULL");
    assert_eq!(User::lookup_by_email(&app.kv, 7, "ann@example.com")?, Lookup::Absent);
    assert_eq!(User::fetch_by_id(&app.kv, 1)?, Some(User { email: None, ..ann() }));
    app.run("UPDATE users SET email = 'ann@example.com', org = 8");
    assert_eq!(User::fetch_by_email(&app.kv, 8, "ann@example.com")?, Some(User { org: 8, ..ann() }));
    assert_eq!(User::lookup_by_email(&app.kv, 7, "ann@example.com")?, Lookup::Absent);
    Ok(())
}

#[test]
fn rows_that_swap_their_unique_values_end_under_the_right_ones() -> Tested {
    let (_, mut app) = in_memory();
    app.insert(&ann());
    let bob = User { id: 2, email: Some("bob@example.com".into()), name: "bob".into(), ..ann() };
    app.insert(&bob);
    app.conn.transaction(|conn| {
        for (id, email) in [(1, "swap"), (2, "ann@example.com"), (1, "bob@example.com")] {
            diesel::update(users::table.find(id)).set(users::email.eq(email)).execute(conn)?;
        }
        Ok::<_, diesel::result::Error>(())
    })?;
    app.kv.flush(LONG)?;
    assert_eq!(User::fetch_by_email(&app.kv, 7, "ann@example.com")?.map(|user| user.id), Some(2));
    assert_eq!(User::fetch_by_email(&app.kv, 7, "bob@example.com")?.map(|user| user.id), Some(1));
    assert_eq!(User::fetch_by_email(&app.kv, 7, "swap")?, None);
    Ok(())
}

#[test]
fn a_changed_primary_key_leaves_nothing_under_the_old_one() -> Tested {
    let (_, mut app) = in_memory();
    app.insert(&ann());
    app.run("DELETE FROM users WHERE id = 1");
    app.insert(&User { id: 5, ..ann() });
    assert_eq!(User::lookup_by_id(&app.kv, 1)?, Lookup::Absent);
    assert_eq!(User::fetch_by_email(&app.kv, 7, "ann@example.com")?.map(|user| user.id), Some(5));
    Ok(())
}

#[derive(Debug, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = users)]
#[sync(live_if = "NOT deleted", codec = kvsync::codec::Json)]
#[sync_key(name = "email", fmt = "live:<org>:<email>", assume_unique)]
struct LiveUser {
    id: i32,
    org: i32,
    email: Option<String>,
}

#[test]
fn a_soft_deleted_row_is_absent_and_purging_it_spares_its_successor() -> Tested {
    let store = MemoryStore::new();
    let mut app = app(KvSync::builder().store(store), Database::model::<LiveUser>);
    app.run("INSERT INTO users (id, org, email, name) VALUES (1, 7, 'a', 'ann')");
    assert_eq!(LiveUser::fetch_by_email(&app.kv, 7, "a")?, Some(LiveUser { id: 1, org: 7, email: Some("a".into()) }));
    app.run("UPDATE users SET deleted = 1 WHERE id = 1");
    assert_eq!(LiveUser::lookup_by_email(&app.kv, 7, "a")?, Lookup::Absent);
    // The unique constraint of the table is lifted for the sake of this test.
    app.conn.batch_execute("CREATE TABLE t AS SELECT * FROM users; DROP TABLE users;").unwrap();
    app.conn.batch_execute(&TABLE.replace(", UNIQUE (org, email)", "")).unwrap();
    app.conn.unsynced().batch_execute("INSERT INTO users SELECT * FROM t").unwrap();
    app.run("INSERT INTO users (id, org, email, name) VALUES (2, 7, 'a', 'bob')");
    app.run("DELETE FROM users WHERE id = 1");
    assert_eq!(LiveUser::fetch_by_email(&app.kv, 7, "a")?.map(|user| user.id), Some(2));
    Ok(())
}

/// All keys are made of the primary key or never change: no ledger is kept.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = users)]
#[sync(codec = kvsync::codec::Bson)]
#[sync_key(name = "id", fmt = "fixed:<id>")]
#[sync_key(name = "org", fmt = "fixed:<org>:<email>", immutable)]
struct FixedUser {
    id: i32,
    org: i32,
    email: Option<String>,
    name: String,
}

#[test]
fn a_model_whose_keys_never_change_is_written_updated_and_deleted() -> Tested {
    let store = MemoryStore::new();
    let mut app = app(KvSync::builder().store(store.clone()), Database::model::<FixedUser>);
    app.run("INSERT INTO users (id, org, email, name) VALUES (1, 7, 'a', 'ann')");
    app.run("UPDATE users SET name = 'anne'");
    let anne = FixedUser { id: 1, org: 7, email: Some("a".into()), name: "anne".into() };
    assert_eq!(FixedUser::fetch_by_id(&app.kv, 1)?, Some(anne.clone()));
    assert_eq!(FixedUser::fetch_strict_by_org(&app.kv, 7, "a")?, Some(anne));
    assert_eq!(store.len(), 2, "one entry a key and no hidden record");
    app.run("DELETE FROM users");
    assert_eq!(FixedUser::lookup_by_id(&app.kv, 1)?, Lookup::Absent);
    assert_eq!(FixedUser::lookup_by_org(&app.kv, 7, "a")?, Lookup::Absent);
    Ok(())
}

/// No key is made of the primary key: the record stands under a hidden one.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = users)]
#[sync(generation = 3)]
#[sync_key(name = "name", fmt = "<<names>>/<name>/<org>", assume_unique)]
#[sync_key(name = "pointer", fmt = "pointers/<name>", pointer, assume_unique)]
struct NamedUser {
    id: i32,
    org: i32,
    name: String,
}

#[test]
fn a_model_without_a_primary_key_format_has_a_hidden_record() -> Tested {
    let store = MemoryStore::new();
    let mut app = app(KvSync::builder().store(store.clone()), Database::model::<NamedUser>);
    app.run("INSERT INTO users (id, org, name) VALUES (1, 7, 'a/b')");
    let user = NamedUser { id: 1, org: 7, name: "a/b".into() };
    assert_eq!(NamedUser::fetch_by_name(&app.kv, "a/b", 7)?, Some(user.clone()));
    assert_eq!(NamedUser::fetch_strict_by_name(&app.kv, "a/b", 7)?, Some(user.clone()));
    assert_eq!(NamedUser::fetch_by_pointer(&app.kv, "a/b")?, Some(user));
    let keys = store.scan("", None, 100)?.keys;
    assert!(keys.contains(&Key::new("~users:NamedUser:3:1")), "{keys:?}");
    assert!(keys.contains(&Key::new("<names>/a%2Fb/7")), "{keys:?}");
    app.run("UPDATE users SET name = 'c'");
    assert_eq!(NamedUser::lookup_by_name(&app.kv, "a/b", 7)?, Lookup::Absent);
    assert_eq!(NamedUser::lookup_by_pointer(&app.kv, "a/b")?, Lookup::Absent);
    assert_eq!(NamedUser::fetch_by_pointer(&app.kv, "c")?.map(|user| user.id), Some(1));
    Ok(())
}

#[test]
fn two_models_on_one_table_are_both_written() -> Tested {
    let store = MemoryStore::new();
    let mut app = app(KvSync::builder().store(store), |database| database.model::<User>().model::<FixedUser>());
    app.insert(&ann());
    assert_eq!(User::fetch_by_id(&app.kv, 1)?, Some(ann()));
    assert_eq!(FixedUser::fetch_by_id(&app.kv, 1)?.map(|user| user.name), Some("ann".into()));
    Ok(())
}

/// Every letter moved by one: a codec of the user's own.
struct Rot;

impl Codec for Rot {
    const ID: u8 = 64;
    const NAME: &'static str = "rot";

    fn encode<T: Serialize>(model: &T) -> kvsync::Result<Vec<u8>> {
        let json =
            serde_json::to_vec(model).map_err(|error| Error::new(ErrorKind::Codec, "no json").with_source(error))?;
        Ok(json.into_iter().map(|byte| byte.wrapping_add(1)).collect())
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> kvsync::Result<T> {
        let json: Vec<u8> = bytes.iter().map(|byte| byte.wrapping_sub(1)).collect();
        serde_json::from_slice(&json).map_err(|error| Error::new(ErrorKind::Codec, "not rot").with_source(error))
    }
}

#[derive(Debug, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = users)]
#[sync(codec = Rot, ttl = "1h", jitter = "50%")]
#[sync_key(name = "id", fmt = "rot:<id>")]
struct RotUser {
    id: i32,
    name: String,
}

#[test]
fn an_entry_lives_as_long_as_the_model_says() -> Tested {
    let clock = Arc::new(ManualClock::at(SystemTime::now()));
    let builder =
        KvSync::builder().store(MemoryStore::new()).clock(Arc::clone(&clock) as _).expiration(Duration::from_secs(20));
    let mut app = app(builder, |database| database.model::<RotUser>().model::<User>());
    app.insert(&ann());
    clock.advance(Duration::from_mins(29));
    assert_eq!(RotUser::fetch_by_id(&app.kv, 1)?, Some(RotUser { id: 1, name: "ann".into() }));
    assert_eq!(User::lookup_by_id(&app.kv, 1)?, Lookup::Unknown(Miss::NotStored), "the builder's expiration is over");
    clock.advance(Duration::from_mins(32));
    assert_eq!(RotUser::lookup_by_id(&app.kv, 1)?, Lookup::Unknown(Miss::NotStored));
    Ok(())
}

#[test]
fn a_scope_is_written_and_read_apart() -> Tested {
    let (_, mut app) = in_memory();
    let tenant = app.kv.scoped(Scope::named("t1"));
    let mut conn = tenant.connect::<Sqlite>("main")?;
    diesel::insert_into(users::table).values(&ann()).execute(&mut conn)?;
    app.kv.flush(LONG)?;
    assert_eq!(User::fetch_by_id(&tenant, 1)?, Some(ann()));
    assert_eq!(User::fetch_by_id(&app.kv, 1)?, None);
    app.run("UPDATE users SET name = 'unscoped'");
    assert_eq!(User::fetch_by_id(&tenant, 1)?, Some(ann()));
    Ok(())
}

#[test]
fn several_stores_get_every_change() -> Tested {
    let dir = tempfile::tempdir()?;
    let memory = MemoryStore::new();
    let builder = KvSync::builder().store(EmbeddedStore::open(dir.path())?).store(memory.clone());
    let mut app = app(builder, Database::model::<User>);
    app.insert(&ann());
    let replica = KvSync::builder().store(memory).build()?;
    assert_eq!(User::fetch_by_id(&app.kv, 1)?, Some(ann()));
    assert_eq!(User::fetch_by_id(&replica, 1)?, Some(ann()));
    Ok(())
}

#[test]
fn a_raised_epoch_makes_what_was_written_before_unknown() -> Tested {
    let (_, mut app) = in_memory();
    app.insert(&ann());
    assert_eq!(app.kv.raise_epoch()?, 1);
    assert_eq!(User::lookup_by_id(&app.kv, 1)?, Lookup::Unknown(Miss::OldEpoch));
    app.run("UPDATE users SET name = 'again'");
    assert_eq!(User::fetch_by_id(&app.kv, 1)?.map(|user| user.name), Some("again".into()));
    Ok(())
}

#[test]
fn a_row_written_past_kvsync_is_synced_and_removed_by_hand() -> Tested {
    let (_, mut app) = in_memory();
    let mut other = SqliteConnection::establish(&app.path)?;
    diesel::insert_into(users::table).values(&ann()).execute(&mut other)?;
    assert_eq!(User::fetch_by_id(&app.kv, 1)?, None);
    assert!(app.kv.sync(&User { name: "not believed".into(), ..ann() })?);
    assert_eq!(User::fetch_by_email(&app.kv, 7, "ann@example.com")?, Some(ann()));
    // While the row stands in the database, the store may only say that it does not know.
    app.kv.remove(&ann())?;
    assert_eq!(User::lookup_by_id(&app.kv, 1)?, Lookup::Unknown(Miss::Masked));
    assert_eq!(User::lookup_by_email(&app.kv, 7, "ann@example.com")?, Lookup::Unknown(Miss::Masked));
    assert!(app.kv.sync(&ann())?);
    assert_eq!(User::fetch_by_id(&app.kv, 1)?, Some(ann()));
    diesel::delete(users::table).execute(&mut other)?;
    app.kv.remove(&ann())?;
    assert_eq!(User::lookup_by_email(&app.kv, 7, "ann@example.com")?, Lookup::Absent);
    assert!(!app.kv.sync(&ann())?);
    app.insert(&ann());
    assert_eq!(User::fetch_by_email(&app.kv, 7, "ann@example.com")?, Some(ann()));
    assert_eq!(app.kv.sync(&NamedUser { id: 1, org: 1, name: String::new() }).unwrap_err().kind(), ErrorKind::Config);
    Ok(())
}

#[test]
fn health_is_up_and_a_missed_write_degrades_it() -> Tested {
    let (_, mut app) = in_memory();
    assert_eq!(app.kv.health(LONG).status, Status::Up, "{:?}", app.kv.health(LONG));
    app.conn.batch_execute("INSERT INTO users (id, org, name) VALUES (1, 1, 'missed'); SELECT 1")?;
    let health = app.kv.health(LONG);
    assert_eq!(health.status, Status::Degraded);
    assert!(health.details.iter().any(|detail| detail.contains("users")), "{:?}", health.details);
    Ok(())
}

#[test]
fn a_pool_hands_out_connections_as_they_were_at_first() -> Tested {
    let (_, app) = in_memory();
    let manager = app.kv.scoped(Scope::named("t1")).connection_manager::<Sqlite>("main")?;
    let pool = diesel::r2d2::Pool::builder().max_size(1).build(manager)?;
    let mut conn = pool.get()?;
    conn.set_scope(Scope::named("t2"));
    diesel::insert_into(users::table).values(&ann()).execute(&mut conn)?;
    assert!(conn.last_commit().is_some());
    drop(conn);
    let conn = pool.get()?;
    assert_eq!((conn.scope(), conn.last_commit()), (&Scope::named("t1"), None));
    Ok(())
}

#[test]
fn after_the_end_a_flush_does_not_say_that_all_is_well() -> Tested {
    let (_, mut app) = in_memory();
    app.insert(&ann());
    assert!(app.kv.shutdown(LONG).is_clean());
    diesel::update(users::table).set(users::name.eq("late")).execute(&mut app.conn)?;
    assert_eq!(app.kv.flush(LONG).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(app.kv.health(LONG).status, Status::Degraded);
    app.kv.clear_dirty("main", Some("users"));
    assert!(app.kv.health(LONG).pipeline.dirty.is_empty());
    Ok(())
}

#[derive(Debug, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = users)]
#[sync_key(name = "number", fmt = "user:<id>")]
struct Rival {
    id: i32,
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    let database = |name| Database::<Sqlite>::new(name, || SqliteConnection::establish(":memory:"));
    let refused = |builder: Builder| {
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        error.to_string()
    };
    assert!(refused(KvSync::builder()).contains("neither store nor broker"));
    let store = || KvSync::builder().store(MemoryStore::new());
    assert!(refused(store().workers(0)).contains("one worker"));
    assert!(refused(store().database(database("main")).database(database("main"))).contains("named `main`"));
    let rivals = refused(store().database(database("main").model::<User>().model::<Rival>()));
    assert!(rivals.contains("`User`") && rivals.contains("`Rival`"), "{rivals}");
    let twice = store().database(database("main").model::<User>()).database(database("two").model::<User>());
    assert!(refused(twice).contains("in two databases"));
    assert!(refused(store().expiration(Duration::ZERO)).contains("expiration"));
    assert!(refused(store().jitter(0.5)).contains("jitter"));
    let kv = store().build().unwrap();
    let error = kv.connect::<Sqlite>("mian").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}
