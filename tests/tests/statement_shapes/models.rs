//! The tables of the shapes and the models on them. `posts` has no model.

use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::pg::{Pg, PgValue};
use diesel::prelude::*;
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::{Integer, Nullable, SqlType, Text};
use diesel::sqlite::{Sqlite, SqliteValue};
use kvsync::Syncable;
use serde::{Deserialize, Serialize};

diesel::table! {
    users (id) {
        id -> Integer,
        name -> Text,
        age -> Nullable<Integer>,
        active -> Bool,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::RoleType;

    memberships (team_id, user_id) {
        team_id -> Integer,
        user_id -> Integer,
        role -> RoleType,
        note -> Nullable<Text>,
    }
}

diesel::table! {
    counters (id) {
        id -> Integer,
        hits -> Integer,
    }
}

diesel::table! {
    posts (id) {
        id -> Integer,
        user_id -> Integer,
        title -> Text,
    }
}

diesel::joinable!(posts -> users (user_id));
diesel::allow_tables_to_appear_in_same_query!(users, memberships, counters, posts);

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
#[diesel(table_name = users)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
#[sync_key(name = "name", fmt = "user:name:<name>")]
pub struct User {
    pub id: i32,
    pub name: String,
    pub age: Option<i32>,
    pub active: bool,
}

/// A second model on the same table: fewer columns, in another order.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = users)]
#[sync_key(name = "slim", fmt = "slim:<id>")]
pub struct Slim {
    pub name: String,
    pub id: i32,
}

#[derive(Insertable, AsChangeset)]
#[diesel(table_name = users)]
pub struct NewUser<'a> {
    pub name: &'a str,
    pub age: Option<i32>,
}

/// Each field may be left to the database.
#[derive(Insertable)]
#[diesel(table_name = users)]
pub struct LooseUser<'a> {
    pub name: &'a str,
    pub active: Option<bool>,
}

#[derive(AsChangeset)]
#[diesel(table_name = users, treat_none_as_null = true)]
pub struct Ageless {
    pub age: Option<i32>,
}

#[derive(Debug, Clone, PartialEq, AsChangeset, Identifiable, Queryable, Selectable)]
#[diesel(table_name = users)]
pub struct Rename {
    pub id: i32,
    pub name: String,
}

/// What raw statements return, by name.
#[derive(Debug, QueryableByName)]
#[expect(dead_code, reason = "read by Debug")]
pub struct Named {
    #[diesel(sql_type = Integer)]
    pub id: i32,
    #[diesel(sql_type = Text)]
    pub name: String,
}

#[derive(Debug, QueryableByName)]
#[expect(dead_code, reason = "read by Debug")]
pub struct Aged {
    #[diesel(sql_type = Nullable<Integer>)]
    pub age: Option<i32>,
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
#[diesel(table_name = memberships, primary_key(team_id, user_id))]
#[sync_key(name = "pair", fmt = "member:<team_id>:<user_id>")]
pub struct Membership {
    pub team_id: i32,
    pub user_id: i32,
    pub role: Role,
    #[diesel(embed)]
    #[serde(flatten)]
    pub note: Note,
}

/// A column by way of `embed`.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Insertable, AsChangeset, Serialize, Deserialize)]
#[diesel(table_name = memberships)]
pub struct Note {
    pub note: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = counters)]
#[sync_key(name = "id", fmt = "counter:<id>")]
pub struct Counter {
    pub id: i32,
    pub hits: i32,
}

#[derive(SqlType)]
#[diesel(postgres_type(name = "member_role"), sqlite_type(name = "Text"))]
pub struct RoleType;

#[derive(Debug, Clone, Copy, PartialEq, Eq, AsExpression, FromSqlRow, Serialize, Deserialize)]
#[diesel(sql_type = RoleType)]
pub enum Role {
    Owner,
    Guest,
}

impl Role {
    fn text(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Guest => "guest",
        }
    }

    fn read(text: &[u8]) -> deserialize::Result<Self> {
        match text {
            b"owner" => Ok(Self::Owner),
            b"guest" => Ok(Self::Guest),
            _ => Err("no such role".into()),
        }
    }
}

impl FromSql<RoleType, Pg> for Role {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        Self::read(value.as_bytes())
    }
}

impl ToSql<RoleType, Pg> for Role {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        std::io::Write::write_all(out, self.text().as_bytes())?;
        Ok(IsNull::No)
    }
}

impl FromSql<RoleType, Sqlite> for Role {
    fn from_sql(value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
        let text: String = FromSql::<Text, Sqlite>::from_sql(value)?;
        Self::read(text.as_bytes())
    }
}

impl ToSql<RoleType, Sqlite> for Role {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(self.text());
        Ok(IsNull::No)
    }
}
