use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use super::*;
use crate::store::data::{
    self, AtomicWrite, Command, DataCapabilities, DataCommands, DataStore, Operation, Reads, Reply,
};
use crate::store::layer::{Fault, Injected, NearCache};
use crate::store::{Capabilities, Cursor, Health, Page, Store};

const LONG: Duration = Duration::from_hours(1);

fn cached<S>(store: S) -> NearCache<S> {
    NearCache::new(store, 1 << 20, LONG)
}

/// Reads what may lag.
fn get(store: &impl DataStore, key: &'static str) -> Option<Bytes> {
    let get = Command::Get { key: Bytes::from_static(key.as_bytes()) };
    store.run(&[get], Reads::Eventual).remove(0).and_then(Reply::value).unwrap()
}

/// A store that stops before or after its next call, until it is let go on.
#[derive(Debug, Clone, Default)]
struct Gate {
    store: MemoryStore,
    stop: Arc<Mutex<Option<Stop>>>,
    reads: Arc<Mutex<Vec<Reads>>>,
}

#[derive(Debug)]
struct Stop {
    after: bool,
    reached: Sender<()>,
    go_on: Receiver<()>,
}

impl Gate {
    /// The next call stops before it reads or writes, or after.
    fn stop(&self, after: bool) -> (Receiver<()>, Sender<()>) {
        let ((reached, is_reached), (go, go_on)) = (channel(), channel());
        *self.stop.lock() = Some(Stop { after, reached, go_on });
        (is_reached, go)
    }

    fn pass<T>(&self, call: impl FnOnce() -> T) -> T {
        let Some(stop) = self.stop.lock().take() else { return call() };
        let wait = || {
            stop.reached.send(()).unwrap();
            stop.go_on.recv().unwrap();
        };
        if stop.after {
            let answer = call();
            wait();
            answer
        } else {
            wait();
            call()
        }
    }
}

impl Store for Gate {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn health(&self, deadline: Duration) -> Health {
        self.store.health(deadline)
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }
}

impl SyncStore for Gate {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    fn execute(&self, steps: &[Step], terms: &Terms) -> Vec<Result<Outcome>> {
        self.pass(|| self.store.execute(steps, terms))
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>> {
        self.pass(|| self.store.get_many(keys))
    }

    fn scan(&self, prefix: &str, cursor: Option<Cursor>, limit: usize) -> Result<Page> {
        self.store.scan(prefix, cursor, limit)
    }

    fn epoch(&self) -> Result<u32> {
        self.store.epoch()
    }

    fn raise_epoch(&self, epoch: u32) -> Result<u32> {
        self.store.raise_epoch(epoch)
    }
}

impl DataStore for Gate {
    fn data_capabilities(&self) -> DataCapabilities {
        self.store.data_capabilities()
    }

    fn run(&self, commands: &[Command], reads: Reads) -> Vec<Result<Reply>> {
        self.reads.lock().push(reads);
        self.pass(|| self.store.run(commands, reads))
    }

    fn run_atomic(&self, operations: &[Operation]) -> Result<data::Outcome> {
        self.pass(|| self.store.run_atomic(operations))
    }
}

#[test]
fn a_reading_that_a_write_overtook_is_not_kept() {
    let gate = Gate::default();
    let cache = cached(gate.clone());
    cache.set("key", "old").unwrap();
    run(&cache, write("row", 1)).unwrap();

    let (read, go_on) = gate.stop(true);
    thread::scope(|scope| {
        let reader = scope.spawn(|| get(&cache, "key"));
        read.recv().unwrap();
        cache.set("key", "new").unwrap();
        go_on.send(()).unwrap();
        assert_eq!(reader.join().unwrap().as_deref(), Some(&b"old"[..]), "it had read before the write");
    });
    assert_eq!(get(&cache, "key").as_deref(), Some(&b"new"[..]), "a command");

    let (read, go_on) = gate.stop(true);
    let view = cache.reader();
    thread::scope(|scope| {
        let reader = scope.spawn(|| version(&view, "row"));
        read.recv().unwrap();
        run(&cache, write("row", 2)).unwrap();
        go_on.send(()).unwrap();
        assert_eq!(reader.join().unwrap(), Some(at(1)));
    });
    assert_eq!(version(&view, "row"), Some(at(2)), "a row");
}

#[test]
fn what_is_read_while_a_write_is_under_way_is_not_kept() {
    let gate = Gate::default();
    let cache = cached(gate.clone());
    cache.set("key", "old").unwrap();
    let (under_way, go_on) = gate.stop(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| cache.set("key", "new"));
        under_way.recv().unwrap();
        assert_eq!(get(&cache, "key").as_deref(), Some(&b"old"[..]));
        go_on.send(()).unwrap();
        writer.join().unwrap().unwrap();
    });
    assert_eq!(get(&cache, "key").as_deref(), Some(&b"new"[..]));
}

