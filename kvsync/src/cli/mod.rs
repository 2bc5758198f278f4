//! A command line for a program of yours: it fills, compares and mends the stores, and tells how they are.
//!
//! The models are known to your program only, so it mounts the commands:
//!
//! ```no_run
//! # #[cfg(feature = "sqlite")]
//! # mod app {
//! # use diesel::prelude::*;
//! use std::process::ExitCode;
//!
//! use diesel::sqlite::Sqlite;
//! use kvsync::KvSync;
//! use kvsync::capture::Database;
//! use kvsync::store::memory::MemoryStore;
//!
//! fn build() -> kvsync::Result<KvSync> {
//!     // .. the store, the database and the models of your application
//!     let database = Database::<Sqlite>::new("main", || SqliteConnection::establish("app.db"));
//!     KvSync::builder().store(MemoryStore::new()).database(database).build()
//! }
//!
//! fn main() -> ExitCode {
//!     kvsync::cli::run(build)
//! }
//! # }
//! # fn main() {}
//! ```
//!
//! ```text
//! admin backfill [MODEL..]                          fill the stores from the tables
//! admin verify [MODEL..]                            compare both, and name every difference
//! admin repair [MODEL..] [--remove-foreign]         compare both, and mend every difference
//! admin health                                      how the stores and the way to them are
//! admin audit                                       what the catalog shows of the tables
//! admin outbox depth|dead|retry|drop|replay         what waits in the outbox, and what was given up
//! admin triggers [--down]                           the SQL of the triggers that fill the outbox
//! admin epoch raise --yes                           let everything stored read as unknown
//! ```
//!
//! A program that consumes from a broker has a command of its own: [`consume`].
//!
//! # Each command runs your `build()`
//!
//! So it is one more process of your application while it runs, with the same rights and the same needs:
//!
//! - It has workers and a relay: rows that wait in an outbox are delivered by it, too, also by `health` or
//!   `outbox dead`; what is left after a second (after ten, for `outbox retry` and `replay`) it leaves to others. To
//!   keep it from that, let `build` call [`relay(false)`](crate::Builder::relay).
//! - It waits for the database as long as your factory does: give the URL of Postgres a `connect_timeout`.
//! - On Postgres it waits first for the transactions of the database that are open and have written, at most for the
//!   `--deadline`. For whom, a warning of `tracing` says after 5 seconds, and the error in the end: to see the warning,
//!   let `main` install a subscriber that writes to the standard error.
//! - What it tells of queues, dirty tables and lag is of its own, and the application's is another's:
//!   that is in the application's [`health`](KvSync::health). The stores and the outboxes are the same.
//! - A store in memory is another's, and one on disk (`EmbeddedStore`) is open in one process at a time: beside the
//!   running application the command fails, and a retry helps once that has stopped. Either run it then, or let the
//!   application do the same itself ([`backfill`](KvSync::backfill), [`verify_all`](KvSync::verify_all),
//!   [`repair_all`](KvSync::repair_all)), or run a [`Command`] on its own handle.
//!
//! # Scopes
//!
//! `--scope` names the [`Scope`] that `backfill`, `verify` and `repair` work in; without it they work in every one
//! that schemas have. Where connections choose the scope and the database is not said to be a
//! [`single_tenant`](crate::capture::Database::single_tenant)'s, they are refused within one, with code 2: nobody knows
//! which rows of a table are its own. Of a single tenant's database all rows are taken for those of the scope that is
//! named, also where the name is mistaken.
//!
//! # Dead letters that are dropped
//!
//! What `outbox drop` deletes is delivered no more, and `health` of the command line is up again, because nothing else
//! tells another process of it. The rows are mended by that no more than before: in the stores they may be unknown
//! (readers are sent to the database), or, where the letter could not be understood, as old as they were. Their next
//! write ends that, and so does `repair`. The process that gave them up shows their tables dirty until it repairs
//! them or is told to [forget it](KvSync::clear_dirty).
//!
//! # Stopping
//!
//! Everything may be stopped at any time and begun again. A first Ctrl-C (or SIGTERM) ends a `backfill` after the
//! page at hand, and it says where to go on (`--resume`); a second one, and any during another command, ends the
//! process at once. Progress is shown on the standard error: a bar on a terminal, elsewhere a line every ten
//! seconds, with the position of a backfill; none with `--json`.
//!
//! # Exit codes
//!
//! 0: it was done, and all is well. 1: it was done, and not all is well. 2: it could not be done, or not to its end:
//! the arguments are not understood, or the store or the database did not answer or refused; the reason is told, and
//! with `--json` whether a retry helps. That is also what `health` ends with where `build` needs a store that is down.
//!
//! | command | 1 means |
//! |---|---|
//! | `backfill` | it was interrupted, or rows were passed over, or refused by a store |
//! | `verify` | there is a difference, or something could not be judged |
//! | `repair` | a difference was left, or something could not be judged |
//! | `health` | it is degraded or down; an outbox that has dead letters or does not answer is degraded |
//! | `audit` | there is a warning or an error; notes do not count |
//! | `outbox depth`, `outbox dead` | there are dead letters |
//! | `outbox retry`, `outbox drop` | one of the ids is no dead letter; the others were dealt with |
//! | `outbox replay`, `triggers`, `epoch raise` | never |
//!
//! # JSON
//!
//! With `--json` there is one document on the standard output, whose fields keep their names:
//!
//! | command | fields |
//! |---|---|
//! | `verify`, `repair` | `clean`, `rows`, `keys`, `entries`, `counts` (of each kind), `differences` (`kind`, `store`, `database`, `table`, `model`, `key_name`, `key`, `primary_key`, `stored`, `read_at`, `detail`), `moving`, `expired`, `unreadable`, `unjudged`, `seconds` |
//! | `repair` | also `mended`, `left`, `reasons` (`key`, `reason`) |
//! | `backfill` | `complete`, `models` (`database`, `model`, `scope`, `rows`, `written`, `superseded`, `masked`, `failed`, `nameless`, `seconds`, `next`: where to go on); with `error` and `retryable` when it failed on its way |
//! | `health` | `status`, `details`, `lag_ms`, `written`, `stores` (`store`, `queued`, `queued_bytes`, `unsettled`, `last_error`), `brokers` (`broker`, `queued`, `unsettled`, `last_error`), `outboxes` (`database`, `pending`, `oldest_seconds`, `dead`, `delivered`, `error`), `dirty` (`database`, `table`, `lost`, `reason`) |
//! | `audit` | `findings` (`severity`, `database`, `table`, `message`, `advice`) |
//! | `outbox depth` | `outboxes` (`database`, `pending`, `dead`, `delivered`, `oldest_seconds`) |
//! | `outbox dead` | `dead_letters` (`database`, `id`, `table`, `model`, `action`, `primary_key`, `attempts`, `age_seconds`, `error`) |
//! | `outbox retry`, `drop` | `count`, `missing` (the ids that are no dead letters), `advice` (what is left to do, or null) |
//! | `outbox replay` | `count` |
//! | `triggers` | `sql` |
//! | `epoch raise` | `epoch` |
//! | any, when it could not be done | `error`, `retryable` |

