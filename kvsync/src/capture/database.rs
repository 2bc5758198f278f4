//! A database and the models in it, as users declare them.

use parking_lot::{Mutex, RwLock};
use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::backend::{Inner, SyncBackend};
use super::connection::SyncConnection;
use super::finding::Finding;
use super::hub::{Factory, Hub, Scopes};
use super::outbox::OutboxTable;
use super::primary::loses_keys;
use super::reread::Rereader;
use super::table::{SyncModel, Table, table_of};
use super::triggers::{TriggersSql, triggers_of};
use crate::change::Publish;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Schema, Source};
use crate::transport::Outbox;

/// What becomes of a statement that writes a registered table in a way that cannot be captured: several
/// statements in one string, a statement that writes inside another, MERGE, COPY FROM, EXPLAIN ANALYZE,
/// DO, OR FAIL, a write through a view, a partition's own name or a trigger, ALTER TABLE and DROP TABLE,
/// an UPDATE of the primary key that joins other tables or begins with WITH, a DELETE or UPDATE that a foreign
/// key carries on to rows of a registered table, and whatever is not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Policy {
    /// It is not run: an error says why.
    Error,
    /// It is run and reported; the table is dirty until it is verified.
    Warn,
    /// It is run, and nobody is told.
    Allow,
}

/// A database and the models in it, to be given to the builder.
///
/// ```
/// # #[cfg(feature = "sqlite")] {
/// use diesel::prelude::*;
/// use diesel::sqlite::Sqlite;
/// use kvsync::capture::{Database, Policy};
///
/// let database = Database::<Sqlite>::new("main", || SqliteConnection::establish("app.db"))
///     // .model::<User>() for each model
///     .policy(Policy::Error);
/// # }
/// ```
pub struct Database<DB: SyncBackend> {
    name: Arc<str>,
    factory: Factory<DB>,
    tables: Vec<Table<DB>>,
    policy: Policy,
    truncate: Policy,
    misfit: Policy,
    wraps: bool,
    check_every: Duration,
    max_pending: usize,
    outbox: bool,
    pub(super) scopes: Option<Scopes>,
    pub(super) single_tenant: bool,
    wrong: Option<Error>,
}

/// How often a table is looked at again.
const CHECK_EVERY: Duration = Duration::from_mins(1);
/// How many bytes of changes a transaction holds before it keeps primary keys only.
const MAX_PENDING: usize = 64 << 20;

impl<DB: SyncBackend> Database<DB> {
    /// The database of this name. The factory opens a connection: for rows that must be read again, and
    /// for `KvSync::connect` and pools. It is called from several threads.
    pub fn new<E, F>(name: &str, factory: F) -> Self
    where
        E: Into<Box<dyn StdError + Send + Sync>>,
        F: Fn() -> Result<DB::Connection, E> + Send + Sync + 'static,
    {
        Self {
            name: name.into(),
            factory: Arc::new(move || factory().map_err(Into::into)),
            tables: Vec::new(),
            policy: Policy::Warn,
            truncate: Policy::Error,
            misfit: Policy::Warn,
            wraps: false,
            check_every: CHECK_EVERY,
            max_pending: MAX_PENDING,
            outbox: false,
            scopes: None,
            single_tenant: false,
            wrong: None,
        }
    }

    /// Registers a model: what is written to its table is synced. A table may have several.
    #[must_use]
    pub fn model<M: SyncModel<DB>>(mut self) -> Self {
        match table_of::<DB, M>() {
            Ok(table) => self.register(table),
            Err(error) => self.set_wrong(error),
        }
        self
    }

    /// Registers a model of whose written rows only the primary keys are asked for. Their readers are sent
    /// to the database until the rows were read again, on a connection of the factory's.
    ///
    /// So a write needs no right to read but on the primary key, and does not care whether the model still
    /// fits the table; its price is the second reading. For tables with rights on single columns, with wide
    /// rows, or whose schema others change. The factory's role needs SELECT and UPDATE on the table. A model
    /// whose keys have no ledger can have this only if its one key is the primary key's: nobody could mask
    /// the others.
    #[must_use]
    pub fn model_by_key<M: SyncModel<DB>>(mut self) -> Self {
        match table_of::<DB, M>() {
            Ok(_) if loses_keys(M::SCHEMA) => {
                let message = format!(
                    "the model `{}` cannot be captured by key: of its keys, none of which changes, only the one made \
                     of the primary key would be known; register it with `model`, or leave out `immutable`",
                    M::SCHEMA.model
                );
                self.wrong.get_or_insert(Error::new(ErrorKind::Config, message));
            }
            Ok(mut table) => {
                table.models.iter_mut().for_each(|model| model.by_key = true);
                self.register(table);
            }
            Err(error) => self.wrong = self.wrong.or(Some(error)),
        }
        self
    }

