//! What the suite cannot show: the table, what stands in it, large things, and answers that dynoxide never gives.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kvsync::store::data::{AtomicWrite, DataCommands};
use kvsync::store::dynamodb::DynamoDbStore;
use kvsync::store::{Status, Store, SyncStore};
use kvsync::{ErrorKind, Key};
use kvsync_tests::wait::{LONG, until};
use libtest_mimic::Trial;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::http::{ask, stub};

/// A test on the shared server, and one on a server of its own.
type Shared = fn(&str);
type Alone = fn();

pub(crate) fn trials() -> Vec<Trial> {
    let trials: [(&str, Shared); 11] = [
        ("a_missing_table_is_named_with_its_cure", missing),
        ("a_table_with_other_keys_is_refused", other_keys),
        ("a_table_is_created_once_and_removes_what_expires", created),
        ("what_has_expired_is_in_the_table_and_nowhere_else", expired),
        ("ranges_go_on_beyond_a_page_of_the_server", pages),
        ("many_large_strings_are_read_at_once", large_strings),
        ("nothing_is_left_of_what_was_large", garbage),
        ("what_was_deleted_does_not_come_back_with_its_key", generations),
        ("a_transaction_of_more_than_4_mb_is_refused_as_such", large_transaction),
        ("strings_of_another_program_are_read_and_written", plain),
        ("stores_that_know_nothing_of_each_other_lose_nothing", strangers),
    ];
    let stubs: [(&str, Alone); 7] = [
        ("a_conflict_of_transactions_is_contention", conflict),
        ("unprocessed_keys_are_asked_for_again", unprocessed),
        ("an_answer_that_was_lost_is_no_second_increment", lost_answer),
        ("an_increment_that_was_written_over_before_it_was_known_is_in_doubt", in_doubt),
        ("throttling_is_lived_through", throttled),
        ("what_is_no_dynamodb_is_named_with_its_status", proxy),
        ("nobody_waits_for_a_table_where_nothing_listens", nobody),
    ];
    let named = |name: &str| format!("dynamodb::{name}");
    let on_server = trials.into_iter().map(|(name, test)| {
        Trial::test(named(name), move || {
            test(&kvsync_tests::env::dynamodb_url().map_err(|missing| missing.to_string())?);
            Ok(())
        })
    });
    let alone = |(name, test): (&str, Alone)| {
        Trial::test(named(name), move || {
            test();
            Ok(())
        })
    };
    on_server.chain(stubs.into_iter().chain(super::requests::TRIALS).map(alone)).collect()
}

fn table(name: &str) -> String {
    format!("own-{}-{name}", std::process::id())
}

fn store(url: &str, name: &str) -> DynamoDbStore {
    let builder = super::patient(url, &table(name));
    builder.create_table().unwrap();
    builder.connect().unwrap()
}

fn items(url: &str, name: &str) -> Vec<Value> {
    let found = ask(url, "Scan", &json!({ "TableName": table(name), "ConsistentRead": true }));
    found["Items"].as_array().unwrap().clone()
}

fn missing(url: &str) {
    let error = super::patient(url, "nobody-made-this").connect().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("nobody-made-this") && error.to_string().contains("create"), "{error}");
    // One that goes while the store is open is told the same way.
    let store = store(url, "removed");
    ask(url, "DeleteTable", &json!({ "TableName": table("removed") }));
    assert_eq!(store.get("a").unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(store.health(LONG).status, Status::Down);
}

fn plain_table(url: &str, name: &str) {
    let definition = json!({
        "TableName": table(name), "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{ "AttributeName": "pk", "AttributeType": "S" }],
        "KeySchema": [{ "AttributeName": "pk", "KeyType": "HASH" }],
    });
    ask(url, "CreateTable", &definition);
}

fn other_keys(url: &str) {
    plain_table(url, "other");
    for error in [
        super::patient(url, &table("other")).connect().unwrap_err(),
        super::patient(url, &table("other")).create_table().unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    }
}

