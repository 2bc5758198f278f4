//! The model that both processes share, as they would share a crate.

use diesel::prelude::*;
use kvsync::Syncable;
use serde::{Deserialize, Serialize};

diesel::table! {
    users (id) {
        id -> Integer,
        uuid -> Text,
        username -> Text,
    }
}

/// A user, found under each of these keys.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = users)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
#[sync_key(name = "uuid", fmt = "user:uuid:<uuid>")]
#[sync_key(name = "composite", fmt = "user:composite:<id>_<uuid>")]
pub struct User {
    pub id: i32,
    pub uuid: String,
    pub username: String,
}
