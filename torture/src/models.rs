//! What is written: three tables, whose models have every kind of key.
//!
//! Each row carries what tells a reader whether it may see it: the life it is in, drawn anew by each insert, how often it
//! was written in that life, the process that wrote it last, and a note, which is poison where the writer knows that it
//! will roll back.

use diesel::prelude::*;
use kvsync::Syncable;
use serde::{Deserialize, Serialize};

diesel::table! {
    accounts (id) {
        id -> Integer,
        email -> Nullable<Text>,
        handle -> Text,
        life -> BigInt,
        seq -> Integer,
        writer -> Integer,
        note -> Text,
    }
}

diesel::table! {
    badges (id) {
        id -> Integer,
        code -> Text,
        life -> BigInt,
        seq -> Integer,
        writer -> Integer,
        note -> Text,
    }
}

diesel::table! {
    members (id) {
        id -> Integer,
        nick -> Text,
        gone -> Integer,
        life -> BigInt,
        seq -> Integer,
        writer -> Integer,
        note -> Text,
    }
}

/// Begins every value that is written only to be rolled back.
pub(crate) const POISON: &str = "poison";

/// A statement each.
pub(crate) const TABLES: [&str; 4] = [
    "CREATE TABLE accounts (id INTEGER PRIMARY KEY, email TEXT UNIQUE, handle TEXT NOT NULL UNIQUE, \
     life BIGINT NOT NULL, seq INTEGER NOT NULL, writer INTEGER NOT NULL, note TEXT NOT NULL)",
    "CREATE TABLE badges (id INTEGER PRIMARY KEY, code TEXT NOT NULL UNIQUE, \
     life BIGINT NOT NULL, seq INTEGER NOT NULL, writer INTEGER NOT NULL, note TEXT NOT NULL)",
    "CREATE TABLE members (id INTEGER PRIMARY KEY, nick TEXT NOT NULL, gone INTEGER NOT NULL, \
     life BIGINT NOT NULL, seq INTEGER NOT NULL, writer INTEGER NOT NULL, note TEXT NOT NULL)",
    "CREATE UNIQUE INDEX members_nick ON members (nick) WHERE gone = 0",
];

/// What a badge that is deleted does to its namesake, past every statement: only triggers see it.
pub(crate) const CASCADE: [&str; 2] = [
    "CREATE TRIGGER badge_gone AFTER DELETE ON badges BEGIN \
     UPDATE members SET gone = 1 - gone, seq = seq + 1 WHERE id = OLD.id; END",
    "CREATE FUNCTION badge_gone() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
     UPDATE members SET gone = 1 - gone, seq = seq + 1 WHERE id = OLD.id; RETURN NULL; END $$; \
     CREATE TRIGGER badge_gone AFTER DELETE ON badges FOR EACH ROW EXECUTE FUNCTION badge_gone()",
];

/// The home is a key of its own, one key is moved between rows, and one may be NULL.
#[derive(
    Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Insertable, Serialize, Deserialize, Syncable,
)]
#[diesel(table_name = accounts)]
#[sync_key(name = "id", fmt = "account:id:<id>")]
#[sync_key(name = "email", fmt = "account:email:<email>")]
#[sync_key(name = "handle", fmt = "account:handle:<handle>")]
pub(crate) struct Account {
    pub(crate) id: i32,
    pub(crate) email: Option<String>,
    pub(crate) handle: String,
    pub(crate) life: i64,
    pub(crate) seq: i32,
    pub(crate) writer: i32,
    pub(crate) note: String,
}

/// No key ever changes while the row lives, so it has no record.
#[derive(
    Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Insertable, Serialize, Deserialize, Syncable,
)]
#[diesel(table_name = badges)]
#[sync_key(name = "id", fmt = "badge:id:<id>")]
#[sync_key(name = "code", fmt = "badge:code:<code>", immutable)]
pub(crate) struct Badge {
    pub(crate) id: i32,
    pub(crate) code: String,
    pub(crate) life: i64,
    pub(crate) seq: i32,
    pub(crate) writer: i32,
    pub(crate) note: String,
}

/// A hidden home; a row that is gone stands under no key, and another may take its nick.
#[derive(
    Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Insertable, Serialize, Deserialize, Syncable,
)]
#[diesel(table_name = members)]
#[sync_key(name = "nick", fmt = "member:nick:<nick>")]
#[sync_key(name = "both", fmt = "member:both:<id>_<nick>")]
#[sync(live_if = "gone = 0")]
pub(crate) struct Member {
    pub(crate) id: i32,
    pub(crate) nick: String,
    pub(crate) gone: i32,
    pub(crate) life: i64,
    pub(crate) seq: i32,
    pub(crate) writer: i32,
    pub(crate) note: String,
}

/// A row of any of the tables.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Row {
    Account(Account),
    Badge(Badge),
    Member(Member),
}

/// Which row it is: its table and its primary key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Id(pub(crate) &'static str, pub(crate) i32);

impl Row {
    /// Which row it is.
    pub(crate) fn id(&self) -> Id {
        match self {
            Self::Account(row) => Id("account", row.id),
            Self::Badge(row) => Id("badge", row.id),
            Self::Member(row) => Id("member", row.id),
        }
    }

    /// The keys that it stands under. Made here and not by the derive, which may be wrong.
    pub(crate) fn keys(&self) -> Vec<String> {
        match self {
            Self::Account(Account { id, email, handle, .. }) => {
                let email = email.as_ref().map(|email| format!("account:email:{email}"));
                [Some(format!("account:id:{id}")), email, Some(format!("account:handle:{handle}"))]
                    .into_iter()
                    .flatten()
                    .collect()
            }
            Self::Badge(Badge { id, code, .. }) => vec![format!("badge:id:{id}"), format!("badge:code:{code}")],
            Self::Member(Member { gone: 1, .. }) => Vec::new(),
            Self::Member(Member { id, nick, .. }) => {
                vec![format!("member:nick:{nick}"), format!("member:both:{id}_{nick}")]
            }
        }
    }

    /// The life that it is in, and how often it was written since it began.
    pub(crate) fn age(&self) -> (i64, i32) {
        match self {
            Self::Account(row) => (row.life, row.seq),
            Self::Badge(row) => (row.life, row.seq),
            Self::Member(row) => (row.life, row.seq),
        }
    }

    /// The process that wrote it last.
    pub(crate) fn writer(&self) -> i32 {
        match self {
            Self::Account(row) => row.writer,
            Self::Badge(row) => row.writer,
            Self::Member(row) => row.writer,
        }
    }

    /// Whether it was written only to be rolled back.
    pub(crate) fn is_poison(&self) -> bool {
        let (note, key) = match self {
            Self::Account(row) => (&row.note, row.email.as_deref().unwrap_or(&row.handle)),
            Self::Badge(row) => (&row.note, row.code.as_str()),
            Self::Member(row) => (&row.note, row.nick.as_str()),
        };
        note.starts_with(POISON) || key.starts_with(POISON)
    }

    /// Reads the body of an entry under this key.
    pub(crate) fn decode(key: &str, body: &[u8]) -> Result<Self, rmp_serde::decode::Error> {
        match key.split(':').next() {
            Some("badge") => rmp_serde::from_slice(body).map(Self::Badge),
            Some("member") => rmp_serde::from_slice(body).map(Self::Member),
            _ => rmp_serde::from_slice(body).map(Self::Account),
        }
    }
}
