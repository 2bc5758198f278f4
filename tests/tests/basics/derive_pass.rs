//! What the derives accept, and what they make of it.

use diesel::prelude::*;
use kvsync::codec::Codec;
use kvsync::store::MemoryStore;
use kvsync::{Key, KeyPart, KeyWriter, KvSync, Syncable};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

diesel::table! {
    users (id) {
        id -> Integer,
        uuid -> Text,
        username -> Text,
        deleted_at -> Nullable<Timestamp>,
        email -> Nullable<Text>,
        street -> Text,
        city -> Text,
    }
}

diesel::table! {
    memberships (user_id, group_id) {
        user_id -> Integer,
        group_id -> Text,
        #[sql_name = "type"]
        kind -> Text,
    }
}

/// The model of the documentation.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = users)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
#[sync_key(name = "uuid", fmt = "user:uuid:<uuid>", immutable)]
#[sync_key(name = "composite", fmt = "user:composite:<id>_<uuid>", pointer, assume_unique)]
#[sync(live_if = "deleted_at IS NULL", ttl = "365d", jitter = "10%")]
pub struct User {
    id: i32,
    uuid: String,
    username: String,
}

fn key_of<M: Syncable>(model: &M, index: usize) -> Option<Key> {
    let mut key = KeyWriter::default();
    model.write_key(index, &mut key);
    key.finish()
}

fn kv() -> KvSync {
    KvSync::builder().store(MemoryStore::new()).build().unwrap()
}

#[test]
fn the_schema_says_what_was_declared() {
    let schema = User::SCHEMA;
    assert_eq!((schema.model, schema.table, schema.primary_key), ("User", "users", &["id"][..]));
    assert_eq!((schema.primary, schema.generation, schema.live_if), (Some(0), 0, Some("deleted_at IS NULL")));
    let ttl = schema.ttl.unwrap();
    assert_eq!((ttl.lifetime.as_secs(), ttl.jitter), (365 * 86_400, 0.1));
    assert_eq!(schema.fields.len(), 3);
    let [id, uuid, composite] = schema.keys else { panic!("three keys") };
    assert_eq!((id.name, id.format, id.columns, id.of_primary_key), ("id", "user:id:<id>", &["id"][..], true));
    assert!(uuid.immutable && !uuid.of_primary_key && !uuid.pointer);
    assert!(composite.pointer && composite.assume_unique && !composite.immutable);
    assert_eq!(composite.literals, ["user:composite:", "_", ""]);
}

#[test]
fn builders_and_rows_give_the_same_keys() {
    let user = User { id: 7, uuid: "a_b".into(), username: "x".into() };
    assert_eq!(User::key_by_id(7), Key::new("user:id:7"));
    assert_eq!(User::key_by_composite(7, "a_b"), Key::new("user:composite:7_a_b"));
    assert_eq!(key_of(&user, 0), Some(User::key_by_id(7)));
    assert_eq!(key_of(&user, 1), Some(User::key_by_uuid("a_b")));
    assert_eq!(key_of(&user, 2), Some(User::key_by_composite(7, "a_b")));
    assert_eq!(key_of(&user, 3), None, "there is no such key");
}

#[test]
fn every_fetch_takes_the_fields_own_types() {
    let kv = kv();
    assert_eq!(User::fetch_by_id(&kv, 1).unwrap(), None);
    assert_eq!(User::fetch_strict_by_uuid(&kv, "a").unwrap(), None);
    assert!(User::lookup_by_composite(&kv, 1, &String::from("a")).unwrap().found().is_none());
    assert_eq!(User::fetch_many_by_id(&kv, [1, 2]).unwrap(), [None, None]);
    assert_eq!(User::fetch_many_by_uuid(&kv, &["a".to_owned()]).unwrap(), [None]);
    assert_eq!(User::fetch_many_by_composite(&kv, [(1, "a"), (2, "b")]).unwrap(), [None, None]);
    assert_eq!(User::fetch_many_by_composite(&kv, vec![(1, String::from("a"))]).unwrap(), [None]);
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, KeyPart)]
struct Number(u64);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KeyPart)]
struct Email {
    address: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, KeyPart)]
