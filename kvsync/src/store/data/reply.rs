//! What a store answers.

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};

/// The answer to a [`Command`](super::Command), which says which of these it is.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// Whether it was done; what "it" is, each command says.
    Taken(bool),
    /// A value, or nothing.
    Value(Option<Bytes>),
    /// Values in the order asked.
    Values(Vec<Option<Bytes>>),
    /// A counter.
    Integer(i64),
    /// How many.
    Count(u64),
    /// Members.
    Members(Vec<Bytes>),
    /// Fields with their values.
    Fields(Vec<(Bytes, Bytes)>),
    /// A score, or nothing.
    Score(Option<f64>),
    /// Members with their scores.
    Scored(Vec<Scored>),
    /// Fields of a sorted hash.
    Entries(Vec<Entry>),
}

/// A member of a sorted set.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// The member.
    pub member: Bytes,
    /// Its score.
    pub score: f64,
}

/// A field of a sorted hash.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The field.
    pub field: Bytes,
    /// Its value.
    pub value: Bytes,
    /// Its score.
    pub score: f64,
}

/// Takes the answer that a command is documented to have; another one is a fault of the store.
macro_rules! expected {
    ($($(#[$doc:meta])* $name:ident => $variant:ident($kind:ty);)*) => {
        impl Reply {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                ///
                /// When it is another answer, which is a fault of the store.
                pub fn $name(self) -> Result<$kind> {
                    match self {
                        Self::$variant(answer) => Ok(answer),
                        other => Err(other.unexpected(stringify!($variant))),
                    }
                }
            )*
        }
    };
}

expected! {
    /// The answer [`Reply::Taken`].
    taken => Taken(bool);
    /// The answer [`Reply::Value`].
    value => Value(Option<Bytes>);
    /// The answer [`Reply::Values`].
    values => Values(Vec<Option<Bytes>>);
    /// The answer [`Reply::Integer`].
    integer => Integer(i64);
    /// The answer [`Reply::Count`].
    count => Count(u64);
    /// The answer [`Reply::Members`].
    members => Members(Vec<Bytes>);
    /// The answer [`Reply::Fields`].
    fields => Fields(Vec<(Bytes, Bytes)>);
    /// The answer [`Reply::Score`].
    score => Score(Option<f64>);
    /// The answer [`Reply::Scored`].
    scored => Scored(Vec<Scored>);
    /// The answer [`Reply::Entries`].
    entries => Entries(Vec<Entry>);
}

impl Reply {
    fn unexpected(&self, wanted: &str) -> Error {
        let found = match self {
            Self::Taken(_) => "Taken",
            Self::Value(_) => "Value",
            Self::Values(_) => "Values",
            Self::Integer(_) => "Integer",
            Self::Count(_) => "Count",
            Self::Members(_) => "Members",
            Self::Fields(_) => "Fields",
            Self::Score(_) => "Score",
            Self::Scored(_) => "Scored",
            Self::Entries(_) => "Entries",
        };
        let message =
            format!("the store answered {found} where the command answers {wanted}; this is a fault of the store");
        Error::new(ErrorKind::Corrupt, message)
    }
}
