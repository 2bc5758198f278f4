//! Each kind of difference, made by hand, is found under the keys where it is, named, and mended.

use std::time::Duration;

use kvsync::envelope::{State, Value};
use kvsync::model::{Model, Syncable as _};
use kvsync::record::{Content, Listed};
use kvsync::upkeep::DifferenceKind::{Dead, Ledger, Missing, Orphan, Outdated, Stale, Undecodable, Unknown};
use kvsync::{Key, Lookup};
use kvsync_tests::Tested;

use crate::models::*;
use crate::rig::{Rig, everywhere};

fn user(id: i32, email: &str, name: &str) -> User {
    User { id, email: Some(email.to_owned()), name: name.to_owned() }
}

/// A row in bytes.
fn value(row: &impl Model) -> Value {
    let mut bytes = Vec::new();
    row.encode(&mut bytes).unwrap();
    Value::model(row.codec(), row.schema().fields, &bytes)
}

#[test]
fn a_store_that_was_written_as_usual_is_clean() -> Tested {
    everywhere(|on| {
        let mut rig = Rig::filled(on);
        rig.is_clean();
        rig.run("UPDATE users SET email = 'moved@x' WHERE id = 1");
        rig.run("DELETE FROM users WHERE id = 2");
        rig.run("UPDATE posts SET deleted_at = 'now' WHERE id = 1");
        rig.run("UPDATE posts SET deleted_at = NULL, slug = 'first' WHERE id = 3");
        rig.run("DELETE FROM sessions WHERE id = 2");
        rig.flush();
        rig.is_clean();
        let found = rig.verify();
        assert_eq!((found.rows, found.unreadable, found.moving), (2 + 2 + 2, 0, 0));
        let repaired = rig.repair();
        assert_eq!((repaired.mended, repaired.left), (0, 0));
    })
}

#[test]
fn entries_that_are_lost() -> Tested {
    everywhere(|on| {
        let rig = Rig::filled(on);
        for key in ["user:id:1", "user:email:bob@x", "session:token:two", "session:pointer:one", "~posts:Post:0:1"] {
            rig.lose(key);
        }
        let found = rig.finds(&[
            (Missing, "user:id:1"),
            (Missing, "user:email:bob@x"),
            (Missing, "session:token:two"),
            (Missing, "session:pointer:one"),
            (Missing, "~posts:Post:0:1"),
        ]);
        let of = |key: &str| found.iter().find(|difference| difference.key.as_str() == key).unwrap();
        let bob = of("user:email:bob@x");
        assert_eq!((bob.primary_key.as_deref(), bob.key_name), (Some("2"), Some("email")));
        assert_eq!((bob.model, bob.table, &*bob.database), ("User", "users", "main"));
        assert_eq!((of("~posts:Post:0:1").primary_key.as_deref(), of("~posts:Post:0:1").key_name), (Some("1"), None));
        assert_eq!(User::fetch_strict_by_email(&rig.kv, "bob@x").unwrap(), Some(user(2, "bob@x", "Bob")));
        assert_eq!(Session::fetch_by_pointer(&rig.kv, "one").unwrap().unwrap().note, "a");
        assert_eq!(Post::fetch_strict_by_hash(&rig.kv, "h1").unwrap().unwrap().slug, "first");
    })
}

#[test]
fn writes_past_kvsync() -> Tested {
    everywhere(|on| {
        let rig = Rig::filled(on);
        rig.quietly(
            "INSERT INTO users VALUES (4, 'dan@x', 'Dan');
             UPDATE users SET name = 'Anna' WHERE id = 1;
             UPDATE sessions SET note = 'z' WHERE id = 3;
             UPDATE posts SET slug = 'best' WHERE id = 2",
        );
        let found = rig.finds(&[
            (Missing, "user:id:4"),
            (Missing, "user:email:dan@x"),
            (Stale, "user:id:1"),
            (Stale, "user:email:ann@x"),
            (Stale, "session:id:3"),
            (Stale, "session:token:three"),
            (Stale, "~posts:Post:0:2"),
            (Missing, "post:slug:best"),
            (Orphan, "post:slug:second"),
        ]);
        assert!(
            found.iter().all(|difference| difference.kind == Missing || difference.stored < Some(difference.read_at))
        );
        assert_eq!(User::fetch_by_email(&rig.kv, "ann@x").unwrap(), Some(user(1, "ann@x", "Anna")));
        assert_eq!(Post::lookup_by_slug(&rig.kv, "second").unwrap(), Lookup::Absent);
        assert_eq!(Post::fetch_by_hash(&rig.kv, "h2").unwrap().unwrap().slug, "best");
    })
}