    /// What becomes of a write whose rows cannot be read back: a column of the model was dropped, or the
    /// role may not read it, or the table's rules or its row security forbid to return rows.
    ///
    /// By default ([`Policy::Warn`]) such a write is as good as without kvsync. Where the primary key can be
    /// read, the rows are captured by it, as with [`model_by_key`](Self::model_by_key), and that is reported
    /// once; otherwise every such write is reported. With [`Policy::Error`] writes of a table that is known
    /// to be so are refused. A write that is the first to meet it fails on PostgreSQL if it stands in a
    /// transaction, because there one failure ends it; the next passes.
    #[must_use]
    pub fn misfit(self, policy: Policy) -> Self {
        Self { misfit: policy, ..self }
    }

    /// What becomes of statements that cannot be captured. Without this call they are run and reported
    /// ([`Policy::Warn`]), but for a TRUNCATE of a registered table, which is an error.
    #[must_use]
    pub fn policy(self, policy: Policy) -> Self {
        Self { policy, truncate: policy, ..self }
    }

    /// How often the first write after it looks at the table again, as the first of all does: whether the
    /// models still fit, and every key is still unique; a minute, if not told. It takes a dozen queries.
    /// Another program may have altered the table: a unique constraint that was made DEFERRABLE or dropped
    /// would let two rows fight for one key.
    #[must_use]
    pub fn check_every(self, every: Duration) -> Self {
        Self { check_every: every, ..self }
    }

    /// Runs each write that stands in no transaction in one of its own.
    ///
    /// When a connection is lost before the answer to such a write, nobody knows which rows it was about, and
    /// its table is dirty. In a transaction its rows are known before it is committed: if the answer to that
    /// is lost, they are masked and read again, and nothing is amiss. For networks that break often; the price
    /// is two more round trips a write on PostgreSQL.
    #[must_use]
    pub fn wrap_single_writes(self) -> Self {
        Self { wraps: true, ..self }
    }

    /// How many bytes of changes a transaction holds in memory, 64 MiB if not told. Of the changes
    /// beyond, only primary keys are kept; their rows are read again once it is committed. Primary keys
    /// take as much again; beyond that nothing is kept, and the table is dirty and filled in again.
    #[must_use]
    pub fn max_transaction_bytes(self, bytes: usize) -> Self {
        Self { max_pending: bytes, ..self }
    }

    /// Lets changes wait in the database's [outbox](super::outbox) until they are in every store, in place
    /// of a queue in memory: then nothing is lost when the process is killed.
    #[must_use]
    pub fn outbox(self) -> Self {
        Self { outbox: true, ..self }
    }

    /// Keeps the first of what is wrong, to be told by the builder.
    pub(super) fn set_wrong(&mut self, error: Error) {
        self.wrong.get_or_insert(error);
    }

    /// What is registered.
    pub(super) fn tables(&self) -> Result<&[Table<DB>]> {
        match &self.wrong {
            Some(wrong) => Err(wrong.clone()),
            None => Ok(&self.tables),
        }
    }

    pub(super) fn register(&mut self, table: Table<DB>) {
        let known = self.tables.iter_mut().find(|known| known.name == table.name && known.schema == table.schema);
        let Some(known) = known else { return self.tables.push(table) };
        known.triggers |= table.triggers;
        for model in table.models {
            let name = |schema: &Schema| (schema.model, schema.generation);
            if known.models.iter().any(|other| name(other.schema) == name(model.schema)) {
                let message = format!("the model `{}` is registered twice", model.schema.model);
                self.wrong.get_or_insert(Error::new(ErrorKind::Config, message));
            }
            known.models.push(model);
        }
    }
}

impl<DB: SyncBackend> fmt::Debug for Database<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables: Vec<&str> = self.tables.iter().map(|table| table.name.as_str()).collect();
        f.debug_struct("Database").field("name", &self.name).field("tables", &tables).finish_non_exhaustive()
    }
}

/// A database of any backend, before it knows where its changes go.
pub trait Unattached: Send {
    /// Its name.
    fn name(&self) -> &str;

    /// The models that are registered in it.
    fn schemas(&self) -> Vec<&'static Schema>;

    /// Tells it where its changes go.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when its models cannot be synced as they were registered.
    fn attach(self: Box<Self>, publish: Arc<dyn Publish>) -> Result<Arc<dyn AnyDatabase>>;
}

impl<DB: SyncBackend> Unattached for Database<DB> {
    fn name(&self) -> &str {
        &self.name
    }

