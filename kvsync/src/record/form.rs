//! What is to be written of one change, whatever the store.

use super::{Delta, Order, Terms, Write};
use crate::envelope::{Head, State, Value};
use crate::key::Key;
use crate::version::Version;

/// A change as stores take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Form {
    /// For the record of its row.
    Row(Delta),
    /// For keys that need no record, because their rows never leave them.
    Registers(Vec<Write>),
}

/// An entry without a value for a key without a record. It guards against late deliveries by itself, so
/// it is kept as long as a record would be.
pub(crate) fn register(key: Key, version: Version, state: State, terms: &Terms) -> Write {
    let head = Head { version, state, expires_at: terms.now.saturating_add(terms.dead) };
    Write { key, head, value: Value::none(), order: Order::Register }
}
