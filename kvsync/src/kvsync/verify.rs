use super::KvSync;
use crate::model::{Kind, Syncable};
use crate::upkeep::{Repair, Verify};

impl KvSync {
    /// Compares the rows of a model with what the stores hold, from both sides, and names every difference.
    /// In the scope of this handle; without one, in every scope that the database gives its rows.
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

    /// Compares the rows of a model with what the stores hold, as [`verify`](Self::verify) does, and mends
    /// every difference. Never writes over anything newer.
    pub fn repair<M: Syncable>(&self) -> Repair {
        Repair::new(self.verify::<M>())
    }

    /// Compares and mends the rows of every model that is registered, as [`repair`](Self::repair) does.
    pub fn repair_all(&self) -> Repair {
        Repair::new(self.verify_all())
    }
}
