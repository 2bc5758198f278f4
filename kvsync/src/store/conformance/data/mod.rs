//! The cases of [`DataStore`].

mod atomic;
mod batches;
mod every;
mod hashes;
mod limits;
mod races;
mod sets;
mod sorted;
mod sorted_hashes;
mod strings;
mod times;

use super::Case;

pub(super) fn cases() -> impl Iterator<Item = &'static Case> {
    [
        every::CASES,
        strings::CASES,
        times::CASES,
        sets::CASES,
        hashes::CASES,
        sorted::CASES,
        sorted_hashes::CASES,
        batches::CASES,
        atomic::CASES,
        limits::CASES,
        races::CASES,
    ]
    .into_iter()
    .flatten()
}

use crate::error::{ErrorKind, Result};

/// The answer, or why the case failed.
pub(super) fn ok<T>(answer: Result<T>, what: &str) -> super::ground::Checked<T> {
    answer.map_err(|error| format!("{what} failed: {error}"))
}

/// Fails the case unless the answer is an error of this kind.
fn fails<T: std::fmt::Debug>(answer: Result<T>, kind: ErrorKind, what: &str) -> super::ground::Checked {
    match answer {
        Err(error) if error.kind() == kind => Ok(()),
        Err(error) => Err(format!("{what} has to fail as {kind:?}, and failed as {:?}: {error}", error.kind())),
        Ok(answer) => Err(format!("{what} has to fail as {kind:?}, and answered {answer:?}")),
    }
}
