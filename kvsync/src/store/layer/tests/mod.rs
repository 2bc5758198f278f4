//! What each layer does beside keeping the contracts, which the suite looks at.

mod fault;
#[cfg(feature = "metrics")]
mod metered;
#[cfg(feature = "near-cache")]
mod near_cache;
mod prefix;
mod profiled;
mod retry;
mod traced;

use bytes::Bytes;

use super::in_steps;
use crate::envelope::{Envelope, Head, State, Value};
use crate::error::{ErrorKind, Result};
use crate::key::Key;
use crate::record::{Content, Delta, Order, Terms, Write};
use crate::store::{MemoryStore, Outcome, Step, SyncStore};
use crate::version::Version;

const TERMS: Terms = Terms { now: 1_000, left: 600_000, dead: 604_800_000 };

fn at(sequence: u64) -> Version {
    Version::new(0, 0, sequence)
}

fn write(key: &str, sequence: u64) -> Step {
    let head = Head { version: at(sequence), state: State::Value, expires_at: 0 };
    let value = Value::model(1, &[7], format!("{key} at {sequence}").as_bytes());
    Step::Write(Write { key: Key::new(key), head, value, order: Order::Slot })
}

fn merge(home: &str, sequence: u64, content: Content) -> Step {
    Step::Merge(Delta { home: Key::new(home), version: at(sequence), content, gone: Vec::new() }.into())
}

fn run(store: &impl SyncStore, step: Step) -> Result<Outcome> {
    store.execute(&[step], &TERMS).remove(0)
}

/// The version under a key.
fn version(store: &impl SyncStore, key: &str) -> Option<Version> {
    let found: Option<Bytes> = store.get_many(&[Key::new(key)]).unwrap().remove(0);
    found.map(|bytes| Envelope::parse(&bytes).unwrap().head.version)
}

#[test]
fn a_change_as_a_whole_is_refused_and_the_steps_beside_it_are_not() {
    let whole = Delta { home: Key::new("home"), version: at(1), content: Content::Delete, gone: Vec::new() };
    let steps = [write("a", 1), Step::Apply(whole.into()), write("b", 1)];
    let store = MemoryStore::new();
    let answers = in_steps(&steps, |step| Ok(step.clone()), |steps| store.execute(steps, &TERMS));
    let kinds: Vec<_> = answers.into_iter().map(|answer| answer.map_err(|error| error.kind())).collect();
    assert_eq!(kinds, [Ok(Outcome::Written), Err(ErrorKind::Rejected), Ok(Outcome::Written)]);
    assert_eq!(store.len(), 2);
}
