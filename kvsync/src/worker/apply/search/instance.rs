//! What is delivered of a history, and what has to be in the store afterwards.

use super::history::{Cell, Event};
use crate::envelope::Value;
use crate::key::Key;
use crate::record::{Content, Delta, Listed, Write};
use crate::version::Version;

/// Deliveries, and the truth that they are about.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    pub(super) deliveries: Vec<Delivery>,
    /// What each row is in the database in the end.
    pub(super) truth: Vec<Truth>,
    /// Whether no key has a ledger, because no row leaves one while it lives.
    pub(super) registers: bool,
    /// Whether a mask may be left under a key though the row it hid is known again.
    pub(super) masks_stay: bool,
}

/// One change on its way into the store.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub(super) row: u8,
    pub(super) delta: Delta,
    /// What is written in place of a merge, where there is no ledger.
    pub(super) writes: Vec<Write>,
    /// Whether it ends in any case. A duplicate may stop anywhere, and go on at any time.
    pub(super) required: bool,
}

/// What a row is in the end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Truth {
    pub(super) cell: Cell,
    pub(super) version: Version,
    /// Whether the store was told.
    pub(super) known: bool,
    /// Whether anything was ever delivered of the row.
    pub(super) heard: bool,
}

/// What the store is told of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// Everything.
    Certain,
    /// That it happened.
    Unknown,
    /// That it happened, and what it certainly took from the row.
    UnknownGone,
    /// That it happened; later everything.
    UnknownThenCertain,
}

/// Versions of changes are even, so that there is room between them.
pub(super) fn version(number: usize) -> Version {
    Version::new(0, 1, u64::try_from(number).unwrap())
}

pub(super) fn of_change(index: usize) -> Version {
    version(2 * index + 2)
}

pub(super) fn home(row: u8) -> Key {
    Key::new(format!("row:{row}"))
}

pub(super) fn slot(value: u8) -> Key {
    Key::new(format!("value:{value}"))
}

/// Bytes that say whose they are, and from when.
pub(super) fn bytes(row: u8, version: Version) -> Value {
    Value::model(1, &[], format!("{row}:{}", version.sequence()).as_bytes())
}

/// The change that makes a row what it is, at this version.
pub(super) fn certain(row: u8, to: Cell, version: Version) -> Delta {
    let put = |keys| Content::Put { value: bytes(row, version), expires_at: 0, keys };
    let content = match to {
        Cell::Absent => Content::Delete,
        Cell::Null => put(Vec::new()),
        Cell::Is(value) => put(vec![Listed { key: slot(value), pointer: false }]),
    };
    Delta { home: home(row), version, content, gone: Vec::new() }
}

pub(super) fn unknown(row: u8, version: Version) -> Delta {
    Delta { home: home(row), version, content: Content::Unknown, gone: Vec::new() }
}

impl Instance {
    /// A history of which each change is told in its way. `duplicates` names changes that are delivered
    /// once more. `None` where something is to be told as gone that is not.
    pub(super) fn new(rows: u8, history: &[Event], told: &[Told], duplicates: &[usize]) -> Option<Self> {
        let nothing = Truth { cell: Cell::Absent, version: Version::ZERO, known: true, heard: false };
        let mut truth = vec![nothing; rows.into()];
        let mut deliveries = Vec::new();
        for (index, (event, told)) in history.iter().zip(told).enumerate() {
            let row = &mut truth[usize::from(event.row)];
            let mut whole = certain(event.row, event.to, of_change(index));
            if let (Cell::Absent, Cell::Is(value)) = (event.to, row.cell) {
                // What DELETE .. RETURNING told, at the version of that statement. In a transaction it
                // comes before another row takes the value.
                let left =
                    version(if event.part == 2 { 2 * index - 1 } else { 2 * index + 2 - usize::from(event.part) });
                whole.gone.push((slot(value), left));
            }
            if *told == Told::UnknownGone && whole.gone.is_empty() {
                return None;
            }
            let bare = unknown(event.row, whole.version);
            let gone = Delta { gone: whole.gone.clone(), ..bare.clone() };
            *row = Truth {
                cell: event.to,
                version: whole.version,
                known: matches!(told, Told::Certain | Told::UnknownThenCertain),
                heard: true,
            };
            let ways = match told {
                Told::Certain => vec![whole],
                Told::Unknown => vec![bare],
                Told::UnknownGone => vec![gone],
                Told::UnknownThenCertain => vec![bare, whole],
            };
            for delta in ways {
                let delivery = Delivery { row: event.row, delta, writes: Vec::new(), required: true };
                let again = duplicates.iter().filter(|duplicate| **duplicate == index).count();
                deliveries.extend(std::iter::repeat_n(Delivery { required: false, ..delivery.clone() }, again));
                deliveries.push(delivery);
            }
        }
        Some(Self { deliveries, truth, registers: false, masks_stay: false })
    }

    /// A commit in doubt that did not happen: the store is told that the row is unknown at `version`.
    pub(super) fn doubt(&mut self, row: u8, version: Version) {
        self.deliver(row, unknown(row, version));
        let truth = &mut self.truth[usize::from(row)];
        truth.known &= truth.version >= version;
        truth.heard = true;
    }

    /// One more delivery that changes nothing in the database.
    pub(super) fn deliver(&mut self, row: u8, delta: Delta) {
        self.deliveries.push(Delivery { row, delta, writes: Vec::new(), required: true });
    }

    /// The row is read again in the end, and written at this version, which is no lower than the mark.
    pub(super) fn settle(&mut self, row: u8, version: Version) {
        let truth = &mut self.truth[usize::from(row)];
        let delta = certain(row, truth.cell, version);
        *truth = Truth { version, known: true, heard: true, ..*truth };
        self.deliver(row, delta);
    }

    /// The highest version at which the row was told as unknown.
    pub(super) fn mark(&self, row: u8) -> Version {
        let unknown = |delivery: &&Delivery| delivery.row == row && delivery.delta.content == Content::Unknown;
        self.deliveries.iter().filter(unknown).map(|delivery| delivery.delta.version).max().unwrap_or_default()
    }
}
