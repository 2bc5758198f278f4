//! What an entry of a store calls for, by what it says itself.

use std::sync::Arc;

use bytes::Bytes;

use super::compare::{foreign, overlaps};
use super::difference::DifferenceKind;
use super::run::Run;
use crate::envelope::{Body, Envelope, State};
use crate::error::{ErrorKind, failure_text};
use crate::key::{Key, Scope};
use crate::model::{Kind, Model, PrimaryKey};
use crate::record::Record;
use crate::version::Version;

/// A key as one of a model's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    pub(super) unit: usize,
    /// Its place in [`Schema::keys`]; `None` for a hidden record.
    pub(super) index: Option<usize>,
}

/// What an entry calls for.
pub(super) enum Call {
    /// Nothing: it says nothing wrong, or is looked at from the database's side.
    None,
    /// Its row has to be looked up.
    /// With the copies that it lists, if it is a record.
    Look { unit: usize, index: Option<usize>, stored: Version, primary_key: PrimaryKey, lists: Vec<Key> },
    /// The same, unless this record lists the key, which is looked at by itself.
    Listed { home: Key, otherwise: Box<Call> },
    /// It does not say whose it is.
    Stray { unit: usize, index: Option<usize>, kind: DifferenceKind, stored: Option<Version>, detail: String },
    /// It is newer than what the database was read at.
    TooNew { unit: usize, version: Version },
}

impl Run {
    /// What an entry calls for.
    pub(super) fn call(
        &self,
        key: &Key,
        scope: &Scope,
        claims: &[Claim],
        bytes: &Bytes,
        bounds: &[(Arc<str>, Version)],
    ) -> Call {
        let Some(first) = claims.first().copied() else { return Call::None };
        let stray =
            |kind, stored, detail: String| Call::Stray { unit: first.unit, index: first.index, kind, stored, detail };
        let envelope = match Envelope::parse(bytes) {
            Ok(envelope) => envelope,
            Err(error) if error.kind() == ErrorKind::UnknownLayout => {
                return stray(DifferenceKind::Undecodable, None, failure_text(&error));
            }
            Err(error) => return stray(DifferenceKind::Foreign, None, foreign(bytes, &error)),
        };
        let head = envelope.head;
        let record = match envelope.ledger.is_some().then(|| Record::from_envelope(envelope.clone())).transpose() {
            Ok(record) => record,
            Err(error) => return stray(DifferenceKind::Undecodable, Some(head.version), failure_text(&error)),
        };
        let bound = self.bound(first.unit, bounds);
        let newest = record.as_ref().map_or(head.version, |record| head.version.max(record.version).max(record.mark));
        if newest > bound {
            return Call::TooNew { unit: first.unit, version: newest };
        }
        let marked = |record: &Record| {
            let detail = "its row is not known, and nobody is about to settle it";
            stray(DifferenceKind::Unknown, Some(record.mark), detail.to_owned())
        };
        match (head.state, &record) {
            (State::Tombstone, Some(record)) => match record.dirty.keys().next() {
                Some(left) => {
                    let detail = format!("its row is gone, and `{left}` was never released");
                    stray(DifferenceKind::Ledger, Some(head.version), detail)
                }
                None => Call::None,
            },
            (State::Unknown, Some(record)) => marked(record),
            (State::Tombstone | State::Unknown, None) => Call::None,
            (State::Value, _) if head.is_expired(self.access.now()) => Call::None,
            (State::Value, Some(record)) if !record.is_known() && record.foreign.is_none() => marked(record),
            (State::Value, _) => self.value(key, scope, claims, &envelope, record.as_ref()),
        }
    }

