//! How long after COMMIT a row is applied, at half of the load that the broker takes.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use kvsync::Consumer;
use kvsync::store::MemoryStore;
use kvsync::transport::{Broker, Subscription};

use super::Ends;
use super::ours::Publisher;
use crate::Result;
use crate::models::Account;
use crate::options::Options;
use crate::synced::PATIENCE;
use crate::table::{Figure, Goal, Spread, Unit};

/// Between bursts of commits.
const TICK: Duration = Duration::from_millis(1);
const TICKS: u16 = 1000;

/// When each row was committed last, and the lags so far, in milliseconds.
#[derive(Default)]
struct Seen {
    committed: Vec<Option<Instant>>,
    lags: Vec<f64>,
}

/// Measures at half of the speed at which commits took so many seconds each.
pub(super) fn run<B: Broker + 'static, S: Subscription + 'static>(
    options: &Options,
    name: &str,
    ends: Ends<B, S>,
    seconds: &[f64],
) -> Result<Vec<Figure>> {
    let full = 1.0 / Spread::of(seconds.to_vec()).median();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a load is far below 2^52")]
    let burst = ((full / 2.0 * TICK.as_secs_f64()).round() as u16).clamp(1, u16::MAX / TICKS);
    // A round commits each row once, so that no lag is taken for another's.
    let rows = TICKS * burst;
    let seen = Arc::new(Mutex::new(Seen { committed: vec![None; usize::from(rows) + 1], lags: Vec::new() }));
    let consumer = {
        let seen = Arc::clone(&seen);
        let applied = move |id: i32| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let committed = usize::try_from(id).ok().and_then(|id| seen.committed.get_mut(id)).and_then(Option::take);
            if let Some(committed) = committed {
                seen.lags.push(committed.elapsed().as_secs_f64() * 1e3);
            }
        };
        Consumer::builder()
            .subscription(ends.subscription)
            .store(MemoryStore::new())
            .on_change::<Account>(move |change| {
                applied(change.row().ok_or("a change without its row")?.id);
                Ok(())
            })
            .build()?
    };
    let mut publisher = Publisher::start(ends.broker, rows)?;
    let (mut medians, mut last, mut reached) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=options.rounds(10) {
        let begin = Instant::now();
        for tick in 0..TICKS {
            thread::sleep((TICK * u32::from(tick)).saturating_sub(begin.elapsed()));
            for _ in 0..burst {
                // Marked first: it may be applied before the call returns.
                let next = usize::try_from(publisher.next())?;
                if let Some(slot) = seen.lock().unwrap_or_else(PoisonError::into_inner).committed.get_mut(next) {
                    *slot = Some(Instant::now());
                }
                publisher.commit()?;
            }
        }
        let took = begin.elapsed().as_secs_f64();
        let late = Instant::now() + PATIENCE;
        let count = || seen.lock().unwrap_or_else(PoisonError::into_inner).lags.len();
        while count() < usize::from(rows) {
            if Instant::now() > late {
                return Err("what was committed was not applied".into());
            }
            thread::sleep(TICK);
        }
        let lags = std::mem::take(&mut seen.lock().unwrap_or_else(PoisonError::into_inner).lags);
        // The first round warms up.
        if round > 0 {
            let lags = Spread::of(lags);
            reached.push(f64::from(rows) / took);
            medians.push(lags.median());
            last.push(lags.p99());
        }
    }
    drop(publisher);
    consumer.shutdown(PATIENCE);
    let load = format!("{:.0} commits/s", Spread::of(reached).median());
    let figure = |what: String, values| Figure {
        what,
        spread: Spread::of(values),
        unit: Unit::Milliseconds,
        goal: Goal::Reported,
        sides: load.clone(),
    };
    Ok(vec![
        figure(format!("lag from COMMIT to applied through {name} at half load, median"), medians),
        figure(format!("lag from COMMIT to applied through {name} at half load, 99th percentile"), last),
    ])
}
