//! Buckets as other clients make and see them.

use kvsync_tests::Tested;
use kvsync_tests::nats::{api, count};
use kvsync_tests::servers::Nats;

/// Makes a bucket with these settings beside those that a bucket needs.
pub(super) fn bucket(server: &Nats, name: &str, settings: &str) -> Tested {
    let config = format!(
        r#"{{"name":"KV_{name}","subjects":["$KV.{name}.>"],"retention":"limits","storage":"file","num_replicas":1,
            "allow_rollup_hdrs":true,"deny_delete":true{settings}}}"#
    );
    api(server.port(), &format!("STREAM.CREATE.KV_{name}"), &config)?;
    Ok(())
}

/// How many entries a bucket has, marks of removed ones included.
pub(super) fn entries(server: &Nats, name: &str) -> Tested<u64> {
    count(server.port(), &format!("KV_{name}"))
}
