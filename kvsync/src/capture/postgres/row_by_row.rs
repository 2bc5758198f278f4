//! Diesel's mode that takes rows from the server one by one.

use diesel::QueryResult;
use diesel::connection::LoadConnection;
use diesel::expression::QueryMetadata;
use diesel::pg::{Pg, PgRowByRowLoadingMode};
use diesel::query_builder::{Query, QueryFragment, QueryId};

use super::super::backend::{Inner, Inside};
use super::super::connection::SyncConnection;
use super::super::plan::Planned;
use super::super::row::{SyncCursor, SyncRow};

/// A captured write is not run in this mode: there, Diesel never learns of an error that comes behind
/// the last row, as that of a deferred constraint does.
impl<C> LoadConnection<PgRowByRowLoadingMode> for SyncConnection<C>
where
    C: Inner<Backend = Pg> + LoadConnection<PgRowByRowLoadingMode>,
{
    type Cursor<'conn, 'query> =
        SyncCursor<<C as LoadConnection<PgRowByRowLoadingMode>>::Cursor<'conn, 'query>, <Pg as Inside>::Owned>;
    type Row<'conn, 'query> =
        SyncRow<<C as LoadConnection<PgRowByRowLoadingMode>>::Row<'conn, 'query>, <Pg as Inside>::Owned>;

    fn load<'conn, 'query, T>(&'conn mut self, source: T) -> QueryResult<Self::Cursor<'conn, 'query>>
    where
        T: Query + QueryFragment<Pg> + QueryId + 'query,
        Pg: QueryMetadata<T::SqlType>,
    {
        match self.look(&source)? {
            Planned::Capture(plan) => {
                let (rows, visible) = self.run_loading(&source, &plan)?;
                Ok(SyncCursor::captured(rows, visible))
            }
            planned => {
                let wake = self.before_passing(&source, planned)?;
                let rows = LoadConnection::<PgRowByRowLoadingMode>::load(&mut self.inner, source)?;
                Ok(SyncCursor::passed(rows, wake))
            }
        }
    }
}
