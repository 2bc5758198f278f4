//! Every store against the client library under it, used without kvsync: get, set, a hundred sets in one batch, and
//! `put_if_newer`, the step by which rows are written. What the bare client does for each is said beside it.

mod dynamodb;
mod embedded;
mod memory;
mod million;
mod nats;
mod redis;
pub(super) mod sides;

pub(super) use self::dynamodb::run as dynamodb;
pub(super) use self::embedded::run as embedded;
pub(super) use self::memory::run as memory;
pub(super) use self::million::run as million;
pub(super) use self::nats::run as nats;
pub(super) use self::redis::{cluster, single};
