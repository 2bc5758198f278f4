//! A program that mounts kvsync's consumer, as the tests run it: with a broker of its own, in which rows wait.

use std::env;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::capture::Database;
use kvsync::consumer::ConsumerBuilder;
use kvsync::store::EmbeddedStore;
use kvsync::transport::{Broker, MemoryBroker, Message, Subscription};
use kvsync::{Consumer, Error, ErrorKind, KvSync};
use kvsync_tests::users::{TABLE, User, user, users};

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn build() -> Result<ConsumerBuilder, Failure> {
    if env::var_os("CONSUMER_UNTIL").is_some_and(|file| !Path::new(&file).exists()) {
        return Err(Box::new(Error::new(ErrorKind::Unavailable, "redis at redis://app:secret@host is away")));
    }
    let broker = MemoryBroker::new();
    let queue = broker.queue("all");
    let database = Database::<Sqlite>::new("main", || SqliteConnection::establish(":memory:")).model::<User>();
    let kv = KvSync::builder().broker(broker.clone()).database(database).build()?;
    let mut conn = kv.connect::<Sqlite>("main")?;
    conn.batch_execute(TABLE)?;
    for id in 0..env::var("CONSUMER_ROWS")?.parse()? {
        let row = user(id, &format!("e{id}"), "ann");
        diesel::insert_into(users::table).values(row).execute(&mut conn)?;
    }
    kv.flush(Duration::from_mins(1))?;
    if env::var_os("CONSUMER_GARBAGE").is_some() {
        let (id, content_type, body) = (String::new(), "text/plain", "garbage".into());
        let garbage = Message { table: "users".into(), action: "create", id, content_type, body };
        broker.publish(&[garbage]).into_iter().collect::<Result<(), _>>()?;
    }
    if env::var_os("CONSUMER_DEAD").is_some() {
        queue.receive(3, Duration::ZERO)?.into_iter().for_each(|arrival| arrival.dead("by hand"));
    }
    if env::var_os("CONSUMER_AWAY").is_some() {
        broker.set_up(false);
    }
    let builder = Consumer::builder().subscription(queue).store(EmbeddedStore::open(env::var("CONSUMER_STORE")?)?);
    Ok(match env::var_os("CONSUMER_STUCK") {
        Some(_) => builder.on_change::<User>(|_| {
            loop {
                std::thread::park();
            }
        }),
        None => builder,
    })
}

fn main() -> ExitCode {
    kvsync::cli::consume(build)
}
