//! What cannot be captured obeys the policy, and nothing of it is silent.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

mod postgres;
mod setup;
mod sqlite;
