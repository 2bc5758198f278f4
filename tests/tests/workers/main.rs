//! What becomes of changes between their commit and the store.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

mod ages;
mod applying;
mod batching;
mod coalescing;
mod ends;
mod epochs;
mod faults;
mod memory;
mod overflow;
mod panics;
mod reports;
mod rig;
mod settling;
mod tokens;
