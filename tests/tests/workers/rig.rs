//! Models, a store that fails to order, and a database that is a map.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use kvsync::change::{Action, Change, ChangeSet, Row, Unknown};
use kvsync::codec::Codec;
use kvsync::envelope::{Body, Envelope, State, Value};
use kvsync::model::{Kind, Model, Position, PrimaryKey, Reread, RowsPage, Scanned, Schema, Source, Wanted};
use kvsync::record::{Record, Terms};
use kvsync::report::Report;
use kvsync::store::{Capabilities, Cursor, Health, MemoryStore, Outcome, Page, Step, Store, SyncStore};
use kvsync::worker::{Backoff, Pipeline, PipelineConfig};
use kvsync::{Error, ErrorKind, Key, Result, Scope, Syncable, Version};
pub use kvsync_tests::wait::{LONG, until};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize, Serializer};

/// Long enough to see that something does not happen, where nothing else would tell.
pub const SHORT: Duration = Duration::from_millis(30);

// Of the tables only what keys are made of.
diesel::table! { users (id) { id -> Integer, email -> Nullable<Text> } }
diesel::table! { sessions (id) { id -> Integer, token -> Text } }
diesel::table! { tickets (id) { id -> Integer, code -> Text } }
diesel::table! { posts (id) { id -> Integer, slug -> Text, hash -> Text } }

/// Keys that change: a record is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Syncable)]
#[diesel(table_name = users)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
#[sync_key(name = "email", fmt = "user:email:<email>")]
pub struct User {
    pub id: i32,
    pub email: Option<String>,
    pub name: Touchy,
}

/// Keys that never change: no record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Syncable)]
#[diesel(table_name = sessions)]
#[sync_key(name = "id", fmt = "session:id:<id>")]
#[sync_key(name = "token", fmt = "session:token:<token>", immutable)]
pub struct Session {
    pub id: i32,
    pub token: String,
}

/// Keys that never change, none of them of the primary key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Syncable)]
#[diesel(table_name = tickets)]
#[sync_key(name = "code", fmt = "ticket:code:<code>", immutable)]
pub struct Ticket {
    pub id: i32,
    pub code: String,
}

/// Rows that can be hidden, a hidden home, a pointer, and an end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Syncable)]
#[diesel(table_name = posts)]
#[sync_key(name = "slug", fmt = "post:slug:<slug>")]
#[sync_key(name = "hash", fmt = "post:hash:<hash>", pointer)]
#[sync(live_if = "deleted_at IS NULL", ttl = "1h", jitter = "50%")]
pub struct Post {
    pub id: i32,
    pub slug: String,
    pub hash: String,
}

/// Text that cannot be encoded when it says so.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Touchy(pub String);

impl Serialize for Touchy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_str() {
            "panic" => panic!("the model would rather not"),
            "error" => Err(serde::ser::Error::custom("no form")),
            text => serializer.serialize_str(text),
        }
    }
}

pub fn user(id: i32, email: &str, name: &str) -> User {
    User { id, email: (!email.is_empty()).then(|| email.to_owned()), name: Touchy(name.to_owned()) }
}

pub fn v(sequence: u64) -> Version {
    Version::new(0, 0, sequence)
}

/// A change of the database `main`.
pub fn change<M: Syncable>(version: u64, row: Row) -> Change {
    let action = match &row {
        Row::Deleted { .. } => Action::Delete,
        _ => Action::Update,
    };
    Change {
        schema: M::SCHEMA,
        database: "main".into(),
        scope: Scope::NONE,
        action,
        version: v(version),
        captured_at: SystemTime::now(),
        row,
        size: 400,
    }
}

pub fn put<M: Syncable>(version: u64, row: M) -> Change {
    change::<M>(version, Row::Live(Box::new(row)))
}

pub fn delete<M: Syncable>(version: u64, row: M) -> Change {
    change::<M>(version, Row::Deleted { row: Box::new(row), live: true })
}