enum Role {
    Admin,
    r#Guest,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KeyPart)]
struct Tagged<T>(T);

/// Every kind of part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Syncable)]
#[sync_key(name = "number", fmt = "p:number:<id>")]
#[sync_key(name = "email", fmt = "p:email:<email>")]
#[sync_key(name = "role", fmt = "p:role:<role>:<small>")]
#[sync_key(name = "words", fmt = "p:words:<boxed>/<shared>/<borrowed>/<letter>/<flag>")]
#[sync_key(name = "bytes", fmt = "p:bytes:<bytes>:<array>")]
#[sync_key(name = "uuid", fmt = "p:uuid:<uuid>")]
#[sync_key(name = "tagged", fmt = "p:tagged:<tagged>")]
struct Parts {
    id: Number,
    email: Option<Email>,
    role: Role,
    small: Option<u8>,
    boxed: Box<str>,
    shared: Option<String>,
    borrowed: std::borrow::Cow<'static, str>,
    letter: char,
    flag: bool,
    bytes: Vec<u8>,
    array: [u8; 2],
    uuid: uuid::Uuid,
    tagged: Tagged<i32>,
}

fn parts() -> Parts {
    Parts {
        id: Number(9),
        email: Some(Email { address: "a@b".into() }),
        role: Role::Admin,
        small: Some(3),
        boxed: "a/b".into(),
        shared: Some("100%".into()),
        borrowed: "é".into(),
        letter: '/',
        flag: true,
        bytes: vec![0, 255],
        array: [1, 2],
        uuid: uuid::Uuid::nil(),
        tagged: Tagged(-1),
    }
}

#[test]
fn every_kind_of_part_has_its_text() {
    let row = parts();
    let text = |index| key_of(&row, index).unwrap().as_str().to_owned();
    assert_eq!(text(0), "p:number:9");
    assert_eq!(text(1), "p:email:a@b");
    assert_eq!(text(2), "p:role:Admin:3");
    assert_eq!(text(3), "p:words:a%2Fb/100%25/é/%2F/true");
    assert_eq!(text(4), "p:bytes:00ff:0102");
    assert_eq!(text(5), "p:uuid:00000000-0000-0000-0000-000000000000");
    assert_eq!(text(6), "p:tagged:-1");
    assert_eq!(Parts::key_by_number(Number(9)).as_str(), text(0));
    assert_eq!(Parts::key_by_email(row.email.clone().unwrap()).as_str(), text(1), "a value or a reference");
    assert_eq!(Parts::key_by_email(row.email.as_ref().unwrap()).as_str(), text(1));
    assert_eq!(Parts::key_by_role(Role::Admin, 3).as_str(), text(2));
    assert_eq!(Parts::key_by_words("a/b", "100%", "é", '/', true).as_str(), text(3));
    assert_eq!(Parts::key_by_bytes(&[0, 255], [1, 2]).as_str(), text(4));
    assert_eq!(Parts::key_by_uuid(row.uuid).as_str(), text(5));
    assert_eq!(Parts::key_by_tagged(Tagged(-1)).as_str(), text(6));
    assert_eq!(Parts::key_by_role(Role::Guest, 0).as_str(), "p:role:Guest:0");
    let kv = kv();
    assert_eq!(Parts::fetch_many_by_role(&kv, [(Role::Admin, 1), (Role::Guest, 2)]).unwrap(), [None, None]);
    assert_eq!(Parts::fetch_many_by_uuid(&kv, [&row.uuid]).unwrap(), [None]);
    assert_eq!(Parts::fetch_many_by_bytes(&kv, [(vec![1_u8], [1, 2])]).unwrap(), [None]);
}

#[test]
fn a_row_without_an_optional_part_has_no_such_key() {
    let row = Parts { email: None, small: None, ..parts() };
    assert_eq!((key_of(&row, 1), key_of(&row, 2)), (None, None));
    assert!(key_of(&row, 0).is_some());
}

/// A part that refuses a value leaves a key that nothing stands under.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KeyPart)]
struct Perhaps(Option<i32>);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Syncable)]
#[sync_key(name = "perhaps", fmt = "m:<perhaps>")]
struct Maybe {
    id: i32,
    perhaps: Perhaps,
}

#[test]
fn a_part_of_ones_own_may_be_absent() {
    assert_eq!(key_of(&Maybe { id: 1, perhaps: Perhaps(None) }, 0), None);
    assert_eq!(Maybe::fetch_by_perhaps(&kv(), Perhaps(None)).unwrap(), None);
    assert_eq!(Maybe::SCHEMA.primary, None, "no key is made of the primary key alone");
}

