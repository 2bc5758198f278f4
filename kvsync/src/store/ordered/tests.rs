use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;

use super::*;
use crate::error::{Error, ErrorKind};
use crate::store::Status;
use crate::store::data::{Batch, DataCommands};

/// An engine in memory that counts its transactions and takes so many entries in one.
#[derive(Debug)]
struct Counting {
    entries: Mutex<BTreeMap<Bytes, Bytes>>,
    transactions: AtomicUsize,
    most: usize,
}

impl Store for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn health(&self, _deadline: Duration) -> Health {
        Health::new(Status::Up, Vec::new())
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }
}

struct Entries(BTreeMap<Bytes, Bytes>);

impl Reader for Entries {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.0.get(key).cloned())
    }

    /// Nothing is waited for.
    fn prefetch(&self, _keys: &mut dyn Iterator<Item = Vec<u8>>) {}

    fn range(&self, between: Between<'_>, direction: Direction, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        let found = self.0.range::<[u8], _>(between).map(|(key, value)| (key.clone(), value.clone()));
        Ok(if direction == Direction::Forward {
            found.take(limit).collect()
        } else {
            found.rev().take(limit).collect()
        })
    }
}

impl Engine for Counting {
    fn limits(&self) -> Limits {
        Limits { key: 1024, value: 1024, transaction: usize::MAX, batch: 100 }
    }

    fn read<T>(&self, work: impl Fn(&dyn Reader) -> Result<T>) -> Result<T> {
        self.transactions.fetch_add(1, Ordering::Relaxed);
        work(&Entries(self.entries.lock().clone()))
    }

    fn write<T>(&self, work: impl Fn(&mut dyn Writer) -> Result<T>) -> Result<T> {
        let mut entries = self.entries.lock();
        let mut overlay = Overlay::new(Entries(entries.clone()));
        let answer = work(&mut overlay)?;
        let changes = overlay.into_changes();
        if changes.len() > self.most {
            return Err(Error::new(ErrorKind::Rejected, "too much for one transaction"));
        }
        self.transactions.fetch_add(1, Ordering::Relaxed);
        for (key, value) in changes {
            match value {
                Some(value) => entries.insert(key, value),
                None => entries.remove(&key),
            };
        }
        Ok(answer)
    }
}

fn store(most: usize) -> OrderedStore<Counting> {
    OrderedStore::over(Counting { entries: Mutex::default(), transactions: AtomicUsize::new(0), most })
}

#[test]
fn a_batch_is_one_transaction_in_which_a_command_fails_alone() {
    let store = store(usize::MAX);
    store.set("text", "a").unwrap();
    let mut batch = Batch::new();
    let first = batch.incr_by("counter", 1);
    let wrong = batch.sadd("text", ["b"]);
    let long = batch.set("x".repeat(1000), "y");
    let second = batch.incr_by("counter", 1);
    let read = batch.get("counter");
    let before = store.engine().transactions.load(Ordering::Relaxed);
    let mut answers = batch.run(&store);
    assert_eq!(store.engine().transactions.load(Ordering::Relaxed), before + 1);
    assert_eq!(answers.take(first).unwrap(), 1);
    assert_eq!(answers.take(wrong).unwrap_err().kind(), ErrorKind::WrongType);
    assert_eq!(answers.take(long).unwrap_err().kind(), ErrorKind::Rejected);
    assert_eq!(answers.take(second).unwrap(), 2);
    assert_eq!(answers.take(read).unwrap().as_deref(), Some(b"2".as_slice()));
    assert_eq!(store.get("text").unwrap().as_deref(), Some(b"a".as_slice()));
}

#[test]
fn what_an_engine_does_not_take_as_one_is_done_in_parts_and_once() {
    let store = store(3);
    let mut batch = Batch::new();
    let pending: Vec<_> = (0..250).map(|number| batch.incr_by(format!("counter:{number}"), 1)).collect();
    let mut answers = batch.run(&store);
    assert!(pending.into_iter().all(|pending| answers.take(pending).unwrap() == 1));
}

#[test]
fn what_has_expired_goes_with_the_writes_of_others() {
    #[derive(Debug, Default)]
    struct Hand(AtomicU64);
    impl Clock for Hand {
        fn now(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH + Duration::from_millis(self.0.load(Ordering::Relaxed))
        }
    }
    let clock = Arc::new(Hand::default());
    clock.0.store(1_000_000, Ordering::Relaxed);
    let store = store(usize::MAX).with_clock(Arc::clone(&clock) as Arc<dyn Clock>);
    for number in 0..10 {
        store.set_for(format!("short:{number}"), "a", Duration::from_millis(5)).unwrap();
    }
    let kept = || store.engine().entries.lock().len();
    assert_eq!(kept(), 20);
    clock.0.fetch_add(2000, Ordering::Relaxed);
    for _ in 0..5 {
        store.set("other", "b").unwrap();
    }
    assert_eq!(kept(), 1, "each write removes two that have expired");
    // A clock that was put back far does not end it.
    store.set_for("short", "a", Duration::from_millis(5)).unwrap();
    clock.0.store(10_000, Ordering::Relaxed);
    store.set_for("shorter", "a", Duration::from_millis(5)).unwrap();
    clock.0.fetch_add(1001, Ordering::Relaxed);
    store.set("other", "b").unwrap();
    assert_eq!(kept(), 3, "the one of before the clock was put back lives on");
}
