//! The publisher and the consumer, with a broker between them, and what ends each of them in between.

use std::collections::HashMap;

use diesel::prelude::*;
use kvsync::KvSync;
use kvsync_tests::redis::patient;
use kvsync_tests::servers::{Fault, Nats, NatsOptions, Proxy, RabbitMq, RabbitMqOptions, Redis, RedisOptions};
use kvsync_tests::wait::until;
use kvsync_tests::{Tested, env};
use libtest_mimic::Trial;

use super::process::Process;
use super::user::{User, users};
use super::users_store::told;

pub fn trials() -> Vec<Trial> {
    type Case = fn(&mut Place) -> Tested;
    type Restart = fn() -> Tested;
    let cases: [(&str, Case); 2] =
        [("what_is_written_arrives", arrives), ("whoever_is_killed_loses_nothing", whoever_is_killed)];
    let of_case = |(name, case): (&'static str, Case)| {
        let one = move |broker: &'static str, url: fn() -> Tested<String>| {
            Trial::test(format!("two_processes::{broker}::{name}"), move || {
                told(url().and_then(|url| case(&mut Place::new(url)?)))
            })
        };
        [one("rabbitmq", || Ok(env::rabbitmq_url()?)), one("nats", || Ok(env::nats_url()?))]
    };
    let restarts: [(&str, Restart); 2] = [("rabbitmq", rabbitmq_restarts), ("nats", nats_restarts)];
    let restarts = restarts.map(|(broker, case)| {
        Trial::test(format!("two_processes::{broker}::a_restart_of_the_broker_loses_nothing"), move || told(case()))
    });
    cases.into_iter().flat_map(of_case).chain(restarts).collect()
}

/// As many users as are written until the publisher is killed.
const MANY: usize = 1_000_000;

/// A database, an exchange and a store of its own.
struct Place {
    folder: tempfile::TempDir,
    broker: String,
    exchange: String,
    redis: Redis,
}

impl Place {
    fn new(broker: String) -> Tested<Self> {
        let exchange = format!("two-{}-{}", std::process::id(), rand::random::<u32>());
        let redis = Redis::start(RedisOptions::default())?;
        Ok(Self { folder: tempfile::tempdir()?, broker, exchange, redis })
    }

    fn start(&self, example: &str, arguments: &[&str], users: usize) -> Tested<Process> {
        let file = self.folder.path().join("app.db");
        let (file, redis, users) = (file.to_string_lossy(), self.redis.url(), users.to_string());
        let variables = [
            ("KVSYNC_BROKER", &*self.broker),
            ("KVSYNC_EXCHANGE", &self.exchange),
            ("KVSYNC_QUEUE", &self.exchange),
            ("KVSYNC_DATABASE", &file),
            ("KVSYNC_USERS", &users),
            ("KVSYNC_STORE", &redis),
        ];
        Process::start(example, arguments, &variables, self.folder.path())
    }

    /// The publisher, who makes so many users.
    fn publisher(&self, users: usize) -> Tested<Process> {
        self.start("publisher", &[], users)
    }

    fn consumer(&self) -> Tested<Process> {
        self.start("consumer", &["--batch", "16"], 0)
    }

    /// Whoever publishes next delivers what the outbox holds.
    fn delivered(&self) -> Tested {
        // One ends when it has waited for a minute, which a busy machine may not be enough for.
        let mut ended = self.publisher(5)?.ended();
        for _ in 0..4 {
            if ended.is_ok() {
                break;
            }
            ended = self.publisher(0)?.ended();
        }
        let said = ended?;
        assert!(said.contains("0 changes wait in the outbox; "), "{said}");
        Ok(())
    }

