//! What is stored today is read by every later version, and written by none in another form by accident.
//!
//! `tests/golden/layout-1.txt` holds the bytes. A line is a group, a name and hexadecimal digits, with tabs
//! between them. Where the format has to change, these lines stay, for old stores have to be read; the new
//! form gets a layout number and a file of its own.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use chrono::{NaiveDate, NaiveDateTime};
use kvsync::change::{Action, Change, ChangeSet, Row, Unknown};
use kvsync::clock::ManualClock;
use kvsync::codec::{Bson, Codec, Json};
use kvsync::envelope::{Envelope, Head, State, Value};
use kvsync::model::Model;
use kvsync::record::{Content, Delta, Listed, Order, Terms, Write};
use kvsync::store::redis::RedisStore;
use kvsync::store::{Capabilities, Cursor, Health, MemoryStore, Outcome, Page, Step, Store, SyncStore};
use kvsync::worker::{Pipeline, PipelineConfig};
use kvsync::{Key, KvSync, Lookup, Miss, Result, Scope, Syncable, Version};
use kvsync_tests::redis::patient;
use kvsync_tests::wait::LONG;
use kvsync_tests::{Tested, env};
use redis::Commands;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const FILE: &str = include_str!("../../golden/layout-1.txt");
/// So late that nothing in the file has expired when it is read.
const NOW: u64 = 7_258_118_400_000;

// Of the tables only what keys are made of.
diesel::table! { accounts (id) { id -> BigInt, tenant -> Text, email -> Nullable<Text>, handle -> Text, token -> Binary } }
diesel::table! { sessions (id) { id -> Integer, token -> Text } }
diesel::table! { posts (id) { id -> Integer, slug -> Text } }

/// A field of each kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Syncable)]
#[diesel(table_name = accounts)]
#[sync_key(name = "id", fmt = "account:id:<id>")]
#[sync_key(name = "email", fmt = "account:email:<email>")]
#[sync_key(name = "handle", fmt = "account:handle:<handle>", pointer)]
#[sync_key(name = "pair", fmt = "account:pair:<tenant>_<handle>:<token>")]
struct Account {
    id: i64,
    tenant: String,
    email: Option<String>,
    handle: String,
    token: Uuid,
    small: i16,
    ratio: f64,
    active: bool,
    raw: Vec<u8>,
    at: NaiveDateTime,
    tags: Vec<Option<String>>,
}

/// The keys of the next deploy: the same key of the primary key, another of the handle.
mod next {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Syncable)]
    #[diesel(table_name = accounts)]
    #[sync(generation = 1)]
    #[sync_key(name = "id", fmt = "account:id:<id>")]
    #[sync_key(name = "handle", fmt = "a/<handle>")]
    pub(super) struct Account {
        pub(super) id: i64,
        pub(super) handle: String,
    }
}

/// No key of it ever changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Syncable)]
#[diesel(table_name = sessions)]
#[sync(codec = Json)]
#[sync_key(name = "id", fmt = "session:id:<id>")]
#[sync_key(name = "token", fmt = "session:token:<token>", immutable)]
struct Session {
    id: i32,
    token: String,
}

/// Its record stands under a hidden key, and its entries end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Syncable)]
#[diesel(table_name = posts)]
#[sync(codec = Bson, ttl = "1h")]
#[sync_key(name = "slug", fmt = "post:<slug>")]
struct Post {
    id: i32,
    slug: String,
}

fn account() -> Account {
    Account {
        id: 7,
        tenant: "a_b%".into(),
        email: Some("ann@example.com".into()),
        handle: "ann".into(),
        token: Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
        small: -300,
        ratio: 0.1,
        active: true,
        raw: vec![0, 1, 255],
        at: NaiveDate::from_ymd_opt(2024, 2, 29).unwrap().and_hms_micro_opt(12, 34, 56, 789_012).unwrap(),
        tags: vec![Some("x".into()), None],
    }
}

fn moved() -> Account {
    Account { email: None, handle: "ann:2".into(), ..account() }
}

fn next_account() -> next::Account {
    next::Account { id: 7, handle: "ann".into() }
}