mod backfill;
mod bar;
mod consume;
mod health;
mod interrupt;
mod letters;
mod outbox;
mod tell;
mod work;

use std::error::Error as StdError;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, value_parser};

pub use self::consume::{Consume, consume};
use self::tell::{Told, Voice};
use crate::error::Result;
use crate::key::Scope;
use crate::kvsync::KvSync;

/// Reads the program's arguments, builds the handle, and runs the command. Ends the program by itself for
/// `--help` and for arguments that it does not understand.
pub fn run<E>(build: impl FnOnce() -> Result<KvSync, E>) -> ExitCode
where
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    let command = Command::from_args();
    match build() {
        Ok(kv) => {
            let code = command.run(&kv);
            kv.shutdown(command.patience());
            code
        }
        Err(error) => command.voice().failed(&*error.into()),
    }
}

/// A command, for programs that have others beside it: flatten it into your own `clap` parser, or begin with
/// [`run`].
#[derive(Debug, Clone, Parser)]
#[command(about = "Fills, compares and mends the stores that kvsync keeps")]
pub struct Command {
    /// Write one JSON document
    #[arg(long, global = true)]
    json: bool,
    /// The scope: of a schema, or, for a database that is a single tenant's, of all its rows. Within any other one
    /// `backfill`, `verify` and `repair` are refused
    #[arg(long, global = true, value_name = "NAME")]
    scope: Option<String>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, Subcommand)]
