use std::sync::Arc;

use super::KvSync;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Scope;
use crate::model::{Schema, Syncable};
use crate::upkeep::{Backfill, Target};

impl KvSync {
    /// Fills every store with the rows of this model, from the database, beside live traffic: before the
    /// first deploy, after one that changed the model's fields, for a table that is dirty, or for a store
    /// that has forgotten. Within a scope, the rows of that scope.
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
    /// In a database whose schemas have scopes, name the scope ([`scoped`](Self::scoped));
    /// [`scopes_of`](Self::scopes_of) lists them.
    pub fn backfill<M: Syncable>(&self) -> Backfill {
        Backfill::new(self.inner.pipeline.filler(), self.target_of(M::SCHEMA))
    }

    /// The same for a model whose name is chosen at run time. Of several generations of a model it is the
    /// newest.
    pub fn backfill_model(&self, model: &str) -> Backfill {
        let target = self.schema_named(model).and_then(|schema| self.target_of(schema));
        Backfill::new(self.inner.pipeline.filler(), target)
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
