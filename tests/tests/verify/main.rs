//! Verify names every difference between a database and a store, from both sides, and nothing else; repair
//! mends each, and never writes over anything newer.

mod cli;
mod differences;
mod exits;
mod foreign;
mod live;
mod models;
mod places;
mod rig;
mod scopes;
mod verifier;
