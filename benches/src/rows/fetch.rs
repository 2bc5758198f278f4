//! What a fetch costs beside what it stands on.

use kvsync::KvSync;
use kvsync::capture::Database;
use kvsync::store::redis::RedisStore;
use redis::Commands;

use crate::clock::Clock;
use crate::models::User;
use crate::options::Options;
use crate::ratio::Turns;
use crate::synced::Synced;
use crate::table::{Figure, Goal};
use crate::{Result, servers};

const MANY: i32 = 100;

/// One by one, against GET and decode by hand.
pub(crate) fn one(options: &Options) -> Result<Vec<Figure>> {
    let kv = filled()?;
    let mut raw = redis::Client::open(servers::redis()?)?.get_connection()?;
    for id in 1..=MANY {
        let user = User::fetch_by_id(&kv, id)?.ok_or("a row that was written is missing")?;
        raw.set::<_, _, ()>(format!("byhand:body:{id}"), rmp_serde::to_vec_named(&user)?)?;
    }
    let mut ours = ids().map(|id| -> Result { found(User::fetch_by_id(&kv, id)?) });
    let mut theirs = ids().map(|id| -> Result {
        let bytes: Vec<u8> = raw.get(format!("byhand:body:{id}"))?;
        found(Some(rmp_serde::from_slice::<User>(&bytes)?))
    });
    let turns = Turns { clock: Clock::Wall, rounds: options.rounds(40), each: 20, operations: 50 };
    let rounds = turns.measure(
        &mut |operations: usize| ours.by_ref().take(operations).collect::<Result>(),
        &mut |operations: usize| theirs.by_ref().take(operations).collect::<Result>(),
    )?;
    Ok(vec![rounds.times("fetch ÷ (raw GET + decode)", Goal::AtMost(1.05))])
}

/// A hundred at once, against one by one.
pub(crate) fn many(options: &Options) -> Result<Vec<Figure>> {
    let kv = filled()?;
    let turns = Turns { clock: Clock::Wall, rounds: options.rounds(40), each: 20, operations: 1 };
    let rounds = turns.measure(
        &mut |_: usize| User::fetch_many_by_id(&kv, 1..=MANY)?.into_iter().try_for_each(found),
        &mut |_: usize| (1..=MANY).try_for_each(|id| found(User::fetch_by_id(&kv, id)?)),
    )?;
    Ok(vec![rounds.speeds("fetch_many(100) against 100 fetches, times as fast", Goal::AtLeast(20.0))])
}

/// A store with users 1 to 100.
fn filled() -> Result<KvSync> {
    let store = RedisStore::connect(servers::redis()?)?;
    let mut synced = Synced::start(store, MANY.unsigned_abs(), Database::model::<User>)?;
    synced.once(MANY.unsigned_abs().try_into()?)?;
    Ok(synced.kv)
}

fn ids() -> impl Iterator<Item = i32> {
    (1..=MANY).cycle()
}

/// A row that is missing would make a side look fast.
fn found(user: Option<User>) -> Result {
    std::hint::black_box(user).map(drop).ok_or_else(|| "a row that was written is missing".into())
}
