//! The builder and the handle: the only part that knows every other.

#[cfg(feature = "cli")]
mod admin;
mod backfill;
mod builder;
mod by_hand;
mod fetch;
mod health;
mod none;
mod outbox;
mod verify;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::builder::Builder;
pub use self::health::{BrokerStatus, Health, StoreStatus};
pub use self::outbox::Outbox;
#[cfg(feature = "r2d2")]
use crate::capture::ConnectionManager;
use crate::capture::{AnyDatabase, Attached, Finding, Inner as Connection, Severity, SyncBackend, SyncConnection};
use crate::change::CommitToken;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::Reader;
use crate::key::Scope;
use crate::model::Schema;
use crate::store::SyncStore;
use crate::upkeep::Verifiers;
use crate::worker::{Pipeline, Probe, Shutdown};

/// The handle of everything: connections that capture, the queue and its workers, fetches. Clones are
/// cheap and share all of it.
///
/// Keep it for as long as its connections and pools are in use: they do not keep the workers alive, and
/// what is committed after the last handle was dropped reaches no store. Dropping the last one waits a
/// moment for what is queued; to be sure, call [`shutdown`](Self::shutdown), and not from within
/// [`on_report`](Builder::on_report), whose thread it waits for.
#[derive(Clone)]
pub struct KvSync {
    inner: Arc<Inner>,
    scope: Scope,
}

struct Inner {
    store: Arc<dyn SyncStore>,
    /// Every store, in the order given; the first is the one that is read.
    probes: Vec<Probe>,
    /// Every broker, in the order given.
    brokers: Vec<Probe>,
    reader: Reader,
    pipeline: Pipeline,
    databases: HashMap<String, Arc<dyn AnyDatabase>>,
    /// The models that are registered in each database, by its name.
    schemas: HashMap<String, Vec<&'static Schema>>,
    clock: Arc<dyn Clock>,
    verifiers: Verifiers,
}

impl KvSync {
    /// Begins to configure a `KvSync`.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// The same handle within a scope: it fetches the rows of that tenant or schema and no others, and
    /// its connections write them.
    ///
    /// ```
    /// # fn of_tenant(kv: &kvsync::KvSync) {
    /// use kvsync::Scope;
    ///
    /// let tenant = kv.scoped(Scope::named("tenant-7"));
    /// // tenant.connect::<Pg>("main") writes, and User::fetch_by_id(&tenant, 1) reads, `@tenant-7:user:id:1`.
    /// # }
    /// ```
    #[must_use]
    pub fn scoped(&self, scope: Scope) -> Self {
        Self { inner: Arc::clone(&self.inner), scope }
    }

    /// Opens a connection with the factory of the database of this name. What is written through it is
    /// synced.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when no database of this name and backend was given to the builder,
    /// [`ErrorKind::Unavailable`] when the factory fails, [`ErrorKind::Database`] when the database
    /// cannot be captured.
    pub fn connect<DB: SyncBackend>(&self, database: &str) -> Result<SyncConnection<DB::Connection>> {
        Ok(self.scope_on(self.attached::<DB>(database)?.connect()?))
    }

