//! Entries come to their end, or are evicted.

use super::instance::Instance;
use super::machine::{Board, EVICTIONS, Entry, Point, Search, Todo, Violation};
use super::protocol::Op;
use super::{certain, doubtful, one_in, passes, registers, right, unknown};
use crate::envelope::State;
use crate::record::Record;
use crate::version::Version;

/// What a store loses beside what it is told to remove.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Losses {
    /// Entries that have an end are gone as early as the terms allow: tombstones and masks of slots once no
    /// worker is left between a merge and a write that they refuse (W), the records of dead rows once every
    /// delivery as old as they are has ended (D).
    pub(super) expiry: bool,
    /// So many entries are evicted, whatever they are. Readers are strict then.
    pub(super) evictions: u16,
    /// A rule that is broken.
    pub(super) broken: Option<Broken>,
}

/// Rules that stores and readers have to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// Tombstones and masks end while workers are on their way to them.
    W,
    /// Records of dead rows end while older deliveries are on their way.
    D,
    /// Records are evicted while older changes are still to come.
    Late,
    /// Readers believe a slot without asking the record.
    Strict,
}

impl Search {
    /// Whether what stands there has an end that may have come.
    pub(super) fn may_expire(&self, board: &Board<'_>, point: &Point, place: usize) -> bool {
        let entry = self.at(point, place);
        if !self.losses.expiry || entry.bytes.is_none() {
            return false;
        }
        match &entry.record {
            None if matches!(entry.state, Some(State::Tombstone | State::Unknown)) => {
                // Registers guard for themselves, so they are kept for D.
                self.breaks(Broken::W) || !self.is_awaited(board, point, place) && !board.instance.registers
            }
            Some(record) if !record.alive => {
                self.breaks(Broken::D) || !self.is_under_way(board, point, place, |todo| !todo.phases.is_empty())
            }
            _ => false,
        }
    }

    /// Whether what stands there may be evicted: a change as old as it is must not come after it.
    pub(super) fn may_evict(&self, board: &Board<'_>, point: &Point, place: usize) -> bool {
        let entry = self.at(point, place);
        if point[EVICTIONS] == 0 || entry.bytes.is_none() {
            return false;
        }
        if self.breaks(Broken::Late) {
            return true;
        }
        if board.instance.registers {
            return !self.is_awaited(board, point, place);
        }
        place >= usize::from(self.rows) || !self.is_under_way(board, point, place, |todo| todo.unmerged)
    }

    /// Whether a worker has a write left that what stands there refuses.
    fn is_awaited(&self, board: &Board<'_>, point: &Point, place: usize) -> bool {
        let version = self.at(point, place).version;
        let refuses = |op: &u16| {
            matches!(&self.ops[usize::from(*op)], Op::Write(write) if write.head.version <= version)
                && self.places[usize::from(*op)] == place
        };
        let workers = &point[board.first..board.first + board.instance.deliveries.len()];
        workers.iter().any(|todo| self.todos[usize::from(*todo)].phases.iter().flatten().any(refuses))
    }

    /// Whether a change of the row that is no newer than the record there is in this state.
    fn is_under_way(&self, board: &Board<'_>, point: &Point, place: usize, state: impl Fn(&Todo) -> bool) -> bool {
        let newest =
            self.at(point, place).record.as_ref().map_or(Version::ZERO, |record| record.version.max(record.mark));
        board.instance.deliveries.iter().enumerate().any(|(worker, delivery)| {
            usize::from(delivery.row) == place
                && delivery.delta.version <= newest
                && state(&self.todos[usize::from(point[board.first + worker])])
        })
    }

    fn breaks(&self, rule: Broken) -> bool {
        self.losses.broken == Some(rule)
    }

    fn at(&self, point: &Point, place: usize) -> &Entry {
        &self.entries[usize::from(point[place])]
    }

    /// What a strict reader of a key finds: whose row, and at which version.
    pub(super) fn strict(&self, board: &Board<'_>, point: &Point, place: usize) -> Option<(u8, Version)> {
        let entry = self.at(point, place);
        let row = entry.row?;
        if place < usize::from(self.rows) || board.instance.registers || self.breaks(Broken::Strict) {
            return Some((row, entry.version));
        }
        let home = self.at(point, usize::from(row));
        let lists = |record: &Record| record.live.iter().any(|listed| listed.key == self.keys[place]);
        (home.row == Some(row) && home.record.as_deref().is_some_and(lists)).then_some((row, home.version))
    }
}

