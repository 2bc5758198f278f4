//! The servers that tests and benchmarks share.

use std::path::PathBuf;
use std::thread::{self, ScopedJoinHandle};

use xtask::servers::{
    AclUser, DynamoDb, Listen, Nats, NatsOptions, Postgres, RabbitMq, RabbitMqOptions, Redis, RedisCluster,
    RedisOptions,
};
use xtask::tools::Tool;
use xtask::{Error, Result};

use crate::{install, interrupt};

/// One of each; stopped when dropped.
pub(crate) struct Suite {
    redis: Redis,
    socket: Redis,
    tls: Redis,
    cluster: RedisCluster,
    postgres: Postgres,
    dynamodb: DynamoDb,
    nats: Nats,
    rabbitmq: RabbitMq,
    python: PathBuf,
}

impl Suite {
    /// Installs what is missing and starts the servers, side by side.
    pub(crate) fn start() -> Result<Self> {
        install::missing_tools()?;
        install::dynoxide()?;
        let python = Tool::Python.require()?;
        let suite = thread::scope(|scope| -> Result<Self> {
            let cluster = scope.spawn(|| RedisCluster::start(3, 0));
            let postgres = scope.spawn(Postgres::start);
            let rabbitmq = scope.spawn(|| RabbitMq::start(&RabbitMqOptions::default()));
            let redis = Redis::start(RedisOptions::default())?;
            let socket = Redis::start(socket_options())?;
            let tls = Redis::start(RedisOptions { listen: Listen::Tls, ..RedisOptions::default() })?;
            let dynamodb = DynamoDb::start()?;
            let nats = Nats::start(&NatsOptions::default())?;
            let (cluster, postgres, rabbitmq) = (join(cluster)?, join(postgres)?, join(rabbitmq)?);
            Ok(Self { redis, socket, tls, cluster, postgres, dynamodb, nats, rabbitmq, python })
        })?;
        interrupt::check()?;
        Ok(suite)
    }

    /// The environment variables that say where the servers are.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let ca = self.tls.ca().map(|path| path.display().to_string()).unwrap_or_default();
        vec![
            ("KVSYNC_REDIS_URL", self.redis.url()),
            ("KVSYNC_REDIS_SOCKET_URL", self.socket.url()),
            ("KVSYNC_REDIS_TLS_URL", self.tls.url()),
            ("KVSYNC_REDIS_TLS_CA", ca),
            ("KVSYNC_REDIS_CLUSTER_URLS", self.cluster.urls().join(",")),
            ("KVSYNC_POSTGRES_URL", self.postgres.url()),
            ("KVSYNC_DYNAMODB_URL", self.dynamodb.url()),
            ("KVSYNC_NATS_URL", self.nats.url()),
            ("KVSYNC_RABBITMQ_URL", self.rabbitmq.url()),
            ("KVSYNC_PYTHON", self.python.display().to_string()),
        ]
    }

    /// A line for each server: what it is, its version, its address.
    pub(crate) fn describe(&self) -> String {
        let (redis, postgres, python) = (Tool::RedisServer.version(), Tool::Postgres.version(), Tool::Python.version());
        let nats = Tool::NatsServer.version();
        let lines = [
            ("Redis over TCP", &redis, self.redis.url()),
            ("Redis over a unix socket, password, ACL user", &redis, self.socket.url()),
            ("Redis over TLS", &redis, self.tls.url()),
            ("Redis Cluster of 3", &redis, self.cluster.urls().join(" ")),
            ("Postgres", &postgres, self.postgres.url()),
            ("DynamoDB, by dynoxide", &Tool::Dynoxide.version(), self.dynamodb.url()),
            ("NATS with JetStream", &nats, self.nats.url()),
            ("RabbitMQ", &Tool::RabbitMq.version(), self.rabbitmq.url()),
            ("Python with msgpack", &python, self.python.display().to_string()),
        ];
        lines.map(|(what, version, address)| format!("  {what}: {version}, {address}\n")).concat()
    }
}

fn socket_options() -> RedisOptions {
    let user = AclUser { name: "app".into(), password: "secret".into(), keys: "app:*".into() };
    let (password, user) = (Some("admin".into()), Some(user));
    RedisOptions { listen: Listen::Socket, password, user, ..RedisOptions::default() }
}

fn join<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().map_err(|_| Error::new("a thread that starts a server panicked"))?
}
