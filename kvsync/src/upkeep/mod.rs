//! What brings stores back to the database's truth: backfill.

mod backfill;
mod pace;
mod summary;

pub use self::backfill::Backfill;
pub(crate) use self::backfill::Target;
pub use self::summary::{Checkpoint, Interrupted, Progress, Summary};
