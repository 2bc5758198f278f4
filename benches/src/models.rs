//! The models that are measured.

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

/// The user of the ancestors' README: of three keys, one never changes and two may.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = users)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
#[sync_key(name = "uuid", fmt = "user:uuid:<uuid>")]
#[sync_key(name = "composite", fmt = "user:composite:<id>_<uuid>")]
pub(crate) struct User {
    pub(crate) id: i32,
    pub(crate) uuid: String,
    pub(crate) username: String,
}

/// The same row under one key.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = users)]
#[sync_key(name = "id", fmt = "account:id:<id>")]
pub(crate) struct Account {
    pub(crate) id: i32,
    pub(crate) uuid: String,
    pub(crate) username: String,
}

/// A user to insert.
#[derive(Debug, Clone, Insertable)]
#[diesel(table_name = users)]
pub(crate) struct NewUser {
    pub(crate) uuid: String,
    pub(crate) username: String,
}

// Of the table only what keys are made of.
diesel::table! { series (id) { id -> BigInt } }

/// What a station measured in an hour: lists and numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Syncable)]
#[diesel(table_name = series)]
#[sync_key(name = "id", fmt = "series:id:<id>")]
pub(crate) struct Series {
    pub(crate) id: i64,
    pub(crate) station: i32,
    pub(crate) began_at: i64,
    pub(crate) temperatures: Vec<f64>,
    pub(crate) counts: Vec<i32>,
    pub(crate) flags: Vec<bool>,
}

/// The table of [`User`], on every database.
pub(crate) const CREATE_SQLITE: &str =
    "CREATE TABLE users (id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, username TEXT NOT NULL)";
/// The same on Postgres.
pub(crate) const CREATE_POSTGRES: &str =
    "CREATE TABLE users (id SERIAL PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, username TEXT NOT NULL)";

/// The user of this number: every run writes the same rows.
pub(crate) fn user(id: i32) -> User {
    let NewUser { uuid, username } = new_user(id.unsigned_abs());
    User { id, uuid, username }
}

/// The new user of this number.
pub(crate) fn new_user(number: u32) -> NewUser {
    NewUser { uuid: uuid(number), username: format!("user{number}") }
}

/// The series of this number: 60 temperatures, as many counts and flags.
pub(crate) fn series(id: u32) -> Series {
    let minute = |minute: u32| mixed(id * 64 + minute);
    let draw = |minute_: u32| u32::try_from(minute(minute_) % 4000).unwrap_or_default();
    Series {
        id: i64::from(id),
        station: i32::try_from(id % 500).unwrap_or_default(),
        began_at: 1_700_000_000 + i64::from(id) * 3600,
        temperatures: (0..60).map(|at| f64::from(draw(at)) / 100.0 - 10.0).collect(),
        counts: (0..60).map(|at| i32::try_from(draw(at)).unwrap_or_default()).collect(),
        flags: (0..60).map(|at| draw(at) % 3 == 0).collect(),
    }
}

/// Text in the form of a version 4 UUID, the same for the same number; distinct for distinct ones.
fn uuid(number: u32) -> String {
    let (a, b) = (mixed(number), mixed(number ^ 0x5555_5555));
    format!("{number:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}", a >> 48, (a >> 32) & 0xfff, a & 0xfff, b & 0xffff_ffff_ffff)
}

/// The finalizer of a well-known mixing function: spreads close numbers far apart, and distinct ones stay distinct.
pub(crate) fn mixed(number: u32) -> u64 {
    let mut x = u64::from(number).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
