//! What the facade `metrics` is told, for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key as Name, KeyName, Metadata, Recorder, SharedString, Unit,
};
use parking_lot::Mutex;

/// What was recorded, by name and labels: the sum of a counter, the number of a histogram's values.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures(Arc<Mutex<BTreeMap<String, u64>>>);

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
    /// All that was, of names that begin so and without that beginning.
    pub(crate) fn told(&self, beginning: &str) -> BTreeMap<String, u64> {
        let all = self.0.lock();
        let own = all.iter().filter_map(|(name, value)| Some((name.strip_prefix(beginning)?.to_owned(), *value)));
        own.collect()
    }

    fn one(&self, name: &Name) -> Arc<One> {
        let labels = name.labels().map(|label| format!(" {}={}", label.key(), label.value()));
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
