//! What becomes of changes between their commit and the store.

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