/// A primary key of two columns, one renamed, one a raw identifier's neighbour; Diesel names it.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = crate::derive_pass::memberships, primary_key(user_id, group_id))]
#[sync_key(name = "both", fmt = "membership:<group>:<user_id>")]
#[sync_key(name = "group", fmt = "group:<group>", assume_unique)]
#[sync_key(name = "type", fmt = "type:<type>-<user_id>")]
#[sync(generation = 2, codec = kvsync::codec::Json)]
struct Membership {
    user_id: i32,
    #[diesel(column_name = group_id)]
    group: String,
    #[diesel(column_name = kind)]
    r#type: String,
}

#[test]
fn a_composite_primary_key_keeps_its_order() {
    let row = Membership { user_id: 1, group: "a:b".into(), r#type: "x-y".into() };
    let schema = Membership::SCHEMA;
    assert_eq!((schema.table, schema.primary_key), ("memberships", &["user_id", "group_id"][..]));
    assert_eq!((schema.primary, schema.generation), (Some(0), 2));
    assert_eq!(schema.keys[0].columns, ["group_id", "user_id"]);
    assert!(schema.keys[1].of_primary_key && !schema.keys[2].of_primary_key);
    let primary_key: (i32, String) = Syncable::primary_key(&row);
    assert_eq!(primary_key, (1, "a:b".to_owned()));
    let mut key = KeyWriter::default();
    Membership::write_primary_key(&primary_key, &mut key);
    assert_eq!(key.finish(), Some(Key::new("1:a:b")));
    let mut key = KeyWriter::default();
    Membership::write_primary(&primary_key, &mut key);
    assert_eq!(key.finish(), key_of(&row, 0));
    assert_eq!(key_of(&row, 0), Some(Key::new("membership:a%3Ab:1")));
    assert_eq!(key_of(&row, 2), Some(Membership::key_by_type("x-y", 1)));
    assert_eq!(<Membership as Syncable>::Codec::NAME, "JSON");
}

/// Keys that are apart only because a part cannot hold the character that follows it; a primary key
/// that begins with text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Syncable)]
#[sync_key(name = "short", fmt = "apart:<name>:b")]
#[sync_key(name = "long", fmt = "apart:x:<number>:b")]
#[sync(primary_key(name, number))]
struct Apart {
    name: String,
    number: i32,
}

#[test]
fn a_part_never_runs_over_the_text_that_follows_it() {
    let row = Apart { name: "x:1".into(), number: 1 };
    assert_ne!(key_of(&row, 0), key_of(&row, 1));
    let mut key = KeyWriter::default();
    Apart::write_primary_key(&Syncable::primary_key(&row), &mut key);
    assert_eq!(key.finish(), Some(Key::new("x%3A1:1")));
}

/// A second, narrower model of the same table, with an embedded struct and renamed columns.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = users)]
#[serde(rename_all = "camelCase")]
#[sync_key(name = "mail", fmt = "address<<<mail>>>")]
#[sync(primary_key(number))]
struct Mailing {
    #[diesel(column_name = id)]
    number: i32,
    #[diesel(column_name = email)]
    mail: Option<String>,
    #[diesel(embed)]
    #[serde(flatten)]
    address: Address,
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Serialize, Deserialize)]
#[diesel(table_name = users)]
struct Address {
    street: String,
    city: String,
}

#[test]
fn two_models_share_a_table() {
    assert_eq!((Mailing::SCHEMA.table, Mailing::SCHEMA.model), (User::SCHEMA.table, "Mailing"));
    assert_eq!(Mailing::SCHEMA.primary_key, ["id"]);
    assert_eq!(Mailing::SCHEMA.keys[0].columns, ["email"]);
    assert_ne!(Mailing::SCHEMA.fields, User::SCHEMA.fields);
}

#[test]
fn a_literal_bracket_can_be_written() {
    assert_eq!(Mailing::key_by_mail("a>b"), Key::new("address<a%3Eb>"));
}

/// The default table, and names that generated code might use itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Syncable)]
#[sync_key(name = "all", fmt = "a:<kv>:<key>:<parts>:<primary_key>:<index>:<user_id>")]
#[sync(primary_key(primary_key, self_))]
struct AwkwardName {
    kv: String,
    key: i32,
    parts: String,
    primary_key: i32,
    index: i64,
    self_: i32,
    user_id: u8,
}

