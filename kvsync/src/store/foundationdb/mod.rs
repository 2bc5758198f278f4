//! A store in FoundationDB: a thin adapter of its transactions to the [ordered layer](super::ordered), which brings both
//! contracts.
//!
//! **Written against the documented API, and never run by the authors**: neither a server nor the client library could be
//! had where this was written. It compiles; the layer is proven by the other stores on it; the conformance suite
//! runs against a cluster of yours (`CONTRIBUTING.md`). To build it you need clang (`libclang`), to link and
//! run it FoundationDB's client library, `libfdb_c`, 7.3 or newer.
//!
//! ```no_run
//! use kvsync::store::foundationdb::FoundationDbStore;
//!
//! # fn main() -> kvsync::Result<()> {
//! let store = FoundationDbStore::builder("/etc/foundationdb/fdb.cluster").subspace("shop/").open()?;
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//!
//! - A command, an atomic write, or all the steps of one call are one transaction, strictly serializable and durable
//!   when it is acknowledged; steps that are too large for one are several. Nothing acknowledged is forgotten.
//! - Readings that write nothing are snapshot reads of one version; those of a transaction that writes are
//!   serializable. Conflicts and other passing failures are tried again, until [`retries`](Builder::retries) or
//!   [`timeout`](Builder::timeout) end it: [`Contention`](crate::ErrorKind::Contention) where others wrote the same, with
//!   nothing done.
//! - **A commit whose result is unknown is never repeated here.** It is told as
//!   [`UnknownOutcome`](crate::ErrorKind::UnknownOutcome). The usual loop repeats it, and would count an increment
//!   twice, or tell the one who took a name that it is taken. What kvsync syncs may be repeated, and its workers do.
//!
//! # Limits
//!
//! They are FoundationDB's own, and errors of kind [`Rejected`](crate::ErrorKind::Rejected) that say so: a key of 10 kB
//! with the subspace; 10 MB and five seconds a transaction, so that a set or hash whose removal takes longer cannot be
//! removed as a whole. A value of more than FoundationDB's 100 kB is [split](super::ordered::Split) into pieces, up to one
//! MiB; rows that are larger are unknown to readers, who ask the database.
//!
//! Versionstamps serve nowhere in it: the versions of rows come from the database, and the commands have none.
//!
//! # The end of the process
//!
//! The client library has one network thread, which must have ended when the process ends. It ends with the last store.
//! So close the stores, or drop them, before `main` returns or `std::process::exit` is called, and keep none in a
//! static. The thread cannot be started again: after the last store, none can be opened.

mod error;
mod network;
mod transaction;

use std::cell::Cell;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::foundationdb::options::TransactionOption;
use ::foundationdb::{Database, FdbResult, Transaction};
use parking_lot::RwLock;

use self::network::Network;
use self::transaction::{Work, wait};
use super::ordered::{Engine, Limits, OrderedStore, Reader, Split, Writer};
use super::{Health, Status, Store};
use crate::clock::whole_millis;
use crate::error::{Error, ErrorKind, Result};

/// FoundationDB's limit of a key.
const KEY: usize = 10_000;
/// Values above this are split; FoundationDB's own limit is 100 kB.
const PIECE: usize = 90_000;
/// The largest value: a row and some keys with it fit into one transaction.
const VALUE: usize = 1 << 20;
/// What a transaction may write; FoundationDB's limit of 10 MB includes what it notes of conflicts.
const TRANSACTION: usize = 8_000_000;
/// Steps of one transaction: few enough that one conflict does not undo much.
const BATCH: usize = 256;

/// A store in FoundationDB. Clones share it. See the [module](self) for what it promises and needs.
pub type FoundationDbStore = OrderedStore<FoundationDb>;

impl FoundationDbStore {
    /// The store in the cluster of this cluster file, in the subspace `kvsync/`.
    ///
    /// # Errors
    ///
    /// As [`Builder::open`].
    pub fn open(cluster_file: impl Into<PathBuf>) -> Result<Self> {
        Self::builder(cluster_file).open()
    }

    /// A store to be configured and opened.
    pub fn builder(cluster_file: impl Into<PathBuf>) -> Builder {
        Builder {
            cluster_file: cluster_file.into(),
            subspace: b"kvsync/".to_vec(),
            timeout: Duration::from_secs(5),
            retries: 100,
        }
    }
}

/// How a [`FoundationDbStore`] is opened.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it opens"]
pub struct Builder {
    cluster_file: PathBuf,
    subspace: Vec<u8>,
    timeout: Duration,
    retries: u16,
}

impl Builder {
    /// What every key begins with: `kvsync/` by default. No other program should use keys that begin with it.
    pub fn subspace(self, prefix: impl Into<Vec<u8>>) -> Self {
        Self { subspace: prefix.into(), ..self }
    }

    /// How long a call may take, everything that is tried again included: five seconds by default.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// How often a transaction is tried again: 100 times by default.
    pub fn retries(self, retries: u16) -> Self {
        Self { retries, ..self }
    }

