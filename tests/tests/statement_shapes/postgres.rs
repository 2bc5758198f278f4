//! The shapes on Postgres.

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use diesel::connection::{DefaultLoadingMode, SimpleConnection};
use diesel::dsl;
use diesel::pg::PgRowByRowLoadingMode;
use diesel::prelude::*;
use diesel::result::Error as DbError;
use diesel::sql_types::{Integer, Text};
use diesel::upsert::{excluded, on_constraint};
use diesel::{delete, insert_into, select, sql_query, update};
use kvsync::Syncable;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::common::common_shapes;
use crate::models::*;
use crate::run::{Shape, shapes};
use crate::{member, sorted, user};

diesel::table! {
    documents (id) {
        id -> Uuid,
        body -> Jsonb,
        tags -> Array<Text>,
        at -> Timestamptz,
        day -> Date,
        clock -> Time,
        raw -> Nullable<Bytea>,
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
    pub id: Uuid,
    pub body: Value,
    pub tags: Vec<String>,
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
    pub clock: NaiveTime,
    pub at: DateTime<Utc>,
}

pub(crate) const TABLES: &str = "
    CREATE TYPE member_role AS ENUM ('owner', 'guest');
    CREATE TABLE users (
        id SERIAL PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        age INTEGER CHECK (age >= 0),
        active BOOLEAN NOT NULL DEFAULT true
    );
    CREATE TABLE memberships (
        team_id INTEGER NOT NULL, user_id INTEGER NOT NULL, role member_role NOT NULL, note TEXT,
        PRIMARY KEY (team_id, user_id)
    );
    CREATE TABLE counters (id SERIAL PRIMARY KEY, hits INTEGER NOT NULL DEFAULT 0);
    CREATE TABLE posts (id SERIAL PRIMARY KEY, user_id INTEGER NOT NULL REFERENCES users (id), title TEXT NOT NULL);
    CREATE TABLE documents (
        id UUID PRIMARY KEY, body JSONB NOT NULL, tags TEXT[] NOT NULL, at TIMESTAMPTZ NOT NULL, day DATE NOT NULL,
        clock TIME NOT NULL, raw BYTEA, ratio FLOAT8 NOT NULL, big INT8 NOT NULL
    );";

fn document(id: u128) -> Document {
    let day = NaiveDate::from_ymd_opt(2024, 2, 29).unwrap();
    let clock = NaiveTime::from_hms_micro_opt(12, 34, 56, 789_012).unwrap();
    Document {
        big: i64::MAX,
        id: Uuid::from_u128(id),
        body: json!({ "a": [1, null, "x"], "b": { "c": 1.5 } }),
        tags: vec!["x".to_owned(), "{\"y\", z}".to_owned()],
        raw: Some(vec![0, 1, 255]),
        when: When { day, clock, at: day.and_time(clock).and_utc() },
        ratio: 0.1,
    }
}

#[expect(clippy::too_many_lines, reason = "a table")]
pub(crate) fn all() -> Vec<Shape<PgConnection, crate::Wrapped<PgConnection>>> {
    let mut all = common_shapes! { PgConnection, crate::Wrapped<PgConnection> };
    all.extend(shapes! { PgConnection, crate::Wrapped<PgConnection>;
        "insert a batch, rows back" => |conn| {
            insert_into(users::table).values(&vec![NewUser { name: "n1", age: Some(1) }, NewUser { name: "n2", age: None }])
                .get_results::<User>(conn)
        }
        "insert a batch, one row back" => |conn| {
            insert_into(users::table).values(&vec![users::name.eq("n1"), users::name.eq("n2")]).get_result::<User>(conn)
        }
        "insert an empty batch, rows back" => |conn| {
            insert_into(users::table).values(&Vec::<NewUser<'_>>::new()).get_results::<User>(conn)
        }
        "insert rows, back row by row" => |conn| {
            insert_into(users::table).values(&vec![users::name.eq("n1"), users::name.eq("n2")])
                .load_iter::<User, PgRowByRowLoadingMode>(conn)?.collect::<QueryResult<Vec<_>>>()
        }
        "insert from a select, rows back" => |conn| {
            insert_into(users::table).values(posts::table.select(posts::title).order(posts::id)).into_columns(users::name)
                .returning(users::name).get_results::<String>(conn)
        }
        "insert from a select, on conflict do nothing" => |conn| {
            insert_into(users::table).values(users::table.select(users::name)).into_columns(users::name)
                .on_conflict_do_nothing().execute(conn)
        }
        "upsert many rows" => |conn| {
            insert_into(users::table).values(&vec![user(1, "n1"), user(50, "n2"), user(2, "n3")]).on_conflict(users::id)
                .do_update().set(users::name.eq(excluded(users::name))).execute(conn)
        }
        "upsert many rows, back" => |conn| {
            insert_into(users::table).values(&vec![user(1, "n1"), user(50, "n2"), user(2, "n3")]).on_conflict(users::id)
                .do_update().set((users::name.eq(excluded(users::name)), users::age.eq(excluded(users::age))))
                .get_results::<User>(conn)
        }
        "upsert on a constraint" => |conn| {
            insert_into(users::table).values(users::name.eq("ada")).on_conflict(on_constraint("users_name_key"))
                .do_update().set(users::age.eq(1)).execute(conn)
        }
        "upsert that meets a row twice" => |conn| {
            insert_into(users::table).values(&vec![user(1, "n1"), user(1, "n2")]).on_conflict(users::id)
                .do_update().set(users::name.eq(excluded(users::name))).execute(conn)
        }
        "update, rows back one by one, and none is taken" => |conn| {
            update(users::table).set(users::age.eq(9)).load_iter::<User, DefaultLoadingMode>(conn).map(drop)
        }
        "update, rows back row by row" => |conn| {
            let rows = update(users::table).set(users::age.eq(9)).load_iter::<User, PgRowByRowLoadingMode>(conn)?;
            sorted(rows.collect(), |user| user.id)
        }
        "update, rows back row by row, but only the first is taken" => |conn| {
            let mut rows = update(users::table).set(users::age.eq(9)).returning(users::age)
                .load_iter::<Option<i32>, PgRowByRowLoadingMode>(conn)?;
            rows.next().transpose()
        }
        "delete, rows back row by row" => |conn| {
            let rows = delete(users::table.filter(users::id.gt(3))).load_iter::<User, PgRowByRowLoadingMode>(conn)?;
            sorted(rows.collect(), |user| user.id)
        }
        "select row by row" => |conn| {
            users::table.order(users::id).load_iter::<User, PgRowByRowLoadingMode>(conn)?.collect::<QueryResult<Vec<_>>>()
        }
        "select row by row, then write" => |conn| {
            let ids = users::table.filter(users::id.le(2)).select(users::id).load_iter::<i32, PgRowByRowLoadingMode>(conn)?
                .collect::<QueryResult<Vec<_>>>()?;
            update(users::table.filter(users::id.eq_any(ids))).set(users::age.eq(1)).execute(conn)
        }
        "insert a document" => |conn| { insert_into(documents::table).values(&document(7)).execute(conn) }
        "insert documents, back" => |conn| {
            insert_into(documents::table).values(&vec![document(7), document(8)]).returning(Document::as_returning()).get_results(conn)
        }
        "insert documents, by columns" => |conn| {
            insert_into(documents::table).values(&document(7)).returning((documents::tags, documents::at, documents::body, documents::id))
                .get_result::<(Vec<String>, DateTime<Utc>, Value, Uuid)>(conn)
        }
        "update a document" => |conn| {
            let changed = Document { body: json!([]), tags: vec![], raw: None, ratio: f64::NEG_INFINITY, ..document(1) };
            update(documents::table).set(&changed).returning(Document::as_returning()).get_result(conn)
        }
        "update within an array and a document" => |conn| {
            sql_query("UPDATE documents SET tags[1] = 'z', body = body || '{\"a\": \"?\"}' WHERE body ? 'a'").execute(conn)
        }
        "delete a document" => |conn| {
            delete(documents::table.find(Uuid::from_u128(1))).returning(documents::tags).get_results::<Vec<String>>(conn)
        }
        "raw insert with binds" => |conn| {
            sql_query("INSERT INTO users (name, age) VALUES ($1, $2)").bind::<Text, _>("it's $2").bind::<Integer, _>(5).execute(conn)
        }
        "raw update with binds, rows back" => |conn| {
            sql_query("UPDATE users SET name = $2 WHERE id = $1 RETURNING id, name").bind::<Integer, _>(1).bind::<Text, _>("n").load::<Named>(conn)
        }
        "raw update with a schema" => |conn| {
            sql_query("UPDATE public.users SET age = 4 WHERE users.id = 1 RETURNING users.age").load::<Aged>(conn)
        }
        "raw update with a quoted alias" => |conn| {
            sql_query(r#"UPDATE ONLY public.users "U" SET age = 4 WHERE "U".id = 1 RETURNING "U".age"#).load::<Aged>(conn)
        }
        "raw update with strings of every kind" => |conn| {
            sql_query("UPDATE users SET name = E'it\\'s RETURNING' || $$ ' -- $$ || $a$ $$ ; $a$ /* /* ' */ */ WHERE id = 1").execute(conn)
        }
        "raw update from another table with aliases" => |conn| {
            sql_query("UPDATE users u SET age = 1 FROM posts p, users v WHERE p.user_id = u.id AND v.id = u.id AND p.id = 2 RETURNING u.age").load::<Aged>(conn)
        }
        "raw update, every column of every table back" => |conn| {
            sql_query("UPDATE users u SET age = 1 FROM posts p WHERE p.user_id = u.id AND p.id = 2 RETURNING u.name, u.*, p.title").load::<Aged>(conn)
        }
        "raw delete that joins" => |conn| {
            sql_query("DELETE FROM memberships m USING users u WHERE u.id = m.user_id AND u.name = 'ada'").execute(conn)
        }
        "raw update of one row that waits for others" => |conn| {
            sql_query("UPDATE users SET age = 1 WHERE id = (SELECT id FROM users ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 1) RETURNING age").load::<Aged>(conn)
        }
        "raw insert overriding" => |conn| {
            sql_query("INSERT INTO users (id, name) OVERRIDING SYSTEM VALUE VALUES (90, 'o')").execute(conn)
        }
        "raw explain" => |conn| { sql_query("EXPLAIN DELETE FROM users").execute(conn) }
        "raw copy to" => |conn| { sql_query("COPY users TO '/dev/null'").execute(conn) }
        "several statements in one string" => |conn| {
            sql_query("UPDATE posts SET title = 'a'; UPDATE posts SET title = 'b'").execute(conn)
        }
        "statement after a failed one in a transaction" => |conn| {
            conn.transaction(|conn| {
                update(users::table.find(1)).set(users::age.eq(7)).execute(conn)?;
                assert!(update(users::table.find(2)).set(users::name.eq("ada")).execute(conn).is_err());
                update(users::table.find(3)).set(users::age.eq(7)).execute(conn)
            })
        }
        "transaction whose failure is swallowed" => |conn| {
            conn.transaction(|conn| {
                update(users::table.find(1)).set(users::age.eq(7)).execute(conn)?;
                assert!(update(users::table.find(2)).set(users::name.eq("ada")).execute(conn).is_err());
                Ok::<_, DbError>(())
            })
        }
        "select for update" => |conn| { users::table.find(1).for_update().first::<User>(conn) }
        "select distinct on" => |conn| {
            users::table.distinct_on(users::active).order((users::active, users::id)).load::<User>(conn)
        }
        "division by zero" => |conn| { sql_query("UPDATE users SET age = 1 / (id - 1)").execute(conn) }
    });
    all
}
