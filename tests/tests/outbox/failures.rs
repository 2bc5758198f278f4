//! Changes that cannot be delivered, stores and databases that are down.

use std::fmt::Write as _;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::pg::Pg;
use diesel::prelude::*;
use kvsync::store::{MemoryStore, Status};
use kvsync::worker::Backoff;
use kvsync::{ErrorKind, KvSync, Lookup};
use kvsync_tests::redis::patient;
use kvsync_tests::servers::{Fault, Postgres, Proxy, Redis, RedisOptions};

use super::setup::*;

const QUICK: Backoff = Backoff { min: Duration::from_millis(1), max: Duration::from_millis(5) };

fn handle(base: &Base, store: MemoryStore) -> KvSync {
    let builder = KvSync::builder().store(store).outbox_poll(Duration::from_millis(20));
    builder.outbox_attempts(3, QUICK).database(base.database()).build().unwrap()
}

#[test]
fn connections_that_break_cost_no_attempts() {
    let base = Base::postgres();
    let Base::Postgres(fresh) = &base else { unreachable!() };
    let kv =
        KvSync::builder().store(MemoryStore::new()).database(base.database()).outbox_poll(Duration::from_millis(1));
    let kv = kv.build().unwrap();
    let (mut conn, url) = (fresh.connect().unwrap(), fresh.url());
    // Breaks connections while they read what rows of the outbox show.
    let breaker = std::thread::spawn(move || {
        let mut conn = PgConnection::establish(&url).unwrap();
        let (mut broken, deadline) = (0, std::time::Instant::now() + LONG);
        while broken < 3 && std::time::Instant::now() < deadline {
            let broke = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE state = 'active' \
                         AND datname = current_database() AND pid <> pg_backend_pid() \
                         AND query LIKE '%SELECT CAST(0 AS bigint)%'";
            broken += diesel::dsl::sql::<diesel::sql_types::BigInt>(broke).get_result::<i64>(&mut conn).unwrap();
        }
        broken
    });
    let mut id = 0;
    while !breaker.is_finished() {
        let mut statements = "BEGIN;".to_owned();
        for _ in 0..50 {
            id += 1;
            let row = base.trigger_row_sql("users", "insert", &base.user_key(id), None);
            write!(statements, "INSERT INTO users (id, name) VALUES ({id}, 'ann'); {row};").unwrap();
        }
        conn.batch_execute(&format!("{statements} COMMIT")).unwrap();
    }
    assert!(breaker.join().unwrap() >= 3);
    kv.flush(LONG).unwrap();
    assert_eq!(base.number("SELECT count(*) FROM kvsync_outbox WHERE attempts > 0 OR delivered_at IS NULL"), 0);
}

#[test]
fn a_poison_change_blocks_no_other_and_ends_as_a_dead_letter_with_its_error() {
    on_both(|base| {
        let kv = handle(base, MemoryStore::new());
        let mut all = users(20);
        all[3].name = Touchy("poison".into());
        all[7].name = Touchy("panic".into());
        base.insert(&all);
        base.trigger_row("users", "insert", "what is this", None);
        let outbox = kv.outbox("main").unwrap();
        until("dead letters", || outbox.depth().unwrap().dead == 3);
        kv.flush(LONG).unwrap();
        let well = all.iter().filter(|user| user.id != 4 && user.id != 8);
        for user in well {
            assert_eq!(User::fetch_by_id(&kv, user.id).unwrap().as_ref(), Some(user));
        }
        assert!(matches!(User::lookup_by_id(&kv, 4).unwrap(), Lookup::Unknown(_)), "its readers ask the database");
        let dead = outbox.dead_letters(0, 10).unwrap();
        for (dead, reason) in dead.iter().zip(["it is poison", "panicked", "cannot read"]) {
            assert!(dead.error.contains(reason) || dead.error.contains("quote()"), "{dead:?}");
            assert_eq!(dead.attempts, 3);
        }
        until("health", || kv.health(LONG).details.iter().any(|detail| detail.contains("3 dead letters")));
        assert_eq!((kv.health(LONG).status, kv.health(LONG).pipeline.dirty.len()), (Status::Degraded, 1));

        // The cause is cured: the row is written otherwise, and the dead letter is read again.
        base.run("UPDATE users SET name = 'cured' WHERE id = 4");
        base.run("UPDATE kvsync_outbox SET content = NULL WHERE dead_at IS NOT NULL AND content IS NOT NULL");
        assert_eq!(outbox.retry(&[dead[0].id]).unwrap(), 1);
        kv.flush(LONG).unwrap();
        assert_eq!(User::fetch_by_id(&kv, 4).unwrap().map(|user| user.name.0), Some("cured".to_owned()));
        assert_eq!((outbox.discard(&[dead[1].id]).unwrap(), outbox.discard_all().unwrap()), (1, 1));
        assert_eq!(outbox.depth().unwrap().dead, 0);
        // What is over degrades nothing any more; it is told with its age.
        kv.clear_dirty("main", Some("users"));
        until("health is well", || kv.health(LONG).status == Status::Up);
        let health = kv.health(LONG);
        assert!(health.pipeline.stores[0].last_error.is_some() && !health.pipeline.stores[0].failing, "{health:?}");
        assert!(health.details.iter().any(|detail| detail.contains("went on: ")), "{health:?}");
    });
}

