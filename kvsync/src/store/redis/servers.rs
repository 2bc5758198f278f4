//! Which server answers for which key: one for all, the master of some sentinels, or a cluster's map of slots.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use redis::cluster_routing::Slot;
use redis::{Client, Value, cmd};

use super::error::{Cure, Failure};
use super::node::{Node, Settings};
use super::sentinel::Sentinel;
use crate::error::ErrorKind;

/// Slots of a Redis Cluster.
const SLOTS: u16 = 16_384;

/// The servers of a store.
pub(super) enum Servers {
    /// One server holds every key.
    One(Arc<Node>),
    /// The one server that sentinels name holds every key.
    Sentinel(Sentinel),
    /// Each key has a slot, and each slot a node.
    Cluster(Cluster),
}

/// A cluster as it was seen last.
pub(super) struct Cluster {
    seeds: Vec<Arc<Node>>,
    map: RwLock<Map>,
    refreshed: Mutex<Instant>,
    open: Opener,
}

/// Makes a client for another address, with the TLS set-up of the first.
pub(super) type Opener = Box<dyn Fn(&str, u16) -> Result<Client, Failure> + Send + Sync>;

#[derive(Default)]
struct Map {
    owners: HashMap<Slot, Arc<Node>>,
    nodes: BTreeMap<String, Arc<Node>>,
}

impl Servers {
    /// The slot of a key; nothing where there are no slots.
    pub(super) fn slot(&self, key: &[u8]) -> Option<Slot> {
        match self {
            Self::One(_) | Self::Sentinel(_) => None,
            Self::Cluster(_) => Some(Slot::for_key(key)),
        }
    }

    /// The node that answers for a slot, as far as is known.
    pub(super) fn node(&self, slot: Option<Slot>) -> Result<Arc<Node>, Failure> {
        let cluster = match self {
            Self::One(node) => return Ok(Arc::clone(node)),
            Self::Sentinel(sentinel) => return Ok(sentinel.master()),
            Self::Cluster(cluster) => cluster,
        };
        let map = cluster.map.read();
        let node = match slot {
            Some(slot) => map.owners.get(&slot),
            None => map.nodes.values().next(),
        };
        node.cloned().ok_or_else(|| {
            let message = "the redis cluster has no node for a part of the slots; see `CLUSTER INFO`";
            Failure::new(ErrorKind::Unavailable, Cure::Wait, message)
        })
    }

    /// Every node that answers for keys, in the order of their addresses.
    pub(super) fn nodes(&self) -> Vec<Arc<Node>> {
        match self {
            Self::One(node) => vec![Arc::clone(node)],
            Self::Sentinel(sentinel) => vec![sentinel.master()],
            Self::Cluster(cluster) => cluster.map.read().nodes.values().cloned().collect(),
        }
    }

    /// Finds out anew who answers for what, unless somebody did since `seen`.
    pub(super) fn refresh(
        &self,
        seen: Option<Instant>,
        deadline: Instant,
        settings: &Arc<Settings>,
    ) -> Result<(), Failure> {
        match self {
            Self::One(_) => Ok(()),
            Self::Sentinel(sentinel) => sentinel.refresh(seen, deadline),
            Self::Cluster(cluster) => cluster.refresh(seen, deadline, settings),
        }
    }

    /// Closes the connections that wait.
    pub(super) fn forget(&self) {
        match self {
            Self::One(node) => node.forget(),
            Self::Sentinel(sentinel) => sentinel.forget(),
            Self::Cluster(cluster) => {
                cluster.seeds.iter().for_each(|node| node.forget());
                cluster.map.read().nodes.values().for_each(|node| node.forget());
            }
        }
    }
}

impl Cluster {
    /// A cluster that these nodes belong to; nothing is known of it before it is refreshed.
    pub(super) fn new(seeds: Vec<Arc<Node>>, open: Opener) -> Self {
        Self { seeds, map: RwLock::default(), refreshed: Mutex::new(Instant::now()), open }
    }

    /// Asks any node for the map of slots, unless somebody did since `seen`.
    pub(super) fn refresh(
        &self,
        seen: Option<Instant>,
        deadline: Instant,
        settings: &Arc<Settings>,
    ) -> Result<(), Failure> {
        let Some(mut refreshed) = self.refreshed.try_lock_until(deadline) else { return Ok(()) };
        if seen.is_some_and(|seen| *refreshed > seen) {
            return Ok(());
        }
        let known: Vec<_> = self.map.read().nodes.values().cloned().collect();
        let mut last = None;
        for node in known.iter().chain(&self.seeds) {
            let now = Instant::now();
            if now >= deadline {
                break;
            }
            let answer = ask_for_slots(node, deadline.min(now + settings.command_timeout));
            match answer.and_then(|slots| self.learn(&slots, node, settings)) {
                Ok(()) => {
                    *refreshed = Instant::now();
                    return Ok(());
                }
                Err(failure) => last = Some(failure),
            }
        }
        Err(last.unwrap_or_else(|| {
            Failure::new(ErrorKind::Unavailable, Cure::Wait, "no node of the redis cluster answered in time")
        }))
    }

