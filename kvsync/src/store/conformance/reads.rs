//! Reading, and what is not there.

use std::sync::Arc;
use std::time::Duration;

use super::ground::{Checked, check, put, same, scan, stands, steps, terms, version, write};
use super::{Case, Needs};
use crate::envelope::{Envelope, State};
use crate::error::ErrorKind;
use crate::key::Key;
use crate::record::Order;
use crate::store::{Cursor, Status, Step, SyncStore};

pub(super) const CASES: &[Case] = &[
    Case::sync("what_is_not_there_is_none", Needs::Nothing, absent),
    Case::sync("answers_stand_in_the_order_asked", Needs::Nothing, ordered),
    Case::sync("no_key_asked_is_no_answer", Needs::Nothing, empty),
    Case::sync("the_epoch_only_rises", Needs::Nothing, epoch),
    Case::sync("a_fresh_store_is_healthy", Needs::Nothing, healthy),
    Case::sync("closing_twice_is_closing_once", Needs::Nothing, closed),
    Case::sync("an_outage_is_an_error_and_no_absence", Needs::Outage, outage),
];

fn absent(store: &dyn SyncStore) -> Checked {
    same!(stands(store, "nothing")?, None, "an empty store");
    same!(scan(store, "", 10)?, Vec::new(), "the keys of an empty store");
    Ok(())
}

fn ordered(store: &dyn SyncStore) -> Checked {
    let writes: Vec<Step> = (0..300)
        .map(|number| Step::Write(write(&format!("key:{number}"), version(number + 1), State::Value, Order::Slot)))
        .collect();
    steps(store, &writes, &terms())?;
    // Every third is absent, some are asked twice, and the order is not that of the keys.
    let asked: Vec<u64> = (0..450).map(|number| number * 7 % 450).chain([5, 5, 449, 0]).collect();
    let keys: Vec<Key> = asked.iter().map(|number| Key::new(format!("key:{number}"))).collect();
    let found = store.get_many(&keys).map_err(|error| error.to_string())?;
    same!(found.len(), keys.len(), "answers to {} keys", keys.len());
    for ((number, key), bytes) in asked.iter().zip(&keys).zip(found) {
        let found = bytes.map(|bytes| Envelope::parse(&bytes).map(|envelope| envelope.head.version));
        let found = found.transpose().map_err(|error| error.to_string())?;
        same!(found, (*number < 300).then(|| version(number + 1)), "the answer for {key:?}");
    }
    Ok(())
}

fn empty(store: &dyn SyncStore) -> Checked {
    same!(store.get_many(&[]).map_err(|error| error.to_string())?.len(), 0, "answers to no key");
    same!(store.execute(&[], &terms()).len(), 0, "answers to no step");
    Ok(())
}

fn epoch(store: &dyn SyncStore) -> Checked {
    let failed = |error: crate::Error| error.to_string();
    same!(store.epoch().map_err(failed)?, 0, "the first epoch");
    same!(store.raise_epoch(3).map_err(failed)?, 3, "the answer to a raise to 3");
    same!(store.epoch().map_err(failed)?, 3, "the epoch after a raise to 3");
    same!(store.raise_epoch(2).map_err(failed)?, 3, "the answer to a raise to 2 from 3");
    same!(store.raise_epoch(u32::MAX).map_err(failed)?, u32::MAX, "the answer to the highest raise");
    same!(store.epoch().map_err(failed)?, u32::MAX, "the highest epoch");
    same!(scan(store, "", 10)?, Vec::new(), "the keys of a store that holds only its epoch");
    Ok(())
}

fn healthy(store: &dyn SyncStore) -> Checked {
    let health = store.health(Duration::from_mins(1));
    check!(health.status != Status::Down, "a fresh store is down: {:?}", health.details);
    check!(!store.name().is_empty(), "the store has no name");
    let can = store.capabilities();
    check!(can.max_key >= 512, "keys of 512 bytes are too long for it");
    check!(can.max_value >= 256 * 1024, "entries of 256 KiB are too large for it");
    check!(can.max_steps >= 1, "a call carries no step");
    Ok(())
}

fn closed(store: &dyn SyncStore) -> Checked {
    steps(store, &[Step::Merge(Arc::new(put("home", 1, &[])))], &terms())?;
    store.close().map_err(|error| error.to_string())?;
    store.close().map_err(|error| format!("the second close: {error}"))?;
    // A store may go on. One that does not has to say so, and may not come back for being asked.
    for _ in 0..2 {
        let health = store.health(Duration::from_secs(10));
        match store.epoch() {
            Ok(_) => check!(health.status != Status::Down, "it answers and says: {:?}", health.details),
            Err(error) => {
                same!(error.kind(), ErrorKind::Closed, "a call after it was closed: {error}");
                same!(health.status, Status::Down, "the health of what is closed: {:?}", health.details);
            }
        }
    }
    Ok(())
}

fn outage(store: &dyn SyncStore) -> Checked {
    let keys = [Key::new("a"), Key::new("b")];
    match store.get_many(&keys) {
        Ok(answers) => return Err(format!("a store that is down answered {answers:?}")),
        Err(error) => check!(error.is_retryable(), "a retry would help, but the error says no: {error}"),
    }
    let steps = [
        Step::Write(write("a", version(1), State::Value, Order::Slot)),
        Step::Merge(Arc::new(put("home", 1, &["a"]))),
        Step::Confirm { home: Key::new("home"), released: vec![(Key::new("a"), version(1))] },
        Step::Sweep(Key::new("a")),
    ];
    let answers = store.execute(&steps, &terms());
    same!(answers.len(), steps.len(), "answers to {} steps", steps.len());
    for answer in answers {
        match answer {
            Ok(outcome) => return Err(format!("a store that is down answered {outcome:?}")),
            Err(error) => check!(error.is_retryable(), "a retry would help, but the error says no: {error}"),
        }
    }
    check!(store.scan("", None::<Cursor>, 10).is_err(), "a store that is down was scanned");
    check!(store.epoch().is_err(), "a store that is down told its epoch");
    check!(store.raise_epoch(1).is_err(), "a store that is down raised its epoch");
    same!(store.health(Duration::from_secs(1)).status, Status::Down, "the health of a store that is down");
    Ok(())
}
