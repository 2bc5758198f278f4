use std::sync::Arc;
use std::time::Duration;

use super::KvSync;
use crate::capture::AnyDatabase;
use crate::change::{Action, Change, Row, Unknown};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Model, Reread, Schema, Syncable, Wanted};
use crate::version::Version;

/// How long a re-read may wait for the row's lock.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

impl KvSync {
    /// Reads the row of this model again, under a lock, and writes what the database says into every
    /// store before it returns: for rows that were written past kvsync. Only the model's primary key is
    /// used. Returns whether there is such a row.
    ///
    /// The database is asked, rather than the model believed, because only a row read under a lock has a
    /// version: what the model holds may be older than what the store holds.
    ///
    /// Blocks while another transaction holds the row, for ten seconds at most.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when the model is registered in no database; the
    /// database's or the store's failure otherwise.
    pub fn sync<M: Syncable>(&self, model: &M) -> Result<bool> {
        let (database, read) = self.reread(model)?;
        let read_row = read.row?;
        let found = read_row.is_some();
        let row = match read_row {
            Some(row) => Row::Live(row),
            None => Row::Absent(unknown(model)),
        };
        self.inner.pipeline.apply_now(&[self.change::<M>(&*database, read.version, row)])?;
        Ok(found)
    }

    /// Takes the row of this model out of every store, before it returns. Only the model's primary key is
    /// used. If the row is gone from the database, its keys are absent from then on; if it still stands
    /// there, they are unknown until it is written or synced again.
    ///
    /// # Errors
    ///
    /// As [`sync`](Self::sync).
    pub fn remove<M: Syncable>(&self, model: &M) -> Result<()> {
        let (database, read) = self.reread(model)?;
        let row = match read.row {
            Ok(Some(row)) => Row::Unknown(Row::Live(row).unknown()),
            Ok(None) => Row::Absent(unknown(model)),
            // Its record knows its keys; without one nobody does.
            Err(_) if M::SCHEMA.has_mutable_key() => Row::Unknown(unknown(model)),
            Err(error) => return Err(error),
        };
        self.inner.pipeline.apply_now(&[self.change::<M>(&*database, read.version, row)])
    }

    fn reread<M: Syncable>(&self, model: &M) -> Result<(Arc<dyn AnyDatabase>, Reread)> {
        let database = self.database_with(M::SCHEMA)?;
        let wanted = Wanted {
            schema: M::SCHEMA,
            scope: self.scope.clone(),
            primary_key: Model::primary_key(model),
            floor: Version::ZERO,
        };
        let read = database.source().reread(&[wanted], PATIENCE)?.pop();
        let read =
            read.ok_or_else(|| Error::new(ErrorKind::Database, format!("`{}` did not answer", database.name())))?;
        Ok((database, read))
    }

    /// The database in which the model is registered.
    pub(super) fn database_with(&self, schema: &Schema) -> Result<Arc<dyn AnyDatabase>> {
        let wanted = (schema.table, schema.model);
        let registered = |schemas: &[&Schema]| schemas.iter().any(|schema| (schema.table, schema.model) == wanted);
        let (name, _) = self.inner.schemas.iter().find(|(_, schemas)| registered(schemas)).ok_or_else(|| {
            let message =
                format!("`{}` is registered in no database; call `.model::<{}>()` on one", wanted.1, wanted.1);
            Error::new(ErrorKind::Config, message)
        })?;
        self.database(name).map(Arc::clone)
    }

    fn change<M: Syncable>(&self, database: &dyn AnyDatabase, version: Version, row: Row) -> Change {
        Change {
            schema: M::SCHEMA,
            database: database.name().into(),
            scope: self.scope.clone(),
            action: Action::Reread,
            version,
            captured_at: self.inner.clock.now(),
            row,
            size: 0,
        }
    }
}

fn unknown<M: Syncable>(model: &M) -> Unknown {
    Unknown { primary_key: Model::primary_key(model), kept: Vec::new(), certain: true }
}