pub fn in_doubt<M: Syncable>(version: u64, row: &M) -> Change {
    let unknown = Unknown { primary_key: Model::primary_key(row), kept: Vec::new(), certain: false };
    change::<M>(version, Row::Unknown(unknown))
}

pub fn set(changes: impl IntoIterator<Item = Change>) -> ChangeSet {
    changes.into_iter().collect::<Vec<_>>().into()
}

/// Decides what a step meets in place of the store.
pub type Fault = Box<dyn FnMut(&Step) -> Option<Error> + Send>;

/// A store in memory that fails to order and can do no more than it is told.
pub struct TestStore {
    pub memory: MemoryStore,
    pub capabilities: Capabilities,
    pub fault: Mutex<Option<Fault>>,
    pub steps: AtomicUsize,
    /// The most steps that came in one call.
    pub largest: AtomicUsize,
    /// Whether the epoch can be read.
    pub epoch_up: AtomicBool,
}

impl std::fmt::Debug for TestStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TestStore")
    }
}

impl TestStore {
    /// Takes whole changes, or one key at a time.
    pub fn new(whole: bool) -> Arc<Self> {
        Self::with(if whole {
            Capabilities::new(1024, 1 << 20, 64).with_whole_changes()
        } else {
            Capabilities::new(1024, 1 << 20, 64)
        })
    }

    pub fn with(capabilities: Capabilities) -> Arc<Self> {
        Arc::new(Self {
            memory: MemoryStore::new(),
            capabilities,
            fault: Mutex::new(None),
            steps: AtomicUsize::new(0),
            largest: AtomicUsize::new(0),
            epoch_up: AtomicBool::new(true),
        })
    }

    pub fn fail(&self, fault: impl FnMut(&Step) -> Option<Error> + Send + 'static) {
        *self.fault.lock() = Some(Box::new(fault));
    }

    pub fn heal(&self) {
        *self.fault.lock() = None;
    }

    pub fn down(&self) {
        self.fail(|_| Some(down()));
    }

    /// The model that a reader finds under a key.
    pub fn get<M: Syncable>(&self, key: &str) -> Option<M> {
        let envelope = self.envelope(key).filter(|envelope| envelope.head.state == State::Value)?;
        match envelope.body().unwrap() {
            Body::Model { bytes, .. } => Some(M::Codec::decode(bytes).unwrap()),
            Body::Pointer(home) => self.get(home),
            Body::None => None,
        }
    }

    pub fn state(&self, key: &str) -> Option<State> {
        self.envelope(key).map(|envelope| envelope.head.state)
    }

    pub fn envelope(&self, key: &str) -> Option<Envelope> {
        let bytes = self.memory.get_many(&[Key::new(key)]).unwrap().pop().flatten()?;
        Some(Envelope::parse(&bytes).unwrap())
    }

    pub fn record(&self, key: &str) -> Option<Record> {
        self.envelope(key).map(|envelope| Record::from_envelope(envelope).unwrap())
    }
}

/// Leaves out the bytes of a record that are the change's own, as a store may.
fn lean(step: &Step, answer: Result<Outcome>) -> Result<Outcome> {
    let Step::Merge(delta) = step else { return answer };
    answer.map(|outcome| match outcome {
        Outcome::Merged { superseded, mut record } if record.version == delta.version => {
            record.value = Value::none();
            Outcome::Merged { superseded, record }
        }
        outcome => outcome,
    })
}

pub fn down() -> Error {
    Error::new(ErrorKind::Unavailable, "the store is down")
}

pub fn refused() -> Error {
    Error::new(ErrorKind::Rejected, "the store says no")
}

impl Store for TestStore {
    fn name(&self) -> &'static str {
        "test"
    }

    fn health(&self, deadline: Duration) -> Health {
        self.memory.health(deadline)
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }
}

