//! The whole pipeline with all its threads, under schedules that shuttle chooses.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use shuttle::thread::{spawn, yield_now};

use super::{Pipeline, PipelineConfig, RelayConfig};
use crate::change::{Action, Change, ChangeSet, OutboxRange, Row};
use crate::envelope::{Envelope, State};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, KeyWriter, Scope};
use crate::model::{
    KeySpec, Kind, Looked, Position, PrimaryKey, Reread, RowsPage, Schema, Source, Syncable, Ttl, Wanted,
};
use crate::store::{MemoryStore, SyncStore};
use crate::sync::Mutex;
use crate::sync::model::explore_some;
use crate::transport::{Claimed, DeadLetter, Failing, Failure, Outbox, OutboxDepth};
use crate::version::Version;

/// So far away that it does not pass: who waits for something waits for its notification.
const NEVER: Duration = Duration::from_hours(2);
/// A schedule of a pipeline has a hundred times the steps of one of its parts.
const SCHEDULES: usize = 60;

static SCHEMA: Schema = {
    const KEYS: &[KeySpec] = &[KeySpec::new("id", "item:<id>", &["item:", ""], &["id"], true, false, false, false)];
    const NO_TTL: Option<Ttl> = None;
    Schema::new("Item", "items", &["id"], KEYS, Some(0), &[], 0, NO_TTL, None)
};

#[derive(serde::Serialize, serde::Deserialize)]
struct Item(u64);

impl Syncable for Item {
    type Codec = crate::codec::MessagePack;
    type PrimaryKey = u64;
    const SCHEMA: &'static Schema = &SCHEMA;

    fn primary_key(&self) -> u64 {
        self.0
    }

    fn write_primary_key(primary_key: &u64, key: &mut KeyWriter) {
        key.part(primary_key, None);
    }

    fn write_primary(primary_key: &u64, key: &mut KeyWriter) {
        key.literal("item:");
        key.part(primary_key, None);
    }

    fn write_key(&self, _: usize, key: &mut KeyWriter) {
        Self::write_primary(&self.0, key);
    }
}

/// A change whose content is known if its version is odd; otherwise the row has to be read again.
fn change(id: u64, version: u64) -> Change {
    let row = Row::Live(Box::new(Item(id)));
    Change {
        schema: &SCHEMA,
        database: "main".into(),
        scope: Scope::NONE,
        action: Action::Insert,
        version: Version::new(0, 0, version),
        captured_at: SystemTime::now(),
        row: if version % 2 == 1 { row } else { Row::Unknown(row.unknown()) },
        size: 100,
    }
}

/// The database: its rows as they are read again, and its outbox.
#[derive(Default)]
struct Table {
    rows: Mutex<Vec<(u64, Held)>>,
    store: Arc<MemoryStore>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Held {
    Waits,
    Claimed,
    Delivered,
    /// It was said to be delivered, and its store did not have it, or nobody had claimed it.
    Wrong,
}

impl Table {
    fn turn(&self, ids: &[i64], into: impl Fn(u64, Held) -> Held) {
        for (id, held) in self.rows.lock().iter_mut() {
            if ids.contains(&i64::try_from(*id).unwrap()) {
                *held = into(*id, *held);
            }
        }
    }

    fn all(&self, wanted: impl Fn(Held) -> bool) -> bool {
        self.rows.lock().iter().all(|(_, held)| wanted(*held))
    }
}

impl Source for Table {
    fn name(&self) -> &'static str {
        "main"
    }

