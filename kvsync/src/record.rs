//! The record of a row, and how a change is merged into it: one pure function.
//!
//! Each row has one record, under its home key. It holds the row's bytes and its ledger: the keys it
//! stands under (*live*) and those it has left and that are not yet released (*dirty*, each with the
//! version at which the row was last listed there). A delivery merges its change into the record,
//! then projects the record, not the change, onto the other keys. So any number of deliveries, in any
//! order and any number of times, end in the same store.

mod form;
mod ledger;

use std::collections::BTreeMap;

use bytes::Bytes;

pub(crate) use self::form::{Form, register};
#[cfg(feature = "redis")]
pub(crate) use self::ledger::write_dirty;
use crate::envelope::{Envelope, Head, State, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::version::Version;

/// A change as a store sees it: strings and bytes, no types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// The key of the row's record.
    pub home: Key,
    /// Its place in the order of the row's changes.
    pub version: Version,
    /// What is known of the row.
    pub content: Content,
    /// Keys that the change certainly took from the row, each with the version of the statement that
    /// did: what DELETE .. RETURNING told.
    pub gone: Vec<(Key, Version)>,
}

/// What a change knows of its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The row stands under these keys, beside its home key, with this content.
    Put {
        /// The row's bytes.
        value: Value,
        /// When the entry ends, in milliseconds since the Unix epoch; 0 is never.
        expires_at: u64,
        /// The other keys.
        keys: Vec<Listed>,
    },
    /// The row stands under no key.
    Delete,
    /// The row was written, or may have been; with what content is not known.
    Unknown,
}

/// A key that a row stands under.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// The key.
    pub key: Key,
    /// Whether it holds a pointer to the record in place of the row's bytes.
    pub pointer: bool,
}

/// How long what is no longer needed is kept, and what time it is; milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The time now, since the Unix epoch.
    pub now: u64,
    /// W: how long the tombstone of a left key and a mask live. Longer than any delay between a merge
    /// and the writes that follow it.
    pub left: u64,
    /// D: how long the record of a dead row lives. Longer than any delivery takes.
    pub dead: u64,
}

/// The record of a row.
///
/// Its version stands in its ledger too, apart from the head: the home key of one generation of a
/// model's keys may be a slot of another, which writes the head and knows nothing of this ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The version of the newest certain change.
    pub version: Version,
    /// Whether that change left the row alive.
    pub alive: bool,
    /// The version of the newest unknown change, while it is above `version`: the row is not known
    /// then. [`Version::ZERO`] when the row is known.
    pub mark: Version,
    /// The keys that the row stands under, beside its home key; ascending.
    pub live: Vec<Listed>,
    /// The keys it has left and that are not released, with the version at which it was last listed.
    pub dirty: BTreeMap<Key, Version>,
    /// When the entry ends, in milliseconds since the Unix epoch; 0 is never.
    pub expires_at: u64,
    /// The row's bytes; none when it is dead or not known.
    pub value: Value,
    /// What another generation of the model's keys wrote under the home key, while it is newer than
    /// the record. Readers of the key see it; it is kept until the record has caught up.
    pub foreign: Option<(Head, Value)>,
}

/// What to write under a key that is not a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The key.
    pub key: Key,
    /// What is to stand there, unless something newer does.
    pub head: Head,
    /// The bytes.
    pub value: Value,
    /// Which of two entries of one version is the newer one.
    pub order: Order,
}

/// Which of two entries of one version wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// In a slot, which a ledger governs: value, then unknown, then tombstone.
    Slot,
    /// In a register, which stands alone because the row never leaves the key while it lives: unknown,
    /// then value, then tombstone.
    Register,
}

impl Order {
    /// Whether `new` replaces `old`.
    #[must_use]
    pub fn replaces(self, new: &Head, old: &Head) -> bool {
        (old.version, self.rank(old.state)) < (new.version, self.rank(new.state))
    }

    fn rank(self, state: State) -> u8 {
        match (self, state) {
            (Self::Slot, State::Value) | (Self::Register, State::Unknown) => 0,
            (Self::Slot, State::Unknown) | (Self::Register, State::Value) => 1,
            (_, State::Tombstone) => 2,
        }
    }
}

impl Record {
    /// The record of a row of which nothing was ever heard.
    #[must_use]
    pub fn new() -> Self {
        Self {
            version: Version::ZERO,
            alive: false,
            mark: Version::ZERO,
            live: Vec::new(),
            dirty: BTreeMap::new(),
            expires_at: 0,
            value: Value::none(),
            foreign: None,
        }
    }

