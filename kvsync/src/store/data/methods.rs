//! The typed methods, from one table: each is a command and the answer that it has. They stand on every
//! store, in a [`Batch`](super::Batch), and those that write in an [`AtomicWrite`](super::AtomicWrite).

use std::time::Duration;

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use super::bytes::IntoBytes;
use super::command::{Command, Condition};
use super::range::{Direction, LexRange, ScoreRange};
use super::reply::{Entry, Reply, Scored};
use super::{AtomicWrite, DataStore, Eventual, Outcome, Reads};
use crate::codec::Codec;
use crate::error::{Error, ErrorKind, Result};

/// Hands the table of commands to a macro, which makes methods of its rows:
/// `name(arguments) -> answer, how the answer is taken from the reply, command`.
macro_rules! table {
    ($make:ident) => {
        $make! {
            read {
                /// `GET`: the string under a key.
                get(key: impl IntoBytes) -> Option<Bytes>, Reply::value,
                    Command::Get { key: key.into_bytes() };
                /// `MGET`: the strings under keys, in the order asked, in as few round trips as the store has them.
                /// A key that holds another kind of value reads as absent.
                mget(keys: impl IntoIterator<Item = impl IntoBytes>) -> Vec<Option<Bytes>>, Reply::values,
                    Command::MGet { keys: many(keys) };
                /// `SMEMBERS`: all members of a set, in no order.
                smembers(key: impl IntoBytes) -> Vec<Bytes>, Reply::members,
                    Command::SMembers { key: key.into_bytes() };
                /// `HGET`: one field of a hash.
                hget(key: impl IntoBytes, field: impl IntoBytes) -> Option<Bytes>, Reply::value,
                    Command::HGet { key: key.into_bytes(), field: field.into_bytes() };
                /// `HGETALL`: all fields of a hash with their values, in no order.
                hget_all(key: impl IntoBytes) -> Vec<(Bytes, Bytes)>, Reply::fields,
                    Command::HGetAll { key: key.into_bytes() };
                /// `ZSCORE`: the score of a member of a sorted set.
                zscore(key: impl IntoBytes, member: impl IntoBytes) -> Option<f64>, Reply::score,
                    Command::ZScore { key: key.into_bytes(), member: member.into_bytes() };
                /// `ZCOUNT`: how many members have a score in a range.
                zcount(key: impl IntoBytes, scores: impl Into<ScoreRange>) -> u64, Reply::count,
                    Command::ZCount { key: key.into_bytes(), scores: scores.into() };
                /// `ZLEXCOUNT`: how many members of equal score are in a range of the order of bytes.
                zlex_count(key: impl IntoBytes, members: impl Into<LexRange>) -> u64, Reply::count,
                    Command::ZLexCount { key: key.into_bytes(), members: members.into() };
                /// `ZRANGEBYSCORE`: members by score from the lowest up, equal scores in the order of their bytes.
                zrange_by_score(key: impl IntoBytes, scores: impl Into<ScoreRange>, limit: impl Into<Option<usize>>) -> Vec<Bytes>, members,
                    Command::ZRangeByScore { key: key.into_bytes(), scores: scores.into(), direction: Direction::Forward, limit: limit.into() };
                /// `ZRANGEBYSCORE .. WITHSCORES`: the same with the scores.
                zrange_by_score_with_scores(key: impl IntoBytes, scores: impl Into<ScoreRange>, limit: impl Into<Option<usize>>) -> Vec<Scored>, Reply::scored,
                    Command::ZRangeByScore { key: key.into_bytes(), scores: scores.into(), direction: Direction::Forward, limit: limit.into() };
                /// `ZREVRANGEBYSCORE`: members by score from the highest down, equal scores against the order of their bytes.
                zrev_range_by_score(key: impl IntoBytes, scores: impl Into<ScoreRange>, limit: impl Into<Option<usize>>) -> Vec<Bytes>, members,
                    Command::ZRangeByScore { key: key.into_bytes(), scores: scores.into(), direction: Direction::Reverse, limit: limit.into() };
                /// `ZREVRANGEBYSCORE .. WITHSCORES`: the same with the scores.
                zrev_range_by_score_with_scores(key: impl IntoBytes, scores: impl Into<ScoreRange>, limit: impl Into<Option<usize>>) -> Vec<Scored>, Reply::scored,
                    Command::ZRangeByScore { key: key.into_bytes(), scores: scores.into(), direction: Direction::Reverse, limit: limit.into() };
                /// `ZRANGEBYLEX`: members of equal score in the order of their bytes.
                zrange_by_lex(key: impl IntoBytes, members: impl Into<LexRange>, limit: impl Into<Option<usize>>) -> Vec<Bytes>, Reply::members,
                    Command::ZRangeByLex { key: key.into_bytes(), members: members.into(), direction: Direction::Forward, limit: limit.into() };
                /// `ZREVRANGEBYLEX`: members of equal score against the order of their bytes.
                zrev_range_by_lex(key: impl IntoBytes, members: impl Into<LexRange>, limit: impl Into<Option<usize>>) -> Vec<Bytes>, Reply::members,
                    Command::ZRangeByLex { key: key.into_bytes(), members: members.into(), direction: Direction::Reverse, limit: limit.into() };
                /// The value of a field of a sorted hash.
                zh_get(key: impl IntoBytes, field: impl IntoBytes) -> Option<Bytes>, Reply::value,
                    Command::ZhGet { key: key.into_bytes(), field: field.into_bytes() };
                /// The score of a field of a sorted hash.
                zh_score(key: impl IntoBytes, field: impl IntoBytes) -> Option<f64>, Reply::score,
                    Command::ZhScore { key: key.into_bytes(), field: field.into_bytes() };
                /// How many fields of a sorted hash have a score in a range.
                zh_count(key: impl IntoBytes, scores: impl Into<ScoreRange>) -> u64, Reply::count,
                    Command::ZhCount { key: key.into_bytes(), scores: scores.into() };
                /// How many fields of equal score are in a range of the order of bytes.
                zh_lex_count(key: impl IntoBytes, fields: impl Into<LexRange>) -> u64, Reply::count,
                    Command::ZhLexCount { key: key.into_bytes(), fields: fields.into() };
                /// Fields of a sorted hash by score from the lowest up, equal scores in the order of their bytes.
                zh_range_by_score(key: impl IntoBytes, scores: impl Into<ScoreRange>, limit: impl Into<Option<usize>>) -> Vec<Entry>, Reply::entries,
                    Command::ZhRangeByScore { key: key.into_bytes(), scores: scores.into(), direction: Direction::Forward, limit: limit.into() };
                /// Fields of a sorted hash by score from the highest down, equal scores against the order of their bytes.
                zh_rev_range_by_score(key: impl IntoBytes, scores: impl Into<ScoreRange>, limit: impl Into<Option<usize>>) -> Vec<Entry>, Reply::entries,
                    Command::ZhRangeByScore { key: key.into_bytes(), scores: scores.into(), direction: Direction::Reverse, limit: limit.into() };
                /// Fields of equal score in the order of their bytes.
                zh_range_by_lex(key: impl IntoBytes, fields: impl Into<LexRange>, limit: impl Into<Option<usize>>) -> Vec<Entry>, Reply::entries,
                    Command::ZhRangeByLex { key: key.into_bytes(), fields: fields.into(), direction: Direction::Forward, limit: limit.into() };
                /// Fields of equal score against the order of their bytes.
                zh_rev_range_by_lex(key: impl IntoBytes, fields: impl Into<LexRange>, limit: impl Into<Option<usize>>) -> Vec<Entry>, Reply::entries,
                    Command::ZhRangeByLex { key: key.into_bytes(), fields: fields.into(), direction: Direction::Reverse, limit: limit.into() };
            }
            write {
                /// `SET`: writes a string over whatever stands there, without a time to live.
                set(key: impl IntoBytes, value: impl IntoBytes) -> (), done,
                    set(key, value, Condition::Always, None);
                /// `SET .. PX`: the same with a time to live, in whole milliseconds, at least one.
                set_for(key: impl IntoBytes, value: impl IntoBytes, expires: Duration) -> (), done,
                    set(key, value, Condition::Always, Some(expires));
                /// `SET .. NX`: writes a string where nothing stands. Whether it did.
                set_if_absent(key: impl IntoBytes, value: impl IntoBytes) -> bool, Reply::taken,
                    set(key, value, Condition::Absent, None);
                /// `SET .. NX PX`: the same with a time to live, as for a lease.
                set_if_absent_for(key: impl IntoBytes, value: impl IntoBytes, expires: Duration) -> bool, Reply::taken,
                    set(key, value, Condition::Absent, Some(expires));
                /// `SET .. XX`: writes a string where something stands. Whether it did.
                set_if_present(key: impl IntoBytes, value: impl IntoBytes) -> bool, Reply::taken,
                    set(key, value, Condition::Present, None);
                /// Writes a string where exactly `stands` stands. Whether it did.
                set_if_equal(key: impl IntoBytes, stands: impl IntoBytes, value: impl IntoBytes) -> bool, Reply::taken,
                    set(key, value, Condition::Equals(stands.into_bytes()), None);
                /// `DEL`: removes a key of any kind. Whether there was one, which is no condition in an atomic write.
                delete(key: impl IntoBytes) -> bool, Reply::taken,
                    Command::Del { key: key.into_bytes(), must_exist: false };
                /// `DEL`: the same, where in an atomic write an absent key is a failed condition.
                delete_if_present(key: impl IntoBytes) -> bool, Reply::taken,
                    Command::Del { key: key.into_bytes(), must_exist: true };
                /// `INCRBY`: adds to a counter and returns it; one that is absent begins at 0. Repeating it adds again.
                incr_by(key: impl IntoBytes, by: i64) -> i64, Reply::integer,
                    Command::IncrBy { key: key.into_bytes(), by };
                /// `SADD`: adds members to a set. How many were new.
                sadd(key: impl IntoBytes, members: impl IntoIterator<Item = impl IntoBytes>) -> u64, Reply::count,
                    Command::SAdd { key: key.into_bytes(), members: many(members) };
                /// `SREM`: removes members of a set. How many were there.
                srem(key: impl IntoBytes, members: impl IntoIterator<Item = impl IntoBytes>) -> u64, Reply::count,
                    Command::SRem { key: key.into_bytes(), members: many(members) };
                /// `HSET`: sets fields of a hash. How many were new.
                hset(key: impl IntoBytes, fields: impl IntoIterator<Item = (impl IntoBytes, impl IntoBytes)>) -> u64, Reply::count,
                    Command::HSet { key: key.into_bytes(), fields: fields.into_iter().map(|(field, value)| (field.into_bytes(), value.into_bytes())).collect() };
                /// `HSETNX`: sets a field that is absent. Whether it did; in an atomic write, one that is there is a failed condition.
                hset_if_absent(key: impl IntoBytes, field: impl IntoBytes, value: impl IntoBytes) -> bool, Reply::taken,
                    Command::HSetNx { key: key.into_bytes(), field: field.into_bytes(), value: value.into_bytes() };
                /// `HDEL`: removes fields of a hash. How many were there.
                hdel(key: impl IntoBytes, fields: impl IntoIterator<Item = impl IntoBytes>) -> u64, Reply::count,
                    Command::HDel { key: key.into_bytes(), fields: many(fields) };
                /// `ZADD`: adds a member to a sorted set, or moves it to this score. Whether it is new.
                zadd(key: impl IntoBytes, member: impl IntoBytes, score: f64) -> bool, Reply::taken,
                    Command::ZAdd { key: key.into_bytes(), member: member.into_bytes(), score, if_absent: false };
                /// `ZADD .. NX`: adds a member that is absent. Whether it did.
                zadd_if_absent(key: impl IntoBytes, member: impl IntoBytes, score: f64) -> bool, Reply::taken,
                    Command::ZAdd { key: key.into_bytes(), member: member.into_bytes(), score, if_absent: true };
                /// `ZREM`: removes members of a sorted set. How many were there.
                zrem(key: impl IntoBytes, members: impl IntoIterator<Item = impl IntoBytes>) -> u64, Reply::count,
                    Command::ZRem { key: key.into_bytes(), members: many(members) };
                /// `ZINCRBY`: adds to a score and returns it; a member that is absent begins at 0. Repeating it adds again.
                zincr_by(key: impl IntoBytes, member: impl IntoBytes, by: f64) -> f64, standing_score,
                    Command::ZIncrBy { key: key.into_bytes(), member: member.into_bytes(), by };
                /// Sets a field of a sorted hash: its value, which may be large, and its score. Whether it is new.
                zh_add(key: impl IntoBytes, field: impl IntoBytes, value: impl IntoBytes, score: f64) -> bool, Reply::taken,
                    Command::ZhAdd { key: key.into_bytes(), field: field.into_bytes(), value: value.into_bytes(), score, if_absent: false };
                /// The same for a field that is absent. Whether it did.
                zh_add_if_absent(key: impl IntoBytes, field: impl IntoBytes, value: impl IntoBytes, score: f64) -> bool, Reply::taken,
                    Command::ZhAdd { key: key.into_bytes(), field: field.into_bytes(), value: value.into_bytes(), score, if_absent: true };
                /// Removes fields of a sorted hash. How many were there.
                zh_rem(key: impl IntoBytes, fields: impl IntoIterator<Item = impl IntoBytes>) -> u64, Reply::count,
                    Command::ZhRem { key: key.into_bytes(), fields: many(fields) };
                /// Adds to the score of a field that is there and returns it; `None` where there is none, which is no failed condition
                /// in an atomic write. Repeating it adds again.
                zh_incr_by(key: impl IntoBytes, field: impl IntoBytes, by: f64) -> Option<f64>, Reply::score,
                    Command::ZhIncrBy { key: key.into_bytes(), field: field.into_bytes(), by };
            }
        }
    };
}

