//! The FoundationDB store in the cluster that `KVSYNC_FDB_CLUSTER_FILE` names. Only with the feature `foundationdb`,
//! because it links the client library of that database.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kvsync::store::FoundationDbStore;
use kvsync::store::conformance::{Harness, Stores};
use kvsync_tests::env;

/// Makes stores in subspaces of their own. One stays open, because the client starts once in a process.
struct Fresh {
    cluster_file: String,
    made: AtomicUsize,
    _first: FoundationDbStore,
}

pub(crate) fn store() -> crate::Store {
    ("foundationdb", open().map_err(|error| error.to_string()))
}

fn open() -> kvsync_tests::Tested<Arc<dyn Harness>> {
    let cluster_file = env::foundationdb_cluster_file()?;
    let first = FoundationDbStore::open(&cluster_file)?;
    Ok(Arc::new(Fresh { cluster_file, made: AtomicUsize::new(0), _first: first }))
}

impl Harness for Fresh {
    fn fresh(&self) -> Stores {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let subspace = format!("kvsync-tests/{}/{number}/", std::process::id());
        Stores::both(Arc::new(FoundationDbStore::builder(&self.cluster_file).subspace(subspace).open().unwrap()))
    }

    fn unreachable(&self) -> Option<Stores> {
        None
    }
}
