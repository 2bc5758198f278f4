//! The real servers, private to a run.

use std::path::PathBuf;

use diesel::connection::SimpleConnection;
use diesel::pg::Pg;
use diesel::sqlite::Sqlite;
use kvsync::capture::Database;
use tempfile::TempDir;
use xtask::servers::{Postgres, Proxy, Redis, RedisCluster, RedisOptions};

use crate::Outcome;
use crate::broker::Broker;
use crate::faults::SILENCE;
use crate::job::{DatabaseAt, StoreAt};
use crate::models::{Account, Badge, CASCADE, Member, TABLES};
use crate::open::{postgres, sqlite};
use crate::options::{DatabaseKind, Delivery, Options, StoreKind};
use crate::script::PRIMARIES;
use crate::transport::{Side, TransportAt};

const SQLITE_OUTBOX: &str = include_str!("../../kvsync/migrations/sqlite/20250101000000_kvsync_outbox/up.sql");
const POSTGRES_OUTBOX: &str = include_str!("../../kvsync/migrations/postgres/20250101000000_kvsync_outbox/up.sql");

/// Where rows are synced to.
pub(crate) enum Store {
    Memory,
    Embedded(PathBuf),
    Redis(Box<Redis>, Proxy),
    Cluster(RedisCluster),
}

/// Where rows are written.
pub(crate) enum Base {
    Sqlite(String),
    Postgres(Box<Postgres>, Proxy),
}

/// Everything that a run needs; gone when dropped.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) database: Base,
    pub(crate) broker: Option<Broker>,
    folder: TempDir,
}

impl World {
    /// Starts the servers, and makes the tables.
    pub(crate) fn start(options: &Options) -> Outcome<Self> {
        let folder = TempDir::with_prefix("kvsync-torture-")?;
        let store = match options.store {
            StoreKind::Memory => Store::Memory,
            StoreKind::Embedded => Store::Embedded(folder.path().join("store")),
            StoreKind::Redis => {
                // It keeps whatever it acknowledged, as the promises ask.
                let redis = Redis::start(RedisOptions { appendonly: true, ..RedisOptions::default() })?;
                let proxy = Proxy::start(redis.port().ok_or("Redis listens on no port")?)?;
                Store::Redis(Box::new(redis), proxy)
            }
            StoreKind::Cluster => {
                let cluster = RedisCluster::start(PRIMARIES, 1)?;
                cluster.take_for_dead_after(SILENCE)?;
                Store::Cluster(cluster)
            }
        };
        let database = match options.database {
            DatabaseKind::Sqlite => {
                let path = folder.path().join("torture.db").to_string_lossy().into_owned();
                let mut conn = sqlite(&path)?;
                conn.batch_execute(kvsync::capture::SQLITE_COUNTER)?;
                TABLES.iter().try_for_each(|table| conn.batch_execute(table))?;
                Base::Sqlite(path)
            }
            DatabaseKind::Postgres => {
                let server = Postgres::start()?;
                let mut conn = postgres(&server.url())?;
                TABLES.iter().try_for_each(|table| conn.batch_execute(table))?;
                let proxy = Proxy::start(server.port())?;
                Base::Postgres(Box::new(server), proxy)
            }
        };
        let broker = options.transport.map(Broker::start).transpose()?;
        let world = Self { store, database, broker, folder };
        if options.delivery != Delivery::Memory {
            world.make_outbox(options.delivery == Delivery::Triggers)?;
        }
        Ok(world)
    }

    fn make_outbox(&self, triggers: bool) -> Outcome {
        macro_rules! migrate {
            ($backend:ty, $conn:expr, $outbox:expr, $cascade:expr) => {{
                let mut conn = $conn;
                conn.batch_execute($outbox)?;
                if triggers {
                    let database = Database::<$backend>::new("main", || Err::<_, String>("it is never opened".into()));
                    let database = database.triggers::<Account>().triggers::<Badge>().triggers::<Member>();
                    conn.batch_execute(&database.triggers_sql()?.up)?;
                    conn.batch_execute($cascade)?;
                }
            }};
        }
        let [of_sqlite, of_postgres] = CASCADE;
        match &self.database {
            Base::Sqlite(path) => migrate!(Sqlite, sqlite(path)?, SQLITE_OUTBOX, of_sqlite),
            Base::Postgres(server, _) => migrate!(Pg, postgres(&server.url())?, POSTGRES_OUTBOX, of_postgres),
        }
        Ok(())
    }

    /// Where the owner of the store answers for it.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// The broker as this side reaches it, through what goes wrong.
    pub(crate) fn transport_at(&self, side: Side) -> Option<(Side, TransportAt)> {
        self.broker.as_ref().map(|broker| (side, broker.at(side)))
    }

    /// The store as writers reach it, through what goes wrong; or past that.
    pub(crate) fn store_at(&self, through_faults: bool) -> StoreAt {
        match &self.store {
            Store::Memory => StoreAt::Memory,
            Store::Embedded(folder) => StoreAt::Embedded(folder.clone()),
            Store::Redis(redis, proxy) if through_faults => StoreAt::Redis(proxy.url(&redis.url())),
            Store::Redis(redis, _) => StoreAt::Redis(redis.url()),
            Store::Cluster(cluster) => StoreAt::Cluster(cluster.urls()),
        }
    }

    /// The database as writers reach it, through what goes wrong; or past that.
    pub(crate) fn database_at(&self, through_faults: bool) -> DatabaseAt {
        match &self.database {
            Base::Sqlite(path) => DatabaseAt::Sqlite(path.clone()),
            Base::Postgres(server, proxy) if through_faults => DatabaseAt::Postgres(proxy.url(&server.url())),
            Base::Postgres(server, _) => DatabaseAt::Postgres(server.url()),
        }
    }
}
