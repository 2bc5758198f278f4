//! Hooks are told of every change of their model, until they are well.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use diesel::prelude::*;
use kvsync::change::Action;
use kvsync::consumer::Received;
use kvsync::store::MemoryStore;
use kvsync::transport::MemoryBroker;
use kvsync::{Consumer, ErrorKind, Syncable};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::rig::{App, LONG, SOON, User, consumer, reader, until, user, users};

/// Another version of the program: its model has a field more.
mod later {
    use super::{Deserialize, Serialize, Syncable, users};

    #[derive(Debug, Serialize, Deserialize, Syncable)]
    #[diesel(table_name = users)]
    #[sync_key(name = "id", fmt = "user:<id>")]
    pub(super) struct User {
        pub(super) id: i32,
        pub(super) email: Option<String>,
        pub(super) name: String,
        pub(super) age: i32,
    }
}

/// The same fields in another codec.
mod otherwise {
    use super::{Deserialize, Serialize, Syncable, users};

    #[derive(Debug, Serialize, Deserialize, Syncable)]
    #[diesel(table_name = users)]
    #[sync(codec = kvsync::codec::Json)]
    #[sync_key(name = "id", fmt = "user:<id>")]
    pub(super) struct User {
        pub(super) id: i32,
        pub(super) email: Option<String>,
        pub(super) name: String,
    }
}

/// An earlier version of the program: its model has a field less.
mod earlier {
    use super::{Deserialize, Serialize, Syncable, users};

    #[derive(Debug, Serialize, Deserialize, Syncable)]
    #[diesel(table_name = users)]
    #[sync_key(name = "id", fmt = "user:<id>")]
    pub(super) struct User {
        pub(super) id: i32,
        pub(super) name: String,
    }
}

/// A model of the same table that nobody publishes.
#[derive(Debug, Serialize, Deserialize, Syncable)]
#[diesel(table_name = users)]
#[sync_key(name = "id", fmt = "other:<id>")]
struct Other {
    id: i32,
}

/// The action, the primary key, the keys, and the row.
type Seen = (Action, String, Vec<String>, Option<User>);

#[test]
fn a_hook_gets_the_row_and_what_was_done_to_it() {
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let mut app = App::publishing(broker);
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let told = Arc::clone(&seen);
    let hook = move |change: &Received<'_, User>| {
        let keys = change.keys().iter().map(|key| key.as_str().to_owned()).collect();
        told.lock().push((change.action(), change.primary_key().to_owned(), keys, change.row().cloned()));
        Ok(())
    };
    // Without a store there is nothing but the hook.
    let consumer = Consumer::builder()
        .subscription(queue)
        .on_change::<User>(hook)
        .on_change::<Other>(|_| Err("it is of another model".into()))
        .attempts(3, SOON)
        .build()
        .unwrap();
    app.insert(&user(1, "a", "ann"));
    app.flush();
    consumer.drain(LONG).unwrap();
    app.rename(1, "b");
    app.flush();
    consumer.drain(LONG).unwrap();
    app.delete(1);
    app.flush();
    consumer.drain(LONG).unwrap();
    let keys = |email: &str| vec!["user:1".to_owned(), format!("user:email:{email}")];
    let wanted = [
        (Action::Insert, "1".to_owned(), keys("a"), Some(user(1, "a", "ann"))),
        (Action::Update, "1".to_owned(), keys("b"), Some(user(1, "b", "ann"))),
        (Action::Delete, "1".to_owned(), Vec::new(), Some(user(1, "b", "ann"))),
    ];
    assert_eq!(*seen.lock(), wanted);
}

