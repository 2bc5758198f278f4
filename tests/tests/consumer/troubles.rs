//! What an operator is told: once when something begins to fail, once when it is over, and where a dead letter is from.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kvsync::store::{MemoryStore, Status};
use kvsync::transport::{Arrival, Backlog, Broker, DeadMessage, Health, MemoryBroker, MemoryQueue, Subscription};
use kvsync::{Consumer, Error, ErrorKind, Result};
use kvsync_tests::log::of_operators;

use crate::rig::{self, App, LONG, SHORT, SOON, User, consumer, until, user};

#[test]
fn a_hook_that_fails_is_told_once_and_until_it_is_over() {
    let log = of_operators();
    let broker = MemoryBroker::new();
    let queue = broker.queue("of a hook");
    let mut app = App::publishing(broker);
    let away = Arc::new(AtomicBool::new(true));
    let seen = Arc::clone(&away);
    let consumer = consumer(&queue, MemoryStore::new(), |builder| {
        builder.attempts(u32::MAX, SOON).on_change::<User>(move |_| {
            if seen.load(Ordering::SeqCst) {
                Err("the index at redis://app:secret@search is away".into())
            } else {
                Ok(())
            }
        })
    });
    for id in 0..20 {
        app.insert(&user(id, &format!("e{id}"), "ann"));
    }
    app.flush();
    let wanted =
        "a hook of `User` fails: a hook of `User` failed: the index at redis://***@search is away; 20 messages";
    until("health names the hook, its cause and how many wait", || {
        let health = consumer.health(LONG);
        health.status == Status::Degraded && health.details.iter().any(|detail| detail.starts_with(wanted))
    });
    until("each was tried often", || consumer.health(LONG).again > 200);
    let began = log.lines(&["WARN", "of a hook in memory", "a hook of `User` fails"]);
    assert!(began.len() == 1 && began[0].contains("***@search is away"), "{began:?}");
    assert!(consumer.drain(SHORT).is_err(), "what waits is not done");
    away.store(false, Ordering::SeqCst);
    consumer.drain(LONG).unwrap();
    let health = consumer.health(LONG);
    assert!(health.status == Status::Up && health.dead == 0, "{health}");
    let over = log.lines(&["INFO", "of a hook in memory"]);
    assert!(over.len() == 1 && over[0].contains("it is over that a hook of `User` fails"), "{over:?}");
    assert_eq!(log.lines(&["WARN", "of a hook in memory"]).len(), 1);
}

#[test]
fn a_hook_that_gave_up_is_told_until_it_goes_well() {
    let log = of_operators();
    let broker = MemoryBroker::new();
    let queue = broker.queue("given up");
    let mut app = App::publishing(broker);
    let consumer = consumer(&queue, MemoryStore::new(), |builder| {
        builder.on_change::<User>(
            |change| if change.row().is_some_and(|row| row.id == 2) { Ok(()) } else { Err("no".into()) },
        )
    });
    app.insert(&user(1, "a", "ann"));
    app.flush();
    consumer.drain(LONG).unwrap();
    let details = consumer.health(LONG).details;
    let told = "a hook of `User` fails: a hook of `User` failed: no; 0 messages wait for it, 1 are dead letters";
    assert!(details.iter().any(|detail| detail == told), "{details:?}");
    app.insert(&user(2, "b", "bob"));
    app.flush();
    consumer.drain(LONG).unwrap();
    let details = consumer.health(LONG).details;
    assert!(!details.iter().any(|detail| detail.starts_with("a hook")), "{details:?}");
    assert_eq!(log.lines(&["INFO", "given up in memory", "it is over"]).len(), 1);
}

#[test]
fn the_log_of_a_dead_letter_leads_to_its_row_and_to_the_message() {
    let log = of_operators();
    let broker = MemoryBroker::new();
    let queue = broker.queue("buried");
    let mut app = App::publishing(broker.clone());
    let consumer = consumer(&queue, MemoryStore::new(), |builder| builder.on_change::<User>(|_| Err("never".into())));
    app.insert(&user(41, "a", "ann"));
    app.flush();
    consumer.drain(LONG).unwrap();
    let (dead, id) = (queue.dead_letters(), |at: usize| format!("id=\"{}\"", queue.dead_letters()[at].message.id));
    assert_eq!(dead.len(), 1);
    let version = kvsync::transport::ChangeMessage::decode(None, &dead[0].message.body).unwrap().version();
    let wanted = [
        "ERROR",
        "queue buried in memory",
        "table=\"users\"",
        "primary_key=\"41\"",
        "model=\"User\"",
        "action=insert",
        &format!("version={version}"),
        &id(0),
        "deliveries=3",
        "reason=\"a hook of `User` failed: never\"",
    ];
    assert_eq!(log.lines(&wanted).len(), 1, "{:?}", log.lines(&["queue buried in memory"]));
    assert!(broker.publish(&[rig::message("text/html", "garbage")])[0].is_ok());
    consumer.drain(LONG).unwrap();
    let wanted = ["ERROR", "queue buried in memory", &id(1), "content_type=\"text/html\"", "bytes=7", "deliveries=1"];
    assert_eq!(log.lines(&wanted).len(), 1, "{:?}", log.lines(&["queue buried in memory"]));
}

/// A queue that does not take leave.
#[derive(Debug)]
struct Rude(MemoryQueue);

impl Subscription for Rude {
    fn name(&self) -> &'static str {
        "rude"
    }

    fn receive(&self, most: usize, wait: Duration) -> Result<Vec<Arrival>> {
        self.0.receive(most, wait)
    }

    fn backlog(&self) -> Result<Backlog> {
        self.0.backlog()
    }

    fn dead(&self, most: usize) -> Result<Vec<DeadMessage>> {
        self.0.dead(most)
    }

    fn redrive(&self, most: usize) -> Result<usize> {
        self.0.redrive(most)
    }

    fn health(&self, deadline: Duration) -> Health {
        self.0.health(deadline)
    }

    fn close(&self) -> Result<()> {
        self.0.close()?;
        Err(Error::new(ErrorKind::Unavailable, "closing a connection failed"))
    }
}

#[test]
fn a_farewell_that_fails_is_logged_and_leaves_nothing() {
    let log = of_operators();
    let broker = MemoryBroker::new();
    let queue = Rude(broker.queue("all"));
    let mut app = App::publishing(broker);
    app.insert(&user(1, "a", "ann"));
    app.flush();
    let consumer = Consumer::builder().subscription(queue).store(MemoryStore::new()).build().unwrap();
    consumer.drain(LONG).unwrap();
    let ended = consumer.shutdown(LONG);
    assert!(ended.is_clean() && ended.acknowledged == 1 && ended.error.is_some(), "{ended}");
    assert_eq!(log.lines(&["WARN", "rude", "closing a connection failed"]).len(), 1);
}
