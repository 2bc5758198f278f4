//! A connection that is made when it is first needed, and the streams and queues that it finds or makes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, Config as Queue, Info as QueueInfo};
use async_nats::jetstream::stream::{Config, Info};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, OnceCell};
use tokio::time::{Instant, sleep, timeout_at};

use super::of_all;
use super::subject::{Subjects, Wants};
use super::topology::Topology;
use crate::error::{Error, ErrorKind, Result};
use crate::nats::{Cut, Link, Servers, is_missing};

/// How long a server may need to remove a stream.
const REMOVED: Duration = Duration::from_secs(1);
/// How long to wait for an answer that tells nothing: what comes instead is a refusal.
const ANSWERED: Duration = Duration::from_secs(1);
/// For how long it is believed what the queues want.
const FRESH: Duration = Duration::from_secs(1);

pub(super) struct Session {
    servers: Servers,
    pub(super) topology: Topology,
    pub(super) subjects: Subjects,
    /// How long one question may take.
    timeout: Duration,
    link: OnceCell<Link>,
    /// Whether the stream was found as it should be.
    found: AtomicBool,
    /// Whether the stream was ever there.
    seen: AtomicBool,
    /// The queues that were ever there.
    seen_queues: Mutex<BTreeSet<String>>,
    /// What the queues want, and when that was asked.
    wants: Mutex<Option<(Instant, Arc<Wants>)>>,
}

/// A question without anything to say.
#[derive(Serialize)]
struct Nothing {}

#[derive(Serialize)]
struct Page {
    offset: usize,
}

#[derive(Deserialize)]
struct Names {
    total: usize,
    #[serde(default)]
    consumers: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Listed {
    total: usize,
    #[serde(default)]
    consumers: Option<Vec<QueueInfo>>,
}

#[derive(Serialize)]
struct Create<'a> {
    stream_name: &'a str,
    config: &'a Queue,
}

impl Session {
    pub(super) fn new(servers: Servers, topology: Topology, timeout: Duration) -> Self {
        let (subjects, link) = (topology.subjects(), OnceCell::new());
        Self {
            servers,
            topology,
            subjects,
            timeout,
            link,
            found: AtomicBool::new(false),
            seen: AtomicBool::new(false),
            seen_queues: Mutex::default(),
            wants: Mutex::new(None),
        }
    }

    /// The servers, as they were configured.
    pub(super) fn at(&self) -> &str {
        &self.servers.at
    }

    /// How long the first call may take at most beside its own time.
    pub(super) fn connect_timeout(&self) -> Duration {
        self.servers.timeout
    }

    /// The connection, which stands. Whoever comes first makes it; later it is made again by itself.
    pub(super) async fn link(&self, until: Instant) -> Result<&Link> {
        let soon = until.min(Instant::now() + self.servers.timeout);
        let made = self.link.get_or_try_init(|| Link::connect(self.servers.clone(), self.topology.place(), soon));
        let late = |_| Error::new(ErrorKind::Unavailable, format!("nats at {} did not answer in time", self.at()));
        let link = timeout_at(until, made).await.map_err(late)?.map_err(of_all)?;
        link.connected(until).await?;
        Ok(link)
    }

    /// The connection, if there ever was one.
    pub(super) fn known(&self) -> Option<&Link> {
        self.link.get()
    }

    /// Asks the API of JetStream.
    pub(super) async fn api<A: DeserializeOwned>(
        &self,
        call: &str,
        question: &(impl Serialize + Sync),
        until: Instant,
    ) -> Result<A> {
        let link = self.link(until).await?;
        link.api(call, question, until.min(Instant::now() + self.timeout)).await.map_err(of_all)
    }

    /// Sees to it that the stream, its dead letters and a queue are there. Returns the connection, and after how long
    /// the server delivers again.
    pub(super) async fn open(&self, queue: &str, until: Instant) -> Result<(&Link, Duration)> {
        self.stream(until).await?;
        self.dead(until).await?;
        let info = self.queue(queue, until).await?;
        self.may_end(queue, until).await?;
        Ok((self.link(until).await?, info.config.ack_wait))
    }

