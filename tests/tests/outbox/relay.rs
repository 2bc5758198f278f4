//! Rows of an outbox reach the stores, whichever process wrote them and whoever dies.

use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use diesel::connection::SimpleConnection;
use kvsync::change::{CommitToken, OutboxRange};
use kvsync::report::{Outcome, Report};
use kvsync::store::MemoryStore;
use kvsync::{Builder, ErrorKind, KvSync, Lookup};
use kvsync_tests::env;
use kvsync_tests::redis::patient;
use kvsync_tests::servers::{Fault, Proxy};

use super::setup::*;

fn handle(base: &Base, builder: Builder) -> KvSync {
    builder.database(base.database()).outbox_poll(Duration::from_millis(20)).build().unwrap()
}

/// Whether every user answers under both keys.
fn assert_stored(kv: &KvSync, users: &[User]) {
    let ids: Vec<i32> = users.iter().map(|user| user.id).collect();
    let emails: Vec<&str> = users.iter().filter_map(|user| user.email.as_deref()).collect();
    let wanted: Vec<Option<User>> = users.iter().cloned().map(Some).collect();
    assert!(User::fetch_many_by_id(kv, ids).unwrap() == wanted);
    assert!(User::fetch_many_by_email(kv, emails).unwrap() == wanted);
}

#[test]
fn a_restart_drains_what_the_last_process_left() {
    on_both(|base| {
        base.insert(&users(300));
        let kv = handle(base, KvSync::builder().store(MemoryStore::new()));
        kv.flush(LONG).unwrap();
        assert_stored(&kv, &users(300));
        assert_eq!((base.pending(), kv.outbox("main").unwrap().depth().unwrap().delivered), (0, 300));
    });
}

