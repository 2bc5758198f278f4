//! What the connections to one database share.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use super::backend::{Inner, SyncBackend};
use super::database::Policy;
use super::pending::Room;
use super::secrets::masked;
use super::statement::TableName;
use super::table::Table;
use super::ways::Way;
use crate::change::{CommitToken, Missed, OutboxRange, Publish};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Scope;

/// What the connections to one database share.
pub struct Hub<DB: SyncBackend> {
    pub(super) name: Arc<str>,
    pub(super) tables: Vec<Arc<Table<DB>>>,
    pub(super) policy: Policy,
    pub(super) truncate: Policy,
    pub(super) misfit: Policy,
    /// Whether a write that stands in no transaction gets one.
    pub(super) wraps: bool,
    pub(super) max_pending: usize,
    /// How often a table is looked at again.
    pub(super) check_every: Duration,
    /// Whether changes are written into the outbox, in the transaction that makes them.
    pub(super) outbox: bool,
    /// The scope of each schema, where schemas have scopes.
    pub(super) scopes: Option<Scopes>,
    /// Whether all rows are those of whatever scope a connection chooses.
    pub(super) single_tenant: bool,
    pub(super) publish: Arc<dyn Publish>,
    pub(super) factory: Factory<DB>,
    /// The cluster that was connected to last, and the epoch of then.
    pub(super) cluster: Mutex<Option<(i64, u32)>>,
    /// The other names of the tables; nothing before they were read.
    pub(super) ways: RwLock<Option<Arc<[Way]>>>,
    /// Whether they were read and no foreign key is one of them, so that writes need not look at them.
    pub(super) no_cascades: AtomicBool,
}

/// Gives schemas their scopes.
pub(super) type Scopes = Arc<dyn Fn(&str) -> Option<Scope> + Send + Sync>;

/// Opens a connection.
pub(super) type Factory<DB> =
    Arc<dyn Fn() -> Result<<DB as SyncBackend>::Connection, Box<dyn StdError + Send + Sync>> + Send + Sync>;

impl<DB: SyncBackend> Hub<DB> {
    /// Looks at a new connection: whether it can be captured, and whether it leads to the database that
    /// versions were taken from.
    pub(super) fn greet<C: Inner<Backend = DB>>(&self, conn: &mut C) -> Result<()> {
        DB::greet(conn)?;
        let Some(found) = DB::cluster(conn) else { return Ok(()) };
        let epoch = self.publish.epoch();
        let mut known = self.cluster.lock();
        match *known {
            Some((cluster, since)) if cluster != found && since >= epoch => {
                let message = format!(
                    "the server behind `{}` is another database cluster (system identifier {found}, it was {cluster}): its \
                     versions cannot be compared with those in the store; call `raise_epoch` if that is meant to be",
                    self.name
                );
                Err(Error::new(ErrorKind::Database, message))
            }
            _ => {
                *known = Some((found, epoch));
                Ok(())
            }
        }
    }

    /// The registered table that a statement names. Where it may be several, the rows tell later.
    pub(super) fn table(&self, name: &TableName<'_>) -> Option<&Arc<Table<DB>>> {
        let named = |table: &&Arc<Table<DB>>| table.name == *name.name;
        let schema = name.schema.as_deref().or(DB::DEFAULT_SCHEMA);
        let exact = |table: &&Arc<Table<DB>>| table.schema.as_deref().or(DB::DEFAULT_SCHEMA) == schema;
        let may_be =
            |table: &&Arc<Table<DB>>| name.schema.is_none() || (DB::DEFAULT_SCHEMA.is_none() && table.schema.is_none());
        let mut tables = self.tables.iter().filter(named);
        tables.clone().find(exact).or_else(|| tables.find(may_be))
    }

    /// The registered tables among these.
    pub(super) fn tables_among(&self, names: &[TableName<'_>]) -> Vec<&Arc<Table<DB>>> {
        let mut tables: Vec<&Arc<Table<DB>>> = Vec::new();
        for table in names.iter().filter_map(|name| self.table(name)) {
            if !tables.iter().any(|known| Arc::ptr_eq(known, table)) {
                tables.push(table);
            }
        }
        tables
    }

    /// Tells that a committed transaction has written rows into the outbox.
    pub(super) fn outboxed(&self, first: i64, last: i64) -> CommitToken {
        self.publish.outboxed(OutboxRange { database: self.name.to_string(), first, last })
    }

    /// Reports a write that was not captured.
    pub(super) fn missed(&self, table: Option<&str>, reason: impl Into<Cow<'static, str>>, sql: &str) {
        let table = table.map(|table| self.declared(table).to_owned());
        self.publish.missed(Missed::new(Arc::clone(&self.name), table, reason, sql));
    }

    /// What the models of a table call it, by which whoever sees to a dirty table finds them: `table!` may give it
    /// another name in SQL, and SQLite's names are folded here.
    pub(super) fn declared<'a>(&self, table: &'a str) -> &'a str {
        let own = self.tables.iter().find(|own| own.name == table);
        own.and_then(|own| own.models.first()).map_or(table, |model| model.schema.table)
    }

    /// What a transaction holds in memory. What is written into an outbox is never lost.
    pub(super) fn room(&self) -> Room {
        let all = if self.outbox { usize::MAX } else { self.max_pending.saturating_mul(2) };
        Room { whole: self.max_pending, all }
    }

    /// Opens a connection with the factory.
    pub(super) fn open(&self) -> Result<DB::Connection> {
        (self.factory)().map_err(|error| {
            let message = format!("no connection to the database `{}` could be opened", self.name);
            Error::new(ErrorKind::Unavailable, message).with_source(masked(error))
        })
    }
}
