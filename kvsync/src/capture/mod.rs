//! Catches what ordinary Diesel statements write.
//!
//! A [`SyncConnection`] makes each INSERT, UPDATE and DELETE of a registered table return the columns
//! of its models and a version, hides these from the caller, and hands the changes on once the
//! outermost COMMIT has returned.

mod audit;
mod backend;
mod check;
mod connection;
mod database;
mod fragment;
mod hub;
mod lend;
mod look;
mod pending;
mod plan;
#[cfg(feature = "r2d2")]
mod pool;
#[cfg(feature = "postgres")]
mod postgres;
mod reread;
mod row;
mod run;
#[cfg(feature = "sqlite")]
mod sqlite;
mod state;
mod statement;
mod table;
mod traits;
mod transaction;
mod ways;

pub use self::backend::{Inner, SyncBackend};
pub use self::check::{Finding, Severity};
pub use self::connection::SyncConnection;
pub use self::database::{AnyDatabase, Attached, Database, Policy, Unattached};
#[cfg(feature = "r2d2")]
pub use self::pool::ConnectionManager;
#[cfg(feature = "postgres")]
pub use self::postgres::TransactionBuilder;
pub use self::row::{SyncCursor, SyncField, SyncRow};
#[cfg(feature = "sqlite")]
pub use self::sqlite::{BatchResults, SQLITE_COUNTER};
pub use self::table::SyncModel;
pub use self::transaction::SyncTransactionManager;
