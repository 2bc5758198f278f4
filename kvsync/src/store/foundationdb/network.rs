//! The network thread of the client library: one for a process, begun once and never again.

use std::sync::{Arc, Weak};

use foundationdb::FdbResult;
use foundationdb::api::{FdbApiBuilder, NetworkAutoStop};
use parking_lot::Mutex;

use super::error;
use crate::error::{Error, ErrorKind, Result};

/// The running network thread. It is stopped and joined when the last store lets go of it.
pub(super) struct Network {
    _stops_when_dropped: NetworkAutoStop,
}

/// Whether the thread was begun, and is still there.
static BEGUN: Mutex<Option<Weak<Network>>> = Mutex::new(None);

impl Network {
    /// The network thread of this process, begun if it never was.
    pub(super) fn shared() -> Result<Arc<Self>> {
        let mut begun = BEGUN.lock();
        match begun.as_ref().map(Weak::upgrade) {
            Some(Some(network)) => Ok(network),
            Some(None) => Err(Error::new(
                ErrorKind::Closed,
                "the client of foundationdb was stopped with its last store, and starts once in a process; keep one \
                 store open as long as another may be opened",
            )),
            None => {
                // A start that fails cannot be tried again either.
                *begun = Some(Weak::new());
                let stop =
                    boot().map_err(|failed| error::plain("the client of foundationdb does not start", failed))?;
                let network = Arc::new(Self { _stops_when_dropped: stop });
                *begun = Some(Arc::downgrade(&network));
                Ok(network)
            }
        }
    }
}

/// Begins the network thread.
// The one unsafe function of the crate. Its caller has to see to it that the handle is dropped before the process ends in
// good order, because the thread must not outlive what the C library keeps in statics. A store holds the handle and
// drops it when it is closed or dropped, and its documentation passes the duty on: a store must not be kept in a static,
// nor leaked, nor be open when `std::process::exit` is called. `build` panics where it is called twice; `BEGUN` sees to
// it that it is not.
#[allow(unsafe_code)]
fn boot() -> FdbResult<NetworkAutoStop> {
    let network = FdbApiBuilder::default().build()?;
    unsafe { network.boot() }
}
