//! Any split of a history into batches, over several workers, ends in the same store.

use std::collections::BTreeMap;

use kvsync::change::{Change, Row};
use proptest::prelude::*;

use crate::rig::*;

/// What one statement does to a row of its table.
#[derive(Debug, Clone)]
enum Did {
    Put { id: i32, email: u8, name: u8 },
    Delete { id: i32 },
    Doubt { id: i32 },
    Session { id: i32 },
    EndSession { id: i32 },
}

fn did() -> impl Strategy<Value = Did> {
    prop_oneof![
        5 => (0..3, 0..4_u8, 0..3_u8).prop_map(|(id, email, name)| Did::Put { id, email, name }),
        2 => (0..3).prop_map(|id| Did::Delete { id }),
        1 => (0..3).prop_map(|id| Did::Doubt { id }),
        2 => (0..2).prop_map(|id| Did::Session { id }),
        1 => (0..2).prop_map(|id| Did::EndSession { id }),
    ]
}

/// The changes of a history in which no two rows have an email at once, as a unique index sees to it.
fn history(did: &[Did]) -> Vec<Change> {
    let mut rows: BTreeMap<i32, User> = BTreeMap::new();
    let mut sessions: BTreeMap<i32, Session> = BTreeMap::new();
    let mut changes = Vec::new();
    for (index, did) in did.iter().enumerate() {
        let version = u64::try_from(index).unwrap() + 1;
        match did {
            Did::Put { id, email, name } => {
                let row =
                    user(*id, ["", "a@x", "b@x", "c@x"][usize::from(*email)], ["x", "y", "z"][usize::from(*name)]);
                if row.email.is_none() || rows.values().all(|other| other.id == *id || other.email != row.email) {
                    rows.insert(*id, row.clone());
                    changes.push(put(version, row));
                }
            }
            Did::Delete { id } => changes.extend(rows.remove(id).map(|row| delete(version, row))),
            Did::Doubt { id } => changes.push(in_doubt(version, &user(*id, "", ""))),
            Did::Session { id } => {
                let row = Session { id: *id, token: format!("t{id}") };
                sessions.insert(*id, row.clone());
                changes.push(put(version, row));
            }
            Did::EndSession { id } => changes.extend(sessions.remove(id).map(|row| delete(version, row))),
        }
    }
    changes
}

fn copy(change: &Change) -> Change {
    let row = match &change.row {
        Row::Live(row) => {
            return if let Some(row) = row.downcast_ref::<User>() {
                put(change.version.sequence(), row.clone())
            } else {
                put(change.version.sequence(), row.downcast_ref::<Session>().unwrap().clone())
            };
        }
        Row::Deleted { row, .. } => {
            return if let Some(row) = row.downcast_ref::<User>() {
                delete(change.version.sequence(), row.clone())
            } else {
                delete(change.version.sequence(), row.downcast_ref::<Session>().unwrap().clone())
            };
        }
        Row::Unknown(unknown) => unknown.clone(),
        Row::Hidden(_) | Row::Absent(_) => unreachable!(),
    };
    change_of(change, row)
}

fn change_of(of: &Change, unknown: kvsync::change::Unknown) -> Change {
    change::<User>(of.version.sequence(), Row::Unknown(unknown))
}

/// What readers see after these batches.
fn end(
    batches: Vec<Vec<Change>>,
    whole: bool,
    workers: usize,
    database: &BTreeMap<i32, User>,
) -> Vec<(String, String)> {
    let rig = Rig::with(TestStore::new(whole), |config| {
        config.workers = workers;
        config.on_report = None;
    });
    for row in database.values() {
        rig.database.insert(row.clone());
    }
    for batch in batches {
        rig.publish(batch);
    }
    rig.flush();
    let mut seen = Vec::new();
    for key in ["user:id:0", "user:id:1", "user:id:2", "user:email:a@x", "user:email:b@x", "user:email:c@x"] {
        seen.push((key.to_owned(), format!("{:?}", rig.store.get::<User>(key))));
    }
    for key in ["session:id:0", "session:id:1", "session:token:t0", "session:token:t1"] {
        seen.push((key.to_owned(), format!("{:?}", rig.store.get::<Session>(key))));
    }
    seen
}

/// What the database says is there.
fn truth(changes: &[Change]) -> BTreeMap<i32, User> {
    let mut rows = BTreeMap::new();
    for change in changes {
        match &change.row {
            Row::Live(row) => {
                if let Some(row) = row.downcast_ref::<User>() {
                    rows.insert(row.id, row.clone());
                }
            }
            Row::Deleted { row, .. } => {
                if let Some(row) = row.downcast_ref::<User>() {
                    rows.remove(&row.id);
                }
            }
            _ => {}
        }
    }
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_split_ends_in_the_same_store(
        did in prop::collection::vec(did(), 1..14),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        order in any::<u64>(),
        twice in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        whole in any::<bool>(),
        workers in 1..4_usize,
    ) {
        let changes = history(&did);
        let database = truth(&changes);
        let one_by_one = changes.iter().map(|change| vec![copy(change)]).collect();
        let expected = end(one_by_one, whole, 1, &database);

        // What the database says is what readers see.
        for row in database.values() {
            prop_assert_eq!(&expected[usize::try_from(row.id).unwrap()].1, &format!("{:?}", Some(row)));
        }

        let mut pieces: Vec<Change> = changes.iter().map(copy).collect();
        for index in twice.iter().filter(|_| !changes.is_empty()) {
            pieces.push(copy(index.get(&changes)));
        }
        shuffle(&mut pieces, order);
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(pieces.len() + 1)).collect();
        places.sort_unstable();
        let mut batches = Vec::new();
        for place in places.into_iter().rev() {
            batches.push(pieces.split_off(place.min(pieces.len())));
        }
        batches.push(pieces);
        prop_assert_eq!(end(batches, whole, workers, &database), expected);
    }
}

fn shuffle(changes: &mut [Change], mut seed: u64) {
    for index in (1..changes.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let other = usize::try_from(seed >> 33).unwrap() % (index + 1);
        changes.swap(index, other);
    }
}
