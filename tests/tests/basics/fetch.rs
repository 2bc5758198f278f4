//! What a fetch says of everything that can stand under a key.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kvsync::codec::{Codec, MessagePack};
use kvsync::envelope::{Head, State, Value};
use kvsync::record::{Content, Delta, Listed, Order, Terms, Write};
use kvsync::store::memory::MemoryStore;
use kvsync::store::{Capabilities, Cursor, Health, Outcome, Page, Step, Store, SyncStore};
use kvsync::{Error, ErrorKind, Key, KvSync, Lookup, Miss, Scope, Syncable, Version};
use kvsync_tests::Tested;
use serde::{Deserialize, Serialize};

diesel::table! {
    users (id) {
        id -> Integer,
        uuid -> Text,
        email -> Nullable<Text>,
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Syncable)]
#[diesel(table_name = users)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
#[sync_key(name = "uuid", fmt = "user:uuid:<uuid>")]
#[sync_key(name = "email", fmt = "user:email:<email>", pointer)]
struct User {
    id: i32,
    uuid: String,
    email: Option<String>,
}

/// The same rows as an older program sees them.
mod older {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize, Syncable)]
    #[diesel(table_name = users)]
    #[sync_key(name = "id", fmt = "user:id:<id>")]
    pub struct User {
        pub id: i32,
        pub uuid: String,
    }
}

/// The same rows as a newer program sees them.
mod newer {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize, Syncable)]
    #[diesel(table_name = users)]
    #[sync_key(name = "id", fmt = "user:id:<id>")]
    pub struct User {
        pub id: i64,
        pub uuid: String,
        pub email: Option<String>,
    }
}

mod json {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize, Syncable)]
    #[diesel(table_name = users)]
    #[sync(codec = kvsync::codec::Json)]
    #[sync_key(name = "id", fmt = "user:id:<id>")]
    pub struct User {
        pub id: i32,
        pub uuid: String,
        pub email: Option<String>,
    }
}

fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn terms() -> Terms {
    Terms { now: now(), left: 600_000, dead: 604_800_000 }
}

fn ann() -> User {
    User { id: 1, uuid: "u-1".into(), email: Some("ann@example.com".into()) }
}

fn value_of(user: &User) -> Value {
    Value::model(MessagePack::ID, User::SCHEMA.fields, &MessagePack::encode(user).unwrap())
}

fn delta(user: &User, sequence: u64) -> Delta {
    let mut keys = vec![Listed { key: Key::new(format!("user:uuid:{}", user.uuid)), pointer: false }];
    keys.extend(user.email.iter().map(|email| Listed { key: Key::new(format!("user:email:{email}")), pointer: true }));
    Delta {
        home: Key::new(format!("user:id:{}", user.id)),
        version: Version::new(0, 0, sequence),
        content: Content::Put { value: value_of(user), expires_at: 0, keys },
        gone: Vec::new(),
    }
}

fn run(store: &MemoryStore, step: Step) -> Outcome {
    store.execute(&[step], &terms()).remove(0).unwrap()
}

fn write(store: &MemoryStore, key: &str, version: Version, state: State, expires_at: u64, value: Value) {
    let head = Head { version, state, expires_at };
    run(store, Step::Write(Write { key: Key::new(key), head, value, order: Order::Slot }));
}

/// A store that refuses keys of more than 30 bytes, and every call that has one.
#[derive(Debug)]
struct Narrow(MemoryStore);

impl Store for Narrow {
    fn name(&self) -> &'static str {
        "narrow"
    }

    fn health(&self, deadline: Duration) -> Health {
        self.0.health(deadline)
    }

    fn close(&self) -> kvsync::Result<()> {
        Ok(())
    }
}

impl SyncStore for Narrow {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(30, 1 << 20, 64)
    }

    fn execute(&self, steps: &[Step], terms: &Terms) -> Vec<kvsync::Result<Outcome>> {
        self.0.execute(steps, terms)
    }

    fn get_many(&self, keys: &[Key]) -> kvsync::Result<Vec<Option<bytes::Bytes>>> {
        if keys.iter().any(|key| key.as_str().len() > 30) {
            return Err(Error::new(ErrorKind::Rejected, "a key is too long"));
        }
        self.0.get_many(keys)
    }

    fn scan(&self, prefix: &str, cursor: Option<Cursor>, limit: usize) -> kvsync::Result<Page> {
        self.0.scan(prefix, cursor, limit)
    }

    fn epoch(&self) -> kvsync::Result<u32> {
        self.0.epoch()
    }

    fn raise_epoch(&self, epoch: u32) -> kvsync::Result<u32> {
        self.0.raise_epoch(epoch)
    }
}

