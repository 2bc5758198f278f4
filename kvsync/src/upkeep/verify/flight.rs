//! What differed at first sight and waits for its second look.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::compare::{Compared, Finding, Measure, Place, Role, Standing};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, Scope};
use crate::model::{Kind, Model, PrimaryKey, Source};
use crate::record::Terms;
use crate::store::{Step, SyncStore};
use crate::version::Version;

/// How much may wait for a second look. More than that, and the oldest is waited for.
pub(crate) const WAITING: usize = 8192;

/// A model in one scope of its database.
#[derive(Clone)]
pub(crate) struct Unit {
    pub(crate) database: Arc<str>,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) kind: Kind,
    pub(crate) scope: Scope,
}

/// A row that differed.
pub(crate) struct RowSuspect {
    pub(crate) due: Instant,
    pub(crate) store: usize,
    pub(crate) unit: usize,
    pub(crate) bound: Version,
    pub(crate) primary_key: PrimaryKey,
    pub(crate) row: Arc<dyn Model>,
    pub(crate) places: Vec<Place>,
}

/// An entry that nobody should see.
pub(crate) struct EntrySuspect {
    pub(crate) due: Instant,
    pub(crate) store: usize,
    pub(crate) unit: usize,
    pub(crate) bound: Version,
    /// The row that it holds, where it can be told.
    pub(crate) primary_key: Option<PrimaryKey>,
    pub(crate) finding: Finding,
    /// Of the bytes that stood there.
    pub(crate) digest: u64,
}

/// A row that was found to differ for good.
pub(crate) struct RowFault {
    pub(crate) store: usize,
    pub(crate) unit: usize,
    pub(crate) bound: Version,
    pub(crate) primary_key: PrimaryKey,
    /// The version of the mark in its record.
    pub(crate) mark: Version,
    pub(crate) findings: Vec<Finding>,
    /// What stands under the keys in question.
    pub(crate) stands: Vec<(Key, Bytes)>,
}

/// An entry that was found to be wrong for good.
pub(crate) struct EntryFault {
    pub(crate) store: usize,
    pub(crate) unit: usize,
    pub(crate) bound: Version,
    pub(crate) primary_key: Option<PrimaryKey>,
    pub(crate) finding: Finding,
    pub(crate) stands: Bytes,
}

/// What waits.
#[derive(Default)]
pub(crate) struct Flight {
    pub(crate) rows: VecDeque<RowSuspect>,
    pub(crate) entries: VecDeque<EntrySuspect>,
}

impl Flight {
    pub(crate) fn len(&self) -> usize {
        self.rows.len() + self.entries.len()
    }

    /// When the next one is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        let row = self.rows.front().map(|row| row.due);
        let entry = self.entries.front().map(|entry| entry.due);
        row.into_iter().chain(entry).min()
    }

    /// Those that are due.
    pub(crate) fn ripe(&mut self, now: Instant) -> (Vec<RowSuspect>, Vec<EntrySuspect>) {
        let rows = self.rows.iter().take_while(|row| row.due <= now).count();
        let entries = self.entries.iter().take_while(|entry| entry.due <= now).count();
        (self.rows.drain(..rows).collect(), self.entries.drain(..entries).collect())
    }
}

/// What a second look brought: the comparison, and what stands there.
type Looked = (Compared, Vec<(Key, Bytes)>);

/// Compares rows of one store once more, in the order in which nothing is accused falsely: their records are
/// read when all else has been.
pub(crate) fn second_look(
    store: &dyn SyncStore,
    suspects: &[&RowSuspect],
    units: &[Unit],
    terms: &Terms,
    measure: impl Fn(&RowSuspect) -> Measure,
) -> Result<Vec<Looked>> {
    let keys = |of_record: bool| {
        let places = suspects.iter().flat_map(|suspect| &suspect.places);
        places.filter(move |place| (place.role == Role::Record) == of_record).map(|place| place.key.clone())
    };
    let mut copies = read_closely(store, &keys(false).collect::<Vec<_>>(), terms)?.into_iter();
    let mut records = read_closely(store, &keys(true).collect::<Vec<_>>(), terms)?.into_iter();
    let mut looked = Vec::with_capacity(suspects.len());
    for suspect in suspects {
        let of_role = |place: &Place| {
            let from = if place.role == Role::Record { &mut records } else { &mut copies };
            from.next().flatten()
        };
        let stands: Vec<Option<Bytes>> = suspect.places.iter().map(of_role).collect();
        let Some(unit) = units.get(suspect.unit) else { continue };
        let standing = Standing { kind: &unit.kind, scope: &unit.scope, row: &*suspect.row };
        let compared = standing.compare(&suspect.places, &stands, &measure(suspect));
        let there = suspect.places.iter().zip(stands).filter_map(|(place, bytes)| Some((place.key.clone(), bytes?)));
        looked.push((compared, there.collect()));
    }
    Ok(looked)
}

/// What stands under keys. Of a key that holds something of another type only that is told: no bytes.
pub(crate) fn read(store: &dyn SyncStore, keys: &[Key]) -> Result<Vec<Option<Bytes>>> {
    let mut found = Vec::with_capacity(keys.len());
    for some in keys.chunks(READS) {
        match store.get_many(some) {
            Ok(read) if read.len() == some.len() => found.extend(read),
            Ok(_) => {
                let message = format!("{} answered other keys than it was asked for", store.name());
                return Err(Error::new(ErrorKind::Corrupt, message));
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                for key in some {
                    found.push(match store.get_many(std::slice::from_ref(key)) {
                        Ok(read) => read.into_iter().next().flatten(),
                        Err(error) if error.kind() == ErrorKind::Corrupt => Some(Bytes::new()),
                        Err(error) => return Err(error),
                    });
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The same of what is about to be accused. Asked for many keys, a store may be silent on one that holds
/// something of another type: where nothing seems to stand, each key is asked for by itself.
pub(crate) fn read_closely(store: &dyn SyncStore, keys: &[Key], terms: &Terms) -> Result<Vec<Option<Bytes>>> {
    let mut found = read(store, keys)?;
    let mut absent: Vec<(&Key, &mut Option<Bytes>)> =
        keys.iter().zip(&mut found).filter(|(_, stands)| stands.is_none()).collect();
    for some in absent.chunks_mut(store.capabilities().max_steps.max(1)) {
        // A sweep of nothing does nothing.
        let sweeps: Vec<Step> = some.iter().map(|(key, _)| Step::Sweep((*key).clone())).collect();
        for ((_, stands), answer) in some.iter_mut().zip(store.execute(&sweeps, terms)) {
            match answer {
                Err(error) if error.kind() == ErrorKind::Corrupt => **stands = Some(Bytes::new()),
                answer => drop(answer?),
            }
        }
    }
    Ok(found)
}

/// Keys that are read at once.
const READS: usize = 512;

/// Tells whether bytes are still the same, without keeping them.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
