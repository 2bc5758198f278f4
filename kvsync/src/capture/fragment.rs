//! A statement whose text was changed and whose binds were not.

use std::any::TypeId;
use std::cell::Cell;

use diesel::QueryResult;
use diesel::backend::Backend;
use diesel::internal::derives::multiconnection::AstPassHelper;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::Untyped;

use super::backend::SyncBackend;
use super::plan::{Caching, Plan};

/// The caller's statement, run with the text of a plan. The binds stay the caller's. The type of the
/// statement is erased, so that what runs it is compiled once.
pub(super) struct Rewritten<'query, DB: SyncBackend> {
    source: &'query (dyn QueryFragment<DB> + 'query),
    plan: &'query Plan<DB>,
}

impl<'query, DB: SyncBackend> Rewritten<'query, DB> {
    /// The statement, ready to be given to a connection at once: the connection asks for the id of the
    /// statement's type, which does not tell one plan from another.
    pub(super) fn new(source: &'query (dyn QueryFragment<DB> + 'query), plan: &'query Plan<DB>) -> Self {
        ID.set(if let Caching::Id(id) = plan.cache { Some(id) } else { None });
        Self { source, plan }
    }
}

thread_local! {
    /// The id of the plan that this thread runs.
    static ID: Cell<Option<TypeId>> = const { Cell::new(None) };
}

impl<DB: SyncBackend> QueryId for Rewritten<'_, DB> {
    type QueryId = ();

    const HAS_STATIC_QUERY_ID: bool = false;

    /// The id of the plan, under which Diesel caches the prepared statement. Diesel asks for it as it
    /// takes the statement, on the thread that gave it.
    fn query_id() -> Option<TypeId> {
        ID.get()
    }
}

impl<DB: SyncBackend> Query for Rewritten<'_, DB> {
    type SqlType = Untyped;
}

impl<DB: SyncBackend> QueryFragment<DB> for Rewritten<'_, DB> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        if out.bind_collector().is_some() || out.debug_binds().is_some() {
            return self.source.walk_ast(out);
        }
        if matches!(self.plan.cache, Caching::Never) {
            out.unsafe_to_cache_prepared();
        }
        out.push_sql(&self.plan.sql);
        Ok(())
    }
}

/// A statement without binds.
pub(super) struct Text<'a>(pub(super) &'a str);

impl<DB: Backend> QueryFragment<DB> for Text<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.unsafe_to_cache_prepared();
        out.push_sql(self.0);
        Ok(())
    }
}