fn created(url: &str) {
    let store = store(url, "created");
    store.set("a", "1").unwrap();
    super::patient(url, &table("created")).create_table().unwrap();
    assert_eq!(store.get("a").unwrap().as_deref(), Some(b"1".as_slice()), "what stood there");
    assert_eq!(store.health(LONG).status, Status::Up);
    let told = ask(url, "DescribeTimeToLive", &json!({ "TableName": table("created") }));
    assert_eq!(told["TimeToLiveDescription"]["AttributeName"], "ttl", "{told}");
}

fn expired(url: &str) {
    let store = store(url, "expired");
    store.set_for("a", "1", Duration::from_millis(1)).unwrap();
    until("it has expired", || store.get("a").unwrap().is_none());
    let stands = items(url, "expired");
    assert_eq!(stands.len(), 1, "{stands:?}");
    let ends = |name: &str| stands[0][name]["N"].as_str().unwrap().parse::<u64>().unwrap();
    assert_eq!(ends("ttl"), ends("x").div_ceil(1000), "seconds for DynamoDB, milliseconds for readers");
    assert!(store.set_if_absent("a", "2").unwrap());
    assert_eq!(items(url, "expired").len(), 1);
}

fn pages(url: &str) {
    let store = store(url, "pages");
    let fields: Vec<String> = (0..24).map(|number| format!("{number:0>3}")).collect();
    for (field, score) in fields.iter().zip(0_u32..) {
        store.zh_add("key", field, vec![b'x'; 100_000], f64::from(score / 2)).unwrap();
    }
    let names = |found: Vec<kvsync::store::data::Entry>| -> Vec<String> {
        assert!(found.iter().all(|entry| entry.value.len() == 100_000));
        found.into_iter().map(|entry| String::from_utf8(entry.field.to_vec()).unwrap()).collect()
    };
    let backwards: Vec<String> = fields.iter().rev().cloned().collect();
    assert_eq!(names(store.zh_range_by_lex("key", .., None).unwrap()), fields);
    assert_eq!(names(store.zh_rev_range_by_lex("key", .., None).unwrap()), backwards);
    assert_eq!(names(store.zh_range_by_score("key", .., None).unwrap()), fields);
    assert_eq!(names(store.zh_rev_range_by_score("key", .., 15).unwrap()), backwards[..15]);
    assert_eq!(store.zh_lex_count("key", ..).unwrap(), 24);
    assert_eq!(store.zh_count("key", 1.0..3.0).unwrap(), 4);
}

fn large_strings(url: &str) {
    let store = store(url, "large");
    // More than the 16 MB of one answer.
    let keys: Vec<String> = (0..56).map(|number| format!("key:{number}")).collect();
    for key in &keys {
        store.set(key, [key.clone(), "x".repeat(300_000)].concat()).unwrap();
    }
    let found = store.mget(&keys).unwrap();
    assert!(found.iter().zip(&keys).all(|(found, key)| found.as_ref().unwrap().starts_with(key.as_bytes())));
}

fn garbage(url: &str) {
    let store = store(url, "garbage");
    let members: Vec<String> = (0..1_000).map(|number| format!("{number:0>200}")).collect();
    for members in members.chunks(300) {
        store.sadd("set", members).unwrap();
    }
    assert!(items(url, "garbage").len() > 5, "a large set is cut into pages");
    for member in members.iter().take(60) {
        store.zadd("sorted", member, 1.0).unwrap();
    }
    // One is replaced, one deleted.
    store.set("set", "text").unwrap();
    assert!(store.delete("sorted").unwrap());
    until("only the string is left", || items(url, "garbage").len() == 1);
}

fn generations(url: &str) {
    let store = store(url, "generations");
    for member in 0..60 {
        store.zadd("key", format!("old:{member}"), 1.0).unwrap();
    }
    assert!(store.delete("key").unwrap());
    // The old members are removed afterwards, and nobody may see them meanwhile.
    store.zadd("key", "new", 2.0).unwrap();
    let seen = || {
        assert_eq!(store.zrange_by_lex("key", .., None).unwrap(), ["new"]);
        assert_eq!(store.zcount("key", ..).unwrap(), 1);
        assert_eq!(store.zscore("key", "old:7").unwrap(), None);
    };
    seen();
    until("what nobody sees is removed", || items(url, "generations").len() <= 2);
    seen();
}