fn kv() -> (MemoryStore, KvSync) {
    let store = MemoryStore::new();
    (store.clone(), KvSync::builder().store(store).build().unwrap())
}

fn with_ann() -> (MemoryStore, KvSync) {
    let (store, kv) = kv();
    run(&store, Step::Apply(Arc::new(delta(&ann(), 1))));
    (store, kv)
}

#[test]
fn a_row_is_found_under_each_of_its_keys() -> Tested {
    let (_, kv) = with_ann();
    assert_eq!(User::fetch_by_id(&kv, 1)?, Some(ann()));
    assert_eq!(User::fetch_by_uuid(&kv, "u-1")?, Some(ann()));
    assert_eq!(User::fetch_by_email(&kv, "ann@example.com")?, Some(ann()));
    assert_eq!(User::lookup_by_uuid(&kv, "u-1")?, Lookup::Found(ann()));
    assert_eq!(User::fetch_strict_by_id(&kv, 1)?, Some(ann()));
    assert_eq!(User::fetch_strict_by_uuid(&kv, "u-1")?, Some(ann()));
    assert_eq!(User::fetch_strict_by_email(&kv, "ann@example.com")?, Some(ann()));
    Ok(())
}

#[test]
fn many_are_answered_in_the_order_asked() -> Tested {
    let (store, kv) = with_ann();
    let bob = User { id: 2, uuid: "u-2".into(), email: None };
    run(&store, Step::Apply(Arc::new(delta(&bob, 2))));
    assert_eq!(User::fetch_many_by_id(&kv, [2, 7, 1, 2])?, [Some(bob.clone()), None, Some(ann()), Some(bob.clone())]);
    assert_eq!(User::fetch_many_by_email(&kv, ["nobody", "ann@example.com"])?, [None, Some(ann())]);
    assert_eq!(User::fetch_many_by_uuid(&kv, Vec::<String>::new())?, []);
    Ok(())
}

#[test]
fn a_key_can_be_chosen_at_run_time() -> Tested {
    let (_, kv) = with_ann();
    assert_eq!(kv.fetch("uuid", "u-1")?, Some(ann()));
    assert_eq!(kv.lookup("id", 1)?, Lookup::Found(ann()));
    assert_eq!(kv.fetch::<User>("email", None::<String>)?, None);
    assert_eq!(kv.fetch_like("uuid", &User { id: 0, uuid: "u-1".into(), email: None })?, Some(ann()));
    assert_eq!(kv.fetch_like("email", &User { id: 1, uuid: String::new(), email: None })?, None);
    let unknown = kv.fetch::<User>("emial", "x").unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Config);
    assert_eq!(unknown.to_string(), "configuration: `User` has no key `emial`; it has `id`, `uuid`, `email`");
    assert_eq!(kv.fetch::<User>("id", (1, 2)).unwrap_err().kind(), ErrorKind::Config);
    Ok(())
}

#[test]
fn absent_and_unknown_are_told_apart() -> Tested {
    let (store, kv) = with_ann();
    assert_eq!(User::lookup_by_id(&kv, 9)?, Lookup::Unknown(Miss::NotStored));
    let moved = User { uuid: "u-9".into(), ..ann() };
    run(&store, Step::Apply(Arc::new(delta(&moved, 2))));
    assert_eq!(User::lookup_by_uuid(&kv, "u-1")?, Lookup::Absent);
    let unknown = Delta { version: Version::new(0, 0, 3), content: Content::Unknown, ..delta(&moved, 3) };
    run(&store, Step::Apply(Arc::new(unknown)));
    for seen in [User::lookup_by_uuid(&kv, "u-9")?, User::lookup_by_id(&kv, 1)?] {
        assert_eq!(seen, Lookup::Unknown(Miss::Masked));
    }
    assert_eq!(User::lookup_by_email(&kv, "ann@example.com")?, Lookup::Unknown(Miss::Masked));
    assert_eq!(User::fetch_by_uuid(&kv, "u-9")?, None);
    run(&store, Step::Apply(Arc::new(Delta { content: Content::Delete, ..delta(&moved, 4) })));
    assert_eq!(User::lookup_by_uuid(&kv, "u-9")?, Lookup::Absent);
    assert_eq!(User::lookup_by_id(&kv, 1)?, Lookup::Absent);
    Ok(())
}

