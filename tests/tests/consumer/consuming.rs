//! Whatever the order and however often messages come, the store is what the database is.

use std::collections::HashSet;
use std::sync::Arc;

use diesel::prelude::*;
use diesel::result::Error as Failed;
use kvsync::capture::SyncConnection;
use kvsync::store::layer::Fault;
use kvsync::store::{MemoryStore, Status};
use kvsync::transport::{MemoryBroker, Subscription};
use kvsync::{KvSync, Lookup};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::rig::{App, Forgetful, LONG, Legs, SHORT, Shared, User, consumer, reader, until, user, users};

/// Fails where another row has the address.
fn write(conn: &mut SyncConnection<SqliteConnection>, row: &User) -> QueryResult<()> {
    let changed = (users::email.eq(&row.email), users::name.eq(&row.name));
    let insert = diesel::insert_into(users::table).values(row);
    insert.on_conflict(users::id).do_update().set(changed).execute(conn).map(drop)
}

/// Writes, moves, deletes and takes back rows by chance. The addresses that were ever written.
fn busy(app: &mut App, dice: &mut StdRng, writes: usize, mut beside: impl FnMut(&mut StdRng)) -> HashSet<String> {
    let mut addresses = HashSet::new();
    for number in 0..writes {
        let id = dice.random_range(1..12);
        let email = format!("e{}", dice.random_range(0..8));
        let changed = app.conn.transaction(|conn| {
            let row = user(id, &email, &format!("n{number}"));
            match dice.random_range(0..10) {
                0..7 => write(conn, &row),
                7 => diesel::delete(users::table.find(id)).execute(conn).map(drop),
                8 => diesel::update(users::table.find(id)).set(users::email.eq(None::<String>)).execute(conn).map(drop),
                _ => {
                    write(conn, &row)?;
                    Err(Failed::RollbackTransaction)
                }
            }
        });
        if changed.is_ok() {
            addresses.insert(email);
        }
        beside(dice);
    }
    addresses
}

/// Each row under each of its keys, and nothing else under any key that a row ever had.
fn is_what_the_database_is(app: &mut App, kv: &KvSync, addresses: &HashSet<String>) {
    let rows = app.rows();
    for id in 1..12 {
        let wanted = rows.iter().find(|row| row.id == id).cloned();
        assert_eq!(User::fetch_by_id(kv, id).unwrap(), wanted);
    }
    for email in addresses {
        let wanted = rows.iter().find(|row| row.email.as_ref() == Some(email)).cloned();
        assert_eq!(User::fetch_by_email(kv, email).unwrap(), wanted, "{email}");
    }
}

#[test]
fn every_store_is_what_the_database_is_after_duplicates_reordering_and_deaths() {
    let mut dice = StdRng::seed_from_u64(5);
    let broker = MemoryBroker::new();
    let queues = [broker.queue("whole"), broker.queue("legs")];
    // Every twentieth answer or so is lost, so that the message is published twice.
    let forgetful = Forgetful::new(&broker, 20);
    let mut app = App::publishing(Shared(forgetful));
    let (whole, legs) = (MemoryStore::new(), MemoryStore::new());
    let consumers = [
        consumer(&queues[0], whole.clone(), |builder| builder.workers(3).batch(4)),
        consumer(&queues[1], Legs(legs.clone()), |builder| builder.workers(3).batch(4)),
    ];
    let addresses = busy(&mut app, &mut dice, 300, |dice| {
        if dice.random_bool(0.1) {
            // What is under way is delivered again, later than what followed it.
            queues.choose(dice).unwrap().lose_hold();
        }
    });
    app.flush();
    for consumer in &consumers {
        consumer.drain(LONG).unwrap();
        let health = consumer.health(LONG);
        assert_eq!((health.status, health.dead), (Status::Up, 0), "{health}");
        assert!(health.written > 0 && health.lag.is_some(), "{health}");
    }
    for store in [whole, legs] {
        is_what_the_database_is(&mut app, &reader(store), &addresses);
    }
    for consumer in consumers {
        assert!(consumer.shutdown(LONG).is_clean());
    }
}

