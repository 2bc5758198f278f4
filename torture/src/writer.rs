//! A process that writes, and what it says of itself.
//!
//! It reads commands on its standard input, a line each, and ends with it: so it never outlives the conductor.

use std::io::{BufRead, stdin};
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sqlite::Sqlite;
use kvsync::report::{DirtyTable, Outcome as Fate};
use kvsync::{KvSync, Report};

use crate::Outcome;
use crate::check::waiting_since;
use crate::dice::Dice;
use crate::job::{DatabaseAt, Job, Singles};
use crate::open::{open, patiently, postgres, sqlite};
use crate::options::Delivery;
use crate::repair::{perform, refill};
use crate::serve::serve;
use crate::steps;

/// How long everything that was written may take to reach the store once nothing is in the way.
pub(crate) const QUIET: Duration = Duration::from_mins(3);

/// What the threads of the process share.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    stop: AtomicBool,
    /// Rows written and committed.
    writes: AtomicU64,
    /// Steps that met a unique constraint.
    conflicts: AtomicU64,
    /// Steps that were repeated, and connections that were opened anew.
    retries: AtomicU64,
}

/// Writes until it is told to stop.
pub(crate) fn run(job: &Job) -> Outcome {
    let tally = Arc::new(Tally::default());
    let waits = job.refill && job.delivery != Delivery::Memory;
    let waiting_since = if waits { patiently(|| waiting_since(&job.database))? } else { None };
    let kv = patiently(|| Ok(open(job)?.on_report(tell).build()?))?;
    if let Some(socket) = &job.socket {
        serve(Arc::clone(kv.store()), socket)?;
    }
    let reporting = {
        let (kv, tally) = (kv.clone(), Arc::clone(&tally));
        thread::Builder::new().name("torture-tally".into()).spawn(move || report(&kv, &tally))?
    };
    let writers = (0..job.threads).map(|thread| start(&kv, job, thread, &tally)).collect::<Outcome<Vec<_>>>()?;
    let commands = commands()?;
    if job.refill {
        patiently(|| refill(&kv, waiting_since))?;
    }
    while commands.recv()? != "stop" {}
    tally.stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().map_err(|_| "a writing thread panicked")?;
    }
    match kv.flush(QUIET) {
        Ok(()) if !is_filled_in(&kv, job.transport.is_some()) => {
            println!("unflushed tables that lost changes were not filled in");
        }
        Ok(()) => println!("flushed"),
        Err(error) => println!("unflushed {error}: {:?}", kv.health(Duration::from_secs(1)).details),
    }
    reporting.join().map_err(|_| "the reporting thread panicked")?;
    // Whoever started it ends it, by closing the pipe.
    while let Ok(command) = commands.recv() {
        say("done", &perform(&kv, &command)?);
    }
    Ok(())
}

/// The lines of the standard input. At its end the process ends, whatever it is doing.
pub(crate) fn commands() -> Outcome<mpsc::Receiver<String>> {
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().name("torture-commands".into()).spawn(move || {
        for line in stdin().lock().lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
        process::exit(0);
    })?;
    Ok(receiver)
}

fn start(kv: &KvSync, job: &Job, thread: usize, tally: &Arc<Tally>) -> Outcome<thread::JoinHandle<()>> {
    let dice = Dice::new(job.seed.wrapping_add(thread as u64), job.rows, job.writer, job.singles != Singles::Never);
    let (kv, tally) = (kv.clone(), Arc::clone(tally));
    let name = format!("torture-writer-{thread}");
    let (database, stranger) = (job.database.clone(), job.stranger);
    Ok(thread::Builder::new().name(name).spawn(move || match (&database, stranger) {
        (DatabaseAt::Sqlite(_), false) => write(dice, &tally, || kv.connect::<Sqlite>("main"), steps::on_sqlite),
        (DatabaseAt::Postgres(_), false) => write(dice, &tally, || kv.connect::<Pg>("main"), steps::on_postgres),
        (DatabaseAt::Sqlite(path), true) => write(dice, &tally, || sqlite(path), steps::strange_on_sqlite),
        (DatabaseAt::Postgres(url), true) => write(dice, &tally, || postgres(url), steps::strange_on_postgres),
    })?)
}

