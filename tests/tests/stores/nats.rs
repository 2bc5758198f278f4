//! The NATS store on a server with JetStream. Its stores share a bucket, and each has a prefix of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kvsync::store::conformance::{Harness, Stores};
use kvsync::store::nats::{Builder, NatsStore};
use kvsync_tests::env;
use kvsync_tests::servers::{Nats, NatsOptions};

struct Fresh {
    builder: Builder,
    made: AtomicUsize,
}

pub(crate) fn stores() -> Vec<crate::Store> {
    let fresh = env::nats_url().map_err(|missing| missing.to_string()).map(|url| {
        let builder = NatsStore::builder([url]).bucket(format!("stores-{}", std::process::id()));
        Arc::new(Fresh { builder, made: AtomicUsize::new(0) }) as Arc<dyn Harness>
    });
    vec![("nats", fresh)]
}

impl Harness for Fresh {
    fn fresh(&self) -> Stores {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        Stores::both(Arc::new(self.builder.clone().prefix(number.to_string()).connect().unwrap()))
    }

    fn unreachable(&self) -> Option<Stores> {
        let server = Nats::start(&NatsOptions::default()).unwrap();
        let hasty = NatsStore::builder([server.url()]).command_timeout(Duration::from_millis(100));
        let store = hasty.retry_for(Duration::from_millis(50)).connect().unwrap();
        server.kill().unwrap();
        Some(Stores::both(Arc::new(store)))
    }
}