#[test]
fn an_expired_entry_is_not_there() -> Tested {
    let (store, kv) = kv();
    write(&store, "user:uuid:u-1", Version::new(0, 0, 1), State::Value, now() - 1, value_of(&ann()));
    assert_eq!(User::lookup_by_uuid(&kv, "u-1")?, Lookup::Unknown(Miss::NotStored));
    write(&store, "user:uuid:u-1", Version::new(0, 0, 2), State::Value, now() + 3_600_000, value_of(&ann()));
    assert_eq!(User::fetch_by_uuid(&kv, "u-1")?, Some(ann()));
    Ok(())
}

#[test]
fn an_entry_of_a_lower_epoch_is_unknown() -> Tested {
    let (store, _) = with_ann();
    assert_eq!(store.raise_epoch(2)?, 2);
    let kv = KvSync::builder().store(store.clone()).build()?;
    assert_eq!(User::lookup_by_id(&kv, 1)?, Lookup::Unknown(Miss::OldEpoch));
    let newer = Delta { version: Version::new(2, 0, 1), ..delta(&ann(), 1) };
    run(&store, Step::Apply(Arc::new(newer)));
    assert_eq!(User::fetch_by_uuid(&kv, "u-1")?, Some(ann()));
    Ok(())
}

#[test]
fn a_value_is_readable_if_it_has_all_fields_of_the_reader_with_equal_types() -> Tested {
    let (_, kv) = with_ann();
    assert_eq!(older::User::fetch_by_id(&kv, 1)?, Some(older::User { id: 1, uuid: "u-1".into() }));
    assert_eq!(newer::User::lookup_by_id(&kv, 1)?, Lookup::Unknown(Miss::OtherFields));
    assert_eq!(json::User::lookup_by_id(&kv, 1)?, Lookup::Unknown(Miss::OtherCodec));
    Ok(())
}

