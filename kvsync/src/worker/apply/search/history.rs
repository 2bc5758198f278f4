//! Histories of a small table: rows with one unique nullable column, and what was written to them.

use std::collections::BTreeSet;

/// What a row is after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Cell {
    Absent,
    Null,
    /// One of the values of the column.
    Is(u8),
}

/// One change, as a committed transaction left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Event {
    pub(super) row: u8,
    pub(super) to: Cell,
    /// 0: a transaction of its own. 1, 2: the first and the second version of a transaction in which a
    /// row takes the value that another row leaves.
    pub(super) part: u8,
}

/// All histories of exactly this many changes, up to an exchange of rows.
///
/// A change inserts a row, touches it, moves it to NULL or to a value that is free, or deletes it. Two
/// changes are also one transaction in which a row takes the value of another, which goes wherever it
/// can, also to the first one's old value (a swap); their versions have both orders, since the leaving
/// row may be written once more after the other has taken its value.
pub(super) fn histories(rows: u8, values: u8, changes: usize) -> Vec<Vec<Event>> {
    let mut found = BTreeSet::new();
    extend(&mut vec![Cell::Absent; rows.into()], values, changes, &mut Vec::new(), &mut found);
    found.into_iter().collect()
}

fn extend(cells: &mut Vec<Cell>, values: u8, left: usize, so_far: &mut Vec<Event>, found: &mut BTreeSet<Vec<Event>>) {
    if left == 0 {
        found.insert(canonical(so_far, cells.len()));
        return;
    }
    let rows = u8::try_from(cells.len()).unwrap();
    let is_free = |cells: &[Cell], value: u8| !cells.contains(&Cell::Is(value));
    for row in 0..rows {
        let now = cells[usize::from(row)];
        let mut next: BTreeSet<Cell> = (1..=values).filter(|value| is_free(cells, *value)).map(Cell::Is).collect();
        next.insert(Cell::Null);
        if now != Cell::Absent {
            next.extend([now, Cell::Absent]);
        }
        for to in next {
            step(cells, values, left, so_far, found, &[Event { row, to, part: 0 }]);
        }
    }
    if left < 2 {
        return;
    }
    for taker in 0..rows {
        for leaver in (0..rows).filter(|leaver| *leaver != taker) {
            let (old, taken) = (cells[usize::from(taker)], cells[usize::from(leaver)]);
            if old == Cell::Absent || !matches!(taken, Cell::Is(_)) {
                continue;
            }
            let mut next = vec![Cell::Absent, Cell::Null];
            next.extend((1..=values).filter(|value| is_free(cells, *value)).map(Cell::Is));
            next.extend(matches!(old, Cell::Is(_)).then_some(old));
            for to in next {
                let (one, other) = ((taker, taken), (leaver, to));
                for ((first, first_to), (second, second_to)) in [(one, other), (other, one)] {
                    let events =
                        [Event { row: first, to: first_to, part: 1 }, Event { row: second, to: second_to, part: 2 }];
                    step(cells, values, left, so_far, found, &events);
                }
            }
        }
    }
}

fn step(
    cells: &mut Vec<Cell>,
    values: u8,
    left: usize,
    so_far: &mut Vec<Event>,
    found: &mut BTreeSet<Vec<Event>>,
    events: &[Event],
) {
    let before = cells.clone();
    for event in events {
        cells[usize::from(event.row)] = event.to;
        so_far.push(*event);
    }
    extend(cells, values, left - events.len(), so_far, found);
    so_far.truncate(so_far.len() - events.len());
    *cells = before;
}

/// The least of the histories that differ from this one by the names of rows.
fn canonical(history: &[Event], rows: usize) -> Vec<Event> {
    let mut names: Vec<u8> = (0..u8::try_from(rows).unwrap()).collect();
    let mut least = history.to_vec();
    permute(&mut names, 0, &mut |names| {
        let renamed = history.iter().map(|event| Event { row: names[usize::from(event.row)], ..*event });
        least = least.clone().min(renamed.collect());
    });
    least
}

fn permute(names: &mut [u8], from: usize, visit: &mut dyn FnMut(&[u8])) {
    if from == names.len() {
        visit(names);
    }
    for other in from..names.len() {
        names.swap(from, other);
        permute(names, from + 1, visit);
        names.swap(from, other);
    }
}

#[test]
fn there_are_as_many_histories_as_the_protocol_was_checked_on() {
    assert_eq!([1, 2, 3, 4].map(|changes| histories(2, 2, changes).len()), [3, 19, 123, 853]);
    assert_eq!(histories(3, 3, 4).len(), 3_350);
}
