//! The model check: every interleaving of small instances, with the store's own steps and the worker's
//! own order of them.

mod history;
mod instance;
mod invariants;
mod losses;
mod machine;
mod protocol;
mod registers;

use self::history::{Cell, Event, histories};
use self::instance::{Instance, Told, certain as certain_change, slot, unknown as unknown_change, version};
use self::machine::{Search, Violation};
use self::protocol::Mutation;
use crate::record::Delta;
use crate::version::Version;

/// All histories of so many changes, every change told for certain, with so many duplicates.
fn certain(rows: u8, values: u8, changes: usize, duplicates: usize) -> impl Iterator<Item = Instance> {
    histories(rows, values, changes).into_iter().flat_map(move |history| {
        let told = vec![Told::Certain; changes];
        choices(changes, duplicates).into_iter().filter_map(move |again| Instance::new(rows, &history, &told, &again))
    })
}

/// All ways to choose so many of `of`, the same one any number of times.
fn choices(of: usize, count: usize) -> Vec<Vec<usize>> {
    (0..count).fold(vec![Vec::new()], |chosen, _| {
        let longer = |chosen: Vec<usize>| {
            let from = chosen.last().copied().unwrap_or(0);
            (from..of).map(move |next| [chosen.clone(), vec![next]].concat())
        };
        chosen.into_iter().flat_map(longer).collect()
    })
}

/// All histories of so many changes of which at least one is told as unknown, in every way; rows that
/// are not known in the end are settled or not, at the mark's version or above it.
fn unknown(rows: u8, values: u8, changes: usize, duplicates: usize) -> impl Iterator<Item = Instance> {
    histories(rows, values, changes).into_iter().flat_map(move |history| {
        let ways: Vec<Vec<Told>> = (0..changes).fold(vec![Vec::new()], |ways, _| {
            let kinds = [Told::Certain, Told::Unknown, Told::UnknownGone, Told::UnknownThenCertain];
            ways.iter().flat_map(|way| kinds.map(|told| [way.clone(), vec![told]].concat())).collect()
        });
        ways.into_iter().filter(|way| way.iter().any(|told| *told != Told::Certain)).flat_map({
            let history = history.clone();
            move |way| {
                let history = history.clone();
                let instances = choices(changes, duplicates)
                    .into_iter()
                    .filter_map(move |again| Instance::new(rows, &history, &way, &again));
                instances.flat_map(move |instance| settled(instance, version(2 * changes + 2)))
            }
        })
    })
}

/// The instance as it is, and with every row that is not known settled in one of two ways.
fn settled(instance: Instance, late: Version) -> Vec<Instance> {
    let open: Vec<u8> = (0..).zip(&instance.truth).filter(|(_, truth)| !truth.known).map(|(row, _)| row).collect();
    open.into_iter().fold(vec![instance], |instances, row| {
        let each = |instance: Instance| {
            let mark = instance.mark(row);
            [None, Some(mark), Some(late)].into_iter().map(move |at| {
                let mut instance = instance.clone();
                if let Some(at) = at {
                    instance.settle(row, at);
                }
                instance
            })
        };
        instances.into_iter().flat_map(each).collect()
    })
}

/// All histories of so many changes and a commit in doubt that did not happen, whose version was then
/// taken back by a crash: the next change has a higher, the same, or a lower one.
fn doubtful(rows: u8, values: u8, changes: usize) -> impl Iterator<Item = Instance> {
    histories(rows, values, changes).into_iter().flat_map(move |history| {
        let told = vec![Told::Certain; changes];
        let places = (0..=changes).flat_map(move |before| (1..=3).map(move |above| 2 * before + above));
        places.flat_map(move |at| {
            let history = history.clone();
            let told = told.clone();
            (0..rows).flat_map(move |row| {
                let mut instance = Instance::new(rows, &history, &told, &[]).unwrap();
                instance.doubt(row, version(at));
                settled(instance, version(2 * changes + 4))
            })
        })
    })
}

/// A part of a family where code is not optimized; all of it is searched by `cargo test --release`.
fn one_in(count: usize) -> usize {
    if cfg!(debug_assertions) { count } else { 1 }
}

fn passes(mut search: Search, name: &str, mut instances: impl Iterator<Item = Instance>) -> u64 {
    if let Err(Violation { what, trace }) = instances.try_for_each(|instance| search.run(&instance)) {
        panic!("{name}: {what}\n{}", trace.join("\n"));
    }
    println!("{name}: {} instances, {} states, no violation", search.instances, search.states);
    search.instances
}

fn right() -> Search {
    Search::new(Mutation::None, 2, 2)
}

#[test]
fn every_interleaving_of_every_history_of_four_changes_is_right() {
    assert_eq!(passes(right(), "4 changes", certain(2, 2, 4, 0)), 853);
}

