//! Makes things go wrong, as the script says.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use xtask::servers::{Fault as NetFault, Proxy, Redis, RedisCluster, Side};

use crate::Outcome;
use crate::broker::Broker;
use crate::crew::{Crew, Layout};
use crate::script::{Event, Fault, Net, PRIMARIES};
use crate::watch::Watch;
use crate::world::{Base, Store, World};

/// A node of a cluster that is silent for so long is taken for dead.
pub(crate) const SILENCE: Duration = Duration::from_secs(2);

/// So many messages travel through a broker before it, or a consumer that waits, is made to end, if that takes no longer
/// than this: who holds nothing loses nothing.
const TRAVEL: (u64, Duration) = (500, Duration::from_secs(15));
const TRAVEL_TO_CONSUMERS: (u64, Duration) = (50, Duration::from_secs(3));

/// Faults that happened, by their kind.
pub(crate) type Played = Mutex<BTreeMap<&'static str, usize>>;

/// What faults happen to.
pub(crate) struct Stage<'a> {
    pub(crate) world: &'a World,
    pub(crate) crew: &'a Crew,
    pub(crate) layout: Layout,
    pub(crate) watch: &'a Watch,
    /// Faults end once this is set.
    pub(crate) over: &'a AtomicBool,
    /// How many there were, of each kind.
    pub(crate) played: &'a Played,
    /// The one that began last.
    pub(crate) last: &'a Mutex<Option<Fault>>,
    /// Whether each is told as it begins.
    pub(crate) tell: bool,
}

