//! The embedded store: what it keeps when its process or its disk fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kvsync::store::SyncStore;
use kvsync::store::conformance::Harness;
use kvsync::store::embedded::EmbeddedStore;
use libtest_mimic::Trial;
use tempfile::TempDir;

/// Set in a process that this test started: what it is to do.
pub(crate) const CHILD: &str = "KVSYNC_TEST_CHILD";

/// Makes stores in directories of their own.
pub(crate) struct Fresh {
    sync: bool,
    base: TempDir,
    made: AtomicUsize,
}

impl Fresh {
    pub(crate) fn new(sync: bool) -> Self {
        Self { sync, base: TempDir::new().unwrap(), made: AtomicUsize::new(0) }
    }
}

impl Harness for Fresh {
    fn fresh(&self) -> Arc<dyn SyncStore> {
        let dir = self.base.path().join(self.made.fetch_add(1, Ordering::Relaxed).to_string());
        Arc::new(EmbeddedStore::builder(dir).sync(self.sync).open().unwrap())
    }

    fn unreachable(&self) -> Option<Arc<dyn SyncStore>> {
        None
    }
}

pub(crate) fn trials() -> Vec<Trial> {
    Vec::new()
}

pub(crate) fn child(_task: &str) {}
