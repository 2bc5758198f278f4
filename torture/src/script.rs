//! The script of faults: drawn from the seed alone, so that the same seed gives the same script.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::options::{DatabaseKind, Delivery, Options, StoreKind, Transport};

/// Something that goes wrong. Times are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A writer gets SIGKILL, and another one takes its place.
    KillWriter(usize),
    /// A writer stops in good order, and another one takes its place.
    RetireWriter(usize),
    /// A writer gets SIGSTOP, and SIGCONT later.
    PauseWriter(usize, u64),
    /// The process that owns the store gets SIGKILL, and another one opens the store.
    KillOwner,
    /// The process that owns the store stops in good order, and another one opens the store.
    RetireOwner,
    /// The process that owns the store gets SIGSTOP, and SIGCONT later.
    PauseOwner(u64),
    /// A relay gets SIGKILL, and another one takes its place.
    KillRelay(usize),
    /// A relay gets SIGSTOP, and SIGCONT later.
    PauseRelay(usize, u64),
    /// A node of the store gets SIGKILL, and is started again later.
    KillStore(usize, u64),
    /// A node of the store gets SIGSTOP, and SIGCONT later.
    PauseStore(usize, u64),
    /// Every connection of a node of the store is closed.
    DropClients(usize),
    /// A replica takes over from a primary that knows of it: nothing is lost.
    Failover(usize),
    /// A primary gets SIGKILL, and a replica takes over: what it had not been told is lost.
    CrashFailover(usize),
    /// A consumer of the broker gets SIGKILL, and another one takes its place.
    KillConsumer(usize),
    /// A consumer of the broker stops in good order, and another one takes its place.
    RetireConsumer(usize),
    /// A consumer of the broker gets SIGSTOP, and SIGCONT later.
    PauseConsumer(usize, u64),
    /// The store refuses everybody, and a consumer that waits for it with messages in its hands gets SIGKILL.
    KillWaitingConsumer(usize, u64),
    /// The same, but the consumer stops in good order: it gives back what it could not write.
    RetireWaitingConsumer(usize, u64),
    /// The broker gets SIGKILL, and is started again later.
    KillBroker(u64),
    /// The broker gets SIGSTOP, and SIGKILL later: what was sent to it meanwhile is lost.
    KillFrozenBroker(u64),
    /// The broker gets SIGKILL, and so does a process that publishes, while there is nobody to confirm anything.
    KillBrokerAndPublisher(usize, u64),
    /// The broker stops in good order, and is started again later.
    RestartBroker(u64),
    /// The broker gets SIGSTOP, and SIGCONT later.
    PauseBroker(u64),
    /// An operator closes the connections of the broker.
    CloseConnections,
    /// The network between those who publish and the broker misbehaves.
    PublisherNet(Net, u64),
    /// The network between the consumers and the broker misbehaves.
    ConsumerNet(Net, u64),
    /// The network between the writers and the store misbehaves.
    StoreNet(Net, u64),
    /// The network between the writers and the database misbehaves.
    DatabaseNet(Net, u64),
    /// The database's server crashes, and recovers.
    CrashDatabase(u64),
}

/// How a network misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Net {
    /// Every piece of data arrives so many milliseconds later.
    Delay(u64),
    /// After so many bytes of answers every connection that sends on is cut.
    CutAnswers(usize),
    /// After so many bytes of requests every connection that sends on is cut.
    CutRequests(usize),
    /// Nothing arrives before the end.
    Hold,
    /// What is sent is lost, and nothing is answered.
    HalfOpen,
    /// Every connection is closed, and so are new ones.
    Refuse,
}

/// A fault, and when it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) at: Duration,
    pub(crate) fault: Fault,
}

/// What faults happen to. Those of one lane follow each other; lanes do not wait for one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Processes,
    Store,
    Database,
    Broker,
    Consumers,
}

impl Lane {
    pub(crate) const ALL: [Self; 5] = [Self::Processes, Self::Store, Self::Database, Self::Broker, Self::Consumers];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Processes => "processes",
            Self::Store => "store",
            Self::Database => "database",
            Self::Broker => "broker",
            Self::Consumers => "consumers",
        }
    }
}