#[test]
fn what_is_kept_is_answered_without_the_store_and_latest_is_not() {
    let fault = Arc::new(Fault::new(MemoryStore::new()));
    let cache = cached(Arc::clone(&fault));
    cache.set("string", "1").unwrap();
    cache.hset("hash", [("field", "1")]).unwrap();
    cache.sadd("set", ["member"]).unwrap();
    run(&cache, write("row", 1)).unwrap();
    let eventual = |command: Command| cache.run(&[command], Reads::Eventual).remove(0);
    let key = |key: &'static str| Bytes::from_static(key.as_bytes());
    let asked = [
        Command::Get { key: key("string") },
        Command::Get { key: key("absent") },
        Command::MGet { keys: vec![key("string"), key("absent"), key("hash")] },
        Command::HGetAll { key: key("hash") },
        Command::HGet { key: key("hash"), field: key("field") },
        Command::HGet { key: key("hash"), field: key("other") },
        Command::SMembers { key: key("set") },
        Command::SMembers { key: key("absent") },
    ];
    let before: Vec<_> = asked.iter().map(|command| eventual(command.clone()).unwrap()).collect();
    let rows = [Key::new("row"), Key::new("nothing")];
    let before_rows = cache.reader().get_many(&rows).unwrap();
    fault.set_down(true);
    for (command, before) in asked.iter().zip(before) {
        assert_eq!(eventual(command.clone()).unwrap(), before, "{command:?}");
        let latest = cache.run(std::slice::from_ref(command), Reads::Latest).remove(0);
        assert_eq!(latest.map_err(|error| error.kind()), Err(ErrorKind::Unavailable), "{command:?}");
    }
    assert_eq!(cache.reader().get_many(&rows).unwrap(), before_rows);
    assert!(cache.get_many(&rows).is_err(), "rows, from the store itself");
}

#[test]
fn what_is_kept_is_not_read_from_a_replica_and_what_is_not_may_be() {
    let gate = Gate::default();
    let cache = cached(gate.clone());
    let key = || Bytes::from_static(b"key");
    get(&cache, "key");
    cache.run(&[Command::ZScore { key: key(), member: key() }], Reads::Eventual).remove(0).unwrap();
    assert_eq!(*gate.reads.lock(), [Reads::Latest, Reads::Eventual]);
}

#[test]
fn a_key_of_another_kind_fails_though_a_reading_of_many_found_no_string() {
    let cache = cached(MemoryStore::new());
    cache.sadd("set", ["member"]).unwrap();
    let key = || Bytes::from_static(b"set");
    cache.run(&[Command::MGet { keys: vec![key()] }], Reads::Eventual).remove(0).unwrap();
    let wrong = cache.run(&[Command::Get { key: key() }], Reads::Eventual).remove(0);
    assert_eq!(wrong.map_err(|error| error.kind()), Err(ErrorKind::WrongType));
}

#[test]
fn every_write_that_passes_is_seen() {
    let cache = cached(MemoryStore::new());
    let hash = || cache.run(&[Command::HGetAll { key: Bytes::from_static(b"hash") }], Reads::Eventual).remove(0);
    assert_eq!(hash().and_then(Reply::fields).unwrap(), []);
    cache.hset("hash", [("field", "1")]).unwrap();
    assert_eq!(hash().and_then(Reply::fields).unwrap().len(), 1);
    assert_eq!(get(&cache, "string"), None);
    let mut atomic = AtomicWrite::new();
    atomic.set("string", "1");
    atomic.hset("hash", [("other", "2")]);
    cache.atomic_write(&atomic).unwrap();
    assert_eq!(get(&cache, "string").as_deref(), Some(&b"1"[..]));
    assert_eq!(hash().and_then(Reply::fields).unwrap().len(), 2);
    let both = [
        Command::Set {
            key: Bytes::from_static(b"string"),
            value: Bytes::from_static(b"2"),
            when: data::Condition::Always,
            expires: None,
        },
        Command::Get { key: Bytes::from_static(b"string") },
    ];
    let answers = cache.run(&both, Reads::Eventual);
    assert_eq!(answers[1].clone().and_then(Reply::value).unwrap().as_deref(), Some(&b"2"[..]), "behind it in one call");

    let view = cache.reader();
    for step in [
        write("row", 1),
        write("row", 2),
        merge("row", 3, Content::Delete),
        Step::Confirm { home: Key::new("row"), released: Vec::new() },
        merge("row", 4, Content::Unknown),
    ] {
        run(&cache, step.clone()).unwrap();
        let row = [Key::new("row")];
        let (near, latest) = (view.get_many(&row), cache.get_many(&row));
        assert_eq!(near.unwrap(), latest.unwrap(), "{step:?}");
    }
    let stands = cache.get_many(&[Key::new("row")]).unwrap().remove(0).unwrap();
    run(&cache, Step::Remove { key: Key::new("row"), stands }).unwrap();
    assert_eq!(version(&view, "row"), None);
}

