//! How a store and a `KvSync` say how they are, and that none of them is waited for too long.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kvsync::record::Terms;
use kvsync::store::{Capabilities, Cursor, Health, MemoryStore, Outcome, Page, Status, Step, Store, SyncStore};
use kvsync::{Key, KvSync, Result};
use kvsync_tests::Tested;
use kvsync_tests::wait::{LONG, until};
use parking_lot::{Condvar, Mutex};
use serde_json::{Value, json};

/// What `/health` of a program should not be held up for by a store that never answers.
const SHORT: Duration = Duration::from_millis(50);

/// A store in memory that says how it is once its gate lets it, and panics where it is degraded.
#[derive(Debug)]
struct Slow {
    name: &'static str,
    memory: MemoryStore,
    status: Status,
    gate: Arc<Gate>,
}

/// Lets questions through once so many are asked at the same time.
#[derive(Debug, Default)]
struct Gate {
    needed: AtomicUsize,
    asked: Mutex<usize>,
    changed: Condvar,
}

impl Gate {
    fn of(needed: usize) -> Arc<Self> {
        Arc::new(Self { needed: AtomicUsize::new(needed), ..Self::default() })
    }

    fn pass(&self) {
        let mut asked = self.asked.lock();
        *asked += 1;
        self.changed.notify_all();
        while *asked < self.needed.load(Ordering::SeqCst) {
            self.changed.wait(&mut asked);
        }
    }

    fn open(&self) {
        let _asked = self.asked.lock();
        self.needed.store(0, Ordering::SeqCst);
        self.changed.notify_all();
    }

    fn asked(&self) -> usize {
        *self.asked.lock()
    }
}

fn slow(name: &'static str, status: Status, gate: &Arc<Gate>) -> Slow {
    Slow { name, memory: MemoryStore::new(), status, gate: Arc::clone(gate) }
}

fn handle(stores: Vec<Slow>) -> Result<KvSync> {
    stores.into_iter().fold(KvSync::builder().upkeep_every(LONG), kvsync::Builder::store).build()
}

impl Store for Slow {
    fn name(&self) -> &str {
        self.name
    }

    /// Against the contract, it does not look at the deadline.
    fn health(&self, _: Duration) -> Health {
        // Upkeep asks, too, when the handle is built.
        if std::thread::current().name() == Some("kvsync-health") {
            self.gate.pass();
            assert!(self.status != Status::Degraded, "it would rather not say");
        }
        Health::new(self.status, if self.status == Status::Down { vec!["it burns".to_owned()] } else { Vec::new() })
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }
}

impl SyncStore for Slow {
    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities()
    }

    fn execute(&self, steps: &[Step], terms: &Terms) -> Vec<Result<Outcome>> {
        self.memory.execute(steps, terms)
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>> {
        self.memory.get_many(keys)
    }

    fn scan(&self, prefix: &str, cursor: Option<Cursor>, limit: usize) -> Result<Page> {
        self.memory.scan(prefix, cursor, limit)
    }

    fn epoch(&self) -> Result<u32> {
        self.memory.epoch()
    }

    fn raise_epoch(&self, epoch: u32) -> Result<u32> {
        self.memory.raise_epoch(epoch)
    }
}

#[test]
fn a_store_that_never_answers_is_down_and_holds_up_nobody() -> Tested {
    let gate = Gate::of(usize::MAX);
    let kv = handle(vec![slow("stuck", Status::Up, &gate)])?;
    for _ in 0..20 {
        let health = kv.health(SHORT);
        assert_eq!(health.status, Status::Down);
        assert_eq!(health.details, ["stuck did not say within 50.0ms how it is"]);
    }
    until("it is asked", || gate.asked() > 0);
    assert_eq!(gate.asked(), 1, "one thread waits for the store, however often health is asked");
    gate.open();
    assert_eq!(kv.health(LONG).status, Status::Up);
    Ok(())
}

#[test]
fn stores_are_asked_at_the_same_time_and_share_the_deadline() -> Tested {
    // None of them answers before all three were asked.
    let gate = Gate::of(3);
    let kv = handle(["one", "two", "three"].map(|name| slow(name, Status::Up, &gate)).into())?;
    let health = kv.health(LONG);
    assert_eq!(health.status, Status::Up, "{health}");
    assert_eq!(health.stores.iter().map(|store| &*store.store).collect::<Vec<_>>(), ["one", "two", "three"]);
    Ok(())
}

