//! Where the servers are that `cargo xtask bench` started.

use crate::Result;

/// The address that this environment variable holds.
pub(crate) fn address(variable: &str) -> Result<String> {
    std::env::var(variable)
        .ok()
        .filter(|value| !value.is_empty())
        .ok_or_else(|| format!("{variable} is not set; run `cargo xtask bench`, which starts the servers").into())
}

/// A Redis server on TCP.
pub(crate) fn redis() -> Result<String> {
    address("KVSYNC_REDIS_URL")
}

/// The nodes of a Redis Cluster.
pub(crate) fn redis_cluster() -> Result<Vec<String>> {
    Ok(address("KVSYNC_REDIS_CLUSTER_URLS")?.split(',').map(str::to_owned).collect())
}

/// A Postgres server.
pub(crate) fn postgres() -> Result<String> {
    address("KVSYNC_POSTGRES_URL")
}

/// A NATS server with `JetStream`.
pub(crate) fn nats() -> Result<String> {
    address("KVSYNC_NATS_URL")
}

/// A RabbitMQ node.
pub(crate) fn rabbitmq() -> Result<String> {
    address("KVSYNC_RABBITMQ_URL")
}

/// The endpoint of DynamoDB.
pub(crate) fn dynamodb() -> Result<String> {
    address("KVSYNC_DYNAMODB_URL")
}