pub(super) use table;

macro_rules! on_a_store {
    ($($rows:ident { $($(#[$doc:meta])* $name:ident($($argument:ident: $kind:ty),*) -> $answer:ty, $take:path, $command:expr;)* })*) => {
        /// The typed methods of every [`DataStore`].
        ///
        /// # Errors
        ///
        /// Each method fails when the store does not answer ([`ErrorKind::Unavailable`]; for a write that was
        /// cut off, [`ErrorKind::UnknownOutcome`]), when the key holds another kind of value
        /// ([`ErrorKind::WrongType`]), and when a key or a value is beyond the store's limits
        /// ([`ErrorKind::Rejected`]). Each blocks for at most the store's deadlines.
        #[expect(clippy::missing_errors_doc, reason = "said once, above")]
        pub trait DataCommands: DataStore {
            $($(
                $(#[$doc])*
                fn $name(&self, $($argument: $kind),*) -> Result<$answer> {
                    $take(one(self, &$command)?)
                }
            )*)*

            /// Runs an atomic write.
            fn atomic_write(&self, write: &AtomicWrite) -> Result<Outcome> {
                self.run_atomic(write.operations())
            }

            /// The same store, read with [`Reads::Eventual`]: cheaper where a store has replicas or a near cache, and
            /// perhaps older than what was acknowledged.
            ///
            /// ```
            /// use kvsync::store::MemoryStore;
            /// use kvsync::store::data::DataCommands;
            ///
            /// let store = MemoryStore::new();
            /// store.set("name", "ann")?;
            /// assert!(store.eventual().get("name")?.is_some());
            /// # Ok::<(), kvsync::Error>(())
            /// ```
            fn eventual(&self) -> Eventual<'_, Self> {
                Eventual(self)
            }

            /// The value under a key, decoded.
            ///
            /// ```
            /// use kvsync::codec::MessagePack;
            /// use kvsync::store::MemoryStore;
            /// use kvsync::store::data::DataCommands;
            ///
            /// let store = MemoryStore::new();
            /// store.set_as::<_, MessagePack>("point", &(3, 4))?;
            /// assert_eq!(store.get_as::<(u8, u8), MessagePack>("point")?, Some((3, 4)));
            /// # Ok::<(), kvsync::Error>(())
            /// ```
            ///
            /// Fails also with [`ErrorKind::Codec`] when the bytes are not a whole value.
            fn get_as<T: DeserializeOwned, C: Codec>(&self, key: impl IntoBytes) -> Result<Option<T>> {
                self.get(key)?.map(|bytes| C::decode(&bytes)).transpose()
            }

            /// The values under keys, in the order asked, decoded.
            ///
            /// Fails also with [`ErrorKind::Codec`] when the bytes of one are not a whole value.
            fn mget_as<T: DeserializeOwned, C: Codec>(
                &self,
                keys: impl IntoIterator<Item = impl IntoBytes>,
            ) -> Result<Vec<Option<T>>> {
                self.mget(keys)?.into_iter().map(|found| found.map(|bytes| C::decode(&bytes)).transpose()).collect()
            }

            /// Writes a value in a codec.
            ///
            /// Fails also with [`ErrorKind::Codec`] when the value has no form in it. JSON writes a number that is infinite or
            /// none as `null`, as [`Json`](crate::codec) says, and so reading it back fails.
            fn set_as<T: Serialize, C: Codec>(&self, key: impl IntoBytes, value: &T) -> Result<()> {
                self.set(key, C::encode(value)?)
            }
        }
    };
}

table!(on_a_store);

impl<S: DataStore + ?Sized> DataCommands for S {}

fn one<S: DataStore + ?Sized>(store: &S, command: &Command) -> Result<Reply> {
    let mut replies = store.run(std::slice::from_ref(command), Reads::Latest);
    replies.pop().unwrap_or_else(|| {
        Err(Error::new(
            ErrorKind::Corrupt,
            format!("the store {} did not answer; this is a fault of the store", store.name()),
        ))
    })
}

pub(super) fn set(key: impl IntoBytes, value: impl IntoBytes, when: Condition, expires: Option<Duration>) -> Command {
    Command::Set { key: key.into_bytes(), value: value.into_bytes(), when, expires }
}

pub(super) fn many(items: impl IntoIterator<Item = impl IntoBytes>) -> Vec<Bytes> {
    items.into_iter().map(IntoBytes::into_bytes).collect()
}

pub(super) fn done(reply: Reply) -> Result<()> {
    reply.taken().map(|_| ())
}

pub(super) fn members(reply: Reply) -> Result<Vec<Bytes>> {
    Ok(reply.scored()?.into_iter().map(|scored| scored.member).collect())
}

pub(super) fn standing_score(reply: Reply) -> Result<f64> {
    reply.score()?.ok_or_else(|| {
        Error::new(ErrorKind::Corrupt, "the store answered no score to ZINCRBY; this is a fault of the store")
    })
}
