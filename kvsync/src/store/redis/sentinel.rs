//! A master that sentinels watch over: who it is now.
//!
//! Sentinels name a new master when the old one is gone, or when they are told to. Nobody tells us, so they are asked:
//! when something failed, and now and then while all is well, because a master that was replaced in good order
//! answers for some seconds more, and what it takes then is lost. What they name is believed once it says itself
//! that it is a master: a sentinel that was away a while names one of yesterday.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use redis::{Value, cmd};

use super::error::{Cure, Failure};
use super::node::{Node, Settings};
use super::servers::{Opener, address};
use crate::error::ErrorKind;

/// How old what the sentinels said may be while the master answers.
const EVERY: Duration = Duration::from_secs(1);
/// The same, when none of them answered the last time: those that hang would hold up a call each time.
const EVERY_WHEN_SILENT: Duration = Duration::from_secs(10);
/// How long a call is held up by asking at such a time.
const ASIDE: Duration = Duration::from_millis(200);

/// A master, and those who know which server it is.
pub(super) struct Sentinel {
    /// What the sentinels call the master.
    pub(super) name: String,
    /// Those that answered last come first.
    sentinels: Mutex<Vec<Arc<Node>>>,
    master: RwLock<Arc<Node>>,
    asked: Mutex<Asked>,
    settings: Arc<Settings>,
    open: Opener,
}

/// When the sentinels were asked last, and whether any of them knew.
struct Asked {
    at: Instant,
    answered: bool,
}

impl Sentinel {
    /// Asks the sentinels for the master of this name. The settings are those of the master.
    pub(super) fn find(
        name: String,
        mut sentinels: Vec<Arc<Node>>,
        settings: Arc<Settings>,
        open: Opener,
    ) -> Result<Self, Failure> {
        let deadline = Instant::now() + settings.connect_timeout + settings.command_timeout;
        let master = ask(&name, &mut sentinels, None, false, &settings, &open, deadline)?;
        Ok(Self {
            name,
            sentinels: Mutex::new(sentinels),
            master: RwLock::new(master),
            asked: Mutex::new(Asked { at: Instant::now(), answered: true }),
            settings,
            open,
        })
    }

    /// The master as far as is known. Asks the sentinels where they were not asked for a while, and goes on with
    /// the known one where they do not say.
    pub(super) fn master(&self) -> Arc<Node> {
        if let Some(mut asked) = self.asked.try_lock() {
            let every = if asked.answered { EVERY } else { EVERY_WHEN_SILENT };
            if asked.at.elapsed() >= every {
                // Where they do not say, the known one counts as long as it answers.
                let _ = self.look(&mut asked, true, Instant::now() + ASIDE);
            }
        }
        self.known()
    }

    /// Asks the sentinels, unless somebody did since `seen`, and closes what waits to the master: another may
    /// stand there, or the same in another role.
    pub(super) fn refresh(&self, seen: Option<Instant>, deadline: Instant) -> Result<(), Failure> {
        let Some(mut asked) = self.asked.try_lock_until(deadline) else { return Ok(()) };
        if seen.is_some_and(|seen| asked.at > seen) {
            return Ok(());
        }
        self.known().forget();
        self.look(&mut asked, false, deadline)
    }

    /// The sentinels.
    pub(super) fn watchers(&self) -> Vec<Arc<Node>> {
        self.sentinels.lock().clone()
    }

    /// Closes the connections that wait.
    pub(super) fn forget(&self) {
        self.known().forget();
        self.watchers().iter().for_each(|node| node.forget());
    }

    /// Which address one sentinel names.
    pub(super) fn named_by(&self, sentinel: &Node, deadline: Instant) -> Result<Option<(String, u16)>, Failure> {
        named_by(sentinel, &self.name, deadline)
    }

    fn known(&self) -> Arc<Node> {
        Arc::clone(&self.master.read())
    }