impl SyncStore for TestStore {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn execute(&self, steps: &[Step], terms: &Terms) -> Vec<Result<Outcome>> {
        self.steps.fetch_add(steps.len(), Ordering::SeqCst);
        self.largest.fetch_max(steps.len(), Ordering::SeqCst);
        steps
            .iter()
            .map(|step| {
                let fault = self.fault.lock().as_mut().and_then(|fault| fault(step));
                match fault {
                    Some(error) => Err(error),
                    None => lean(step, self.memory.execute(std::slice::from_ref(step), terms).pop().unwrap()),
                }
            })
            .collect()
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>> {
        self.memory.get_many(keys)
    }

    fn scan(&self, prefix: &str, cursor: Option<Cursor>, limit: usize) -> Result<Page> {
        self.memory.scan(prefix, cursor, limit)
    }

    fn epoch(&self) -> Result<u32> {
        if !self.epoch_up.load(Ordering::SeqCst) {
            return Err(down());
        }
        self.memory.epoch()
    }

    fn raise_epoch(&self, epoch: u32) -> Result<u32> {
        self.memory.raise_epoch(epoch)
    }
}

/// Gives a row as often as it is read.
type Copies = Box<dyn Fn() -> Box<dyn Model> + Send>;

/// Decides what a reading meets in place of the database.
type Outage = Box<dyn FnMut(&[Wanted]) -> Option<Error> + Send>;

/// The database `main`: what was committed, under the keys of the rows' records.
#[derive(Default)]
pub struct Database {
    pub rows: Mutex<HashMap<String, Copies>>,
    pub version: AtomicU64,
    pub fault: Mutex<Option<Outage>>,
    pub asked: AtomicUsize,
    /// The epoch that is stamped on what is read.
    pub epoch: Mutex<Arc<AtomicU32>>,
}

impl Database {
    pub fn new() -> Arc<Self> {
        let database = Self::default();
        database.version.store(1_000_000, Ordering::SeqCst);
        Arc::new(database)
    }

    pub fn insert<M: Syncable + Clone>(&self, row: M) {
        let home = PrimaryKey::of::<M>(Syncable::primary_key(&row)).home().as_str().to_owned();
        self.rows.lock().insert(home, Box::new(move || Box::new(row.clone())));
    }

    pub fn fail(&self, fault: impl FnMut(&[Wanted]) -> Option<Error> + Send + 'static) {
        *self.fault.lock() = Some(Box::new(fault));
    }

    pub fn heal(&self) {
        *self.fault.lock() = None;
    }
}

impl Source for Database {
    fn name(&self) -> &'static str {
        "main"
    }

    fn reread(&self, wanted: &[Wanted], _deadline: Duration) -> Result<Vec<Reread>> {
        self.asked.fetch_add(wanted.len(), Ordering::SeqCst);
        if let Some(error) = self.fault.lock().as_mut().and_then(|fault| fault(wanted)) {
            return Err(error);
        }
        let rows = self.rows.lock();
        let read = |wanted: &Wanted| {
            let own = self.version.fetch_add(1, Ordering::SeqCst);
            let epoch = self.epoch.lock().load(Ordering::SeqCst);
            let version = Version::new(epoch, 0, own.max(wanted.floor.sequence()));
            Reread { row: Ok(rows.get(wanted.primary_key.home().as_str()).map(|row| row())), version }
        };
        Ok(wanted.iter().map(read).collect())
    }

