//! A store in Redis whose server is there, however long it may be held up.

use kvsync::store::redis::{Builder, RedisStore};

use crate::wait::{LONG, until};

/// A store that waits for its servers as long as a test waits for anything: on a busy machine a server may be silent for
/// seconds. A connection that is refused is given up after the usual time all the same.
pub fn patient<U: Into<String>>(urls: impl IntoIterator<Item = U>) -> Builder {
    RedisStore::builder(urls).connect_timeout(LONG).command_timeout(LONG)
}

/// A store of little patience, of one server or of a cluster, asked for until a server answers in time.
///
/// # Errors
/// When none does for as long as a test waits.
pub fn connected(builder: &Builder) -> kvsync::Result<RedisStore> {
    let connect = || builder.clone().connect().or_else(|_| builder.clone().cluster());
    let mut store = connect();
    until("a server answers in time", || {
        if store.is_err() {
            store = connect();
        }
        store.is_ok()
    });
    store
}
