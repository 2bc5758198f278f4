//! Every broker with kvsync, against the client library under it used without kvsync.
//!
//! With kvsync, rows of an `SQLite` database in memory are updated, a commit each; four workers publish, up to 256 messages
//! at a time with a confirm each; the four workers of a consumer write them into a store in memory and acknowledge them.
//! The bare client publishes as many bytes with the same headers, in four tasks, 256 at a time with a confirm each, and
//! has one consumer with the same prefetch. Each side is one process, and drives its client by one thread.

mod lag;
mod nats;
mod ours;
mod rabbitmq;

use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::future::try_join;
use kvsync::transport::{Broker, Message, Subscription};

pub(super) use self::nats::run as nats;
pub(super) use self::rabbitmq::run as rabbitmq;

use self::ours::{Alone, Commits, recorded};
use crate::Result;
use crate::clock::Clock;
use crate::options::Options;
use crate::ratio::{Side, Turns};
use crate::synced::PATIENCE;
use crate::table::{Figure, Goal};

/// Messages of a turn.
const MESSAGES: u16 = 2_000;
/// Messages of a turn in which each has a connection.
const CONNECTIONS: usize = 100;
/// How many publish at a time, and how many messages each has on its way.
const PUBLISHERS: usize = 4;
const BATCH: usize = 256;

/// The client library of a broker, used as a program without kvsync would.
trait Bare {
    /// Publishes these with confirms, and receives and acknowledges as many.
    fn pass(&mut self, messages: &[Message]) -> Result;

    /// The ancestor's way: makes a connection for each message, sends it, and waits for no confirm. Nobody receives them.
    fn throw(&mut self, messages: &[Message]) -> Result;

    /// Waits until neither side has anything left to do.
    fn rest(&mut self) -> Result;
}

/// What a transport publishes to and receives from.
struct Ends<B, S> {
    broker: B,
    subscription: S,
}

/// Measures one broker; `open` makes one more of both ends of one queue.
fn compare<B: Broker + 'static, S: Subscription + 'static>(
    options: &Options,
    name: &str,
    open: impl Fn() -> Result<Ends<B, S>>,
    bare: &mut dyn Bare,
) -> Result<Vec<Figure>> {
    let messages = recorded(MESSAGES)?;
    let turns = Turns { clock: Clock::Wall, rounds: options.rounds(15), each: 2, operations: MESSAGES.into() };

    let alone = turns.measure(&mut Alone::new(open()?, &messages), &mut Passes::new(bare, &messages))?;
    let mut ours = Commits::start(open()?, MESSAGES)?;
    let whole = turns.measure(&mut ours, &mut Passes::new(bare, &messages))?;
    let few = Turns { operations: CONNECTIONS, ..turns };
    let old = few.measure(&mut ours, &mut Throws(Passes::new(bare, &messages)))?;
    ours.end();
    let mut figures = vec![
        alone.speeds(format!("messages/s through {name}, the transport alone ÷ bare client"), Goal::AtLeast(0.8)),
        whole.speeds(format!("commits/s through {name}, commit to applied ÷ bare client"), Goal::AtLeast(0.8)),
        old.speeds(
            format!("{CONNECTIONS} commits through {name} ÷ a connection for each message, no confirms"),
            Goal::Reported,
        ),
    ];
    figures.extend(lag::run(options, name, open()?, &whole.ours)?);
    Ok(figures)
}

/// The side of the bare client.
struct Passes<'a> {
    bare: &'a mut dyn Bare,
    messages: Vec<Message>,
}

impl<'a> Passes<'a> {
    fn new(bare: &'a mut dyn Bare, messages: &[Message]) -> Self {
        Self { bare, messages: messages.to_vec() }
    }
}

impl Side for Passes<'_> {
    fn prepare(&mut self, _: usize) -> Result {
        renumber(&mut self.messages);
        Ok(())
    }

    fn run(&mut self, operations: usize) -> Result {
        self.bare.pass(self.messages.get(..operations).ok_or("too few messages")?)
    }

    fn settle(&mut self) -> Result {
        self.bare.rest()
    }
}

/// The side of the ancestor.
struct Throws<'a>(Passes<'a>);

impl Side for Throws<'_> {
    fn prepare(&mut self, operations: usize) -> Result {
        self.0.prepare(operations)
    }

    fn run(&mut self, operations: usize) -> Result {
        self.0.bare.throw(self.0.messages.get(..operations).ok_or("too few messages")?)
    }

    fn settle(&mut self) -> Result {
        self.0.settle()
    }
}

/// Publishes and receives side by side; fails when that takes longer than anything here should.
async fn both(publish: impl Future<Output = Result>, receive: impl Future<Output = Result>) -> Result {
    let late = |_| "what the bare client published did not arrive";
    tokio::time::timeout(PATIENCE, try_join(publish, receive)).await.map_err(late)?.map(drop)
}

/// Gives each message an id that none had before, as long as the recorded one. `JetStream` confirms a message whose id it
/// knows and delivers it to nobody, so no two measurements may begin to count at the same number.
fn renumber(messages: &mut [Message]) {
    static LAST: AtomicU32 = AtomicU32::new(0);
    for message in messages {
        let (process, number) = (std::process::id(), LAST.fetch_add(1, Ordering::Relaxed));
        message.id.truncate(message.id.len().saturating_sub(16));
        message.id = format!("{}{process:08x}{number:08x}", message.id);
    }
}
