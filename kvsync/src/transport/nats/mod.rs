//! Changes through a stream of NATS JetStream, from where any number of processes apply them.
//!
//! ```no_run
//! use kvsync::transport::nats::NatsBroker;
//!
//! # fn main() -> kvsync::Result<()> {
//! let nats = NatsBroker::builder(["nats://127.0.0.1:4222"]).stream("shop").prefix("shop");
//! // Publishes, and makes the queue where it is missing: without one, nothing can be published.
//! let broker = nats.clone().with_queue("redis-eu").broker()?;
//! let redis = nats.queue("redis-eu")?; // receives: each queue gets every message
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//!
//! - **A confirmation means kept**, for every queue that wants the message, and for one at least: a broker asks which
//!   queues there are, once a second while it publishes, and fails for what none wants
//!   ([`Unavailable`](crate::ErrorKind::Unavailable)). A queue that somebody removes takes its messages with it, and
//!   maybe those of that second. What another stream would take is not confirmed.
//! - **What was sent and not confirmed** is sent again until [`retry_for`](Builder::retry_for) has passed, then
//!   [`UnknownOutcome`](crate::ErrorKind::UnknownOutcome). Messages carry their id, and the server keeps no copy of one that
//!   it has seen in the last two minutes; a later copy is delivered once more, which is harmless.
//! - **A stream that is full** ([`max_messages`](Builder::max_messages)) refuses messages and forgets none.
//! - **A message is delivered until its end was told**: acknowledged, or kept as a dead letter. Of a process that died it
//!   comes again after [`ack_wait`](Builder::ack_wait); while a process lives, more time is asked for what it holds. An end that
//!   the connection lost costs a delivery more.
//! - **A dead letter is kept first**, in the stream `<stream>-dead`, and then its message goes. If it cannot be kept the
//!   message comes again; who is killed in between leaves one letter, within two minutes.
//!
//! # What stands on the servers
//!
//! ```text
//!                     stream shop: subjects shop.*.*                                   queues (durable pull consumers)
//!   broker ──────▶    shop.users.create   shop.users.update   shop.orders.delete  ─┬─▶ redis-eu      everything
//!                                                                                  └─▶ search        shop.users.*
//!                     stream shop-dead: subjects shop.dead.*.*.*                              │
//!   operators ◀────   shop.dead.search.users.update                                ◀───── dead letters
//! ```
//!
//! **The stream** has the subjects `<prefix>.<table>.<action>`; bytes of a table's name other than letters, digits, `-`, `_`
//! and `/` are `=` and two hexadecimal digits. It is on disk, with the retention `limits`, and consumers remove what
//! every queue has acknowledged, each second. `interest`, with which the server would do that, is refused: nats-server
//! 2.9.10 confirms and drops what is published while it shuts down. **A queue that is made later** gets what the others
//! have not all acknowledged, and what is published from then on; for the rest there is the backfill. **A queue that is
//! no longer used** holds everything back: remove it (`nats consumer rm`). [`max_age`](Builder::max_age) bounds how long,
//! and what is older is lost for those who have not taken it.
//!
//! **A queue** is a durable pull consumer without a limit of deliveries. Its consumer makes it, and a publisher that is told
//! its name ([`with_queue`](Builder::with_queue)): start a consumer first, or name the queue. **Dead letters** are at
//! `<prefix>.dead.<queue>.<table>.<action>`, with the body of the message and the headers `Kvsync-Reason`, `Kvsync-Queue`,
//! `Kvsync-Subject`, `Kvsync-Deliveries` and `Kvsync-Message-Id`; they stay until somebody removes them, or has them
//! delivered again ([`redrive`](crate::transport::Subscription::redrive)): to their own subject, with the header `Kvsync-Only`
//! that names their queue, so that the others acknowledge them unseen. Bodies of others that leave no room for these
//! headers are cut, and `Kvsync-Bytes` tells how long they were; these stay where they are.
//!
//! Streams and queues are made where they are missing, also later, unless there is
//! [`check_only`](Builder::check_only). What is there is checked and never changed; [`health`](crate::transport::Broker::health)
//! tells where it differs from what was configured.
//!
//! # What it needs
//!
//! - A server 2.9 or newer with JetStream (tested with 2.9.10). Three things differ below 2.10: no queue of several
//!   tables; no [`max_bytes`](Builder::max_bytes), because 2.9.10 forgets its oldest message when the last bytes of a stream
//!   are filled; and what was acknowledged is removed message by message, one question each.
//! - **A disk.** A server confirms what its system has not yet put there: it does so each `sync_interval`, a minute in
//!   2.9 and two by default since, or with `sync_interval: always` (2.10) before it confirms
//!   ([its manual](https://docs.nats.io/reference/config/jetstream/sync_interval)). A server that is killed loses nothing.
//!   A machine that crashes loses those minutes of a stream with one replica; with three it is the
//!   [crash of several at a time](https://github.com/nats-io/nats-server/issues/7564) that does. Where that matters, say
//!   `always`, or keep an outbox with its retention.
//! - Rights. Who publishes: to publish to `<prefix>.*.*`, `$JS.API.STREAM.INFO.<stream>`,
//!   `$JS.API.CONSUMER.LIST.<stream>` and, with a queue, `$JS.API.CONSUMER.INFO.<stream>.*`. Who receives: to publish to `<prefix>.dead.>`,
//!   `$JS.API.STREAM.INFO.<stream>`, the same with `-dead`, `$JS.API.CONSUMER.INFO.<stream>.*`,
//!   `$JS.API.CONSUMER.NAMES.<stream>`, `$JS.API.CONSUMER.MSG.NEXT.<stream>.<queue>`, `$JS.ACK.<stream>.<queue>.>`,
//!   `$JS.API.STREAM.PURGE.<stream>` or below 2.10 `$JS.API.STREAM.MSG.DELETE.<stream>`, and with queues of some tables
//!   `$JS.API.STREAM.MSG.GET.<stream>`. Who lists dead letters: to publish to
//!   `$JS.API.STREAM.MSG.GET.<stream>-dead`; who has them delivered again, to that, `<prefix>.*.*` and `$JS.API.STREAM.MSG.DELETE.<stream>-dead`. Both: to subscribe to `_INBOX.>`
//!   or [another prefix](Builder::inbox_prefix); and to
//!   make what is missing, `$JS.API.STREAM.CREATE.<stream>`, the same with `-dead`, and
//!   `$JS.API.CONSUMER.CREATE.<stream>.>`.
//!
//! # When something fails
//!
//! | what | publisher | consumer |
//! |---|---|---|
//! | the server is away, at the start too | calls fail as [`Unavailable`](crate::ErrorKind::Unavailable); it is connected to again, with pauses from 10 ms to half a second | the same; what is held stays held, and its ends are told later |
//! | it is killed, or leaves in lame duck mode, and comes back | what was confirmed is there | what was not acknowledged comes again after `ack_wait` |
//! | of three, the one that leads dies or leaves | it is published to the next leader | the same |
//! | it hangs | [`UnknownOutcome`](crate::ErrorKind::UnknownOutcome) after [`publish_timeout`](Builder::publish_timeout) | [`Unavailable`](crate::ErrorKind::Unavailable) after 15 seconds without a sign |
//! | there is no queue that wants it | [`Unavailable`](crate::ErrorKind::Unavailable) after `retry_for`: logged, and told by `flush` and [`health`](crate::KvSync::health) | |
//! | wrong password, missing right, a stream or queue that cannot be used | [`Config`](crate::ErrorKind::Config), with the server's words; nothing is given up, and it works as soon as that is changed | the same |
//! | a message is too large for the server or the stream | [`Rejected`](crate::ErrorKind::Rejected), it alone | |
//! | the stream or queue is removed | the stream is made again after a second, and queues that were named | both are made again; what was in them is lost, and a warning logged: backfill, and repair |
//! | too many messages are held or delayed | | [`max_ack_pending`](Builder::max_ack_pending): nothing more comes until one ends; health is degraded |

mod broker;
mod builder;
mod dead;
mod health;
mod publish;
mod pump;
mod queue;
mod redrive;
mod session;
mod subject;
mod sweep;
mod topology;

use std::time::Duration;

use async_nats::HeaderValue;

use crate::error::{Error, ErrorKind};

pub use self::broker::NatsBroker;
pub use self::builder::Builder;
pub use self::queue::NatsQueue;

/// How much longer than its own deadlines a call is waited for, on a machine that is slow.
const GRACE: Duration = Duration::from_secs(5);
/// Room for what goes with a body: the headers of a message, and those of its dead letter.
const HEADROOM: usize = 8 * 1024;
/// What a server takes that was not told otherwise, with all headers.
const UNTOLD: usize = 1024 * 1024;
/// What names the form of a body.
const CONTENT_TYPE: &str = "Content-Type";

/// What a server refuses that is not one message concerns all: who we are, what we may, what stands there.
fn of_all(error: Error) -> Error {
    if error.kind() == ErrorKind::Rejected { error.with_kind(ErrorKind::Config) } else { error }
}

/// A text as the value of a header, which is one line.
fn text(text: &str) -> HeaderValue {
    HeaderValue::from(text.replace(['\r', '\n'], " "))
}
