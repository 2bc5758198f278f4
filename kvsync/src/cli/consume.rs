//! A consumer as a program.

use std::error::Error as StdError;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser, value_parser};
use serde_json::json;

use super::bar::Bar;
use super::interrupt::Interrupt;
use super::tell::{Told, Voice, may_pass, misunderstood};
use super::{letters, seconds};
use crate::consumer::{Consumer, ConsumerBuilder, ConsumerEnd, ConsumerHealth};
use crate::error::{Error, Result};
use crate::status::Status;
use crate::transport::Subscription;
use crate::worker::Backoff;

/// How soon a signal is seen.
const TURN: Duration = Duration::from_millis(100);
/// How often the terminal is told.
const GLANCE: Duration = Duration::from_secs(1);
/// The pauses between attempts to begin.
const PAUSES: Backoff = Backoff { min: Duration::from_millis(500), max: Duration::from_secs(10) };

/// Runs a consumer until SIGTERM or Ctrl-C, then finishes what it holds and gives back the rest. A second signal,
/// a second later or more, ends the program at once, which loses nothing either.
///
/// ```no_run
/// use std::process::ExitCode;
///
/// use kvsync::Consumer;
/// use kvsync::consumer::ConsumerBuilder;
/// use kvsync::store::MemoryStore;
/// use kvsync::transport::MemoryBroker;
///
/// fn build() -> kvsync::Result<ConsumerBuilder> {
///     // .. the queue and the store of your application, and its hooks
///     Ok(Consumer::builder().subscription(MemoryBroker::new().queue("eu")).store(MemoryStore::new()))
/// }
///
/// fn main() -> ExitCode {
///     kvsync::cli::consume(build)
/// }
/// ```
///
/// ```text
/// consumer [--workers 4] [--batch 256] [--drain] [--every 10] [--deadline 10] [--json]
/// consumer --dead [MOST]              list the dead letters of the queue, which stay there
/// consumer --redrive [MOST] [--drain] have them delivered again, to whoever takes from the queue
/// ```
///
/// Progress is shown on the standard error: on a terminal on one line, elsewhere a line every so often; with `--json`
/// a document a line on the standard output, with the fields of [`ConsumerHealth`], and at the end one with
/// `acknowledged`, `dead`, `held`, `threads`, and `redriven` where that was asked for. Of `--dead` there is one document:
/// `dead_letters`, each with `table`, `primary_key`, `model`, `action`, `version`, `database` and `captured_seconds` (ago)
/// as far as it is a message of kvsync's, and with `id`, `deliveries`, `age_seconds`, `content_type`, `bytes` and `reason`.
///
/// **A store or a broker that is away at the start** is waited for: `build` is called again, with pauses of up to ten
/// seconds, while its error says that a retry helps, and the reason is told as often as progress is. Those that are not
/// there to stay end with code 2 instead: `--dead` and `--redrive` at once, `--drain` when nobody has answered for as long
/// as `--deadline`.
///
/// Exit codes: 0, it ended in good order, which what it gave back is part of; 1, it did, and there were dead letters, or
/// something was still held at the deadline; 2, it could not begin, or empty the queue, or was told to stop before.
pub fn consume<E>(build: impl FnMut() -> Result<ConsumerBuilder, E>) -> ExitCode
where
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    let command = Consume::from_args();
    let _interrupt = Interrupt::listen();
    match command.built(build) {
        Ok(builder) => command.begin(builder),
        Err(error) => command.voice().failed(&*error),
    }
}

/// The command, for programs that have others beside it: flatten it into your own `clap` parser, or begin with
/// [`consume`].
#[derive(Debug, Clone, Parser)]
#[command(about = "Takes committed changes from a queue, and writes them into a store")]
pub struct Consume {
    /// Threads that take from the queue
    #[arg(long, value_name = "THREADS", value_parser = value_parser!(u16).range(1..))]
    workers: Option<u16>,
    /// Messages that each takes at once
    #[arg(long, value_name = "MESSAGES", value_parser = value_parser!(u16).range(1..))]
    batch: Option<u16>,
    /// End when the queue is empty
    #[arg(long)]
    drain: bool,
    /// List the dead letters of the queue, 100 or so many, and end
    #[arg(long, value_name = "MOST", num_args = 0..=1, default_missing_value = "100", conflicts_with_all = ["drain", "redrive"])]
    dead: Option<u32>,
    /// Have the dead letters of the queue delivered again, all or at most so many, and end; with `--drain` take them, too
    #[arg(long, value_name = "MOST", num_args = 0..=1, default_missing_value = "4294967295")]
    redrive: Option<u32>,
    /// How often it is told how the consumer is, where that is not a terminal
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds, allow_negative_numbers = true)]
    every: Duration,
    /// How long what is held may take at the end, and how long `--drain` waits for a store or a broker that is away
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds, allow_negative_numbers = true)]
    deadline: Duration,
    /// Write a JSON document a line
    #[arg(long)]
    json: bool,
}

impl Consume {
    /// The command of the program's arguments. Ends the program for `--help`, and with code 2 for arguments
    /// that it does not understand.
    #[must_use]
    pub fn from_args() -> Self {
        Self::try_parse().unwrap_or_else(|error| {
            if std::env::args_os().any(|argument| argument == "--json") && error.use_stderr() {
                misunderstood(&error);
            }
            error.exit()
        })
    }