const EXPIRY: Losses = Losses { expiry: true, evictions: 0, broken: None };

fn evicting(evictions: u16) -> Search {
    right().with_losses(Losses { evictions, ..Losses::default() })
}

#[test]
fn entries_may_end_by_the_rules_of_w_and_d() {
    let ending = || right().with_losses(EXPIRY);
    passes(ending(), "4 changes, entries end", certain(2, 2, 4, 0).step_by(one_in(8)));
    passes(ending(), "3 changes, 1 duplicate, entries end", certain(2, 2, 3, 1).step_by(one_in(8)));
    passes(ending(), "2 changes, 2 duplicates, entries end", certain(2, 2, 2, 2).step_by(one_in(2)));
    passes(ending(), "2 changes with unknowns, entries end", unknown(2, 2, 2, 0));
    passes(ending(), "2 changes with unknowns, 1 duplicate, entries end", unknown(2, 2, 2, 1).step_by(one_in(40)));
    passes(ending(), "3 changes with unknowns, entries end", unknown(2, 2, 3, 0).step_by(one_in(160)));
    passes(ending(), "2 changes and a doubt, entries end", doubtful(2, 2, 2).step_by(one_in(4)));
}

#[test]
fn strict_readers_survive_two_evictions_of_anything() {
    passes(evicting(2), "2 changes, 1 duplicate, 2 evictions", certain(2, 2, 2, 1));
    passes(evicting(2), "3 changes, 2 evictions", certain(2, 2, 3, 0));
    passes(evicting(2), "3 changes, 1 duplicate, 2 evictions", certain(2, 2, 3, 1).step_by(one_in(40)));
    passes(evicting(2), "4 changes, 2 evictions", certain(2, 2, 4, 0).step_by(one_in(60)));
    passes(evicting(2), "1 change with unknowns, 2 evictions", unknown(2, 2, 1, 1));
    passes(evicting(2), "2 changes with unknowns, 2 evictions", unknown(2, 2, 2, 0).step_by(one_in(4)));
    passes(evicting(2), "1 change and a doubt, 2 evictions", doubtful(2, 2, 1));
    passes(evicting(1), "3 changes with unknowns, 1 eviction", unknown(2, 2, 3, 0).step_by(one_in(200)));
    passes(evicting(2), "3 changes without a ledger, 2 evictions", registers::all(3).step_by(one_in(20)));
    let both = right().with_losses(Losses { evictions: 1, ..EXPIRY });
    passes(both, "3 changes, 1 duplicate, entries end, 1 eviction", certain(2, 2, 3, 1).step_by(one_in(40)));
}

/// What is lost too early, and readers that believe too much, are found out.
#[test]
fn each_loss_that_is_too_early_is_found_out() {
    let falls = |name: &str, losses: Losses, mut instances: Box<dyn Iterator<Item = Instance>>| {
        let mut search = right().with_losses(losses);
        let Violation { what, trace } =
            instances.find_map(|instance| search.run(&instance).err()).unwrap_or_else(|| panic!("{name} passes"));
        println!("{name} falls after {} operations: {what}", trace.len());
    };
    falls(
        "a tombstone that ends before W",
        Losses { broken: Some(Broken::W), ..EXPIRY },
        Box::new(certain(2, 2, 3, 0)),
    );
    falls("a mask that ends before W", Losses { broken: Some(Broken::W), ..EXPIRY }, Box::new(unknown(2, 2, 2, 0)));
    falls("a record that ends before D", Losses { broken: Some(Broken::D), ..EXPIRY }, Box::new(certain(2, 2, 2, 0)));
    let evicted = Losses { evictions: 1, ..Losses::default() };
    falls("a slot that is believed", Losses { broken: Some(Broken::Strict), ..evicted }, Box::new(certain(2, 2, 3, 0)));
    falls(
        "a record that goes before an older change",
        Losses { broken: Some(Broken::Late), ..evicted },
        Box::new(certain(2, 2, 2, 0)),
    );
    falls(
        "an entry without a ledger that does",
        Losses { broken: Some(Broken::Late), ..evicted },
        Box::new(registers::all(2)),
    );
}
