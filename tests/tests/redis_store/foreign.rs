//! What stands under a key and is not ours is left alone, and fails no other step.

use std::sync::Arc;

use kvsync::envelope::{Head, State, Value};
use kvsync::record::{Order, Write};
use kvsync::store::{Outcome, Step, SyncStore};
use kvsync::{ErrorKind, Key};
use kvsync_tests::redis::patient;
use kvsync_tests::servers::{Redis, RedisOptions};
use kvsync_tests::wait::LONG;
use kvsync_tests::{Tested, env};
use redis::Commands;

use super::{done, prefix, put, stands, terms, version, write};

/// A list, text, an entry of a newer layout, the beginning of an entry; and what is said of each.
const STRANGE: [(&str, ErrorKind); 4] = [
    ("list", ErrorKind::Corrupt),
    ("text", ErrorKind::Corrupt),
    ("layout", ErrorKind::UnknownLayout),
    ("short", ErrorKind::Corrupt),
];

fn spoil(redis: &mut impl Commands, prefix: &str) {
    let key = |name: &str| format!("{prefix}{name}");
    let _: () = redis.rpush(key("list"), "element").unwrap();
    let _: () = redis.set(key("text"), "hello, world, this is no entry of anybody's").unwrap();
    let _: () = redis.set(key("layout"), [&[0x98, 0x02][..], &[0; 80]].concat()).unwrap();
    let _: () = redis.set(key("short"), [0x98, 0x01, 0xc4, 0x10, 0, 0].as_slice()).unwrap();
}

fn dump(redis: &mut impl Commands, prefix: &str) -> Vec<Vec<u8>> {
    let dump = |(name, _): (&str, _)| redis::cmd("DUMP").arg(format!("{prefix}{name}")).take();
    STRANGE.map(dump).iter().map(|dump| redis::from_redis_value(redis.req_command(dump).unwrap()).unwrap()).collect()
}

/// Every kind of step on every strange key, among steps on keys that are well.
fn all_is_left_alone(store: &dyn SyncStore, redis: &mut impl Commands, prefix: &str) {
    spoil(redis, prefix);
    let before = dump(redis, prefix);
    let whole = store.capabilities().whole_changes;
    let ending = |key: &str| {
        let head = Head { version: version(1), state: State::Value, expires_at: terms().now + 3_600_000 };
        Step::Write(Write { key: Key::new(key), head, value: Value::none(), order: Order::Register })
    };
    let large = |key: &str| {
        let head = Head { version: version(1), state: State::Value, expires_at: 0 };
        let value = Value::model(1, &[], &[b'x'; 5_000]);
        Step::Write(Write { key: Key::new(key), head, value, order: Order::Slot })
    };
    let on = |kind: usize, key: &str, at: u64| match kind {
        0 => write(key, at),
        1 => ending(key),
        2 => large(key),
        3 => Step::Merge(put(key, at, &[])),
        4 => Step::Confirm { home: Key::new(key), released: vec![(Key::new("x"), version(1))] },
        5 => Step::Apply(put(key, at, &[])),
        _ => Step::Apply(put(&format!("home of {key}"), at, &[key])),
    };
    for kind in 0..if whole { 7 } else { 5 } {
        // Entries that end and those that do not are distinct batches; fresh keys, to be free at first.
        let good: Vec<String> = (0..=STRANGE.len()).map(|number| format!("good{kind}.{number}")).collect();
        let mut steps = Vec::new();
        for (index, name) in good.iter().enumerate() {
            steps.push(on(kind, name, 1));
            steps.extend(STRANGE.get(index).map(|(name, _)| on(kind, name, 1)));
        }
        let answers = store.execute(&steps, &terms());
        for (answer, index) in answers.iter().zip(0..) {
            if index % 2 == 0 {
                assert!(answer.is_ok(), "kind {kind}: {:?}: {answer:?}", steps[index]);
            } else {
                let (name, wanted) = STRANGE[index / 2];
                let error = answer.as_ref().expect_err("a strange key was taken");
                assert_eq!(error.kind(), wanted, "kind {kind}, {name}: {error}");
                assert!(error.to_string().contains(&format!("`{name}`")), "kind {kind}, {name}: {error}");
            }
        }
        assert!(dump(redis, prefix) == before, "kind {kind} changed a strange key");
        if kind == 6 {
            // A change is all or nothing.
            assert_eq!(store.get_many(&[Key::new("home of text"), Key::new("home of list")]).unwrap(), [None, None]);
        }
    }
}

