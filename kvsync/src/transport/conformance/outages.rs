//! Servers that are stopped, killed, frozen, or not there yet.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::ground::{
    Checked, bodies, check, drain, message, messages, one, patience, publish_at_last, receive, set_patience, until,
};
use super::{Case, Own, Run};
use crate::error::{ErrorKind, failure_text};
use crate::status::Status;
use crate::transport::Arrival;

pub(super) const CASES: &[Case] = &[
    Case { name: "a_server_that_comes_later_is_found", run: Run::Own(absent) },
    Case { name: "restarts_and_kills_lose_nothing_that_was_confirmed", run: Run::Own(restarts) },
    Case { name: "a_server_that_is_away_or_hangs_is_told_and_ends_every_call", run: Run::Own(away) },
];

/// More than any call needs that has a deadline, and less than for ever.
const SOON: Duration = Duration::from_mins(2);
/// What a case does to a server.
type Does = fn(&dyn Own);
const ENDS: [Does; 2] = [|own| own.stop(), |own| own.kill()];
/// What takes a server away, and what brings it back.
const TROUBLES: [(Does, Does); 2] = [(|own| own.pause(), |own| own.resume()), (|own| own.kill(), |own| own.start())];

fn absent(own: &dyn Own) -> Checked {
    own.stop();
    let (broker, queue) = (own.topic().broker(), own.topic().subscribe());
    for answer in broker.publish(&messages("absent", 2)) {
        match answer {
            Ok(()) => return Err("no server is there, and it confirmed".to_owned()),
            Err(error) => check!(error.is_retryable(), "a server that is away is {}", failure_text(&error)),
        }
    }
    match queue.receive(1, Duration::from_millis(100)) {
        Ok(arrivals) => check!(arrivals.is_empty(), "no server is there, and something arrived"),
        Err(error) => {
            check!(error.kind() == ErrorKind::Unavailable, "a server that is away is {}", failure_text(&error));
        }
    }
    own.start();
    let sent = messages("then", 20);
    publish_at_last(&*broker, &sent)?;
    drain(&*queue, &bodies(&sent))
}

/// Publishes without a pause while the server is restarted and killed, and a consumer takes what comes.
fn restarts(own: &dyn Own) -> Checked {
    let (broker, queue) = (own.topic().broker(), own.topic().subscribe());
    publish_at_last(&*broker, &[message("first")])?;
    let held = one(&*queue)?;
    let (over, patience) = (AtomicBool::new(false), patience());
    let mut stood = BTreeSet::new();
    let published: Checked<BTreeSet<Bytes>> = std::thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            set_patience(patience);
            let mut confirmed = BTreeSet::new();
            let mut batch = 0;
            while !over.load(Ordering::Acquire) {
                let sent = messages(&format!("batch {batch}"), 5);
                publish_at_last(&*broker, &sent)?;
                confirmed.extend(bodies(&sent));
                batch += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok(confirmed)
        });
        let troubled = ENDS.into_iter().enumerate().try_for_each(|(number, end)| {
            let stands = messages(&format!("before end {number}"), 3);
            publish_at_last(&*broker, &stands)?;
            stood.extend(bodies(&stands));
            end(own);
            own.start();
            publish_at_last(&*own.topic().broker(), &[message("it is back")])
        });
        over.store(true, Ordering::Release);
        let published = traffic.join().map_err(|_| "a thread panicked".to_owned())?;
        troubled.and(published)
    });
    // Whether this end still counts depends on the broker: it may come again.
    held.ack();
    let wanted: BTreeSet<Bytes> = published?.into_iter().chain(stood).chain([Bytes::from("it is back")]).collect();
    drain(&*queue, &wanted)?;
    until("nothing is left", || {
        receive(&*queue, 100).map(Arrival::ack_all).is_ok()
            && queue.backlog().is_ok_and(|backlog| backlog.waiting + backlog.taken == 0)
    })
}

fn away(own: &dyn Own) -> Checked {
    let (broker, queue) = (own.topic().broker(), own.topic().subscribe());
    publish_at_last(&*broker, &[message("first")])?;
    one(&*queue)?.ack();
    for (end, begin) in TROUBLES {
        end(own);
        let asked = Instant::now();
        let deadline = Duration::from_millis(300);
        let (one, other) = (broker.health(deadline), queue.health(deadline));
        check!(one.status == Status::Down && !one.details.is_empty(), "the publisher of a server that is away: {one}");
        check!(other.status == Status::Down, "the queue of a server that is away: {other}");
        for answer in broker.publish(&messages("away", 3)) {
            match answer {
                Ok(()) => return Err("the server is away, and it confirmed".to_owned()),
                Err(error) => check!(error.is_retryable(), "a server that is away is {}", failure_text(&error)),
            }
        }
        let _ = queue.receive(1, Duration::from_millis(100));
        check!(queue.backlog().is_err(), "the server is away, and told what it holds");
        check!(asked.elapsed() < SOON, "it took {:?} to tell that the server is away", asked.elapsed());
        begin(own);
        publish_at_last(&*broker, &[message("back")])?;
        drain(&*queue, &[Bytes::from("back")].into())?;
        until("both are up again", || {
            broker.health(patience()).status == Status::Up && queue.health(patience()).status == Status::Up
        })?;
    }
    Ok(())
}
