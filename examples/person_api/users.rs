//! The synced form: users are rows in SQL, written with ordinary Diesel, and read from the store.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::IntoResponse;
use diesel::prelude::*;
use diesel::r2d2::PooledConnection;
use diesel::sqlite::Sqlite;
use kvsync::capture::ConnectionManager;
use kvsync::{Lookup, Syncable};
use serde::{Deserialize, Serialize};

use super::app::{App, blocking};
use super::failure::Failure;

/// How long `?wait=true` waits for the store.
const WAIT: Duration = Duration::from_secs(20);

/// Whether what was written is in the store already: `true`, `false`, or absent when nobody asked.
const APPLIED: HeaderName = HeaderName::from_static("kvsync-applied");

diesel::table! {
    users (id) {
        id -> Integer,
        username -> Text,
        email -> Text,
    }
}

/// A row, as it is stored and as clients see it.
#[derive(Debug, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = users)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
#[sync_key(name = "username", fmt = "user:username:<username>")]
pub struct User {
    pub id: i32,
    pub username: String,
    pub email: String,
}

/// What a client says of a user.
#[derive(Debug, Deserialize, Insertable, AsChangeset)]
#[diesel(table_name = users)]
pub struct Content {
    pub username: String,
    pub email: String,
}

/// Whether to answer once the store has what was written.
#[derive(Debug, Deserialize)]
pub struct Waiting {
    #[serde(default)]
    wait: bool,
}

/// Which user is asked for.
#[derive(Debug, Deserialize)]
pub struct Named {
    username: String,
}

/// 201 once the row is committed, or 409.
pub async fn create(
    State(app): State<App>,
    Query(Waiting { wait }): Query<Waiting>,
    Json(content): Json<Content>,
) -> Result<impl IntoResponse, Failure> {
    check(&content)?;
    blocking(move || {
        let mut conn = app.pool.get()?;
        let insert = diesel::insert_into(users::table).values(&content);
        let user: User = insert.returning(User::as_returning()).get_result(&mut conn)?;
        let place = [(header::LOCATION, format!("/users/{}", user.id))];
        Ok((StatusCode::CREATED, place, applied(&app, &conn, wait), Json(user)))
    })
    .await
}

/// 200, or 404.
pub async fn read(State(app): State<App>, Path(id): Path<i32>) -> Result<Json<User>, Failure> {
    blocking(move || {
        let seen = User::lookup_by_id(&app.kv, id)?;
        read_as(&app, seen, |conn| users::table.find(id).select(User::as_select()).first(conn))
    })
    .await
}

/// `/users?username=ann`: 200, or 404.
pub async fn find(State(app): State<App>, Query(Named { username }): Query<Named>) -> Result<Json<User>, Failure> {
    blocking(move || {
        let seen = User::lookup_by_username(&app.kv, &username)?;
        let of_name = users::table.filter(users::username.eq(&username));
        read_as(&app, seen, |conn| of_name.select(User::as_select()).first(conn))
    })
    .await
}

/// 200 once the row is committed, 404, or 409.
pub async fn update(
    State(app): State<App>,
    Path(id): Path<i32>,
    Query(Waiting { wait }): Query<Waiting>,
    Json(content): Json<Content>,
) -> Result<impl IntoResponse, Failure> {
    check(&content)?;
    blocking(move || {
        let mut conn = app.pool.get()?;
        let update = diesel::update(users::table.find(id)).set(&content);
        let user: User = update.returning(User::as_returning()).get_result(&mut conn)?;
        Ok((applied(&app, &conn, wait), Json(user)))
    })
    .await
}

/// 204 once the row is gone, or 404.
pub async fn delete(
    State(app): State<App>,
    Path(id): Path<i32>,
    Query(Waiting { wait }): Query<Waiting>,
) -> Result<impl IntoResponse, Failure> {
    blocking(move || {
        let mut conn = app.pool.get()?;
        match diesel::delete(users::table.find(id)).execute(&mut conn)? {
            0 => Err(Failure::Missing),
            _ => Ok((StatusCode::NO_CONTENT, applied(&app, &conn, wait), ())),
        }
    })
    .await
}

type Conn = PooledConnection<ConnectionManager<Sqlite>>;

/// What the store says, or the database where the store cannot tell. A store that does not answer is an error: a database
/// that writes are meant for may not bear all readings at once. If yours does, ask it then, too.
fn read_as(
    app: &App,
    seen: Lookup<User>,
    from_database: impl FnOnce(&mut Conn) -> QueryResult<User>,
) -> Result<Json<User>, Failure> {
    match seen {
        Lookup::Found(user) => Ok(Json(user)),
        Lookup::Absent => Err(Failure::Missing),
        Lookup::Unknown(_) => Ok(Json(from_database(&mut app.pool.get()?)?)),
    }
}

/// The row is committed whatever comes of this: a store that is down is no failure of the write.
fn applied(app: &App, conn: &Conn, wait: bool) -> Option<[(HeaderName, &'static str); 1]> {
    let token = conn.last_commit().filter(|_| wait)?;
    let done = app.kv.wait(token, WAIT).is_ok();
    Some([(APPLIED, if done { "true" } else { "false" })])
}

fn check(content: &Content) -> Result<(), Failure> {
    if content.username.trim().is_empty() || !content.email.contains('@') {
        return Err(Failure::Invalid("a user has a username and an email address"));
    }
    Ok(())
}