#[test]
fn a_key_that_another_row_has_by_now_is_left_to_it() -> Tested {
    everywhere(|on| {
        let mut rig = Rig::filled(on);
        // Its record still lists the key.
        rig.quietly("DELETE FROM users WHERE id = 1; DELETE FROM posts WHERE id = 1");
        rig.run("UPDATE users SET email = 'ann@x' WHERE id = 2");
        rig.run("UPDATE posts SET slug = 'first', hash = 'h1' WHERE id = 2");
        rig.flush();
        rig.finds(&[(Orphan, "user:id:1"), (Orphan, "~posts:Post:0:1")]);
        assert_eq!(User::fetch_strict_by_email(&rig.kv, "ann@x").unwrap(), Some(user(2, "ann@x", "Bob")));
        assert_eq!(Post::fetch_by_slug(&rig.kv, "first").unwrap().unwrap().id, 2);
        assert_eq!(Post::fetch_by_hash(&rig.kv, "h1").unwrap().unwrap().id, 2);
    })
}

#[test]
fn deletes_past_kvsync_are_found_from_the_stores_side() -> Tested {
    everywhere(|on| {
        let rig = Rig::filled(on);
        rig.quietly(
            "DELETE FROM users WHERE id = 1; DELETE FROM sessions WHERE id = 2;
             UPDATE posts SET deleted_at = 'now' WHERE id = 1",
        );
        rig.finds(&[
            (Orphan, "user:id:1"),
            (Orphan, "user:email:ann@x"),
            (Orphan, "session:id:2"),
            (Orphan, "session:token:two"),
            (Orphan, "session:pointer:two"),
            (Orphan, "~posts:Post:0:1"),
            (Orphan, "post:slug:first"),
            (Orphan, "post:hash:h1"),
        ]);
        assert_eq!(User::lookup_by_email(&rig.kv, "ann@x").unwrap(), Lookup::Absent);
        assert_eq!(User::lookup_by_id(&rig.kv, 1).unwrap(), Lookup::Absent);
        assert_eq!(Session::lookup_by_token(&rig.kv, "two").unwrap(), Lookup::Absent);
        assert!(Session::fetch_by_pointer(&rig.kv, "two").unwrap().is_none());
        assert!(Post::fetch_by_slug(&rig.kv, "first").unwrap().is_none());
        assert!(Post::fetch_by_hash(&rig.kv, "h1").unwrap().is_none());
    })
}

#[test]
fn rows_that_the_store_takes_for_gone() -> Tested {
    everywhere(|on| {
        let rig = Rig::filled(on);
        rig.spoil("user:email:ann@x", State::Tombstone, Value::none());
        rig.spoil("session:id:1", State::Tombstone, Value::none());
        let version = rig.record("user:id:2").version.next();
        rig.merge("user:id:2", version, Content::Delete);
        let mut wanted = vec![(Dead, "user:email:ann@x"), (Dead, "session:id:1"), (Dead, "user:id:2")];
        // Its copy stands there without a record that lists it, but its row does too.
        wanted.sort_unstable();
        rig.finds(&wanted);
        assert_eq!(User::fetch_strict_by_email(&rig.kv, "bob@x").unwrap(), Some(user(2, "bob@x", "Bob")));
        assert!(User::fetch_by_email(&rig.kv, "ann@x").unwrap().is_some());
    })
}

