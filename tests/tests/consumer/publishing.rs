//! What is committed is published once, or twice, and counts as dealt with when it is confirmed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use diesel::prelude::*;
use diesel::result::Error as Failed;
use kvsync::change::Action;
use kvsync::report::{Outcome, Report};
use kvsync::store::{MemoryStore, Status};
use kvsync::transport::{Broker, ChangeMessage, MemoryBroker, MessageFormat, Subscription};
use kvsync::{ErrorKind, KvSync, Version};

use crate::rig::{App, Forgetful, LONG, SHORT, Shared, User, received, user, users};

fn seen(message: &ChangeMessage) -> (Action, &str, Vec<&str>, Option<String>) {
    let keys = message.keys().into_iter().map(kvsync::Key::as_str).collect();
    (message.action(), message.primary_key(), keys, message.decode_row::<User>().unwrap().map(|user| user.name))
}

#[test]
fn each_committed_change_is_a_message_and_what_is_rolled_back_is_none() {
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let mut app = App::publishing(broker);
    app.insert(&user(1, "a", "ann"));
    app.rename(1, "b");
    let undone = app.conn.transaction(|conn| {
        diesel::insert_into(users::table).values(user(2, "c", "bob")).execute(conn)?;
        Err::<(), _>(Failed::RollbackTransaction)
    });
    assert!(undone.is_err());
    app.delete(1);
    app.flush();
    let messages = received(&queue);
    let mut seen: Vec<_> = messages.iter().map(seen).collect();
    // Workers publish in any order.
    seen.sort_by_key(|(action, ..)| action.to_string());
    let ann = || Some("ann".to_owned());
    assert_eq!(
        seen,
        [
            (Action::Delete, "1", vec![], ann()),
            (Action::Insert, "1", vec!["user:1", "user:email:a"], ann()),
            (Action::Update, "1", vec!["user:1", "user:email:b"], ann()),
        ]
    );
    let deleted = messages.iter().find(|message| message.action() == Action::Delete).unwrap();
    assert_eq!(deleted.gone(), [&kvsync::Key::new("user:email:b")]);
    assert_eq!((deleted.database(), deleted.table(), deleted.model()), ("main", "users", "User"));
    let kv = app.kv.clone();
    assert!(kv.shutdown(LONG).is_clean());
    let told = std::mem::take(&mut *app.reports.lock());
    let published = |report: &Report| matches!(report, Report::Key(key) if key.outcome == Outcome::Published);
    assert!(!told.is_empty() && told.iter().all(published), "{told:?}");
}

#[test]
fn in_json_a_message_has_what_other_languages_need() {
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let mut app = App::with(KvSync::builder().broker(broker).message_format(MessageFormat::Json), false);
    app.insert(&user(1, "a", "ann"));
    app.flush();
    app.delete(1);
    app.flush();
    let arrivals = queue.receive(9, Duration::ZERO).unwrap();
    let parsed: Vec<serde_json::Value> =
        arrivals.iter().map(|arrival| serde_json::from_slice(arrival.body()).unwrap()).collect();
    let row = serde_json::json!({"id": 1, "email": "a", "name": "ann"});
    for (message, action) in parsed.iter().zip(["create", "delete"]) {
        assert_eq!((&message["action"], &message["row"], &message["kvsync"]), (&action.into(), &row, &1.into()));
    }
    // One of kvsync reads the same.
    let of_it = ChangeMessage::decode(arrivals[0].content_type(), arrivals[0].body()).unwrap();
    assert_eq!(of_it.decode_row::<User>().unwrap(), Some(user(1, "a", "ann")));
}