    fn look(&self, asked: &mut Asked, trusted: bool, deadline: Instant) -> Result<(), Failure> {
        let (known, mut sentinels) = (self.known(), self.watchers());
        let found = ask(&self.name, &mut sentinels, Some(&known), trusted, &self.settings, &self.open, deadline);
        *self.sentinels.lock() = sentinels;
        *asked = Asked { at: Instant::now(), answered: found.is_ok() };
        let master = found?;
        if known.address != master.address {
            tracing::info!(master = %self.name, from = %known.address, to = %master.address, "redis failed over");
            *self.master.write() = master;
        }
        Ok(())
    }
}

/// The master that the first of the sentinels who is right names. A server is believed to be a master when it says
/// so; the known one need not be asked where it is trusted. Sentinels that do not answer go to the end.
fn ask(
    name: &str,
    sentinels: &mut [Arc<Node>],
    known: Option<&Arc<Node>>,
    trusted: bool,
    settings: &Arc<Settings>,
    open: &Opener,
    deadline: Instant,
) -> Result<Arc<Node>, Failure> {
    let (mut ignorant, mut refused, mut silent) = (Vec::new(), None, None);
    let order = sentinels.to_vec();
    for sentinel in &order {
        let now = Instant::now();
        if now >= deadline {
            break;
        }
        match named_by(sentinel, name, deadline.min(now + settings.connect_timeout)) {
            Ok(Some((host, port))) => {
                let node = match known.filter(|known| known.address == address(&host, port)) {
                    Some(known) if trusted => return Ok(Arc::clone(known)),
                    Some(known) => Arc::clone(known),
                    None => Arc::new(Node::new(open(&host, port)?, Arc::clone(settings))),
                };
                match node.open(deadline) {
                    Ok(connection) => {
                        node.keep(connection);
                        return Ok(node);
                    }
                    Err(failure) => refused = Some(failure),
                }
            }
            Ok(None) => ignorant.push(sentinel.address.clone()),
            Err(failure) => {
                sentinels.sort_by_key(|other| Arc::ptr_eq(other, sentinel));
                silent = Some(failure);
            }
        }
    }
    Err(match (refused, ignorant.as_slice(), silent) {
        (Some(refused), _, _) => {
            let login = if refused.kind == ErrorKind::Rejected { ", whose login is that of the builder" } else { "" };
            refused.about(&format!("the master that the sentinels of `{name}` name{login}"))
        }
        (None, [_, ..], _) => {
            let message = format!(
                "the sentinels at {} know no master `{name}`; is it what `sentinel monitor` calls it?",
                ignorant.join(", ")
            );
            Failure::new(ErrorKind::Config, Cure::None, message)
        }
        (None, [], Some(silent)) => {
            let login = if silent.kind == ErrorKind::Rejected { ", whose login is `sentinel_login`" } else { "" };
            silent.about(&format!("no sentinel of `{name}` answers; the last that was asked{login}"))
        }
        (None, [], None) => {
            let message = format!("there was no time to ask a sentinel of `{name}`");
            Failure::new(ErrorKind::Unavailable, Cure::Wait, message)
        }
    })
}

fn named_by(sentinel: &Node, name: &str, deadline: Instant) -> Result<Option<(String, u16)>, Failure> {
    let question = cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(name).take();
    match sentinel.ask(&[question], deadline)?.pop() {
        Some(Value::Nil) => Ok(None),
        Some(Value::ServerError(error)) if error.code() == "ERR" => {
            let message = format!("redis at {} is no sentinel; use `RedisStore::connect`", sentinel.address);
            Err(Failure::new(ErrorKind::Config, Cure::None, message).because(error.into()))
        }
        Some(Value::ServerError(error)) => Err(Failure::of_server(&error, &sentinel.address)),
        Some(Value::Array(address)) => address_of(&address).map(Some).ok_or_else(|| strange(sentinel)),
        _ => Err(strange(sentinel)),
    }
}

fn address_of(address: &[Value]) -> Option<(String, u16)> {
    let [Value::BulkString(host), Value::BulkString(port)] = address else { return None };
    Some((String::from_utf8(host.clone()).ok()?, std::str::from_utf8(port).ok()?.parse().ok()?))
}

fn strange(sentinel: &Node) -> Failure {
    let message = format!("the sentinel at {} answered with something else than an address", sentinel.address);
    Failure::new(ErrorKind::Corrupt, Cure::None, message)
}
