//! What stands under the keys of a row, beside what should: pure, without a store or a database.

use bytes::Bytes;

use super::difference::DifferenceKind;
use crate::envelope::{Body, Envelope, State};
use crate::error::{Error, ErrorKind, failure_text};
use crate::key::{Key, Scope};
use crate::model::{Kind, Model, Schema, guarded};
use crate::record::Record;
use crate::version::Version;

/// What something is compared by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measure {
    /// Everything that was committed below this version was read, and nothing above it is judged.
    pub(crate) bound: Version,
    /// The lowest epoch whose entries count.
    pub(crate) epoch: u32,
    /// The time, in milliseconds since the Unix epoch.
    pub(crate) now: u64,
    /// Whether entries of the model end.
    pub(crate) ends: bool,
}

/// A key that a row stands under.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Its place in [`Schema::keys`]; `None` for a hidden record.
    pub(crate) index: Option<usize>,
    /// The key, within its scope.
    pub(crate) key: Key,
    /// What stands there.
    pub(crate) role: Role,
}

/// What a key is to its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The row's record.
    Record,
    /// A copy that the record's ledger lists.
    Slot,
    /// An entry that stands alone.
    Register,
}

/// What is wrong with one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) kind: DifferenceKind,
    /// The key's place in [`Schema::keys`]; `None` for a hidden record.
    pub(crate) index: Option<usize>,
    pub(crate) key: Key,
    pub(crate) stored: Option<Version>,
    pub(crate) detail: String,
}

/// What became of the comparison of a row.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    /// What is wrong.
    pub(crate) findings: Vec<Finding>,
    /// What stands there is newer than what the database was read at, so that nothing can be said; with
    /// the highest version seen.
    pub(crate) moving: Option<(Key, Version)>,
    /// Keys whose entries have expired, or may have.
    pub(crate) expired: u64,
    /// The version of a mark in the row's record.
    pub(crate) mark: Version,
}

/// The keys of a row, its record's first. Keys that the store cannot hold are left out, as they are when the
/// row is written; all of them where it cannot hold the record's.
pub(crate) fn places(schema: &Schema, row: &dyn Model, scope: &Scope, max_key: usize) -> Vec<Place> {
    let keeps_record = schema.has_mutable_key();
    let home = if keeps_record { schema.home() } else { None };
    let record = keeps_record.then(|| Place { index: home, key: row.home().within(scope), role: Role::Record });
    if record.as_ref().is_some_and(|place| place.key.as_str().len() > max_key) {
        return Vec::new();
    }
    let role = if keeps_record { Role::Slot } else { Role::Register };
    let others = (0..schema.keys.len())
        .filter(|index| home != Some(*index))
        .filter_map(|index| Some(Place { index: Some(index), key: row.key(index)?.within(scope), role }))
        .filter(|place| place.key.as_str().len() <= max_key);
    record.into_iter().chain(others).collect()
}

/// A row as the database has it.
pub(crate) struct Standing<'a> {
    pub(crate) kind: &'a Kind,
    pub(crate) scope: &'a Scope,
    pub(crate) row: &'a dyn Model,
}

/// What an entry turned out to be.
enum Entry {
    /// An envelope that counts.
    Whole(Envelope),
    /// Nothing is there.
    Nothing,
    /// It has ended.
    Ended,
    Wrong(DifferenceKind, Option<Version>, String),
}

impl Measure {
    fn entry(&self, bytes: Option<&Bytes>) -> Entry {
        let Some(bytes) = bytes else { return Entry::Nothing };
        match Envelope::parse(bytes) {
            Err(error) if error.kind() == ErrorKind::UnknownLayout => {
                Entry::Wrong(DifferenceKind::Undecodable, None, failure_text(&error))
            }
            Err(error) => Entry::Wrong(DifferenceKind::Foreign, None, foreign(bytes, &error)),
            Ok(envelope) if envelope.head.is_expired(self.now) && envelope.head.state != State::Tombstone => {
                Entry::Ended
            }
            Ok(envelope) => Entry::Whole(envelope),
        }
    }

    /// Why what counts as an entry tells a reader nothing.
    fn unread(&self, envelope: &Envelope) -> Option<(DifferenceKind, &'static str)> {
        if envelope.head.version.epoch() < self.epoch {
            Some((DifferenceKind::Unknown, "it was written before the epoch was raised"))
        } else {
            match envelope.head.state {
                State::Unknown => Some((DifferenceKind::Unknown, "the store was told that it does not know the row")),
                State::Tombstone => Some((DifferenceKind::Dead, "the store says that no row stands here")),
                State::Value => None,
            }
        }
    }
}