/// The faults of a lane, without end; none where the options leave nothing to go wrong.
pub(crate) fn script(options: &Options, lane: Lane) -> impl Iterator<Item = Event> + use<> {
    let mut random = StdRng::seed_from_u64(options.seed ^ ((lane as u64 + 1) << 56));
    let mut draw = drawing(options, lane);
    let mut at = Duration::from_millis(random.random_range(200..600));
    std::iter::from_fn(move || {
        let (fault, lasts) = draw.as_mut()?.draw(&mut random);
        let event = Event { at, fault };
        at += Duration::from_millis(lasts + random.random_range(150..900));
        Some(event)
    })
}

/// What is drawn from.
struct Drawing {
    lane: Lane,
    store: StoreKind,
    relays: usize,
    writers: usize,
    transport: Option<Transport>,
    /// What is left of the faults of the broker that come once in each round.
    deck: Vec<usize>,
}

/// How many relays there are where the store, or a broker, can be reached by several processes.
pub(crate) const RELAYS: usize = 2;
/// How many consumers there are where the store can be reached by several processes.
pub(crate) const CONSUMERS: usize = 2;
/// Primaries of a cluster; each has a replica.
pub(crate) const PRIMARIES: usize = 3;

fn drawing(options: &Options, lane: Lane) -> Option<Drawing> {
    let owned = options.store.is_owned();
    let nothing = match lane {
        Lane::Processes => false,
        Lane::Store => owned,
        Lane::Database => options.database == DatabaseKind::Sqlite,
        Lane::Broker | Lane::Consumers => options.transport.is_none(),
    };
    let alone = owned && options.transport.is_none();
    let relays = if options.delivery == Delivery::Memory || alone { 0 } else { RELAYS };
    // Where the writers are threads of the owner, it is the only process.
    let writers = if alone && options.delivery == Delivery::Memory { 0 } else { options.writers };
    let (store, transport) = (options.store, options.transport);
    let drawing = Drawing { lane, store, relays, writers, transport, deck: Vec::new() };
    (options.faults.contains(&lane) && !nothing).then_some(drawing)
}

impl Drawing {
    /// A fault, and how long it lasts at least.
    fn draw(&mut self, random: &mut StdRng) -> (Fault, u64) {
        match self.lane {
            Lane::Processes => self.processes(random),
            Lane::Store => self.of_store(random),
            Lane::Broker => self.of_broker(random),
            Lane::Consumers => self.consumers(random),
            Lane::Database => {
                let long = random.random_range(50..900);
                match random.random_range(0..10) {
                    0 => (Fault::CrashDatabase(long), long + 1500),
                    _ => (Fault::DatabaseNet(Net::draw(random), long), long),
                }
            }
        }
    }

    fn processes(&self, random: &mut StdRng) -> (Fault, u64) {
        let long = random.random_range(20..900);
        let owner = usize::from(self.store.is_owned() && self.transport.is_none());
        let which = random.random_range(0..self.writers + self.relays + owner);
        let kind = random.random_range(0..10);
        if which < self.writers {
            match kind {
                0..5 => (Fault::KillWriter(which), 300),
                5 => (Fault::RetireWriter(which), 300),
                _ => (Fault::PauseWriter(which, long), long),
            }
        } else if which < self.writers + self.relays {
            let which = which - self.writers;
            if kind < 6 { (Fault::KillRelay(which), 300) } else { (Fault::PauseRelay(which, long), long) }
        } else {
            match kind {
                0..6 => (Fault::KillOwner, 1500),
                6 => (Fault::RetireOwner, 1500),
                _ => (Fault::PauseOwner(long), long),
            }
        }
    }

    /// Every fault comes in each round, so that a short run has all of them.
    fn of_broker(&mut self, random: &mut StdRng) -> (Fault, u64) {
        if self.deck.is_empty() {
            self.deck = (0..10).collect();
        }
        let card = self.deck.swap_remove(random.random_range(0..self.deck.len()));
        let long = random.random_range(50..900);
        // A node of RabbitMQ takes seconds to start.
        let start = if self.transport == Some(Transport::RabbitMq) { 7000 } else { 500 };
        match card {
            0 => (Fault::KillBroker(long), long + start),
            1 => (Fault::KillFrozenBroker(long), long + start),
            // With changes in memory it takes something with it, and only the script of processes kills such.
            2 if self.relays == 0 => (Fault::KillBroker(long), long + start),
            2 => (Fault::KillBrokerAndPublisher(random.random_range(0..self.relays), long), long + start),
            3 => (Fault::RestartBroker(long), long + start),
            4 => (Fault::PauseBroker(long), long),
            5 => (Fault::CloseConnections, 300),
            // Whoever takes silence for a confirmation loses what was sent.
            6 => (Fault::PublisherNet(Net::HalfOpen, long), long),
            7 => (Fault::PublisherNet(Net::draw(random), long), long),
            _ => (Fault::ConsumerNet(Net::draw(random), long), long),
        }
    }

