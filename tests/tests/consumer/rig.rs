//! A publisher with a database of its own, and what it publishes to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use diesel::connection::SimpleConnection;
use diesel::migration::MigrationSource;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::capture::{Database, SyncConnection};
use kvsync::consumer::ConsumerBuilder;
use kvsync::record::Terms;
use kvsync::report::Report;
use kvsync::store::{Capabilities, Cursor, Outcome, Page, Step, Store, SyncStore};
use kvsync::transport::{Broker, ChangeMessage, Health, MemoryBroker, MemoryQueue, Message, Subscription};
use kvsync::worker::Backoff;
use kvsync::{Builder, Consumer, Error, ErrorKind, Key, KvSync, Result};
pub use kvsync_tests::users::{User, user, users};
pub use kvsync_tests::wait::{LONG, until};
use parking_lot::Mutex;

/// Long enough to see that something does not happen, where nothing else would tell.
pub const SHORT: Duration = Duration::from_millis(30);

/// A publisher and its database, which is in a file.
pub struct App {
    pub kv: KvSync,
    pub conn: SyncConnection<SqliteConnection>,
    pub reports: Arc<Mutex<Vec<Report>>>,
    dir: Arc<tempfile::TempDir>,
}

fn database(dir: &tempfile::TempDir, outbox: bool) -> Database<Sqlite> {
    let path = dir.path().join("app.db").to_string_lossy().into_owned();
    let open = move || {
        let mut conn = SqliteConnection::establish(&path)?;
        conn.batch_execute("PRAGMA busy_timeout = 300000; PRAGMA journal_mode = WAL")
            .map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
        Ok::<_, diesel::ConnectionError>(conn)
    };
    let database = Database::<Sqlite>::new("main", open).model::<User>();
    if outbox { database.outbox() } else { database }
}

impl App {
    /// One that publishes, and keeps no store.
    pub fn publishing(broker: impl Broker + 'static) -> Self {
        Self::with(KvSync::builder().broker(broker), false)
    }

    pub fn with(builder: Builder, outbox: bool) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let mut own = SqliteConnection::establish(&dir.path().join("app.db").to_string_lossy()).unwrap();
        // Once, before others come: whoever switches to WAL waits for nobody.
        own.batch_execute("PRAGMA journal_mode = WAL").unwrap();
        own.batch_execute(kvsync_tests::users::TABLE).unwrap();
        if outbox {
            for migration in MigrationSource::<Sqlite>::migrations(&kvsync::capture::outbox::migrations()).unwrap() {
                migration.run(&mut own).unwrap();
            }
        }
        Self::in_dir(builder, dir, outbox)
    }

    /// Another process of the same application: with its database.
    pub fn another(&self, builder: Builder, outbox: bool) -> Self {
        Self::in_dir(builder, Arc::clone(&self.dir), outbox)
    }

    fn in_dir(builder: Builder, dir: Arc<tempfile::TempDir>, outbox: bool) -> Self {
        let reports: Arc<Mutex<Vec<Report>>> = Arc::default();
        let told = Arc::clone(&reports);
        let builder = builder
            .drop_deadline(SHORT)
            .outbox_attempts(3, Backoff { min: Duration::from_millis(1), max: Duration::from_millis(5) })
            .on_report(move |report| told.lock().push(report.clone()));
        let kv = builder.database(database(&dir, outbox)).build().unwrap();
        let conn = kv.connect::<Sqlite>("main").unwrap();
        Self { kv, conn, reports, dir }
    }

    /// The file of its database.
    pub fn file(&self) -> std::path::PathBuf {
        self.dir.path().join("app.db")
    }

    pub fn insert(&mut self, row: &User) {
        diesel::insert_into(users::table).values(row).execute(&mut self.conn).unwrap();
    }

    pub fn rename(&mut self, id: i32, email: &str) {
        diesel::update(users::table.find(id)).set(users::email.eq(email)).execute(&mut self.conn).unwrap();
    }

    pub fn delete(&mut self, id: i32) {
        diesel::delete(users::table.find(id)).execute(&mut self.conn).unwrap();
    }

    pub fn flush(&self) {
        self.kv.flush(LONG).unwrap();
    }

    /// All rows of the table.
    pub fn rows(&mut self) -> Vec<User> {
        users::table.order(users::id).select(User::as_select()).load(&mut self.conn).unwrap()
    }
}

