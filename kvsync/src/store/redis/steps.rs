//! Steps as calls of scripts, and what the scripts answer as outcomes.
//!
//! A single server takes many changes or entries in one call: the script reads all keys at once and
//! writes them at once. A cluster takes one key a call, because the keys of a call must be on one node.

use std::collections::HashSet;
use std::ops::Range;

use bytes::Bytes;
use redis::{Cmd, cmd};

use super::outcome::{about, outcomes};
use super::pipeline::{Patience, Request};
use super::script::Script;
use super::{Inner, MAX_VALUE};
use crate::envelope::{Envelope, Head, State, Value as Body};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::record::{Content, Delta, Listed, Order, Record, Terms, Write, write_dirty};
use crate::store::{Outcome, Step};
use crate::version::Version;

/// Keys of one call; measured, more gain nothing.
const KEYS: usize = 128;
/// Bytes of one call: the server does nothing else while it runs.
const BYTES: usize = 256 * 1024;
/// Entries larger than this on average are not all read at once before they are replaced.
const LARGE: usize = 2048;

pub(super) fn execute(store: &Inner, steps: &[Step], terms: &Terms) -> Vec<Result<Outcome>> {
    let mut answers: Vec<Option<Result<Outcome>>> = steps.iter().map(|_| None).collect();
    let mut planner = Planner { store, steps, terms, jobs: Vec::new(), requests: Vec::new() };
    planner.plan(&mut answers);
    let again = planner.run(&mut answers);
    if !again.is_empty() {
        // One step of these calls is not as the others; none of them wrote anything.
        let mut planner = Planner { jobs: Vec::new(), requests: Vec::new(), ..planner };
        for index in again {
            planner.single(index);
        }
        planner.run(&mut answers);
    }
    answers
        .into_iter()
        .map(|answer| answer.unwrap_or_else(|| Err(Error::new(ErrorKind::Unavailable, "redis did not answer a step"))))
        .collect()
}

struct Planner<'a> {
    store: &'a Inner,
    steps: &'a [Step],
    terms: &'a Terms,
    jobs: Vec<Range<usize>>,
    requests: Vec<Request>,
}

