use std::panic::resume_unwind;
use std::sync::Arc;

use super::KvSync;
use crate::capture::{Inner as Connection, SyncConnection};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Scope;
use crate::model::{Schema, Syncable};
use crate::upkeep::{Backfill, Interrupted, Summary, Target, clean, fill, known};

impl KvSync {
    /// Fills every store with the rows of this model, from the database, beside live traffic: before the
    /// first deploy, after one that changed the model's fields, for a table that is dirty, or for a store
    /// that has forgotten. Where the handle has brokers, each row is published to them as well: for the store of a
    /// queue that was made later.
    ///
    /// ```
    /// # fn fill<User: kvsync::Syncable>(kv: &kvsync::KvSync) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::ops::ControlFlow;
    ///
    /// let summary = kv
    ///     .backfill::<User>()
    ///     .rows_per_second(5_000)
    ///     .on_progress(|progress| {
    ///         println!("{progress}");
    ///         ControlFlow::Continue(())
    ///     })
    ///     .run()?;
    /// println!("{summary}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// In a database whose schemas have scopes, name the scope ([`scoped`](Self::scoped)), and the rows of its schema
    /// are filled in; [`scopes_of`](Self::scopes_of) lists them. Where connections choose the scope, a table may hold
    /// rows of several, and nothing in it says whose they are: within a scope the backfill is refused there, unless
    /// the database was said to be a [`single_tenant`](crate::capture::Database::single_tenant)'s. See
    /// [`Scope`].
    pub fn backfill<M: Syncable>(&self) -> Backfill {
        Backfill::new(self.inner.pipeline.filler(), self.target_of(M::SCHEMA))
    }

    /// The same for a model whose name is chosen at run time. Of several generations of a model it is the
    /// newest.
    pub fn backfill_model(&self, model: &str) -> Backfill {
        let target = self.schema_named(model).and_then(|schema| self.target_of(schema));
        Backfill::new(self.inner.pipeline.filler(), target)
    }

    /// Fills in every dirty table of [`health`](Self::health): all models of it, one after another. A table
    /// that is not marked again meanwhile is clean then, unless a deletion may have been lost: its rows are
    /// the database's again, but entries of deleted rows may still stand, and the mark stays for these
    /// ([`DirtyTable::filled`](crate::report::DirtyTable::filled)) until a [`repair`](Self::repair).
    ///
    /// Tables of which changes were lost for want of room are filled in without this call; see
    /// [`Builder::auto_backfill`](super::Builder::auto_backfill).
    ///
    /// In a [`single_tenant`](crate::capture::Database::single_tenant) database a table is filled in the scopes that
    /// lost something; where that is not known (a statement that was not captured), in that of this handle. Where
    /// tenants share a table and connections choose the scope, this fails for what a scope lost, and the table stays
    /// dirty: [`sync`](Self::sync) its rows within the scope, or raise the epoch, then
    /// [`clear_dirty`](Self::clear_dirty).
    ///
    /// ```
    /// # fn mend(kv: &kvsync::KvSync) -> Result<(), Box<dyn std::error::Error>> {
    /// for summary in kv.backfill_dirty(|backfill| backfill.rows_per_second(2_000))? {
    ///     println!("{summary}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Backfill::run`]; the tables before it were filled in.
    pub fn backfill_dirty(&self, mut configure: impl FnMut(Backfill) -> Backfill) -> Result<Vec<Summary>, Interrupted> {
        let filler = self.inner.pipeline.filler();
        let mut done = Vec::new();
        for mut marked in filler.dirty(false).into_iter().filter(|marked| !marked.filled) {
            if std::mem::take(&mut marked.unscoped) && !marked.scopes.contains(&self.scope) {
                marked.scopes.push(self.scope.clone());
            }
            done.extend(fill(&filler, &marked, &mut configure)?);
        }
        Ok(done)
    }