fn session() -> Session {
    Session { id: 3, token: "t-é".into() }
}

fn post() -> Post {
    Post { id: 5, slug: "first".into() }
}

fn version(sequence: u64) -> Version {
    Version::new(1, 2, sequence)
}

fn terms() -> Terms {
    Terms { now: NOW, left: 600_000, dead: 604_800_000 }
}

/// Groups of entries: what stands under which key.
type Entries = BTreeMap<(String, String), Vec<u8>>;

/// What a store holds after some commits, written by the workers.
fn after(commits: Vec<Vec<Change>>) -> Vec<(String, Vec<u8>)> {
    let store = MemoryStore::new();
    let (tell, told) = mpsc::channel();
    let mut config = PipelineConfig::new(vec![Arc::new(store.clone())]);
    config.clock = Arc::new(ManualClock::at(UNIX_EPOCH + Duration::from_millis(NOW)));
    config.on_report = Some(Box::new(move |_| tell.send(()).unwrap_or_default()));
    config.drop_deadline = Duration::from_millis(30);
    let pipeline = Pipeline::start(config).unwrap();
    for changes in commits {
        let settled = changes.iter().all(|change| !matches!(change.row, Row::Unknown(_)));
        pipeline.publisher().publish(ChangeSet::from(changes));
        if settled {
            pipeline.flush(LONG).unwrap();
            continue;
        }
        // There is no database here that could settle what is in doubt: all is masked and stays so.
        let masked = |bytes: Vec<u8>| Envelope::parse(&bytes.into()).unwrap().head.state == State::Unknown;
        while !contents(&store).into_iter().all(|(_, bytes)| masked(bytes)) {
            told.recv_timeout(LONG).unwrap();
        }
    }
    contents(&store)
}

