//! A model with two keys and its table, which means the same on SQLite and on Postgres.

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

/// A row under its primary key and, where it has one, under its address.
#[derive(
    Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Insertable, Serialize, Deserialize, Syncable,
)]
#[diesel(table_name = users)]
#[sync_key(name = "id", fmt = "user:<id>")]
#[sync_key(name = "email", fmt = "user:email:<email>")]
pub struct User {
    /// The primary key.
    pub id: i32,
    /// Unique.
    pub email: Option<String>,
    /// In no key.
    pub name: String,
}

/// Makes the table.
pub const TABLE: &str = "CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT UNIQUE, name TEXT NOT NULL)";

/// A row with an address.
#[must_use]
pub fn user(id: i32, email: &str, name: &str) -> User {
    User { id, email: Some(email.into()), name: name.into() }
}