#[test]
fn with_an_outbox_nothing_is_lost_when_publishers_and_consumers_come_and_go() {
    let mut dice = StdRng::seed_from_u64(7);
    let broker = MemoryBroker::new();
    drop(broker.queue("all"));
    let store = MemoryStore::new();
    let builder = || KvSync::builder().broker(broker.clone()).outbox_lease(std::time::Duration::from_millis(300));
    let mut app = App::with(builder(), true);
    let mut addresses = HashSet::new();
    for _ in 0..4 {
        let consumer = consumer(&broker.queue("all"), store.clone(), |builder| builder.workers(2).batch(4));
        broker.set_up(dice.random_bool(0.5));
        addresses.extend(busy(&mut app, &mut dice, 25, |_| {}));
        // Neither is waited for: what they held is dealt with by those who come after them.
        app = app.another(builder(), true);
        drop(consumer);
    }
    broker.set_up(true);
    app.flush();
    let queue = broker.queue("all");
    let consumer = consumer(&queue, store.clone(), |builder| builder);
    consumer.drain(LONG).unwrap();
    is_what_the_database_is(&mut app, &reader(store), &addresses);
    assert_eq!(queue.dead_letters(), []);
}

#[test]
fn a_store_that_is_down_acknowledges_nothing() {
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let mut app = App::publishing(broker);
    let store = Arc::new(Fault::new(MemoryStore::new()));
    store.set_down(true);
    let consumer = consumer(&queue, Arc::clone(&store), |builder| builder);
    for id in 0..20 {
        app.insert(&user(id, &format!("e{id}"), "ann"));
    }
    app.flush();
    assert!(consumer.drain(SHORT).is_err());
    until("health tells of it", || consumer.health(LONG).status == Status::Down);
    assert_eq!(queue.backlog().unwrap().waiting, 20, "the broker keeps them");
    store.set_down(false);
    consumer.drain(LONG).unwrap();
    let kv = reader(Arc::clone(&store));
    assert!((0..20).all(|id| User::fetch_by_id(&kv, id).unwrap().is_some()));
    assert_eq!((consumer.health(LONG).dead, queue.dead_letters().len()), (0, 0));
}

#[test]
fn what_is_not_known_is_asked_of_the_database_until_it_is_told() {
    let broker = MemoryBroker::with_limits(1000, usize::MAX);
    let queue = broker.queue("all");
    let mut app = App::publishing(broker);
    let store = MemoryStore::new();
    let consumer = consumer(&queue, store.clone(), |builder| builder);
    let kv = reader(store);
    app.insert(&user(1, "a", "ann"));
    app.flush();
    consumer.drain(LONG).unwrap();
    assert_eq!(User::fetch_by_email(&kv, "a").unwrap(), Some(user(1, "a", "ann")));
    diesel::update(users::table.find(1)).set(users::name.eq("x".repeat(2000))).execute(&mut app.conn).unwrap();
    app.flush();
    consumer.drain(LONG).unwrap();
    for seen in [User::lookup_by_id(&kv, 1), User::lookup_by_email(&kv, "a")] {
        assert!(matches!(seen.unwrap(), Lookup::Unknown(_)), "older than the database");
    }
    assert!(consumer.health(LONG).unknown > 0);
    diesel::update(users::table.find(1)).set(users::name.eq("bob")).execute(&mut app.conn).unwrap();
    app.flush();
    consumer.drain(LONG).unwrap();
    assert_eq!(User::fetch_by_email(&kv, "a").unwrap(), Some(user(1, "a", "bob")));
}

#[test]
fn the_store_follows_the_epoch_of_the_publishers() {
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let mut app = App::with(KvSync::builder().broker(broker.clone()).epoch(1), false);
    let store = MemoryStore::new();
    let consumer = consumer(&queue, store.clone(), |builder| builder);
    app.insert(&user(1, "a", "ann"));
    app.flush();
    consumer.drain(LONG).unwrap();
    // The database is restored, and its publishers say so.
    let mut later = app.another(KvSync::builder().broker(broker.clone()).epoch(2), false);
    later.insert(&user(2, "b", "bob"));
    later.flush();
    consumer.drain(LONG).unwrap();
    let kv = reader(store);
    assert!(matches!(User::lookup_by_id(&kv, 1).unwrap(), Lookup::Unknown(_)), "it is of before the restore");
    assert_eq!(User::fetch_by_id(&kv, 2).unwrap(), Some(user(2, "b", "bob")));
    // One that was left behind is told apart.
    app.insert(&user(3, "c", "cid"));
    app.flush();
    consumer.drain(LONG).unwrap();
    let dead = queue.dead_letters();
    assert!(dead.len() == 1 && dead[0].reason.contains("epoch 1"), "{dead:?}");
    assert_eq!(consumer.health(LONG).status, Status::Degraded);
}