impl Planner<'_> {
    /// Cuts the steps into calls. What needs no server is answered here.
    fn plan(&mut self, answers: &mut [Option<Result<Outcome>>]) {
        let mut begin = 0;
        while let Some(step) = self.steps.get(begin) {
            if let Some(answer) = self.refuse(step) {
                if let Some(slot) = answers.get_mut(begin) {
                    *slot = Some(answer);
                }
                begin += 1;
                continue;
            }
            let end = begin + self.run_length(begin).max(1);
            match step {
                Step::Apply(_) => self.apply(begin..end),
                Step::Write(write) if end - begin > 1 => self.write_many(begin..end, write.order),
                _ => self.single(begin),
            }
            begin = end;
        }
    }

    /// How many steps from this one on fit into one call.
    fn run_length(&self, begin: usize) -> usize {
        if self.store.is_cluster() {
            return 1;
        }
        let mut names = HashSet::with_capacity((self.steps.len() - begin).min(KEYS));
        let (mut keys, mut bytes, mut order) = (0, 0, None);
        for (length, step) in self.steps.iter().skip(begin).enumerate() {
            match (step, self.steps.get(begin)) {
                // The scripts take each key once.
                (Step::Apply(change), Some(Step::Apply(_))) if keys_of(change).all(|key| names.insert(key)) => {
                    keys = names.len();
                    bytes += value_of(change).as_bytes().len() * keys_of(change).count();
                }
                (Step::Write(write), Some(Step::Write(_)))
                    if *order.get_or_insert(write.order) == write.order && names.insert(&write.key) =>
                {
                    keys += 1;
                    bytes += write.value.as_bytes().len();
                }
                _ => return length,
            }
            if keys > KEYS || bytes > BYTES || self.refuse(step).is_some() {
                return length;
            }
        }
        self.steps.len() - begin
    }

    /// The answer to a step that no server is asked about.
    fn refuse(&self, step: &Step) -> Option<Result<Outcome>> {
        let (key, size) = match step {
            Step::Apply(_) if self.store.is_cluster() => {
                let message = "a redis cluster takes no change as a whole; merge, write and confirm it";
                return Some(Err(Error::new(ErrorKind::Rejected, message)));
            }
            Step::Apply(change) | Step::Merge(change) => (&change.home, value_of(change).as_bytes().len()),
            Step::Write(write) => (&write.key, write.value.as_bytes().len()),
            Step::Confirm { .. } | Step::Sweep(_) | Step::Remove { .. } => return None,
        };
        (size > MAX_VALUE).then(|| {
            let message = format!("the entry under `{key}` has {size} bytes, and redis takes {MAX_VALUE} at most");
            Err(Error::new(ErrorKind::Rejected, message))
        })
    }

    fn push(&mut self, steps: Range<usize>, route: &[u8], command: &Cmd) {
        let request = Request {
            slot: self.store.servers.slot(route),
            command: command.get_packed_command(),
            writes: true,
            once: false,
        };
        self.jobs.push(steps);
        self.requests.push(request);
    }

    fn single(&mut self, index: usize) {
        let Some(step) = self.steps.get(index) else { return };
        let range = index..index + 1;
        let (script, key) = match step {
            Step::Apply(_) => return self.apply(range),
            // Redis expires by itself; but that nobody answers is an error here too, and another type is.
            Step::Sweep(key) => {
                let key = self.store.full(key);
                return self.push(range, &key, cmd("STRLEN").arg(&key));
            }
            Step::Merge(change) => (Script::Merge, &change.home),
            Step::Write(write) => (Script::Write, &write.key),
            Step::Confirm { home, .. } => (Script::Confirm, home),
            Step::Remove { key, .. } => (Script::Remove, key),
        };
        let key = self.store.full(key);
        let mut command = script.call(1, 512);
        command.arg(&key);
        match step {
            Step::Write(write) => {
                command.arg(order(write.order)).arg(self.terms.now).arg(self.keep()).arg(&entry(write)[..]);
            }
            Step::Merge(change) => {
                self.times(&mut command);
                command.arg(&alone(change, self.terms).0[..]).arg(gone(change));
            }
            Step::Confirm { released, .. } => {
                self.times(&mut command);
                command.arg(dirty(released.iter().map(|(key, version)| (key, version))));
            }
            Step::Remove { stands, .. } => {
                command.arg(&stands[..]);
            }
            Step::Apply(_) | Step::Sweep(_) => {}
        }
        self.push(range, &key, &command);
    }

    fn apply(&mut self, range: Range<usize>) {
        let changes = || {
            self.steps.iter().skip(range.start).take(range.len()).filter_map(|step| match step {
                Step::Apply(change) => Some(change),
                _ => None,
            })
        };
        let mut keys = Vec::new();
        let mut records = Vec::with_capacity(range.len());
        let (mut bytes, mut ends) = (0, false);
        for change in changes() {
            ends |= matches!(change.content, Content::Put { expires_at, .. } if expires_at != 0);
            let (record, live) = alone(change, self.terms);
            keys.push(self.store.full(&change.home));
            keys.extend(live.iter().map(|listed| self.store.full(&listed.key)));
            bytes += record.len();
            records.push((record, gone(change)));
        }
        let mut command = Script::Apply.call(keys.len(), bytes * 2);
        for key in &keys {
            command.arg(key);
        }
        self.times(&mut command);
        command.arg(&self.store.prefix).arg(u8::from(bytes <= LARGE * records.len())).arg(u8::from(ends));
        for (record, gone) in &records {
            command.arg(&record[..]).arg(gone);
        }
        self.push(range, &[], &command);
    }

    fn write_many(&mut self, range: Range<usize>, by: Order) {
        let writes = || {
            self.steps.iter().skip(range.start).take(range.len()).filter_map(|step| match step {
                Step::Write(write) => Some(write),
                _ => None,
            })
        };
        let bytes: usize = writes().map(|write| write.value.as_bytes().len() + 64).sum();
        let ends = writes().any(|write| write.head.expires_at != 0);
        let mut command = Script::WriteMany.call(range.len(), bytes + range.len() * 64);
        for write in writes() {
            command.arg(self.store.full(&write.key));
        }
        command.arg(order(by)).arg(self.terms.now).arg(self.keep());
        command.arg(u8::from(ends)).arg(u8::from(bytes <= LARGE * range.len()));
        for write in writes() {
            command.arg(&entry(write)[..]);
        }
        self.push(range, &[], &command);
    }

    fn keep(&self) -> u64 {
        self.terms.left.max(self.terms.dead)
    }

    /// The times that every script of records begins with.
    fn times(&self, command: &mut Cmd) {
        let Terms { now, left, dead } = *self.terms;
        for time in [now, now.saturating_add(left), now.saturating_add(dead)] {
            command.arg(&time.to_be_bytes());
        }
        command.arg(self.keep());
    }

    /// Runs the calls, answers their steps, and returns the steps that are to be run one by one.
    fn run(&mut self, answers: &mut [Option<Result<Outcome>>]) -> Vec<usize> {
        let replies = self.store.run(&self.requests, Patience::Long);
        let mut again = Vec::new();
        for (range, reply) in self.jobs.iter().zip(replies) {
            let steps = self.steps.get(range.clone()).unwrap_or_default();
            let Some(slots) = answers.get_mut(range.clone()) else { continue };
            match reply {
                Err(failure) if failure.is_refusal() && steps.len() > 1 => again.extend(range.clone()),
                Err(failure) => {
                    for (slot, step) in slots.iter_mut().zip(steps) {
                        *slot = Some(Err(about(step, failure.clone())));
                    }
                }
                Ok(value) => {
                    for (slot, outcome) in slots.iter_mut().zip(outcomes(steps, value, self.terms, &self.store.prefix))
                    {
                        *slot = Some(outcome);
                    }
                }
            }
        }
        again
    }
}