    /// Opens the store, and asks the cluster whether it is there.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when the cluster file cannot be used, or the subspace or timeout makes no sense;
    /// [`ErrorKind::Deadline`] when the cluster does not answer; [`ErrorKind::Closed`] when the last store of this
    /// process was closed.
    pub fn open(self) -> Result<FoundationDbStore> {
        let config = |what: &'static str| Error::new(ErrorKind::Config, what);
        if self.subspace.len() > KEY / 2 || self.subspace.first() == Some(&u8::MAX) {
            return Err(config("the subspace of a foundationdb store is too long, or among the system's keys"));
        }
        if self.timeout < Duration::from_millis(1) {
            return Err(config("the timeout of a foundationdb store cannot be zero"));
        }
        let path = self.cluster_file.to_str().ok_or_else(|| config("the path of the cluster file is no text"))?;
        let network = Network::shared()?;
        let database = Database::new(Some(path))
            .map_err(|failed| error::plain("the cluster file of foundationdb cannot be used", failed))?;
        let engine = FoundationDb {
            name: format!("foundationdb of {path}"),
            subspace: self.subspace,
            timeout: self.timeout,
            retries: self.retries,
            open: RwLock::new(Some(Open { database, _network: network })),
        };
        engine.ping(self.timeout)?;
        Ok(OrderedStore::over(engine))
    }
}

/// The engine of a [`FoundationDbStore`]: a subspace of a cluster.
pub struct FoundationDb {
    name: String,
    subspace: Vec<u8>,
    timeout: Duration,
    retries: u16,
    /// Nothing once it is closed.
    open: RwLock<Option<Open>>,
}

/// The database comes first: it is dropped before its network thread ends.
struct Open {
    database: Database,
    _network: Arc<Network>,
}

impl FoundationDb {
    /// Runs work in a transaction, again as long as that helps.
    fn run<T>(&self, snapshot: bool, work: impl Fn(&mut Split<Work<'_>>) -> Result<T>) -> Result<T> {
        let open = self.open.read();
        let mut transaction = self.begin(open.as_ref(), self.timeout)?;
        loop {
            let failed = Cell::new(None);
            let doing = Work::new(&transaction, &self.subspace, &failed, snapshot);
            let mut split = Split::over(doing, PIECE);
            let answer = work(&mut split);
            let writes = split.into_inner().and_then(Work::writes);
            let failed = failed.get();
            let again = match (failed, answer) {
                // Whatever the work made of a failed reading.
                (Some(failed), _) => wait(transaction.on_error(failed)),
                (None, Err(error)) => return Err(error),
                (None, Ok(answer)) if !writes? => return Ok(answer),
                (None, Ok(answer)) => match wait(transaction.commit()) {
                    Ok(_) => return Ok(answer),
                    Err(failed) if error::in_doubt(*failed) => return Err(error::of(*failed, true)),
                    Err(failed) => wait(failed.on_error()),
                },
            };
            transaction = again.map_err(|last| error::of(last, false))?;
        }
    }

    fn begin(&self, open: Option<&Open>, timeout: Duration) -> Result<Transaction> {
        let open = open.ok_or_else(|| Error::new(ErrorKind::Closed, format!("{} was closed", self.name)))?;
        let limited = || -> FdbResult<Transaction> {
            let transaction = open.database.create_trx()?;
            let millis = i32::try_from(whole_millis(timeout)).unwrap_or(i32::MAX);
            transaction.set_option(TransactionOption::Timeout(millis.max(1)))?;
            transaction.set_option(TransactionOption::RetryLimit(self.retries.into()))?;
            Ok(transaction)
        };
        limited().map_err(|failed| error::plain("no transaction could be begun in foundationdb", failed))
    }

    /// Asks for a read version, which only a cluster that serves gives.
    fn ping(&self, timeout: Duration) -> Result<()> {
        let open = self.open.read();
        let transaction = self.begin(open.as_ref(), timeout)?;
        wait(transaction.get_read_version()).map(drop).map_err(|failed| error::of(failed, false))
    }
}

impl fmt::Debug for FoundationDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FoundationDb").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Store for FoundationDb {
    fn name(&self) -> &str {
        &self.name
    }

    fn health(&self, deadline: Duration) -> Health {
        match self.ping(deadline) {
            Ok(()) => Health::new(Status::Up, Vec::new()),
            Err(error) => Health::new(Status::Down, vec![error.to_string()]),
        }
    }

    /// Waits for the calls under way and lets go of the cluster; the last store of the process ends the network
    /// thread. What was acknowledged is durable.
    fn close(&self) -> Result<()> {
        *self.open.write() = None;
        Ok(())
    }
}

impl Engine for FoundationDb {
    fn limits(&self) -> Limits {
        Limits {
            key: KEY - self.subspace.len() - Split::<()>::OVERHEAD,
            value: VALUE,
            transaction: TRANSACTION,
            batch: BATCH,
        }
    }

    fn read<T>(&self, work: impl Fn(&dyn Reader) -> Result<T>) -> Result<T> {
        self.run(true, |doing| work(doing))
    }

    fn write<T>(&self, work: impl Fn(&mut dyn Writer) -> Result<T>) -> Result<T> {
        self.run(false, |doing| work(doing))
    }
}