fn contents(store: &dyn SyncStore) -> Vec<(String, Vec<u8>)> {
    let (mut keys, mut cursor) = (Vec::new(), None);
    loop {
        let page = store.scan("", cursor, 100).unwrap();
        keys.extend(page.keys);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    keys.sort();
    keys.dedup();
    let values = store.get_many(&keys).unwrap();
    // What begins with `!` is the store's own.
    let both = keys.into_iter().zip(values).filter(|(key, _)| !key.as_str().starts_with('!'));
    both.map(|(key, value)| (key.as_str().to_owned(), value.unwrap().to_vec())).collect()
}

fn change<M: Syncable>(sequence: u64, action: Action, row: Row) -> Change {
    Change {
        schema: M::SCHEMA,
        database: "main".into(),
        scope: Scope::NONE,
        action,
        version: version(sequence),
        captured_at: SystemTime::UNIX_EPOCH + Duration::from_millis(NOW),
        row,
        size: 400,
    }
}

fn put<M: Syncable>(sequence: u64, row: M) -> Change {
    change::<M>(sequence, Action::Update, Row::Live(Box::new(row)))
}

fn delete<M: Syncable>(sequence: u64, row: M) -> Change {
    change::<M>(sequence, Action::Delete, Row::Deleted { row: Box::new(row), live: true })
}

fn in_doubt<M: Syncable>(sequence: u64, row: &M, kept: &[&str]) -> Change {
    let kept = kept.iter().map(|key| Key::new(*key)).collect();
    let unknown = Unknown { primary_key: Model::primary_key(row), kept, certain: false };
    change::<M>(sequence, Action::Update, Row::Unknown(unknown))
}

fn delta(sequence: u64, content: Content, gone: &[(&str, u64)]) -> Delta {
    let gone = gone.iter().map(|(key, at)| (Key::new(*key), version(*at))).collect();
    Delta { home: Key::new("home"), version: version(sequence), content, gone }
}

fn put_under(keys: &[(&str, bool)]) -> Content {
    let keys = keys.iter().map(|(key, pointer)| Listed { key: Key::new(*key), pointer: *pointer }).collect();
    Content::Put { value: Value::model(64, &[1, 0x0102_0304], b"body"), expires_at: NOW + 5_000, keys }
}

/// Records with everything that a ledger can hold, and the steps that make them.
fn records() -> Vec<(&'static str, Vec<Step>)> {
    let merge = |delta: Delta| Step::Merge(Arc::new(delta));
    let listed = || merge(delta(10, put_under(&[("a", false), ("b", true)]), &[]));
    let left = || merge(delta(20, put_under(&[("b", true), ("c", false)]), &[("d", 15)]));
    let foreign = || {
        let head = Head { version: version(30), state: State::Value, expires_at: 0 };
        let value = Value::model(0, &[9], b"\x80");
        Step::Write(Write { key: Key::new("home"), head, value, order: Order::Slot })
    };
    vec![
        ("listed", vec![listed()]),
        ("left", vec![listed(), left()]),
        ("marked", vec![listed(), left(), merge(delta(25, Content::Unknown, &[]))]),
        ("dead", vec![listed(), left(), merge(delta(26, Content::Delete, &[]))]),
        ("foreign", vec![listed(), left(), foreign()]),
    ]
}

/// What the next change of the row does to such a record.
fn next_step() -> Step {
    Step::Apply(Arc::new(delta(40, put_under(&[("e", false)]), &[])))
}

/// Keys: what they are, and their text.
fn keys() -> Vec<(String, String)> {
    let mut keys = Vec::new();
    let mut add = |name: &str, key: Option<Key>| keys.push((name.to_owned(), key.unwrap().as_str().to_owned()));
    let strange = Account { handle: "ü:_%/\u{0}".into(), email: Some(String::new()), id: i64::MIN, ..account() };
    for (name, row) in [("plain", &account()), ("strange", &strange)] {
        for (index, spec) in Account::SCHEMA.keys.iter().enumerate() {
            add(&format!("{name} {}", spec.name), Model::key(row, index));
        }
    }
    add("next home", Some(Model::home(&next_account())));
    add("hidden home", Some(Model::home(&post())));
    add("scoped", Model::key(&account(), 0).map(|key| key.within(&Scope::named("te%n:ant_1"))));
    keys
}

/// Everything that the file holds, as it is written today.
fn today() -> Entries {
    let mut all = Entries::new();
    let mut add = |group: &str, entries: Vec<(String, Vec<u8>)>| {
        all.extend(entries.into_iter().map(|(name, bytes)| ((group.to_owned(), name), bytes)));
    };
    let kept = ["session:id:3", "session:token:t-é"];
    add("inserted", after(vec![vec![put(10, account()), put(11, session()), put(12, post())]]));
    add("moved", after(vec![vec![put(10, account())], vec![put(20, moved())]]));
    add(
        "in doubt",
        after(vec![
            vec![put(10, account()), put(11, session()), put(12, post())],
            vec![in_doubt(20, &account(), &[]), in_doubt(21, &session(), &kept), in_doubt(22, &post(), &[])],
        ]),
    );
    add(
        "deleted",
        after(vec![
            vec![put(10, account()), put(11, session()), put(12, post())],
            vec![delete(20, account()), delete(21, session()), delete(22, post())],
        ]),
    );
    add("two generations", after(vec![vec![put(10, account())], vec![put(20, next_account())]]));
    for (name, steps) in records() {
        let store = MemoryStore::new();
        store.execute(&steps, &terms());
        add("record", contents(&store).into_iter().map(|(_, bytes)| (name.to_owned(), bytes)).collect());
    }
    add("key", keys().into_iter().map(|(name, key)| (name, key.into_bytes())).collect());
    let fields = |fields: &[u32]| fields.iter().flat_map(|field| field.to_be_bytes()).collect::<Vec<u8>>();
    add("fields", vec![("account".to_owned(), fields(Account::SCHEMA.fields))]);
    let outbox = |row: &dyn Model| kvsync::fuzzing::outbox_content(row).unwrap();
    add(
        "outbox",
        vec![
            ("account".to_owned(), outbox(&account())),
            ("session".to_owned(), outbox(&session())),
            ("post".to_owned(), outbox(&post())),
        ],
    );
    all
}

/// The file.
fn golden() -> Entries {
    let lines = FILE.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let [group, name, hex] = line.split('\t').collect::<Vec<_>>().try_into().expect(line);
            let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect(line);
            ((group.to_owned(), name.to_owned()), (0..hex.len()).step_by(2).map(digits).collect())
        })
        .collect()
}

