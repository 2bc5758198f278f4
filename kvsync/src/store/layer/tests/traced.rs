use std::fmt::{Debug, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::*;
use crate::store::data::DataCommands;
use crate::store::layer::{Fault, Injected, Traced};

/// All that was told of spans, as text.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<String>>, Arc<AtomicU64>);

impl Visit for Told {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0.lock(), " {field}={value:?}").unwrap();
    }
}

impl Subscriber for Told {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.name() == "kvsync.store"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.0.lock().push_str(" new");
        span.record(&mut self.clone());
        Id::from_u64(1 + self.1.fetch_add(1, Ordering::SeqCst))
    }

    fn record(&self, _span: &Id, values: &Record<'_>) {
        values.record(&mut self.clone());
    }

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, _event: &Event<'_>) {}

    fn enter(&self, _span: &Id) {
        self.0.lock().push_str(" enter");
    }

    fn exit(&self, _span: &Id) {
        self.0.lock().push_str(" exit");
    }
}

#[test]
fn a_span_stands_around_each_call_and_holds_no_key_and_no_value() {
    let fault = Fault::new(MemoryStore::new());
    fault.script([Injected::Nothing, Injected::Refuse(ErrorKind::Unavailable)]);
    let store = Traced::new(fault);
    let told = Told::default();
    tracing::subscriber::with_default(told.clone(), || {
        store.set("secret-key", "secret-value").unwrap();
        store.execute(&[write("secret-row", 1), write("secret-row", 2)], &TERMS);
    });
    let told = told.0.lock().clone();
    assert_eq!(
        told,
        " new store=\"memory\" command=\"set\" commands=1 enter exit \
         new store=\"memory\" command=\"write\" commands=2 enter error=\"unavailable\" errors=2 exit"
    );
}
