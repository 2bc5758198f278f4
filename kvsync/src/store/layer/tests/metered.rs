use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key as Name, KeyName, Metadata, Recorder, SharedString, Unit,
    with_local_recorder,
};
use parking_lot::Mutex;

use super::*;
use crate::store::data::{AtomicWrite, DataCommands};
use crate::store::layer::{Fault, Injected, Metered};

/// What was recorded, by name and labels: the sum of a counter, the number of a histogram's values.
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
        let labels = name.labels().map(|label| format!(" {}={}", label.key(), label.value()));
        let short = name.name().trim_start_matches("kvsync_store_");
        Arc::new(One(self.clone(), short.to_owned() + &labels.collect::<String>()))
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

#[test]
fn each_call_is_told_by_store_and_command() {
    let fault = Fault::new(MemoryStore::new());
    let store = Metered::new(fault);
    let figures = Figures::default();
    with_local_recorder(&figures, || {
        store.set("key", "four").unwrap();
        store.get("key").unwrap();
        let mut atomic = AtomicWrite::new();
        atomic.set("a", "1");
        atomic.sadd("b", ["2", "3"]);
        store.atomic_write(&atomic).unwrap();
        store.get_many(&[Key::new("a"), Key::new("b")]).unwrap();
        store.store.script([Injected::RefuseAt(vec![1], ErrorKind::UnknownOutcome)]);
        store.execute(&[write("a", 1), merge("b", 1, Content::Delete), write("c", 1)], &TERMS);
        store.epoch().unwrap();
    });
    let mut figures = figures.0.lock().clone();
    figures.retain(|name, _| !name.starts_with("sent_bytes_total store=memory command=batch"));
    let wanted = [
        ("call_duration_seconds store=memory command=atomic", 1),
        ("call_duration_seconds store=memory command=batch", 1),
        ("call_duration_seconds store=memory command=epoch", 1),
        ("call_duration_seconds store=memory command=get", 1),
        ("call_duration_seconds store=memory command=get_many", 1),
        ("call_duration_seconds store=memory command=set", 1),
        ("calls_total store=memory command=atomic", 1),
        ("calls_total store=memory command=batch", 1),
        ("calls_total store=memory command=epoch", 1),
        ("calls_total store=memory command=get", 1),
        ("calls_total store=memory command=get_many", 1),
        ("calls_total store=memory command=set", 1),
        ("commands_total store=memory command=epoch", 1),
        ("commands_total store=memory command=get", 1),
        ("commands_total store=memory command=get_many", 2),
        ("commands_total store=memory command=merge", 1),
        ("commands_total store=memory command=sadd", 1),
        ("commands_total store=memory command=set", 2),
        ("commands_total store=memory command=write", 2),
        ("errors_total store=memory command=merge kind=unknown_outcome", 1),
        ("received_bytes_total store=memory command=get", 4),
        ("sent_bytes_total store=memory command=atomic", 3),
        ("sent_bytes_total store=memory command=set", 4),
    ];
    let figures: Vec<(&str, u64)> = figures.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(figures, wanted);
}
