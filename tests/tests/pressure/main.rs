//! Whatever the store does, the application's writes go on, what waits stays within its bound, and once the
//! store is well again it equals the database.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::capture::{Database, SyncConnection};
use kvsync::report::{Outcome, Report};
use kvsync::store::RedisStore;
use kvsync::{Builder, KvSync, Syncable};
use kvsync_tests::redis::{connected, patient};
use kvsync_tests::wait::{LONG, until};
use serde::{Deserialize, Serialize};
use xtask::servers::{Fault, Proxy, Redis, RedisOptions};

diesel::table! {
    users (id) {
        id -> Integer,
        email -> Text,
        name -> Text,
    }
}

#[derive(Debug, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = users)]
#[sync_key(name = "id", fmt = "user:<id>")]
#[sync_key(name = "email", fmt = "user:email:<email>")]
struct User {
    id: i32,
    email: String,
    name: String,
}

const ROWS: i32 = 60;
const BOUND: usize = 256 << 10;

/// An application between a database file and a Redis server behind a network of its own.
struct App {
    kv: KvSync,
    /// On a way of its own to the server, on which it has time.
    reader: KvSync,
    conn: SyncConnection<SqliteConnection>,
    deferred: Arc<AtomicUsize>,
    proxy: Proxy,
    server: Redis,
    /// The number of the last write.
    last: usize,
    _folder: tempfile::TempDir,
}

