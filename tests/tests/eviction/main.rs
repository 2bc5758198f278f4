//! What holds when a store forgets: entries that expire or are evicted, servers that run out of memory, are
//! restarted or replaced, and databases that are restored.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

mod expiring;
mod failover;
mod forgetting;
mod policies;
mod restored;
mod rig;
mod subsets;
