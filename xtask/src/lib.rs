//! The project's own tasks, and the real servers that its tests run against.
//!
//! The binary is `cargo xtask`; the library is for tests and benchmarks that start, kill and restart servers themselves.

mod error;
pub mod servers;
pub mod tools;

pub use error::{Error, Result};