fn line(group: &str, name: &str, bytes: &[u8]) -> String {
    bytes.iter().fold(format!("{group}\t{name}\t"), |mut line, byte| {
        write!(line, "{byte:02x}").unwrap();
        line
    })
}

#[test]
fn what_is_written_today_is_what_was_written_when_the_layout_was_frozen() {
    let (today, golden) = (today(), golden());
    let mut wrong = String::new();
    for (key, bytes) in &today {
        if golden.get(key) != Some(bytes) {
            writeln!(wrong, "{}", line(&key.0, &key.1, bytes)).unwrap();
        }
    }
    for (group, name) in golden.keys().filter(|key| !today.contains_key(key)) {
        writeln!(wrong, "no longer written: {group}, {name}").unwrap();
    }
    assert!(wrong.is_empty(), "written today, and not in the file:\n{wrong}");
}

/// A store whose bytes are these.
#[derive(Debug)]
struct Shelf(HashMap<Key, Bytes>);

impl Shelf {
    fn of(group: &str) -> Self {
        let entries = golden().into_iter().filter(|((of, _), _)| of == group);
        let shelf = Self(entries.map(|((_, name), bytes)| (Key::new(name), bytes.into())).collect());
        assert!(!shelf.0.is_empty(), "{group}");
        shelf
    }
}

impl Store for Shelf {
    fn name(&self) -> &'static str {
        "shelf"
    }

    fn health(&self, _: Duration) -> Health {
        MemoryStore::new().health(Duration::ZERO)
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }
}

impl SyncStore for Shelf {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(1024, 1024, 1)
    }

    fn execute(&self, _: &[Step], _: &Terms) -> Vec<Result<Outcome>> {
        panic!("it is only read")
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>> {
        Ok(keys.iter().map(|key| self.0.get(key).cloned()).collect())
    }

    fn scan(&self, _: &str, _: Option<Cursor>, _: usize) -> Result<Page> {
        Ok(Page::default())
    }

    fn epoch(&self) -> Result<u32> {
        Ok(1)
    }

    fn raise_epoch(&self, epoch: u32) -> Result<u32> {
        Ok(epoch)
    }
}

/// Reads what the file says stands under every key.
fn reads(open: impl Fn(&str) -> KvSync) -> Tested {
    let kv = open("inserted");
    let (email, handle) = ("ann@example.com", "ann");
    assert_eq!(Account::fetch_by_id(&kv, 7)?, Some(account()));
    assert_eq!(Account::fetch_by_email(&kv, email)?, Some(account()));
    assert_eq!(Account::fetch_by_handle(&kv, handle)?, Some(account()));
    assert_eq!(Account::fetch_strict_by_pair(&kv, "a_b%", "ann", account().token)?, Some(account()));
    assert_eq!(Session::fetch_by_id(&kv, 3)?, Some(session()));
    assert_eq!(Session::fetch_by_token(&kv, "t-é")?, Some(session()));
    assert_eq!(Post::fetch_by_slug(&kv, "first")?, Some(post()));
    assert_eq!(Post::fetch_strict_by_slug(&kv, "first")?, Some(post()));

    let kv = open("moved");
    assert_eq!(Account::fetch_by_id(&kv, 7)?, Some(moved()));
    assert_eq!(Account::lookup_by_email(&kv, email)?, Lookup::Absent);
    assert_eq!(Account::lookup_by_handle(&kv, handle)?, Lookup::Absent);
    assert_eq!(Account::fetch_strict_by_handle(&kv, "ann:2")?, Some(moved()));

    let kv = open("in doubt");
    assert_eq!(Account::lookup_by_id(&kv, 7)?, Lookup::Unknown(Miss::Masked));
    assert_eq!(Account::lookup_by_email(&kv, email)?, Lookup::Unknown(Miss::Masked));
    assert_eq!(Account::lookup_by_handle(&kv, handle)?, Lookup::Unknown(Miss::Masked));
    assert_eq!(Session::lookup_by_id(&kv, 3)?, Lookup::Unknown(Miss::Masked));
    assert_eq!(Session::lookup_by_token(&kv, "t-é")?, Lookup::Unknown(Miss::Masked));
    assert_eq!(Post::lookup_by_slug(&kv, "first")?, Lookup::Unknown(Miss::Masked));

    let kv = open("deleted");
    assert_eq!(Account::lookup_by_id(&kv, 7)?, Lookup::Absent);
    assert_eq!(Account::lookup_by_email(&kv, email)?, Lookup::Absent);
    assert_eq!(Account::lookup_by_handle(&kv, handle)?, Lookup::Absent);
    assert_eq!(Session::lookup_by_id(&kv, 3)?, Lookup::Absent);
    assert_eq!(Session::lookup_by_token(&kv, "t-é")?, Lookup::Absent);
    assert_eq!(Post::lookup_by_slug(&kv, "first")?, Lookup::Absent);

    let kv = open("two generations");
    assert_eq!(next::Account::fetch_by_id(&kv, 7)?, Some(next_account()));
    assert_eq!(next::Account::fetch_by_handle(&kv, "ann")?, Some(next_account()));
    assert_eq!(Account::lookup_by_id(&kv, 7)?, Lookup::Unknown(Miss::OtherFields));
    assert_eq!(Account::fetch_by_email(&kv, email)?, Some(account()));
    Ok(())
}

