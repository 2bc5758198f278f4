//! The connection that users hold.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use diesel::connection::{
    CacheSize, ConnectionSealed, Instrumentation, SimpleConnection, TransactionManager, TransactionManagerStatus,
};
use diesel::query_builder::{QueryFragment, QueryId};
use diesel::result::ConnectionError;
use diesel::{Connection, ConnectionResult, QueryResult};

use super::backend::{Inner, Inside as _};
use super::hub::Hub;
use super::lend::Shared;
use super::state::State;
use super::transaction::SyncTransactionManager;
use crate::change::{Change, CommitToken};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Scope;

/// A Diesel connection that catches what is written through it.
///
/// It is used like the connection that it wraps. What it catches is handed on once the outermost
/// transaction has been committed, and forgotten when that is rolled back.
///
/// Every result is the one that the wrapped connection gives, with these exceptions. A write whose rows
/// are asked for runs at once and to its end; SQLite by itself runs it when the first row is taken. The
/// message of a syntax error may name another place. An instrumentation sees the SQL that is run, which
/// returns more columns. Statements that begin or end a transaction are refused, and those that cannot
/// be captured follow the [`Policy`](super::Policy). What a function writes that a statement calls
/// cannot be seen; verify the tables after such a call.
pub struct SyncConnection<C: Inner> {
    pub(super) inner: C,
    pub(super) state: State<C::Backend>,
}

impl<C: Inner> fmt::Debug for SyncConnection<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncConnection").field("scope", &self.state.scope).finish_non_exhaustive()
    }
}

impl<C: Inner> SyncConnection<C> {
    pub(super) fn new(mut inner: C, hub: Arc<Hub<C::Backend>>) -> Self {
        clear_statements(&mut inner);
        Self { inner, state: State::new(hub) }
    }

    /// The wrapped connection. Nothing that is written through it is caught or reported, unless triggers
    /// catch it; verify the tables that it writes. Do not begin or end a transaction on it.
    pub fn unsynced(&mut self) -> &mut C {
        C::Backend::unwatched(&mut self.state.session);
        &mut self.inner
    }

    /// Whether something may be written to this database past capture, to be filled in afterwards.
    pub(crate) fn ready_for_bulk(&mut self, database: &str) -> Result<()> {
        without_transaction(&mut self.inner, "a bulk cannot begin")?;
        if *self.state.hub.name != *database {
            let message =
                format!("the model is registered in `{database}`, the connection is one of `{}`", self.state.hub.name);
            return Err(Error::new(ErrorKind::Config, message));
        }
        Ok(())
    }

    /// The wrapped connection, for good. Changes of an open transaction are lost.
    pub fn into_inner(mut self) -> C {
        clear_statements(&mut self.inner);
        self.inner
    }

    /// Sets the scope of the rows that are written from now on. Where the database was told the scopes
    /// of its schemas, these decide instead.
    pub fn set_scope(&mut self, scope: Scope) {
        self.state.scope = scope;
    }

    /// The scope of the rows that are written.
    pub fn scope(&self) -> &Scope {
        &self.state.scope
    }

    /// For pools: the next user of the connection has not committed anything yet.
    #[cfg(feature = "r2d2")]
    pub(super) fn forget_last_commit(&mut self) {
        self.state.last_commit = None;
    }

    /// What the last commit on this connection handed on, to be waited for. `None` before the first
    /// that changed a row of a registered table.
    pub fn last_commit(&self) -> Option<&CommitToken> {
        self.state.last_commit.as_ref()
    }

    /// Whether the tokens of later commits list their rows, so that another process can wait for them.
    pub fn set_portable_tokens(&mut self, portable: bool) {
        self.state.portable_tokens = portable;
    }

    /// The changes of the open transaction, as they will be handed on if it is committed. In a test
    /// transaction this shows what would have been synced.
    pub fn captured(&self) -> &[Change] {
        self.state.pending.changes()
    }
}

/// How many transactions and savepoints are open; nothing when the connection is broken.
pub(super) fn depth_of<C: Connection>(conn: &mut C) -> Option<u32> {
    match C::TransactionManager::transaction_manager_status_mut(conn) {
        TransactionManagerStatus::Valid(status) => Some(status.transaction_depth().map_or(0, NonZeroU32::get)),
        TransactionManagerStatus::InError => None,
    }
}

/// Whether no transaction is open on a connection; if one is, what it is that `cannot` be done.
///
/// # Errors
///
/// [`ErrorKind::Config`], with what to do about it.
pub(super) fn without_transaction<C: Connection>(conn: &mut C, cannot: &str) -> Result<()> {
    let message = match depth_of(conn) {
        Some(0) => return Ok(()),
        Some(_) => {
            "a transaction is open on the connection; commit it or roll it back, or, where a panic left it open, \
                    drop the connection, which rolls back"
        }
        None => "the connection is broken: a transaction on it could not be ended; drop it and open another",
    };
    Err(Error::new(ErrorKind::Config, format!("{cannot}: {message}")))
}

/// Forgets all prepared statements: those that another wrapper prepared stand under the same ids.
pub(super) fn clear_statements<C: Connection>(conn: &mut C) {
    conn.set_prepared_statement_cache_size(CacheSize::Disabled);
    conn.set_prepared_statement_cache_size(CacheSize::Unbounded);
}

impl<C: Inner> ConnectionSealed for SyncConnection<C> {}

impl<C: Inner> SimpleConnection for SyncConnection<C> {
    /// Runs statements. A single one that writes a registered table is captured; of several, those that
    /// write one are not, and follow the policy.
    fn batch_execute(&mut self, query: &str) -> QueryResult<()> {
        self.run_batch(query)
    }
}

impl<C: Inner> Connection for SyncConnection<C> {
    type Backend = C::Backend;
    type TransactionManager = SyncTransactionManager;

    /// Always fails: a connection that catches what is written belongs to a `KvSync`, which opens it.
    fn establish(_: &str) -> ConnectionResult<Self> {
        Err(ConnectionError::BadConnection(
            "a synced connection is opened with `KvSync::connect`, wrapped with `KvSync::wrap`, or taken from a pool \
             of `KvSync::connection_manager`"
                .to_owned(),
        ))
    }

    fn execute_returning_count<T>(&mut self, source: &T) -> QueryResult<usize>
    where
        T: QueryFragment<Self::Backend> + QueryId,
    {
        let planned = self.look(source)?;
        self.execute_planned(source, planned)
    }

    fn transaction_state(
        &mut self,
    ) -> &mut <Self::TransactionManager as TransactionManager<Self>>::TransactionStateData {
        self.inner.transaction_state()
    }

    fn instrumentation(&mut self) -> &mut dyn Instrumentation {
        self.inner.instrumentation()
    }

    fn set_instrumentation(&mut self, instrumentation: impl Instrumentation) {
        let instrumentation = Shared::new(instrumentation);
        self.state.instrumentation = Some(instrumentation.clone());
        self.inner.set_instrumentation(instrumentation);
    }

    fn set_prepared_statement_cache_size(&mut self, size: CacheSize) {
        self.state.cache_size = size;
        self.inner.set_prepared_statement_cache_size(size);
    }
}
