//! The shapes on SQLite.

use chrono::{NaiveDate, NaiveDateTime};
use diesel::connection::{DefaultLoadingMode, SimpleConnection};
use diesel::dsl;
use diesel::prelude::*;
use diesel::result::Error as DbError;
use diesel::sql_types::{Integer, Text};
use diesel::upsert::excluded;
use diesel::{delete, insert_into, insert_or_ignore_into, replace_into, select, sql_query, update};
use kvsync::Syncable;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::common::common_shapes;
use crate::models::*;
use crate::run::{Shape, shapes};
use crate::{member, sorted, user};

diesel::table! {
    documents (id) {
        id -> Text,
        body -> Json,
        at -> Timestamp,
        day -> Date,
        raw -> Nullable<Binary>,
        ratio -> Double,
        big -> BigInt,
    }
}

#[derive(
    Debug,
    Clone,
    PartialEq,
    Queryable,
    Selectable,
    Identifiable,
    Insertable,
    AsChangeset,
    Serialize,
    Deserialize,
    Syncable,
)]
#[diesel(table_name = documents)]
#[sync_key(name = "id", fmt = "document:<id>")]
pub(crate) struct Document {
    pub big: i64,
    pub id: String,
    pub body: Value,
    pub raw: Option<Vec<u8>>,
    #[diesel(embed)]
    #[serde(flatten)]
    pub when: When,
    pub ratio: f64,
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Insertable, AsChangeset, Serialize, Deserialize)]
#[diesel(table_name = documents)]
pub(crate) struct When {
    pub day: NaiveDate,
    pub at: NaiveDateTime,
}

pub(crate) const TABLES: &str = "
    PRAGMA foreign_keys = ON;
    CREATE TABLE users (
        id INTEGER PRIMARY KEY NOT NULL,
        name TEXT NOT NULL UNIQUE,
        age INTEGER CHECK (age >= 0),
        active BOOLEAN NOT NULL DEFAULT 1
    );
    CREATE TABLE memberships (
        team_id INTEGER NOT NULL, user_id INTEGER NOT NULL, role TEXT NOT NULL, note TEXT, PRIMARY KEY (team_id, user_id)
    );
    CREATE TABLE counters (id INTEGER PRIMARY KEY NOT NULL, hits INTEGER NOT NULL DEFAULT 0);
    CREATE TABLE posts (id INTEGER PRIMARY KEY NOT NULL, user_id INTEGER NOT NULL REFERENCES users (id), title TEXT NOT NULL);
    CREATE TABLE documents (
        id TEXT PRIMARY KEY NOT NULL, body TEXT NOT NULL, at TIMESTAMP NOT NULL, day DATE NOT NULL, raw BLOB,
        ratio DOUBLE NOT NULL, big BIGINT NOT NULL
    );";

fn document(id: &str) -> Document {
    Document {
        big: i64::MAX,
        id: id.to_owned(),
        body: json!({ "a": [1, null, "x"], "b": { "c": 1.5 } }),
        raw: Some(vec![0, 1, 255]),
        when: When { day: date(), at: date().and_hms_micro_opt(12, 34, 56, 789_012).unwrap() },
        ratio: 0.1,
    }
}

fn date() -> NaiveDate {
    NaiveDate::from_ymd_opt(2024, 2, 29).unwrap()
}

