//! The rows of the table, one file for each group.

mod brokers;
mod fetch;
mod lag;
mod layers;
mod memory;
mod outbox;
mod postgres;
mod size;
mod sqlite;
mod store;
mod stores;

use crate::Result;
use crate::options::Options;
use crate::table::Figure;

/// A row: one measurement, which may give several figures.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) run: fn(&Options) -> Result<Vec<Figure>>,
}

/// All of them, in the order of the table.
pub(crate) const ALL: &[Row] = &[
    row("sqlite-update", "UPDATE by key, SQLite in memory", sqlite::update),
    row("sqlite-insert", "INSERT, SQLite in memory", sqlite::insert),
    row("sqlite-select", "SELECT by key, SQLite in memory", sqlite::select),
    row("wal-insert", "INSERT, autocommit, SQLite file in WAL mode", sqlite::wal_insert),
    row("wal-update", "UPDATE, autocommit, SQLite file in WAL mode", sqlite::wal_update),
    row("postgres-insert", "INSERT, autocommit, Postgres", postgres::insert),
    row("postgres-update", "UPDATE, autocommit, Postgres", postgres::update),
    row("wal-outbox", "the price of the outbox and of triggers, SQLite file in WAL mode", outbox::wal),
    row("postgres-outbox", "the price of the outbox and of triggers, Postgres", outbox::on_postgres),
    row("store-one-key", "rows per second into Redis, one key a model", store::one_key),
    row("store-three-keys", "rows per second into Redis, three keys a model", store::three_keys),
    row("store-cluster", "rows per second into Redis Cluster, three keys a model", store::cluster),
    row("bare-memory", "the store in memory against a map in a lock", stores::memory),
    row("bare-embedded", "the store on disk against fjall", stores::embedded),
    row("bare-million", "a million keys written and read on disk, against fjall", stores::million),
    row("bare-redis", "Redis against redis-rs", stores::single),
    row("bare-cluster", "Redis Cluster against redis-rs", stores::cluster),
    row("bare-nats", "NATS against async-nats", stores::nats),
    row("bare-dynamodb", "DynamoDB, here dynoxide, against the AWS SDK", stores::dynamodb),
    row("through-nats", "commits through NATS JetStream against async-nats, and their lag", brokers::nats),
    row("through-rabbitmq", "commits through RabbitMQ against lapin, and their lag", brokers::rabbitmq),
    row("layers", "what each layer costs a get, over the store in memory", layers::costs),
    row("near-cache", "a hit in the near cache against moka", layers::near_cache),
    row("lag", "from COMMIT to readable at half of that load", lag::run),
    row("fetch", "fetch against GET and decode", fetch::one),
    row("fetch-many", "a hundred at once against one by one", fetch::many),
    row("size", "stored bytes against BSON", size::run),
    row("memory", "peak memory of a backlog of a million changes", memory::run),
];

/// Does what the process that a row measures from outside has to do.
pub(crate) fn run_child(name: &str) -> Result {
    match name {
        "memory" => memory::child(),
        _ => Err(format!("no row has a child called `{name}`").into()),
    }
}

const fn row(name: &'static str, about: &'static str, run: fn(&Options) -> Result<Vec<Figure>>) -> Row {
    Row { name, about, run }
}

/// Their names, for a message.
pub(crate) fn names() -> String {
    ALL.iter().map(|row| row.name).collect::<Vec<_>>().join(", ")
}
