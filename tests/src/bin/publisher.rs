//! A program that writes rows and publishes them from memory, until it is killed. Says each one that it has committed.

use std::env;

use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::KvSync;
use kvsync::capture::Database;
use kvsync::transport::nats::NatsBroker;
use kvsync::transport::rabbitmq::RabbitMq;
use kvsync_tests::Tested;
use kvsync_tests::users::{User, user, users};

fn main() -> Tested {
    let (url, exchange, file) =
        (env::var("PUBLISHER_URL")?, env::var("PUBLISHER_EXCHANGE")?, env::var("PUBLISHER_DATABASE")?);
    let builder = KvSync::builder();
    let builder = if url.starts_with("nats") {
        builder.broker(NatsBroker::builder([url]).stream(&*exchange).prefix(&*exchange).broker()?)
    } else {
        builder.broker(RabbitMq::builder([url]).exchange(exchange).without_queue().broker()?)
    };
    let database = Database::<Sqlite>::new("main", move || SqliteConnection::establish(&file)).model::<User>();
    let kv = builder.database(database).build()?;
    let mut conn = kv.connect::<Sqlite>("main")?;
    for id in 1..=20 {
        diesel::insert_into(users::table).values(user(id, &format!("e{id}"), "bob")).execute(&mut conn)?;
        println!("{id}");
    }
    loop {
        std::thread::park();
    }
}