    fn consumers(&self, random: &mut StdRng) -> (Fault, u64) {
        let which = random.random_range(0..if self.store.is_owned() { 1 } else { CONSUMERS });
        let long =
            if random.random_range(0..3) == 0 { random.random_range(2200..4000) } else { random.random_range(20..900) };
        match random.random_range(0..10) {
            0..2 if self.store == StoreKind::Redis => {
                let long = random.random_range(100..600);
                (Fault::KillWaitingConsumer(which, long), long + 500)
            }
            2..4 if self.store == StoreKind::Redis => {
                let long = random.random_range(100..600);
                (Fault::RetireWaitingConsumer(which, long), long + 1500)
            }
            0..6 => (Fault::KillConsumer(which), 500),
            6..8 => (Fault::RetireConsumer(which), 500),
            _ => (Fault::PauseConsumer(which, long), long),
        }
    }

    fn of_store(&self, random: &mut StdRng) -> (Fault, u64) {
        let long = random.random_range(50..1200);
        if self.store == StoreKind::Cluster {
            let which = random.random_range(0..PRIMARIES);
            return match random.random_range(0..10) {
                0..3 => (Fault::Failover(which), 2500),
                3 => (Fault::CrashFailover(which), 7000),
                4..7 => (Fault::PauseStore(which, long), long),
                _ => (Fault::DropClients(which), 0),
            };
        }
        match random.random_range(0..10) {
            0..2 => (Fault::KillStore(0, long), long + 200),
            2..4 => (Fault::PauseStore(0, long), long),
            4 => (Fault::DropClients(0), 0),
            _ => (Fault::StoreNet(Net::draw(random), long), long),
        }
    }
}

impl Net {
    fn draw(random: &mut StdRng) -> Self {
        match random.random_range(0..8) {
            0 => Self::Delay(random.random_range(1..60)),
            1..3 => Self::CutAnswers(random.random_range(0..4000)),
            3 => Self::CutRequests(random.random_range(0..8000)),
            4 => Self::Hold,
            5 => Self::HalfOpen,
            6 => Self::CutAnswers(0),
            _ => Self::Refuse,
        }
    }
}

