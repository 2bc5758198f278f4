//! Changes that wait in a table of the database until they are delivered: nothing is lost when a process
//! is killed, a store is down, or a store forgets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

mod claims;
mod failures;
mod migrations;
mod refused;
mod relay;
mod setup;
