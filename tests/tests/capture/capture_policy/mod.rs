//! What cannot be captured obeys the policy, and nothing of it is silent.

mod postgres;
mod setup;
mod sqlite;