#[test]
fn a_handle_without_a_store_says_so() {
    let broker = MemoryBroker::new();
    let app = App::publishing(broker);
    assert_eq!(User::fetch_by_id(&app.kv, 1).unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(app.kv.verify_all().run().unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(app.kv.raise_epoch().unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(KvSync::builder().build().unwrap_err().kind(), ErrorKind::Config);
}

#[test]
fn what_is_committed_while_the_broker_is_down_waits_for_it() {
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let mut app = App::publishing(broker.clone());
    broker.set_up(false);
    app.insert(&user(1, "a", "ann"));
    assert_eq!(app.kv.flush(SHORT).unwrap_err().kind(), ErrorKind::Deadline);
    let health = app.kv.health(LONG);
    assert_eq!((health.status, health.brokers[0].health.status), (Status::Degraded, Status::Down), "{health}");
    broker.set_up(true);
    app.flush();
    assert_eq!(received(&queue).len(), 1);
    assert_eq!(app.kv.health(LONG).status, Status::Up);
}

#[test]
fn what_was_not_confirmed_is_published_again() {
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let forgetful = Forgetful::new(&broker, 2);
    let mut app = App::publishing(Shared(forgetful.clone()));
    app.insert(&user(1, "a", "ann"));
    app.flush();
    assert_eq!(forgetful.published.load(Ordering::SeqCst), 3);
    let messages = received(&queue);
    assert!(messages.len() == 3 && messages.iter().all(|message| *message == messages[0]));
}

#[test]
fn a_change_that_is_too_large_is_told_as_unknown() {
    let broker = MemoryBroker::with_limits(1000, usize::MAX);
    let queue = broker.queue("all");
    let mut app = App::publishing(broker);
    app.insert(&user(1, "a", &"x".repeat(2000)));
    let token = app.conn.last_commit().unwrap().clone();
    assert!(app.kv.wait(&token, LONG).is_err(), "whoever waits for it is told");
    let messages = received(&queue);
    assert!(!messages.is_empty() && messages.iter().all(ChangeMessage::is_unknown));
    assert_eq!(messages[0].home().as_str(), "user:1");
    // What is deleted is small again.
    app.delete(1);
    app.flush();
    assert!(received(&queue).iter().any(|message| message.action() == Action::Delete && !message.is_unknown()));
}

#[test]
fn rows_for_which_there_was_no_room_are_read_again_and_published() {
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let builder = KvSync::builder().broker(broker.clone()).queue_bytes(1 << 16).overflow_block(Duration::ZERO);
    let mut app = App::with(builder, false);
    broker.set_up(false);
    for id in 0..30 {
        app.insert(&user(id, &format!("e{id}"), &"x".repeat(4000)));
    }
    broker.set_up(true);
    app.flush();
    let messages = received(&queue);
    for id in 0..30 {
        let of_row = messages.iter().filter(|message| message.primary_key() == id.to_string());
        let newest = of_row.max_by_key(|message| (message.version(), !message.is_unknown())).unwrap();
        assert_eq!(newest.decode_row::<User>().unwrap().map(|user| user.id), Some(id));
    }
    assert!(messages.iter().any(|message| message.action() == Action::Reread), "everything had room");
}

#[test]
fn an_outbox_keeps_what_no_broker_has_confirmed() {
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let mut app = App::with(KvSync::builder().broker(broker.clone()), true);
    broker.set_up(false);
    app.insert(&user(1, "a", "ann"));
    app.delete(1);
    let other = app.another(KvSync::builder().broker(broker.clone()).outbox_lease(Duration::from_millis(500)), true);
    // The process that committed is gone; it gave back what it held, or its claims run out.
    drop(app);
    assert_eq!(other.kv.health(LONG).pipeline.written, 0);
    broker.set_up(true);
    other.flush();
    let mut actions: Vec<Action> = received(&queue).iter().map(ChangeMessage::action).collect();
    actions.sort_by_key(ToString::to_string);
    actions.dedup();
    assert_eq!(actions, [Action::Delete, Action::Insert]);
}

#[test]
fn a_store_and_a_broker_each_have_every_change() {
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let store = MemoryStore::new();
    let mut app = App::with(KvSync::builder().store(store).broker(broker.clone()), false);
    broker.set_up(false);
    app.insert(&user(1, "a", "ann"));
    // The broker holds up no store.
    crate::rig::until("the store has it", || User::fetch_by_id(&app.kv, 1).unwrap().is_some());
    broker.set_up(true);
    app.kv.raise_epoch().unwrap();
    app.insert(&user(2, "b", "bob"));
    app.flush();
    let epochs: Vec<u32> = received(&queue).iter().map(|message| Version::epoch(&message.version())).collect();
    assert!(epochs.contains(&1), "the epoch travels: {epochs:?}");
    assert_eq!(app.kv.backfill::<User>().run().unwrap().rows, 2);
    assert_eq!(received(&queue).iter().filter(|message| message.action() == Action::Reread).count(), 2);
    assert!(app.kv.verify_all().run().unwrap().is_clean());
}

#[test]
fn the_epoch_of_a_publisher_is_the_one_it_is_given() {
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let mut app = App::with(KvSync::builder().broker(broker.clone()).epoch(7), false);
    app.insert(&user(1, "a", "ann"));
    app.flush();
    assert_eq!(received(&queue)[0].version().epoch(), 7);
    assert_eq!(broker.max_body(), 1 << 20);
}
