//! What holds between the two contracts of one store.

use super::Case;
use super::data::ok;
use super::ground::{Checked, put, same, scan, stands, step, terms, version, write};
use crate::envelope::State;
use crate::key::Key;
use crate::record::Order;
use crate::store::data::{DataCommands, DataStore};
use crate::store::{Step, SyncStore};

pub(super) const CASES: &[Case] = &[Case::both("neither_contract_sees_what_the_other_wrote", apart)];

/// Keys of rows.
const ROWS: [&str; 4] = ["user:1", "user:uuid:a", "~hidden:1", "x"];
/// Keys of data: those of rows, and what a store may have made of them or keep for itself.
const DATA: [&str; 12] = [
    "user:1",
    "user:uuid:a",
    "~hidden:1",
    "x",
    "",
    "=x",
    "!epoch",
    "!scores:=x",
    "!values:=x",
    "data:x",
    "row:x",
    "x\0values",
];

fn apart(rows: &dyn SyncStore, data: &dyn DataStore) -> Checked {
    let value = |key: &str| format!("data of {key}");
    let set = |key: &str| ok(data.set(key, value(key)), "a set");
    let got = |key: &str| ok(data.get(key), "a get");
    // Rows first, then data, then rows again.
    let change = |at| step(rows, Step::Merge(put("~hidden:1", at, &["user:1", "user:uuid:a"]).into()), &terms());
    let slot = |key: &str, at| step(rows, Step::Write(write(key, version(at), State::Value, Order::Slot)), &terms());
    change(1)?;
    for key in ROWS.into_iter().filter(|key| !key.starts_with('~')) {
        slot(key, 1)?;
    }
    ok(rows.raise_epoch(3), "an epoch")?;
    let before = ROWS.map(|key| stands(rows, key));
    for key in DATA {
        same!(got(key)?, None, "a string that nobody set under {key:?}");
        same!(ok(data.zh_count(key, ..), "zh_count")?, 0, "a sorted hash that nobody made under {key:?}");
    }
    for key in DATA {
        set(key)?;
    }
    for key in ["set", "hash", "sorted", "sorted hash"] {
        same!(got(key)?, None, "{key}");
    }
    ok(data.sadd("set", ["a"]), "sadd")?;
    ok(data.hset("hash", [("a", "b")]), "hset")?;
    ok(data.zadd("sorted", "a", 1.0), "zadd")?;
    ok(data.zh_add("sorted hash", "a", "b", 1.0), "zh_add")?;
    for (key, before) in ROWS.into_iter().zip(before) {
        same!(stands(rows, key)?, before?, "the row {key:?} after data were written");
    }
    for key in ["set", "hash", "sorted", "sorted hash", "", "data:x"] {
        same!(stands(rows, key)?, None, "a row that nobody wrote under {key:?}");
    }
    same!(ok(rows.epoch(), "an epoch")?, 3, "the epoch after data were written");
    let mut all: Vec<Key> = ROWS.into_iter().map(Key::new).collect();
    all.sort();
    for limit in [1, 3, 100] {
        same!(scan(rows, "", limit)?, all, "all rows, by pages of {limit}");
    }
    for prefix in ["=", "!", "set", "s", "data:"] {
        same!(scan(rows, prefix, 100)?, Vec::new(), "the rows that begin with {prefix:?}");
    }
    change(2)?;
    for key in ROWS.into_iter().filter(|key| !key.starts_with('~')) {
        slot(key, 2)?;
    }
    ok(rows.raise_epoch(4), "an epoch")?;
    for key in DATA {
        same!(got(key)?.as_deref(), Some(value(key).as_bytes()), "the string {key:?} after rows were written");
    }
    same!(ok(data.zh_get("sorted hash", "a"), "zh_get")?.as_deref(), Some(b"b".as_slice()), "the sorted hash");
    let before = ROWS.map(|key| stands(rows, key));
    for key in DATA.into_iter().chain(["set", "hash", "sorted", "sorted hash"]) {
        ok(data.delete(key), "a delete")?;
    }
    for (key, before) in ROWS.into_iter().zip(before) {
        same!(stands(rows, key)?, before?, "the row {key:?} after data were deleted");
    }
    same!(ok(rows.epoch(), "an epoch")?, 4, "the epoch after data were deleted");
    Ok(())
}
