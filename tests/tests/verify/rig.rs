//! A database and a store of each kind, and hands that reach past kvsync.

use std::sync::Arc;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::capture::{Database, SyncConnection};
use kvsync::envelope::{Envelope, Head, State, Value};
use kvsync::record::{Content, Delta, Order, Record, Terms, Write};
use kvsync::store::{MemoryStore, Outcome, Step, SyncStore};
use kvsync::upkeep::{Difference, DifferenceKind, Repaired, Verified};
use kvsync::{Key, KvSync, Report, Version};
use kvsync_tests::postgres::{FreshDatabase, fresh_database};
use kvsync_tests::redis::patient;
use kvsync_tests::wait::LONG;
use kvsync_tests::{Tested, env};
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::models::*;

/// Which database and which store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    SqliteMemory,
    PostgresRedis,
    PostgresCluster,
}

pub const EVERYWHERE: [On; 3] = [On::SqliteMemory, On::PostgresRedis, On::PostgresCluster];

enum Place {
    Lite(TempDir),
    Pg(FreshDatabase),
}

pub enum Conn {
    Lite(SyncConnection<SqliteConnection>),
    Pg(SyncConnection<PgConnection>),
}

impl Conn {
    /// Runs a statement that is captured.
    pub fn run(&mut self, sql: &str) -> QueryResult<usize> {
        match self {
            Self::Lite(conn) => diesel::sql_query(sql).execute(conn),
            Self::Pg(conn) => diesel::sql_query(sql).execute(conn),
        }
    }
}

pub struct Rig {
    pub kv: KvSync,
    pub conn: Conn,
    /// What Redis' keys begin with.
    pub prefix: String,
    place: Place,
    /// The longest that a change took from its commit into the store.
    slowest: Arc<Mutex<Duration>>,
}

fn lite(path: &str) -> Result<SqliteConnection, diesel::ConnectionError> {
    let mut conn = SqliteConnection::establish(path)?;
    conn.batch_execute("PRAGMA busy_timeout = 300000; PRAGMA journal_mode = WAL")
        .map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}

impl Rig {
    /// With all models and the rows that every test begins with.
    pub fn new(on: On) -> Self {
        Self::with(
            on,
            Database::model::<User>,
            Database::model::<User>,
            |lite| lite.model::<Session>().model::<Post>(),
            |pg| pg.model::<Session>().model::<Post>(),
        )
    }

    #[allow(clippy::similar_names)]
    fn with(
        on: On,
        lite_user: fn(Database<Sqlite>) -> Database<Sqlite>,
        pg_user: fn(Database<Pg>) -> Database<Pg>,
        lite_more: fn(Database<Sqlite>) -> Database<Sqlite>,
        pg_more: fn(Database<Pg>) -> Database<Pg>,
    ) -> Self {
        let prefix = format!("verify:{:016x}:", rand::random::<u64>());
        let slowest: Arc<Mutex<Duration>> = Arc::default();
        let told = Arc::clone(&slowest);
        let builder = KvSync::builder().workers(2).on_report(move |report| {
            if let Report::Key(key) = report {
                let mut slowest = told.lock();
                *slowest = slowest.max(key.queued + key.writing);
            }
        });
        let builder = match on {
            On::SqliteMemory => builder.store(MemoryStore::new()),
            On::PostgresRedis => builder.store(patient([env::redis_url().unwrap()]).prefix(&prefix).connect().unwrap()),
            On::PostgresCluster => {
                builder.store(patient(env::redis_cluster_urls().unwrap()).prefix(&prefix).cluster().unwrap())
            }
        };
        let (kv, conn, place) = if on == On::SqliteMemory {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("app.db").to_string_lossy().into_owned();
            lite(&path).unwrap().batch_execute(TABLES).unwrap();
            let database = lite_more(lite_user(Database::<Sqlite>::new("main", move || lite(&path))));
            let kv = builder.database(database).build().unwrap();
            let conn = Conn::Lite(kv.connect::<Sqlite>("main").unwrap());
            (kv, conn, Place::Lite(dir))
        } else {
            let fresh = fresh_database().unwrap();
            fresh.connect().unwrap().batch_execute(TABLES).unwrap();
            let url = fresh.url();
            let database = pg_more(pg_user(Database::<Pg>::new("main", move || PgConnection::establish(&url))));
            let kv = builder.database(database).build().unwrap();
            let conn = Conn::Pg(kv.connect::<Pg>("main").unwrap());
            (kv, conn, Place::Pg(fresh))
        };
        Self { kv, conn, prefix, place, slowest }
    }

    /// Three rows of each model, written as usual.
    pub fn filled(on: On) -> Self {
        let mut rig = Self::new(on);
        rig.run("INSERT INTO users VALUES (1, 'ann@x', 'Ann'), (2, 'bob@x', 'Bob'), (3, NULL, 'Cid')");
        rig.run("INSERT INTO sessions VALUES (1, 'one', 'a'), (2, 'two', 'b'), (3, 'three', 'c')");
        rig.run(
            "INSERT INTO posts VALUES (1, 'first', 'h1', NULL), (2, 'second', 'h2', NULL), (3, 'third', 'h3', 'now')",
        );
        rig.flush();
        rig
    }

