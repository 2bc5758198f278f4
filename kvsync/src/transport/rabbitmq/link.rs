//! One connection that comes back: made when it is first needed, and again when it was lost, with pauses that grow.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lapin::{Connect as _, Connection};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout};

use super::error::failed;
use super::settings::Settings;
use super::topology;
use crate::error::{Error, ErrorKind, Result};

/// The first pause after a failure; each is twice the one before.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(5);

/// A connection to one of the nodes, on which the topology stands.
pub(super) struct Link {
    pub(super) settings: Arc<Settings>,
    pub(super) place: String,
    role: &'static str,
    state: Mutex<State>,
    /// Whether the queue was ever there.
    seen: AtomicBool,
}

#[derive(Default)]
struct State {
    connection: Option<Arc<Connection>>,
    /// Whether the topology was seen to stand, since this connection was made.
    ready: bool,
    /// Failures in a row, when the next attempt may be made, and why the last one failed.
    failures: u32,
    next: Option<Instant>,
    why: Option<Error>,
    closed: bool,
}

impl Link {
    pub(super) fn new(settings: Arc<Settings>, role: &'static str) -> Self {
        let place = settings.place();
        Self { settings, place, role, state: Mutex::new(State::default()), seen: AtomicBool::new(false) }
    }

    /// The connection. Within a pause after a failure it is the failure, at once; so is one that the server has blocked: the
    /// client keeps in memory whatever it is given meanwhile.
    pub(super) async fn connection(&self) -> Result<Arc<Connection>> {
        let mut state = self.state.lock().await;
        if state.closed {
            return Err(self.closed());
        }
        let alive = state.connection.clone().filter(|connection| connection.status().connected());
        if alive.as_ref().is_some_and(|connection| connection.status().blocked()) {
            return Err(self.alarm());
        }
        if let (Some(connection), true) = (&alive, state.ready) {
            return Ok(Arc::clone(connection));
        }
        if let (Some(why), Some(next)) = (&state.why, state.next)
            && Instant::now() < next
        {
            return Err(why.clone());
        }
        state.connection = None;
        match self.connect(alive).await {
            Ok(connection) => {
                let fresh = State { connection: Some(Arc::clone(&connection)), ready: true, ..State::default() };
                *state = fresh;
                Ok(connection)
            }
            Err(why) => {
                let pause = PAUSE.saturating_mul(1 << state.failures.min(10)).min(LONGEST);
                state.failures = state.failures.saturating_add(1);
                state.next = Some(Instant::now() + pause);
                state.why = Some(why.clone());
                Err(why)
            }
        }
    }

    /// The connection, tried for until then, while a retry can help.
    pub(super) async fn connection_until(&self, until: Instant) -> Result<Arc<Connection>> {
        loop {
            match self.connection().await {
                Err(error) if error.is_retryable() && Instant::now() < until => {
                    let next = self.state.lock().await.next.unwrap_or_else(Instant::now);
                    sleep_until(next.min(until).max(Instant::now() + PAUSE)).await;
                }
                answer => return answer,
            }
        }
    }

    /// When the next attempt may be made.
    pub(super) async fn next(&self) -> Instant {
        self.state.lock().await.next.unwrap_or_else(|| Instant::now() + PAUSE)
    }

    /// Looks at the topology again before this connection is used again.
    pub(super) async fn look_again(&self) {
        self.state.lock().await.ready = false;
    }

    /// Gives this connection up: it did not answer. One that is blocked has said why; it goes on when the alarm is over.
    pub(super) async fn suspect(&self, connection: &Arc<Connection>) {
        let mut state = self.state.lock().await;
        let current = state.connection.as_ref().is_some_and(|current| Arc::ptr_eq(current, connection));
        if current && !connection.status().blocked() {
            state.connection = None;
        }
    }

    /// Gives this connection up with all of its channels, so that the server gives back what was taken on them.
    pub(super) async fn renew(&self, connection: &Arc<Connection>) {
        self.suspect(connection).await;
        if connection.status().connected() {
            // One that does not answer is closed by the server, which misses its heartbeats.
            let _ = timeout(PAUSE, connection.close(200, "begins anew".into())).await;
        }
    }

    /// Says farewell, for as long as an answer may take.
    pub(super) async fn close(&self) -> Result<()> {
        let connection = {
            let mut state = self.state.lock().await;
            state.closed = true;
            state.connection.take()
        };
        let Some(connection) = connection.filter(|connection| connection.status().connected()) else { return Ok(()) };
        self.within("closing a connection", async {
            let closed = connection.close(200, "done".into()).await;
            closed.map_err(|error| failed("closing a connection", &self.place, error))
        })
        .await
    }

    /// A question, given up when the answer takes too long.
    pub(super) async fn within<T>(&self, what: &str, question: impl Future<Output = Result<T>>) -> Result<T> {
        timeout(self.settings.connect_timeout, question).await.unwrap_or_else(|_| Err(self.late(what)))
    }

    pub(super) fn closed(&self) -> Error {
        Error::new(ErrorKind::Closed, format!("the {} of rabbitmq at {} was closed", self.role, self.place))
    }

    fn alarm(&self) -> Error {
        let message = format!(
            "rabbitmq at {} has an alarm and takes no messages; give it memory or disk, or let consumers catch up",
            self.place
        );
        Error::new(ErrorKind::Unavailable, message)
    }

    fn late(&self, what: &str) -> Error {
        let message = format!("{what} took rabbitmq at {} longer than the deadline; does it hang?", self.place);
        Error::new(ErrorKind::Unavailable, message)
    }

    /// Uses the connection that is alive, or makes one to the first node that answers.
    async fn connect(&self, alive: Option<Arc<Connection>>) -> Result<Arc<Connection>> {
        if let Some(connection) = alive {
            self.within("looking at the topology", self.ensure(&connection)).await?;
            return Ok(connection);
        }
        let mut last = None;
        for server in &self.settings.servers {
            let runtime =
                lapin::runtime::default_runtime().map_err(|error| failed("connecting", &self.place, error))?;
            let (properties, tls) = (self.settings.properties(self.role), self.settings.tls.clone());
            let connecting = server.clone().connect_with_config(properties, tls, runtime);
            let attempt = self.within("connecting", async {
                let connection = connecting.await.map_err(|error| failed("connecting", &self.place, error))?;
                self.ensure(&connection).await?;
                Ok(Arc::new(connection))
            });
            match attempt.await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| self.late("connecting")))
    }

    /// Sees to it that the topology stands, and says so when a queue was deleted since.
    async fn ensure(&self, connection: &Connection) -> Result<()> {
        let queue = self.settings.names.queue.as_deref().filter(|_| !self.settings.check_only);
        let deleted = match queue.filter(|_| self.seen.load(Ordering::Acquire)) {
            Some(queue) => topology::lacks(connection, queue, &self.place).await?,
            None => false,
        };
        topology::ensure(connection, &self.settings, &self.place).await?;
        self.seen.store(true, Ordering::Release);
        if deleted {
            tracing::warn!(
                "the queue {} was deleted and is declared anew at rabbitmq at {}: the messages that it held are lost; fill its \
                 store in (backfill), and repair it for rows that were deleted meanwhile",
                queue.unwrap_or_default(),
                self.place
            );
        }
        Ok(())
    }
}
