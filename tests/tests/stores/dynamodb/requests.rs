//! What is asked of the server, seen by one that a test makes up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use data_encoding::BASE64;
use kvsync::Key;
use kvsync::store::SyncStore;
use kvsync::store::data::{AtomicWrite, DataCommands, Reads};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::own::made_up;

/// The trials, by their names.
pub(super) const TRIALS: [(&str, fn()); 5] = [
    ("readings_are_consistent_unless_they_may_lag", consistent),
    ("unprocessed_writes_are_sent_again", unprocessed),
    ("a_transaction_that_is_sent_again_has_its_token", token),
    ("an_atomic_write_checks_what_it_leaves_as_it_is", unchanged),
    ("a_range_is_read_again_when_others_wrote_meanwhile", moment),
];

fn binary(bytes: &[u8]) -> Value {
    json!({ "B": BASE64.encode(bytes) })
}

/// Whether something is asked about the key of a sorted set.
fn is_sorted(body: &Value) -> bool {
    body["Key"]["hk"] == binary(b"dsorted")
}

/// The head of a sorted set, as of one write.
fn head(place: &Value, write: u8) -> Value {
    json!({
        "hk": place["hk"], "rk": place["rk"], "t": binary(&[write; 8]), "k": { "S": "z" }, "g": binary(&[1; 8]),
        "n": { "N": "1" },
    })
}

fn member(place: &Value, name: &[u8]) -> Value {
    let score = (1.0_f64.to_bits() | 1 << 63).to_be_bytes();
    let range = [b"e".as_slice(), &[1; 8], name].concat();
    json!({ "hk": place["hk"], "rk": binary(&range), "rk2": binary(&[&[1; 8], score.as_slice(), name].concat()) })
}

fn consistent() {
    let asked: Arc<Mutex<Vec<(String, bool)>>> = Arc::default();
    let seen = Arc::clone(&asked);
    let store = made_up(move |operation, body| {
        let batch = &body["RequestItems"]["any"];
        let reading = if operation == "BatchGetItem" { batch } else { body };
        if matches!(operation, "GetItem" | "BatchGetItem" | "Query" | "Scan") {
            seen.lock().push((operation.to_owned(), reading["ConsistentRead"] == true));
        }
        Some((200, if is_sorted(body) { json!({ "Item": head(&body["Key"], 1) }) } else { json!({}) }))
    });
    let all = |store: &dyn Fn(Reads), reads, consistent| {
        asked.lock().clear();
        store(reads);
        let seen = asked.lock().clone();
        assert!(!seen.is_empty() && seen.iter().all(|(_, so)| *so == consistent), "{reads:?}: {seen:?}");
        seen
    };
    let commands = |reads| {
        use kvsync::store::data::{Command, DataStore, Direction, LexRange, ScoreRange};
        let key = || "sorted".into();
        let ranges = [
            Command::Get { key: "a".into() },
            Command::MGet { keys: vec!["a".into(), "b".into()] },
            Command::SMembers { key: "set".into() },
            Command::ZCount { key: key(), scores: ScoreRange::from(..) },
            Command::ZRangeByLex {
                key: key(),
                members: LexRange::from(..),
                direction: Direction::Forward,
                limit: None,
            },
        ];
        for command in ranges {
            store.run(&[command], reads).remove(0).unwrap();
        }
    };
    let seen = all(&commands, Reads::Latest, true);
    assert!(["GetItem", "BatchGetItem", "Query"].iter().all(|of| seen.iter().any(|(seen, _)| seen == of)), "{seen:?}");
    all(&commands, Reads::Eventual, false);
    let rows = |_| {
        store.get_many(&[Key::new("a")]).unwrap();
        store.get_many(&[Key::new("a"), Key::new("b")]).unwrap();
        store.scan("", None, 10).unwrap();
        store.epoch().unwrap();
        // What a write is decided by, too.
        store.incr_by("counter", 1).unwrap();
    };
    let seen = all(&rows, Reads::Latest, true);
    assert!(seen.iter().any(|(seen, _)| seen == "Scan"), "{seen:?}");
}