    /// The same database and store, where entries end; for Postgres and Redis.
    pub fn ending(&self) -> KvSync {
        let Place::Pg(fresh) = &self.place else { panic!("{:?} has no such", self.kv) };
        let url = fresh.url();
        let store = patient([env::redis_url().unwrap()]).prefix(&self.prefix).connect().unwrap();
        let database = Database::<Pg>::new("main", move || PgConnection::establish(&url)).model::<User>();
        KvSync::builder().store(store).database(database).expiration(Duration::from_hours(1)).build().unwrap()
    }

    pub fn connect(&self) -> Conn {
        match &self.conn {
            Conn::Lite(_) => Conn::Lite(self.kv.connect::<Sqlite>("main").unwrap()),
            Conn::Pg(_) => Conn::Pg(self.kv.connect::<Pg>("main").unwrap()),
        }
    }

    /// Runs a statement that is captured.
    pub fn run(&mut self, sql: &str) {
        self.conn.run(sql).unwrap();
    }

    /// Runs statements past kvsync.
    pub fn quietly(&self, sql: &str) {
        match &self.place {
            Place::Lite(dir) => lite(&dir.path().join("app.db").to_string_lossy()).unwrap().batch_execute(sql).unwrap(),
            Place::Pg(fresh) => fresh.connect().unwrap().batch_execute(sql).unwrap(),
        }
    }

    pub fn flush(&self) {
        self.kv.flush(LONG).unwrap();
    }

    /// The longest that a change took from its commit into the store; ends the handle, so that all was told. For ever, where
    /// something was not.
    pub fn slowest(&self) -> Duration {
        self.kv.shutdown(LONG);
        if self.kv.health(LONG).pipeline.dropped_reports > 0 { Duration::MAX / 2 } else { *self.slowest.lock() }
    }

    pub fn verify(&self) -> Verified {
        self.kv.verify_all().page(2).in_flight(Duration::from_millis(1)).run().unwrap()
    }

    pub fn repair(&self) -> Repaired {
        self.kv.repair_all().page(2).in_flight(Duration::from_millis(1)).run().unwrap()
    }

    /// What is found is exactly this, and gone after a repair; then every reader sees what the database says.
    pub fn finds(&self, wanted: &[(DifferenceKind, &str)]) -> Vec<Difference> {
        let found = self.verify();
        let mut named: Vec<(DifferenceKind, &str)> =
            found.differences.iter().map(|difference| (difference.kind, difference.key.as_str())).collect();
        named.sort_unstable();
        let mut wanted = wanted.to_vec();
        wanted.sort_unstable();
        assert_eq!(named, wanted, "{:#?}", found.differences);
        assert_eq!(found.found(), wanted.len() as u64);
        let repaired = self.repair();
        assert!(repaired.is_clean(), "{repaired}: {:?}", repaired.reasons);
        assert!(repaired.mended > 0 && repaired.mended == repaired.found.found(), "{repaired}");
        self.is_clean();
        found.differences
    }

    pub fn is_clean(&self) {
        let found = self.verify();
        assert!(found.is_clean(), "{found}: {:#?}", found.differences);
    }

    pub fn store(&self) -> &Arc<dyn SyncStore> {
        self.kv.store()
    }

    pub fn bytes(&self, key: &str) -> Option<bytes::Bytes> {
        self.store().get_many(&[Key::new(key)]).unwrap().pop().unwrap()
    }

    pub fn envelope(&self, key: &str) -> Envelope {
        Envelope::parse(&self.bytes(key).unwrap_or_else(|| panic!("nothing under {key}"))).unwrap()
    }

    pub fn state(&self, key: &str) -> Option<State> {
        self.bytes(key).map(|bytes| Envelope::parse(&bytes).unwrap().head.state)
    }

    pub fn record(&self, key: &str) -> Record {
        Record::from_envelope(self.envelope(key)).unwrap()
    }

    pub fn step(&self, step: Step) -> Outcome {
        let terms = Terms { now: 1_700_000_000_000, left: 1 << 42, dead: 1 << 42 };
        self.store().execute(&[step], &terms).pop().unwrap().unwrap()
    }

    /// Takes an entry away.
    pub fn lose(&self, key: &str) {
        let stands = self.bytes(key).unwrap_or_else(|| panic!("nothing under {key}"));
        self.step(Step::Remove { key: Key::new(key), stands });
        assert_eq!(self.bytes(key), None);
    }

    /// Writes an entry over what stands under a key, a little newer than that.
    pub fn spoil(&self, key: &str, state: State, value: Value) {
        let version = self.envelope(key).head.version.next();
        let head = Head { version, state, expires_at: 0 };
        let write = Write { key: Key::new(key), head, value, order: Order::Slot };
        assert_eq!(self.step(Step::Write(write)), Outcome::Written);
    }

    /// Merges into a record, and does no more than that.
    pub fn merge(&self, home: &str, version: Version, content: Content) {
        self.step(Step::Merge(Arc::new(Delta { home: Key::new(home), version, content, gone: Vec::new() })));
    }
}

/// Runs a test on every database and store, and says where it fails.
#[allow(clippy::unnecessary_wraps, reason = "a test is this one expression")]
pub fn everywhere(test: impl Fn(On)) -> Tested {
    for on in EVERYWHERE {
        println!("on {on:?}");
        test(on);
    }
    Ok(())
}
