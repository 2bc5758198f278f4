//! What has to hold in every state, and at rest.

use super::history::Cell;
use super::instance::{bytes, home, slot};
use super::machine::{Board, Point, Search};
use super::protocol::record;
use crate::envelope::{Envelope, State, Value};
use crate::key::Key;
use crate::version::Version;

impl Search {
    /// I3: neither what a reader sees under a key nor a record falls back.
    pub(super) fn only_rises(&self, board: &Board<'_>, before: &Point, after: &Point) -> Result<(), String> {
        for (place, key) in self.keys.iter().enumerate() {
            if self.losses.evictions > 0 {
                let seen = [before, after].map(|point| self.strict(board, point, place));
                if let [Some((_, old)), Some((_, new))] = seen
                    && new < old
                {
                    return Err(format!("{key} fell from {old} to {new}"));
                }
                continue;
            }
            if before[place] == after[place] {
                continue;
            }
            let (old, new) = (&self.entries[usize::from(before[place])], &self.entries[usize::from(after[place])]);
            // A reader who finds nothing sees nothing older.
            if new.version < old.version && new.bytes.is_some() {
                return Err(format!("{key} fell from {} to {}", old.version, new.version));
            }
        }
        Ok(())
    }

    pub(super) fn check(&self, board: &Board<'_>, point: &Point) -> Result<(), String> {
        let instance = board.instance;
        let todo = |worker: usize| &self.todos[usize::from(point[board.first + worker])];
        // I5: what is acknowledged hides everything older of its row.
        let mut acknowledged = [Version::ZERO; 4];
        let mut rest = true;
        for (worker, delivery) in instance.deliveries.iter().enumerate() {
            if todo(worker).acknowledged {
                let newest = &mut acknowledged[usize::from(delivery.row)];
                *newest = (*newest).max(delivery.delta.version);
            } else {
                rest &= !delivery.required;
            }
        }
        if self.losses.evictions > 0 {
            return self.check_strict(board, point, &acknowledged, rest);
        }
        for (place, key) in self.keys.iter().enumerate() {
            let entry = &self.entries[usize::from(point[place])];
            // Without a ledger a row that was deleted and inserted under other keys may still show
            // under the old ones, until its deletion has been written.
            if let Some(row) = entry.row
                && entry.version < acknowledged[usize::from(row)]
                && !instance.registers
            {
                let newest = acknowledged[usize::from(row)];
                return Err(format!("{key} shows row {row} at {}, and {newest} is acknowledged", entry.version));
            }
        }
        if rest { self.check_rest(board, point) } else { Ok(()) }
    }

    /// The same for strict readers of a store that evicts: they find nothing older than what was acknowledged,
    /// and at rest what the database holds, or nothing.
    fn check_strict(
        &self,
        board: &Board<'_>,
        point: &Point,
        acknowledged: &[Version],
        rest: bool,
    ) -> Result<(), String> {
        let instance = board.instance;
        for (place, key) in self.keys.iter().enumerate() {
            let Some((row, version)) = self.strict(board, point, place) else { continue };
            let newest = acknowledged[usize::from(row)];
            if version < newest && !instance.registers {
                return Err(format!("{key} shows row {row} at {version}, and {newest} is acknowledged"));
            }
            let truth = instance.truth[usize::from(row)];
            let stands = match place.checked_sub(usize::from(self.rows)) {
                None => truth.cell != Cell::Absent,
                Some(value) => truth.cell == Cell::Is(u8::try_from(value + 1).unwrap()),
            };
            if rest && !(stands && truth.known && truth.version == version) {
                return Err(format!("at rest {key} shows row {row} at {version}, and in the database it is {truth:?}"));
            }
        }
        Ok(())
    }

    /// I4: once every delivery has ended, the store says what the database says, or that it cannot tell.
    fn check_rest(&self, board: &Board<'_>, point: &Point) -> Result<(), String> {
        let instance = board.instance;
        let rows = usize::from(self.rows);
        let all_known = instance.truth.iter().all(|truth| truth.known) && !instance.masks_stay;
        for (place, key) in self.keys.iter().enumerate() {
            let entry = &self.entries[usize::from(point[place])];
            let owner = if place < rows {
                Some(place).filter(|row| instance.truth[*row].cell != Cell::Absent)
            } else {
                let value = u8::try_from(place - rows + 1).unwrap();
                instance.truth.iter().position(|truth| truth.cell == Cell::Is(value))
            };
            let is = (entry.row.map(usize::from), entry.version, entry.state);
            let right = match owner.map(|row| (row, instance.truth[row])) {
                // A mask of another row may hide this one: its version was given twice, or taken back.
                Some((row, truth)) if truth.known => {
                    let masked = instance.masks_stay && place >= rows && entry.state == Some(State::Unknown);
                    masked || is == (Some(row), truth.version, Some(State::Value))
                }
                // A row that is not known is shown nowhere, and no key where it was certainly last says
                // that it is gone.
                Some((row, truth)) if instance.registers => {
                    is == (Some(row), truth.version, Some(State::Value))
                        || entry.row.is_none() && entry.state != Some(State::Tombstone)
                }
                Some((row, _)) => {
                    let record = record(self.entries[usize::from(point[row])].bytes.as_ref());
                    let lists = record.live.iter().any(|listed| listed.key == *key) && entry.version <= record.version;
                    entry.row.is_none() && !((place == row || lists) && entry.state == Some(State::Tombstone))
                }
                // Once everything is known, no key is in doubt.
                None => entry.row.is_none() && !(all_known && entry.state == Some(State::Unknown)),
            };
            if !right {
                return Err(format!("at rest {key} holds {is:?}, and in the database it is {owner:?}"));
            }
            if place < rows && !instance.registers {
                let truth = instance.truth[place];
                let record = record(entry.bytes.as_ref());
                let live: Vec<Key> = record.live.iter().map(|listed| listed.key.clone()).collect();
                let wanted = if let Cell::Is(value) = truth.cell { vec![slot(value)] } else { Vec::new() };
                // A record that has come to its end says nothing wrong.
                let ended = self.losses.expiry && entry.bytes.is_none();
                let dead = owner.is_none() && truth.heard && entry.state != Some(State::Tombstone) && !ended;
                if truth.known && (!record.is_known() || live != wanted || dead) {
                    return Err(format!("at rest the record of {} is {record:?}", home(u8::try_from(place).unwrap())));
                }
                if !truth.known && record.is_known() && !ended {
                    return Err(format!("at rest {key} is believed known: {record:?}"));
                }
            }
        }
        Ok(())
    }
}

/// Whose bytes a reader of this envelope gets.
pub(super) fn shown(envelope: &Envelope) -> Option<u8> {
    if envelope.head.state != State::Value || envelope.value == Value::none() {
        return None;
    }
    let row = (0..4).find(|row| envelope.value == bytes(*row, envelope.head.version));
    assert!(row.is_some(), "bytes of another version than the head's {}", envelope.head.version);
    row
}