fn large_transaction(url: &str) {
    let store = store(url, "large-transaction");
    let of = |values: usize| {
        let mut write = AtomicWrite::new();
        for number in 0..values {
            write.set(format!("key:{number}"), vec![b'x'; 380 * 1024]);
        }
        store.atomic_write(&write)
    };
    let error = of(12).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    assert!(error.to_string().contains("4 MB"), "{error}");
    assert_eq!(store.get("key:0").unwrap(), None, "nothing was done");
    assert!(of(10).unwrap().is_done());
}

fn plain(url: &str) {
    plain_table(url, "plain");
    let plain = super::patient(url, &table("plain")).plain().unwrap();
    assert_eq!(plain.get("a").unwrap(), None);
    plain.set("a", "one").unwrap();
    let stands = json!([{ "pk": { "S": "a" }, "value": { "S": "one" } }]);
    assert_eq!(Value::from(items(url, "plain")), stands);
    let theirs = json!({ "pk": { "S": "b" }, "value": { "S": "" } });
    ask(url, "PutItem", &json!({ "TableName": table("plain"), "Item": theirs }));
    assert_eq!(plain.get("b").unwrap().as_deref(), Some(""));
    ask(url, "PutItem", &json!({ "TableName": table("plain"), "Item": { "pk": { "S": "c" }, "value": { "N": "1" } } }));
    assert_eq!(plain.get("c").unwrap_err().kind(), ErrorKind::Corrupt);
    for key in ["", &"x".repeat(2049)] {
        assert_eq!(plain.get(key).unwrap_err().kind(), ErrorKind::Rejected);
        assert_eq!(plain.set(key, "one").unwrap_err().kind(), ErrorKind::Rejected);
    }
    plain.delete("a").unwrap();
    plain.delete("a").unwrap();
    assert_eq!(plain.get("a").unwrap(), None);
    let other = plain.partition_key("id");
    assert_eq!(other.get("a").unwrap_err().kind(), ErrorKind::Rejected, "a table without such a key");
}

fn strangers(url: &str) {
    const ROUNDS: i64 = 20;
    let stores = [store(url, "strangers"), store(url, "strangers"), store(url, "strangers")];
    let members = |number: usize, round: i64| format!("{number}:{round}:{}", "x".repeat(900));
    std::thread::scope(|scope| {
        for (number, store) in stores.iter().enumerate() {
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    store.incr_by("counter", 1).unwrap();
                    store.zincr_by("sorted", "all", 1.0).unwrap();
                    // Enough for several pages, which are cut while others write.
                    store.sadd("set", [members(number, round)]).unwrap();
                    let found = store.smembers("set").unwrap();
                    assert!((0..=round).all(|round| found.contains(&members(number, round).into())));
                }
            });
        }
    });
    let all = ROUNDS * 3;
    assert_eq!(stores[0].incr_by("counter", 0).unwrap(), all);
    assert_eq!(stores[1].zscore("sorted", "all").unwrap().map(|score| score.to_string()), Some(all.to_string()));
    assert_eq!(stores[2].smembers("set").unwrap().len(), 60);
}

fn refusal(code: &str) -> Value {
    json!({ "__type": format!("com.amazonaws.dynamodb.v20120810#{code}"), "message": "made up" })
}

/// A store of a made-up server, which lets nobody describe its table.
pub(super) fn made_up(answer: impl Fn(&str, &Value) -> super::http::Answer + Send + Sync + 'static) -> DynamoDbStore {
    let url = stub(move |operation, body| match operation {
        "DescribeTable" => Some((400, refusal("AccessDeniedException"))),
        _ => answer(operation, body),
    });
    super::builder(&url, "any").command_timeout(LONG).retry_for(LONG).connect().unwrap()
}

