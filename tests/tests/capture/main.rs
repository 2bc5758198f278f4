//! What ordinary Diesel writes is caught once it is committed, or obeys the policy.

mod capture_policy;
mod capture_postgres;
mod capture_sqlite;