fn unprocessed() {
    let (pages, named) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let (written, list) = (Arc::clone(&pages), Arc::clone(&named));
    let store = made_up(move |operation, body| match operation {
        "BatchWriteItem" => {
            let asked = body["RequestItems"]["any"].as_array().unwrap();
            // The first of them only, each time.
            written.lock().push(asked[0]["PutRequest"]["Item"]["rk"]["B"].clone());
            let left = if asked.len() > 1 { json!({ "any": asked[1..] }) } else { json!({}) };
            Some((200, json!({ "UnprocessedItems": left })))
        }
        "PutItem" => {
            list.lock().extend(body["Item"]["p"]["L"].as_array().unwrap().iter().skip(1).step_by(2).cloned());
            Some((200, json!({})))
        }
        _ => Some((200, json!({}))),
    });
    let members: Vec<String> = (0..1_000).map(|number| format!("{number:0>150}")).collect();
    assert_eq!(store.sadd("set", members).unwrap(), 1_000);
    let named: Vec<Value> = named.lock().clone();
    assert!(named.len() > 3, "a large set is cut into pages");
    let place = |id: &Value| {
        let id = BASE64.decode(id["B"].as_str().unwrap().as_bytes()).unwrap();
        Value::from(BASE64.encode(&[b"p".as_slice(), &id].concat()))
    };
    let pages = pages.lock();
    assert!(named.iter().all(|id| pages.contains(&place(id))), "each page that is named was written");
}

fn token() {
    let tokens: Arc<Mutex<Vec<Value>>> = Arc::default();
    let seen = Arc::clone(&tokens);
    let store = made_up(move |operation, body| {
        if operation == "TransactWriteItems" {
            let mut seen = seen.lock();
            seen.push(body["ClientRequestToken"].clone());
            // The first time it is done, and the answer is lost.
            if seen.len() == 1 {
                return None;
            }
        }
        Some((200, json!({})))
    });
    let mut write = AtomicWrite::new();
    write.incr_by("a", 1);
    write.incr_by("b", 1);
    assert!(store.atomic_write(&write).unwrap().is_done());
    let tokens = tokens.lock();
    assert!(tokens.len() == 2 && tokens[0] == tokens[1] && tokens[0].is_string(), "{tokens:?}");
}

fn unchanged() {
    let checks: Arc<Mutex<Vec<Value>>> = Arc::default();
    let seen = Arc::clone(&checks);
    let store = made_up(move |operation, body| {
        if operation == "TransactWriteItems" {
            let actions = body["TransactItems"].as_array().unwrap();
            seen.lock().extend(actions.iter().filter_map(|action| action.get("ConditionCheck").cloned()));
        }
        Some((200, json!({})))
    });
    let mut write = AtomicWrite::new();
    write.set("a", "1");
    write.srem("set", ["nobody"]);
    assert!(store.atomic_write(&write).unwrap().is_done());
    let checks = checks.lock();
    assert_eq!(checks.len(), 1, "others may have added what was to be removed: {checks:?}");
    assert_eq!(checks[0]["Key"]["hk"], binary(b"dset"));
    assert_eq!(checks[0]["ConditionExpression"], "attribute_not_exists(hk)");
}

fn moment() {
    let (heads, queries) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let store = made_up(move |operation, body| match operation {
        // Others write between the first reading of the head and the second.
        "GetItem" if is_sorted(body) => {
            let write = if heads.fetch_add(1, Ordering::SeqCst) == 0 { 1 } else { 2 };
            Some((200, json!({ "Item": head(&body["Key"], write) })))
        }
        "Query" => {
            let place = json!({ "hk": body["ExpressionAttributeValues"][":h"] });
            let found: &[&[u8]] = if queries.fetch_add(1, Ordering::SeqCst) == 0 { &[b"a"] } else { &[b"a", b"b"] };
            let found: Vec<Value> = found.iter().map(|name| member(&place, name)).collect();
            Some((200, json!({ "Count": found.len(), "Items": found })))
        }
        _ => Some((200, json!({}))),
    });
    assert_eq!(store.zrange_by_lex("sorted", .., None).unwrap(), ["a", "b"]);
}
