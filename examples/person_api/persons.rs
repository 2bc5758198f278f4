//! The plain form: persons live in the store alone. Each is one key, so that every store keeps them.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use kvsync::codec::{Codec, MessagePack};
use kvsync::store::data::DataCommands;
use serde::{Deserialize, Serialize};

use super::app::{App, blocking};
use super::failure::Failure;

/// A person, under an id that the client chooses.
#[derive(Debug, Serialize, Deserialize)]
pub struct Person {
    pub id: String,
    #[serde(flatten)]
    pub content: Content,
}

/// What a client says of a person.
#[derive(Debug, Serialize, Deserialize)]
pub struct Content {
    pub name: String,
    pub age: u8,
}

/// 201, or 409 when the id is taken.
pub async fn create(State(app): State<App>, Json(person): Json<Person>) -> Result<impl IntoResponse, Failure> {
    if !is_id(&person.id) {
        return Err(Failure::Invalid("an id has 1 to 100 letters of a-z, A-Z, 0-9, `-`, `_`, `.`"));
    }
    check(&person.content)?;
    blocking(move || {
        let bytes = MessagePack::encode(&person.content)?;
        if !app.data.set_if_absent(key(&person.id), bytes)? {
            return Err(Failure::Taken("the id is taken".to_owned()));
        }
        let place = format!("/persons/{}", person.id);
        Ok((StatusCode::CREATED, [(header::LOCATION, place)], Json(person)))
    })
    .await
}

/// 200, or 404.
pub async fn read(State(app): State<App>, Path(id): Path<String>) -> Result<impl IntoResponse, Failure> {
    known(&id)?;
    blocking(move || {
        let content = app.data.get_as::<Content, MessagePack>(key(&id))?.ok_or(Failure::Missing)?;
        Ok(Json(Person { id, content }))
    })
    .await
}

/// 200, or 404: it makes no persons.
pub async fn update(
    State(app): State<App>,
    Path(id): Path<String>,
    Json(content): Json<Content>,
) -> Result<impl IntoResponse, Failure> {
    known(&id)?;
    check(&content)?;
    blocking(move || {
        let there = app.data.set_if_present(key(&id), MessagePack::encode(&content)?)?;
        if there { Ok(Json(Person { id, content })) } else { Err(Failure::Missing) }
    })
    .await
}

/// 204, or 404.
pub async fn delete(State(app): State<App>, Path(id): Path<String>) -> Result<StatusCode, Failure> {
    known(&id)?;
    blocking(move || if app.data.delete(key(&id))? { Ok(StatusCode::NO_CONTENT) } else { Err(Failure::Missing) }).await
}

/// Nobody has an id that is none. A store has limits of its own, and would refuse one that is too long.
fn known(id: &str) -> Result<(), Failure> {
    if is_id(id) { Ok(()) } else { Err(Failure::Missing) }
}

fn is_id(id: &str) -> bool {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    !id.is_empty() && id.len() <= 100 && id.chars().all(fits)
}

fn check(content: &Content) -> Result<(), Failure> {
    if content.name.trim().is_empty() { Err(Failure::Invalid("a person has a name")) } else { Ok(()) }
}

fn key(id: &str) -> String {
    format!("person:{id}")
}
