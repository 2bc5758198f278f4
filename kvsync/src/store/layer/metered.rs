//! Figures about each call of a store.

use std::time::Instant;

use metrics::{SharedString, Unit, counter, describe_counter, describe_histogram, histogram};

use super::observe::{Call, Observed, Observer, bytes_of};
use super::size::Size;
use crate::error::Result;
use crate::store::Store;

/// A store that tells the [`metrics`](https://docs.rs/metrics) facade of each of its calls; whichever recorder
/// the program has installed exports them. Without one it costs next to nothing.
///
/// | name | kind, unit | labels | what |
/// |---|---|---|---|
/// | `kvsync_store_calls_total` | counter | `store`, `command` | calls: as many round trips, where a store needs one for a call |
/// | `kvsync_store_call_duration_seconds` | histogram, seconds | `store`, `command` | how long each took, failed ones too |
/// | `kvsync_store_commands_total` | counter | `store`, `command` | the commands, steps, operations and keys within the calls |
/// | `kvsync_store_errors_total` | counter | `store`, `command`, `kind` | those that failed, by [`ErrorKind`](crate::ErrorKind) |
/// | `kvsync_store_sent_bytes_total` | counter, bytes | `store`, `command` | values, members and fields that were sent |
/// | `kvsync_store_received_bytes_total` | counter, bytes | `store`, `command` | those that were received |
///
/// `store` is [`Store::name`]. `command` is [`Command::name`](crate::store::data::Command::name) or
/// [`Step::name`](crate::store::Step::name), else `get_many`, `scan`, `epoch`, `raise_epoch` or `atomic`; where calls
/// are counted, those with several commands that differ are a `batch`. `kind` is written as `unknown_outcome`.
///
/// ```
/// use kvsync::store::MemoryStore;
/// use kvsync::store::data::DataCommands;
/// use kvsync::store::layer::Metered;
///
/// let store = Metered::new(MemoryStore::new());
/// store.set("name", "ann")?; // kvsync_store_calls_total{store="memory", command="set"} 1
/// # Ok::<(), kvsync::Error>(())
/// ```
pub type Metered<S> = Observed<S, Meter>;

/// What a [`Metered`] store's calls are told to.
#[derive(Debug, Clone)]
pub struct Meter {
    store: SharedString,
}

impl<S: Store> Metered<S> {
    /// This store, with figures about its calls. Describes them to the recorder that is installed by then.
    #[must_use]
    pub fn new(store: S) -> Self {
        describe();
        let name: std::sync::Arc<str> = store.name().into();
        Self::around(store, Meter { store: SharedString::from_shared(name) })
    }
}

impl Observer for Meter {
    type Running = Instant;

    fn begin(&self, _call: &Call<'_>) -> Instant {
        Instant::now()
    }

    fn end<T: Size>(&self, began: Instant, call: &Call<'_>, answers: &[Result<T>]) {
        let (store, command) = (|| self.store.clone(), call.name());
        counter!("kvsync_store_calls_total", "store" => store(), "command" => command).increment(1);
        histogram!("kvsync_store_call_duration_seconds", "store" => store(), "command" => command)
            .record(began.elapsed());
        call.each(|command, count| {
            counter!("kvsync_store_commands_total", "store" => store(), "command" => command).increment(count as u64);
        });
        let bytes =
            [("kvsync_store_sent_bytes_total", call.bytes()), ("kvsync_store_received_bytes_total", bytes_of(answers))];
        for (name, bytes) in bytes.into_iter().filter(|(_, bytes)| *bytes > 0) {
            counter!(name, "store" => store(), "command" => command).increment(bytes as u64);
        }
        for (place, answer) in answers.iter().enumerate() {
            if let Err(error) = answer {
                let (command, kind) = (call.name_at(place), error.kind().as_str().replace(' ', "_"));
                counter!("kvsync_store_errors_total", "store" => store(), "command" => command, "kind" => kind)
                    .increment(1);
            }
        }
    }
}

fn describe() {
    describe_counter!("kvsync_store_calls_total", "calls of the store");
    describe_histogram!("kvsync_store_call_duration_seconds", Unit::Seconds, "how long calls of the store took");
    describe_counter!("kvsync_store_commands_total", "commands, steps, operations and keys within the calls");
    describe_counter!("kvsync_store_errors_total", "commands, steps and calls that failed, by kind");
    describe_counter!("kvsync_store_sent_bytes_total", Unit::Bytes, "values, members and fields sent to the store");
    describe_counter!(
        "kvsync_store_received_bytes_total",
        Unit::Bytes,
        "values, members and fields received from the store"
    );
}