    /// Fails for who may not tell how messages ended: the server drops that without a word to whom it came from. Asks for
    /// more time for a message that there will never be, which changes nothing.
    async fn may_end(&self, queue: &str, until: Instant) -> Result<()> {
        let link = self.link(until).await?;
        let subject = format!("{}1.{}.1.0.0", self.topology.ends(queue), i64::MAX);
        let told = link.nats.request(subject.clone(), "+WPI".into());
        match link.ask(&subject, until.min(Instant::now() + ANSWERED), told).await {
            Err(cut @ (Cut::Forbidden(_) | Cut::Deaf(_))) => Err(of_all(link.unanswered(cut))),
            // Whoever answers or does not, it was allowed.
            Ok(_) | Err(Cut::Late | Cut::Ended) => Ok(()),
        }
    }

    /// Sees to it that the stream is there, and the queues that who publishes names, unless they were before and nobody
    /// doubted it since.
    pub(super) async fn ready(&self, until: Instant) -> Result<&Link> {
        if !self.found.load(Ordering::Acquire) {
            self.stream(until).await?;
            for queue in &self.topology.queues {
                self.queue(queue, until).await?;
            }
            self.found.store(true, Ordering::Release);
        }
        self.link(until).await
    }

    /// The stream or a queue may be gone: they are looked for again.
    pub(super) fn doubt(&self) {
        self.found.store(false, Ordering::Release);
    }

    /// The state of the stream, which is made where it is missing and may be made.
    pub(super) async fn stream(&self, until: Instant) -> Result<Info> {
        let config = self.topology.config();
        // Read before it is asked: another thread may make it for the first time meanwhile.
        let seen = self.seen.load(Ordering::Acquire);
        let info = match self.info(&config.name, until).await {
            // A server that removes it just now would remove parts of the new one with it.
            Err(missing) if is_missing(&missing) && seen => {
                sleep(REMOVED).await;
                let info = self.find_or_make(&config, until).await?;
                removed(&format!("the stream {}", config.name));
                info
            }
            Ok(info) => info,
            Err(_) => self.find_or_make(&config, until).await?,
        };
        self.topology.check(&info.config)?;
        let (version, _) = self.link(until).await?.server();
        if info.config.max_bytes > 0 && is_older(&version) {
            let message = format!(
                "nats-server {version} forgets the oldest message of a stream that is nearly full, and the stream {} has \
                 `max_bytes`; bound it by `max_messages`, or run nats-server 2.10",
                config.name
            );
            return Err(Error::new(ErrorKind::Config, message));
        }
        self.seen.store(true, Ordering::Release);
        Ok(info)
    }

    /// The state of the stream of dead letters, likewise.
    pub(super) async fn dead(&self, until: Instant) -> Result<Info> {
        let info = self.find_or_make(&self.topology.dead_config(), until).await?;
        self.topology.check_dead(&info.config)?;
        Ok(info)
    }

    /// The state of a queue, likewise.
    pub(super) async fn queue(&self, name: &str, until: Instant) -> Result<QueueInfo> {
        let seen = self.seen_queues.lock().await.contains(name);
        let info = match self.queue_info(name, until).await {
            Err(missing) if is_missing(&missing) => {
                let made = self.make_queue(name, missing, until).await;
                if made.is_ok() && seen {
                    removed(&format!("the queue {name} of the stream {}", self.topology.stream));
                }
                made
            }
            answer => answer,
        };
        let info = info?;
        self.topology.check_queue(name, &info.config)?;
        self.seen_queues.lock().await.insert(name.to_owned());
        Ok(info)
    }

    /// The state of a queue that is there.
    pub(super) async fn queue_info(&self, name: &str, until: Instant) -> Result<QueueInfo> {
        self.api(&format!("CONSUMER.INFO.{}.{name}", self.topology.stream), &Nothing {}, until).await
    }

