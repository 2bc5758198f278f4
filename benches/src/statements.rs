//! The statements that are measured, the same on a plain connection and on a wrapped one.

use std::time::Duration;

use diesel::connection::LoadConnection;
use diesel::prelude::*;
use kvsync::KvSync;

use crate::Result;
use crate::models::{NewUser, User, new_user, users};
use crate::ratio::Side;

/// How many rows there are before anything is measured.
pub(crate) const ROWS: u32 = 1000;

macro_rules! statements {
    ($name:ident, $backend:ty) => {
        #[allow(dead_code, reason = "not every row runs on every database")]
        pub(crate) mod $name {
            use super::*;

            /// INSERT; the rows are counted.
            pub(crate) fn insert<C: LoadConnection<Backend = $backend>>(
                conn: &mut C,
                _: i32,
                new: &NewUser,
            ) -> QueryResult<()> {
                diesel::insert_into(users::table).values(new).execute(conn).map(drop)
            }

            /// INSERT .. RETURNING; the row is read.
            pub(crate) fn insert_returning<C: LoadConnection<Backend = $backend>>(
                conn: &mut C,
                _: i32,
                new: &NewUser,
            ) -> QueryResult<()> {
                diesel::insert_into(users::table).values(new).returning(User::as_returning()).get_result(conn).map(drop)
            }

            /// UPDATE by primary key.
            pub(crate) fn update<C: LoadConnection<Backend = $backend>>(
                conn: &mut C,
                id: i32,
                new: &NewUser,
            ) -> QueryResult<()> {
                diesel::update(users::table.find(id)).set(users::username.eq(&new.username)).execute(conn).map(drop)
            }

            /// SELECT by primary key.
            pub(crate) fn select<C: LoadConnection<Backend = $backend>>(
                conn: &mut C,
                id: i32,
                _: &NewUser,
            ) -> QueryResult<()> {
                users::table.find(id).select(User::as_select()).first(conn).map(drop)
            }

            /// Writes the first [`ROWS`] rows, with the ids from 1 on.
            pub(crate) fn fill<C: LoadConnection<Backend = $backend>>(conn: &mut C, rows: u32) -> QueryResult<()> {
                conn.transaction(|conn| (0..rows).try_for_each(|number| insert(conn, 0, &new_user(number))))
            }
        }
    };
}

statements!(sqlite, diesel::sqlite::Sqlite);
statements!(postgres, diesel::pg::Pg);

/// One side: a connection to a filled table, and the statement that it runs again and again.
pub(crate) struct Statements<C, F> {
    conn: C,
    statement: F,
    kv: Option<KvSync>,
    numbers: std::ops::RangeFrom<u32>,
    ready: Vec<(i32, NewUser)>,
}

impl<C, F: Fn(&mut C, i32, &NewUser) -> QueryResult<()>> Statements<C, F> {
    /// On a plain connection.
    pub(crate) fn plain(conn: C, statement: F) -> Self {
        Self { conn, statement, kv: None, numbers: ROWS.., ready: Vec::new() }
    }

    /// On a wrapped one.
    pub(crate) fn wrapped(kv: KvSync, conn: C, statement: F) -> Self {
        Self { kv: Some(kv), ..Self::plain(conn, statement) }
    }
}

impl<C, F: Fn(&mut C, i32, &NewUser) -> QueryResult<()>> Side for Statements<C, F> {
    fn prepare(&mut self, operations: usize) -> Result {
        let numbers = self.numbers.by_ref().take(operations);
        self.ready.clear();
        self.ready.extend(numbers.map(|number| (spread(number), new_user(number))));
        Ok(())
    }

    fn run(&mut self, _: usize) -> Result {
        Ok(self.ready.iter().try_for_each(|(id, new)| (self.statement)(&mut self.conn, *id, new))?)
    }

    fn settle(&mut self) -> Result {
        if let Some(kv) = &self.kv {
            kv.flush(Duration::from_secs(30))?;
        }
        Ok(())
    }
}

/// An id of the rows that are there from the start.
fn spread(number: u32) -> i32 {
    i32::try_from(1 + number.wrapping_mul(7919) % ROWS).unwrap_or(1)
}