fn conflict() {
    /// A store of a server whose transactions are in each other's way so many times.
    fn of(conflicts: usize, retry_for: Duration) -> DynamoDbStore {
        let asked = AtomicUsize::new(0);
        let url = stub(move |operation, _| match operation {
            "TransactWriteItems" if asked.fetch_add(1, Ordering::SeqCst) < conflicts => {
                let mut body = refusal("TransactionCanceledException");
                body["CancellationReasons"] = json!([{ "Code": "TransactionConflict" }, { "Code": "None" }]);
                Some((400, body))
            }
            "DescribeTable" => Some((400, refusal("AccessDeniedException"))),
            "BatchGetItem" => Some((200, json!({ "Responses": { "any": [] }, "UnprocessedKeys": {} }))),
            _ => Some((200, json!({}))),
        });
        super::patient(&url, "any").retry_for(retry_for).connect().unwrap()
    }
    let mut write = AtomicWrite::new();
    write.set_if_absent("a", "1");
    write.set_if_absent("b", "2");
    let error = of(usize::MAX, Duration::from_millis(50)).atomic_write(&write).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Contention, "{error}");
    assert!(of(3, LONG).atomic_write(&write).unwrap().is_done(), "it is tried again while there is time");
}

fn unprocessed() {
    let answers = AtomicUsize::new(0);
    let store = made_up(move |operation, body| {
        if operation != "BatchGetItem" {
            return Some((200, json!({})));
        }
        let asked = body["RequestItems"]["any"]["Keys"].as_array().unwrap();
        // The first of them only, each time.
        let mut item = asked[0].clone();
        item["t"] = json!({ "B": "AAAAAAAAAAA=" });
        item["k"] = json!({ "S": "v" });
        item["v"] = item["hk"].clone();
        answers.fetch_add(1, Ordering::SeqCst);
        let left = if asked.len() > 1 { json!({ "any": { "Keys": asked[1..] } }) } else { json!({}) };
        Some((200, json!({ "Responses": { "any": [item] }, "UnprocessedKeys": left })))
    });
    let found = store.mget(["a", "b", "c", "d"]).unwrap();
    let found: Vec<_> = found.iter().map(|found| found.as_deref().unwrap()).collect();
    assert_eq!(found, [b"da", b"db", b"dc", b"dd"]);
}

/// A server that does a write and hangs up; the next time it says what stands there.
fn hangs_up(stands: impl Fn(&Value) -> Value + Send + Sync + 'static) -> DynamoDbStore {
    let written: Mutex<Option<Value>> = Mutex::new(None);
    made_up(move |operation, body| {
        if operation != "PutItem" {
            return Some((200, json!({})));
        }
        let mut written = written.lock();
        let Some(first) = &*written else {
            *written = Some(body["Item"].clone());
            return None;
        };
        assert_eq!(&body["Item"], first, "what is sent again is the same");
        let mut body = refusal("ConditionalCheckFailedException");
        body["Item"] = stands(first);
        Some((400, body))
    })
}

fn lost_answer() {
    let store = hangs_up(Clone::clone);
    assert_eq!(store.incr_by("counter", 5).unwrap(), 5);
}

fn in_doubt() {
    let store = hangs_up(|first| {
        let mut other = first.clone();
        other["t"] = json!({ "B": "AAAAAAAAAAA=" });
        other
    });
    assert_eq!(store.incr_by("counter", 5).unwrap_err().kind(), ErrorKind::UnknownOutcome);
}

fn throttled() {
    let asked = AtomicUsize::new(0);
    let store = made_up(move |operation, _| match operation {
        "BatchGetItem" if asked.fetch_add(1, Ordering::SeqCst) < 3 => {
            Some((400, refusal("ProvisionedThroughputExceededException")))
        }
        "BatchGetItem" => Some((200, json!({ "Responses": { "any": [] } }))),
        _ => Some((200, json!({}))),
    });
    let keys = [Key::new("a"), Key::new("b")];
    assert_eq!(store.get_many(&keys).unwrap(), [None, None]);
}

fn proxy() {
    for status in [301, 403, 404] {
        let url = stub(move |_, _| Some((status, json!("<html>"))));
        let error = super::builder(&url, "any").command_timeout(LONG).retry_for(Duration::ZERO).connect().unwrap_err();
        let text = error.to_string();
        let told = ["table any", &url, &status.to_string()].into_iter().all(|part| text.contains(part));
        assert!(told, "{text}");
    }
}

fn nobody() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    // Two minutes are for a table that is being made.
    let error = super::builder(&url, "any").create_table().unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.to_string().contains(&url), "{error}");
}