#[test]
fn rows_that_the_store_does_not_know() -> Tested {
    everywhere(|on| {
        let rig = Rig::filled(on);
        // The process that marked the row, and would have settled it, is gone.
        let version = rig.record("user:id:1").version.next();
        rig.merge("user:id:1", version, Content::Unknown);
        rig.spoil("user:email:bob@x", State::Unknown, Value::none());
        rig.spoil("session:token:two", State::Unknown, Value::none());
        let found = rig.finds(&[(Unknown, "user:id:1"), (Unknown, "user:email:bob@x"), (Unknown, "session:token:two")]);
        assert!(found.iter().all(|difference| difference.stored.is_some()));
        assert_eq!(User::fetch_by_id(&rig.kv, 1).unwrap(), Some(user(1, "ann@x", "Ann")));
    })
}

#[test]
fn marks_of_rows_that_are_gone_are_settled() -> Tested {
    everywhere(|on| {
        let rig = Rig::filled(on);
        rig.quietly("DELETE FROM users WHERE id = 2; DELETE FROM posts WHERE id = 1");
        for home in ["user:id:2", "~posts:Post:0:1"] {
            let version = rig.record(home).version.next();
            rig.merge(home, version, Content::Unknown);
        }
        // Of each, the copies: no record says any more that they are right.
        let found = rig.verify();
        assert_eq!(found.count(Unknown), 2, "{:#?}", found.differences);
        assert!(rig.repair().is_clean());
        rig.is_clean();
        assert_eq!(rig.state("user:id:2"), Some(State::Tombstone));
        assert_eq!(User::lookup_by_email(&rig.kv, "bob@x").unwrap(), Lookup::Absent);
        assert!(Post::fetch_by_hash(&rig.kv, "h1").unwrap().is_none());
    })
}

#[test]
fn entries_of_other_fields() -> Tested {
    everywhere(|on| {
        let rig = Rig::filled(on);
        let older = |row: &dyn Model| {
            let mut bytes = Vec::new();
            row.encode(&mut bytes).unwrap();
            Value::model(row.codec(), &row.schema().fields[1..], &bytes)
        };
        let ann = user(1, "ann@x", "Ann");
        rig.spoil("user:email:ann@x", State::Value, older(&ann));
        rig.spoil("session:id:2", State::Value, older(&Session { id: 2, token: "two".into(), note: "b".into() }));
        // And one of a row that is gone, which its bytes do not say.
        rig.quietly("DELETE FROM sessions WHERE id = 3");
        rig.spoil("session:id:3", State::Value, older(&Session { id: 3, token: "three".into(), note: "c".into() }));
        rig.finds(&[
            (Outdated, "user:email:ann@x"),
            (Outdated, "session:id:2"),
            (Outdated, "session:id:3"),
            (Orphan, "session:token:three"),
            (Orphan, "session:pointer:three"),
        ]);
        assert_eq!(User::fetch_by_email(&rig.kv, "ann@x").unwrap(), Some(ann));
        assert_eq!(Session::lookup_by_id(&rig.kv, 3).unwrap(), Lookup::Absent);
    })
}

#[test]
fn entries_that_cannot_be_decoded() -> Tested {
    everywhere(|on| {
        let rig = Rig::filled(on);
        let broken = |fields| Value::model(0, fields, b"\x81\xa1a");
        rig.spoil("user:id:1", State::Value, broken(User::SCHEMA.fields));
        rig.spoil("user:email:bob@x", State::Value, broken(User::SCHEMA.fields));
        rig.spoil("session:id:3", State::Value, broken(Session::SCHEMA.fields));
        rig.quietly("DELETE FROM sessions WHERE id = 3");
        let found = rig.verify();
        assert_eq!(found.count(Undecodable), 2, "{:#?}", found.differences);
        assert!(rig.repair().is_clean());
        rig.is_clean();
        assert_eq!(User::fetch_by_id(&rig.kv, 1).unwrap(), Some(user(1, "ann@x", "Ann")));
        assert_eq!(Session::lookup_by_id(&rig.kv, 3).unwrap(), Lookup::Absent);
    })
}

