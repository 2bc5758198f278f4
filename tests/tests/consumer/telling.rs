//! What operators are told of a broker that takes nothing: in the log, by health, by whoever waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::capture::Database;
use kvsync::store::{MemoryStore, Status};
use kvsync::transport::{Broker, Health, MemoryBroker, Message, failure_text};
use kvsync::worker::Backoff;
use kvsync::{Error, ErrorKind, KvSync, Result};
use kvsync_tests::log::of_operators;

use crate::rig::{App, LONG, SHORT, User, consumer, received, until, user};

/// A broker in memory with a name of its own, which counts the calls.
#[derive(Debug, Clone)]
struct Named {
    name: &'static str,
    broker: MemoryBroker,
    calls: Arc<AtomicUsize>,
    /// Rows with this word in them are refused as if there were no queue for them.
    unwanted: &'static str,
}

impl Named {
    fn new(name: &'static str) -> Self {
        Self { name, broker: MemoryBroker::with_limits(2000, usize::MAX), calls: Arc::default(), unwanted: "" }
    }

    fn until_called(&self, more: usize) {
        let before = self.calls.load(Ordering::SeqCst);
        until("it is asked again", || self.calls.load(Ordering::SeqCst) >= before + more);
    }
}

impl Broker for Named {
    fn name(&self) -> &str {
        self.name
    }

    fn max_body(&self) -> usize {
        self.broker.max_body()
    }

    fn publish(&self, messages: &[Message]) -> Vec<Result<()>> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let unwanted = |message: &Message| {
            !self.unwanted.is_empty()
                && message.body.windows(self.unwanted.len()).any(|part| part == self.unwanted.as_bytes())
        };
        let answer = |message: &Message| {
            if unwanted(message) {
                return Err(Error::new(ErrorKind::Unavailable, format!("the {} has no queue for it", self.name)));
            }
            self.broker.publish(std::slice::from_ref(message)).remove(0)
        };
        messages.iter().map(answer).collect()
    }

    fn health(&self, deadline: Duration) -> Health {
        self.broker.health(deadline)
    }

    fn close(&self) -> Result<()> {
        self.broker.close()
    }
}

#[test]
fn a_broker_that_takes_nothing_is_logged_once_and_when_it_is_over() {
    let log = of_operators();
    let named = Named::new("broker of the log");
    let _queue = named.broker.queue("all");
    let mut app = App::publishing(named.clone());
    named.broker.set_up(false);
    let begun = || log.lines(&["`broker of the log` does not take changes", "waits in memory"]).len();
    let over = || log.lines(&["`broker of the log` takes changes again, after"]).len();
    app.insert(&user(1, "a", "ann"));
    named.until_called(6);
    assert_eq!((begun(), over()), (1, 0));
    assert!(!log.lines(&["error=", "the broker in memory is down"]).is_empty(), "the cause is told");
    named.broker.set_up(true);
    app.flush();
    assert_eq!((begun(), over()), (1, 1));
    // Not once more so soon, however often it comes and goes.
    for id in 2..5 {
        named.broker.set_up(false);
        app.insert(&user(id, &format!("e{id}"), "ann"));
        named.until_called(2);
        named.broker.set_up(true);
        app.flush();
    }
    assert_eq!((begun(), over()), (1, 1));
}

#[test]
fn what_is_not_taken_is_an_outage_while_other_changes_are() {
    let log = of_operators();
    let named = Named { unwanted: "poison", ..Named::new("broker of some") };
    let queue = named.broker.queue("all");
    let mut app = App::publishing(named.clone());
    app.insert(&user(1, "a", "poison"));
    until("it is noticed", || app.kv.health(LONG).pipeline.brokers[0].failing);
    for id in 2..30 {
        app.insert(&user(id, &format!("e{id}"), "ann"));
    }
    let mut others = 0;
    until("the others are published", || {
        others += received(&queue).len();
        others == 28
    });
    let health = app.kv.health(LONG);
    assert!(health.pipeline.brokers[0].failing && health.to_string().contains("has no queue for it"), "{health}");
    assert_eq!(log.lines(&["`broker of some` takes changes again"]), [""; 0]);
}

