//! A Redis Cluster.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::certificate::Certificate;
use super::redis::{Listen, Redis, RedisOptions};
use crate::error::Context;
use crate::tools::Tool;
use crate::{Error, Result};

const READY_DEADLINE: Duration = Duration::from_mins(5);

/// A running Redis Cluster; every node is stopped when dropped. The masters come first and share the slots evenly, in
/// order. A node that is silent is taken for dead after two minutes only, so that a machine which is busy elsewhere kills
/// none; see [`RedisCluster::take_for_dead_after`].
///
/// When one master is down, the others refuse too; a test that wants them to go on runs
/// `node.cli(&["CONFIG", "SET", "cluster-require-full-coverage", "no"])` on every node.
pub struct RedisCluster {
    nodes: Vec<Redis>,
    masters: usize,
    /// The folder of the certificate that all nodes have.
    _certificate: Option<TempDir>,
}

impl RedisCluster {
    /// Starts the nodes, forms the cluster and waits until every node serves and every replica is in step.
    ///
    /// # Errors
    /// When a program is missing or the cluster does not form; the message says what was awaited.
    pub fn start(masters: usize, replicas_per_master: usize) -> Result<Self> {
        Self::start_listening(Listen::Tcp, masters, replicas_per_master)
    }

    /// The same, where clients and the nodes among themselves speak TLS, with one certificate for all.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_tls(masters: usize, replicas_per_master: usize) -> Result<Self> {
        Self::start_listening(Listen::Tls, masters, replicas_per_master)
    }

    fn start_listening(listen: Listen, masters: usize, replicas_per_master: usize) -> Result<Self> {
        let folder = match listen {
            Listen::Tls => {
                Some(TempDir::with_prefix("kvsync-redis-ca-").context(|| "cannot make a folder".to_owned())?)
            }
            Listen::Tcp | Listen::Socket => None,
        };
        let certificate = folder.as_ref().map(|folder| Certificate::create(folder.path())).transpose()?;
        let count = masters * (1 + replicas_per_master);
        let node = |_| Redis::start_with(node_options(listen), certificate.clone(), None);
        let nodes = (0..count).map(node).collect::<Result<Vec<_>>>()?;
        let cluster = Self { nodes, masters, _certificate: folder };
        cluster.create(replicas_per_master)?;
        cluster.wait_until_ready()?;
        Ok(cluster)
    }

    /// The URL of every node.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Redis::url).collect()
    }

    /// Every node, the masters first.
    #[must_use]
    pub fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// One node, to kill, pause or restart it.
    ///
    /// # Errors
    /// When there are fewer nodes.
    pub fn node(&self, index: usize) -> Result<&Redis> {
        let count = self.nodes.len();
        self.nodes.get(index).ok_or_else(|| Error::new(format!("the cluster has {count} nodes, there is none {index}")))
    }

    /// The slot of a key, as the servers count it.
    ///
    /// # Errors
    /// When no node answers.
    pub fn slot_of(&self, key: &str) -> Result<u16> {
        let said = self.node(0)?.cli(&["CLUSTER", "KEYSLOT", key])?;
        said.parse().context(|| format!("CLUSTER KEYSLOT said `{said}`"))
    }

    /// Which master serves a slot in the view of the first node.
    ///
    /// # Errors
    /// When the first node does not answer, or no master that was started as one serves the slot.
    pub fn master_of(&self, slot: u16) -> Result<usize> {
        let owner = owner_of(&self.node(0)?.cli(&["CLUSTER", "NODES"])?, slot).map(str::to_owned);
        for index in 0..self.masters {
            if owner.is_some() && owner == self.node(index)?.cli(&["CLUSTER", "MYID"]).ok() {
                return Ok(index);
            }
        }
        Err(Error::new(format!("no master serves slot {slot}; wait until the cluster is ready")))
    }

    /// Moves a slot and its keys from one master to another: clients with the old map are answered MOVED.
    ///
    /// # Errors
    /// When a node refuses a step; the message names it.
    pub fn migrate_slot(&self, slot: u16, from: usize, to: usize) -> Result<()> {
        self.begin_migration(slot, from, to)?;
        self.move_keys(slot, from, to)?;
        self.finish_migration(slot, to)
    }

    /// Marks a slot as moving and moves no key: the old master still answers for the keys that it has, and ASK for
    /// those that it has not.
    ///
    /// # Errors
    /// When a node refuses a step; the message names it.
    pub fn begin_migration(&self, slot: u16, from: usize, to: usize) -> Result<()> {
        let (old, new) = (self.id(from)?, self.id(to)?);
        expect_ok(self.node(to)?, &["CLUSTER", "SETSLOT", &slot.to_string(), "IMPORTING", &old])?;
        expect_ok(self.node(from)?, &["CLUSTER", "SETSLOT", &slot.to_string(), "MIGRATING", &new])
    }

    /// Moves the keys of a moving slot, so that the old master answers ASK for them.
    ///
    /// # Errors
    /// When a node refuses a step; the message names it.
    pub fn move_keys(&self, slot: u16, from: usize, to: usize) -> Result<()> {
        let (source, target) = (self.node(from)?, self.node(to)?);
        let port = target.port().map(|port| port.to_string()).unwrap_or_default();
        loop {
            let keys = source.cli(&["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), "100"])?;
            if keys.is_empty() {
                return Ok(());
            }
            let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "REPLACE", "KEYS"];
            migrate.extend(keys.lines());
            expect_ok(source, &migrate)?;
        }
    }

    /// Gives a moving slot to its new master and tells every master, so that they answer MOVED.
    ///
    /// # Errors
    /// When a node refuses a step; the message names it.
    pub fn finish_migration(&self, slot: u16, to: usize) -> Result<()> {
        let new = self.id(to)?;
        let others = (0..self.masters).filter(|index| *index != to);
        for index in [to].into_iter().chain(others) {
            expect_ok(self.node(index)?, &["CLUSTER", "SETSLOT", &slot.to_string(), "NODE", &new])?;
        }
        Ok(())
    }

    /// From now on the nodes take one for dead that was silent for so long; then a replica takes over. Before a test kills
    /// a master, and no longer than it waits for the replica: a machine that is busy elsewhere keeps nodes silent, too.
    ///
    /// # Errors
    /// When a node that runs refuses.
    pub fn take_for_dead_after(&self, silence: Duration) -> Result<()> {
        let millis = silence.as_millis().to_string();
        let running = self.nodes.iter().filter(|node| node.pid().is_some());
        running.into_iter().try_for_each(|node| expect_ok(node, &["CONFIG", "SET", "cluster-node-timeout", &millis]))
    }

    /// Waits until every node serves all slots and knows every replica as one, and every replica is in step with its
    /// master.
    ///
    /// # Errors
    /// When that takes more than five minutes; the message says what is still missing.
    pub fn wait_until_ready(&self) -> Result<()> {
        let deadline = Instant::now() + READY_DEADLINE;
        for node in &self.nodes {
            while let Some(missing) = self.missing(node) {
                if Instant::now() > deadline {
                    let url = node.url();
                    return Err(Error::new(format!("the Redis Cluster was not ready in time: {url} {missing}")));
                }
                sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }

    fn create(&self, replicas_per_master: usize) -> Result<()> {
        let mut cli = Command::new(Tool::RedisCli.require()?);
        cli.args(["--cluster", "create"]);
        cli.args(self.nodes.iter().filter_map(Redis::port).map(|port| format!("127.0.0.1:{port}")));
        cli.args(["--cluster-replicas", &replicas_per_master.to_string(), "--cluster-yes"]);
        if let Some(ca) = self.nodes.first().and_then(Redis::ca) {
            cli.arg("--tls").arg("--cacert").arg(ca);
        }
        let output = cli.output().context(|| "cannot run redis-cli".to_owned())?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
        Err(Error::new(format!("redis-cli could not form the cluster:\n{}", said.join("\n"))))
    }

    fn missing(&self, node: &Redis) -> Option<&'static str> {
        let info = node.cli(&["CLUSTER", "INFO"]).unwrap_or_default();
        let known = format!("cluster_known_nodes:{}\r\n", self.nodes.len());
        if !info.contains("cluster_state:ok") {
            return Some("does not report cluster_state:ok");
        }
        if !info.contains(&known) {
            return Some("does not know every node");
        }
        // Who follows whom is gossip: it comes after the slots.
        if followers(&node.cli(&["CLUSTER", "NODES"]).unwrap_or_default()) != self.nodes.len() - self.masters {
            return Some("does not know every replica");
        }
        let replication = node.cli(&["INFO", "replication"]).unwrap_or_default();
        let linked = replication.contains("role:master") || replication.contains("master_link_status:up");
        (!linked).then_some("is a replica out of step with its master")
    }

    fn id(&self, index: usize) -> Result<String> {
        self.node(index)?.cli(&["CLUSTER", "MYID"])
    }
}

fn node_options(listen: Listen) -> RedisOptions {
    let tls = if listen == Listen::Tls { "yes" } else { "no" };
    let settings = [
        ("tls-cluster", tls),
        ("tls-replication", tls),
        ("cluster-enabled", "yes"),
        ("cluster-config-file", "nodes.conf"),
        ("cluster-node-timeout", "120000"),
        ("repl-diskless-sync-delay", "0"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    RedisOptions { listen, settings: settings.into(), ..RedisOptions::default() }
}

fn expect_ok(node: &Redis, command: &[&str]) -> Result<()> {
    match node.cli(command)?.as_str() {
        "OK" | "NOKEY" => Ok(()),
        refused => Err(Error::new(format!("{} refused `{}`: {refused}", node.url(), command.join(" ")))),
    }
}

/// How many nodes follow a master, from the lines of `CLUSTER NODES`.
fn followers(nodes: &str) -> usize {
    nodes.lines().filter(|line| line.split(' ').nth(3).is_some_and(|master| master != "-")).count()
}

/// The id of the node that serves the slot, from the lines of `CLUSTER NODES`.
fn owner_of(nodes: &str, slot: u16) -> Option<&str> {
    let serves = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        matches!((first.parse::<u16>(), last.parse::<u16>()), (Ok(first), Ok(last)) if (first..=last).contains(&slot))
    };
    let line = nodes.lines().find(|line| line.split_whitespace().skip(8).any(serves))?;
    line.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::{followers, owner_of};

    #[test]
    fn a_slot_is_found_in_a_range_and_alone_but_not_in_a_migration_mark() {
        let nodes = "aaa 127.0.0.1:1@2 myself,master - 0 0 1 connected 0-5 7 [9->-bbb]\n\
                     bbb 127.0.0.1:3@4 master - 0 0 2 connected 6 8-16383";
        assert_eq!(owner_of(nodes, 5), Some("aaa"));
        assert_eq!(owner_of(nodes, 7), Some("aaa"));
        assert_eq!(owner_of(nodes, 6), Some("bbb"));
        assert_eq!(owner_of(nodes, 9), Some("bbb"));
        assert_eq!(owner_of("", 9), None);
    }
    #[test]
    fn replicas_are_those_who_name_a_master() {
        let nodes = "aaa 127.0.0.1:1@2 myself,master - 0 0 1 connected 0-16383\n\
                     bbb 127.0.0.1:3@4 slave aaa 0 0 1 connected\n\
                     ccc 127.0.0.1:5@6 master - 0 0 3 connected";
        assert_eq!(followers(nodes), 1);
        assert_eq!(followers(""), 0);
    }
}
