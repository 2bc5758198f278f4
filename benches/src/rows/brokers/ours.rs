//! The sides of kvsync.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::capture::{Database, SyncConnection};
use kvsync::store::MemoryStore;
use kvsync::transport::{Arrival, Backlog, Broker, DeadMessage, Health, Message, Status, Subscription};
use kvsync::{Consumer, KvSync};

use super::{BATCH, Ends, PUBLISHERS, renumber};
use crate::Result;
use crate::models::{Account, CREATE_SQLITE, users};
use crate::ratio::Side;
use crate::statements::sqlite;
use crate::synced::PATIENCE;

/// How long one question for messages waits.
const WAIT: Duration = Duration::from_millis(100);

/// A database whose changes are published.
pub(super) struct Publisher {
    kv: KvSync,
    conn: SyncConnection<SqliteConnection>,
    rows: i32,
    turn: i32,
}

impl Publisher {
    pub(super) fn start(broker: impl Broker + 'static, rows: u16) -> Result<Self> {
        let mut conn = SqliteConnection::establish(":memory:")?;
        conn.batch_execute(CREATE_SQLITE)?;
        sqlite::fill(&mut conn, rows.into())?;
        let database = Database::<Sqlite>::new("main", || SqliteConnection::establish(":memory:")).model::<Account>();
        let kv = KvSync::builder().broker(broker).database(database).build()?;
        let conn = kv.wrap(conn)?;
        Ok(Self { kv, conn, rows: rows.into(), turn: 0 })
    }

    /// The id of the row that is updated next.
    pub(super) fn next(&self) -> i32 {
        1 + self.turn % self.rows
    }

    /// Updates the next row, and commits that.
    pub(super) fn commit(&mut self) -> Result {
        let id = self.next();
        self.turn += 1;
        let name = format!("user{:05}", self.turn % 100_000);
        diesel::update(users::table.find(id)).set(users::username.eq(name)).execute(&mut self.conn)?;
        Ok(())
    }
}

/// What a publisher sends for as many commits.
pub(super) fn recorded(rows: u16) -> Result<Vec<Message>> {
    let recorder = Recorder::default();
    let heard = Arc::clone(&recorder.0);
    let mut publisher = Publisher::start(recorder, rows)?;
    for _ in 0..rows {
        publisher.commit()?;
    }
    publisher.kv.flush(PATIENCE)?;
    let messages = heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if messages.len() == usize::from(rows) { Ok(messages) } else { Err("not every commit was published".into()) }
}

/// A broker that keeps what it is given.
#[derive(Debug, Default)]
struct Recorder(Arc<Mutex<Vec<Message>>>);

impl Broker for Recorder {
    fn name(&self) -> &'static str {
        "recorder"
    }

    fn max_body(&self) -> usize {
        1 << 20
    }

    fn publish(&self, messages: &[Message]) -> Vec<kvsync::Result<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(messages);
        messages.iter().map(|_| Ok(())).collect()
    }

    fn health(&self, _: Duration) -> Health {
        Health::new(Status::Up, Vec::new())
    }

    fn close(&self) -> kvsync::Result<()> {
        Ok(())
    }
}

/// Commits, published and applied.
pub(super) struct Commits {
    publisher: Publisher,
    consumer: Consumer,
}

impl Commits {
    pub(super) fn start<B: Broker + 'static, S: Subscription + 'static>(ends: Ends<B, S>, rows: u16) -> Result<Self> {
        let consumer = Consumer::builder().subscription(Quiet(ends.subscription)).store(MemoryStore::new()).build()?;
        Ok(Self { publisher: Publisher::start(ends.broker, rows)?, consumer })
    }

    fn applied(&self) -> u64 {
        let health = self.consumer.health(PATIENCE);
        health.written + health.superseded + health.unknown
    }

    /// Shuts both ends down.
    pub(super) fn end(self) {
        drop(self.publisher);
        self.consumer.shutdown(PATIENCE);
    }
}

impl Side for Commits {
    fn run(&mut self, operations: usize) -> Result {
        let wanted = self.applied() + u64::try_from(operations)?;
        for _ in 0..operations {
            self.publisher.commit()?;
        }
        let late = Instant::now() + PATIENCE;
        while self.applied() < wanted {
            if Instant::now() > late {
                return Err("what was committed was not applied".into());
            }
            thread::sleep(Duration::from_micros(500));
        }
        Ok(())
    }

    /// What was applied is about to be acknowledged, and the server may have to forget it.
    fn settle(&mut self) -> Result {
        thread::sleep(Duration::from_millis(1500));
        Ok(())
    }
}

/// A subscription of which it costs nothing to ask how it is, so that the figures of its consumer can be asked often.
pub(super) struct Quiet<S>(pub(super) S);

impl<S: Subscription> Subscription for Quiet<S> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn receive(&self, most: usize, wait: Duration) -> kvsync::Result<Vec<Arrival>> {
        self.0.receive(most, wait)
    }

    fn backlog(&self) -> kvsync::Result<Backlog> {
        Ok(Backlog::default())
    }

    fn dead(&self, most: usize) -> kvsync::Result<Vec<DeadMessage>> {
        self.0.dead(most)
    }

    fn redrive(&self, most: usize) -> kvsync::Result<usize> {
        self.0.redrive(most)
    }

    fn health(&self, _: Duration) -> Health {
        Health::new(Status::Up, Vec::new())
    }

    fn close(&self) -> kvsync::Result<()> {
        self.0.close()
    }
}

impl<S: Subscription> fmt::Debug for Quiet<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The transport without what stands around it: threads that publish, and threads that receive.
pub(super) struct Alone<B, S> {
    ends: Ends<B, S>,
    messages: Vec<Message>,
}

impl<B: Broker, S: Subscription> Alone<B, S> {
    pub(super) fn new(ends: Ends<B, S>, messages: &[Message]) -> Self {
        Self { ends, messages: messages.to_vec() }
    }
}

impl<B: Broker, S: Subscription> Side for Alone<B, S> {
    fn prepare(&mut self, _: usize) -> Result {
        renumber(&mut self.messages);
        Ok(())
    }

    fn run(&mut self, operations: usize) -> Result {
        let messages = self.messages.get(..operations).ok_or("too few messages")?;
        let Ends { broker, subscription } = &self.ends;
        thread::scope(|scope| {
            let part = operations.div_ceil(PUBLISHERS);
            let publishers: Vec<_> = messages
                .chunks(part)
                .map(|part| {
                    scope.spawn(move || {
                        part.chunks(BATCH).flat_map(|batch| broker.publish(batch)).collect::<kvsync::Result<()>>()
                    })
                })
                .collect();
            let late = Instant::now() + PATIENCE;
            let mut left = operations;
            while left > 0 && Instant::now() < late {
                let arrived = subscription.receive(BATCH, WAIT)?;
                left = left.saturating_sub(arrived.len());
                Arrival::ack_all(arrived);
            }
            for publisher in publishers {
                publisher.join().map_err(|_| "a publisher panicked")??;
            }
            if left > 0 { Err("what was published did not arrive".into()) } else { Ok(()) }
        })
    }

    fn settle(&mut self) -> Result {
        thread::sleep(Duration::from_millis(1500));
        Ok(())
    }
}
