//! Batch inserts that return rows.

use diesel::connection::Connection as _;
use diesel::query_builder::{BatchInsert, InsertStatement, QueryId};
use diesel::query_dsl::LoadQuery;
use diesel::result::Error;
use diesel::sqlite::Sqlite;
use diesel::{QueryResult, RunQueryDsl, Table};

use super::super::backend::Inner;
use super::super::connection::SyncConnection;

/// What `get_results` is on Diesel's own SQLite connection for an insert of many rows: Diesel gives it
/// to no other type of connection.
pub trait BatchResults<'query, C: Inner<Backend = Sqlite>, U> {
    /// Inserts the rows, all or none, and returns what they are returning.
    ///
    /// # Errors
    ///
    /// As `get_results`.
    fn batch_results(self, conn: &mut SyncConnection<C>) -> QueryResult<Vec<U>>;
}

impl<'query, C, U, T, V, Id, Op, Ret, const STATIC: bool> BatchResults<'query, C, U>
    for InsertStatement<T, BatchInsert<Vec<V>, T, Id, STATIC>, Op, Ret>
where
    C: Inner<Backend = Sqlite>,
    T: Table + Copy + QueryId + 'static,
    Op: Copy,
    Ret: Copy,
    InsertStatement<T, V, Op, Ret>: LoadQuery<'query, SyncConnection<C>, U> + RunQueryDsl<SyncConnection<C>>,
{
    fn batch_results(self, conn: &mut SyncConnection<C>) -> QueryResult<Vec<U>> {
        let Self { target, operator, returning, records, .. } = self;
        conn.transaction::<_, Error, _>(|conn| {
            let mut results = Vec::with_capacity(records.values.len());
            for values in records.values {
                let one = InsertStatement::new(target, values, operator, returning);
                for row in one.internal_load(conn)? {
                    results.push(row?);
                }
            }
            Ok(results)
        })
    }
}
