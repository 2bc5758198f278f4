//! What brings stores back to the database's truth: backfill, verify and repair.

mod backfill;
mod pace;
mod repair;
mod summary;
mod verify;

pub use self::backfill::Backfill;
pub(crate) use self::backfill::Target;
pub use self::repair::{Repair, Repaired};
pub use self::summary::{Checkpoint, Interrupted, Progress, Summary};
pub use self::verify::{Difference, DifferenceKind, Side, Verified, Verify, VerifyProgress};