#[test]
fn with_an_outbox_the_log_says_that_changes_wait_there() {
    let log = of_operators();
    let named = Named::new("broker of the outbox");
    let _queue = named.broker.queue("all");
    named.broker.set_up(false);
    let mut app = App::with(KvSync::builder().broker(named.clone()), true);
    app.insert(&user(1, "a", "ann"));
    until("it is told", || !log.lines(&["`broker of the outbox` does not take", "waits in the outbox"]).is_empty());
    // Whoever waits is told whom it waits for, and why.
    let late = app.kv.flush(Duration::from_millis(300)).unwrap_err();
    let why = failure_text(&late);
    assert!(why.contains("outbox of `main`") && why.contains("the broker `broker of the outbox`"), "{why}");
    assert!(why.contains("the broker in memory is down"), "{why}");
    let token = app.conn.last_commit().unwrap().clone();
    let why = failure_text(&app.kv.wait(&token, SHORT).unwrap_err());
    assert!(why.contains("`broker of the outbox`") && why.contains("the broker in memory is down"), "{why}");
    // Health says it once.
    let health = app.kv.health(LONG);
    assert_eq!((health.status, health.brokers[0].health.status), (Status::Degraded, Status::Down), "{health}");
    let told = health.details.iter().filter(|detail| detail.contains("the broker in memory is down")).count();
    assert_eq!(told, 1, "{health}");
    assert!(health.details.iter().any(|detail| detail == "broker of the outbox does not take changes, which wait"));
    named.broker.set_up(true);
    app.flush();
}

#[test]
fn without_an_outbox_whoever_waits_is_told_of_whom_and_why() {
    let named = Named::new("broker that is away");
    let _queue = named.broker.queue("all");
    let mut app = App::with(KvSync::builder().store(MemoryStore::new()).broker(named.clone()), false);
    named.broker.set_up(false);
    app.insert(&user(1, "a", "ann"));
    let why = failure_text(&app.kv.flush(Duration::from_millis(300)).unwrap_err());
    assert!(why.contains("the broker `broker that is away`") && why.contains("the broker in memory is down"), "{why}");
    assert!(!why.contains("the store"), "it has taken everything: {why}");
    named.broker.set_up(true);
    app.flush();
}

#[test]
fn a_row_that_is_too_large_is_told_at_the_end() {
    let broker = MemoryBroker::with_limits(1000, usize::MAX);
    let queue = broker.queue("all");
    let file = App::with(KvSync::builder().broker(broker.clone()), true);
    let path = file.file().to_string_lossy().into_owned();
    file.kv.shutdown(LONG);
    let open = move || SqliteConnection::establish(&path);
    let database = Database::<Sqlite>::new("main", open).model::<User>().outbox();
    let later = Backoff { min: Duration::from_mins(1), max: Duration::from_mins(5) };
    let kv = KvSync::builder().broker(broker).database(database).outbox_attempts(9, later).build().unwrap();
    let mut conn = kv.connect::<Sqlite>("main").unwrap();
    diesel::insert_into(kvsync_tests::users::users::table)
        .values(user(1, "a", &"x".repeat(2000)))
        .execute(&mut conn)
        .unwrap();
    assert_eq!(kv.flush(LONG).unwrap_err().kind(), ErrorKind::Rejected);
    until("health says it", || kv.health(LONG).to_string().contains("1 of `users` failed and will be tried again"));
    let health = kv.health(LONG);
    assert_eq!(health.details.iter().filter(|detail| detail.contains("max_body")).count(), 1, "{health}");
    let ended = kv.shutdown(LONG).to_string();
    assert!(ended.contains("1 of `users` failed and will be tried again") && ended.contains("max_body"), "{ended}");
    assert!(received(&queue).iter().all(kvsync::transport::ChangeMessage::is_unknown));
}

#[test]
fn who_has_shut_it_down_is_not_told_again() {
    let log = of_operators();
    let named = Named { unwanted: "poison", ..Named::new("broker of the end") };
    let mut app = App::publishing(named);
    app.insert(&user(1, "a", "poison"));
    until("it is noticed", || app.kv.health(LONG).pipeline.brokers[0].failing);
    let ended = app.kv.shutdown(SHORT);
    assert!(!ended.is_clean() && ended.to_string().contains("broker of the end"), "{ended}");
    drop(app);
    assert_eq!(log.lines(&["kvsync was dropped", "broker of the end"]), [""; 0]);
}

#[test]
fn a_message_that_raises_the_epoch_is_logged_once() {
    let log = of_operators();
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let mut app = App::with(KvSync::builder().broker(broker).epoch(13), false);
    let consumer = consumer(&queue, MemoryStore::new(), |builder| builder.batch(1));
    for id in 0..20 {
        app.insert(&user(id, &format!("e{id}"), "ann"));
    }
    app.flush();
    consumer.drain(LONG).unwrap();
    assert_eq!(log.lines(&["raised the epoch from 0 to 13"]).len(), 1);
}
