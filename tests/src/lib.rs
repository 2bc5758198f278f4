//! What kvsync's integration tests share: the servers that `cargo xtask test` starts, and databases of their own.
//!
//! A test that kills or cuts off a server starts one of its own with [`servers`].
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

pub mod accounts;
pub mod env;
pub mod log;
pub mod nats;
pub mod postgres;
pub mod recorder;
pub mod redis;
pub mod users;
pub mod wait;

pub use xtask::servers;

/// The result of a test: any error fails it, with its message.
pub type Tested<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
