//! A master with a replica, and three sentinels that watch over them.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::certificate::Certificate;
use super::redis::{Listen, Redis, RedisOptions};
use crate::error::Context;
use crate::{Error, Result};

const READY_DEADLINE: Duration = Duration::from_mins(5);
const SENTINELS: usize = 3;

/// How the servers are set up.
#[derive(Clone, Debug)]
pub struct SentinelOptions {
    /// The password of the master and its replica; letters and digits.
    pub password: Option<String>,
    /// The password of the sentinels; letters and digits.
    pub sentinel_password: Option<String>,
    /// For how long a master has to be silent before it is taken for dead. A test in which nobody dies wants it
    /// long, so that a busy machine is not taken for a dead one.
    pub down_after: Duration,
    /// Where TLS is spoken.
    pub tls: SentinelTls,
}

/// Who speaks TLS, with one certificate for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SentinelTls {
    /// Nobody.
    #[default]
    Nowhere,
    /// Master, replica and sentinels among each other; clients reach the sentinels without.
    Servers,
    /// Everybody.
    Everywhere,
}

impl Default for SentinelOptions {
    /// No passwords, and nobody is taken for dead.
    fn default() -> Self {
        Self { password: None, sentinel_password: None, down_after: Duration::from_hours(1), tls: SentinelTls::Nowhere }
    }
}

/// A running master with a replica, and three sentinels that call it `mymaster` and of which two have to agree; all
/// stopped when dropped.
pub struct RedisSentinel {
    servers: [Redis; 2],
    sentinels: Vec<Redis>,
    certificate: Option<Certificate>,
    /// The folder of the certificate.
    _folder: TempDir,
}

impl RedisSentinel {
    /// Starts the servers and the sentinels. These know the master at once, the replica and each other later:
    /// [`wait_until_ready`](Self::wait_until_ready).
    ///
    /// # Errors
    /// When `redis-server` is missing or one does not start; the message quotes its log.
    pub fn start(options: &SentinelOptions) -> Result<Self> {
        let mut settings = vec![("repl-diskless-sync-delay".to_owned(), "0".to_owned())];
        settings.extend(options.password.iter().map(|password| ("masterauth".to_owned(), password.clone())));
        let folder = TempDir::with_prefix("kvsync-redis-ca-").context(|| "cannot make a folder".to_owned())?;
        let (listen, certificate) = match options.tls {
            SentinelTls::Nowhere => (Listen::Tcp, None),
            SentinelTls::Servers | SentinelTls::Everywhere => {
                settings.push(("tls-replication".to_owned(), "yes".to_owned()));
                (Listen::Tls, Some(Certificate::create(folder.path())?))
            }
        };
        let server = RedisOptions { listen, password: options.password.clone(), settings, ..RedisOptions::default() };
        let start = || Redis::start_with(server.clone(), certificate.clone(), None);
        let servers = [start()?, start()?];
        let [master, replica] = &servers;
        let port = master.port().unwrap_or_default().to_string();
        replica.cli(&["REPLICAOF", "127.0.0.1", &port])?;
        let mut lines = vec![
            format!("sentinel monitor {} 127.0.0.1 {port} 2", Self::NAME),
            format!("sentinel down-after-milliseconds {} {}", Self::NAME, options.down_after.as_millis()),
            format!("sentinel failover-timeout {} 5000", Self::NAME),
        ];
        lines.extend(options.password.iter().map(|password| format!("sentinel auth-pass {} {password}", Self::NAME)));
        if let Some(password) = &options.sentinel_password {
            lines.extend([format!("requirepass {password}"), format!("sentinel sentinel-pass {password}")]);
        }
        let listen = if options.tls == SentinelTls::Everywhere { Listen::Tls } else { Listen::Tcp };
        let password = options.sentinel_password.clone();
        let sentinel = RedisOptions { listen, password, ..RedisOptions::default() };
        let start = |_| Redis::start_with(sentinel.clone(), certificate.clone(), Some(&lines.join("\n")));
        let sentinels = (0..SENTINELS).map(start).collect::<Result<_>>()?;
        Ok(Self { servers, sentinels, certificate, _folder: folder })
    }

    /// What the sentinels call the master.
    pub const NAME: &str = "mymaster";

