//! Changes that wait in a table of the database until they are delivered: nothing is lost when a process
//! is killed, a store is down, or a store forgets.

mod claims;
mod failures;
mod migrations;
mod refused;
mod relay;
mod setup;
