use super::KvSync;
use crate::error::Result;
use crate::model::{Kind, Syncable};
use crate::upkeep::{Repair, VerifierBuilder, Verify};

impl KvSync {
    /// Compares the rows of a model with what the stores hold, from both sides, and names every difference.
    /// In the scope of this handle; without one, in every scope that the database gives its rows. Where connections
    /// choose the scope of rows in one table, nobody knows which rows a scope has, and it is refused within one; see
    /// [`Scope`](crate::Scope).
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// fn compare<User: kvsync::Syncable>(kv: &kvsync::KvSync) -> Result<(), Box<dyn std::error::Error>> {
    ///     let found = kv.verify::<User>().rate(5_000).run()?;
    ///     for difference in &found.differences {
    ///         println!("{difference}"); // stale: `user:id:7` of User in .., row 7, ..
    ///     }
    ///     if !found.is_clean() {
    ///         kv.repair::<User>().run()?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn verify<M: Syncable>(&self) -> Verify {
        Verify::new(self.inner.pipeline.access(), self.scope.clone(), Some(vec![Kind::of::<M>()]))
    }

    /// Compares the rows of every model that is registered, as [`verify`](Self::verify) does.
    pub fn verify_all(&self) -> Verify {
        Verify::new(self.inner.pipeline.access(), self.scope.clone(), None)
    }

    /// Compares all models again and again, at a bounded rate, on a thread of its own, as a client among
    /// others: it measures which share of the stores is right.
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// fn measure(kv: &kvsync::KvSync) -> kvsync::Result<()> {
    ///     let verifier = kv.verifier().rate(200).start()?;
    ///     // .. as long as the program runs
    ///     let report = verifier.report();
    ///     println!("{report}"); // 120000 checked in 600s, 0 wrong: at least 99.99750 % right
    ///     Ok(())
    /// }
    /// ```
    ///
    /// [`health`](Self::health) has the report, too.
    pub fn verifier(&self) -> VerifierBuilder<'_> {
        VerifierBuilder::new(&self.inner.pipeline, &self.inner.verifiers, self.verify_all())
    }

    /// Compares the rows of a model with what the stores hold, as [`verify`](Self::verify) does, and mends
    /// every difference. Never writes over anything newer.
    pub fn repair<M: Syncable>(&self) -> Repair {
        Repair::new(self.verify::<M>())
    }

    /// The same for models whose names are chosen at run time; every generation of them that is registered.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when no model has one of the names.
    pub fn verify_models(&self, models: &[&str]) -> Result<Verify> {
        let all = || self.inner.databases.values().flat_map(|database| database.source().kinds());
        for model in models {
            if !all().any(|kind| kind.schema.model == *model) {
                self.schema_named(model)?;
            }
        }
        let chosen = all().filter(|kind| models.contains(&kind.schema.model)).collect();
        Ok(Verify::new(self.inner.pipeline.access(), self.scope.clone(), Some(chosen)))
    }

    /// Compares and mends the rows of models whose names are chosen at run time.
    ///
    /// # Errors
    ///
    /// As [`verify_models`](Self::verify_models).
    pub fn repair_models(&self, models: &[&str]) -> Result<Repair> {
        Ok(Repair::new(self.verify_models(models)?))
    }

    /// Compares and mends the rows of every model that is registered, as [`repair`](Self::repair) does.
    pub fn repair_all(&self) -> Repair {
        Repair::new(self.verify_all())
    }
}
