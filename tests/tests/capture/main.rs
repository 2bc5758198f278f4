//! What ordinary Diesel writes is caught once it is committed, or obeys the policy.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

mod capture_policy;
mod capture_postgres;
mod capture_sqlite;
