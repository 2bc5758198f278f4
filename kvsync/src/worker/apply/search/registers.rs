//! Rows that never leave a key while they live: no ledger, each key by itself.

use std::collections::BTreeMap;

use super::history::{Cell, Event, histories};
use super::instance::{Delivery, Instance, Told, Truth, bytes, home, of_change, slot, unknown, version};
use super::{one_in, passes, right};
use crate::envelope::{Head, State};
use crate::key::Key;
use crate::record::register;
use crate::record::{Order, Write};
use crate::version::Version;

/// The keys of a row that is this.
fn keys(row: u8, cell: Cell) -> Vec<Key> {
    match cell {
        Cell::Absent => Vec::new(),
        Cell::Null => vec![home(row)],
        Cell::Is(value) => vec![home(row), slot(value)],
    }
}

fn puts(row: u8, cell: Cell, at: Version) -> Vec<Write> {
    let head = Head { version: at, state: State::Value, expires_at: 0 };
    let put = |key| Write { key, head, value: bytes(row, at), order: Order::Register };
    keys(row, cell).into_iter().map(put).collect()
}

fn bare(keys: impl IntoIterator<Item = Key>, at: Version, state: State) -> Vec<Write> {
    keys.into_iter().map(|key| register(key, at, state, &super::protocol::TERMS)).collect()
}

/// Histories in which no row changes its value while it lives.
fn immutable(changes: usize) -> impl Iterator<Item = Vec<Event>> {
    histories(2, 2, changes).into_iter().filter(|history| {
        let mut cells = [Cell::Absent; 2];
        history.iter().all(|event| {
            let before = std::mem::replace(&mut cells[usize::from(event.row)], event.to);
            event.part == 0 && (before == Cell::Absent || event.to == Cell::Absent || before == event.to)
        })
    })
}

/// What the worker writes for the changes of a history, each told in its way. What was kept of unknown
/// changes is returned with the instance: each key with the newest version of such a change.
fn instance(history: &[Event], told: &[Told]) -> (Instance, Vec<BTreeMap<Key, Version>>) {
    let nothing = Truth { cell: Cell::Absent, version: Version::ZERO, known: true, heard: false };
    let mut truth = vec![nothing; 2];
    let mut kept = vec![BTreeMap::new(); 2];
    let mut deliveries = Vec::new();
    for (index, (event, told)) in history.iter().zip(told).enumerate() {
        let row = usize::from(event.row);
        let at = of_change(index);
        let known = matches!(told, Told::Certain | Told::UnknownThenCertain);
        let all = if event.to == Cell::Absent { keys(event.row, truth[row].cell) } else { keys(event.row, event.to) };
        let whole = match event.to {
            Cell::Absent => bare(all.clone(), at, State::Tombstone),
            cell => puts(event.row, cell, at),
        };
        let mask = bare(all.clone(), at, State::Unknown);
        let ways = match told {
            Told::Certain => vec![whole],
            Told::Unknown | Told::UnknownGone => vec![mask],
            Told::UnknownThenCertain => vec![mask, whole],
        };
        if !known {
            kept[row].extend(all.into_iter().map(|key| (key, at)));
        }
        truth[row] = Truth { cell: event.to, version: at, known, heard: true };
        deliveries.extend(ways.into_iter().map(|writes| deliver(event.row, at, writes)));
    }
    let masks_stay = kept.iter().any(|kept| !kept.is_empty());
    (Instance { deliveries, truth, registers: true, masks_stay }, kept)
}

fn deliver(row: u8, at: Version, writes: Vec<Write>) -> Delivery {
    Delivery { row, delta: unknown(row, at), writes, required: true }
}

