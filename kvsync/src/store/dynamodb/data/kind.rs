//! The kinds of values, as they are stored and told.

use bytes::Bytes;

use crate::error::{Error, ErrorKind};
pub(super) use crate::store::data::Kind;

const CODES: [(Kind, &str, &str); 5] = [
    (Kind::String, "v", "a string"),
    (Kind::Set, "s", "a set"),
    (Kind::Hash, "h", "a hash"),
    (Kind::Sorted, "z", "a sorted set"),
    (Kind::SortedHash, "y", "a sorted hash"),
];

/// How a kind is stored.
pub(super) fn code(kind: Kind) -> &'static str {
    CODES.iter().find(|(of, ..)| *of == kind).map_or("", |(_, code, _)| code)
}

/// The kind that is stored so.
pub(super) fn of_code(code: &str) -> Option<Kind> {
    CODES.iter().find(|(_, of, _)| *of == code).map(|(kind, ..)| *kind)
}

/// The error of a command for one kind on a key that holds another.
pub(super) fn wrong(key: &Bytes, stands: Kind, wanted: Kind) -> Error {
    let told = |kind| CODES.iter().find(|(of, ..)| *of == kind).map_or("", |(.., told)| told);
    let message = format!("`{}` holds {}, and the command is for {}", key.escape_ascii(), told(stands), told(wanted));
    Error::new(ErrorKind::WrongType, message)
}