impl Standing<'_> {
    /// Compares the row with what stands under its keys, in the order of `places`. To accuse, what stands
    /// in the record has to be read after the rest: a row that moved on meanwhile shows it there.
    pub(crate) fn compare(&self, places: &[Place], stands: &[Option<Bytes>], by: &Measure) -> Compared {
        let mut out = Compared::default();
        let mut record = None;
        let mut entries = places.iter().zip(stands);
        if places.first().is_some_and(|place| place.role == Role::Record)
            && let Some((place, bytes)) = entries.next()
        {
            match self.record(place, bytes.as_ref(), places, by, &mut out) {
                Some(found) => record = found,
                None => return out,
            }
        }
        for (place, bytes) in entries {
            self.copy(place, bytes.as_ref(), record.as_ref(), by, &mut out);
        }
        out
    }

    /// Compares the record. `None` when nothing can be said of the row's other keys.
    #[allow(clippy::option_option, reason = "whether to go on, and the record where there is one")]
    fn record(
        &self,
        place: &Place,
        bytes: Option<&Bytes>,
        places: &[Place],
        by: &Measure,
        out: &mut Compared,
    ) -> Option<Option<Record>> {
        let mut wrong = |kind, stored, detail: String| {
            out.findings.push(Finding { kind, index: place.index, key: place.key.clone(), stored, detail });
        };
        let envelope = match by.entry(bytes) {
            Entry::Whole(envelope) => envelope,
            Entry::Nothing | Entry::Ended if by.ends => {
                out.expired += places.len() as u64;
                return None;
            }
            Entry::Nothing | Entry::Ended => {
                wrong(DifferenceKind::Missing, None, "nothing is stored here".to_owned());
                return Some(None);
            }
            Entry::Wrong(kind, stored, detail) => {
                wrong(kind, stored, detail);
                return Some(None);
            }
        };
        let head = envelope.head;
        let record = match Record::from_envelope(envelope.clone()) {
            Ok(record) => record,
            Err(error) => {
                wrong(DifferenceKind::Undecodable, Some(head.version), failure_text(&error));
                return Some(None);
            }
        };
        let newest = head.version.max(record.version).max(if record.is_known() { Version::ZERO } else { record.mark });
        if newest > by.bound {
            out.moving = Some((place.key.clone(), newest));
            return None;
        }
        if let Some((kind, detail)) = by.unread(&envelope) {
            wrong(kind, Some(head.version), detail.to_owned());
        } else if !record.is_known() {
            let detail = "another generation of the model's keys wrote here, and the record has not caught up";
            wrong(DifferenceKind::Unknown, Some(head.version), detail.to_owned());
        } else if let Some((kind, detail)) = self.body(&envelope, &[]) {
            wrong(kind, Some(head.version), detail);
        } else {
            let listed = |place: &Place| record.live.iter().any(|listed| listed.key == place.key);
            let slots = || places.iter().filter(|place| place.role == Role::Slot);
            let unlisted = slots().find(|place| !listed(place));
            let strange = record.live.iter().find(|listed| !slots().any(|place| place.key == listed.key));
            let detail = match (unlisted, strange, record.dirty.keys().next()) {
                (Some(place), ..) => Some(format!("its ledger does not list `{}`", place.key)),
                (_, Some(listed), _) => Some(format!("its ledger lists `{}`, which is no key of the row", listed.key)),
                (.., Some(left)) => Some(format!("`{left}` was left and never released")),
                (None, None, None) => None,
            };
            if let Some(detail) = detail {
                wrong(DifferenceKind::Ledger, Some(head.version), detail);
            }
        }
        out.mark = record.mark;
        Some(Some(record))
    }

    /// Compares an entry that is no record.
    fn copy(&self, place: &Place, bytes: Option<&Bytes>, record: Option<&Record>, by: &Measure, out: &mut Compared) {
        let mut wrong = |kind, stored, detail: String| {
            out.findings.push(Finding { kind, index: place.index, key: place.key.clone(), stored, detail });
        };
        let envelope = match by.entry(bytes) {
            Entry::Whole(envelope) => envelope,
            // A copy ends when its record does; a register, when it likes.
            Entry::Nothing | Entry::Ended if by.ends && record.is_none() => {
                out.expired += 1;
                return;
            }
            Entry::Ended if by.ends => {
                out.expired += 1;
                return;
            }
            Entry::Nothing | Entry::Ended => {
                return wrong(DifferenceKind::Missing, None, "nothing is stored here".to_owned());
            }
            Entry::Wrong(kind, stored, detail) => return wrong(kind, stored, detail),
        };
        let version = envelope.head.version;
        if version > by.bound {
            if out.moving.as_ref().is_none_or(|(_, highest)| *highest < version) {
                out.moving = Some((place.key.clone(), version));
            }
            return;
        }
        if let Some((kind, detail)) = by.unread(&envelope) {
            wrong(kind, Some(version), detail.to_owned());
        } else if let Some((kind, detail)) = self.body(&envelope, &self.pointed(place)) {
            wrong(kind, Some(version), detail);
        } else if envelope.ledger.is_none() && record.is_some_and(|record| record.version < version) {
            // What carries a ledger is the record of another generation of the model's keys.
            let detail = "the copy is newer than its record, which could not release it".to_owned();
            wrong(DifferenceKind::Ledger, Some(version), detail);
        }
    }

    /// Where a pointer under this key may lead.
    fn pointed(&self, place: &Place) -> Vec<Key> {
        let primary = || Some(self.row.key(self.kind.schema.primary?)?.within(self.scope));
        match place.role {
            Role::Record => Vec::new(),
            Role::Slot => vec![self.row.home().within(self.scope)],
            Role::Register => primary().into_iter().filter(|primary| *primary != place.key).collect(),
        }
    }

    /// What is wrong with a body, if anything is.
    fn body(&self, envelope: &Envelope, pointed: &[Key]) -> Option<(DifferenceKind, String)> {
        let (codec, fields, bytes) = match envelope.body() {
            Err(error) => return Some((DifferenceKind::Undecodable, failure_text(&error))),
            Ok(Body::None) => return Some((DifferenceKind::Undecodable, "the entry has no body".to_owned())),
            Ok(Body::Pointer(home)) => {
                let right = pointed.iter().any(|key| key.as_str() == home);
                return (!right).then(|| (DifferenceKind::Orphan, format!("it points to the row of `{home}`")));
            }
            Ok(Body::Model { codec, fields, bytes }) => (codec, fields, bytes),
        };
        let kind = self.kind;
        if codec != kind.codec {
            return Some((
                DifferenceKind::Outdated,
                format!("it is in the codec {codec}, the model's is {}", kind.codec),
            ));
        }
        if !kind.schema.is_within(fields) {
            if !fields.is_empty() && !overlaps(fields, kind.schema.fields) {
                return Some((DifferenceKind::Foreign, "it holds a row of another model".to_owned()));
            }
            return Some((DifferenceKind::Outdated, "it lacks a field of the model, or has it of another type".into()));
        }
        let mut own = Vec::new();
        let encoded = guarded(kind.schema, || self.row.encode(&mut own)).flatten();
        if encoded.is_ok() && own == bytes {
            return None;
        }
        match kind.decode(bytes) {
            Err(error) => Some((DifferenceKind::Undecodable, failure_text(&error))),
            Ok(stored) if stored.home() != self.row.home() => {
                Some((DifferenceKind::Orphan, format!("it holds the row of `{}`", stored.home())))
            }
            Ok(stored) if kind.same(&*stored, self.row) => None,
            Ok(_) => Some((DifferenceKind::Stale, "the row's content differs".to_owned())),
        }
    }
}

