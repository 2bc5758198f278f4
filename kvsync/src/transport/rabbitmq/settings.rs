//! What both sides are told: where the nodes are, what things are called, how long to wait.

use std::time::Duration;

use lapin::ConnectionProperties;
use lapin::tcp::OwnedTLSConfig;
use lapin::uri::AMQPUri;

/// What a builder has checked. It holds passwords: it is never shown.
pub(super) struct Settings {
    pub(super) servers: Vec<AMQPUri>,
    pub(super) tls: OwnedTLSConfig,
    pub(super) client_name: String,
    /// How long a consumer hears nothing before it begins anew.
    pub(super) quiet: Duration,
    pub(super) names: Names,
    pub(super) check_only: bool,
    pub(super) max_messages: Option<u64>,
    pub(super) max_body: usize,
    pub(super) prefetch: u16,
    pub(super) connect_timeout: Duration,
    pub(super) confirm_timeout: Duration,
    pub(super) retry_for: Duration,
}

/// What things are called on the server.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) exchange: String,
    /// `None` for a publisher that leaves queues to their consumers.
    pub(super) queue: Option<String>,
    /// What the queue wants: patterns of routing keys.
    pub(super) bindings: Vec<String>,
}

impl Names {
    /// The exchange of dead letters.
    pub(super) fn dead_exchange(&self) -> String {
        format!("{}.dead", self.exchange)
    }

    /// The queue that keeps the dead letters of a queue.
    pub(super) fn dead_queue(queue: &str) -> String {
        format!("{queue}.dead")
    }

    /// With what key a dead letter comes back from its exchange to its queue.
    pub(super) fn redrive_key(queue: &str) -> String {
        format!("{queue}.redrive")
    }
}

impl Settings {
    /// Where the nodes are, without users and passwords.
    pub(super) fn place(&self) -> String {
        let place = |uri: &AMQPUri| format!("{}:{}", uri.authority.host, uri.authority.port);
        self.servers.iter().map(place).collect::<Vec<_>>().join(", ")
    }

    /// What the server is told of a connection.
    pub(super) fn properties(&self, role: &str) -> ConnectionProperties {
        ConnectionProperties::default().with_connection_name(format!("{} {role}", self.client_name).into())
    }
}
