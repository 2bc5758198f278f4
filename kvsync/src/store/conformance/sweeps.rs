//! What has expired, and what a repair takes away.

use std::time::{Duration, Instant};

use super::ground::{
    Checked, ORDERS, change, check, delete, entry, listed, merge, put, same, stands, step, steps, terms, value,
    version, write,
};
use super::{Case, Needs};
use crate::envelope::State;
use crate::key::Key;
use crate::record::{Content, Order, Terms};
use crate::store::{Outcome, Step, SyncStore};

pub(super) const CASES: &[Case] = &[
    Case::sync("a_sweep_takes_what_has_expired_and_no_more", Needs::Sweeping, swept),
    Case::sync("a_sweep_takes_a_record_when_nothing_late_can_come", Needs::Sweeping, records),
    Case::sync("a_sweep_takes_nothing_that_stands", Needs::Nothing, harmless),
    Case::sync("a_removal_takes_exactly_what_it_names", Needs::Nothing, removed),
    Case::sync("what_has_expired_goes_by_itself", Needs::Expiry, expired),
    Case::sync("a_record_outlives_its_row", Needs::Expiry, outlives),
];

fn sweep(store: &dyn SyncStore, key: &str, terms: &Terms) -> Checked<bool> {
    same!(step(store, Step::Sweep(Key::new(key)), terms)?, Outcome::Done, "a sweep of {key}");
    Ok(entry(store, key)?.is_some())
}

fn swept(store: &dyn SyncStore) -> Checked {
    let terms = terms();
    for state in super::ground::STATES {
        let key = format!("{state:?}");
        let mut ending = write(&key, version(1), state, Order::Slot);
        ending.head.expires_at = terms.now + 1_000;
        step(store, Step::Write(ending), &terms)?;
        check!(sweep(store, &key, &Terms { now: terms.now + 999, ..terms })?, "{key} was swept before its end");
        check!(!sweep(store, &key, &Terms { now: terms.now + 1_000, ..terms })?, "{key} was not swept at its end");
        // An older change that comes now finds nothing in its way, as where a store expires by itself.
        let older = write(&key, version(0), state, Order::Slot);
        same!(step(store, Step::Write(older), &terms)?, Outcome::Written, "a write where something was swept");
        check!(sweep(store, &key, &Terms { now: u64::MAX, ..terms })?, "{key} has no end and was swept");
    }
    check!(!sweep(store, "nothing", &terms)?, "a sweep of nothing made something");
    Ok(())
}

fn records(store: &dyn SyncStore) -> Checked {
    let terms = terms();
    let later = |by| Terms { now: terms.now + by, ..terms };
    let end = terms.now + 1_000;
    merge(store, &put("for ever", 2, &["a"]), &terms)?;
    check!(sweep(store, "for ever", &Terms { now: u64::MAX - 1, ..terms })?, "a record without an end was swept");
    merge(store, &delete("dead", 2, &[]), &terms)?;
    check!(sweep(store, "dead", &later(terms.dead - 1))?, "a dead record was swept before D");
    check!(!sweep(store, "dead", &later(terms.dead))?, "a dead record was not swept after D");
    let ending = Content::Put { value: value("it ends"), expires_at: end, keys: vec![listed("a")] };
    merge(store, &change("ending", 2, ending), &terms)?;
    check!(sweep(store, "ending", &later(1_000 + terms.dead - 1))?, "a record was swept while a change may be late");
    check!(!sweep(store, "ending", &later(1_000 + terms.dead))?, "a record was not swept when it may be");
    merge(store, &change("marked", 2, Content::Unknown), &terms)?;
    check!(sweep(store, "marked", &later(terms.dead - 1))?, "a marked record was swept before D");
    check!(!sweep(store, "marked", &later(terms.dead))?, "a marked record was not swept after D");
    Ok(())
}

