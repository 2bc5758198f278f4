//! A statement whose text was changed and whose binds were not.

use std::any::TypeId;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use diesel::QueryResult;
use diesel::backend::Backend;
use diesel::internal::derives::multiconnection::AstPassHelper;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::Untyped;

use super::backend::SyncBackend;
use super::plan::{Caching, Plan};

/// The caller's statement, run with the text of a plan. The binds stay the caller's.
pub(super) struct Rewritten<'query, DB: SyncBackend> {
    source: Source<'query, DB>,
    plan: Arc<Plan<DB>>,
}

/// The caller's statement, of whatever type: so that the code which runs it is compiled once.
pub(super) enum Source<'query, DB: Backend> {
    Borrowed(&'query (dyn QueryFragment<DB> + 'query)),
    Shared(Rc<dyn QueryFragment<DB> + 'query>),
}

impl<DB: Backend> Clone for Source<'_, DB> {
    fn clone(&self) -> Self {
        match self {
            Self::Borrowed(source) => Self::Borrowed(*source),
            Self::Shared(source) => Self::Shared(Rc::clone(source)),
        }
    }
}

impl<DB: Backend> Source<'_, DB> {
    fn fragment(&self) -> &(dyn QueryFragment<DB> + '_) {
        match self {
            Self::Borrowed(source) => *source,
            Self::Shared(source) => &**source,
        }
    }
}

impl<'query, DB: SyncBackend> Rewritten<'query, DB> {
    /// The statement, ready to be given to a connection at once: the connection asks for the id of the
    /// statement's type, which does not tell one plan from another.
    pub(super) fn new(source: Source<'query, DB>, plan: &Arc<Plan<DB>>) -> Self {
        ID.set(if let Caching::Id(id) = plan.cache { Some(id) } else { None });
        Self { source, plan: Arc::clone(plan) }
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
            return self.source.fragment().walk_ast(out);
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