#[test]
fn one_that_fails_is_called_again_and_the_store_has_the_change_all_the_same() {
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let mut app = App::publishing(broker);
    let store = MemoryStore::new();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let consumer = consumer(&queue, store.clone(), |builder| {
        builder.on_change::<User>(move |change| {
            let call = counted.fetch_add(1, Ordering::SeqCst);
            match change.id_of() {
                1 if call == 0 => Err(std::io::Error::other("the index is away").into()),
                1 if call == 1 => panic!("the index is away"),
                2 => Err("it will never do".into()),
                _ => Ok(()),
            }
        })
    });
    app.insert(&user(1, "a", "ann"));
    app.flush();
    consumer.drain(LONG).unwrap();
    assert_eq!((calls.load(Ordering::SeqCst), queue.dead_letters().len()), (3, 0));
    app.insert(&user(2, "b", "bob"));
    app.flush();
    consumer.drain(LONG).unwrap();
    until("it was given up", || queue.dead_letters().len() == 1);
    assert_eq!(calls.load(Ordering::SeqCst), 6, "three attempts each");
    let dead = queue.dead_letters();
    assert_eq!(dead[0].reason, "a hook of `User` failed: it will never do");
    let kv = reader(store);
    assert!(User::fetch_by_id(&kv, 1).unwrap().is_some() && User::fetch_by_id(&kv, 2).unwrap().is_some());
    assert_eq!(consumer.health(LONG).again, 4);
}

trait IdOf {
    fn id_of(&self) -> i32;
}

impl IdOf for Received<'_, User> {
    fn id_of(&self) -> i32 {
        self.row().map_or(0, |row| row.id)
    }
}

#[test]
fn a_row_with_other_fields_is_a_dead_letter_that_the_store_has() {
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let mut app = App::publishing(broker);
    let store = MemoryStore::new();
    let consumer = consumer(&queue, store.clone(), |builder| {
        builder.on_change::<later::User>(|change| Err(format!("{:?} was read", change.row()).into()))
    });
    diesel::insert_into(users::table).values(user(1, "a", "ann")).execute(&mut app.conn).unwrap();
    app.flush();
    consumer.drain(LONG).unwrap();
    let dead = queue.dead_letters();
    assert!(dead.len() == 1 && dead[0].reason.contains("other fields"), "{dead:?}");
    assert!(dead[0].reason.contains("it lacks `age`"), "{dead:?}");
    assert!(User::fetch_by_id(&reader(store), 1).unwrap().is_some());
}

#[test]
fn one_of_an_earlier_version_reads_what_it_knows() {
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let mut app = App::publishing(broker);
    let seen: Arc<Mutex<Vec<(i32, String)>>> = Arc::default();
    let told = Arc::clone(&seen);
    let consumer = consumer(&queue, MemoryStore::new(), |builder| {
        builder.on_change::<earlier::User>(move |change| {
            told.lock().extend(change.row().map(|row| (row.id, row.name.clone())));
            Ok(())
        })
    });
    app.insert(&user(1, "a", "ann"));
    app.flush();
    consumer.drain(LONG).unwrap();
    assert_eq!(*seen.lock(), [(1, "ann".to_owned())]);
    assert_eq!(queue.dead_letters(), []);
}

#[test]
fn a_row_in_another_codec_is_a_dead_letter_that_the_store_has() {
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let mut app = App::publishing(broker);
    let store = MemoryStore::new();
    let consumer = consumer(&queue, store.clone(), |builder| {
        builder.on_change::<otherwise::User>(|change| Err(format!("{:?} was read", change.row()).into()))
    });
    app.insert(&user(1, "a", "ann"));
    app.flush();
    consumer.drain(LONG).unwrap();
    let dead = queue.dead_letters();
    assert!(dead.len() == 1 && dead[0].reason.contains("another codec"), "{dead:?}");
    assert!(User::fetch_by_id(&reader(store), 1).unwrap().is_some());
}

#[test]
fn a_consumer_needs_something_to_do() {
    let queue = MemoryBroker::new().queue("all");
    let nothing = Consumer::builder().subscription(queue.clone()).build();
    assert_eq!(nothing.unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(Consumer::builder().store(MemoryStore::new()).build().unwrap_err().kind(), ErrorKind::Config);
    let idle = Consumer::builder().subscription(queue).store(MemoryStore::new()).workers(0).build();
    assert_eq!(idle.unwrap_err().kind(), ErrorKind::Config);
}