impl Fault {
    /// What it is called when such faults are counted.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::KillWriter(_) => "kill -9 of a writer",
            Self::RetireWriter(_) => "end of a writer",
            Self::PauseWriter(..) => "SIGSTOP of a writer",
            Self::KillOwner => "kill -9 of the owner",
            Self::RetireOwner => "end of the owner",
            Self::PauseOwner(_) => "SIGSTOP of the owner",
            Self::KillRelay(_) => "kill -9 of a relay",
            Self::PauseRelay(..) => "SIGSTOP of a relay",
            Self::KillConsumer(_) => "kill -9 of a consumer",
            Self::RetireConsumer(_) => "end of a consumer",
            Self::PauseConsumer(..) => "SIGSTOP of a consumer",
            Self::KillWaitingConsumer(..) => "kill -9 of a consumer that waits for the store",
            Self::RetireWaitingConsumer(..) => "end of a consumer that waits for the store",
            Self::KillBroker(_) => "kill -9 of the broker",
            Self::KillFrozenBroker(_) => "kill -9 of the broker after SIGSTOP",
            Self::KillBrokerAndPublisher(..) => "kill -9 of the broker and a relay",
            Self::RestartBroker(_) => "restart of the broker",
            Self::PauseBroker(_) => "SIGSTOP of the broker",
            Self::CloseConnections => "connections of the broker closed",
            Self::PublisherNet(..) => "network of publishers",
            Self::ConsumerNet(..) => "network of consumers",
            Self::KillStore(..) => "kill -9 of the store",
            Self::PauseStore(..) => "SIGSTOP of the store",
            Self::DropClients(_) => "connections of the store closed",
            Self::Failover(_) => "failover",
            Self::CrashFailover(_) => "failover after a kill",
            Self::StoreNet(..) => "network of the store",
            Self::DatabaseNet(..) => "network of the database",
            Self::CrashDatabase(_) => "crash of the database",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:8.3} s  {}", self.at.as_secs_f64(), self.fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::KillWriter(which) => write!(f, "kill -9 of writer {which}"),
            Self::RetireWriter(which) => write!(f, "writer {which} stops in good order"),
            Self::PauseWriter(which, long) => write!(f, "SIGSTOP of writer {which} for {long} ms"),
            Self::KillOwner => f.write_str("kill -9 of the store's owner"),
            Self::RetireOwner => f.write_str("the store's owner stops in good order"),
            Self::PauseOwner(long) => write!(f, "SIGSTOP of the store's owner for {long} ms"),
            Self::KillRelay(which) => write!(f, "kill -9 of relay {which}"),
            Self::PauseRelay(which, long) => write!(f, "SIGSTOP of relay {which} for {long} ms"),
            Self::KillConsumer(which) => write!(f, "kill -9 of consumer {which}"),
            Self::RetireConsumer(which) => write!(f, "consumer {which} stops in good order"),
            Self::PauseConsumer(which, long) => write!(f, "SIGSTOP of consumer {which} for {long} ms"),
            Self::KillWaitingConsumer(which, long) => {
                write!(f, "the store refuses everybody for {long} ms, then kill -9 of consumer {which}")
            }
            Self::RetireWaitingConsumer(which, long) => {
                write!(
                    f,
                    "the store refuses everybody for {long} ms, and until consumer {which} has stopped in good order"
                )
            }
            Self::KillBroker(long) => write!(f, "kill -9 of the broker, down for {long} ms"),
            Self::KillFrozenBroker(long) => write!(f, "SIGSTOP of the broker for {long} ms, then kill -9"),
            Self::KillBrokerAndPublisher(relay, long) => {
                write!(f, "kill -9 of the broker, down for {long} ms, and of relay {relay} meanwhile")
            }
            Self::RestartBroker(long) => write!(f, "the broker stops in good order, down for {long} ms"),
            Self::PauseBroker(long) => write!(f, "SIGSTOP of the broker for {long} ms"),
            Self::CloseConnections => f.write_str("an operator closes the connections of the broker"),
            Self::PublisherNet(net, long) => write!(f, "network of publishers: {net} for {long} ms"),
            Self::ConsumerNet(net, long) => write!(f, "network of consumers: {net} for {long} ms"),
            Self::KillStore(node, long) => write!(f, "kill -9 of store node {node}, down for {long} ms"),
            Self::PauseStore(node, long) => write!(f, "SIGSTOP of store node {node} for {long} ms"),
            Self::DropClients(node) => write!(f, "store node {node} drops every connection"),
            Self::Failover(node) => write!(f, "the replica of store node {node} takes over in good order"),
            Self::CrashFailover(node) => {
                write!(f, "kill -9 of the primary of store node {node}, its replica takes over")
            }
            Self::StoreNet(net, long) => write!(f, "store network: {net} for {long} ms"),
            Self::DatabaseNet(net, long) => write!(f, "database network: {net} for {long} ms"),
            Self::CrashDatabase(long) => write!(f, "crash of the database, down for {long} ms"),
        }
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Delay(long) => write!(f, "{long} ms of delay"),
            Self::CutAnswers(bytes) => write!(f, "cut after {bytes} bytes of answers"),
            Self::CutRequests(bytes) => write!(f, "cut after {bytes} bytes of requests"),
            Self::Hold => f.write_str("nothing arrives"),
            Self::HalfOpen => f.write_str("half open"),
            Self::Refuse => f.write_str("refused"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Lane, script};
    use crate::Outcome;
    use crate::options::Options;

    #[test]
    fn the_same_seed_gives_the_same_script_and_another_one_another() -> Outcome {
        let options = |seed: &str| Options::parse(["--seed", seed, "--transport", "nats"].map(str::to_owned));
        let events = |seed: &str, lane: Lane| -> Outcome<Vec<_>> {
            Ok(script(&options(seed)?.ok_or("no help was asked for")?, lane).take(50).collect())
        };
        for lane in Lane::ALL {
            assert_eq!(events("7", lane)?, events("7", lane)?);
            assert_ne!(events("7", lane)?, events("8", lane)?);
        }
        Ok(())
    }
}