/// The record that a change alone would make of nothing, and the keys it would list; a head without
/// ledger where it is no put.
fn alone(change: &Delta, terms: &Terms) -> (Bytes, Vec<Listed>) {
    let (state, expires_at) = match &change.content {
        Content::Put { expires_at, .. } => (State::Value, *expires_at),
        Content::Unknown => (State::Unknown, 0),
        Content::Delete => (State::Tombstone, 0),
    };
    if state == State::Value && change.version > Version::ZERO {
        let mut record = Record::new();
        if change.gone.is_empty() {
            record.merge(change, terms);
        } else {
            record.merge(&Delta { gone: Vec::new(), ..change.clone() }, terms);
        }
        return (record.encode(), record.live);
    }
    let head = Head { version: change.version, state, expires_at };
    (Envelope::encode(&head, None, &Body::none()), Vec::new())
}

/// The keys that a change certainly took, or nothing.
fn gone(change: &Delta) -> Vec<u8> {
    let gone: Vec<_> = change.gone.iter().filter(|(key, _)| *key != change.home).collect();
    if gone.is_empty() { Vec::new() } else { dirty(gone.into_iter().map(|(key, version)| (key, version))) }
}

fn dirty<'a>(keys: impl ExactSizeIterator<Item = (&'a Key, &'a Version)>) -> Vec<u8> {
    let mut out = Vec::new();
    write_dirty(&mut out, keys);
    out
}

/// The keys that a change names as those of its row.
fn keys_of(change: &Delta) -> impl Iterator<Item = &Key> {
    let others = if let Content::Put { keys, .. } = &change.content { keys.as_slice() } else { &[] };
    std::iter::once(&change.home).chain(others.iter().map(|listed| &listed.key))
}

fn value_of(change: &Delta) -> Body {
    if let Content::Put { value, .. } = &change.content { value.clone() } else { Body::none() }
}

fn entry(write: &Write) -> Bytes {
    Envelope::encode(&write.head, None, &write.value)
}

const fn order(order: Order) -> &'static str {
    match order {
        Order::Slot => "s",
        Order::Register => "r",
    }
}