#[test]
fn names_of_fields_do_not_meet_names_in_generated_code() {
    assert_eq!(AwkwardName::SCHEMA.table, "awkward_names");
    assert_eq!(AwkwardName::key_by_all("a", 1, "b", 2, 3, 4).as_str(), "a:a:1:b:2:3:4");
    assert_eq!(AwkwardName::fetch_by_all(&kv(), "a", 1, "b", 2, 3, 4).unwrap(), None);
    assert_eq!(AwkwardName::fetch_many_by_all(&kv(), [("a", 1, "b", 2, 3, 4)]).unwrap(), [None]);
}

/// Another path to kvsync, other visibilities, and no prelude.
mod elsewhere {
    pub(crate) mod facade {
        pub(crate) use kvsync as sync;
    }

    pub(crate) mod bare {
        #![no_implicit_prelude]
        #![allow(dead_code, reason = "they are in the way")]

        struct Option;
        struct Some;
        struct Result;
        struct Vec;
        struct Ok;

        #[derive(::serde::Serialize, ::serde::Deserialize, ::kvsync::Syncable)]
        #[sync_key(name = "name", fmt = "bare:<name>:<number>")]
        #[sync(crate = "crate::derive_pass::elsewhere::facade::sync")]
        pub(in crate::derive_pass::elsewhere) struct Bare {
            id: i32,
            name: ::std::option::Option<::std::string::String>,
            number: Number,
        }

        #[derive(
            ::core::clone::Clone, ::core::marker::Copy, ::serde::Serialize, ::serde::Deserialize, ::kvsync::KeyPart,
        )]
        #[sync(crate = "crate::derive_pass::elsewhere::facade::sync")]
        pub(in crate::derive_pass::elsewhere) struct Number(pub(in crate::derive_pass::elsewhere) i32);
    }

    pub(crate) fn key() -> kvsync::Key {
        bare::Bare::key_by_name("a", bare::Number(1))
    }
}

#[test]
fn a_model_lives_in_any_module() {
    assert_eq!(elsewhere::key(), Key::new("bare:a:1"));
}

macro_rules! model {
    ($name:ident, $key:literal, $id:ty) => {
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Syncable)]
        #[sync_key(name = "id", fmt = $key)]
        struct $name {
            id: $id,
        }
    };
}

model!(FromMacro, "macro:<id>", i64);

#[test]
fn a_macro_can_write_a_model() {
    assert_eq!(FromMacro::key_by_id(1_i64), Key::new("macro:1"));
    assert_eq!(FromMacro::SCHEMA.fields, OnItsOwn::SCHEMA.fields, "invisible groups do not count");
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Syncable)]
#[sync_key(name = "id", fmt = "own:<id>")]
struct OnItsOwn {
    id: i64,
}

/// Two of its keys are composites, one with a separator that numbers contain too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Syncable)]
#[sync_key(name = "texts", fmt = "c:t:<a>_<b>::<c>")]
#[sync_key(name = "mixed", fmt = "c:m:<id>-<a>-<n>")]
struct Composite {
    id: i32,
    a: String,
    b: String,
    c: String,
    n: Option<i8>,
}

proptest! {
    #[test]
    fn distinct_parts_give_distinct_keys(
        left in ("[a_:%]{0,3}", "[a_:%]{0,3}", "[a_:%]{0,3}"),
        right in ("[a_:%]{0,3}", "[a_:%]{0,3}", "[a_:%]{0,3}"),
        one in (-3..3_i32, "[0-2%-]{0,3}", -3..3_i8),
        other in (-3..3_i32, "[0-2%-]{0,3}", -3..3_i8),
    ) {
        let texts = |(a, b, c): &(String, String, String)| Composite::key_by_texts(a, b, c);
        prop_assert_eq!(texts(&left) == texts(&right), left == right);
        let mixed = |(id, a, n): &(i32, String, i8)| Composite::key_by_mixed(*id, a, *n);
        prop_assert_eq!(mixed(&one) == mixed(&other), one == other);
        let (a, b, c) = left;
        let row = Composite { id: one.0, a, b, c, n: Some(one.2) };
        prop_assert_eq!(key_of(&row, 0), Some(Composite::key_by_texts(&row.a, &row.b, &row.c)));
        prop_assert_eq!(key_of(&row, 1), Some(Composite::key_by_mixed(row.id, &row.a, one.2)));
    }
}
