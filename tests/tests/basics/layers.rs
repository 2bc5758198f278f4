//! Rows through layers: from a Diesel statement to a fetch, by every kind of key.

use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::capture::{Database, SyncConnection};
use kvsync::store::layer::{Fault, Metered, NearCache, Odds, Prefix, Profiled, Retry, Traced};
use kvsync::store::memory::MemoryStore;
use kvsync::{Builder, KvSync, Lookup, Syncable};
use kvsync_tests::Tested;
use kvsync_tests::wait::LONG;
use serde::{Deserialize, Serialize};

diesel::table! {
    users (id) {
        id -> Integer,
        email -> Text,
        name -> Text,
    }
}

#[derive(
    Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Insertable, Serialize, Deserialize, Syncable,
)]
#[diesel(table_name = users)]
#[sync_key(name = "id", fmt = "user:<id>")]
#[sync_key(name = "email", fmt = "user:email:<email>")]
#[sync_key(name = "name", fmt = "user:name:<name>", pointer)]
struct User {
    id: i32,
    email: String,
    name: String,
}

fn ann() -> User {
    User { id: 1, email: "ann@example.com".into(), name: "ann".into() }
}

struct App {
    kv: KvSync,
    conn: SyncConnection<SqliteConnection>,
    _dir: tempfile::TempDir,
}

fn app(builder: Builder) -> App {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db").to_string_lossy().into_owned();
    let open = move || {
        let mut conn = SqliteConnection::establish(&path)?;
        conn.batch_execute("PRAGMA busy_timeout = 20000")
            .map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
        Ok::<_, diesel::ConnectionError>(conn)
    };
    let database = Database::<Sqlite>::new("main", open).model::<User>();
    let kv = builder.database(database).build().unwrap();
    let mut conn = kv.connect::<Sqlite>("main").unwrap();
    conn.batch_execute(
        "CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE, name TEXT NOT NULL UNIQUE)",
    )
    .unwrap();
    App { kv, conn, _dir: dir }
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

/// An hour: nothing ends by itself.
fn cached<S>(store: S) -> NearCache<S> {
    NearCache::new(store, 1 << 20, Duration::from_hours(1))
}

#[test]
fn a_row_is_fetched_by_every_key_through_all_layers() -> Tested {
    let bottom = MemoryStore::new();
    let odds = Odds { refuse: 0.1, refuse_some: 0.1, lose_answer: 0.1, ..Odds::default() };
    let store = Retry::new(Prefix::new("app:", Fault::seeded(bottom.clone(), 5, odds))?);
    let store = cached(store.pauses(Duration::from_micros(1), Duration::from_micros(50)).deadline(LONG));
    let view = Profiled::new(Traced::new(Metered::new(store.reader())));
    let mut app = app(KvSync::builder().read_from(view).store(store));

    for round in 0..20 {
        app.insert(&ann());
        let (email, name) = (format!("{round}@example.com"), format!("ann {round}"));
        let moved = User { email: email.clone(), name: name.clone(), ..ann() };
        for fetched in [User::fetch_by_id(&app.kv, 1)?, User::fetch_by_email(&app.kv, &ann().email)?] {
            assert_eq!(fetched, Some(ann()), "round {round}");
        }
        assert_eq!(User::fetch_by_name(&app.kv, "ann")?, Some(ann()), "by a pointer, in round {round}");
        assert_eq!(User::fetch_by_name(&app.kv, &name)?, None, "its absence is kept, until it is written");

        app.run(&format!("UPDATE users SET email = '{email}', name = '{name}'"));
        assert_eq!(User::lookup_by_email(&app.kv, &ann().email)?, Lookup::Absent, "round {round}");
        assert_eq!(User::lookup_by_name(&app.kv, "ann")?, Lookup::Absent, "round {round}");
        assert_eq!(User::fetch_by_name(&app.kv, &name)?, Some(moved.clone()), "round {round}");
        assert_eq!(User::fetch_strict_by_name(&app.kv, &name)?, Some(moved.clone()), "round {round}");
        assert_eq!(User::fetch_strict_by_email(&app.kv, &email)?, Some(moved), "round {round}");
        assert_eq!(User::fetch_strict_by_email(&app.kv, &ann().email)?, None, "round {round}");
        assert!(app.kv.verify::<User>().in_flight(Duration::from_millis(1)).run()?.is_clean(), "round {round}");

        app.run("DELETE FROM users");
        assert_eq!(User::lookup_by_id(&app.kv, 1)?, Lookup::Absent, "round {round}");
    }
    let keys = kvsync::store::SyncStore::scan(&bottom, "", None, 1000)?.keys;
    assert!(!keys.is_empty() && keys.iter().all(|key| key.as_str().starts_with("app:")), "{keys:?}");
    Ok(())
}

#[test]
fn a_strict_fetch_does_not_believe_a_near_cache() -> Tested {
    let shared = MemoryStore::new();
    let mut writes = app(KvSync::builder().store(shared.clone()));
    let store = cached(shared);
    let reads = KvSync::builder().read_from(store.reader()).store(store).build()?;

    writes.insert(&ann());
    assert_eq!(User::fetch_by_email(&reads, "ann@example.com")?, Some(ann()));
    assert_eq!(User::fetch_by_name(&reads, "ann")?, Some(ann()));
    assert_eq!(User::fetch_strict_by_email(&reads, "ann@example.com")?, Some(ann()));
    writes.run("UPDATE users SET email = 'new@example.com', name = 'new'");
    assert_eq!(User::fetch_by_email(&reads, "ann@example.com")?, Some(ann()), "another process wrote, and it lags");
    assert_eq!(User::fetch_strict_by_email(&reads, "ann@example.com")?, None);
    assert_eq!(User::fetch_strict_by_name(&reads, "ann")?, None);
    let moved = User { email: "new@example.com".into(), name: "new".into(), ..ann() };
    assert_eq!(User::fetch_strict_by_email(&reads, "new@example.com")?, Some(moved.clone()));
    assert_eq!(User::fetch_by_email(&reads, "ann@example.com")?, None, "what was read strictly is kept");
    assert_eq!(User::fetch_by_id(&reads, 1)?, Some(moved));
    Ok(())
}
