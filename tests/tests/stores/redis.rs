//! The Redis store on a plain server, over a unix socket with a password and a user of few rights, over
//! TLS, and in a cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kvsync::store::conformance::{Harness, Stores};
use kvsync::store::redis::{Builder, RedisStore};
use kvsync_tests::env;
use kvsync_tests::redis::patient;
use kvsync_tests::servers::{Redis, RedisOptions};

/// Makes stores with a prefix of their own.
struct Fresh {
    builder: Builder,
    prefix: &'static str,
    connect: fn(Builder) -> kvsync::Result<RedisStore>,
    made: AtomicUsize,
}

/// The ways to reach Redis, by name.
pub(crate) fn stores() -> Vec<crate::Store> {
    let one = |prefix, builder: Result<Builder, env::NoServer>| fresh(prefix, builder, Builder::connect);
    vec![
        ("redis", one("", env::redis_url().map(|url| patient([url])))),
        ("redis_socket", one("app:", env::redis_socket_url().map(|url| patient([url])))),
        ("redis_tls", one("", tls())),
        ("redis_cluster", fresh("", env::redis_cluster_urls().map(patient), Builder::cluster)),
    ]
}

fn tls() -> Result<Builder, env::NoServer> {
    Ok(patient([env::redis_tls_url()?]).ca_file(env::redis_tls_ca()?))
}

fn fresh(
    prefix: &'static str,
    builder: Result<Builder, env::NoServer>,
    connect: fn(Builder) -> kvsync::Result<RedisStore>,
) -> Result<Arc<dyn Harness>, String> {
    let builder = builder.map_err(|missing| missing.to_string())?;
    Ok(Arc::new(Fresh { builder, prefix, connect, made: AtomicUsize::new(0) }))
}

impl Harness for Fresh {
    fn fresh(&self) -> Stores {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{}stores-{}-{number}:", self.prefix, std::process::id());
        Stores::both(Arc::new((self.connect)(self.builder.clone().prefix(prefix)).unwrap()))
    }

    fn unreachable(&self) -> Option<Stores> {
        let server = Redis::start(RedisOptions::default()).unwrap();
        let builder = patient([server.url()]).retry_for(Duration::from_millis(50));
        let store = builder.connect().unwrap();
        server.kill().unwrap();
        Some(Stores::both(Arc::new(store)))
    }
}
