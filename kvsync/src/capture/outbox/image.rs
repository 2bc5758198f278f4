//! Lets the database read what rows of the outbox show of its own rows.

use std::collections::HashMap;
use std::sync::Arc;

use diesel::result::{DatabaseErrorKind, Error as DieselError};

use super::super::backend::SyncBackend;
use super::super::primary::whole;
use super::super::table::{ModelEntry, Table};
use super::sql::Statement;
use crate::change::Unknown;
use crate::error::{Error, ErrorKind, Result};
use crate::model::Model;

/// How many images one statement reads: SQLite's compound SELECT has at most 500 parts.
const MOST: usize = 128;

/// A row, or a primary key, as a row of the outbox shows it.
pub(super) struct Image<'a, DB: SyncBackend> {
    /// The place of the row of the outbox among those that were claimed.
    pub(super) row: usize,
    pub(super) table: &'a Arc<Table<DB>>,
    /// The table as it stands in SQL.
    pub(super) sql: &'a str,
    pub(super) model: &'a ModelEntry<DB>,
    pub(super) shows: Shows,
    pub(super) text: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Shows {
    PrimaryKey,
    Row,
}

/// What the database has read.
pub(super) enum Seen {
    PrimaryKey(Unknown),
    Row {
        row: Box<dyn Model>,
        /// About how many bytes it holds.
        size: usize,
        /// Whether the model's `live_if` holds for it.
        live: bool,
    },
}

/// Reads images: each with the place that it names, in the same order.
pub(super) fn see<DB: SyncBackend>(conn: &mut DB::Connection, images: &[Image<'_, DB>]) -> Vec<(usize, Result<Seen>)> {
    let mut groups: HashMap<(*const ModelEntry<DB>, Shows, &str), Vec<usize>> = HashMap::new();
    for (at, image) in images.iter().enumerate() {
        groups.entry((std::ptr::from_ref(image.model), image.shows, image.sql)).or_default().push(at);
    }
    let mut seen: Vec<Option<Result<Seen>>> = images.iter().map(|_| None).collect();
    for members in groups.values().flat_map(|members| members.chunks(MOST)) {
        let some: Vec<&Image<'_, DB>> = members.iter().filter_map(|at| images.get(*at)).collect();
        for (at, one) in members.iter().zip(read_all(conn, &some)) {
            if let Some(place) = seen.get_mut(*at) {
                *place = Some(one);
            }
        }
    }
    let unread = || Err(Error::new(ErrorKind::Database, "the database did not read a row of the outbox"));
    images.iter().zip(seen).map(|(image, one)| (image.row, one.unwrap_or_else(unread))).collect()
}

/// Reads images of one model and kind together, or, where one of them is wrong, each alone.
fn read_all<DB: SyncBackend>(conn: &mut DB::Connection, images: &[&Image<'_, DB>]) -> Vec<Result<Seen>> {
    if images.len() > 1
        && let Ok(read) = read(conn, images)
    {
        return read;
    }
    let alone = |image: &&Image<'_, DB>| {
        let read = read(conn, std::slice::from_ref(image))?.pop();
        read.unwrap_or_else(|| Err(wrong(image.table, "it is no row")))
    };
    images.iter().map(alone).collect()
}

/// Fails when the database does not take one of them.
fn read<DB: SyncBackend>(conn: &mut DB::Connection, images: &[&Image<'_, DB>]) -> Result<Vec<Result<Seen>>> {
    let mut statement = Statement::default();
    for (place, image) in images.iter().enumerate() {
        let model = image.model;
        let reference = DB::quote(&image.table.name);
        let columns = match image.shows {
            Shows::PrimaryKey => model.primary_key_alone().ok_or_else(|| {
                let message = format!(
                    "the columns of the primary key cannot be told among those of `{}`; name them plainly in the model",
                    model.schema.model
                );
                Error::new(ErrorKind::Config, message)
            })?,
            Shows::Row => {
                let live = model.schema.live_if.map(|condition| format!(", ({condition})")).unwrap_or_default();
                format!("{}{live}", model.columns(&reference))
            }
        };
        let union = if place == 0 { "" } else { " UNION ALL " };
        let head = format!("{union}SELECT CAST({place} AS bigint), {columns} FROM ");
        statement = DB::push_image(statement.sql(head), image.sql, image.text, model.schema.primary_key)?
            .sql(format!(" AS {reference}"));
    }
    let read = statement.load(conn, |row| {
        let place = DB::integer(row, 0).and_then(|place| usize::try_from(place).ok()).unwrap_or(usize::MAX);
        let image = images.get(place)?;
        let model = image.model;
        let seen = match image.shows {
            Shows::PrimaryKey => model
                .identify(row, 1)
                .map(Seen::PrimaryKey)
                .ok_or_else(|| wrong(image.table, "its primary key is not one of the model")),
            Shows::Row => model
                .decode(row, 1)
                .map(|(decoded, size)| {
                    let live = model.schema.live_if.is_none() || DB::flag(row, 1 + model.width) == Some(true);
                    Seen::Row { row: decoded, size, live }
                })
                .map_err(|error| wrong(image.table, &whole(&*error))),
        };
        Some((place, seen))
    });
    let read = match read {
        Ok(read) => read,
        Err(error) => return Err(told(conn, &error, images)),
    };
    let mut seen: Vec<Option<Result<Seen>>> = images.iter().map(|_| None).collect();
    for (place, one) in read.into_iter().flatten() {
        if let Some(empty) = seen.get_mut(place) {
            *empty = Some(one);
        }
    }
    Ok(images
        .iter()
        .zip(seen)
        .map(|(image, one)| one.unwrap_or_else(|| Err(wrong(image.table, "it is no row"))))
        .collect())
}

/// What is wrong: the rows, or a connection that is gone, whatever it says of that. Nothing of a row may be given up
/// because of an outage.
fn told<DB: SyncBackend>(conn: &mut DB::Connection, error: &DieselError, images: &[&Image<'_, DB>]) -> Error {
    let text = error.to_string();
    let closed = matches!(error, DieselError::DatabaseError(DatabaseErrorKind::ClosedConnection, _))
        || Statement::new("SELECT 1").load(conn, |_| ()).is_err();
    if closed || ["locked", "busy", "lock timeout", "statement timeout"].iter().any(|word| text.contains(word)) {
        return Error::new(ErrorKind::Unavailable, "the database did not read rows of the outbox in time");
    }
    match images.first() {
        Some(image) => wrong(image.table, &text),
        None => Error::new(ErrorKind::Database, text),
    }
}

fn wrong<DB: SyncBackend>(table: &Table<DB>, why: &str) -> Error {
    let message = format!("the outbox shows a row of the table `{}` that the database cannot read: {why}", table.name);
    Error::new(ErrorKind::Corrupt, message.replace('\n', " "))
}
