//! Private real servers: on free loopback ports, in fresh temporary folders, stopped when dropped.
//!
//! Every server is stopped by its own pid, never by name. One that its owner could not stop, because the owner was
//! killed or keeps it in a `static`, is stopped by a watchdog as soon as the owner's process ends.
//!
//! ```no_run
//! use xtask::servers::{Redis, RedisOptions};
//!
//! let redis = Redis::start(RedisOptions { appendonly: true, ..RedisOptions::default() })?;
//! redis.cli(&["SET", "a", "1"])?;
//! redis.kill()?;
//! redis.restart()?;
//! assert_eq!(redis.cli(&["GET", "a"])?, "1");
//! # Ok::<(), xtask::Error>(())
//! ```

mod certificate;
mod cluster;
mod dynamodb;
mod nats;
mod port;
mod postgres;
mod process;
mod proxy;
mod rabbitmq;
mod redis;
mod sentinel;
mod watchdog;

pub use cluster::RedisCluster;
pub use dynamodb::DynamoDb;
pub use nats::{Nats, NatsCluster, NatsOptions};
pub use postgres::Postgres;
pub use process::Process;
pub use proxy::{Fault, Proxy, Side};
pub use rabbitmq::{RabbitMq, RabbitMqOptions, RabbitMqUser};
pub use redis::{AclUser, Listen, Redis, RedisOptions};
pub use sentinel::{RedisSentinel, SentinelOptions, SentinelTls};