#[test]
fn who_waits_for_a_commit_is_told_that_it_could_not_be_delivered() {
    on_both(|base| {
        let kv = handle(base, MemoryStore::new());
        base.insert(&[user(1, "a", "poison")]);
        let range = base.outbox().range().unwrap();
        let token = kvsync::change::CommitToken { process: 7, sequence: 0, rows: Vec::new(), outbox: range };
        let error = kv.wait(&token, LONG).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected);
        assert!(error.to_string().contains("poison"), "{error}");
    });
}

#[test]
fn a_store_that_is_down_loses_nothing_fills_no_memory_and_holds_up_no_other() {
    on_both(|base| {
        let redis = Redis::start(RedisOptions::default()).unwrap();
        let builder = KvSync::builder()
            .store(MemoryStore::new())
            .store(patient([redis.url()]).connect().unwrap())
            .outbox_poll(Duration::from_millis(20))
            // Room for some 64 rows at a time.
            .queue_bytes(1 << 20);
        let kv = builder.database(base.database()).build().unwrap();
        redis.kill().unwrap();
        let all = users(1500);
        for some in all.chunks(500) {
            base.insert(some);
        }
        let ids = || all.iter().map(|user| user.id).collect::<Vec<_>>();
        until("the other store has all", || User::fetch_many_by_id(&kv, ids()).unwrap().iter().all(Option::is_some));
        let health = kv.health(LONG).pipeline;
        assert!(health.outboxes[0].in_flight <= 256, "{health:?}");
        assert!(health.stores.iter().all(|store| store.queued.bytes < 1 << 19 && store.unsettled < 200), "{health:?}");
        assert!(health.dirty.is_empty(), "{health:?}");
        assert_eq!(kv.flush(Duration::from_millis(50)).unwrap_err().kind(), ErrorKind::Deadline);
        assert!(base.pending() > 0);
        redis.restart().unwrap();
        kv.flush(LONG).unwrap();
        assert_eq!(base.pending(), 0);
        let reader = KvSync::builder().store(patient([redis.url()]).connect().unwrap()).build().unwrap();
        assert!(User::fetch_many_by_id(&reader, ids()).unwrap().iter().all(Option::is_some));
        assert!(kv.health(LONG).pipeline.dirty.is_empty());
    });
}

