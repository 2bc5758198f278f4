//! Keys and values of every kind.

use std::sync::Arc;

use super::ground::{Checked, check, listed, put, same, scan, stands, step, steps, terms, version, write};
use super::{Case, Needs};
use crate::envelope::{Head, State, Value};
use crate::error::ErrorKind;
use crate::key::Key;
use crate::record::{Content, Delta, Order, Write};
use crate::store::{Outcome, Step, SyncStore};

pub(super) const CASES: &[Case] = &[
    Case::sync("odd_keys_are_themselves", Needs::Nothing, odd),
    Case::sync("long_keys_are_themselves", Needs::Nothing, long),
    Case::sync("a_key_that_is_too_long_is_refused_alone", Needs::KeyLimit, too_long),
    Case::sync("a_change_with_a_key_that_is_too_long_changes_nothing", Needs::KeyLimit, too_long_within),
    Case::sync("values_of_every_size_and_byte_come_back", Needs::Nothing, sizes),
];

/// Characters that patterns, protocols, paths and hash slots give a meaning to.
pub(super) const ODD: &[&str] = &[
    "",
    " ",
    "  two spaces  ",
    "a b",
    "tab\there",
    "line\nbreak",
    "carriage\r\nreturn",
    "nul\0inside",
    "\u{1}\u{1f}\u{7f}",
    "*",
    "a*",
    "a?c",
    "abc",
    "[abc]",
    "[^a]",
    "a\\*",
    "\\",
    "{tag}",
    "{}",
    "{",
    "}",
    "a{b}c",
    "a{b}d",
    "}{",
    "a:b",
    "a::b",
    "a/b",
    "a.b",
    "a>b",
    "%",
    "%25",
    "%s",
    "%3A",
    "a%3Ab",
    "a%3ab",
    "a%253Ab",
    "a=3Ab",
    "a+b",
    "a&#58;b",
    "a\\u003ab",
    "$1",
    "'quoted'",
    "\"quoted\"",
    "umlaut äöü",
    "a\u{308}",
    "ä",
    "日本語",
    "🙂",
    "\u{10ffff}",
    "\u{feff}",
    "UPPER",
    "upper",
    "trailing.",
    ".leading",
    "-",
    "_",
    "@scope:key",
];

fn odd(store: &dyn SyncStore) -> Checked {
    let terms = terms();
    let written = |key: &str| write(key, version(key.len() as u64 + 1), State::Value, Order::Slot);
    for key in ODD {
        same!(step(store, Step::Write(written(key)), &terms)?, Outcome::Written, "a write to {key:?}");
    }
    for key in ODD {
        let write = written(key);
        same!(
            stands(store, key)?,
            Some((write.head.version, State::Value, write.value)),
            "what stands under {key:?}, after all were written"
        );
    }
    let mut wanted: Vec<Key> = ODD.iter().map(|key| Key::new(*key)).collect();
    wanted.sort();
    same!(scan(store, "", 7)?, wanted, "a scan over odd keys");
    // As home keys, and listed in ledgers.
    let change = put("home {of} *all*\n", 5, ODD);
    let record = super::ground::merge(store, &change, &terms)?.1;
    let keys: Vec<Key> = record.live.into_iter().map(|listed| listed.key).collect();
    same!(keys, wanted, "the keys in a ledger");
    for key in ODD {
        let home = format!("home:{key}");
        super::ground::merge(store, &put(&home, 5, &[]), &terms)?;
        same!(stands(store, &home)?.map(|(at, ..)| at), Some(version(5)), "the record under {home:?}");
    }
    Ok(())
}

fn long(store: &dyn SyncStore) -> Checked {
    let max = store.capabilities().max_key.min(65_000);
    for len in [100, 255, 256, 257, 400, 512, 1_000, 4_096, 32_767, 32_768, max] {
        if len > max {
            continue;
        }
        // Two that differ in their last byte only.
        for last in ["x", "y"] {
            let key = format!("{}{last}", "k".repeat(len - 1));
            let write = write(&key, version(len as u64), State::Value, Order::Slot);
            let expected = Some((write.head.version, write.head.state, write.value.clone()));
            same!(step(store, Step::Write(write), &terms())?, Outcome::Written, "a key of {len} bytes");
            check!(stands(store, &key)? == expected, "a key of {len} bytes holds something else");
        }
    }
    Ok(())
}

fn too_long(store: &dyn SyncStore) -> Checked {
    let long = "k".repeat(store.capabilities().max_key + 1);
    let write = |key: &str| Step::Write(write(key, version(1), State::Value, Order::Slot));
    let mut answers = store.execute(&[write("before"), write(&long), write("after")], &terms()).into_iter();
    let (before, refused, after) = (answers.next(), answers.next(), answers.next());
    check!(matches!(before, Some(Ok(Outcome::Written))), "the step before answered {before:?}");
    check!(matches!(after, Some(Ok(Outcome::Written))), "the step after answered {after:?}");
    match refused {
        Some(Err(error)) => same!(error.kind(), ErrorKind::Rejected, "the kind of the refusal"),
        other => return Err(format!("a key that is too long was answered {other:?}")),
    }
    let found = store.get_many(&[Key::new(long.as_str())]);
    check!(!matches!(&found, Ok(found) if found.iter().any(Option::is_some)), "a key that is too long holds something");
    Ok(())
}

fn too_long_within(store: &dyn SyncStore) -> Checked {
    if !store.capabilities().whole_changes {
        return Ok(());
    }
    let long = "k".repeat(store.capabilities().max_key + 1);
    let answers = store.execute(&[Step::Apply(Arc::new(put("home", 1, &["a", &long, "z"])))], &terms());
    check!(matches!(answers.as_slice(), [Err(_)]), "a key that is too long was answered {answers:?}");
    for key in ["home", "a", "z"] {
        same!(stands(store, key)?, None, "what a refused change left under {key}");
    }
    Ok(())
}

fn sizes(store: &dyn SyncStore) -> Checked {
    let terms = terms();
    let max = store.capabilities().max_value - 2_048;
    let every_byte: Vec<u8> = (0..=255).collect();
    for len in [0, 1, 2, 31, 255, 256, 257, 4_095, 4_096, 65_535, 65_536, 262_144, 1 << 20] {
        if len > max {
            continue;
        }
        let bytes: Vec<u8> = every_byte.iter().copied().cycle().take(len).collect();
        let value = Value::model(64, &[], &bytes);
        let (slot, home) = (format!("slot:{len}"), format!("home:{len}"));
        let head = Head { version: version(1), state: State::Value, expires_at: 0 };
        let write = Write { key: Key::new(slot.as_str()), head, value: value.clone(), order: Order::Slot };
        let content = Content::Put { value: value.clone(), expires_at: 0, keys: vec![listed(&slot)] };
        let change = Delta { home: Key::new(home.as_str()), version: version(1), content, gone: Vec::new() };
        steps(store, &[Step::Write(write), Step::Merge(Arc::new(change))], &terms)?;
        for key in [&slot, &home] {
            let found = stands(store, key)?;
            check!(
                found == Some((version(1), State::Value, value.clone())),
                "{len} bytes did not come back under {key}"
            );
        }
        // Superseded by nothing: the bytes come with the answer when they are not the change's own.
        let older = put(&home, 0, &[]);
        let record = super::ground::merge(store, &older, &terms)?.1;
        check!(record.value == value, "{len} bytes did not come with the record");
    }
    Ok(())
}