    /// Whether the newest change of the row is a certain one.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.version >= self.mark
    }

    /// Merges a change into the record, and returns whether the record held something newer before.
    /// Merging the same changes in any order, any of them several times, ends in a record with the same
    /// version, mark, live keys and bytes.
    pub fn merge(&mut self, change: &Delta, terms: &Terms) -> bool {
        let superseded = self.version.max(self.mark) > change.version;
        let newer = change.version > self.version;
        match &change.content {
            Content::Unknown if newer => self.mark = self.mark.max(change.version),
            Content::Put { value, expires_at, keys } if newer => {
                let mut live = keys.clone();
                live.retain(|listed| listed.key != change.home);
                live.sort();
                live.dedup_by(|a, b| a.key == b.key);
                self.relist(live, change.version);
                (self.alive, self.value, self.expires_at) = (true, value.clone(), *expires_at);
            }
            Content::Delete if newer => {
                self.relist(Vec::new(), change.version);
                (self.alive, self.value) = (false, Value::none());
            }
            Content::Unknown | Content::Put { .. } | Content::Delete => {}
        }
        for (key, version) in &change.gone {
            if !self.lists(key) && *key != change.home {
                let last = self.dirty.entry(key.clone()).or_default();
                *last = (*last).max(*version);
            }
        }
        if self.is_known() {
            self.mark = Version::ZERO;
        } else {
            self.value = Value::none();
        }
        self.stay(terms);
        superseded
    }

    /// What has to be written under the other keys, so that they agree with the record.
    #[must_use]
    pub fn project(&self, home: &Key, terms: &Terms) -> Vec<Write> {
        let soon = terms.now.saturating_add(terms.left);
        let live = self.live.iter().map(|listed| {
            let (state, expires_at, value) = if !self.is_known() {
                (State::Unknown, soon, Value::none())
            } else if listed.pointer {
                (State::Value, self.expires_at, Value::pointer(home))
            } else {
                (State::Value, self.expires_at, self.value.clone())
            };
            let head = Head { version: self.version, state, expires_at };
            Write { key: listed.key.clone(), head, value, order: Order::Slot }
        });
        let dirty = self.dirty.iter().map(|(key, last)| {
            let head = Head { version: *last, state: State::Tombstone, expires_at: soon };
            Write { key: key.clone(), head, value: Value::none(), order: Order::Slot }
        });
        live.chain(dirty).collect()
    }

    /// Forgets keys whose release has been answered, each at the version that was released.
    pub fn confirm(&mut self, released: &[(Key, Version)]) {
        for (key, version) in released {
            if self.dirty.get(key).is_some_and(|last| last <= version) {
                self.dirty.remove(key);
            }
        }
    }

    /// When a store may forget the record, in milliseconds since the Unix epoch; 0 is never. A record
    /// outlives the copies of its row, and stays long enough to refuse every delivery that is late.
    #[must_use]
    pub fn forgotten_at(&self, terms: &Terms) -> u64 {
        match (self.alive, self.expires_at) {
            (true, 0) => 0,
            (true, at) => at.saturating_add(terms.left.max(terms.dead)),
            (false, at) => at,
        }
    }

    /// The record as it is stored.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let state = match (self.is_known(), self.alive) {
            (false, _) => State::Unknown,
            (true, true) => State::Value,
            (true, false) => State::Tombstone,
        };
        let own = Head { version: self.version, state, expires_at: self.expires_at };
        let (head, value) = match &self.foreign {
            Some((head, value)) => (Head { expires_at: later(head.expires_at, own.expires_at), ..*head }, value),
            None => (own, &self.value),
        };
        Envelope::encode(&head, Some(&self.ledger()), value)
    }

    /// The record that this envelope holds. One without a ledger was written as a slot, by another
    /// generation of the model's keys: then nothing is known of the row but that
    /// it was written.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] when the ledger is damaged.
    pub fn from_envelope(envelope: Envelope) -> Result<Self> {
        let Envelope { head, ledger, value } = envelope;
        let mut record = Self { expires_at: head.expires_at, ..Self::new() };
        if let Some(ledger) = &ledger {
            record
                .read_ledger(ledger)
                .ok_or_else(|| Error::new(ErrorKind::Corrupt, "the ledger of this record is damaged"))?;
        }
        if head.version > record.version {
            record.mark = record.mark.max(head.version);
            record.foreign = Some((head, value));
        } else if record.is_known() && record.alive {
            if head.state == State::Value {
                record.value = value;
            } else {
                // The other generation masked or released the key, so the bytes are gone. Whatever
                // comes next is certain to be newer than what they were.
                record.mark = record.version.next();
            }
        }
        Ok(record)
    }

    /// An entry under a key that is no record's, unless it is one: what a slot's writer leaves of it.
    ///
    /// `stands` is what stands under the key. The answer is what has to stand there instead, or nothing
    /// where `write` is not newer. A ledger is kept, and an entry with one never ends sooner than it did.
    #[must_use]
    pub fn overwrite(stands: Option<&Envelope>, write: &Write) -> Option<Bytes> {
        let Some(stands) = stands else {
            return Some(Envelope::encode(&write.head, None, &write.value));
        };
        if !write.order.replaces(&write.head, &stands.head) {
            return None;
        }
        let mut head = write.head;
        if stands.ledger.is_some() {
            head.expires_at = later(head.expires_at, stands.head.expires_at);
        }
        Some(Envelope::encode(&head, stands.ledger.as_deref(), &write.value))
    }

    fn lists(&self, key: &Key) -> bool {
        self.live.iter().any(|listed| listed.key == *key)
    }

    /// Replaces the live keys. Those that are left become dirty at the version that listed them.
    fn relist(&mut self, live: Vec<Listed>, version: Version) {
        let last = self.version;
        for left in std::mem::replace(&mut self.live, live) {
            let known = self.dirty.entry(left.key).or_default();
            *known = (*known).max(last);
        }
        for listed in &self.live {
            self.dirty.remove(&listed.key);
        }
        self.version = version;
    }

    /// Sees to it that the record is kept for as long as a late delivery may need it to be refused.
    fn stay(&mut self, terms: &Terms) {
        if self.foreign.as_ref().is_some_and(|(head, _)| head.version <= self.version) {
            self.foreign = None;
        }
        if !self.alive {
            self.expires_at = terms.now.saturating_add(terms.dead);
        } else if !self.is_known() && self.expires_at != 0 {
            // An alive record is forgotten D after it ends; a mark has to last for D from now.
            self.expires_at = self.expires_at.max(terms.now);
        }
    }
}

impl Default for Record {
    fn default() -> Self {
        Self::new()
    }
}

/// The later of two ends, where 0 is never.
fn later(a: u64, b: u64) -> u64 {
    if a == 0 || b == 0 { 0 } else { a.max(b) }
}

#[cfg(test)]
mod tests;