impl Stage<'_> {
    /// Plays a lane of the script until it is over; leaves everything whole.
    pub(crate) fn play(&self, begin: Instant, events: impl Iterator<Item = Event>) -> Outcome {
        for event in events {
            while Instant::now() < begin + event.at {
                if self.over.load(Ordering::SeqCst) {
                    return Ok(());
                }
                thread::sleep(Duration::from_millis(10));
            }
            if self.over.load(Ordering::SeqCst) {
                return Ok(());
            }
            if self.tell {
                println!("{event}");
            }
            *self.last.lock() = Some(event.fault);
            self.perform(event.fault).map_err(|error| format!("{}: {error}", event.fault))?;
            *self.played.lock().entry(event.fault.kind()).or_default() += 1;
        }
        Ok(())
    }

    fn perform(&self, fault: Fault) -> Outcome {
        match fault {
            Fault::KillWriter(place) => self.crew.kill(place, || ()),
            Fault::RetireWriter(place) => self.crew.retire(place, || ()),
            Fault::PauseWriter(place, long) => self.crew.pause(place, millis(long)),
            Fault::KillOwner | Fault::RetireOwner => {
                let owner = self.layout.owner.ok_or("nobody owns the store")?;
                let between = || {
                    if matches!(self.world.store, Store::Memory) {
                        self.watch.forgot();
                    }
                };
                if fault == Fault::KillOwner {
                    self.crew.kill(owner, between)
                } else {
                    self.crew.retire(owner, between)
                }
            }
            Fault::PauseOwner(long) => self.crew.pause(self.layout.owner.ok_or("nobody owns the store")?, millis(long)),
            Fault::KillRelay(relay) => self.crew.kill(self.layout.relays + relay, || ()),
            Fault::PauseRelay(relay, long) => self.crew.pause(self.layout.relays + relay, millis(long)),
            Fault::KillConsumer(which) => self.crew.kill(self.layout.consumers + which, || ()),
            Fault::RetireConsumer(which) => self.crew.retire(self.layout.consumers + which, || ()),
            Fault::PauseConsumer(which, long) => self.crew.pause(self.layout.consumers + which, millis(long)),
            Fault::KillWaitingConsumer(which, long) => {
                self.end_waiting(long, |whole| self.crew.kill(self.layout.consumers + which, whole))
            }
            Fault::RetireWaitingConsumer(which, long) => {
                self.end_waiting(long, |whole| self.crew.retire(self.layout.consumers + which, whole))
            }
            Fault::KillBroker(_)
            | Fault::RestartBroker(_)
            | Fault::KillFrozenBroker(_)
            | Fault::KillBrokerAndPublisher(..) => self.end_broker(fault),
            Fault::PauseBroker(long) => {
                let process = self.broker()?.process();
                process.pause()?;
                thread::sleep(millis(long));
                Ok(process.resume()?)
            }
            Fault::CloseConnections => self.broker()?.close_connections(),
            Fault::PublisherNet(net, long) => {
                misbehave(&self.broker()?.publishers, net, long);
                Ok(())
            }
            Fault::ConsumerNet(net, long) => {
                misbehave(&self.broker()?.consumers, net, long);
                Ok(())
            }
            Fault::KillStore(node, long) => {
                let node = self.node(node)?;
                node.kill()?;
                thread::sleep(millis(long));
                Ok(node.restart()?)
            }
            Fault::PauseStore(node, long) => {
                let node = self.node(node)?;
                node.pause()?;
                thread::sleep(millis(long));
                Ok(node.resume()?)
            }
            Fault::DropClients(node) => {
                self.node(node)?.cli(&["CLIENT", "KILL", "TYPE", "normal"])?;
                Ok(())
            }
            Fault::Failover(primary) => self.failover(primary, false),
            Fault::CrashFailover(primary) => self.failover(primary, true),
            Fault::StoreNet(net, long) => match &self.world.store {
                Store::Redis(_, proxy) => {
                    misbehave(proxy, net, long);
                    Ok(())
                }
                _ => Err("there is no network before this store".into()),
            },
            Fault::DatabaseNet(net, long) => match &self.world.database {
                Base::Postgres(_, proxy) => {
                    misbehave(proxy, net, long);
                    Ok(())
                }
                Base::Sqlite(_) => Err("there is no network before this database".into()),
            },
            Fault::CrashDatabase(long) => match &self.world.database {
                Base::Postgres(server, _) => {
                    server.kill()?;
                    thread::sleep(millis(long));
                    Ok(server.restart()?)
                }
                Base::Sqlite(_) => Err("this database has no server".into()),
            },
        }
    }

    /// Lets the broker end, once something has travelled through it, and starts it again.
    fn end_broker(&self, fault: Fault) -> Outcome {
        self.travel(TRAVEL);
        let process = self.broker()?.process();
        match fault {
            Fault::KillFrozenBroker(long) => {
                process.pause()?;
                thread::sleep(millis(long));
                process.kill()?;
            }
            Fault::KillBrokerAndPublisher(relay, long) => {
                process.kill()?;
                thread::sleep(millis(long));
                self.crew.kill(self.layout.relays + relay, || ())?;
            }
            Fault::RestartBroker(long) => {
                process.stop()?;
                thread::sleep(millis(long));
            }
            Fault::KillBroker(long) => {
                process.kill()?;
                thread::sleep(millis(long));
            }
            _ => return Err("this does not end a broker".into()),
        }
        Ok(process.restart()?)
    }

    /// Lets a consumer end while the store refuses everybody; what is done once it has ended makes the store whole.
    fn end_waiting(&self, long: u64, end: impl FnOnce(&dyn Fn()) -> Outcome) -> Outcome {
        let Store::Redis(_, proxy) = &self.world.store else {
            return Err("there is no network before this store".into());
        };
        self.travel(TRAVEL_TO_CONSUMERS);
        // What is refused was not written; what is held up would be, after its sender's end.
        proxy.set(NetFault::Refuse);
        thread::sleep(millis(long));
        let ended = end(&|| proxy.heal());
        proxy.heal();
        ended
    }

    /// Waits until something has travelled through the broker.
    fn travel(&self, (many, long): (u64, Duration)) {
        let (before, deadline) = (self.crew.told().received, Instant::now() + long);
        while self.crew.told().received < before + many
            && Instant::now() < deadline
            && !self.over.load(Ordering::SeqCst)
        {
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn broker(&self) -> Outcome<&Broker> {
        self.world.broker.as_ref().ok_or_else(|| "there is no broker".into())
    }

    fn node(&self, index: usize) -> Outcome<&Redis> {
        match &self.world.store {
            Store::Redis(redis, _) => Ok(redis),
            Store::Cluster(cluster) => {
                Ok(cluster.nodes().get(primary_of(cluster, index)?).ok_or("there is no such node")?)
            }
            Store::Memory | Store::Embedded(_) => Err("this store has no server".into()),
        }
    }

    /// Lets the replica of a primary take over, and waits until the cluster is whole again.
    fn failover(&self, shard: usize, crash: bool) -> Outcome {
        let Store::Cluster(cluster) = &self.world.store else { return Err("this store is no cluster".into()) };
        let old = primary_of(cluster, shard)?;
        let new = if old < PRIMARIES { replica_of(cluster, old)? } else { shard };
        let (old, new) = (cluster.node(old)?, cluster.node(new)?);
        if crash {
            self.crew.forgot();
            // A node that was restarted meanwhile is patient again.
            cluster.take_for_dead_after(SILENCE)?;
            old.kill()?;
            wait(|| is_primary(new))?;
            self.watch.forgot();
            old.restart()?;
        } else {
            // A node that is too slow gives it up, and says so to nobody.
            wait(|| is_primary(new) || new.cli(&["CLUSTER", "FAILOVER"]).is_err())?;
        }
        Ok(cluster.wait_until_ready()?)
    }
}

fn misbehave(proxy: &Proxy, net: Net, long: u64) {
    proxy.set(match net {
        Net::Delay(each) => NetFault::Delay(millis(each)),
        Net::CutAnswers(bytes) => NetFault::CutAfter(Side::FromServer, bytes),
        Net::CutRequests(bytes) => NetFault::CutAfter(Side::ToServer, bytes),
        Net::Hold => NetFault::Hold,
        Net::HalfOpen => NetFault::HalfOpen,
        Net::Refuse => NetFault::Refuse,
    });
    thread::sleep(millis(long));
    proxy.heal();
}

/// The node that is the primary of a shard now: the node that was started as one, or its replica.
fn primary_of(cluster: &RedisCluster, shard: usize) -> Outcome<usize> {
    if is_primary(cluster.node(shard)?) { Ok(shard) } else { replica_of(cluster, shard) }
}

/// The other node of the shard of this one.
fn replica_of(cluster: &RedisCluster, node: usize) -> Outcome<usize> {
    let id = cluster.node(node)?.cli(&["CLUSTER", "MYID"])?;
    let nodes = cluster.node(node)?.cli(&["CLUSTER", "NODES"])?;
    let line = |id: &str| nodes.lines().find(|line| line.starts_with(id));
    let own = line(&id).ok_or("a node does not know itself")?;
    // The fourth word is the id of the primary, or a dash.
    let primary = own.split(' ').nth(3).unwrap_or("-");
    let other = if primary == "-" {
        let replica = nodes.lines().find(|line| line.split(' ').nth(3) == Some(&id));
        replica.and_then(|line| line.split(' ').next()).ok_or("a primary has no replica")?
    } else {
        primary
    };
    for (index, node) in cluster.nodes().iter().enumerate() {
        if node.cli(&["CLUSTER", "MYID"])? == other {
            return Ok(index);
        }
    }
    Err("a node of the cluster is not to be found".into())
}

fn is_primary(node: &Redis) -> bool {
    node.cli(&["INFO", "replication"]).is_ok_and(|info| info.contains("role:master"))
}

fn wait(done: impl Fn() -> bool) -> Outcome {
    let deadline = Instant::now() + Duration::from_mins(3);
    while !done() {
        if Instant::now() > deadline {
            return Err("no replica took over within three minutes".into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn millis(long: u64) -> Duration {
    Duration::from_millis(long)
}
