//! Catches what ordinary Diesel statements write.

#[allow(dead_code, unused_imports, reason = "the connection that scans statements comes next")]
pub(crate) mod statement;