    fn schemas(&self) -> Vec<&'static Schema> {
        vec![&SCHEMA]
    }

    fn kinds(&self) -> Vec<Kind> {
        vec![Kind::of::<Item>()]
    }

    fn scopes(&self, _: &'static Schema, _: Duration) -> Result<Vec<Scope>> {
        Ok(Vec::new())
    }

    fn tells_scopes(&self) -> bool {
        true
    }

    fn reread(&self, wanted: &[Wanted], _: Duration) -> Result<Vec<Reread>> {
        yield_now();
        let read = |wanted: &Wanted| {
            let id = *wanted.primary_key.values::<Item>().unwrap();
            Reread { row: Ok(Some(Box::new(Item(id)))), version: wanted.floor }
        };
        Ok(wanted.iter().map(read).collect())
    }

    fn look(&self, _: &'static Schema, _: &Scope, _: &[PrimaryKey], _: Duration) -> Result<Vec<Looked>> {
        Err(nobody_asks())
    }

    fn barrier(&self, _: Duration) -> Result<Version> {
        Err(nobody_asks())
    }

    fn page(&self, _: &'static Schema, _: &Scope, _: Option<&Position>, _: usize, _: Duration) -> Result<RowsPage> {
        Err(nobody_asks())
    }

    fn estimate(&self, _: &'static Schema, _: &Scope, _: Duration) -> Result<Option<u64>> {
        Ok(None)
    }
}

impl Outbox for Table {
    fn name(&self) -> &'static str {
        "main"
    }

    fn claim(&self, most: usize, _: Duration) -> Result<Vec<Claimed>> {
        let mut rows = self.rows.lock();
        let waiting = rows.iter_mut().filter(|(_, held)| *held == Held::Waits).take(most);
        let claimed = waiting.map(|(id, held)| {
            *held = Held::Claimed;
            let changes = Ok(vec![change(*id, *id)]);
            Claimed { id: i64::try_from(*id).unwrap(), table: "items".into(), attempts: 0, changes }
        });
        Ok(claimed.collect())
    }

    fn extend(&self, _: &[i64], _: Duration) -> Result<()> {
        Ok(())
    }

    fn delivered(&self, ids: &[i64]) -> Result<()> {
        let there = |id| stands(&self.store, id, id);
        self.turn(ids, |id, held| if held == Held::Claimed && there(id) { Held::Delivered } else { Held::Wrong });
        Ok(())
    }

    fn failed(&self, failures: &[Failure]) -> Result<()> {
        let failed: Vec<i64> = failures.iter().map(|failure| failure.id).collect();
        self.turn(&failed, |_, _| Held::Wrong);
        Ok(())
    }

    fn release(&self, ids: &[i64], _: Duration) -> Result<()> {
        self.turn(ids, |_, held| if held == Held::Claimed { Held::Waits } else { Held::Wrong });
        Ok(())
    }

    fn depth(&self) -> Result<OutboxDepth> {
        Ok(OutboxDepth::default())
    }

    fn range(&self) -> Result<Option<OutboxRange>> {
        let last = i64::try_from(self.rows.lock().len()).unwrap();
        Ok(Some(OutboxRange { database: "main".into(), first: 0, last }))
    }

    fn waits(&self, range: &OutboxRange) -> Result<bool> {
        let within = |id: u64| i64::try_from(id).unwrap() <= range.last;
        Ok(self.rows.lock().iter().any(|(id, held)| within(*id) && matches!(held, Held::Waits | Held::Claimed)))
    }

    fn failure(&self, _: &OutboxRange) -> Result<Option<String>> {
        Ok(None)
    }

    fn failing(&self) -> Result<Vec<Failing>> {
        Ok(Vec::new())
    }

    fn strangers(&self, _: Duration) -> Result<u64> {
        Ok(0)
    }

    fn dead_letters(&self, _: i64, _: usize) -> Result<Vec<DeadLetter>> {
        Ok(Vec::new())
    }

    fn retry(&self, _: Option<&[i64]>) -> Result<usize> {
        Ok(0)
    }

    fn discard(&self, _: Option<&[i64]>) -> Result<usize> {
        Ok(0)
    }

    fn replay(&self, _: SystemTime) -> Result<usize> {
        Ok(0)
    }

    fn purge(&self, _: Duration, _: usize) -> Result<usize> {
        Ok(0)
    }
}

fn nobody_asks() -> Error {
    Error::new(ErrorKind::Unavailable, "no model asks this")
}

fn start() -> (Arc<Pipeline>, Arc<Table>) {
    let table = Arc::new(Table::default());
    let mut config = PipelineConfig::new(vec![Arc::clone(&table.store) as Arc<dyn SyncStore>]);
    (config.workers, config.upkeep_every) = (2, NEVER);
    config.relay = RelayConfig { poll: NEVER, lease: 3 * NEVER, ..RelayConfig::default() };
    let pipeline = Pipeline::start(config).unwrap();
    pipeline.set_sources(vec![Arc::clone(&table) as Arc<dyn Source>]);
    (Arc::new(pipeline), table)
}