/// Why bytes are no entry; nothing is read of what is of another type.
pub(super) fn foreign(bytes: &Bytes, error: &Error) -> String {
    if bytes.is_empty() {
        return "it is empty, or of another type than kvsync writes".to_owned();
    }
    failure_text(error)
}

/// Whether the stored fields and the reader's have one in common.
pub(crate) fn overlaps(stored: &[u8], wanted: &[u32]) -> bool {
    stored.chunks_exact(4).any(|hash| wanted.iter().any(|field| hash == field.to_be_bytes()))
}

/// Whether a text could be a key of these literals: what stands between them has to be free of the
/// character that follows it, which is escaped within parts.
pub(crate) fn could_be(literals: &[&str], key: &str) -> bool {
    let Some((first, rest)) = literals.split_first() else { return false };
    let Some(mut left) = key.strip_prefix(first) else { return false };
    for literal in rest {
        match literal.chars().next() {
            // The last part goes to the end.
            None => return true,
            Some(stop) => {
                let Some(at) = left.find(stop) else { return false };
                let Some(after) = left.get(at..).and_then(|from| from.strip_prefix(literal)) else { return false };
                left = after;
            }
        }
    }
    left.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_a_key_of_the_format_that_could_have_made_it() {
        for (literals, key, is) in [
            (&["user:id:", ""][..], "user:id:7", true),
            (&["user:id:", ""], "user:uuid:7", false),
            (&["user:", "_", ""], "user:1_x_y", true),
            (&["user:", "_", ""], "user:1", false),
            (&["user:", ":end"], "user:1:end", true),
            (&["user:", ":end"], "user:1:endless", false),
            (&["user:", ":end"], "user:1:x:end", false),
            (&["", ":u"], "1:u", true),
            (&["all"], "all", true),
            (&["all"], "alles", false),
        ] {
            assert_eq!(could_be(literals, key), is, "{literals:?} {key}");
        }
    }

    #[test]
    fn fields_of_another_model_are_known_by_having_none_in_common() {
        let stored: Vec<u8> = [2_u32, 5, 9].iter().flat_map(|field| field.to_be_bytes()).collect();
        assert!(overlaps(&stored, &[1, 9]) && !overlaps(&stored, &[1, 3]) && !overlaps(&[], &[1]));
    }
}
