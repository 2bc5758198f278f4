//! The command line.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::script::Lane;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
Usage: cargo xtask torture [options]

Several processes write through kvsync while a script of faults runs; at the end every row and every key in the
store is compared with the database, and so is every version that readers saw.

  --store memory|embedded|redis|cluster   where rows are synced to; redis
  --db sqlite|postgres                    where they are written; postgres
  --delivery memory|outbox|triggers       how changes travel; memory
  --transport none|rabbitmq|nats          through which broker: processes that write (with an outbox: that deliver it)
                                          publish, and consumers write into the store; none
  --writers N                             processes that write, or threads where one process owns the store and changes
                                          travel in memory; 4
  --rows N                                primary keys of the largest table; 400, or 40000 with a broker: what is written
                                          seldom shows for longer that something was lost
  --seconds N                             how long they write; 10
  --writes N                              write until so many rows were written instead
  --seed N                                what the script and the writers draw from; the same seed gives the same script
  --faults none|all|LANE,..               what goes wrong, of processes, store, database, broker and consumers; all
  --script                                print the script of such a run, its first minute at most, and end

With a broker the same is looked for: readers and the comparison at the end see the store, whoever writes into it. Before
that every queue has to be empty, and no dead letter there. With `--delivery memory` only the kill of a writer may take
something with it, with an outbox nothing may. A broker is not given: a store in memory, which forgets what its consumer
has acknowledged; and publishers whose memory overflows, which runs without a broker have.

The last line is `writes=.. faults=.. stale=0 ghost=0 orphan=0 resurrected=0 backwards=0 lost=0`. The exit code is 0
when all of these are zero and nothing else failed, and 1 otherwise; 2 when the arguments make no sense, 3 when the
servers cannot be started, 130 after an interruption.
";

/// Where rows are synced to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreKind {
    Memory,
    Embedded,
    Redis,
    Cluster,
}

/// Where rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DatabaseKind {
    Sqlite,
    Postgres,
}

/// How changes travel from the database to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Delivery {
    Memory,
    Outbox,
    Triggers,
}

/// Through which broker changes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    RabbitMq,
    Nats,
}

/// When the writers stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    After(Duration),
    Writes(u64),
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) store: StoreKind,
    pub(crate) database: DatabaseKind,
    pub(crate) delivery: Delivery,
    pub(crate) transport: Option<Transport>,
    pub(crate) writers: usize,
    pub(crate) rows: i32,
    pub(crate) end: End,
    pub(crate) seed: u64,
    pub(crate) faults: Vec<Lane>,
    pub(crate) script_only: bool,
}

impl StoreKind {
    /// Whether one process owns the store, so that the others cannot reach it.
    pub(crate) fn is_owned(self) -> bool {
        matches!(self, Self::Memory | Self::Embedded)
    }
}

