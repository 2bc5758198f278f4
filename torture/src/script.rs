//! The script of faults: drawn from the seed alone, so that the same seed gives the same script.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::options::{DatabaseKind, Delivery, Options, StoreKind};

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
}

impl Lane {
    pub(crate) const ALL: [Self; 3] = [Self::Processes, Self::Store, Self::Database];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Processes => "processes",
            Self::Store => "store",
            Self::Database => "database",
        }
    }
}

/// The faults of a lane, without end; none where the options leave nothing to go wrong.
pub(crate) fn script(options: &Options, lane: Lane) -> impl Iterator<Item = Event> + use<> {
    let mut random = StdRng::seed_from_u64(options.seed ^ ((lane as u64 + 1) << 56));
    let draw = drawing(options, lane);
    let mut at = Duration::from_millis(random.random_range(200..600));
    std::iter::from_fn(move || {
        let (fault, lasts) = draw.as_ref()?.draw(&mut random);
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
}

/// How many relays there are where the store can be reached by several processes.
pub(crate) const RELAYS: usize = 2;
/// Primaries of a cluster; each has a replica.
pub(crate) const PRIMARIES: usize = 3;

fn drawing(options: &Options, lane: Lane) -> Option<Drawing> {
    let owned = options.store.is_owned();
    let nothing = match lane {
        Lane::Processes => false,
        Lane::Store => owned,
        Lane::Database => options.database == DatabaseKind::Sqlite,
    };
    let relays = if options.delivery == Delivery::Memory || owned { 0 } else { RELAYS };
    // Where the writers are threads of the owner, it is the only process.
    let writers = if owned && options.delivery == Delivery::Memory { 0 } else { options.writers };
    (options.faults.contains(&lane) && !nothing).then_some(Drawing { lane, store: options.store, relays, writers })
}

impl Drawing {
    /// A fault, and how long it lasts at least.
    fn draw(&self, random: &mut StdRng) -> (Fault, u64) {
        match self.lane {
            Lane::Processes => self.processes(random),
            Lane::Store => self.of_store(random),
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
        let owner = usize::from(self.store.is_owned());
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
        let options = |seed: &str| Options::parse(["--seed".to_owned(), seed.to_owned()]);
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