    /// What a value calls for.
    fn value(&self, key: &Key, scope: &Scope, claims: &[Claim], envelope: &Envelope, record: Option<&Record>) -> Call {
        let Some(first) = claims.first().copied() else { return Call::None };
        let stored = envelope.head.version;
        let stray = |kind, detail: String| Call::Stray {
            unit: first.unit,
            index: first.index,
            kind,
            stored: Some(stored),
            detail,
        };
        let (codec, fields, bytes) = match envelope.body() {
            Err(error) => return stray(DifferenceKind::Undecodable, failure_text(&error)),
            Ok(Body::None) => return stray(DifferenceKind::Undecodable, "the entry has no body".to_owned()),
            Ok(Body::Pointer(home)) => {
                let otherwise = stray(DifferenceKind::Orphan, format!("it points to `{home}`, which does not list it"));
                return Call::Listed { home: Key::new(home), otherwise: Box::new(otherwise) };
            }
            Ok(Body::Model { codec, fields, bytes }) => (codec, fields, bytes),
        };
        let reads = |kind: &Kind| kind.codec == codec && kind.schema.is_within(fields);
        let mut wrong = None;
        let mut failure = None;
        for claim in claims {
            let Some(unit) = self.units.get(claim.unit).filter(|unit| reads(&unit.kind)) else { continue };
            match unit.kind.decode(bytes) {
                Ok(row) => {
                    let look = Call::Look {
                        unit: claim.unit,
                        index: claim.index,
                        stored,
                        primary_key: row.primary_key(),
                        lists: record.map_or_else(Vec::new, |record| {
                            record.live.iter().map(|listed| listed.key.clone()).collect()
                        }),
                    };
                    if stands_under(&*row, claim.index, key, scope) {
                        let home = row.home().within(scope);
                        // The row's record lists it, and is looked at by itself.
                        let copy = record.is_none() && unit.kind.schema.has_mutable_key() && home != *key;
                        return if copy { Call::Listed { home, otherwise: Box::new(look) } } else { look };
                    }
                    wrong.get_or_insert(look);
                }
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        // It may be an entry of a model that is not compared.
        let other = self.registered.iter().filter(|kind| reads(kind)).any(|kind| {
            kind.decode(bytes)
                .is_ok_and(|row| (0..kind.schema.keys.len()).any(|index| stands_under(&*row, Some(index), key, scope)))
        });
        if other {
            return Call::None;
        }
        if let Some(look) = wrong {
            return look;
        }
        if let Some(error) = failure {
            return stray(DifferenceKind::Undecodable, failure_text(&error));
        }
        let own =
            |claim: &Claim| self.units.get(claim.unit).is_some_and(|unit| overlaps(fields, unit.kind.schema.fields));
        if claims.iter().any(own) {
            stray(DifferenceKind::Outdated, "it lacks a field of the model, or is in another codec".to_owned())
        } else {
            stray(DifferenceKind::Foreign, "it holds a row of another model".to_owned())
        }
    }

    /// What a copy or a pointer calls for when what stands under `home` says that its row stands under `key`.
    pub(super) fn listed(&self, stands: Option<&Bytes>, key: &Key, home: &Key) -> Option<Call> {
        let envelope = Envelope::parse(stands?).ok()?;
        if envelope.ledger.is_some() {
            let record = Record::from_envelope(envelope).ok()?;
            let lists = record.is_known() && record.alive && record.live.iter().any(|listed| listed.key == *key);
            return lists.then_some(Call::None);
        }
        // A model without records points to the key that is made of its primary key.
        let Ok(Body::Model { codec, fields, bytes }) = envelope.body() else { return None };
        let stored = envelope.head.version;
        self.units.iter().enumerate().find_map(|(unit, of)| {
            let schema = of.kind.schema;
            if schema.has_mutable_key() || of.kind.codec != codec || !schema.is_within(fields) {
                return None;
            }
            let row = of.kind.decode(bytes).ok().filter(|row| stands_under(&**row, schema.primary, home, &of.scope))?;
            let index = (0..schema.keys.len()).find(|index| stands_under(&*row, Some(*index), key, &of.scope))?;
            let primary_key = row.primary_key();
            Some(Call::Look { unit, index: Some(index), stored, primary_key, lists: Vec::new() })
        })
    }
}

/// Whether a row stands under a key: its key of this place, or its record's.
pub(super) fn stands_under(row: &dyn Model, index: Option<usize>, key: &Key, scope: &Scope) -> bool {
    let own = match index {
        Some(index) => row.key(index),
        None => Some(row.home()),
    };
    own.is_some_and(|own| own.within(scope) == *key)
}
