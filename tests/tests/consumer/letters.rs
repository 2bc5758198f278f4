//! What can never be applied is kept with its reason, and holds up nothing.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kvsync::clock::ManualClock;
use kvsync::report::{Outcome, Report};
use kvsync::store::MemoryStore;
use kvsync::store::layer::{Fault, Injected};
use kvsync::transport::{Broker, MemoryBroker, Subscription, message};
use kvsync::{ErrorKind, Lookup};
use parking_lot::Mutex;

use crate::rig::{self, App, LONG, Legs, User, consumer, reader, until, user};

#[test]
fn garbage_and_foreign_messages_and_later_formats_are_dead_letters() {
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let mut app = App::publishing(broker.clone());
    app.insert(&user(1, "a", "ann"));
    app.flush();
    let whole = queue.receive(1, Duration::ZERO).unwrap().remove(0);
    let body = whole.body().clone();
    drop(whole);
    let strange = [
        (message::MESSAGEPACK, b"garbage".to_vec(), "expected the map of a message"),
        (message::MESSAGEPACK, Vec::new(), "damaged"),
        (message::MESSAGEPACK, body[..body.len() - 1].to_vec(), "damaged"),
        (message::JSON, b"{\"action\":\"create\",\"id\":7}".to_vec(), "was not published by kvsync"),
        ("text/html", body.to_vec(), "text/html"),
        ("application/vnd.kvsync.change.v2+msgpack", body.to_vec(), "update the consumer"),
        (message::JSON, b"{\"kvsync\":2}".to_vec(), "update the consumer"),
    ];
    for (content_type, body, _) in &strange {
        assert!(broker.publish(&[rig::message(content_type, body.clone())])[0].is_ok());
    }
    let reports: Arc<Mutex<Vec<Report>>> = Arc::default();
    let told = Arc::clone(&reports);
    let store = MemoryStore::new();
    let consumer =
        consumer(&queue, store.clone(), |builder| builder.on_report(move |report| told.lock().push(report.clone())));
    app.insert(&user(2, "b", "bob"));
    app.flush();
    consumer.drain(LONG).unwrap();
    let dead = queue.dead_letters();
    assert_eq!(dead.len(), strange.len(), "{dead:?}");
    for (content_type, body, reason) in &strange {
        let of_it = dead.iter().find(|one| one.message.content_type == *content_type && one.message.body == *body);
        assert!(of_it.is_some_and(|one| one.reason.contains(reason)), "{content_type} {body:?}: {dead:?}");
        assert!(of_it.is_some_and(|one| !one.reason.contains("Wire") && !one.reason.contains("stored")), "{dead:?}");
    }
    let kv = reader(store);
    assert!(User::fetch_by_id(&kv, 1).unwrap().is_some() && User::fetch_by_id(&kv, 2).unwrap().is_some());
    assert!(consumer.shutdown(LONG).is_clean());
    let failed = |report: &&Report| matches!(report, Report::Message(one) if one.outcome == Outcome::Failed);
    assert_eq!(reports.lock().iter().filter(failed).count(), strange.len());
}

#[test]
fn what_is_too_old_to_be_told_from_what_was_deleted_is_a_dead_letter() {
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let mut app = App::publishing(broker);
    app.insert(&user(1, "a", "ann"));
    app.flush();
    let clock = Arc::new(ManualClock::at(SystemTime::now() + Duration::from_hours(4 * 24)));
    let store = MemoryStore::new();
    let consumer = consumer(&queue, store.clone(), |builder| builder.clock(clock));
    consumer.drain(LONG).unwrap();
    let dead = queue.dead_letters();
    assert!(dead.len() == 1 && dead[0].reason.contains("captured more than"), "{dead:?}");
    assert!(matches!(User::lookup_by_id(&reader(store), 1).unwrap(), Lookup::Unknown(_)));
}

#[test]
fn what_the_store_refuses_for_good_is_a_dead_letter_and_unknown() {
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let mut app = App::publishing(broker);
    let store = Arc::new(Fault::new(MemoryStore::new()));
    let consumer = consumer(&queue, Arc::clone(&store), |builder| builder.workers(1));
    let kv = reader(Arc::clone(&store));
    app.insert(&user(1, "a", "ann"));
    app.flush();
    consumer.drain(LONG).unwrap();
    // Whoever renews the mark of the store may take one of these; the change then meets one the less.
    store.script((0..2).map(|_| Injected::RefuseAt(vec![0], ErrorKind::Corrupt)));
    app.rename(1, "b");
    app.flush();
    consumer.drain(LONG).unwrap();
    until("it is dead", || queue.dead_letters().len() == 1);
    assert!(queue.dead_letters()[0].reason.contains("refused"), "{:?}", queue.dead_letters());
    assert_eq!(User::fetch_by_email(&kv, "b").unwrap(), None);
}

#[test]
fn what_the_store_cannot_hold_is_a_dead_letter_and_the_rest_of_it_is_there() {
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let mut app = App::publishing(broker);
    let store = MemoryStore::new();
    let consumer = consumer(&queue, Legs(store.clone()), |builder| builder);
    app.insert(&user(1, &"a".repeat(200), "ann"));
    app.insert(&user(2, "b", &"x".repeat(5000)));
    app.flush();
    consumer.drain(LONG).unwrap();
    let mut reasons: Vec<String> = queue.dead_letters().into_iter().map(|one| one.reason).collect();
    reasons.sort();
    assert!(reasons.len() == 2 && reasons[0].contains("the entry of `user:2`"), "{reasons:?}");
    assert!(reasons[1].contains("the key `user:email:aaa"), "{reasons:?}");
    let kv = reader(store);
    assert_eq!(User::fetch_by_id(&kv, 1).unwrap().map(|user| user.name), Some("ann".to_owned()));
    assert!(matches!(User::lookup_by_id(&kv, 2).unwrap(), Lookup::Unknown(_)));
}

#[test]
fn a_message_that_is_put_back_is_applied() {
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let mut app = App::publishing(broker.clone());
    app.insert(&user(1, "a", "ann"));
    app.flush();
    let arrivals = queue.receive(9, Duration::ZERO).unwrap();
    for arrival in arrivals {
        arrival.dead("by hand");
    }
    let dead = queue.dead_letters().remove(0);
    assert!(broker.publish(&[dead.message])[0].is_ok());
    let store = MemoryStore::new();
    consumer(&queue, store.clone(), |builder| builder).drain(LONG).unwrap();
    assert!(User::fetch_by_id(&reader(store), 1).unwrap().is_some());
}
