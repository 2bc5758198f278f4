//! Verify names every difference between a database and a store, from both sides, and nothing else; repair
//! mends each, and never writes over anything newer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::duplicated_attributes,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

mod cli;
mod differences;
mod exits;
mod foreign;
mod live;
mod models;
mod places;
mod rig;
mod verifier;
