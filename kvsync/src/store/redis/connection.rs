//! One connection to one server. After any failure of the network it is dropped, never used again: what
//! arrived late must not be taken for the answer to another question.

use std::time::{Duration, Instant};

use redis::{Cmd, ConnectionAddr, Value, cmd};

use super::error::{Cure, Failure};
use crate::error::ErrorKind;

/// How to introduce oneself to a server.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    pub(super) database: i64,
    pub(super) client_name: String,
    /// Whether a replica is not connected to: where it is named by others, who may not know yet that it is one.
    pub(super) primary_only: bool,
}

/// A connection that is in step: every request that was sent has been answered.
pub(super) struct Connection {
    inner: redis::Connection,
    /// The timeout of the socket, so that setting it costs a system call only where it changes much.
    /// Nothing before it was set: the socket waits for ever.
    timeout: Option<Duration>,
    /// Whether it has served before: a server may have closed it since.
    pub(super) used: bool,
}

impl Connection {
    /// Connects and logs in within this time.
    pub(super) fn open(
        client: &redis::Client,
        address: &str,
        login: &Login,
        within: Duration,
    ) -> Result<Self, Failure> {
        let deadline = Instant::now() + within;
        let inner =
            client.get_connection_with_timeout(within).map_err(|error| Failure::of_network(error, address, false))?;
        let tls = matches!(client.get_connection_info().addr(), ConnectionAddr::TcpTls { .. });
        let mut connection = Self { inner, timeout: None, used: false };
        let mut greeting = Vec::new();
        let mut replies = Vec::new();
        let mut add = |command: &Cmd, reply: Reply| {
            command.write_packed_command(&mut greeting);
            replies.push(reply);
        };
        if let Some(password) = &login.password {
            let mut auth = cmd("AUTH");
            if let Some(username) = &login.username {
                auth.arg(username);
            }
            add(auth.arg(password), Reply::Must);
        }
        if login.database != 0 {
            add(cmd("SELECT").arg(login.database), Reply::Must);
        }
        // Older servers and tight rights refuse these two; they only help whoever watches the server.
        add(cmd("CLIENT").arg("SETINFO").arg("LIB-NAME").arg("kvsync"), Reply::May);
        add(cmd("CLIENT").arg("SETNAME").arg(&login.client_name), Reply::May);
        if login.primary_only {
            // `ROLE` would say it too, but is of a category that is seldom given.
            add(cmd("INFO").arg("replication"), Reply::Role);
        }
        connection.send(&greeting, address, deadline).map_err(|failure| failure.of_greeting(address, tls))?;
        let mut refused = None;
        for awaited in replies {
            let reply = connection.receive(address, deadline).map_err(|failure| failure.of_greeting(address, tls))?;
            if awaited == Reply::Role && is_replica(&reply) {
                refused.get_or_insert_with(|| Failure::of_replica(address));
            }
            if let Value::ServerError(error) = reply {
                let failure = Failure::of_login(&error, address, login.password.as_deref());
                let fatal =
                    awaited == Reply::Must || matches!(error.code(), "NOAUTH" | "DENIED") || failure.cure == Cure::Wait;
                if fatal && refused.is_none() {
                    refused = Some(failure);
                }
            }
        }
        refused.map_or(Ok(connection), Err)
    }

    /// Sends packed commands.
    pub(super) fn send(&mut self, commands: &[u8], address: &str, deadline: Instant) -> Result<(), Failure> {
        self.arm(address, deadline)?;
        self.inner.send_packed_command(commands).map_err(|error| Failure::of_network(error, address, true))
    }

    /// The next reply. An error reply is a value.
    pub(super) fn receive(&mut self, address: &str, deadline: Instant) -> Result<Value, Failure> {
        self.arm(address, deadline)?;
        self.inner.recv_response().map_err(|error| Failure::of_network(error, address, true))
    }

    /// Lets the socket wait until the deadline, and a moment more at most.
    fn arm(&mut self, address: &str, deadline: Instant) -> Result<(), Failure> {
        const MOMENT: Duration = Duration::from_millis(20);
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let message = format!("redis at {address} did not answer in time");
            return Err(Failure::new(ErrorKind::Unavailable, Cure::Wait, message));
        }
        if self.timeout.is_none_or(|timeout| left.abs_diff(timeout) > MOMENT) {
            let set = |error| Failure::of_network(error, address, false);
            self.inner.set_read_timeout(Some(left)).map_err(set)?;
            self.inner.set_write_timeout(Some(left)).map_err(set)?;
            self.timeout = Some(left);
        }
        Ok(())
    }
}

/// What becomes of the greeting when one of its commands is refused or answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reply {
    /// Nothing can be done without it.
    Must,
    /// It may be refused.
    May,
    /// It may be refused, and says whether this is a replica.
    Role,
}

fn is_replica(info: &Value) -> bool {
    let text = match info {
        Value::BulkString(text) => String::from_utf8_lossy(text),
        Value::VerbatimString { text, .. } => text.as_str().into(),
        _ => return false,
    };
    text.lines().any(|line| line.trim_end() == "role:slave")
}
