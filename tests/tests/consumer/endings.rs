//! A consumer ends in good order, and one that does not leaves its messages to others.

use std::sync::Arc;
use std::sync::mpsc::channel;

use kvsync::store::MemoryStore;
use kvsync::store::layer::Fault;
use kvsync::transport::{MemoryBroker, Subscription};
use parking_lot::Mutex;

use crate::rig::{App, LONG, SHORT, User, consumer, reader, user};

#[test]
fn a_shutdown_finishes_what_is_held_and_takes_nothing_more() {
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let mut app = App::publishing(broker.clone());
    let store = MemoryStore::new();
    let ((enter, entered), (go, goes)) = (channel(), channel::<()>());
    let goes = Mutex::new(goes);
    let consumer = consumer(&queue, store.clone(), |builder| {
        builder.workers(1).batch(1).on_change::<User>(move |_| {
            enter.send(())?;
            goes.lock().recv()?;
            Ok(())
        })
    });
    for id in 1..4 {
        app.insert(&user(id, &format!("e{id}"), "ann"));
    }
    app.flush();
    entered.recv().unwrap();
    let ended = std::thread::scope(|scope| {
        let ending = scope.spawn(|| consumer.shutdown(LONG));
        // As many as there may be: the next is taken unless it was told to end before.
        (0..3).for_each(|_| go.send(()).unwrap());
        ending.join().unwrap()
    });
    assert!(ended.acknowledged >= 1 && ended.is_clean(), "{ended}");
    // The queue is open for the next one.
    let rest = broker.queue("all").backlog().unwrap();
    assert_eq!((rest.waiting + ended.acknowledged, rest.taken), (3, 0));
    assert_eq!(ended.to_string(), consumer.shutdown(SHORT).to_string());
}

#[test]
fn what_a_consumer_held_when_the_store_was_down_is_delivered_to_the_next() {
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let mut app = App::publishing(broker.clone());
    let store = Arc::new(Fault::new(MemoryStore::new()));
    let first = consumer(&queue, Arc::clone(&store), |builder| builder);
    app.insert(&user(0, "e0", "ann"));
    app.flush();
    first.drain(LONG).unwrap();
    store.set_down(true);
    for id in 1..50 {
        app.insert(&user(id, &format!("e{id}"), "ann"));
    }
    app.flush();
    let ended = first.shutdown(LONG);
    assert!(ended.is_clean() && ended.acknowledged == 1, "{ended}");
    store.set_down(false);
    let queue = broker.queue("all");
    let next = consumer(&queue, Arc::clone(&store), |builder| builder);
    next.drain(LONG).unwrap();
    let kv = reader(store);
    assert!((0..50).all(|id| User::fetch_by_id(&kv, id).unwrap().is_some()));
    assert_eq!(queue.dead_letters(), []);
}
