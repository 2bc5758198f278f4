//! One server and the connections to it that wait to be used.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::{Cmd, Value};

use super::connection::{Connection, Login};
use super::error::{Cure, Failure};

/// What all connections of a store have in common.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) login: Login,
    pub(super) connect_timeout: Duration,
    pub(super) command_timeout: Duration,
    pub(super) retry_for: Duration,
    pub(super) connections: usize,
}

/// A server.
pub(super) struct Node {
    /// What people call it, and what a cluster calls it: host and port, or the path of a socket.
    pub(super) address: String,
    client: redis::Client,
    settings: Arc<Settings>,
    idle: Mutex<Vec<Connection>>,
    /// The run that was last asked, and how many keys it had evicted.
    evicted: Mutex<Option<(String, u64)>>,
}

impl Node {
    pub(super) fn new(client: redis::Client, settings: Arc<Settings>) -> Self {
        let address = client.get_connection_info().addr().to_string();
        Self { address, client, settings, idle: Mutex::default(), evicted: Mutex::default() }
    }

    /// The host, where it has one: a cluster leaves it out of addresses that are on the same one.
    pub(super) fn host(&self) -> &str {
        self.address.rsplit_once(':').map_or(self.address.as_str(), |(host, _)| host)
    }

    /// A connection that waits to be used.
    pub(super) fn idle(&self) -> Option<Connection> {
        self.idle.lock().pop()
    }

    /// A new connection.
    pub(super) fn open(&self, deadline: Instant) -> Result<Connection, Failure> {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        Connection::open(&self.client, &self.address, &self.settings.login, left.min(self.settings.connect_timeout))
    }

    /// Takes back a connection that is in step.
    pub(super) fn keep(&self, mut connection: Connection) {
        connection.used = true;
        let mut idle = self.idle.lock();
        if idle.len() < self.settings.connections {
            idle.push(connection);
        }
    }

    /// Asks some questions that change nothing. An error reply is a value.
    pub(super) fn ask(&self, questions: &[Cmd], deadline: Instant) -> Result<Vec<Value>, Failure> {
        let mut commands = Vec::new();
        for question in questions {
            question.write_packed_command(&mut commands);
        }
        let ask = |mut connection: Connection| {
            connection.send(&commands, &self.address, deadline)?;
            let answers = questions.iter().map(|_| connection.receive(&self.address, deadline));
            let answers = answers.collect::<Result<Vec<_>, Failure>>()?;
            self.keep(connection);
            Ok::<_, Failure>(answers)
        };
        if let Some(connection) = self.idle() {
            match ask(connection) {
                // The server closed it while it waited.
                Err(failure) if failure.cure == Cure::Reconnect => self.forget(),
                answers => return answers,
            }
        }
        self.open(deadline).and_then(ask)
    }

    /// How many keys the server has evicted since this was last asked, now that it says `count` in all.
    pub(super) fn newly_evicted(&self, run: Option<&str>, count: u64) -> u64 {
        let run = run.unwrap_or_default();
        let before = self.evicted.lock().replace((run.to_owned(), count));
        before.filter(|(of, _)| of == run).map_or(0, |(_, before)| count.saturating_sub(before))
    }

    /// Closes the connections that wait: where one is broken, the others are likely to be.
    pub(super) fn forget(&self) {
        self.idle.lock().clear();
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}
