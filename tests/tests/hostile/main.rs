//! Bytes that others wrote, or damaged, or made up, are refused or read; they never make kvsync panic, take
//! memory out of proportion to their length, or take time that grows faster than it. And what must not be
//! told to others is not told.
//!
//! The functions that are fed are those that the fuzzers in `fuzz/` feed.

mod allocated;
mod entries;
mod mutate;
mod passwords;
mod statements;

#[global_allocator]
static ALLOCATOR: allocated::Counting = allocated::Counting;
