//! What brings stores back to the database's truth: backfill, verify and repair.

mod backfill;
mod mend;
mod pace;
mod repair;
mod scope;
mod summary;
mod verifier;
mod verify;

pub use self::backfill::Backfill;
pub(crate) use self::backfill::Target;
pub(crate) use self::mend::{clean, fill, run as mend_by_itself};
pub use self::repair::{Repair, Repaired};
pub(crate) use self::scope::known;
pub use self::summary::{Checkpoint, Interrupted, Progress, Summary};
pub(crate) use self::verifier::Verifiers;
pub use self::verifier::{Verifier, VerifierBuilder, VerifierReport};
pub use self::verify::{Difference, DifferenceKind, Side, Verified, Verify, VerifyProgress};