fn app(configure: impl FnOnce(Builder) -> Builder) -> App {
    let server = Redis::start(RedisOptions::default()).unwrap();
    let proxy = Proxy::start(server.port().unwrap()).unwrap();
    let store = RedisStore::builder([proxy.url(&server.url())])
        .command_timeout(Duration::from_secs(2))
        .connect_timeout(Duration::from_secs(2))
        .retry_for(Duration::from_millis(100));
    let reader = KvSync::builder().store(patient([server.url()]).connect().unwrap()).build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db").to_string_lossy().into_owned();
    let database = Database::<Sqlite>::new("main", move || {
        let mut conn = SqliteConnection::establish(&path)?;
        conn.batch_execute("PRAGMA busy_timeout = 300000; PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF")
            .map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
        Ok::<_, diesel::ConnectionError>(conn)
    });
    let deferred = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&deferred);
    let builder = KvSync::builder()
        .store(connected(&store).unwrap())
        .database(database.model::<User>())
        .queue_bytes(BOUND)
        .overflow_block(Duration::from_millis(1))
        .on_report(move |report| {
            if matches!(report, Report::Key(key) if key.outcome == Outcome::Deferred) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
    let kv = configure(builder).build().unwrap();
    let mut conn = kv.connect::<Sqlite>("main").unwrap();
    conn.batch_execute("CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE, name TEXT NOT NULL)")
        .unwrap();
    App { kv, reader, conn, deferred, proxy, server, last: 0, _folder: folder }
}

impl App {
    /// Inserts, updates, changes of a key, deletes: none of them may fail.
    fn write(&mut self, writes: usize) {
        for _ in 0..writes {
            self.last += 1;
            let at = self.last;
            let id = i32::try_from(at * 7 % 60).unwrap();
            let name = format!("{at:-<500}");
            let row = users::table.find(id);
            match at % 5 {
                0 => drop(diesel::delete(row).execute(&mut self.conn).unwrap()),
                1 => {
                    let values = (users::email.eq(format!("{id}@{at}")), users::name.eq(name));
                    diesel::update(row).set(values).execute(&mut self.conn).unwrap();
                }
                _ => {
                    let row = (users::id.eq(id), users::email.eq(format!("{id}@{at}")), users::name.eq(&name));
                    diesel::insert_into(users::table)
                        .values(row)
                        .on_conflict(users::id)
                        .do_update()
                        .set(users::name.eq(&name))
                        .execute(&mut self.conn)
                        .unwrap();
                }
            }
            if at.is_multiple_of(50) {
                let waits = &self.kv.health(Duration::ZERO).pipeline.stores[0];
                let bytes = waits.queued.bytes + waits.unsettled_bytes;
                assert!(bytes <= BOUND, "more waits than there is room for: {waits:?}");
            }
        }
    }

    /// Fails unless the store is what the database is, under every key that was ever written.
    fn equals_the_database(&mut self) {
        self.kv.flush(LONG).unwrap();
        let rows: Vec<User> = users::table.select(User::as_select()).load(self.conn.unsynced()).unwrap();
        let rows: BTreeMap<i32, User> = rows.into_iter().map(|row| (row.id, row)).collect();
        for id in 0..ROWS {
            assert_eq!(User::fetch_by_id(&self.reader, id).unwrap().as_ref(), rows.get(&id), "row {id}");
        }
        for at in 1..=self.last {
            let id = i32::try_from(at * 7 % 60).unwrap();
            let email = format!("{id}@{at}");
            let stands = rows.get(&id).filter(|row| row.email == email);
            assert_eq!(User::fetch_by_email(&self.reader, &email).unwrap().as_ref(), stands, "{email}");
        }
        assert!(self.kv.health(LONG).pipeline.dirty.is_empty());
    }
}

fn outlives(slow: bool, begin: impl FnOnce(&App), end: impl FnOnce(&App)) {
    let mut app = app(|builder| builder);
    app.write(50);
    app.equals_the_database();
    begin(&app);
    app.write(1000);
    // A store that is slow only keeps up with a machine that is slower.
    let mut delay = Duration::from_millis(60);
    until("the queue is full: else the test shows nothing", || {
        let full = app.deferred.load(Ordering::Relaxed) > 0;
        if !full && slow {
            delay = (delay * 2).min(Duration::from_millis(900));
            app.proxy.set(Fault::Delay(delay));
            app.write(200);
        }
        full
    });
    end(&app);
    app.equals_the_database();
}

fn fault(fault: Fault) {
    outlives(matches!(fault, Fault::Delay(_)), |app| app.proxy.set(fault), |app| app.proxy.heal());
}

fn command(begin: &[&str], end: &[&str]) {
    let run = |app: &App, command| assert_eq!(app.server.cli(command).unwrap(), "OK");
    outlives(false, |app| run(app, begin), |app| run(app, end));
}

#[test]
fn a_store_that_refuses_connections() {
    fault(Fault::Refuse);
}

#[test]
fn a_store_that_does_not_answer() {
    fault(Fault::Hold);
}

#[test]
fn a_store_that_lost_its_end_of_the_connections() {
    fault(Fault::HalfOpen);
}

#[test]
fn a_store_that_is_slow() {
    fault(Fault::Delay(Duration::from_millis(60)));
}

#[test]
fn a_store_that_is_frozen() {
    outlives(false, |app| app.server.pause().unwrap(), |app| app.server.resume().unwrap());
}

#[test]
fn a_store_that_is_out_of_memory() {
    let full = ["CONFIG", "SET", "maxmemory", "100kb", "maxmemory-policy", "noeviction"];
    command(&full, &["CONFIG", "SET", "maxmemory", "0"]);
}

#[test]
fn a_store_that_became_a_read_only_replica() {
    command(&["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"]);
}

#[test]
fn a_store_that_wants_a_password_now() {
    let lock = ["ACL", "SETUSER", "default", "-@all", "+acl", "+ping"];
    command(&lock, &["ACL", "SETUSER", "default", "+@all"]);
}

/// Everybody waits longer and longer, so that the store is not run over when it comes back.
#[test]
fn a_store_that_is_down_is_asked_ever_more_rarely() {
    let mut app = app(|builder| builder.workers(4));
    app.write(20);
    app.equals_the_database();
    app.proxy.set(Fault::Refuse);
    let (before, began) = (app.proxy.accepted(), Instant::now());
    app.write(2000);
    // The checks of its health ask the store too.
    let (asked, seconds) = (app.proxy.accepted() - before, began.elapsed().as_secs());
    app.proxy.heal();
    let connected = app.proxy.accepted();
    app.equals_the_database();
    // Each of the store's own attempts lasts up to 100 ms; without waits between them thousands would fit, and two
    // hundred more for every second that a slow machine takes.
    let most = 300 + 2000 / 50 + 20 * seconds;
    assert!((asked as u64) < most, "{asked} connections were tried while the store was down, in {seconds} s");
    let came_back = app.proxy.accepted() - connected;
    assert!(came_back <= 50, "{came_back} connections were opened when it came back");
}
