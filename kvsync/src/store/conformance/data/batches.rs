//! Many commands at once.

use super::{fails, ok};
use crate::error::ErrorKind;
use crate::store::conformance::ground::{Checked, check, same};
use crate::store::conformance::{Case, Needs};
use crate::store::data::{Batch, Command, DataCommands, DataStore, Reads};

pub(super) const CASES: &[Case] = &[
    Case::data("an_empty_batch_does_nothing", Needs::Nothing, nothing),
    Case::data("each_command_of_a_batch_has_its_answer", Needs::Nothing, answers),
    Case::data("a_command_that_fails_leaves_the_others_alone", Needs::Nothing, failing),
    Case::data("commands_on_one_key_take_effect_in_order", Needs::Nothing, in_order),
    Case::data("a_large_batch_is_answered_whole", Needs::Nothing, large),
    Case::data("eventual_reads_are_right_at_rest", Needs::Nothing, eventual),
];

fn nothing(store: &dyn DataStore) -> Checked {
    same!(store.run(&[], Reads::Latest).len(), 0, "answers to no command");
    Ok(())
}

fn answers(store: &dyn DataStore) -> Checked {
    let mut batch = Batch::new();
    let total = batch.incr_by("counter", 3);
    let absent = batch.get("absent");
    let members = batch.sadd("set", ["a", "b"]);
    let fields = batch.hset("hash", [("a", "1")]);
    let member = batch.zadd("sorted", "a", 1.0);
    let field = batch.zh_add("sorted hash", "a", "value", 1.0);
    let mut answers = batch.run(store);
    same!(ok(answers.take(total), "incr_by")?, 3, "the counter");
    same!(ok(answers.take(absent), "a get")?, None, "what is absent");
    same!(ok(answers.take(members), "sadd")?, 2, "new members");
    same!(ok(answers.take(fields), "hset")?, 1, "new fields");
    check!(ok(answers.take(member), "zadd")?, "a new member");
    check!(ok(answers.take(field), "zh_add")?, "a new field");
    let mut batch = Batch::new();
    let (counter, set) = (batch.get("counter"), batch.smembers("set"));
    let (hash, scored) = (batch.hget_all("hash"), batch.zrange_by_score_with_scores("sorted", .., None));
    let entries = batch.zh_range_by_lex("sorted hash", .., None);
    let mut answers = batch.run(store);
    same!(ok(answers.take(counter), "a get")?.as_deref(), Some(b"3".as_slice()), "the counter");
    same!(ok(answers.take(set), "smembers")?.len(), 2, "the set");
    same!(ok(answers.take(hash), "hget_all")?.len(), 1, "the hash");
    same!(ok(answers.take(scored), "a range")?.len(), 1, "the sorted set");
    same!(ok(answers.take(entries), "a range")?.len(), 1, "the sorted hash");
    Ok(())
}

fn failing(store: &dyn DataStore) -> Checked {
    ok(store.sadd("set", ["a"]), "sadd")?;
    let mut batch = Batch::new();
    let before = batch.set("before", "1");
    let wrong = batch.get("set");
    let worse = batch.zadd("sorted", "a", f64::NAN);
    let after = batch.incr_by("after", 1);
    let mut answers = batch.run(store);
    ok(answers.take(before), "what stands before a failure")?;
    fails(answers.take(wrong), ErrorKind::WrongType, "a get of a set in a batch")?;
    fails(answers.take(worse), ErrorKind::Rejected, "a score that is no number, in a batch")?;
    same!(ok(answers.take(after), "what stands after a failure")?, 1, "the counter");
    same!(ok(store.get("before"), "a get")?.as_deref(), Some(b"1".as_slice()), "what stands before a failure");
    Ok(())
}

fn in_order(store: &dyn DataStore) -> Checked {
    let mut batch = Batch::new();
    let set = batch.set("key", "1");
    let first = batch.get("key");
    let total = batch.incr_by("key", 1);
    let second = batch.get("key");
    let deleted = batch.delete("key");
    let last = batch.get("key");
    let mut answers = batch.run(store);
    ok(answers.take(set), "a set")?;
    same!(ok(answers.take(first), "a get")?.as_deref(), Some(b"1".as_slice()), "after the set");
    same!(ok(answers.take(total), "incr_by")?, 2, "after the set");
    same!(ok(answers.take(second), "a get")?.as_deref(), Some(b"2".as_slice()), "after the increment");
    check!(ok(answers.take(deleted), "a delete")?, "it was there");
    same!(ok(answers.take(last), "a get")?, None, "after the delete");
    Ok(())
}

fn large(store: &dyn DataStore) -> Checked {
    let set = |number: usize| {
        let key = format!("key:{number}").into();
        let value = format!("value {number}").into();
        Command::Set { key, value, when: crate::store::data::Condition::Always, expires: None }
    };
    let commands: Vec<Command> = (0..1_000).map(set).collect();
    let replies = store.run(&commands, Reads::Latest);
    same!(replies.len(), commands.len(), "answers");
    for reply in replies {
        ok(reply, "a set in a large batch")?;
    }
    let gets: Vec<Command> = (0..6_000).map(|number| Command::Get { key: format!("key:{number}").into() }).collect();
    for (number, reply) in store.run(&gets, Reads::Latest).into_iter().enumerate() {
        let value = ok(reply.and_then(crate::store::data::Reply::value), "a get in a large batch")?;
        let wanted = (number < 1_000).then(|| format!("value {number}"));
        same!(value.as_deref(), wanted.as_ref().map(String::as_bytes), "key:{number}");
    }
    Ok(())
}

fn eventual(store: &dyn DataStore) -> Checked {
    ok(store.set("key", "value"), "a set")?;
    let get = [Command::Get { key: "key".into() }];
    let begun = std::time::Instant::now();
    loop {
        let mut replies = store.run(&get, Reads::Eventual);
        same!(replies.len(), 1, "answers");
        let reply = replies.pop().unwrap_or_else(|| Ok(crate::store::data::Reply::Taken(false)));
        if ok(reply.and_then(crate::store::data::Reply::value), "an eventual get")?.as_deref() == Some(b"value") {
            return Ok(());
        }
        check!(begun.elapsed().as_secs() < 60, "an eventual read never saw what was written");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
