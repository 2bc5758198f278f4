use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key as Name, KeyName, Metadata, Recorder, SharedString, Unit,
    with_local_recorder,
};
use parking_lot::Mutex;

use super::work::Worker;
use super::*;
use crate::change::Action;
use crate::key::{Key, Scope};
use crate::record::{Content, Delta, Form};
use crate::store::MemoryStore;
use crate::transport::message::About;
use crate::transport::{Broker, ChangeMessage, MemoryBroker, Message, MessageFormat};
use crate::version::Version;

/// What was recorded, by name and outcome: the sum of a counter, the number of a histogram's values.
#[derive(Debug, Clone, Default)]
struct Figures(Arc<Mutex<BTreeMap<String, u64>>>);

struct One(Figures, String);

impl One {
    fn add(&self, value: u64) {
        *self.0.0.lock().entry(self.1.clone()).or_default() += value;
    }
}

impl CounterFn for One {
    fn increment(&self, value: u64) {
        self.add(value);
    }

    fn absolute(&self, _value: u64) {}
}

impl HistogramFn for One {
    fn record(&self, value: f64) {
        assert!(value >= 0.0);
        self.add(1);
    }
}

impl Figures {
    fn one(&self, name: &Name) -> Arc<One> {
        let labels = name.labels().filter(|label| label.key() == "outcome").map(|label| format!(" {}", label.value()));
        Arc::new(One(self.clone(), name.name().to_owned() + &labels.collect::<String>()))
    }
}

impl Recorder for Figures {
    fn describe_counter(&self, _name: KeyName, _unit: Option<Unit>, _text: SharedString) {}
    fn describe_gauge(&self, _name: KeyName, _unit: Option<Unit>, _text: SharedString) {}
    fn describe_histogram(&self, _name: KeyName, _unit: Option<Unit>, _text: SharedString) {}

    fn register_counter(&self, name: &Name, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.one(name))
    }

    fn register_gauge(&self, _name: &Name, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, name: &Name, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.one(name))
    }
}

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
    let told: Vec<(String, u64)> = figures.0.lock().clone().into_iter().collect();
    let wanted = [
        ("kvsync_consumer_lag_seconds", 3),
        ("kvsync_consumer_messages_total dead", 1),
        ("kvsync_consumer_messages_total done", 3),
    ];
    assert_eq!(told, wanted.map(|(name, count)| (name.to_owned(), count)));
}