    /// Wraps a connection of the caller's to the only database of its backend.
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// fn own(kv: &kvsync::KvSync) -> Result<(), Box<dyn std::error::Error>> {
    ///     use diesel::prelude::*;
    ///
    ///     let mut conn = SqliteConnection::establish("app.db")?;
    ///     diesel::sql_query("PRAGMA busy_timeout = 5000").execute(&mut conn)?;
    ///     let mut conn = kv.wrap(conn)?;
    /// #   drop(conn);
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect), and [`ErrorKind::Config`] when several databases are of this
    /// backend: then name it, with [`wrap_as`](Self::wrap_as).
    pub fn wrap<C: Connection>(&self, conn: C) -> Result<SyncConnection<C>> {
        let mut databases = self.inner.databases.values().filter_map(|any| any.downcast::<C::Backend>());
        match (databases.next(), databases.next()) {
            (Some(database), None) => Ok(self.scope_on(database.wrap(conn)?)),
            (None, _) => Err(Error::new(ErrorKind::Config, "no database of this backend was given to the builder")),
            (Some(_), Some(_)) => {
                let message = "several databases are of this backend; say which with `wrap_as(name, conn)`";
                Err(Error::new(ErrorKind::Config, message))
            }
        }
    }

    /// Wraps a connection of the caller's to the database of this name.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub fn wrap_as<C: Connection>(&self, database: &str, conn: C) -> Result<SyncConnection<C>> {
        Ok(self.scope_on(self.attached::<C::Backend>(database)?.wrap(conn)?))
    }

    /// Opens connections for a pool. They are handed out within the scope of this handle.
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// fn serve(kv: &kvsync::KvSync) -> Result<(), Box<dyn std::error::Error>> {
    ///     use diesel::r2d2::Pool;
    ///     use diesel::sqlite::Sqlite;
    ///
    ///     let pool = Pool::builder().max_size(8).build(kv.connection_manager::<Sqlite>("main")?)?;
    ///     let mut conn = pool.get()?; // for any Diesel statement
    /// #   drop(conn);
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when no database of this name and backend was given to the builder.
    #[cfg(feature = "r2d2")]
    pub fn connection_manager<DB: SyncBackend>(&self, database: &str) -> Result<ConnectionManager<DB>> {
        Ok(ConnectionManager::new(self.attached::<DB>(database)?.clone(), self.scope.clone()))
    }

    /// Looks at the tables of every model that is registered for this connection's database: whether
    /// the model's columns are there and may be read, and whether every key is covered by a unique
    /// constraint. A table's first captured write does the same; this is for the start of a program, or
    /// for a test of it. Returns what weakens a promise. Tables that are not there yet are passed over.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Database`] when a table does not fit its models: its writes would fail. The text
    /// lists every misfit. Also when the catalog cannot be read.
    pub fn check<C: Connection>(&self, conn: &mut SyncConnection<C>) -> Result<Vec<Finding>> {
        let (misfits, warnings): (Vec<_>, Vec<_>) =
            conn.check()?.into_iter().partition(|finding| finding.severity == Severity::Error);
        if misfits.is_empty() {
            return Ok(warnings);
        }
        let misfits: Vec<String> = misfits.iter().map(ToString::to_string).collect();
        Err(Error::new(ErrorKind::Database, misfits.join("; ")))
    }

    /// Looks at the tables as [`check`](Self::check) does, for all in the database that writes their rows
    /// unseen (triggers, foreign keys with actions, rules, views, functions, children), and for settings by
    /// which it may forget what it committed. Returns all of it, misfits included, the worst first; each
    /// finding says what to do.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Database`] when the catalog cannot be read.
    pub fn audit<C: Connection>(&self, conn: &mut SyncConnection<C>) -> Result<Vec<Finding>> {
        conn.audit()
    }

    /// Waits until everything that was committed before the call has been dealt with in every store, and confirmed by
    /// every broker; of what goes through an outbox, also what other processes committed. Consumers are not waited for.
    /// A row that a store refuses, or that has no form there, is dealt with once its readers are sent to
    /// the database: it was reported, and [`health`](Self::health) and [`wait`](Self::wait) tell of it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Deadline`] when it took too long; the text says what is left. [`ErrorKind::Rejected`] when rows of an
    /// outbox have failed and will be tried again: the text says of which tables how many, and why; dead letters
    /// are no longer waited for. [`ErrorKind::Closed`] after a [`shutdown`](Self::shutdown).
    pub fn flush(&self, deadline: Duration) -> Result<()> {
        self.inner.pipeline.flush(deadline)
    }

    /// Waits until every row of one commit is in every store: the token is that of
    /// [`SyncConnection::last_commit`], also of another process, if its connection was told to make
    /// tokens portable:
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// fn write(kv: &kvsync::KvSync) -> Result<String, Box<dyn std::error::Error>> {
    ///     let mut conn = kv.connect::<diesel::sqlite::Sqlite>("main")?;
    ///     conn.set_portable_tokens(true);
    ///     // .. write, then send the token to whoever reads next: it is a serde type
    ///     let token = conn.last_commit().ok_or("nothing was written")?;
    /// #   let to_string = |token: &kvsync::change::CommitToken| format!("{token:?}");
    ///     Ok(to_string(token))
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Deadline`] when it took too long, the failure of a row that could not be written, or
    /// [`ErrorKind::Config`] when the token is another process's and not portable.
    pub fn wait(&self, token: &CommitToken, deadline: Duration) -> Result<()> {
        self.inner.pipeline.wait(token, deadline)
    }

    /// Raises the epoch of every store: all entries written before read as unknown from now on. To be
    /// called once after the database was restored to an earlier state. Other processes follow within
    /// [`Builder::upkeep_every`]; to be sure, stop them first.
    ///
    /// # Errors
    ///
    /// When a store could not be asked or told. Call it again.
    pub fn raise_epoch(&self) -> Result<u32> {
        self.inner.pipeline.raise_epoch()
    }

    /// Says that a table's rows in the store are the database's again, or that it does not matter: the
    /// table counts as dirty no longer. `None` is for writes of which the table was not known. Nothing is
    /// brought up to date by this: [`backfill_dirty`](Self::backfill_dirty) and [`repair`](Self::repair) do
    /// that and take the mark away themselves.
    pub fn clear_dirty(&self, database: &str, table: Option<&str>) {
        self.inner.pipeline.clear_dirty(database, table);
    }

    /// Takes no more changes, writes what is queued until the deadline, stops the threads, makes the
    /// stores durable and says what was written and what was left. Fetches still work where the store
    /// allows it. A second call says the same as the first.
    #[allow(clippy::must_use_candidate, reason = "a program may end without asking what was left")]
    pub fn shutdown(&self, deadline: Duration) -> Shutdown {
        self.inner.pipeline.shutdown(deadline)
    }

    /// The store that is read. Of a handle without one, a stand-in that fails whatever is asked of it.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn SyncStore> {
        &self.inner.store
    }

    fn scope_on<C: Connection>(&self, mut conn: SyncConnection<C>) -> SyncConnection<C> {
        conn.set_scope(self.scope.clone());
        conn
    }

    fn attached<DB: SyncBackend>(&self, name: &str) -> Result<&Attached<DB>> {
        self.database(name)?.downcast::<DB>().ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("the database `{name}` is of another backend than asked for"))
        })
    }

    fn database(&self, name: &str) -> Result<&Arc<dyn AnyDatabase>> {
        self.inner.databases.get(name).ok_or_else(|| {
            let mut known: Vec<String> = self.inner.databases.keys().map(|name| format!("`{name}`")).collect();
            known.sort();
            let known = if known.is_empty() { "none was".to_owned() } else { known.join(", ") };
            Error::new(ErrorKind::Config, format!("no database `{name}` was given to the builder, but {known}"))
        })
    }
}

impl fmt::Debug for KvSync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("KvSync");
        out.field("store", &self.inner.store.name()).field("scope", &self.scope).finish_non_exhaustive()
    }
}
