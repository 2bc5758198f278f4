//! The one error of this crate: a sentence that says what failed, where, and what to do.

use std::fmt;

/// What failed, where, and what to do about it.
#[derive(Debug)]
pub struct Error {
    message: String,
    port_taken: bool,
}

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error with this message.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), port_taken: false }
    }

    /// An error of a server whose port was taken between its choice and its use: another port will do.
    pub(crate) fn port_taken(message: impl Into<String>) -> Self {
        Self { message: message.into(), port_taken: true }
    }

    pub(crate) fn is_port_taken(&self) -> bool {
        self.port_taken
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Says what was being done when an operation of the system failed.
pub(crate) trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::new(format!("{}: {error}", what())))
    }
}
