//! The migration that makes the outbox, embedded.

use std::fmt;

use diesel::connection::BoxableConnection;
use diesel::migration::{self, Migration, MigrationMetadata, MigrationName, MigrationSource, MigrationVersion};

use super::super::backend::SyncBackend;
use super::super::statement::Dialect;

/// The migrations of kvsync's own tables, for Diesel's `MigrationHarness`: beside yours, in any order, but
/// before the one that makes triggers. The one for SQLite makes the counter of `SQLITE_COUNTER`, too.
/// The same SQL stands in `migrations/postgres/` and `migrations/sqlite/` of this crate, as files to be copied among yours, if you prefer
/// these; do one or the other.
///
/// ```no_run
/// # #[cfg(feature = "sqlite")]
/// # fn run(kv: &kvsync::KvSync) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// use diesel::migration::MigrationSource;
/// use diesel::sqlite::Sqlite;
///
/// let mut conn = kv.connect::<Sqlite>("main")?;
/// // With diesel_migrations: conn.unsynced().run_pending_migrations(kvsync::capture::outbox::migrations())
/// for migration in MigrationSource::<Sqlite>::migrations(&kvsync::capture::outbox::migrations())? {
///     migration.run(conn.unsynced())?;
/// }
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn migrations() -> Migrations {
    Migrations(())
}

/// See [`migrations`].
#[derive(Debug, Clone, Copy)]
pub struct Migrations(());

impl<DB: SyncBackend> MigrationSource<DB> for Migrations {
    fn migrations(&self) -> migration::Result<Vec<Box<dyn Migration<DB>>>> {
        let outbox = match DB::DIALECT {
            Dialect::Postgres => OutboxMigration {
                up: include_str!("../../../migrations/postgres/20250101000000_kvsync_outbox/up.sql"),
                down: include_str!("../../../migrations/postgres/20250101000000_kvsync_outbox/down.sql"),
            },
            Dialect::Sqlite => OutboxMigration {
                up: include_str!("../../../migrations/sqlite/20250101000000_kvsync_outbox/up.sql"),
                down: include_str!("../../../migrations/sqlite/20250101000000_kvsync_outbox/down.sql"),
            },
        };
        Ok(vec![Box::new(outbox)])
    }
}

struct OutboxMigration {
    up: &'static str,
    down: &'static str,
}

impl<DB: SyncBackend> Migration<DB> for OutboxMigration {
    fn run(&self, conn: &mut dyn BoxableConnection<DB>) -> migration::Result<()> {
        Ok(conn.batch_execute(self.up)?)
    }

    fn revert(&self, conn: &mut dyn BoxableConnection<DB>) -> migration::Result<()> {
        Ok(conn.batch_execute(self.down)?)
    }

    fn metadata(&self) -> &dyn MigrationMetadata {
        &InTransaction
    }

    fn name(&self) -> &dyn MigrationName {
        &Name
    }
}

struct InTransaction;

impl MigrationMetadata for InTransaction {}

struct Name;

impl MigrationName for Name {
    fn version(&self) -> MigrationVersion<'_> {
        // As the folder is named: who has copied it has run it.
        MigrationVersion::from("20250101000000")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("20250101000000_kvsync_outbox")
    }
}
