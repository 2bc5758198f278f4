//! The outbox: a table in the user's database, in which changes wait until they are delivered.

#[allow(dead_code, reason = "the relay and capture into the outbox are about to use it")]
pub(super) mod content;
