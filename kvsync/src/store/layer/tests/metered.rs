use metrics::with_local_recorder;

use super::*;
use crate::figures::Figures;
use crate::store::data::{AtomicWrite, DataCommands};
use crate::store::layer::{Fault, Injected, Metered};

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
    let mut figures = figures.told("kvsync_store_");
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