#[test]
fn an_error_is_not_kept() {
    let fault = Arc::new(Fault::new(MemoryStore::new()));
    let cache = cached(Arc::clone(&fault));
    cache.set("key", "1").unwrap();
    run(&cache, write("row", 1)).unwrap();
    fault.script([Injected::Refuse(ErrorKind::Unavailable), Injected::LoseAnswer]);
    assert!(cache.run(&[Command::Get { key: Bytes::from_static(b"key") }], Reads::Eventual).remove(0).is_err());
    assert!(cache.reader().get_many(&[Key::new("row")]).is_err());
    assert_eq!(get(&cache, "key").as_deref(), Some(&b"1"[..]));
    assert_eq!(version(&cache.reader(), "row"), Some(at(1)));
}

#[test]
fn what_a_write_in_doubt_has_done_is_seen() {
    let fault = Arc::new(Fault::new(MemoryStore::new()));
    let cache = cached(Arc::clone(&fault));
    let view = cache.reader();
    cache.set("key", "old").unwrap();
    run(&cache, write("row", 1)).unwrap();
    assert_eq!((version(&view, "row"), get(&cache, "key").as_deref()), (Some(at(1)), Some(&b"old"[..])));
    fault.script([Injected::LoseAnswer, Injected::LoseAnswer]);
    let kind = |error: crate::Error| error.kind();
    assert_eq!(cache.set("key", "new").map_err(kind), Err(ErrorKind::UnknownOutcome));
    assert_eq!(run(&cache, write("row", 2)).map_err(kind), Err(ErrorKind::UnknownOutcome));
    assert_eq!((version(&view, "row"), get(&cache, "key").as_deref()), (Some(at(2)), Some(&b"new"[..])));
    let mut atomic = AtomicWrite::new();
    atomic.set("key", "newest");
    fault.script([Injected::LoseAnswer]);
    assert_eq!(cache.atomic_write(&atomic).map(drop).map_err(kind), Err(ErrorKind::UnknownOutcome));
    assert_eq!(get(&cache, "key").as_deref(), Some(&b"newest"[..]));
}

#[test]
fn what_another_process_wrote_is_seen_by_latest_at_once_and_by_others_from_then_on() {
    let store = MemoryStore::new();
    let cache = cached(store.clone());
    let view = cache.reader();
    run(&cache, write("row", 1)).unwrap();
    cache.set("key", "old").unwrap();
    assert_eq!((version(&view, "row"), get(&cache, "key").as_deref()), (Some(at(1)), Some(&b"old"[..])));

    run(&store, write("row", 2)).unwrap();
    store.set("key", "new").unwrap();
    assert_eq!((version(&view, "row"), get(&cache, "key").as_deref()), (Some(at(1)), Some(&b"old"[..])), "it lags");
    assert_eq!((version(&cache, "row"), cache.get("key").unwrap().as_deref()), (Some(at(2)), Some(&b"new"[..])));
    assert_eq!((version(&view, "row"), get(&cache, "key").as_deref()), (Some(at(2)), Some(&b"new"[..])), "refreshed");
}

#[test]
fn what_is_kept_ends_with_its_time_and_within_its_bytes() {
    let store = MemoryStore::new();
    let cache = NearCache::new(store.clone(), 1 << 20, Duration::from_millis(1));
    cache.set("key", "old").unwrap();
    get(&cache, "key");
    store.set("key", "new").unwrap();
    while get(&cache, "key").as_deref() != Some(&b"new"[..]) {
        thread::yield_now();
    }

    let small = NearCache::new(store.clone(), 10_000, LONG);
    let view = small.reader();
    for number in 0..200 {
        let key = format!("row {number}");
        run(&store, write(&key, 1)).unwrap();
        assert_eq!(version(&view, &key), Some(at(1)));
    }
    assert!((1..=10_000).contains(&small.bytes()), "{}", small.bytes());
}