    /// Runs the consumer, and returns the exit code. Blocks until a signal comes.
    #[must_use]
    pub fn run(&self, builder: ConsumerBuilder) -> ExitCode {
        let _interrupt = Interrupt::listen();
        self.begin(builder)
    }

    fn begin(&self, mut builder: ConsumerBuilder) -> ExitCode {
        if let Some(told) = builder.queue().and_then(|queue| self.of_letters(&**queue)) {
            return told.map_or_else(|error| self.voice().failed(&error), |told| self.voice().tell(told));
        }
        if let Some(workers) = self.workers {
            builder = builder.workers(workers.into());
        }
        if let Some(batch) = self.batch {
            builder = builder.batch(batch.into());
        }
        let begun = builder.build().and_then(|consumer| {
            let redriven = self.redrive.map(|most| consumer.redrive(whole(most)));
            Ok((consumer, redriven.transpose()?))
        });
        match begun {
            Ok((consumer, redriven)) => self.work(&consumer, redriven),
            Err(error) => self.voice().failed(&error),
        }
    }

    /// What `build` returns, once it does. Who runs until a signal comes waits for a store and a broker that are away.
    fn built<E>(
        &self,
        mut build: impl FnMut() -> Result<ConsumerBuilder, E>,
    ) -> Result<ConsumerBuilder, Box<dyn StdError + Send + Sync>>
    where
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let stays = !self.drain && self.dead.is_none() && self.redrive.is_none();
        let (mut told, mut waits) = (None::<Instant>, PAUSES.waits());
        loop {
            let error = match build() {
                Ok(builder) => return Ok(builder),
                Err(error) => error.into(),
            };
            if !stays || !may_pass(&*error) {
                return Err(error);
            }
            if told.is_none_or(|told| told.elapsed() >= self.every) {
                told = Some(Instant::now());
                self.voice().waits(&*error);
            }
            let until = Instant::now() + waits.next().unwrap_or(PAUSES.max);
            while Instant::now() < until && !Interrupt::came() {
                thread::sleep(TURN);
            }
            if Interrupt::came() {
                return Err(error);
            }
        }
    }

    /// What is asked of dead letters, where nothing is to be consumed.
    fn of_letters(&self, queue: &dyn Subscription) -> Option<Result<Told>> {
        let told = match (self.dead, self.redrive) {
            (Some(most), _) => queue.dead(whole(most)).map(|letters| letters::list(&letters, most)),
            (None, Some(most)) if !self.drain => queue.redrive(whole(most)).map(|count| {
                Told::new(json!({ "redriven": count }), vec![format!("{count} dead letters delivered again")], true)
            }),
            _ => return None,
        };
        if let Err(error) = queue.close() {
            tracing::warn!(queue = queue.name(), %error, "the queue was left without its farewell");
        }
        Some(told)
    }

    fn voice(&self) -> Voice {
        Voice { json: self.json }
    }

    fn work(&self, consumer: &Consumer, redriven: Option<usize>) -> ExitCode {
        let shown = std::io::stderr().is_terminal() && !self.json;
        let mut bar = Bar::new(shown);
        let every = if shown { GLANCE } else { self.every.max(TURN) };
        let mut told = Instant::now();
        let (mut failure, mut fails) = (None, None::<Instant>);
        while !Interrupt::came() && fails.is_none_or(|since| since.elapsed() < self.deadline) {
            if self.drain {
                match consumer.drain(TURN) {
                    Ok(()) => {
                        failure = None;
                        break;
                    }
                    Err(error) => {
                        // A cause is of a store or a broker; without one there is still something in the queue.
                        fails = error.source().and(fails.or_else(|| Some(Instant::now())));
                        failure = Some(error);
                    }
                }
            } else {
                thread::sleep(TURN);
            }
            if told.elapsed() >= every {
                told = Instant::now();
                self.tell(&consumer.health(GLANCE), &mut bar, shown);
            }
        }
        let ended = consumer.shutdown(self.deadline);
        drop(bar);
        self.end(&ended, redriven, failure)
    }

    fn tell(&self, health: &ConsumerHealth, bar: &mut Bar, shown: bool) {
        if self.json {
            // Nobody may be listening any more.
            let _ = writeln!(std::io::stdout(), "{}", json!(health));
        } else if shown {
            let text = health.to_string();
            let (figures, details) = text.split_once('\n').unwrap_or((&text, ""));
            let first = details.lines().next().unwrap_or_default().trim();
            let worst = if health.status == Status::Up { "" } else { first };
            bar.at("consumed", health.written + health.superseded + health.unknown, None, format!("{figures} {worst}"));
        } else {
            let _ = writeln!(std::io::stderr(), "{health}");
        }
    }

    fn end(&self, ended: &ConsumerEnd, redriven: Option<usize>, failure: Option<Error>) -> ExitCode {
        let json = json!({
            "acknowledged": ended.acknowledged,
            "dead": ended.dead,
            "held": ended.held,
            "threads": ended.threads,
            "redriven": redriven,
        });
        let well = ended.is_clean() && ended.dead == 0;
        let mut lines: Vec<String> =
            redriven.iter().map(|count| format!("{count} dead letters delivered again")).collect();
        lines.push(ended.to_string());
        self.voice().tell(Told { failure, ..Told::new(json, lines, well) })
    }
}

fn whole(most: u32) -> usize {
    usize::try_from(most).unwrap_or(usize::MAX)
}