#[test]
fn a_question_with_more_time_is_not_content_with_what_another_with_less_was_told() -> Tested {
    /// Down whenever it is given less than a minute.
    #[derive(Debug)]
    struct Hasty(Slow);
    impl Store for Hasty {
        fn name(&self) -> &'static str {
            "hasty"
        }
        fn health(&self, deadline: Duration) -> Health {
            self.0.health(deadline);
            let status = if deadline < Duration::from_mins(1) { Status::Down } else { Status::Up };
            Health::new(status, Vec::new())
        }
        fn close(&self) -> Result<()> {
            Ok(())
        }
    }
    impl SyncStore for Hasty {
        fn capabilities(&self) -> Capabilities {
            self.0.capabilities()
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

    let gate = Gate::of(usize::MAX);
    let kv = KvSync::builder().store(Hasty(slow("hasty", Status::Up, &gate))).build()?;
    assert_eq!(kv.health(SHORT).status, Status::Down);
    until("it is asked", || gate.asked() > 0);
    let patient = std::thread::spawn({
        let kv = kv.clone();
        move || kv.health(Duration::from_hours(1)).status
    });
    gate.open();
    assert_eq!(patient.join().map_err(|_| "it panicked")?, Status::Up);
    Ok(())
}

#[test]
fn it_is_as_its_worst_part_but_only_the_store_that_is_read_takes_it_down() -> Tested {
    let gate = Gate::of(0);
    let status = |first, second| -> Result<(Status, String)> {
        let health = handle(vec![slow("read", first, &gate), slow("other", second, &gate)])?.health(LONG);
        Ok((health.status, health.to_string()))
    };
    assert_eq!(status(Status::Up, Status::Up)?, (Status::Up, "up".to_owned()));
    assert_eq!(status(Status::Up, Status::Down)?, (Status::Degraded, "degraded\n  it burns".to_owned()));
    assert_eq!(status(Status::Down, Status::Up)?, (Status::Down, "down\n  it burns".to_owned()));
    let (panicked, text) = status(Status::Degraded, Status::Up)?;
    let wanted = "down\n  read panicked when it was asked how it is: it would rather not say";
    assert_eq!((panicked, text.as_str()), (Status::Down, wanted));
    Ok(())
}

#[test]
fn its_fields_keep_their_names_when_it_is_serialised() -> Tested {
    let store = Health::new(Status::Degraded, vec!["it is full".to_owned(), "it is slow".to_owned()]);
    assert_eq!(store.to_string(), "degraded: it is full; it is slow");
    let told = json!({"status": "degraded", "details": ["it is full", "it is slow"], "lives": null});
    assert_eq!(serde_json::to_value(&store)?, told);

    let kv = handle(vec![slow("read", Status::Up, &Gate::of(0))])?;
    let mut told = serde_json::to_value(kv.health(LONG))?;
    let threads = told["pipeline"]["threads"].take();
    assert!(threads.as_u64() > Some(0), "{threads}");
    let of_store = json!({"store": "read", "queued": {"changes": 0, "bytes": 0}, "unsettled": 0, "unsettled_bytes": 0,
        "last_error": null, "last_error_age_ms": null, "failing": false});
    let wanted = json!({
        "status": "up",
        "details": [],
        "stores": [{"store": "read", "status": "up", "details": [], "lives": null}],
        "brokers": [],
        "pipeline": {"stores": [of_store], "brokers": [], "lag_ms": null, "written": 0, "outboxes": [], "dirty": [],
            "dropped_reports": 0, "threads": null, "restarts": 0, "closed": false},
        "verifiers": [],
    });
    assert_eq!(told, wanted);

    kv.shutdown(LONG);
    let ended = serde_json::to_value(kv.health(LONG))?;
    let seen = (&ended["status"], &ended["pipeline"]["closed"], &ended["pipeline"]["threads"]);
    assert_eq!(seen, (&json!("degraded"), &Value::Bool(true), &json!(0)));
    Ok(())
}

#[test]
fn without_time_nothing_is_asked_and_the_figures_are_there() -> Tested {
    let gate = Gate::of(usize::MAX);
    let kv = handle(vec![slow("stuck", Status::Up, &gate)])?;
    let begun = Instant::now();
    assert_eq!(kv.health(Duration::ZERO).pipeline.stores.len(), 1);
    assert!(begun.elapsed() < LONG && gate.asked() == 0);
    Ok(())
}