    fn schemas(&self) -> Vec<&'static Schema> {
        self.tables.iter().flat_map(|table| &table.models).map(|model| model.schema).collect()
    }

    fn attach(self: Box<Self>, publish: Arc<dyn Publish>) -> Result<Arc<dyn AnyDatabase>> {
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        let tables = self.tables.into_iter().map(Arc::new).collect();
        let Self { name, factory, policy, truncate, misfit, wraps, check_every, max_pending, outbox, .. } = *self;
        let hub = Arc::new(Hub {
            name,
            tables,
            policy,
            truncate,
            misfit,
            wraps,
            max_pending,
            outbox,
            scopes: self.scopes,
            single_tenant: self.single_tenant,
            publish,
            factory,
            cluster: Mutex::default(),
            ways: RwLock::default(),
            no_cascades: AtomicBool::new(false),
            check_every,
        });
        let source = Arc::new(Rereader::new(Arc::clone(&hub)));
        let fills = hub.outbox || hub.tables.iter().any(|table| table.triggers);
        let outbox = fills.then(|| Arc::new(OutboxTable::new(Arc::clone(&hub))) as Arc<dyn Outbox>);
        Ok(Arc::new(Attached { hub, source, outbox }))
    }
}

/// A database of any backend that knows where its changes go.
pub trait AnyDatabase: Any + Send + Sync {
    /// Its name.
    fn name(&self) -> &str;

    /// Reads its rows again, on a connection of its own that the factory opens when it is first needed.
    fn source(&self) -> Arc<dyn Source>;

    /// Its outbox, if changes wait in one; on a connection of its own, too.
    fn outbox(&self) -> Option<Arc<dyn Outbox>>;

    /// What the catalog shows of its tables; see [`SyncConnection::audit`]. Opens a connection.
    ///
    /// # Errors
    ///
    /// As [`Attached::connect`] and [`SyncConnection::audit`].
    fn audit(&self) -> Result<Vec<Finding>>;

    /// The triggers of its tables; see [`Database::triggers_sql`].
    fn triggers_sql(&self) -> TriggersSql;
}

impl dyn AnyDatabase {
    /// The database, if it is one of this backend.
    pub fn downcast<DB: SyncBackend>(&self) -> Option<&Attached<DB>> {
        (self as &dyn Any).downcast_ref()
    }
}

/// A database that knows where its changes go. Clones share all of it.
pub struct Attached<DB: SyncBackend> {
    hub: Arc<Hub<DB>>,
    source: Arc<Rereader<DB>>,
    outbox: Option<Arc<dyn Outbox>>,
}

impl<DB: SyncBackend> Attached<DB> {
    /// Opens a connection with the factory.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] when the factory fails; otherwise as [`wrap`](Self::wrap).
    pub fn connect(&self) -> Result<SyncConnection<DB::Connection>> {
        self.wrap(self.hub.open()?)
    }

    /// Wraps a connection of the caller's. Its cache of prepared statements is emptied and switched on;
    /// an instrumentation is best set afterwards.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Database`] when it is a database that cannot be captured, such as SQLite before
    /// 3.35, or when it is of another PostgreSQL cluster than the last one and the epoch was not raised
    /// since, and [`ErrorKind::Config`] when a transaction is open on it or could not be ended.
    pub fn wrap<C: Inner<Backend = DB>>(&self, mut conn: C) -> Result<SyncConnection<C>> {
        super::connection::without_transaction(&mut conn, "the connection cannot be wrapped")?;
        self.hub.greet(&mut conn)?;
        Ok(SyncConnection::new(conn, Arc::clone(&self.hub)))
    }
}

impl<DB: SyncBackend> Clone for Attached<DB> {
    fn clone(&self) -> Self {
        Self { hub: Arc::clone(&self.hub), source: Arc::clone(&self.source), outbox: self.outbox.clone() }
    }
}

impl<DB: SyncBackend> AnyDatabase for Attached<DB> {
    fn name(&self) -> &str {
        &self.hub.name
    }

    fn source(&self) -> Arc<dyn Source> {
        Arc::clone(&self.source) as Arc<dyn Source>
    }

    fn outbox(&self) -> Option<Arc<dyn Outbox>> {
        self.outbox.clone()
    }

    fn audit(&self) -> Result<Vec<Finding>> {
        self.connect()?.audit()
    }

    fn triggers_sql(&self) -> TriggersSql {
        triggers_of(self.hub.tables.iter().map(|table| &**table))
    }
}

impl<DB: SyncBackend> fmt::Debug for Attached<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached").field("name", &self.hub.name).finish_non_exhaustive()
    }
}