    /// The node at an address that a redirection named.
    pub(super) fn at(&self, address: &str, settings: &Arc<Settings>) -> Option<Arc<Node>> {
        let (host, port) = address.rsplit_once(':')?;
        self.intern(&mut self.map.write().nodes, host, port.parse().ok()?, settings).ok()
    }

    /// Notes that a slot has moved.
    pub(super) fn moved(&self, slot: Slot, node: &Arc<Node>) {
        self.map.write().owners.insert(slot, Arc::clone(node));
    }

    /// Takes over the answer to `CLUSTER SLOTS`: for each range its first and last slot, then its primary
    /// and its replicas, each as host, port, id.
    fn learn(&self, slots: &Value, from: &Node, settings: &Arc<Settings>) -> Result<(), Failure> {
        let mut nodes = BTreeMap::new();
        let mut owners = HashMap::with_capacity(usize::from(SLOTS));
        let known = self.map.read().nodes.clone();
        for (first, last, host, port) in ranges(slots) {
            let node = match known.get(&address(host_or(host, from), port)) {
                Some(node) => nodes.entry(node.address.clone()).or_insert_with(|| Arc::clone(node)).clone(),
                None => self.intern(&mut nodes, host_or(host, from), port, settings)?,
            };
            owners.extend((first..=last).filter_map(Slot::new).map(|slot| (slot, Arc::clone(&node))));
        }
        if nodes.is_empty() {
            let message = format!("redis at {} knows no node that serves a slot", from.address);
            return Err(Failure::new(ErrorKind::Unavailable, Cure::Wait, message));
        }
        *self.map.write() = Map { owners, nodes };
        Ok(())
    }

    /// The node at an address among these, made if it is new.
    fn intern(
        &self,
        nodes: &mut BTreeMap<String, Arc<Node>>,
        host: &str,
        port: u16,
        settings: &Arc<Settings>,
    ) -> Result<Arc<Node>, Failure> {
        if let Some(node) = nodes.get(&address(host, port)) {
            return Ok(Arc::clone(node));
        }
        let node = Arc::new(Node::new((self.open)(host, port)?, Arc::clone(settings)));
        nodes.insert(node.address.clone(), Arc::clone(&node));
        Ok(node)
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.nodes()).finish()
    }
}

fn ask_for_slots(node: &Node, deadline: Instant) -> Result<Value, Failure> {
    match node.ask(&[cmd("CLUSTER").arg("SLOTS").take()], deadline)?.pop() {
        Some(Value::ServerError(error)) => Err(not_a_cluster(&error, node)),
        slots => Ok(slots.unwrap_or_default()),
    }
}

fn not_a_cluster(error: &redis::ServerError, node: &Node) -> Failure {
    if error.details().is_some_and(|detail| detail.contains("cluster support disabled")) {
        let message = format!("redis at {} is no node of a cluster; use `RedisStore::connect`", node.address);
        Failure::new(ErrorKind::Config, Cure::None, message)
    } else {
        Failure::of_server(error, &node.address)
    }
}

/// The ranges of slots with their primaries; what does not look like one is left out.
fn ranges(slots: &Value) -> impl Iterator<Item = (u16, u16, &str, u16)> {
    let ranges = if let Value::Array(ranges) = slots { ranges.as_slice() } else { &[] };
    ranges.iter().filter_map(|range| {
        let Value::Array(range) = range else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(primary), ..] = range.as_slice() else { return None };
        let (host, port) = match primary.as_slice() {
            [Value::BulkString(host), Value::Int(port), ..] => (std::str::from_utf8(host).ok()?, port),
            [Value::Nil, Value::Int(port), ..] => ("", port),
            _ => return None,
        };
        // A node that does not know its own address answers with a question mark.
        if host == "?" {
            return None;
        }
        Some((u16::try_from(*first).ok()?, u16::try_from(*last).ok()?, host, u16::try_from(*port).ok()?))
    })
}

/// A host as a cluster gives it: the one that was asked leaves out its own.
fn host_or<'a>(host: &'a str, from: &'a Node) -> &'a str {
    if host.is_empty() { from.host() } else { host }
}

pub(super) fn address(host: &str, port: u16) -> String {
    format!("{host}:{port}")
}
