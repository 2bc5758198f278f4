//! How a part of the whole is: a store, a broker.

use std::fmt;

use serde::Serialize;

/// How a part is.
///
/// Serialised it has the names of its fields, which stay: `{"status":"up","details":[],"lives":null}`. As text it
/// is its status and details, on one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// Up, degraded or down.
    pub status: Status,
    /// What is worth knowing, a sentence each.
    pub details: Vec<String>,
    /// The lives that the store's memory hangs on: one for each server that may forget what it
    /// acknowledged when it stops or is replaced, by a name that no other life ever has. Once one of them
    /// is missing, upkeep reports that the store may have forgotten. `None` where nothing can be forgotten
    /// while the store is open, and where it cannot be told now.
    pub lives: Option<Vec<String>>,
}

impl Health {
    /// This status with these details, of a store that forgets nothing.
    #[must_use]
    pub fn new(status: Status, details: Vec<String>) -> Self {
        Self { status, details, lives: None }
    }

    /// The same with [`Health::lives`].
    #[must_use]
    pub fn with_lives(self, lives: Vec<String>) -> Self {
        Self { lives: Some(lives), ..self }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.status.fmt(f)?;
        let mut before = ": ";
        for detail in &self.details {
            write!(f, "{before}{detail}")?;
            before = "; ";
        }
        Ok(())
    }
}

/// Up, degraded or down, from the best to the worst; in lower case as text and when it is serialised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It does what it should.
    Up,
    /// It works, but a promise is weakened, or what it was given waits; the details say which.
    Degraded,
    /// It does not work.
    Down,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Degraded => "degraded",
            Self::Down => "down",
        })
    }
}