#[test]
fn on_one_server() -> Tested {
    let prefix = prefix("foreign");
    let store = patient([env::redis_url()?]).prefix(&prefix).connect()?;
    let mut redis = redis::Client::open(env::redis_url()?)?.get_connection()?;
    all_is_left_alone(&store, &mut redis, &prefix);
    let error = store.get_many(&[Key::new("list")]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    Ok(())
}

#[test]
fn in_a_cluster() -> Tested {
    let prefix = prefix("foreign");
    let store = patient(env::redis_cluster_urls()?).prefix(&prefix).cluster()?;
    let mut redis = redis::cluster::ClusterClient::new(env::redis_cluster_urls()?)?.get_connection()?;
    all_is_left_alone(&store, &mut redis, &prefix);
    Ok(())
}

#[test]
fn an_epoch_that_is_none_is_an_error() -> Tested {
    let prefix = prefix("foreign-epoch");
    let store = patient([env::redis_url()?]).prefix(&prefix).connect()?;
    let mut redis = redis::Client::open(env::redis_url()?)?.get_connection()?;
    let _: () = redis.set(format!("{prefix}!epoch"), "seven")?;
    for error in [store.epoch().unwrap_err(), store.raise_epoch(9).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
    assert_eq!(redis.get::<_, String>(format!("{prefix}!epoch"))?, "seven");
    Ok(())
}

#[test]
fn redis_keeps_an_entry_as_long_as_it_lives_and_a_record_longer() -> Tested {
    let prefix = prefix("foreign-ends");
    let store = patient([env::redis_url()?]).prefix(&prefix).connect()?;
    let mut redis = redis::Client::open(env::redis_url()?)?.get_connection()?;
    let terms = terms();
    let ends = terms.now + 3_600_000;
    let entry = |key: &str, expires_at| {
        let head = Head { version: version(1), state: State::Value, expires_at };
        Step::Write(Write { key: Key::new(key), head, value: Value::none(), order: Order::Register })
    };
    let row = |home: &str, keys: &[&str]| {
        let mut change = (*put(home, 1, keys)).clone();
        if let kvsync::record::Content::Put { expires_at, .. } = &mut change.content {
            *expires_at = ends;
        }
        Arc::new(change)
    };
    let steps = [
        entry("one", ends),
        entry("many1", ends),
        entry("many2", 0),
        Step::Merge(row("merged", &[])),
        Step::Apply(row("applied", &["slot"])),
        Step::Apply(put("for ever", 1, &["slot for ever"])),
        Step::Apply(Arc::new(kvsync::record::Delta {
            content: kvsync::record::Content::Delete,
            ..(*put("dead", 1, &[])).clone()
        })),
    ];
    done(&store, &steps[..1]);
    done(&store, &steps[1..]);
    let mut left = |key: &str| -> i64 { redis.pttl(format!("{prefix}{key}")).unwrap() };
    let about = |left: i64, wanted: i64| (wanted - 60_000..=wanted).contains(&left);
    for key in ["one", "many1", "slot"] {
        assert!(about(left(key), 3_600_000), "{key}: {}", left(key));
    }
    for key in ["merged", "applied"] {
        assert!(about(left(key), 3_600_000 + 604_800_000), "{key}: {}", left(key));
    }
    assert!(about(left("dead"), 604_800_000), "dead: {}", left("dead"));
    for key in ["many2", "for ever", "slot for ever"] {
        assert_eq!(left(key), -1, "{key}");
    }
    Ok(())
}

#[test]
fn an_entry_that_is_too_large_fails_alone() -> Tested {
    let limit = vec![("proto-max-bulk-len".to_owned(), "1mb".to_owned())];
    let server = Redis::start(RedisOptions { settings: limit, ..RedisOptions::default() })?;
    let store = patient([server.url()]).retry_for(LONG).connect()?;
    let large = |key: &str| {
        let head = Head { version: version(1), state: State::Value, expires_at: 0 };
        let value = Value::model(1, &[], &vec![b'x'; 2 * 1024 * 1024]);
        Step::Write(Write { key: Key::new(key), head, value, order: Order::Slot })
    };
    // Redis closes the connection behind its answer, and the reset may overtake it. Then the outcome of
    // the steps is unknown, and they are asked again, as workers do.
    let steps = [write("a", 1), large("b"), write("c", 1), write("d", 1)];
    let in_doubt = |answer: &Result<Outcome, kvsync::Error>| {
        answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::UnknownOutcome)
    };
    let mut rounds = 0..50;
    let answers = loop {
        let answers = store.execute(&steps, &terms());
        if rounds.next().is_none() || !answers.iter().any(in_doubt) {
            break answers;
        }
    };
    let error = answers[1].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    assert!(error.to_string().contains("proto-max-bulk-len"), "{error}");
    for index in [0, 2, 3] {
        assert!(matches!(answers[index], Ok(Outcome::Written | Outcome::Superseded)), "{:?}", answers[index]);
    }
    assert_eq!((stands(&store, "a"), stands(&store, "b"), stands(&store, "d")), (Some(1), None, Some(1)));
    Ok(())
}
