use std::sync::Arc;
use std::time::Duration;

use metrics::with_local_recorder;

use super::work::Worker;
use super::*;
use crate::change::Action;
use crate::figures::Figures;
use crate::key::{Key, Scope};
use crate::record::{Content, Delta, Form};
use crate::store::MemoryStore;
use crate::transport::message::About;
use crate::transport::{Broker, ChangeMessage, MemoryBroker, Message, MessageFormat};
use crate::version::Version;

fn change(clock: &dyn Clock, number: u64) -> Result<Message> {
    let (home, version) = (Key::new("user:7"), Version::new(0, 0, number));
    let delta = Delta { home: home.clone(), version, content: Content::Delete, gone: Vec::new() };
    let about = About {
        database: "main".into(),
        table: "users".into(),
        model: "User".into(),
        scope: Scope::NONE,
        action: Action::Delete,
        primary_key: "7".to_owned(),
        home,
        version,
        captured_at: clock.now(),
        last: None,
        json: None,
        nonce: number,
    };
    ChangeMessage { about, form: Form::Row(delta) }.encode(MessageFormat::MessagePack, usize::MAX)
}

#[test]
fn messages_and_their_lag_are_counted() {
    let broker = MemoryBroker::new();
    let (idle, queue) = (broker.queue("idle"), broker.queue("all"));
    let consumer = Consumer::builder().subscription(idle.clone()).store(MemoryStore::new()).build().unwrap();
    assert!(consumer.shutdown(Duration::from_mins(1)).is_clean());
    let clock = Arc::clone(&consumer.shared.clock);
    let mut sent: Vec<Message> = (1..=3).map(|number| change(&*clock, number).unwrap()).collect();
    let garbage = Message { body: "garbage".into(), ..sent[0].clone() };
    sent.push(garbage);
    assert!(broker.publish(&sent).iter().all(Result::is_ok));
    let arrivals = queue.receive(10, Duration::ZERO).unwrap();
    let figures = Figures::default();
    with_local_recorder(&figures, || {
        consumer.shared.counts.take(4);
        Worker::new(Arc::clone(&consumer.shared)).take(arrivals);
    });
    let told: Vec<(String, u64)> = figures.told("kvsync_consumer_").into_iter().collect();
    let wanted = [
        ("lag_seconds queue=queue idle in memory", 3),
        ("messages_total queue=queue idle in memory outcome=dead", 1),
        ("messages_total queue=queue idle in memory outcome=done", 3),
    ];
    assert_eq!(told, wanted.map(|(name, count)| (name.to_owned(), count)));
}
