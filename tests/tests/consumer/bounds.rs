//! What one message, one hook, or one server that hangs may cost the others.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use kvsync::store::layer::{Fault, Injected};
use kvsync::store::{MemoryStore, Status};
use kvsync::transport::{Arrival, Backlog, DeadMessage, Health, MemoryBroker, MemoryQueue, Subscription};
use kvsync::{Consumer, KvSync, Lookup, Result};
use parking_lot::Mutex;

use crate::rig::{App, LONG, SHORT, SOON, User, consumer, reader, until, user};

/// A hook that tells of each call, and waits until it is let go on.
fn waiting() -> (impl Fn(i32) + Send + Sync + 'static, Receiver<i32>, Sender<()>) {
    let ((enter, entered), (go, goes)) = (channel(), channel::<()>());
    let (enter, goes) = (Mutex::new(enter), Mutex::new(goes));
    let hook = move |id| {
        // The test may have ended.
        let _ = enter.lock().send(id);
        let _ = goes.lock().recv();
    };
    (hook, entered, go)
}

#[test]
fn a_message_is_acknowledged_when_its_own_hooks_are_done() {
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let mut app = App::publishing(broker);
    for id in 1..=3 {
        app.insert(&user(id, &format!("e{id}"), "ann"));
    }
    app.flush();
    let (hook, entered, go) = waiting();
    let store = MemoryStore::new();
    let consumer = consumer(&queue, store.clone(), |builder| {
        builder.workers(1).on_change::<User>(move |change| {
            hook(change.row().map_or(0, |row| row.id));
            Ok(())
        })
    });
    entered.recv().unwrap();
    // All of the batch is in the store before the first hook is called.
    let kv = reader(store);
    assert!((1..=3).all(|id| User::fetch_by_id(&kv, id).unwrap().is_some()));
    for left in [2, 1] {
        go.send(()).unwrap();
        entered.recv().unwrap();
        let backlog = queue.backlog().unwrap();
        assert_eq!((backlog.taken, backlog.waiting), (left, 0), "the others wait for no hook but their own");
    }
    go.send(()).unwrap();
    consumer.drain(LONG).unwrap();
}

#[test]
fn a_shutdown_gives_back_what_has_yet_to_be_told_to_hooks() {
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let mut app = App::publishing(broker.clone());
    for id in 1..=5 {
        app.insert(&user(id, &format!("e{id}"), "ann"));
    }
    app.flush();
    let (hook, entered, go) = waiting();
    let consumer = consumer(&queue, MemoryStore::new(), |builder| {
        builder.workers(1).on_change::<User>(move |change| {
            hook(change.row().map_or(0, |row| row.id));
            Ok(())
        })
    });
    entered.recv().unwrap();
    let ended = std::thread::scope(|scope| {
        let ending = scope.spawn(|| consumer.shutdown(LONG));
        until("it was told", || consumer.health(LONG).details.iter().any(|told| told.contains("shut down")));
        // There is time: the next hook of what is held is called, too.
        for _ in 0..5 {
            go.send(()).unwrap();
        }
        ending.join().unwrap()
    });
    assert!(ended.is_clean() && ended.acknowledged == 5, "{ended}");
    // And where there is none, the rest goes to others.
    for id in 6..=9 {
        app.insert(&user(id, &format!("e{id}"), "ann"));
    }
    app.flush();
    let queue = broker.queue("all");
    let (hook, entered, go) = waiting();
    let consumer = consumer_with(&queue, hook);
    entered.recv().unwrap();
    let ended = std::thread::scope(|scope| {
        let ending = scope.spawn(|| consumer.shutdown(Duration::ZERO));
        until("it was told", || consumer.health(LONG).details.iter().any(|told| told.contains("shut down")));
        drop(go);
        ending.join().unwrap()
    });
    assert!(ended.acknowledged <= 1, "{ended}");
    until("the rest is back", || broker.queue("all").backlog().unwrap().waiting >= 3);
}