/// Everything that waits in a queue, acknowledged.
pub fn received(queue: &MemoryQueue) -> Vec<ChangeMessage> {
    let arrivals = queue.receive(10_000, Duration::ZERO).unwrap();
    let message = |arrival: &kvsync::transport::Arrival| ChangeMessage::decode(arrival.content_type(), arrival.body());
    let messages = arrivals.iter().map(message).collect::<Result<Vec<_>>>().unwrap();
    kvsync::transport::Arrival::ack_all(arrivals);
    messages
}

/// A broker that keeps messages and loses its answer for some of them, so that they are published again.
#[derive(Debug)]
pub struct Forgetful {
    pub broker: MemoryBroker,
    pub answers_lost: AtomicUsize,
    pub published: AtomicUsize,
}

impl Forgetful {
    pub fn new(broker: &MemoryBroker, lost: usize) -> Arc<Self> {
        Arc::new(Self { broker: broker.clone(), answers_lost: lost.into(), published: AtomicUsize::new(0) })
    }
}

/// One of several owners of a broker.
#[derive(Debug, Clone)]
pub struct Shared(pub Arc<Forgetful>);

impl Broker for Shared {
    fn name(&self) -> &'static str {
        "forgetful"
    }

    fn max_body(&self) -> usize {
        self.0.broker.max_body()
    }

    fn publish(&self, messages: &[Message]) -> Vec<Result<()>> {
        let lose = |answer: Result<()>| {
            answer?;
            self.0.published.fetch_add(1, Ordering::SeqCst);
            let lost = self.0.answers_lost.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            lost.map_or(Ok(()), |_| Err(Error::new(ErrorKind::UnknownOutcome, "cut off before the confirm")))
        };
        self.0.broker.publish(messages).into_iter().map(lose).collect()
    }

    fn health(&self, deadline: Duration) -> Health {
        self.0.broker.health(deadline)
    }

    fn close(&self) -> Result<()> {
        self.0.broker.close()
    }
}

/// A store that takes one step at a time, on one key.
#[derive(Debug)]
pub struct Legs<S>(pub S);

impl<S: Store> Store for Legs<S> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn health(&self, deadline: Duration) -> Health {
        self.0.health(deadline)
    }

    fn close(&self) -> Result<()> {
        self.0.close()
    }
}

impl<S: SyncStore> SyncStore for Legs<S> {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(100, 4000, 64)
    }

    fn execute(&self, steps: &[Step], terms: &Terms) -> Vec<Result<Outcome>> {
        self.0.execute(steps, terms)
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>> {
        self.0.get_many(keys)
    }

    fn scan(&self, prefix: &str, cursor: Option<Cursor>, limit: usize) -> Result<Page> {
        self.0.scan(prefix, cursor, limit)
    }

    fn epoch(&self) -> Result<u32> {
        self.0.epoch()
    }

    fn raise_epoch(&self, epoch: u32) -> Result<u32> {
        self.0.raise_epoch(epoch)
    }
}

/// Pauses that no test waits for.
pub const SOON: Backoff = Backoff { min: Duration::from_millis(1), max: Duration::from_millis(5) };

/// Writes what is in the queue into this store, with these settings.
pub fn consumer(
    queue: &MemoryQueue,
    store: impl SyncStore + 'static,
    configure: impl FnOnce(ConsumerBuilder) -> ConsumerBuilder,
) -> Consumer {
    let builder = Consumer::builder().subscription(queue.clone()).store(store).backoff(SOON).attempts(3, SOON);
    configure(builder.drop_deadline(SHORT)).build().unwrap()
}

/// What is fetched from a store.
pub fn reader(store: impl SyncStore + 'static) -> KvSync {
    KvSync::builder().store(store).build().unwrap()
}

/// A message of these bytes.
pub fn message(content_type: &'static str, body: impl Into<Bytes>) -> Message {
    Message { table: "users".into(), action: "create", id: "1".to_owned(), content_type, body: body.into() }
}