/// What the settler writes for a row that is read again. Keys of a commit in doubt stay masked: nobody
/// knows whether the row ever stood there, nor whether another row has taken the version since.
fn settle(instance: &mut Instance, row: u8, at: Version, kept: &BTreeMap<Key, Version>, left: State) {
    let truth = &mut instance.truth[usize::from(row)];
    (truth.version, truth.known) = (at, true);
    let mut writes = match truth.cell {
        Cell::Absent => bare([home(row)], at, State::Tombstone),
        cell => puts(row, cell, at),
    };
    for (key, version) in kept {
        if !writes.iter().any(|write| write.key == *key) {
            writes.extend(bare([key.clone()], *version, left));
        }
    }
    instance.deliveries.push(deliver(row, at, writes));
}

fn ways(changes: usize) -> Vec<Vec<Told>> {
    (0..changes).fold(vec![Vec::new()], |ways, _| {
        let kinds = [Told::Certain, Told::Unknown, Told::UnknownThenCertain];
        ways.iter().flat_map(|way: &Vec<Told>| kinds.map(|told| [way.clone(), vec![told]].concat())).collect()
    })
}

pub(super) fn all(changes: usize) -> impl Iterator<Item = Instance> {
    immutable(changes).flat_map(move |history| {
        ways(changes).into_iter().flat_map(move |way| {
            let (open, kept) = instance(&history, &way);
            let mut settled = open.clone();
            for (row, kept) in (0..).zip(&kept) {
                if !kept.is_empty() {
                    settle(&mut settled, row, version(2 * changes + 2), kept, State::Tombstone);
                }
            }
            settled.masks_stay = false;
            [open, settled]
        })
    })
}

#[test]
fn registers_end_right_without_a_ledger() {
    for changes in [1, 2] {
        passes(right(), &format!("{changes} changes without a ledger"), all(changes));
    }
    passes(right(), "3 changes without a ledger", all(3).step_by(one_in(10)));
    passes(right(), "4 changes without a ledger", all(4).step_by(one_in(200)));
}

/// Histories with a commit in doubt that did not happen, and whose version a crash took back.
fn doubtful(changes: usize, left: State) -> impl Iterator<Item = Instance> {
    immutable(changes).flat_map(move |history| {
        let (instance, _) = instance(&history, &vec![Told::Certain; changes]);
        let spots = (0..=changes).flat_map(|before| (1..=3).map(move |above| (before, version(2 * before + above))));
        let doubts = spots.flat_map(|spot| (0..2).map(move |row| (spot, row)));
        doubts
            .flat_map(|((before, at), row)| {
                // What the row was then; a row that was not there was to be inserted under any value.
                let event = history[..before].iter().rfind(|event| event.row == row);
                let cells = match event.map_or(Cell::Absent, |event| event.to) {
                    Cell::Absent => vec![Cell::Null, Cell::Is(1), Cell::Is(2)],
                    there => vec![there],
                };
                cells.into_iter().map(move |cell| (row, at, cell))
            })
            .flat_map(|(row, at, cell)| {
                let mut open = instance.clone();
                let all = keys(row, cell);
                open.deliveries.push(deliver(row, at, bare(all.clone(), at, State::Unknown)));
                let truth = &mut open.truth[usize::from(row)];
                truth.known = truth.version >= at;
                open.masks_stay = true;
                let mut settled = open.clone();
                let kept = all.into_iter().map(|key| (key, at)).collect();
                settle(&mut settled, row, version(2 * changes + 4), &kept, left);
                [open, settled]
            })
            .collect::<Vec<_>>()
    })
}

#[test]
fn registers_survive_commits_in_doubt_that_did_not_happen() {
    for changes in [1, 2] {
        let name = format!("{changes} changes without a ledger and a doubt");
        passes(right(), &name, doubtful(changes, State::Unknown));
    }
    passes(right(), "3 changes without a ledger and a doubt", doubtful(3, State::Unknown).step_by(one_in(5)));
}

#[test]
fn a_key_in_doubt_must_not_be_said_to_be_free() {
    let violation = doubtful(1, State::Tombstone).find_map(|instance| right().run(&instance).err());
    println!("settled with tombstones: {}", violation.unwrap().what);
}
