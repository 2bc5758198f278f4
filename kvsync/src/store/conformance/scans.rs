//! Scanning by prefix.

use std::collections::BTreeSet;

use super::ground::{Checked, check, remove, same, scan, steps, terms, version, write};
use super::{Case, Needs};
use crate::envelope::State;
use crate::key::Key;
use crate::record::Order;
use crate::store::{Cursor, Page, Step, SyncStore};

pub(super) const CASES: &[Case] = &[
    Case::sync("a_scan_finds_every_key_with_the_prefix", Needs::Nothing, complete),
    Case::sync("a_prefix_is_text_and_no_pattern", Needs::Nothing, literal),
    Case::sync("what_is_removed_makes_a_scan_skip_nothing", Needs::Nothing, beside_removals),
    Case::sync("a_cursor_of_another_store_is_refused", Needs::Nothing, foreign),
];

fn fill(store: &dyn SyncStore, keys: &[String]) -> Checked {
    let writes: Vec<Step> =
        keys.iter().map(|key| Step::Write(write(key, version(1), State::Value, Order::Slot))).collect();
    steps(store, &writes, &terms()).map(|_| ())
}

fn complete(store: &dyn SyncStore) -> Checked {
    let inside: Vec<String> = (0..257).map(|number| format!("user:{number}")).collect();
    let outside = ["use", "user", "userx", "user;", "uses:1", "USER:1", "xuser:1", "é", ""].map(ToOwned::to_owned);
    fill(store, &[&inside[..], &outside[..]].concat())?;
    store.raise_epoch(1).map_err(|error| error.to_string())?;
    let sorted = |keys: &[&[String]]| {
        let mut keys: Vec<Key> = keys.concat().into_iter().map(Key::new).collect();
        keys.sort();
        keys
    };
    for limit in [0, 1, 2, 10, 256, 257, 258, 10_000] {
        same!(scan(store, "user:", limit)?, sorted(&[&inside]), "a scan by pages of {limit}");
    }
    same!(scan(store, "", 100)?, sorted(&[&inside, &outside]), "a scan for everything");
    same!(scan(store, "nobody:", 100)?, Vec::new(), "a scan for nothing");
    same!(scan(store, "user:256", 1)?, [Key::new("user:256")], "a scan for a whole key");
    Ok(())
}

fn literal(store: &dyn SyncStore) -> Checked {
    let prefixes =
        ["a*", "a?", "a[b]", "a[^b]", "a[a-z]", "a\\", "a\\*", "a{b}", "a%", "a_", "a.", "a ", "a\0", "a\n", "ä"];
    let keys: Vec<String> = prefixes
        .iter()
        .map(|prefix| format!("{prefix}:1"))
        // What the prefixes would also find if they were patterns.
        .chain(["ab:1", "axyz:1", "ac:1", "a:1", "a/:1", "a-:1", "abc", "ä:2", "a\u{308}:1"].map(ToOwned::to_owned))
        .collect();
    fill(store, &keys)?;
    for prefix in prefixes {
        let mut wanted: Vec<Key> =
            keys.iter().filter(|key| key.starts_with(prefix)).map(|key| Key::new(key.as_str())).collect();
        wanted.sort();
        wanted.dedup();
        check!(!wanted.is_empty(), "nothing to find");
        same!(scan(store, prefix, 3)?, wanted, "a scan for {prefix:?}");
    }
    Ok(())
}

fn beside_removals(store: &dyn SyncStore) -> Checked {
    let (stay, go): (Vec<_>, Vec<_>) =
        (0..60).map(|number| (format!("k:{number}:stays"), format!("k:{number}"))).unzip();
    fill(store, &[&stay[..], &go[..]].concat())?;
    let (mut found, mut cursor) = (BTreeSet::new(), None);
    for page in 0.. {
        check!(page < 10_000, "the scan never ended");
        let Page { keys, next } = store.scan("k:", cursor, 7).map_err(|error| error.to_string())?;
        // What has been found goes, so that what is yet to be found moves up.
        for key in keys {
            if !key.as_str().ends_with("stays") && !found.contains(&key) {
                remove(store, key.as_str(), &terms())?;
            }
            found.insert(key);
        }
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    let missing = stay.iter().find(|key| !found.contains(&Key::new(key.as_str())));
    same!(missing, None, "a key that stood all along and was not found");
    Ok(())
}

fn foreign(store: &dyn SyncStore) -> Checked {
    fill(store, &["a:1".to_owned(), "a:2".to_owned(), "b:1".to_owned()])?;
    let answer = store.scan("a:", Some(Cursor(vec![0xff, 0xfe, 0x00, 0x80])), 10);
    check!(answer.is_err(), "a cursor that this store never gave was taken: {answer:?}");
    Ok(())
}
