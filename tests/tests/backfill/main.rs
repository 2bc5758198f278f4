//! A table is filled into a store, beside whoever writes it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

mod beside_writers;
mod bulk;
mod filling;
mod huge;
mod overflow;
mod pages;
mod rig;