/// One step after another, on one connection for as long as it holds.
fn write<C, E>(
    mut dice: Dice,
    tally: &Tally,
    connect: impl Fn() -> Result<C, E>,
    step: fn(&mut C, &mut Dice) -> QueryResult<usize>,
) {
    let mut open: Option<C> = None;
    let mut again = 0;
    while !tally.stop.load(Ordering::Relaxed) {
        let Some(conn) = &mut open else {
            match connect() {
                Ok(conn) => open = Some(conn),
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
            continue;
        };
        let before = dice.clone();
        match step(conn, &mut dice) {
            Ok(rows) => {
                again = 0;
                tally.writes.fetch_add(rows as u64, Ordering::Relaxed);
                continue;
            }
            Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)) => {
                again = 0;
                tally.conflicts.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            Err(error) if is_passing(&error) && again < 5 => {
                again += 1;
                dice = before;
            }
            Err(error) if is_passing(&error) => {}
            Err(Error::DatabaseError(DatabaseErrorKind::Unknown, what)) if !is_cut(what.message()) => {
                say("note", &format!("a statement failed: {}", what.message()));
            }
            // Cut, and nobody knows whether the last transaction was committed.
            Err(_) => open = None,
        }
        tally.retries.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether another attempt may do.
fn is_passing(error: &Error) -> bool {
    match error {
        Error::DatabaseError(DatabaseErrorKind::SerializationFailure, _) => true,
        Error::DatabaseError(_, what) => what.message().contains("deadlock") || what.message().contains("locked"),
        _ => false,
    }
}

fn is_cut(message: &str) -> bool {
    ["connection", "terminat", "EOF", "recovery", "starting up", "shutting down", "no result"]
        .iter()
        .any(|word| message.contains(word))
}

/// Says every so often how far it is, until it has stopped.
fn report(kv: &KvSync, tally: &Tally) {
    loop {
        let stopped = tally.stop.load(Ordering::Relaxed);
        let health = kv.health(Duration::ZERO).pipeline;
        let of_stores = health.stores.iter().map(|store| store.queued.changes + store.unsettled);
        let of_brokers = health.brokers.iter().map(|broker| broker.queued.changes + broker.unsettled);
        let queued: usize = of_stores.chain(of_brokers).sum();
        let [writes, conflicts, retries] =
            [&tally.writes, &tally.conflicts, &tally.retries].map(|count| count.load(Ordering::Relaxed));
        println!("tally {writes} {conflicts} {retries} {queued}");
        if stopped && queued == 0 {
            return;
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// Waits for tables that lost changes for want of room: they are filled in by themselves. One that could not be
/// captured stays dirty; so does one of which a broker was not told a deletion, which is a loss that was announced.
fn is_filled_in(kv: &KvSync, publishes: bool) -> bool {
    let deadline = Instant::now() + QUIET;
    let is_waited_for = || !MISSED.load(Ordering::SeqCst) && Instant::now() < deadline;
    let announced = |table: &DirtyTable| publishes && table.deletes && table.filled;
    let dirty = || kv.health(Duration::ZERO).pipeline.dirty;
    let lost = || dirty().iter().any(|table| table.lost > 0 && !announced(table));
    while is_waited_for() && lost() {
        thread::sleep(Duration::from_millis(50));
    }
    if dirty().iter().any(announced) {
        say("announced", "a deletion is lost for want of room");
    }
    MISSED.load(Ordering::SeqCst) || !lost()
}

/// Whether a write could not be captured.
static MISSED: AtomicBool = AtomicBool::new(false);

/// What should not happen is told; what a fault explains is not. A statement whose answer was lost has rows that nobody
/// can name: that is a loss that was announced.
fn tell(report: &Report) {
    match report {
        Report::Key(key) if !matches!(key.outcome, Fate::Failed) => {}
        Report::Missed(missed) => {
            MISSED.store(true, Ordering::SeqCst);
            say("dirty", &missed.reason);
        }
        // Which tables these are was told, and why. A store that was restarted may have forgotten; the ones here do not.
        Report::Dirty(_) | Report::Forgot { .. } => {}
        other => say("complaint", &other.to_string()),
    }
}

/// A line for the conductor, which goes by its first word.
pub(crate) fn say(word: &str, what: &str) {
    println!("{word} {}", what.replace('\n', " "));
}
