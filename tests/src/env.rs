//! Where the shared servers are. Tests run in parallel, so each uses keys and databases of its own and kills nothing.

use std::env;
use std::fmt;
use std::path::PathBuf;

/// A variable that should name a server is not set.
#[derive(Debug)]
pub struct NoServer(&'static str);

impl fmt::Display for NoServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not set; run `cargo xtask test`, which starts the servers", self.0)
    }
}

impl std::error::Error for NoServer {}

/// A Redis server on a TCP port, without a password.
///
/// # Errors
/// When the servers were not started.
pub fn redis_url() -> Result<String, NoServer> {
    read("KVSYNC_REDIS_URL")
}

/// A Redis server on a unix socket, with a user that may touch the keys `app:*` only.
///
/// # Errors
/// When the servers were not started.
pub fn redis_socket_url() -> Result<String, NoServer> {
    read("KVSYNC_REDIS_SOCKET_URL")
}

/// A Redis server that speaks TLS only; clients must trust [`redis_tls_ca`].
///
/// # Errors
/// When the servers were not started.
pub fn redis_tls_url() -> Result<String, NoServer> {
    read("KVSYNC_REDIS_TLS_URL")
}

/// The certificate, in PEM, of the authority that signed the TLS server's.
///
/// # Errors
/// When the servers were not started.
pub fn redis_tls_ca() -> Result<PathBuf, NoServer> {
    read("KVSYNC_REDIS_TLS_CA").map(PathBuf::from)
}

/// The three masters of a Redis Cluster.
///
/// # Errors
/// When the servers were not started.
pub fn redis_cluster_urls() -> Result<Vec<String>, NoServer> {
    Ok(read("KVSYNC_REDIS_CLUSTER_URLS")?.split(',').map(str::to_owned).collect())
}

/// The database `postgres` of a Postgres server, as its superuser; see [`crate::postgres::fresh_database`].
///
/// # Errors
/// When the servers were not started.
pub fn postgres_url() -> Result<String, NoServer> {
    read("KVSYNC_POSTGRES_URL")
}

/// A server that speaks the protocol of DynamoDB, and takes any credentials.
///
/// # Errors
/// When the servers were not started.
pub fn dynamodb_url() -> Result<String, NoServer> {
    read("KVSYNC_DYNAMODB_URL")
}

/// A NATS server with JetStream, without a password.
///
/// # Errors
/// When the servers were not started.
pub fn nats_url() -> Result<String, NoServer> {
    read("KVSYNC_NATS_URL")
}

/// A RabbitMQ node, as the user `guest`, who may do everything.
///
/// # Errors
/// When the servers were not started.
pub fn rabbitmq_url() -> Result<String, NoServer> {
    read("KVSYNC_RABBITMQ_URL")
}

/// The cluster file of a FoundationDB. No task starts one.
///
/// # Errors
/// When the variable is not set.
#[cfg(feature = "foundationdb")]
pub fn foundationdb_cluster_file() -> Result<String, NoServer> {
    read("KVSYNC_FDB_CLUSTER_FILE")
}

/// A Python that can `import msgpack`.
///
/// # Errors
/// When the servers were not started.
pub fn python() -> Result<PathBuf, NoServer> {
    read("KVSYNC_PYTHON").map(PathBuf::from)
}

fn read(name: &'static str) -> Result<String, NoServer> {
    env::var(name).ok().filter(|value| !value.is_empty()).ok_or(NoServer(name))
}