pub(crate) fn all() -> Vec<Shape<SqliteConnection, crate::Wrapped<SqliteConnection>>> {
    let mut all = common_shapes! { SqliteConnection, crate::Wrapped<SqliteConnection> };
    all.extend(shapes! { SqliteConnection, crate::Wrapped<SqliteConnection>;
        "insert or ignore, no conflict" => |conn| {
            insert_or_ignore_into(users::table).values(users::name.eq("new")).execute(conn)
        }
        "insert or ignore, a conflict" => |conn| {
            insert_or_ignore_into(users::table).values(users::name.eq("ada")).execute(conn)
        }
        "insert or ignore a batch of which one conflicts" => |conn| {
            insert_or_ignore_into(users::table).values(&vec![users::name.eq("n1"), users::name.eq("ada")]).execute(conn)
        }
        "insert or ignore, the row back" => |conn| {
            insert_or_ignore_into(users::table).values(users::name.eq("ada")).get_result::<User>(conn).optional()
        }
        "replace by the primary key"; "second unique key" => |conn| {
            replace_into(users::table).values(user(5, "replaced")).execute(conn)
        }
        "replace a row that is not there"; "second unique key" => |conn| {
            replace_into(users::table).values(user(50, "new")).execute(conn)
        }
        "replace, the row back"; "second unique key" => |conn| {
            replace_into(users::table).values(user(5, "replaced")).get_result::<User>(conn)
        }
        "replace a batch"; "second unique key" => |conn| {
            replace_into(users::table).values(&vec![user(5, "r5"), user(6, "r6")]).execute(conn)
        }
        "replace with a composite primary key" => |conn| {
            replace_into(memberships::table).values(&member(1, 2, Role::Owner, None)).execute(conn)
        }
        "insert a document" => |conn| { insert_into(documents::table).values(&document("new")).execute(conn) }
        "insert documents, back" => |conn| {
            insert_into(documents::table).values(&document("new")).get_result::<(String, Value, NaiveDateTime, NaiveDate, Option<Vec<u8>>, f64, i64)>(conn)
        }
        "update a document" => |conn| {
            let changed = Document { body: json!([]), raw: None, ratio: -0.5, ..document("d") };
            update(documents::table).set(&changed).returning(Document::as_returning()).get_result(conn)
        }
        "delete a document" => |conn| {
            delete(documents::table.filter(documents::id.eq("d"))).returning((documents::body, documents::at)).load::<(Value, NaiveDateTime)>(conn)
        }
        "raw insert with binds" => |conn| {
            sql_query("INSERT INTO users (name, age) VALUES (?, ?)").bind::<Text, _>("it's ?").bind::<Integer, _>(5).execute(conn)
        }
        "raw update with numbered binds" => |conn| {
            sql_query("UPDATE users SET name = ?2 WHERE id = ?1 RETURNING id, name").bind::<Integer, _>(1).bind::<Text, _>("n").load::<Named>(conn)
        }
        "raw update with a schema" => |conn| {
            sql_query("UPDATE main.users SET age = 4 WHERE id = 1 RETURNING age").load::<Aged>(conn)
        }
        "raw update with brackets and backticks" => |conn| {
            sql_query("UPDATE [users] SET `age` = 4, [name] = 'x' WHERE \"id\" = 1").execute(conn)
        }
        "raw update of a table in single quotes" => |conn| {
            sql_query("UPDATE 'users' SET age = 4 WHERE id = 1").execute(conn)
        }
        "raw update or ignore", 1 => |conn| {
            sql_query("UPDATE OR IGNORE users SET name = 'ada' WHERE id < 3").execute(conn)
        }
        "raw insert or rollback" => |conn| { sql_query("INSERT OR ROLLBACK INTO users (name) VALUES ('new')").execute(conn) }
        "raw insert or rollback that fails, then an update" => |conn| {
            let failed = sql_query("INSERT OR ROLLBACK INTO users (name) VALUES ('ada')").execute(conn);
            assert!(failed.is_err());
            update(users::table.find(1)).set(users::age.eq(1)).execute(conn)?;
            conn.transaction(|conn| update(users::table.find(2)).set(users::age.eq(1)).execute(conn))
        }
        "raw insert or replace"; "second unique key" => |conn| {
            sql_query("INSERT OR REPLACE INTO users (id, name) VALUES (5, 'r')").execute(conn)
        }
        "raw replace"; "second unique key" => |conn| { sql_query("REPLACE INTO users (id, name) VALUES (5, 'r')").execute(conn) }
        "raw upsert with two conflict clauses" => |conn| {
            sql_query("INSERT INTO users (id, name) VALUES (1, 'bob')
                       ON CONFLICT (id) DO UPDATE SET age = 1 ON CONFLICT (name) DO UPDATE SET age = 2").execute(conn)
        }
        "raw explain" => |conn| { sql_query("EXPLAIN QUERY PLAN DELETE FROM users").execute(conn) }
        "raw update of rowid tables by rowid" => |conn| {
            sql_query("UPDATE users SET age = 4 WHERE rowid = 1").execute(conn)
        }
    });
    all
}