#[test]
fn what_was_stored_is_read() -> Tested {
    reads(|group| KvSync::builder().store(Shelf::of(group)).build().unwrap())
}

fn redis_store(prefix: &str) -> RedisStore {
    patient([env::redis_url().unwrap()]).prefix(prefix).connect().unwrap()
}

#[test]
fn what_was_stored_in_redis_is_read() -> Tested {
    let mut redis = redis::Client::open(env::redis_url()?)?.get_connection()?;
    let fill = |group: &str| {
        let prefix = format!("golden:{:x}:", rand::random::<u64>());
        for (key, bytes) in Shelf::of(group).0 {
            let _: () = redis.set(format!("{prefix}{key}"), &bytes[..]).unwrap();
        }
        KvSync::builder().store(redis_store(&prefix)).build().unwrap()
    };
    let fill = std::cell::RefCell::new(fill);
    reads(|group| (fill.borrow_mut())(group))
}

/// What the scripts in Redis make of a stored record is what the merge in Rust makes of it.
#[test]
fn the_scripts_go_on_from_a_record_that_was_stored() -> Tested {
    let mut redis = redis::Client::open(env::redis_url()?)?.get_connection()?;
    for (name, steps) in records() {
        let stored = &golden()[&("record".to_owned(), name.to_owned())];
        let prefix = format!("golden:{:x}:", rand::random::<u64>());
        let _: () = redis.set(format!("{prefix}home"), stored)?;
        let (here, there) = (MemoryStore::new(), redis_store(&prefix));
        here.execute(&steps, &terms());
        for store in [&here as &dyn SyncStore, &there] {
            store.execute(&[next_step()], &terms()).pop().unwrap()?;
        }
        let contents = contents(&here);
        // The record, the key that the row stands under now, and those that it has left.
        assert!(contents.len() >= 4, "{name}: {contents:?}");
        let keys: Vec<Key> = contents.iter().map(|(key, _)| Key::new(key.as_str())).collect();
        for ((key, bytes), there) in contents.iter().zip(there.get_many(&keys)?) {
            assert_eq!(there.as_deref(), Some(&bytes[..]), "{name}: {key}");
        }
    }
    Ok(())
}

#[test]
fn a_row_of_an_outbox_that_was_written_is_read() {
    let stored = |name: &str| golden()[&("outbox".to_owned(), name.to_owned())].clone();
    let body = |bytes: &[u8]| kvsync::fuzzing::outbox_body(bytes).unwrap().to_vec();
    let decoded: Account = <Account as Syncable>::Codec::decode(&body(&stored("account"))).unwrap();
    assert_eq!(decoded, account());
    assert_eq!(Json::decode::<Session>(&body(&stored("session"))).unwrap(), session());
    assert_eq!(Bson::decode::<Post>(&body(&stored("post"))).unwrap(), post());
}
