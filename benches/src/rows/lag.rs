//! How long after COMMIT a row is readable, at half of the load that Redis takes.

use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use kvsync::KvSync;
use kvsync::capture::Database;
use kvsync::change::CommitToken;
use kvsync::store::redis::RedisStore;

use crate::models::Account;
use crate::options::Options;
use crate::ratio::Side;
use crate::synced::{PATIENCE, Synced};
use crate::table::{Figure, Goal, Spread, Unit};
use crate::{Result, servers};

const ROWS: u16 = 20_000;
/// Between commits.
const TICK: Duration = Duration::from_millis(1);
const TICKS: u32 = 1000;

pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    let store = RedisStore::connect(servers::redis()?)?;
    let mut ours = Synced::start(store, ROWS.into(), Database::model::<Account>)?;
    let rows = half_load(&mut ours)? / 1000;
    let (mut medians, mut last) = (Vec::new(), Vec::new());
    let mut reached = Vec::new();
    for _ in 0..options.rounds(10) {
        let begin = Instant::now();
        let lags = Spread::of(second(&mut ours, rows)?);
        reached.push(f64::from(u32::try_from(rows)? * TICKS) / begin.elapsed().as_secs_f64());
        medians.push(lags.median());
        last.push(lags.p99());
    }
    let load = format!("{:.0} rows/s, a commit of {rows} each ms", Spread::of(reached).median());
    let figure = |what: &str, values, goal| Figure {
        what: what.to_owned(),
        spread: Spread::of(values),
        unit: Unit::Milliseconds,
        goal,
        sides: load.clone(),
    };
    Ok(vec![
        figure("lag from COMMIT to readable in Redis at half load, median", medians, Goal::Reported),
        figure("lag from COMMIT to readable in Redis at half load, 99th percentile", last, Goal::AtMost(10.0)),
    ])
}

/// Half of the rows that reach Redis in a second when all come at once.
fn half_load(ours: &mut Synced) -> Result<usize> {
    let mut seconds = Vec::new();
    for _ in 0..6 {
        ours.prepare(ROWS.into())?;
        let begin = Instant::now();
        ours.run(ROWS.into())?;
        seconds.push(begin.elapsed().as_secs_f64());
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a load is far below 2^52")]
    let load = (f64::from(ROWS) / Spread::of(seconds).median() / 2.0) as usize;
    Ok(load.max(1000))
}

/// Commits this many rows every millisecond for a second; the lag of each commit in milliseconds.
fn second(ours: &mut Synced, rows: usize) -> Result<Vec<f64>> {
    let (committed, tokens) = channel();
    let kv = ours.kv.clone();
    let waiter = thread::spawn(move || wait(&kv, &tokens));
    let begin = Instant::now();
    for tick in 0..TICKS {
        thread::sleep((TICK * tick).saturating_sub(begin.elapsed()));
        ours.write(usize::try_from(tick)? * rows % (usize::from(ROWS) - rows), rows)?;
        let at = Instant::now();
        committed.send((at, ours.commit()?))?;
    }
    drop(committed);
    waiter.join().map_err(|_| "the waiting thread panicked")?
}

/// Waits for each commit: once its writes are acknowledged, its rows are readable.
fn wait(kv: &KvSync, tokens: &Receiver<(Instant, CommitToken)>) -> Result<Vec<f64>> {
    let mut lags = Vec::new();
    for (at, token) in tokens {
        kv.wait(&token, PATIENCE)?;
        lags.push(at.elapsed().as_secs_f64() * 1e3);
    }
    Ok(lags)
}