    fn schemas(&self) -> Vec<&'static Schema> {
        vec![User::SCHEMA, Session::SCHEMA, Ticket::SCHEMA, Post::SCHEMA]
    }

    fn kinds(&self) -> Vec<Kind> {
        vec![Kind::of::<User>(), Kind::of::<Session>(), Kind::of::<Ticket>(), Kind::of::<Post>()]
    }

    fn look(
        &self,
        _: &'static Schema,
        _: &Scope,
        wanted: &[PrimaryKey],
        _: Duration,
    ) -> Result<Vec<Result<Option<Box<dyn Model>>>>> {
        let rows = self.rows.lock();
        Ok(wanted.iter().map(|wanted| Ok(rows.get(wanted.home().as_str()).map(|row| row()))).collect())
    }

    fn scopes(&self, _: &'static Schema, _: Duration) -> Result<Vec<Scope>> {
        Ok(Vec::new())
    }

    fn tells_scopes(&self) -> bool {
        true
    }

    fn barrier(&self, _: Duration) -> Result<Version> {
        let epoch = self.epoch.lock().load(Ordering::SeqCst);
        Ok(Version::new(epoch, 0, self.version.fetch_add(1, Ordering::SeqCst)))
    }

    fn page(
        &self,
        schema: &'static Schema,
        _: &Scope,
        after: Option<&Position>,
        most: usize,
        _: Duration,
    ) -> Result<RowsPage> {
        let rows = self.rows.lock();
        let after = after.map(|after| after.parts(schema.table, 1).unwrap().remove(0));
        let mut of_it: Vec<(&String, Box<dyn Model>)> = rows
            .iter()
            .map(|(home, row)| (home, row()))
            .filter(|(home, row)| {
                row.schema().model == schema.model && after.as_ref().is_none_or(|after| *home > after)
            })
            .collect();
        of_it.sort_by_key(|(home, _)| *home);
        of_it.truncate(most);
        let mut page = RowsPage::default();
        if of_it.len() == most {
            page.next = of_it.last().map(|(home, _)| Position::new(schema.table, [home.as_str()]));
        }
        page.rows =
            of_it.into_iter().map(|(_, row)| Scanned { primary_key: row.primary_key(), row: Ok(Some(row)) }).collect();
        Ok(page)
    }

    fn estimate(&self, _: &'static Schema, _: &Scope, _: Duration) -> Result<Option<u64>> {
        Ok(Some(self.rows.lock().len() as u64))
    }
}

/// A pipeline with its store and database.
pub struct Rig {
    pub pipeline: Pipeline,
    pub store: Arc<TestStore>,
    pub database: Arc<Database>,
    pub reports: Arc<Mutex<Vec<Report>>>,
}

impl Rig {
    pub fn new() -> Self {
        Self::with(TestStore::new(false), |_| {})
    }

    pub fn with(store: Arc<TestStore>, configure: impl FnOnce(&mut PipelineConfig)) -> Self {
        Self::of(store, configure, |database| vec![database])
    }

    /// With these sources in place of the database `main` alone.
    pub fn of(
        store: Arc<TestStore>,
        configure: impl FnOnce(&mut PipelineConfig),
        sources: impl FnOnce(Arc<Database>) -> Vec<Arc<dyn Source>>,
    ) -> Self {
        let database = Database::new();
        let reports: Arc<Mutex<Vec<Report>>> = Arc::default();
        let mut config = PipelineConfig::new(vec![Arc::clone(&store) as _]);
        config.workers = 2;
        config.backoff = Backoff { min: Duration::from_millis(1), max: Duration::from_millis(5) };
        config.drop_deadline = SHORT;
        let told = Arc::clone(&reports);
        config.on_report = Some(Box::new(move |report| told.lock().push(report.clone())));
        configure(&mut config);
        let pipeline = Pipeline::start(config).unwrap();
        *database.epoch.lock() = pipeline.epoch();
        pipeline.set_sources(sources(Arc::clone(&database)));
        Self { pipeline, store, database, reports }
    }

    pub fn publish(&self, changes: impl IntoIterator<Item = Change>) -> kvsync::change::CommitToken {
        self.pipeline.publisher().publish(set(changes))
    }

    pub fn flush(&self) {
        self.pipeline.flush(LONG).unwrap();
    }

    /// Publishes and waits.
    pub fn write(&self, changes: impl IntoIterator<Item = Change>) {
        let token = self.publish(changes);
        self.pipeline.wait(&token, LONG).unwrap();
    }

    /// Everything that was reported, once nothing more can come.
    pub fn ended(self) -> Vec<Report> {
        let ended = self.pipeline.shutdown(LONG);
        assert_eq!((ended.left, ended.unsettled, ended.threads), (0, 0, 0), "{ended:?}");
        std::mem::take(&mut *self.reports.lock())
    }
}