impl Options {
    /// Reads the arguments; nothing when they ask for help.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Outcome<Option<Self>> {
        let mut options = Self {
            store: StoreKind::Redis,
            database: DatabaseKind::Postgres,
            delivery: Delivery::Memory,
            transport: None,
            writers: 4,
            rows: 400,
            end: End::After(Duration::from_secs(10)),
            seed: rand::random_range(0..1_000_000),
            faults: Lane::ALL.to_vec(),
            script_only: false,
        };
        let (mut arguments, mut counted) = (arguments.into_iter(), false);
        while let Some(argument) = arguments.next() {
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (argument, None),
            };
            match name.as_str() {
                "--help" | "-h" => return Ok(None),
                "--script" => {
                    options.script_only = true;
                    continue;
                }
                "--store" | "--db" | "--delivery" | "--transport" | "--writers" | "--rows" | "--seconds"
                | "--writes" | "--seed" | "--faults" => {}
                _ => return Err(format!("there is no option `{name}`").into()),
            }
            let value = value.or_else(|| arguments.next()).ok_or_else(|| format!("{name} needs a value"))?;
            options.set(&name, &value)?;
            counted |= name == "--rows";
        }
        if options.transport.is_some() && !counted {
            options.rows = 40_000;
        }
        if !(1..=256).contains(&options.writers) || !(1..=1_000_000_000).contains(&options.rows) {
            return Err("--writers takes 1 to 256, --rows 1 to 1000000000".into());
        }
        if options.store == StoreKind::Memory && options.transport.is_some() {
            return Err(
                "a store in memory forgets what its consumer has acknowledged; take another with a transport".into()
            );
        }
        Ok(Some(options))
    }

    fn set(&mut self, name: &str, value: &str) -> Outcome {
        match name {
            "--store" => {
                self.store = match value {
                    "memory" => StoreKind::Memory,
                    "embedded" => StoreKind::Embedded,
                    "redis" => StoreKind::Redis,
                    "cluster" => StoreKind::Cluster,
                    _ => return Err(unknown("store", value, "memory, embedded, redis, cluster")),
                }
            }
            "--db" => {
                self.database = match value {
                    "sqlite" => DatabaseKind::Sqlite,
                    "postgres" => DatabaseKind::Postgres,
                    _ => return Err(unknown("database", value, "sqlite, postgres")),
                }
            }
            "--delivery" => {
                self.delivery = match value {
                    "memory" => Delivery::Memory,
                    "outbox" => Delivery::Outbox,
                    "triggers" => Delivery::Triggers,
                    _ => return Err(unknown("delivery", value, "memory, outbox, triggers")),
                }
            }
            "--transport" => {
                self.transport = match value {
                    "none" => None,
                    "rabbitmq" => Some(Transport::RabbitMq),
                    "nats" => Some(Transport::Nats),
                    _ => return Err(unknown("transport", value, "none, rabbitmq, nats")),
                }
            }
            "--faults" => {
                self.faults = match value {
                    "none" => Vec::new(),
                    "all" => Lane::ALL.to_vec(),
                    lanes => lanes.split(',').map(lane).collect::<Outcome<_>>()?,
                }
            }
            "--writers" => self.writers = number(name, value)?,
            "--rows" => self.rows = number(name, value)?,
            "--seconds" => self.end = End::After(Duration::from_secs(number(name, value)?)),
            "--writes" => self.end = End::Writes(number(name, value)?),
            "--seed" => self.seed = number(name, value)?,
            _ => return Err(format!("there is no option `{name}`").into()),
        }
        Ok(())
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { store, database, delivery, transport, writers, rows, end, seed, .. } = self;
        let words = format!("--store {store:?} --db {database:?} --delivery {delivery:?}").to_lowercase();
        f.write_str(&words)?;
        if let Some(transport) = transport {
            write!(f, " --transport {}", format!("{transport:?}").to_lowercase())?;
        }
        write!(f, " --writers {writers} --rows {rows}")?;
        match end {
            End::After(time) => write!(f, " --seconds {}", time.as_secs())?,
            End::Writes(writes) => write!(f, " --writes {writes}")?,
        }
        write!(f, " --seed {seed}")?;
        match self.faults.as_slice() {
            [] => f.write_str(" --faults none"),
            lanes if lanes == Lane::ALL => Ok(()),
            lanes => write!(f, " --faults {}", lanes.iter().map(|lane| lane.name()).collect::<Vec<_>>().join(",")),
        }
    }
}

fn unknown(what: &str, name: &str, known: &str) -> Box<dyn std::error::Error + Send + Sync> {
    format!("there is no {what} `{name}`, only {known}").into()
}

fn lane(name: &str) -> Outcome<Lane> {
    let found = Lane::ALL.into_iter().find(|lane| lane.name() == name);
    let known = Lane::ALL.map(Lane::name).join(", ");
    found.ok_or_else(|| format!("--faults takes none, all, or some of {known}, and not `{name}`").into())
}

fn number<T: std::str::FromStr<Err: fmt::Display>>(name: &str, value: &str) -> Outcome<T> {
    value.parse().map_err(|error| format!("{name} takes a number, not `{value}`: {error}").into())
}

#[cfg(test)]
mod tests {
    use super::Options;
    use crate::Outcome;

    fn parse(line: &str) -> Outcome<Option<Options>> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn what_it_prints_it_reads() -> Outcome {
        for line in [
            "--store cluster --db sqlite --delivery outbox --writers 3 --rows 50 --writes 7 --seed 9",
            "--store redis --db postgres --delivery memory --writers 4 --rows 20 --seconds 7 --seed 9 --faults store,database",
            "--store redis --db postgres --delivery memory --writers 4 --rows 20 --seconds 7 --seed 9 --faults none",
            "--store redis --db postgres --delivery outbox --transport rabbitmq --writers 4 --rows 20 --seconds 7 --seed 9",
        ] {
            let options = parse(line)?.ok_or("no help was asked for")?;
            assert_eq!(options.to_string(), line);
            assert_eq!(parse(&options.to_string())?, Some(options));
        }
        Ok(())
    }

    #[test]
    fn what_it_does_not_know_is_an_error() -> Outcome {
        for line in [
            "--store disk",
            "--seconds",
            "--seconds x",
            "--rows 0",
            "--writers 0",
            "--seed -1",
            "--colour red",
            "--faults disk",
            "--transport pigeon",
            "--store memory --transport nats",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert_eq!(parse("--help")?, None);
        Ok(())
    }
}