/// Two threads that each commit two changes.
fn write(pipeline: &Pipeline) -> [shuttle::thread::JoinHandle<()>; 2] {
    [[(1, 1), (2, 2)], [(1, 4), (3, 3)]].map(|changes| {
        let publish = pipeline.publisher();
        spawn(move || {
            for (id, version) in changes {
                publish.publish(ChangeSet { changes: vec![change(id, version)], lost: Vec::new() });
            }
        })
    })
}

/// The newest version of each.
const NEWEST: [(u64, u64); 3] = [(1, 4), (2, 2), (3, 3)];

/// Whether a store holds this version of an item, or a newer one.
fn stands(store: &MemoryStore, id: u64, version: u64) -> bool {
    let bytes = store.get_many(&[Key::new(format!("item:{id}"))]).unwrap().remove(0);
    let head = bytes.map(|bytes| Envelope::parse(&bytes).unwrap().head);
    head.is_some_and(|head| head.version.sequence() >= version && head.state == State::Value)
}

#[test]
fn whoever_flushes_wakes_when_all_is_there_and_every_thread_ends() {
    explore_some(SCHEDULES, || {
        let (pipeline, table) = start();
        let writers = write(&pipeline);
        let early = {
            let pipeline = Arc::clone(&pipeline);
            spawn(move || pipeline.flush(NEVER).unwrap())
        };
        for thread in writers {
            thread.join().unwrap();
        }
        pipeline.flush(NEVER).unwrap();
        assert!(NEWEST.iter().all(|(id, version)| stands(&table.store, *id, *version)), "a flush ended early");
        early.join().unwrap();
        let ended = pipeline.shutdown(NEVER);
        assert!(ended.is_clean() && ended.written == 4, "{ended}");
    });
}

#[test]
fn a_shutdown_beside_writers_ends_and_tells_what_it_left() {
    explore_some(SCHEDULES, || {
        let (pipeline, table) = start();
        let writers = write(&pipeline);
        let other = {
            let pipeline = Arc::clone(&pipeline);
            spawn(move || pipeline.shutdown(NEVER).to_string())
        };
        let ended = pipeline.shutdown(NEVER);
        assert_eq!(ended.to_string(), other.join().unwrap());
        for thread in writers {
            thread.join().unwrap();
        }
        let told = ended.left + ended.unsettled > 0 || !pipeline.dirty_tables().is_empty();
        assert!(told || NEWEST.iter().all(|(id, version)| stands(&table.store, *id, *version)), "{ended}");
        assert_eq!(ended.threads, 0);
    });
}

#[test]
fn rows_of_an_outbox_are_delivered_when_the_relay_is_rung() {
    explore_some(SCHEDULES, || {
        let (pipeline, table) = start();
        pipeline.relay(vec![Arc::clone(&table) as Arc<dyn Outbox>]).unwrap();
        for id in 1..=3 {
            table.rows.lock().push((id, Held::Waits));
            pipeline.ring("main");
        }
        // Nobody flushes, which would ring again.
        while !table.all(|held| held == Held::Delivered) {
            assert!(table.all(|held| held != Held::Wrong));
            yield_now();
        }
        assert!(pipeline.shutdown(NEVER).is_clean());
    });
}

#[test]
fn a_relay_that_ends_holds_no_row() {
    explore_some(SCHEDULES, || {
        let (pipeline, table) = start();
        pipeline.relay(vec![Arc::clone(&table) as Arc<dyn Outbox>]).unwrap();
        let writer = {
            let (pipeline, table) = (Arc::clone(&pipeline), Arc::clone(&table));
            spawn(move || {
                for id in 1..=3 {
                    table.rows.lock().push((id, Held::Waits));
                    pipeline.ring("main");
                }
            })
        };
        let ended = pipeline.shutdown(NEVER);
        assert_eq!(ended.threads, 0);
        writer.join().unwrap();
        assert!(table.all(|held| matches!(held, Held::Waits | Held::Delivered)), "{:?}", table.rows.lock());
    });
}
