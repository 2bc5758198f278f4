//! A process that takes what was published and writes it into the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use kvsync::consumer::Consumer;
use kvsync::report::Outcome as Fate;
use kvsync::worker::Backoff;
use kvsync::{KvSync, Report};

use crate::Outcome;
use crate::job::Job;
use crate::open::{beside, patiently};
use crate::repair::perform;
use crate::serve::serve;
use crate::writer::{QUIET, commands, say};

/// As long as most faults: what cannot be written until then is given back.
const FAREWELL: Duration = Duration::from_secs(1);
const GLANCE: Duration = Duration::from_millis(500);
const BACKOFF: Backoff = Backoff { min: Duration::from_millis(20), max: Duration::from_secs(1) };

/// Applies what arrives until it is told to stop.
pub(crate) fn run(job: &Job) -> Outcome {
    let transport = job.consumes().ok_or("a consumer needs a broker")?;
    let store = patiently(|| job.store.open())?;
    if let Some(socket) = &job.socket {
        serve(Arc::clone(&store), socket)?;
    }
    let consumer = patiently(|| {
        let builder = transport.receiving(Consumer::builder())?.store(Arc::clone(&store)).workers(2).backoff(BACKOFF);
        Ok(Arc::new(builder.on_report(tell).build()?))
    })?;
    let quiet = Arc::<AtomicBool>::default();
    {
        let (consumer, quiet) = (Arc::clone(&consumer), Arc::clone(&quiet));
        thread::Builder::new().name("torture-tally".into()).spawn(move || report(&consumer, &quiet))?;
    }
    let commands = commands()?;
    // What is asked for at the end only; the database is not opened before.
    let mut keeper: Option<KvSync> = None;
    while let Ok(command) = commands.recv() {
        match command.as_str() {
            "leave" => match consumer.shutdown(FAREWELL) {
                ended if ended.is_clean() => println!("flushed"),
                ended => println!("unflushed {ended}"),
            },
            "stop" => match consumer.drain(QUIET) {
                Ok(()) => {
                    quiet.store(true, Ordering::Relaxed);
                    println!("flushed");
                }
                Err(error) => println!("unflushed {error}: {}", consumer.health(Duration::from_secs(1))),
            },
            "drain" => {
                consumer.drain(QUIET)?;
                say("done", "it is empty");
            }
            other => {
                let kv = match keeper.take() {
                    Some(kv) => kv,
                    None => beside(job, KvSync::builder().store(Arc::clone(&store))).build()?,
                };
                say("done", &perform(keeper.insert(kv), other)?);
            }
        }
    }
    Ok(())
}

/// Says every so often how far it is, until it is quiet.
fn report(consumer: &Consumer, quiet: &AtomicBool) {
    while !quiet.load(Ordering::Relaxed) {
        let health = consumer.health(GLANCE);
        println!("tally 0 0 {} {} {} {}", health.again, health.held, health.received, health.redelivered);
        thread::sleep(GLANCE);
    }
}

/// A dead letter is a change that is lost.
fn tell(report: &Report) {
    match report {
        Report::Message(message) if !matches!(message.outcome, Fate::Failed) => {}
        Report::Forgot { .. } => {}
        other => say("complaint", &other.to_string()),
    }
}