#[test]
fn rows_without_content_are_read_again_before_they_count_as_delivered() {
    on_both(|base| {
        let kv = handle(base, KvSync::builder().store(redis()));
        base.run("INSERT INTO users (id, email, name) VALUES (1, 'a', 'ann'), (2, 'b', 'bob')");
        base.run("INSERT INTO sessions (region, id, token) VALUES ('eu', 9, 'now')");
        for id in 1..=2 {
            base.trigger_row("users", "insert", &base.user_key(id), None);
        }
        let session = if let Base::Sqlite(_) = base { "'eu', 9" } else { r#"{"region": "eu", "id": 9}"# };
        base.trigger_row("sessions", "insert", session, None);
        kv.flush(LONG).unwrap();
        assert_stored(&kv, &[user(1, "a", "ann"), user(2, "b", "bob")]);
        assert_eq!(Session::fetch_by_token(&kv, "now").unwrap().map(|session| session.id), Some(9));
        let old = base.user_row(&user(1, "a", "ann"));
        base.run("UPDATE users SET email = 'c' WHERE id = 1");
        base.trigger_row("users", "update", &base.user_key(1), Some(&old));
        base.run("DELETE FROM users WHERE id = 2");
        base.trigger_row("users", "delete", &base.user_key(2), Some(&base.user_row(&user(2, "b", "bob"))));
        kv.flush(LONG).unwrap();
        assert_stored(&kv, &[user(1, "c", "ann")]);
        for left in ["a", "b"] {
            assert_eq!(User::lookup_by_email(&kv, left).unwrap(), Lookup::Absent);
        }
        assert_eq!(User::lookup_by_id(&kv, 2).unwrap(), Lookup::Absent);
    });
}

#[test]
fn two_relays_share_the_rows_and_do_none_twice() {
    on_both(|base| {
        let store = MemoryStore::new();
        let (written, twice) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let relay = || {
            let (written, twice) = (Arc::clone(&written), Arc::clone(&twice));
            let count = move |report: &Report| {
                if let Report::Key(key) = report
                    && key.key_name == Some("id")
                {
                    let counter = if key.outcome == Outcome::Written { &written } else { &twice };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            };
            handle(base, KvSync::builder().store(store.clone()).on_report(count))
        };
        let (one, other) = (relay(), relay());
        for users in users(600).chunks(50) {
            base.insert(users);
        }
        one.flush(LONG).unwrap();
        other.flush(LONG).unwrap();
        assert_stored(&one, &users(600));
        assert!(one.shutdown(LONG).is_clean() && other.shutdown(LONG).is_clean());
        assert_eq!((written.load(Ordering::Relaxed), twice.load(Ordering::Relaxed)), (600, 0));
    });
}

#[test]
fn a_process_that_relays_nothing_leaves_rows_to_others() {
    on_both(|base| {
        let store = MemoryStore::new();
        let writer = handle(base, KvSync::builder().store(store.clone()).relay(false));
        base.insert(&users(20));
        writer.flush(LONG).unwrap();
        assert_eq!((base.pending(), store.len()), (20, 0));
        let relay = handle(base, KvSync::builder().store(store.clone()));
        relay.flush(LONG).unwrap();
        assert_eq!(base.pending(), 0);
        assert_stored(&writer, &users(20));
    });
}

#[test]
fn a_transaction_that_commits_late_is_not_overlooked() {
    let base = Base::postgres();
    let kv = handle(&base, KvSync::builder().store(MemoryStore::new()));
    let Base::Postgres(fresh) = &base else { unreachable!() };
    let mut late = fresh.connect().unwrap();
    late.batch_execute(&format!("BEGIN; {}", base.captured_row_sql("insert", &user(1, "a", "ann"), None))).unwrap();
    base.insert(&[user(2, "b", "bob")]);
    kv.flush(LONG).unwrap();
    assert_stored(&kv, &[user(2, "b", "bob")]);
    assert_eq!(User::fetch_by_id(&kv, 1).unwrap(), None);
    late.batch_execute("COMMIT").unwrap();
    kv.flush(LONG).unwrap();
    assert_stored(&kv, &[user(1, "a", "ann")]);
}

#[test]
fn a_transaction_that_is_rolled_back_leaves_nothing() {
    on_both(|base| {
        let kv = handle(base, KvSync::builder().store(MemoryStore::new()));
        base.run(&format!("BEGIN; {}; ROLLBACK", base.captured_row_sql("insert", &user(1, "a", "ann"), None)));
        kv.flush(LONG).unwrap();
        assert_eq!((User::fetch_by_id(&kv, 1).unwrap(), base.number("SELECT count(*) FROM kvsync_outbox")), (None, 0));
    });
}

#[test]
fn a_replay_refills_a_store_that_forgot() {
    on_both(|base| {
        let since = SystemTime::now() - Duration::from_secs(1);
        let first = handle(base, KvSync::builder().store(redis()).store(MemoryStore::new()));
        base.insert(&users(100));
        base.run("DELETE FROM users WHERE id = 1");
        base.captured_row("delete", &users(1)[0], None);
        first.flush(LONG).unwrap();
        assert!(first.shutdown(LONG).is_clean());
        // Stores that hold nothing of it.
        let kv = handle(base, KvSync::builder().store(redis()));
        kv.flush(LONG).unwrap();
        assert_eq!(User::fetch_by_id(&kv, 7).unwrap(), None);
        let outbox = kv.outbox("main").unwrap();
        assert_eq!(outbox.replay(SystemTime::now() + Duration::from_mins(1)).unwrap(), 0);
        assert_eq!(outbox.replay(since).unwrap(), 101);
        kv.flush(LONG).unwrap();
        assert_stored(&kv, &users(100)[1..]);
        assert_eq!(User::lookup_by_id(&kv, 1).unwrap(), Lookup::Absent);
        assert_eq!(outbox.depth().unwrap().delivered, 101);
    });
}

#[test]
fn what_was_delivered_is_deleted_once_its_retention_has_passed() {
    on_both(|base| {
        base.insert(&users(700));
        let first = handle(base, KvSync::builder().store(MemoryStore::new()));
        first.flush(LONG).unwrap();
        assert_eq!(base.number("SELECT count(*) FROM kvsync_outbox"), 700);
        drop(first);
        let _kv = handle(base, KvSync::builder().store(MemoryStore::new()).outbox_retention(Duration::ZERO));
        until("purged", || base.number("SELECT count(*) FROM kvsync_outbox") == 0);
    });
}

#[test]
fn a_token_of_another_process_is_waited_for() {
    on_both(|base| {
        let kv = handle(base, KvSync::builder().store(redis()));
        base.insert(&users(5));
        let OutboxRange { first, last, .. } = base.outbox().range().unwrap().unwrap();
        let token = |first, last| CommitToken {
            process: 7,
            sequence: 0,
            rows: Vec::new(),
            outbox: Some(OutboxRange { database: "main".into(), first, last }),
        };
        let sent = serde_json::to_string(&token(first, last)).unwrap();
        kv.wait(&serde_json::from_str(&sent).unwrap(), LONG).unwrap();
        assert_stored(&kv, &users(5));
        base.insert(&[user(6, "e6", "name of 6")]);
        kv.wait(&token(0, i64::MAX), LONG).unwrap();
        assert_stored(&kv, &[user(6, "e6", "name of 6")]);
        let elsewhere = OutboxRange { database: "other".into(), first, last };
        let error = kv.wait(&CommitToken { outbox: Some(elsewhere), ..token(1, 1) }, LONG).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
    });
}

/// What a child process is told.
const CHILD: &str = "KVSYNC_OUTBOX_CHILD";

#[test]
fn when_a_relay_is_killed_in_the_middle_another_delivers_what_it_held() {
    on_both(|base| {
        let redis_url = env::redis_url().unwrap();
        let port = redis_url.trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap();
        let prefix = format!("outbox:{:x}:", rand::random::<u64>());
        let slow = Proxy::start(port).unwrap();
        slow.set(Fault::Delay(Duration::from_millis(100)));
        let count = |which: &str| base.number(&format!("SELECT count(*) FROM kvsync_outbox WHERE {which}"));
        let delivered = || count("delivered_at IS NOT NULL");
        let mut all: Vec<User> = Vec::new();
        until("a child held rows when it was killed", || {
            // Where we were held up, the last one has delivered all it had: then there is more.
            let before = delivered();
            let more = users(i32::try_from(all.len()).unwrap() + 1500).split_off(all.len());
            base.insert(&more);
            all.extend(more);
            let mut child = Killed(child(base, &slow.url(&redis_url), &prefix));
            until("the child delivers", || delivered() > before);
            child.0.kill().unwrap();
            child.0.wait().unwrap();
            count("delivered_at IS NULL AND claimed_by IS NOT NULL") > 0
        });
        let store = patient([redis_url.clone()]).prefix(&prefix).connect().unwrap();
        let kv = handle(base, KvSync::builder().store(store));
        kv.flush(LONG).unwrap();
        assert_stored(&kv, &all);
        assert_eq!(delivered(), i64::try_from(all.len()).unwrap());
    });
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn child(base: &Base, redis_url: &str, prefix: &str) -> Child {
    let kind = if let Base::Sqlite(_) = base { "sqlite" } else { "postgres" };
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "relay::a_process_that_is_killed"])
        .env(CHILD, format!("{kind}\n{}\n{redis_url}\n{prefix}", base.url()))
        .spawn()
        .unwrap()
}

/// Does nothing as a test; as a child process it delivers until it is killed.
#[test]
fn a_process_that_is_killed() {
    let Ok(job) = std::env::var(CHILD) else { return };
    let [kind, url, redis_url, prefix] = job.split('\n').collect::<Vec<_>>().try_into().unwrap();
    let store = patient([redis_url]).prefix(prefix).connect().unwrap();
    // One connection and small turns, so that there is a middle.
    let builder = KvSync::builder().store(store).workers(1).outbox_lease(Duration::from_secs(1));
    let _kv = builder.database(database(kind, url)).build().unwrap();
    std::thread::sleep(LONG);
}