    /// Runs something on the wrapped connection, past capture, and then brings the stores to what the database
    /// says of this model's table: for writes of so many rows that capturing each is too much. The table is
    /// dirty ([`health`](Self::health)) from before the work until after that.
    ///
    /// Other registered tables that the work writes are marked and filled in as well: those that its statements name,
    /// and those that foreign keys, views or triggers carry a write on to, as far as the catalog shows. They are
    /// watched as [`SyncConnection::lend`] does it, and not where the policy is `Allow`. What functions write cannot
    /// be told: call [`repair_all`](Self::repair_all) there.
    ///
    /// When the work has ended, also with an error or a panic, each table is filled in as a whole
    /// ([`backfill`](Self::backfill)), then the stores are searched for entries of rows that were deleted
    /// ([`repair`](Self::repair)): both take their time in proportion to the whole table, and not to what was
    /// written, and two seconds besides, in which statements may end that other connections run past capture.
    /// A transaction that failed work left open is rolled back before, and a panic goes on afterwards.
    /// Readers may see older rows until this returns; no reader ever sees a row that was not committed. Should the
    /// process die on the way, the mark is gone with it, and a [`repair`](Self::repair) does the same. Where only
    /// rows are inserted, `unsynced()` and a [`backfill`](Self::backfill) do with less.
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// # fn load<User: kvsync::Syncable>(kv: &kvsync::KvSync) -> Result<(), Box<dyn std::error::Error>> {
    /// use diesel::prelude::*;
    ///
    /// let mut conn = kv.connect::<diesel::sqlite::Sqlite>("main")?;
    /// kv.bulk::<User, _, _, Box<dyn std::error::Error>>(&mut conn, |conn| {
    ///     diesel::sql_query("UPDATE users SET credit = credit + 1").execute(conn)?;
    ///     Ok(())
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The work's own. [`ErrorKind::Config`] before it is run, when a transaction is open on the connection (what is
    /// not committed cannot be filled in), as a panic outside of a bulk leaves it, or could not be ended; when the
    /// connection or the model is not of the same database; or when the connection's scope is one whose rows the
    /// database cannot know ([`Database::single_tenant`](crate::capture::Database::single_tenant)). The failure of the
    /// database or of a store: then the table stays dirty. It does also without an error where there is a broker, whose
    /// consumers cannot be searched for entries of deleted rows from here: [`repair`](Self::repair) it where their
    /// stores are.
    pub fn bulk<M, C, T, E>(
        &self,
        conn: &mut SyncConnection<C>,
        work: impl FnOnce(&mut C) -> Result<T, E>,
    ) -> Result<T, E>
    where
        M: Syncable,
        C: Connection,
        E: From<Error>,
    {
        let target = self.target_of(M::SCHEMA)?;
        conn.ready_for_bulk(&target.database)?;
        let filler = self.inner.pipeline.filler();
        let scope = conn.scope().clone();
        known(&*self.database(&target.database)?.source(), target.schema, &scope)?;
        let soil = |table: &str| {
            filler.soil(
                &target.database,
                table,
                &scope,
                "rows were written past capture, in a bulk that is not filled in yet",
            )
        };
        soil(target.schema.table);
        let (worked, mut tables) = conn.lend_for_bulk(work);
        tables.insert(target.schema.table.to_owned());
        // Marked anew: what was filled in while the work was going on does not count. All of them before the first is
        // filled in, so that none is forgotten when that fails.
        let marked: Vec<_> = tables.iter().filter_map(|table| soil(table)).collect();
        let access = self.inner.pipeline.access();
        let cleaned = clean(&filler, &access, &marked, None);
        match (worked, cleaned) {
            (Ok(Ok(done)), Ok(())) => Ok(done),
            (Ok(Ok(_)), Err(error)) => Err(error.into()),
            (failed, cleaned) => {
                if let Err(error) = cleaned {
                    let database = &*target.database;
                    tracing::error!(database, %error, "what a failed bulk has written is not filled in; its tables stay dirty");
                }
                failed.unwrap_or_else(|panic| resume_unwind(panic))
            }
        }
    }

    /// The scopes that the database gives to rows of this model: those of its schemas. Empty where
    /// connections choose the scope.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when the model is registered in no database, otherwise the database's failure.
    pub fn scopes_of<M: Syncable>(&self) -> Result<Vec<Scope>> {
        let target = self.target_of(M::SCHEMA)?;
        self.database(&target.database)?.source().scopes(target.schema, super::by_hand::PATIENCE)
    }

    pub(super) fn schema_named(&self, model: &str) -> Result<&'static Schema> {
        let of_name = self.inner.schemas.values().flatten().filter(|schema| schema.model == model);
        of_name.max_by_key(|schema| schema.generation).copied().ok_or_else(|| {
            let mut known: Vec<&str> = self.inner.schemas.values().flatten().map(|schema| schema.model).collect();
            known.sort_unstable();
            known.dedup();
            let message = format!("no model is named `{model}`; registered are: {}", known.join(", "));
            Error::new(ErrorKind::Config, message)
        })
    }

    fn target_of(&self, schema: &'static Schema) -> Result<Target> {
        let database: Arc<str> = self.database_with(schema)?.name().into();
        Ok(Target { database, schema, scope: self.scope.clone() })
    }
}