    /// The names of all queues, as those know who decide about it: a list of their states may lack some.
    pub(super) async fn queues(&self, until: Instant) -> Result<Vec<String>> {
        let call = format!("CONSUMER.NAMES.{}", self.topology.stream);
        let mut all = Vec::new();
        loop {
            let page: Names = self.api(&call, &Page { offset: all.len() }, until).await?;
            let names = page.consumers.unwrap_or_default();
            let ended = names.is_empty();
            all.extend(names);
            if ended || all.len() >= page.total {
                return Ok(all);
            }
        }
    }

    /// What the queues want, as far as it was asked in the last moments, or now if `afresh`.
    pub(super) async fn wants(&self, afresh: bool, until: Instant) -> Result<Arc<Wants>> {
        let mut known = self.wants.lock().await;
        if let Some((_, wants)) = known.as_ref().filter(|(asked, _)| !afresh && asked.elapsed() < FRESH) {
            return Ok(Arc::clone(wants));
        }
        let (call, asked) = (format!("CONSUMER.LIST.{}", self.topology.stream), Instant::now());
        let (mut seen, mut wants) = (0, Wants::default());
        loop {
            let page: Listed = self.api(&call, &Page { offset: seen }, until).await?;
            let queues = page.consumers.unwrap_or_default();
            seen += queues.len();
            let ended = queues.is_empty() || seen >= page.total;
            // Only who acknowledges has received.
            for queue in queues.into_iter().filter(|queue| queue.config.ack_policy == AckPolicy::Explicit) {
                wants.add(queue.config.filter_subject, queue.config.filter_subjects);
            }
            if ended {
                break;
            }
        }
        let wants = Arc::new(wants);
        *known = Some((asked, Arc::clone(&wants)));
        Ok(wants)
    }

    /// The state of a stream that is there.
    pub(super) async fn info(&self, stream: &str, until: Instant) -> Result<Info> {
        self.api(&format!("STREAM.INFO.{stream}"), &Nothing {}, until).await
    }

    async fn find_or_make(&self, config: &Config, until: Instant) -> Result<Info> {
        match self.info(&config.name, until).await {
            Err(missing) if is_missing(&missing) && self.topology.check_only => {
                Err(not_made(&format!("the stream {}", config.name), missing))
            }
            Err(missing) if is_missing(&missing) => {
                let made = self.api::<Info>(&format!("STREAM.CREATE.{}", config.name), config, until).await;
                match made {
                    // Somebody else may have made it just now, in another way.
                    Err(failed) => self.info(&config.name, until).await.map_err(|_| failed),
                    made => made,
                }
            }
            answer => answer,
        }
    }

    async fn make_queue(&self, name: &str, missing: Error, until: Instant) -> Result<QueueInfo> {
        if self.topology.check_only {
            return Err(not_made(&format!("the queue {name} of the stream {}", self.topology.stream), missing));
        }
        let config = self.topology.queue(name);
        let (version, _) = self.link(until).await?.server();
        if !config.filter_subjects.is_empty() && is_older(&version) {
            let message = format!("a queue of several tables needs nats-server 2.10, and this one is {version}");
            return Err(Error::new(ErrorKind::Config, message));
        }
        let stream = &self.topology.stream;
        let filter =
            if config.filter_subject.is_empty() { String::new() } else { format!(".{}", config.filter_subject) };
        let call = format!("CONSUMER.CREATE.{stream}.{name}{filter}");
        self.api(&call, &Create { stream_name: stream, config: &config }, until).await
    }
}

fn removed(what: &str) {
    tracing::warn!(
        "{what} was removed and is made anew: messages that it held may be lost; fill its store in (backfill), and repair it \
         for rows that were deleted meanwhile"
    );
}

fn not_made(what: &str, missing: Error) -> Error {
    let message = format!("{what} is not there, and is not made (`check_only`); make it, or allow it to be made");
    Error::new(ErrorKind::Config, message).with_source(missing)
}

/// Whether a version is below 2.10.
pub(super) fn is_older(version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(u32::MAX));
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default()) < (2, 10)
}

#[cfg(test)]
mod tests {
    use super::is_older;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(is_older("2.9.10") && is_older("1.99.0"));
        assert!(!is_older("2.10.0") && !is_older("2.12.0-beta.1") && !is_older("3.0.0"));
    }
}