    /// Waits until the store has what the database says, under each key, and nothing that is gone.
    fn until_true(&self) -> Tested {
        let mut conn = SqliteConnection::establish(&self.folder.path().join("app.db").to_string_lossy())?;
        let rows: Vec<User> = users::table.select(User::as_select()).load(&mut conn)?;
        // Those of users that are gone, too.
        let mut uuids = self.uuids()?;
        uuids.extend(rows.iter().map(|row| row.uuid.clone()));
        let ids = 1..=rows.iter().map(|row| row.id).max().ok_or("no user was written")? + 3;
        let of_id: HashMap<_, _> = rows.iter().map(|row| (row.id, row.clone())).collect();
        let of_uuid: HashMap<_, _> = rows.iter().map(|row| (&row.uuid, row.clone())).collect();
        let by_id: Vec<_> = ids.clone().map(|id| of_id.get(&id).cloned()).collect();
        let by_uuid: Vec<_> = uuids.iter().map(|uuid| of_uuid.get(uuid).cloned()).collect();
        let kv = KvSync::builder().store(patient([self.redis.url()]).connect()?).build()?;
        until("the store has what the database says", || {
            User::fetch_many_by_id(&kv, ids.clone()).unwrap() == by_id
                && User::fetch_many_by_uuid(&kv, &uuids).unwrap() == by_uuid
        });
        Ok(())
    }

    /// Of all users that were written and told of.
    fn uuids(&self) -> Tested<Vec<String>> {
        let mut uuids = Vec::new();
        for file in std::fs::read_dir(self.folder.path())? {
            let path = file?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("publisher-")) {
                let said = std::fs::read_to_string(path)?;
                let written = said.lines().filter_map(|line| line.strip_prefix("wrote ")?.split_once(' '));
                uuids.extend(written.map(|(_, uuid)| uuid.to_owned()));
            }
        }
        Ok(uuids)
    }
}
fn arrives(place: &mut Place) -> Tested {
    let (publisher, mut consumer) = (place.publisher(12)?, place.consumer()?);
    let said = publisher.ended()?;
    assert!(said.contains("\n0 changes wait in the outbox; "), "{said}");
    // The hook is told of each change once at least: 12 were made, 12 renamed, 4 deleted.
    for (action, times) in [("insert ", 12), ("update ", 12), ("delete ", 4)] {
        consumer.until_said(action, times);
    }
    place.until_true()?;
    let said = consumer.end()?;
    let last = said.lines().last().unwrap_or_default();
    assert!(last.ends_with(" messages acknowledged, 0 dead letters"), "{said}");
    Ok(())
}

/// Three consumers on one queue, one of which is killed in the midst, again and again; a publisher that is killed while
/// it publishes, and one that never reached the broker in its life.
fn whoever_is_killed(place: &mut Place) -> Tested {
    let others = [place.consumer()?, place.consumer()?];
    let proxy = Proxy::start(port_of(&place.broker)?)?;
    let through = proxy.url(&place.broker);
    let direct = std::mem::replace(&mut place.broker, through);
    let publisher = place.publisher(MANY)?;
    for _ in 0..3 {
        let mut victim = place.consumer()?;
        victim.until_said("update ", 3);
        victim.kill()?;
    }
    publisher.kill()?;
    proxy.set(Fault::Refuse);
    let mut publisher = place.publisher(MANY)?;
    publisher.until_said("wrote", 10);
    publisher.kill()?;
    place.broker = direct;
    place.delivered()?;
    place.until_true()?;
    others.into_iter().try_for_each(|consumer| consumer.end().map(drop))
}

fn port_of(url: &str) -> Tested<u16> {
    Ok(url.trim_end_matches('/').rsplit(':').next().ok_or("no port")?.parse()?)
}

fn rabbitmq_restarts() -> Tested {
    let server = RabbitMq::start(&RabbitMqOptions::default())?;
    restarts(&Place::new(server.url())?, || Ok(server.stop()?), || Ok(server.restart()?))
}

fn nats_restarts() -> Tested {
    let server = Nats::start(&NatsOptions::default())?;
    restarts(&Place::new(server.url())?, || Ok(server.kill()?), || Ok(server.restart()?))
}

/// The broker goes and comes while both go on.
fn restarts(place: &Place, stop: impl Fn() -> Tested, start: impl Fn() -> Tested) -> Tested {
    let (mut consumer, mut publisher) = (place.consumer()?, place.publisher(MANY)?);
    consumer.until_said("update ", 5);
    stop()?;
    let written = publisher.said().lines().count();
    publisher.until_said("wrote", written + 5);
    let told = consumer.said().lines().filter(|line| line.starts_with("update ")).count();
    start()?;
    consumer.until_said("update ", told + 5);
    publisher.kill()?;
    place.delivered()?;
    place.until_true()?;
    consumer.end()?;
    Ok(())
}
