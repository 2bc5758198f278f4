//! Models of every kind of key.

use diesel::prelude::*;
use kvsync::Syncable;
use serde::{Deserialize, Serialize};

diesel::table! {
    users (id) {
        id -> Integer,
        email -> Nullable<Text>,
        name -> Text,
    }
}

diesel::table! {
    sessions (id) {
        id -> Integer,
        token -> Text,
        note -> Text,
    }
}

diesel::table! {
    posts (id) {
        id -> Integer,
        slug -> Text,
        hash -> Text,
    }
}

/// A declared home, a key that changes and may be NULL.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = users)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
#[sync_key(name = "email", fmt = "user:email:<email>")]
pub struct User {
    pub id: i32,
    pub email: Option<String>,
    pub name: String,
}

/// Keys that never change: no ledger.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = sessions)]
#[sync_key(name = "id", fmt = "session:id:<id>")]
#[sync_key(name = "token", fmt = "session:token:<token>", immutable)]
#[sync_key(name = "pointer", fmt = "session:pointer:<token>", pointer, immutable)]
pub struct Session {
    pub id: i32,
    pub token: String,
    pub note: String,
}

/// A hidden home, a pointer, rows that can be hidden.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = posts)]
#[sync_key(name = "slug", fmt = "post:slug:<slug>")]
#[sync_key(name = "hash", fmt = "post:hash:<hash>", pointer)]
#[sync(live_if = "deleted_at IS NULL")]
pub struct Post {
    pub id: i32,
    pub slug: String,
    pub hash: String,
}

pub const TABLES: &str = "CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT UNIQUE, name TEXT NOT NULL);
    CREATE TABLE sessions (id INTEGER PRIMARY KEY, token TEXT NOT NULL UNIQUE, note TEXT NOT NULL);
    CREATE TABLE posts (id INTEGER PRIMARY KEY, slug TEXT NOT NULL, hash TEXT NOT NULL, deleted_at TEXT);
    CREATE UNIQUE INDEX posts_slug ON posts (slug) WHERE deleted_at IS NULL;
    CREATE UNIQUE INDEX posts_hash ON posts (hash) WHERE deleted_at IS NULL";