fn consumer_with(queue: &MemoryQueue, hook: impl Fn(i32) + Send + Sync + 'static) -> Consumer {
    consumer(queue, MemoryStore::new(), |builder| {
        builder.workers(1).on_change::<User>(move |change| {
            hook(change.row().map_or(0, |row| row.id));
            Ok(())
        })
    })
}

#[test]
fn an_epoch_far_ahead_shuts_nobody_out() {
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let mut mistaken = App::with(KvSync::builder().broker(broker.clone()).epoch(1_000_000), false);
    let mut app = App::publishing(broker.clone());
    let store = MemoryStore::new();
    let consumer = consumer(&queue, store.clone(), |builder| builder);
    mistaken.insert(&user(1, "m", "mad"));
    mistaken.flush();
    app.insert(&user(2, "a", "ann"));
    app.flush();
    consumer.drain(LONG).unwrap();
    let dead = queue.dead_letters();
    assert!(dead.len() == 1 && dead[0].reason.contains("epoch 1000000"), "{dead:?}");
    let kv = reader(store.clone());
    assert!(User::fetch_by_id(&kv, 2).unwrap().is_some(), "the others are heard");
    assert!(matches!(User::lookup_by_id(&kv, 1).unwrap(), Lookup::Unknown(_)));
    // A little ahead, as after a restore, is followed.
    let mut restored = App::with(KvSync::builder().broker(broker.clone()).epoch(3), false);
    restored.insert(&user(3, "c", "cas"));
    restored.flush();
    consumer.drain(LONG).unwrap();
    assert_eq!(kvsync::store::SyncStore::epoch(&store).unwrap(), 3);
    drop(consumer);
    // And whoever is told follows any.
    let queue = broker.queue("all");
    mistaken.insert(&user(4, "d", "dan"));
    mistaken.flush();
    let told = Consumer::builder().subscription(queue.clone()).store(store.clone()).epoch(1_000_000).backoff(SOON);
    let told = told.drop_deadline(SHORT).build().unwrap();
    told.drain(LONG).unwrap();
    assert!(User::fetch_by_id(&reader(store), 4).unwrap().is_some());
}

/// A queue that does not say how it is.
#[derive(Debug)]
struct Silent(MemoryQueue, Mutex<Receiver<()>>);

impl Subscription for Silent {
    fn name(&self) -> &'static str {
        "silent"
    }

    fn receive(&self, most: usize, wait: Duration) -> Result<Vec<Arrival>> {
        self.0.receive(most, wait)
    }

    fn backlog(&self) -> Result<Backlog> {
        let _ = self.1.lock().recv();
        self.0.backlog()
    }

    fn dead(&self, most: usize) -> Result<Vec<DeadMessage>> {
        self.0.dead(most)
    }

    fn redrive(&self, most: usize) -> Result<usize> {
        self.0.redrive(most)
    }

    fn health(&self, deadline: Duration) -> Health {
        let _ = self.1.lock().recv();
        self.0.health(deadline)
    }

    fn close(&self) -> Result<()> {
        self.0.close()
    }
}

#[test]
fn health_is_told_in_time_when_nobody_answers() {
    let queue = MemoryBroker::new().queue("all");
    let (speak, silence) = channel();
    let store = Arc::new(Fault::new(MemoryStore::new()));
    let builder = Consumer::builder().subscription(Silent(queue, Mutex::new(silence))).store(Arc::clone(&store));
    let consumer = builder.workers(1).drop_deadline(SHORT).build().unwrap();
    store.script((0..50).map(|_| Injected::Delay(Duration::from_secs(3))));
    for _ in 0..3 {
        let began = Instant::now();
        let health = consumer.health(Duration::from_millis(100));
        // What a slow machine may add; an answer takes for ever.
        assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
        assert_eq!((health.status, health.backlog), (Status::Down, None), "{health}");
        assert!(health.to_string().contains("silent did not say within"), "{health}");
    }
    drop(speak);
    // The layer of faults degrades it for good.
    until("it answers", || consumer.health(LONG).status == Status::Degraded);
    until("it tells what it holds", || consumer.health(LONG).backlog.is_some());
}