#[test]
fn a_store_that_forgot_is_filled_again_by_whoever_was_told_to() {
    let base = Base::postgres();
    let redis = Redis::start(RedisOptions::default()).unwrap();
    let store = patient([redis.url()]).connect().unwrap();
    let builder = KvSync::builder().store(store).upkeep_every(Duration::from_millis(50)).outbox_replays();
    let kv = builder.database(base.database()).build().unwrap();
    base.insert(&users(50));
    kv.flush(LONG).unwrap();
    // The mark by which it is noticed is written at the next upkeep.
    let marked = || redis.cli(&["KEYS", "*incarnation"]).unwrap().contains("incarnation");
    until("the store is marked", marked);
    redis.kill().unwrap();
    redis.restart().unwrap();
    let stored =
        || User::fetch_many_by_id(&kv, (1..=50).collect::<Vec<_>>()).is_ok_and(|rows| rows.iter().all(Option::is_some));
    until("it is filled again", stored);
}

#[test]
fn a_database_that_is_down_for_a_while_is_asked_again() {
    let server = Postgres::start().unwrap();
    let url = server.create_database("app").unwrap();
    let mut conn = PgConnection::establish(&url).unwrap();
    conn.batch_execute(include_str!("../../../kvsync/migrations/postgres/20250101000000_kvsync_outbox/up.sql"))
        .unwrap();
    conn.batch_execute(TABLES).unwrap();
    let kv = KvSync::builder().store(MemoryStore::new()).database(database("postgres", &url)).build().unwrap();
    kv.flush(LONG).unwrap();
    server.kill().unwrap();
    until("health tells", || kv.health(LONG).details.iter().any(|detail| detail.contains("cannot be asked")));
    server.restart().unwrap();
    let mut conn = kv.connect::<Pg>("main").unwrap();
    diesel::insert_into(users::table).values((users::id.eq(1), users::name.eq("ann"))).execute(&mut conn).unwrap();
    kv.wait(conn.last_commit().unwrap(), LONG).unwrap();
    assert_eq!(User::fetch_by_id(&kv, 1).unwrap().map(|user| user.name.0), Some("ann".to_owned()));
    until("health is well", || !kv.health(LONG).details.iter().any(|detail| detail.contains("cannot be asked")));
}

#[test]
fn a_database_that_falls_silent_is_named_and_waited_for_by_nobody() {
    let base = Base::postgres();
    let port: u16 = base.url().rsplit(':').next().unwrap().split('/').next().unwrap().parse().unwrap();
    let proxy = Proxy::start(port).unwrap();
    let kv =
        KvSync::builder().store(MemoryStore::new()).database(database("postgres", &proxy.url(&base.url()))).build();
    let kv = kv.unwrap();
    kv.flush(LONG).unwrap();
    let outbox = || kv.health(LONG).pipeline.outboxes.remove(0);
    until("its outbox is seen", || outbox().depth.is_some());
    // A row that is not due for long.
    let row = base.captured_row_sql("insert", &user(1, "a", "ann"), None);
    base.run(&format!("BEGIN; {row}; UPDATE kvsync_outbox SET due_at = 4000000000000000; COMMIT"));
    kv.outbox("main").unwrap().retry_all().unwrap();
    until("the row that waits has an age", || outbox().oldest_age.is_some());
    assert!(outbox().seen_age.is_some() && outbox().silent.is_none());

    proxy.set(Fault::Hold);
    let told =
        || kv.health(LONG).details.into_iter().find(|detail| detail.contains("the database main has not answered"));
    until("health tells", || told().is_some());
    assert!(kv.health(LONG).status == Status::Degraded && outbox().silent.is_some());
    proxy.heal();
    until("health is well", || told().is_none());
    base.run("DELETE FROM kvsync_outbox");
}

#[test]
fn an_outbox_that_cannot_be_asked_is_named() {
    on_both(|base| {
        base.run("ALTER TABLE kvsync_outbox RENAME TO elsewhere");
        let kv = handle(base, MemoryStore::new());
        let error = kv.flush(LONG).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("migration"), "{error}");
        let named =
            || kv.health(LONG).details.iter().any(|detail| detail.contains("the outbox of main cannot be asked"));
        until("health", named);
        base.run("ALTER TABLE elsewhere RENAME TO kvsync_outbox");
        base.insert(&[user(1, "a", "ann")]);
        until("it answers again", || User::fetch_by_id(&kv, 1).unwrap().is_some());
        until("health is well", || !named());
    });
}