#[test]
fn bytes_that_cannot_be_read_are_an_error_that_names_the_key() {
    let (store, kv) = kv();
    let broken = Value::model(MessagePack::ID, User::SCHEMA.fields, b"\x81\xa2id");
    write(&store, "user:uuid:u-1", Version::new(0, 0, 1), State::Value, 0, broken);
    let error = User::fetch_by_uuid(&kv, "u-1").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Codec);
    assert!(error.to_string().contains("user:uuid:u-1"), "{error}");
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn a_row_under_a_key_that_is_not_its_own_is_an_error_and_never_returned() {
    let (store, kv) = kv();
    write(&store, "user:uuid:other", Version::new(0, 0, 1), State::Value, 0, value_of(&ann()));
    assert_eq!(User::fetch_by_uuid(&kv, "other").unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn a_pointer_to_a_row_that_has_moved_on_finds_nothing() -> Tested {
    let (store, kv) = with_ann();
    let home = Key::new("user:id:1");
    write(&store, "user:email:old@example.com", Version::new(0, 0, 1), State::Value, 0, Value::pointer(&home));
    assert_eq!(User::lookup_by_email(&kv, "old@example.com")?, Lookup::Unknown(Miss::Dangling));
    write(
        &store,
        "user:email:gone@example.com",
        Version::new(0, 0, 1),
        State::Value,
        0,
        Value::pointer(&Key::new("user:id:9")),
    );
    assert_eq!(User::lookup_by_email(&kv, "gone@example.com")?, Lookup::Unknown(Miss::Dangling));
    Ok(())
}

#[test]
fn strict_does_not_believe_a_copy_that_the_record_does_not_list() -> Tested {
    let (store, kv) = with_ann();
    let orphan = User { uuid: "orphan".into(), ..ann() };
    write(&store, "user:uuid:orphan", Version::new(0, 0, 1), State::Value, 0, value_of(&orphan));
    assert_eq!(User::fetch_by_uuid(&kv, "orphan")?, Some(orphan));
    assert_eq!(User::fetch_strict_by_uuid(&kv, "orphan")?, None);
    Ok(())
}

#[test]
fn strict_does_not_believe_a_record_that_has_not_caught_up() -> Tested {
    let (store, kv) = with_ann();
    // Another generation of the model's keys wrote the home key; this one's ledger is older.
    write(&store, "user:id:1", Version::new(0, 0, 2), State::Value, 0, value_of(&ann()));
    assert_eq!(User::fetch_strict_by_uuid(&kv, "u-1")?, None);
    run(&store, Step::Apply(Arc::new(delta(&ann(), 2))));
    assert_eq!(User::fetch_strict_by_uuid(&kv, "u-1")?, Some(ann()));
    Ok(())
}

#[test]
fn strict_is_right_whatever_was_evicted() -> Tested {
    let moved = User { uuid: "u-2".into(), ..ann() };
    for evicted in ["user:id:1", "user:uuid:u-1", "user:uuid:u-2", "user:email:ann@example.com"] {
        let (store, kv) = kv();
        let ending = |user: &User, version| {
            let mut delta = delta(user, version);
            if let Content::Put { expires_at, .. } = &mut delta.content {
                *expires_at = now() + 3_600_000;
            }
            Step::Apply(Arc::new(delta))
        };
        run(&store, ending(&ann(), 1));
        run(&store, ending(&moved, 2));
        // What has ended by then is swept, the record included.
        store.execute(&[Step::Sweep(Key::new(evicted))], &Terms { now: now() + 700_000_000, ..terms() });
        assert_eq!(store.get_many(&[Key::new(evicted)])?, [None]);
        assert_eq!(User::fetch_strict_by_uuid(&kv, "u-1")?, None, "{evicted}");
        for found in [
            User::fetch_strict_by_id(&kv, 1)?,
            User::fetch_strict_by_uuid(&kv, "u-2")?,
            User::fetch_strict_by_email(&kv, "ann@example.com")?,
        ] {
            assert!(found.is_none() || found.as_ref() == Some(&moved), "{evicted}: {found:?}");
        }
        run(&store, ending(&moved, 3));
        assert_eq!(User::fetch_strict_by_uuid(&kv, "u-2")?, Some(moved.clone()), "{evicted}");
    }
    Ok(())
}

#[test]
fn under_a_key_longer_than_the_store_takes_nothing_is_stored() -> Tested {
    let store = MemoryStore::new();
    run(&store, Step::Apply(Arc::new(delta(&ann(), 1))));
    let kv = KvSync::builder().store(Narrow(store)).build()?;
    let long = "u".repeat(50);
    assert_eq!(User::lookup_by_uuid(&kv, &long)?, Lookup::Unknown(Miss::NotStored));
    assert_eq!(User::fetch_by_uuid(&kv, &long)?, None);
    assert_eq!(User::fetch_strict_by_uuid(&kv, &long)?, None);
    let many = User::fetch_many_by_uuid(&kv, [long.as_str(), "u-1", "u-2", "u-1"])?;
    assert_eq!(many, [None, Some(ann()), None, Some(ann())]);
    Ok(())
}

#[test]
fn scopes_do_not_see_each_other() -> Tested {
    let (store, kv) = with_ann();
    let tenant = kv.scoped(Scope::named("tenant:1"));
    assert_eq!(User::lookup_by_id(&tenant, 1)?, Lookup::Unknown(Miss::NotStored));
    let theirs = User { uuid: "theirs".into(), ..ann() };
    write(&store, "@tenant%3A1:user:id:1", Version::new(0, 0, 1), State::Value, 0, value_of(&theirs));
    assert_eq!(User::fetch_by_id(&tenant, 1)?, Some(theirs));
    assert_eq!(User::fetch_by_id(&kv, 1)?, Some(ann()));
    Ok(())
}

#[test]
fn another_language_reads_a_stored_value() -> Tested {
    let (store, _) = with_ann();
    let bytes = store.get_many(&[Key::new("user:uuid:u-1")])?.remove(0).unwrap();
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), &bytes)?;
    let script = "import msgpack, sys\n\
        entry = msgpack.unpackb(open(sys.argv[1], 'rb').read(), raw=False, strict_map_key=False)\n\
        assert len(entry) == 8 and entry[0] == 1 and entry[2] == 0, entry\n\
        print(entry[7]['id'], entry[7]['uuid'], entry[7]['email'])";
    let python = kvsync_tests::env::python()?;
    let output = Command::new(python).arg("-c").arg(script).arg(file.path()).output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "1 u-1 ann@example.com");
    Ok(())
}
