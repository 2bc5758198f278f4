//! The Redis store on real servers: its scripts equal the pure functions, mistakes are told early, and no
//! failure of a server or of the network loses, invents or mixes up anything.

mod checks;
mod cluster;
mod foreign;
mod outages;
mod scripts;
mod sentinel;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use kvsync::envelope::{Envelope, Head, State, Value};
use kvsync::record::{Content, Delta, Listed, Order, Terms, Write};
use kvsync::store::{Outcome, Step, SyncStore};
use kvsync::{Key, Version};

/// A prefix that no other run of the tests uses on the shared servers.
fn prefix(test: &str) -> String {
    format!("{test}-{}-{}:", std::process::id(), terms().now)
}

fn terms() -> Terms {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Terms { now: u64::try_from(now.as_millis()).unwrap(), left: 600_000, dead: 604_800_000 }
}

fn version(sequence: u64) -> Version {
    Version::new(0, 1, sequence)
}

/// A value that says under which key it belongs.
fn value_of(key: &str, at: u64) -> Value {
    Value::model(1, &[1], format!("{key}@{at}").as_bytes())
}

fn write(key: &str, at: u64) -> Step {
    let head = Head { version: version(at), state: State::Value, expires_at: 0 };
    Step::Write(Write { key: Key::new(key), head, value: value_of(key, at), order: Order::Slot })
}

fn put(home: &str, at: u64, keys: &[&str]) -> Arc<Delta> {
    let keys = keys.iter().map(|key| Listed { key: Key::new(*key), pointer: false }).collect();
    let content = Content::Put { value: value_of(home, at), expires_at: 0, keys };
    Arc::new(Delta { home: Key::new(home), version: version(at), content, gone: Vec::new() })
}

/// Fails unless what stands under a key is nothing or what was written under this very key.
fn belongs(key: &str, stands: Option<&Bytes>) -> Option<u64> {
    let envelope = Envelope::parse(stands?).unwrap();
    let at = envelope.head.version.sequence();
    assert_eq!(envelope.value, value_of(key, at), "what stands under {key} belongs to another key");
    Some(at)
}

fn stands(store: &dyn SyncStore, key: &str) -> Option<u64> {
    belongs(key, store.get_many(&[Key::new(key)]).unwrap()[0].as_ref())
}

/// Runs steps that must all succeed.
fn done(store: &dyn SyncStore, steps: &[Step]) -> Vec<Outcome> {
    store.execute(steps, &terms()).into_iter().map(Result::unwrap).collect()
}