fn harmless(store: &dyn SyncStore) -> Checked {
    let terms = terms();
    step(store, Step::Write(write("slot", version(1), State::Value, Order::Slot)), &terms)?;
    merge(store, &put("home", 1, &["slot"]), &terms)?;
    for key in ["slot", "home"] {
        check!(sweep(store, key, &terms)?, "{key} has no end and was swept");
    }
    check!(!sweep(store, "nothing", &terms)?, "a sweep of nothing made something");
    Ok(())
}

fn removed(store: &dyn SyncStore) -> Checked {
    let terms = terms();
    let bytes = |key: &str| -> Checked<_> {
        let found = store.get_many(&[Key::new(key)]).map_err(|error| format!("reading `{key}` failed: {error}"))?;
        found.into_iter().next().flatten().ok_or_else(|| format!("nothing stands under {key}"))
    };
    let remove = |key: &str, stands| step(store, Step::Remove { key: Key::new(key), stands }, &terms);
    for order in ORDERS {
        step(store, Step::Write(write("slot", version(1), State::Value, order)), &terms)?;
        let older = bytes("slot")?;
        step(store, Step::Write(write("slot", version(2), State::Value, order)), &terms)?;
        same!(remove("slot", older)?, Outcome::Done, "the removal of what does not stand any more");
        let stands = bytes("slot")?;
        same!(remove("another", stands.clone())?, Outcome::Done, "the removal of what stands elsewhere");
        same!(bytes("slot")?, stands, "what stands after removals that name something else");
        same!(remove("slot", stands)?, Outcome::Done, "a removal");
        check!(entry(store, "slot")?.is_none(), "what a removal named still stands");
    }
    // What was removed is in nobody's way.
    merge(store, &put("home", 2, &["slot"]), &terms)?;
    remove("home", bytes("home")?)?;
    let (superseded, record) = merge(store, &put("home", 1, &[]), &terms)?;
    check!(!superseded && record.version == version(1), "a change over a record that was removed is refused");
    Ok(())
}

/// Waits until nothing stands under a key.
fn until_gone(store: &dyn SyncStore, key: &str) -> Checked {
    let deadline = Instant::now() + Duration::from_mins(2);
    while stands(store, key)?.is_some() {
        check!(Instant::now() < deadline, "{key} has expired and still stands after two minutes");
        // Its clock cannot be moved; the question itself takes time.
        std::thread::yield_now();
    }
    Ok(())
}

fn expired(store: &dyn SyncStore) -> Checked {
    let terms = terms();
    let ending = |key: &str, state| {
        let mut write = write(key, version(4), state, Order::Slot);
        write.head.expires_at = terms.now + 300;
        Step::Write(write)
    };
    let writes = [
        ending("value", State::Value),
        ending("mask", State::Unknown),
        ending("tombstone", State::Tombstone),
        ending("longer", State::Value),
        ending("shorter", State::Value),
    ];
    steps(store, &writes, &terms)?;
    // A newer entry has its own end, and a refused one changes none.
    step(store, Step::Write(write("longer", version(5), State::Value, Order::Slot)), &terms)?;
    step(store, Step::Write(write("shorter", version(3), State::Value, Order::Slot)), &terms)?;
    for key in ["value", "mask", "tombstone", "shorter"] {
        until_gone(store, key)?;
    }
    same!(
        stands(store, "longer")?.map(|(at, ..)| at),
        Some(version(5)),
        "an entry that was replaced by one without end"
    );
    Ok(())
}

fn outlives(store: &dyn SyncStore) -> Checked {
    let terms = terms();
    let ending = Content::Put { value: value("it ends"), expires_at: terms.now + 200, keys: vec![] };
    merge(store, &change("home", 4, ending), &terms)?;
    let short = Terms { dead: 400, left: 100, ..terms };
    merge(store, &delete("dead", 4, &[]), &short)?;
    until_gone(store, "dead")?;
    same!(stands(store, "home")?.map(|(at, ..)| at), Some(version(4)), "the record of a row that has ended");
    let (superseded, _) = merge(store, &put("home", 2, &[]), &terms)?;
    check!(superseded, "a late change was taken after its row had ended");
    Ok(())
}