#[test]
fn copies_under_keys_that_are_not_their_rows() -> Tested {
    everywhere(|on| {
        let rig = Rig::filled(on);
        // A ledger was lost before it could release the key that the row has left.
        rig.quietly("UPDATE users SET email = 'new@x' WHERE id = 1");
        rig.lose("user:id:1");
        // A row stands under the key of another.
        rig.spoil("user:email:bob@x", State::Value, value(&user(1, "ann@x", "Ann")));
        rig.finds(&[
            (Missing, "user:id:1"),
            (Missing, "user:email:new@x"),
            (Orphan, "user:email:ann@x"),
            (Orphan, "user:email:bob@x"),
        ]);
        assert_eq!(User::lookup_by_email(&rig.kv, "ann@x").unwrap(), Lookup::Absent);
        assert_eq!(User::fetch_by_email(&rig.kv, "bob@x").unwrap(), Some(user(2, "bob@x", "Bob")));
    })
}

#[test]
fn ledgers_that_are_not_their_rows() -> Tested {
    everywhere(|on| {
        let rig = Rig::filled(on);
        // A change whose delivery stopped after its merge: the key is dirty and still answers.
        let version = rig.record("user:id:1").version.next();
        let content = Content::Put { value: value(&user(1, "ann@x", "Ann")), expires_at: 0, keys: Vec::new() };
        rig.merge("user:id:1", version, content);
        let version = rig.record("user:id:2").version.next();
        let keys = ["user:email:bob@x", "user:email:bobby@x"].map(|key| Listed { key: Key::new(key), pointer: false });
        let content = Content::Put { value: value(&user(2, "bob@x", "Bob")), expires_at: 0, keys: keys.to_vec() };
        rig.merge("user:id:2", version, content);
        rig.finds(&[(Ledger, "user:id:1"), (Ledger, "user:id:2")]);
        assert_eq!(User::fetch_strict_by_email(&rig.kv, "ann@x").unwrap(), Some(user(1, "ann@x", "Ann")));
        assert!(rig.record("user:id:2").dirty.is_empty());
    })
}

#[test]
fn the_delete_of_a_row_that_was_never_finished() -> Tested {
    everywhere(|on| {
        let rig = Rig::filled(on);
        rig.quietly("DELETE FROM users WHERE id = 1");
        let version = rig.record("user:id:1").version.next();
        rig.merge("user:id:1", version, Content::Delete);
        assert_eq!(User::fetch_by_email(&rig.kv, "ann@x").unwrap(), Some(user(1, "ann@x", "Ann")), "the slot stands");
        rig.finds(&[(Ledger, "user:id:1"), (Orphan, "user:email:ann@x")]);
        assert_eq!(User::lookup_by_email(&rig.kv, "ann@x").unwrap(), Lookup::Absent);
        assert!(rig.record("user:id:1").dirty.is_empty());
    })
}

#[test]
fn a_row_that_left_keys_behind_is_looked_up_for_each_of_them() -> Tested {
    everywhere(|on| {
        let mut rig = Rig::filled(on);
        // Where a key declared immutable was changed all the same, the row stands under the old one, too.
        rig.quietly("UPDATE sessions SET token = 'uno' WHERE id = 1");
        rig.run("UPDATE sessions SET note = 'b' WHERE id = 1");
        rig.quietly("UPDATE sessions SET token = 'un' WHERE id = 1");
        rig.run("UPDATE sessions SET note = 'c' WHERE id = 1");
        rig.flush();
        let left = ["session:pointer:one", "session:pointer:uno", "session:token:one", "session:token:uno"];
        let found = rig.kv.verify_all().in_flight(Duration::from_millis(1)).run().unwrap();
        let mut named: Vec<_> = found.differences.iter().map(|found| (found.kind, found.key.as_str())).collect();
        named.sort_unstable();
        assert_eq!(named, left.map(|key| (Orphan, key)), "{:#?}", found.differences);
        rig.finds(&left.map(|key| (Orphan, key)));
    })
}
