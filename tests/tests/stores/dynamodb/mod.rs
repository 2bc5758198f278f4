//! The DynamoDB store, against dynoxide: each store has a table of its own.

mod http;
mod own;
mod requests;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kvsync::store::conformance::{Harness, Stores};
use kvsync::store::dynamodb::{Builder, DynamoDbStore};
use kvsync_tests::env;
use kvsync_tests::servers::DynamoDb;
use kvsync_tests::wait::LONG;

pub(crate) use self::own::trials;

struct Fresh {
    url: String,
    made: AtomicUsize,
}

pub(crate) fn stores() -> Vec<crate::Store> {
    let fresh = env::dynamodb_url().map(|url| Fresh { url, made: AtomicUsize::new(0) });
    vec![("dynamodb", fresh.map(|fresh| Arc::new(fresh) as _).map_err(|missing| missing.to_string()))]
}

fn builder(url: &str, table: &str) -> Builder {
    DynamoDbStore::builder(table).endpoint(url).region("eu-west-1").credentials("any", "any")
}

/// A loaded machine answers late, and that is no fault of the store.
fn patient(url: &str, table: &str) -> Builder {
    builder(url, table).connect_timeout(LONG).command_timeout(LONG).retry_for(LONG)
}

impl Harness for Fresh {
    fn fresh(&self) -> Stores {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let builder = patient(&self.url, &format!("stores-{}-{number}", std::process::id())).prefix("shop:");
        builder.create_table().unwrap();
        Stores::both(Arc::new(builder.connect().unwrap()))
    }

    fn unreachable(&self) -> Option<Stores> {
        let server = DynamoDb::start().unwrap();
        patient(&server.url(), "down").create_table().unwrap();
        let store = builder(&server.url(), "down")
            .connect_timeout(LONG)
            .command_timeout(Duration::from_millis(500))
            .retry_for(Duration::from_millis(10))
            .connect();
        server.kill().unwrap();
        Some(Stores::both(Arc::new(store.unwrap())))
    }
}