    /// The URL of each sentinel, with its password if it has one.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.sentinels.iter().map(Redis::url).collect()
    }

    /// The certificate of the authority, in PEM, where TLS is spoken.
    #[must_use]
    pub fn ca(&self) -> Option<&Path> {
        self.certificate.as_ref().map(|certificate| certificate.authority.as_path())
    }

    /// The two servers: who is the master is the sentinels' to say.
    #[must_use]
    pub fn servers(&self) -> &[Redis; 2] {
        &self.servers
    }

    /// The sentinels.
    #[must_use]
    pub fn sentinels(&self) -> &[Redis] {
        &self.sentinels
    }

    /// The server that all running sentinels name, if they agree.
    #[must_use]
    pub fn master(&self) -> Option<&Redis> {
        let mut named: Vec<String> =
            self.sentinels.iter().filter(|sentinel| sentinel.pid().is_some()).map(named_by).collect();
        named.dedup();
        let [named] = named.as_slice() else { return None };
        self.servers.iter().find(|server| server.port().is_some_and(|port| port.to_string() == *named))
    }

    /// Lets the sentinels put the replica in the place of the master, which lives, and waits until all name it.
    ///
    /// # Errors
    /// When that takes more than five minutes; the message quotes the sentinel.
    pub fn fail_over(&self) -> Result<()> {
        self.wait_until_ready()?;
        let (Some(master), Some(sentinel)) = (self.master().and_then(Redis::port), self.sentinels.first()) else {
            return Err(Error::new("the sentinels do not agree who the master is"));
        };
        let deadline = Instant::now() + READY_DEADLINE;
        let (mut said, mut asked) = (String::new(), None::<Instant>);
        while self.master().and_then(Redis::port).is_none_or(|port| port == master) {
            if Instant::now() > deadline {
                return Err(Error::new(format!(
                    "the sentinels did not fail over; the one that was asked said: {said}"
                )));
            }
            // One that was begun is given up by the sentinel where it is held up.
            if asked.is_none_or(|asked| asked.elapsed() > Duration::from_secs(12)) {
                said = sentinel.cli(&["SENTINEL", "FAILOVER", Self::NAME])?;
                asked = said.starts_with("OK").then(Instant::now);
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// From now on the sentinels take a master for dead that was silent for so long. Before a test kills one, and no longer
    /// than it waits for the replica.
    ///
    /// # Errors
    /// When a sentinel that runs refuses.
    pub fn take_for_dead_after(&self, silence: Duration) -> Result<()> {
        let millis = silence.as_millis().to_string();
        for sentinel in self.sentinels.iter().filter(|sentinel| sentinel.pid().is_some()) {
            let said = sentinel.cli(&["SENTINEL", "SET", Self::NAME, "down-after-milliseconds", &millis])?;
            if said != "OK" {
                return Err(Error::new(format!("{} refused to be less patient: {said}", sentinel.url())));
            }
        }
        Ok(())
    }

    /// Waits until each sentinel knows the replica and the other sentinels, and the replica is in step.
    ///
    /// # Errors
    /// When that takes more than five minutes; the message says what is still missing.
    pub fn wait_until_ready(&self) -> Result<()> {
        let deadline = Instant::now() + READY_DEADLINE;
        while let Some(missing) = self.missing() {
            if Instant::now() > deadline {
                return Err(Error::new(format!("the Redis sentinels were not ready in time: {missing}")));
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn missing(&self) -> Option<String> {
        for sentinel in &self.sentinels {
            let said = sentinel.cli(&["SENTINEL", "MASTER", Self::NAME]).unwrap_or_default();
            let fields: Vec<&str> = said.lines().collect();
            let field =
                |name: &str| fields.chunks(2).find(|pair| pair.first() == Some(&name)).and_then(|pair| pair.get(1));
            let wanted = [("num-slaves", "1"), ("num-other-sentinels", "2"), ("flags", "master")];
            if let Some((name, _)) = wanted.into_iter().find(|(name, value)| field(name) != Some(value)) {
                return Some(format!("{} says {name} is {:?}", sentinel.url(), field(name)));
            }
        }
        let linked = self.servers.iter().any(|server| {
            server.cli(&["INFO", "replication"]).is_ok_and(|said| said.contains("master_link_status:up"))
        });
        (!linked).then(|| "no replica is in step".to_owned())
    }
}

/// The port that a sentinel names, or nothing.
fn named_by(sentinel: &Redis) -> String {
    let said = sentinel.cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", RedisSentinel::NAME]);
    said.ok().and_then(|said| said.lines().nth(1).map(str::to_owned)).unwrap_or_default()
}
