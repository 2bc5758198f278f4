//! The process that keeps a store: takes what `publisher` committed from a queue of the broker, writes it into Redis, and
//! says what it was told. It needs no database, and ends in good order on SIGTERM or Ctrl-C.
//!
//! ```text
//! cargo run --example consumer --features two-processes
//! KVSYNC_BROKER=nats://127.0.0.1:4222 cargo run --example consumer --features two-processes -- --workers 8
//! ```
//!
//! `KVSYNC_STORE` is the store (`redis://127.0.0.1/`; see `store_url.rs`); `broker_url.rs` has the variables that name the
//! broker; `--help` lists the arguments.
#![allow(unreachable_pub, reason = "the modules are written as those of a library")]

#[allow(dead_code, reason = "this process publishes nothing")]
mod broker_url;
#[allow(dead_code, reason = "rows are all that it keeps")]
#[path = "../store_url.rs"]
mod store_url;
mod user;

use std::io::{self, Write as _};
use std::process::ExitCode;

use kvsync::Consumer;
use kvsync::consumer::{ConsumerBuilder, HookError, Received};

use self::user::User;

fn main() -> ExitCode {
    kvsync::cli::consume(build)
}

/// A queue, a store, and what else is to be done with changes of users.
fn build() -> Result<ConsumerBuilder, Box<dyn std::error::Error + Send + Sync>> {
    let store = store_url::open(&broker_url::setting("KVSYNC_STORE", "redis://127.0.0.1/"))?;
    if store.folder.is_some() {
        return Err("a store on disk that is there afterwards has a path: `embedded:PATH`".into());
    }
    let consumer = Consumer::builder().store(store.rows).on_change::<User>(told);
    Ok(broker_url::receive(consumer)?)
}

/// Is called when the store has the change: the place for a search index or a webhook. A change may be told twice, and
/// after a newer one of its row.
fn told(change: &Received<'_, User>) -> Result<(), HookError> {
    let username = change.row().map_or("a user", |user| &user.username);
    Ok(writeln!(io::stdout(), "{} {} {username}", change.action(), change.primary_key())?)
}
