use super::*;
use crate::record::{Listed, Record};
use crate::store::data::{AtomicWrite, DataCommands};
use crate::store::layer::Prefix;

fn under(store: &MemoryStore) -> Prefix<MemoryStore> {
    Prefix::new("app:", store.clone()).unwrap()
}

fn put(keys: &[&str]) -> Content {
    let keys = keys.iter().map(|key| Listed { key: Key::new(*key), pointer: true }).collect();
    Content::Put { value: Value::model(1, &[7], b"row"), expires_at: 0, keys }
}

#[test]
fn a_prefix_that_would_break_keys_is_refused() {
    for wrong in ["", "@eu:", "~", "!", "a{b}", "}"] {
        let refused = Prefix::new(wrong, MemoryStore::new()).map_err(|error| error.kind());
        assert!(matches!(refused, Err(ErrorKind::Config)), "{wrong}");
    }
}

#[test]
fn two_prefixes_do_not_see_each_other() {
    let store = MemoryStore::new();
    let (one, other) = (under(&store), Prefix::new("other:", store.clone()).unwrap());
    run(&one, write("row", 1)).unwrap();
    one.set("key", "1").unwrap();
    assert_eq!((version(&other, "row"), other.get("key").unwrap()), (None, None));
    assert_eq!((version(&store, "app:row"), store.get("app:key").unwrap().is_some()), (Some(at(1)), true));
    assert_eq!(one.raise_epoch(4).unwrap(), 4);
    assert_eq!(one.raise_epoch(2).unwrap(), 4);
    assert_eq!((one.epoch().unwrap(), other.epoch().unwrap(), store.epoch().unwrap()), (4, 0, 0));
    assert_eq!(one.scan("", None, 10).unwrap().keys, [Key::new("row")], "the epoch is no row");
    let mut atomic = AtomicWrite::new();
    let taken = atomic.set_if_absent("key", "2");
    assert!(one.atomic_write(&atomic).unwrap().refused(taken));
    assert!(other.atomic_write(&atomic).unwrap().is_done());
}

#[test]
fn a_record_tells_of_keys_as_they_are_without_the_prefix() {
    let store = MemoryStore::new();
    let layer = under(&store);
    let merged = run(&layer, merge("home", 1, put(&["a", "home", "b"]))).unwrap();
    let Outcome::Merged { record, .. } = merged else { panic!("{merged:?}") };
    let listed: Vec<&str> = record.live.iter().map(|listed| listed.key.as_str()).collect();
    assert_eq!(listed, ["a", "b"], "the home key is none of its slots");
    for write in record.project(&Key::new("home"), &TERMS) {
        run(&layer, Step::Write(write)).unwrap();
    }
    let pointer = layer.get_many(&[Key::new("a")]).unwrap().remove(0).unwrap();
    let pointer = Envelope::parse(&pointer).unwrap();
    assert_eq!(pointer.body().unwrap(), crate::envelope::Body::Pointer("home"), "it is followed through the layer");

    run(&layer, merge("home", 2, put(&["b"]))).unwrap();
    run(&layer, Step::Confirm { home: Key::new("home"), released: vec![(Key::new("a"), at(1))] }).unwrap();
    let stands = layer.get_many(&[Key::new("home")]).unwrap().remove(0).unwrap();
    let record = Record::from_envelope(Envelope::parse(&stands).unwrap()).unwrap();
    assert_eq!(record.dirty.len(), 0, "the key that was left is confirmed");
    run(&layer, Step::Remove { key: Key::new("home"), stands }).unwrap();
    assert_eq!(version(&layer, "home"), None);
}

#[test]
fn a_key_that_looks_like_the_home_under_the_prefix_is_refused_and_not_lost() {
    let layer = under(&MemoryStore::new());
    let refused = run(&layer, merge("home", 1, put(&["app:home"])));
    assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::Rejected));
    assert_eq!(version(&layer, "home"), None);
}
