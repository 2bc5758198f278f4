use std::thread;

use super::*;
use crate::store::data::{Batch, DataCommands};
use crate::store::layer::{Fault, Injected, Profiled, Profiler};

#[test]
fn a_unit_counts_the_calls_of_the_threads_within_it() {
    let store = Profiled::new(MemoryStore::new());
    store.set("before", "1").unwrap();
    let (outer, inner) = (Profiler::begin(), Profiler::begin());
    let here = outer.enter();
    store.set("key", "four").unwrap();
    {
        let _nested = inner.enter();
        let _twice = inner.enter();
        let mut batch = Batch::new();
        let _ = (batch.get("key"), batch.get("absent"));
        batch.run(&store);
    }
    thread::scope(|scope| {
        scope.spawn(|| store.get("elsewhere"));
        scope.spawn(|| {
            let _there = outer.enter();
            store.get_many(&[Key::new("a"), Key::new("b"), Key::new("c")])
        });
    });
    drop(here);
    store.set("after", "1").unwrap();
    let (outer, inner) = (outer.end(), inner.end());
    assert_eq!((outer.calls, outer.commands, outer.sent, outer.received), (3, 6, 4, 4));
    assert_eq!((inner.calls, inner.commands, inner.sent, inner.received), (1, 2, 0, 4));
    assert!(inner.waited <= inner.elapsed && outer.errors == 0);
}

#[test]
fn a_unit_counts_errors() {
    let fault = Fault::new(MemoryStore::new());
    fault.script([Injected::RefuseAt(vec![1], ErrorKind::Unavailable)]);
    let store = Profiled::new(fault);
    let profiler = Profiler::begin();
    let _here = profiler.enter();
    store.execute(&[write("a", 1), write("b", 1)], &TERMS);
    assert_eq!((profiler.profile().errors, profiler.profile().commands), (1, 2));
}