enum Verb {
    /// Fill the stores from the tables, beside live traffic
    Backfill(Filling),
    /// Compare the databases and the stores from both sides, and name every difference
    Verify(Comparing),
    /// Compare, and mend every difference; never writes over anything newer
    Repair {
        #[command(flatten)]
        comparing: Comparing,
        /// Take away what was not written by kvsync under keys of the models
        #[arg(long)]
        remove_foreign: bool,
    },
    /// How the stores and the way to them are
    Health {
        /// How long a store may take to answer
        #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds, allow_negative_numbers = true)]
        deadline: Duration,
    },
    /// What the catalog shows of the tables: misfits, and what writes rows unseen
    Audit {
        /// One database
        #[arg(long, value_name = "NAME")]
        database: Option<String>,
    },
    /// What waits in the outboxes, and what was given up
    #[command(subcommand)]
    Outbox(outbox::Verb),
    /// The SQL of the triggers that fill the outbox
    Triggers {
        /// One database
        #[arg(long, value_name = "NAME")]
        database: Option<String>,
        /// The SQL that removes them
        #[arg(long)]
        down: bool,
    },
    /// The epoch of the stores
    #[command(subcommand)]
    Epoch(Epoch),
}

#[derive(Debug, Clone, Subcommand)]
enum Epoch {
    /// Let everything that is stored read as unknown: once, after a database was restored
    Raise {
        /// It is meant
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Clone, Args)]
struct Filling {
    /// The models; all without any
    models: Vec<String>,
    /// Rows a second, at most
    #[arg(long, value_name = "ROWS", value_parser = value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Rows that are read at once
    #[arg(long, value_name = "ROWS", default_value_t = 500)]
    page: usize,
    /// How long each reading may take
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds, allow_negative_numbers = true)]
    deadline: Duration,
    /// Go on from where an earlier run ended: the `next` that it told
    #[arg(long, value_name = "POSITION")]
    resume: Option<String>,
}

#[derive(Debug, Clone, Args)]
struct Comparing {
    /// The models; all without any
    models: Vec<String>,
    /// Rows or entries a second, at most
    #[arg(long, value_name = "ROWS", value_parser = value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Rows or entries that are read at once
    #[arg(long, value_name = "ROWS", default_value_t = 500)]
    page: usize,
    /// How long a change may be on its way: longer than the lag of every process that writes
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds, allow_negative_numbers = true)]
    in_flight: Duration,
    /// How long each reading may take
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds, allow_negative_numbers = true)]
    deadline: Duration,
    /// How many differences are listed
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    samples: usize,
}

impl Command {
    /// The command of the program's arguments. Ends the program for `--help`, and with code 2 for arguments
    /// that it does not understand.
    #[must_use]
    pub fn from_args() -> Self {
        Self::try_parse().unwrap_or_else(|error| {
            let json = std::env::args_os().any(|argument| argument == "--json");
            if json && error.use_stderr() {
                tell::misunderstood(&error);
            }
            error.exit()
        })
    }

    /// Runs the command, tells what came of it, and returns the exit code. Blocks until it is done.
    #[must_use]
    pub fn run(&self, kv: &KvSync) -> ExitCode {
        let kv = match &self.scope {
            Some(scope) => kv.scoped(Scope::named(scope)),
            None => kv.clone(),
        };
        match self.work(&kv) {
            Ok(told) => self.voice().tell(told),
            Err(error) => self.voice().failed(&error),
        }
    }

    /// How long to deliver what waits once the command is done; the application does the rest.
    fn patience(&self) -> Duration {
        let delivers = matches!(self.verb, Verb::Outbox(outbox::Verb::Retry(_) | outbox::Verb::Replay { .. }));
        Duration::from_secs(if delivers { 10 } else { 1 })
    }

    fn voice(&self) -> Voice {
        Voice { json: self.json }
    }

    fn work(&self, kv: &KvSync) -> Result<Told> {
        match &self.verb {
            Verb::Backfill(filling) => backfill::backfill(kv, filling, !self.json),
            Verb::Verify(comparing) => work::verify(kv, comparing, !self.json),
            Verb::Repair { comparing, remove_foreign } => work::repair(kv, comparing, *remove_foreign, !self.json),
            Verb::Health { deadline } => Ok(health::health(kv, *deadline)),
            Verb::Audit { database } => work::audit(kv, database.as_deref()),
            Verb::Outbox(verb) => outbox::work(kv, verb),
            Verb::Triggers { database, down } => work::triggers(kv, database.as_deref(), *down),
            Verb::Epoch(Epoch::Raise { yes }) => work::raise_epoch(kv, *yes),
        }
    }
}

/// A number of seconds that somebody wrote.
fn seconds(text: &str) -> Result<Duration, String> {
    // Times are added to the clock, which has an end.
    let number = text.parse().ok().filter(|number| (0.0..=1e9).contains(number));
    let number = number.ok_or("say a number of seconds from 0 to 1000000000, such as `90` or `0.5`")?;
    Ok(Duration::from_secs_f64(number))
}