#[test]
fn duplicates_that_stop_anywhere_do_no_harm() {
    for (changes, duplicates, instances) in [(1, 3, 3), (2, 2, 57), (2, 3, 76), (3, 1, 369)] {
        let name = format!("{changes} changes, {duplicates} duplicates");
        assert_eq!(passes(right(), &name, certain(2, 2, changes, duplicates)), instances);
    }
    passes(right(), "3 changes, 2 duplicates", certain(2, 2, 3, 2).step_by(one_in(4)));
    passes(right(), "4 changes, 1 duplicate", certain(2, 2, 4, 1).step_by(one_in(80)));
}

#[test]
fn a_row_that_comes_and_goes_is_right() {
    for (changes, duplicates, part) in [(4, 2, 12), (5, 1, 20), (6, 0, 12)] {
        let name = format!("1 row, {changes} changes, {duplicates} duplicates");
        passes(Search::new(Mutation::None, 1, 1), &name, certain(1, 1, changes, duplicates).step_by(one_in(part)));
    }
}

#[test]
fn whole_changes_are_right_alone_and_beside_changes_in_steps() {
    for whole in [[true, true], [true, false], [false, true]] {
        for (changes, duplicates) in [(2, 2), (3, 1), (4, 0)] {
            let name = format!("{changes} changes, {duplicates} duplicates, whole {whole:?}");
            passes(right().with_whole(whole), &name, certain(2, 2, changes, duplicates));
        }
    }
}

#[test]
fn unknown_changes_hide_what_is_older_and_are_settled() {
    for (changes, duplicates) in [(1, 0), (1, 1), (1, 2), (2, 0)] {
        let name = format!("{changes} changes with unknowns, {duplicates} duplicates");
        passes(right(), &name, unknown(2, 2, changes, duplicates));
    }
    passes(right(), "2 changes with unknowns, 1 duplicate", unknown(2, 2, 2, 1).step_by(one_in(5)));
    passes(right(), "3 changes with unknowns", unknown(2, 2, 3, 0).step_by(one_in(40)));
}

#[test]
fn commits_in_doubt_that_did_not_happen_are_survived() {
    for changes in [1, 2] {
        passes(right(), &format!("{changes} changes and a doubt"), doubtful(2, 2, changes));
    }
    passes(right(), "3 changes and a doubt", doubtful(2, 2, 3).step_by(one_in(20)));
}

/// Where each mutation falls, from small to large.
fn spaces() -> impl Iterator<Item = (u8, u8, Box<dyn Iterator<Item = Instance>>)> {
    let unknowns = (1..=2).flat_map(|changes| unknown(2, 2, changes, 0));
    let spaces: [(u8, u8, Box<dyn Iterator<Item = Instance>>); 4] = [
        (2, 2, Box::new((1..=3).flat_map(|changes| certain(2, 2, changes, 0)))),
        (2, 2, Box::new(unknowns)),
        (1, 1, Box::new(certain(1, 1, 4, 1))),
        (2, 2, Box::new(certain(2, 2, 4, 0))),
    ];
    spaces.into_iter()
}

#[test]
fn each_protocol_that_is_wrong_is_found_out() {
    for mutation in Mutation::ALL {
        let falls = spaces().find_map(|(rows, values, mut instances)| {
            let mut search = Search::new(*mutation, rows, values);
            instances.find_map(|instance| search.run(&instance).err())
        });
        let Violation { what, trace } = falls.unwrap_or_else(|| panic!("{mutation:?} passes"));
        println!("{mutation:?} falls after {} operations: {what}", trace.len());
    }
}

/// Repairs that are wrong, each as an instance whose truth they miss.
#[test]
fn each_repair_that_is_wrong_is_found_out() {
    let history = [Event { row: 0, to: Cell::Is(1), part: 0 }];
    let falls = |name: &str, instance: Instance| {
        let violation = right().run(&instance).expect_err(name);
        println!("{name}: {}", violation.what);
    };
    // A locked re-read that takes its version below the mark of a commit that a crash took back.
    let mut no_floor = Instance::new(2, &history, &[Told::Certain], &[]).unwrap();
    no_floor.doubt(0, version(6));
    no_floor.settle(0, version(5));
    falls("a settlement without a floor", no_floor);
    // An absent row that is read while the transaction that inserts it is open.
    let mut no_barrier = Instance::new(2, &history, &[Told::Certain], &[]).unwrap();
    no_barrier.deliver(0, certain_change(0, Cell::Absent, version(3)));
    falls("a settlement without waiting", no_barrier);
    // An old row that is read at a position that was taken before an open transaction wrote it.
    let moved = [history[0], Event { row: 0, to: Cell::Is(2), part: 0 }];
    let mut naive = Instance::new(2, &moved, &[Told::Certain; 2], &[]).unwrap();
    naive.deliver(0, certain_change(0, Cell::Is(1), version(5)));
    falls("the naive repair", naive);
    // Keys that a commit in doubt took, though it did not happen and its version was given again.
    let mut believed = Instance::new(2, &history, &[Told::Certain], &[]).unwrap();
    let gone = vec![(slot(1), version(4))];
    believed.deliver(0, Delta { gone, ..unknown_change(0, version(1)) });
    falls("gone in doubt", believed);
}
