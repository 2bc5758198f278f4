//! Commands drawn at random, over few keys, members and values, so that they meet.

use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use kvsync::store::data::{Command, Condition, Direction, LexRange, ScoreRange};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

const MEMBERS: &[&[u8]] = &[b"", b"\0", b"a", b"a\0", b"ab", b"b", "ä".as_bytes(), "🙂".as_bytes(), b"\xff"];
const VALUES: &[&[u8]] = &[b"", b"0", b"1", b"-7", b"007", b"1.5", b"text", b"\xff\0", b"9223372036854775807"];
const SCORES: &[f64] = &[f64::NEG_INFINITY, -1.5, -0.0, 0.0, 1.0, 2.0, 0.1, 1e300, f64::INFINITY];
const COUNTS: &[i64] = &[0, 1, -1, 7, i64::MAX, i64::MIN];

/// Where commands are drawn from.
pub(super) struct Draw<'a> {
    pub(super) random: &'a mut StdRng,
    /// What the keys of a history begin with.
    pub(super) prefix: &'a str,
    /// Whether only what Redis has is drawn.
    pub(super) redis: bool,
}

impl Draw<'_> {
    /// All keys of a history.
    pub(super) fn keys(prefix: &str) -> [Bytes; 4] {
        ["a", "b", "equal", "equal too"].map(|name| format!("{prefix}{name}").into())
    }

    /// Any command. Under the keys of equal scores all scores are 0, because the order of members of
    /// others is unspecified.
    pub(super) fn command(&mut self) -> Command {
        let [a, b, equal, equal_too] = Self::keys(self.prefix);
        let any = self.one(&[&a, &b, &equal, &equal_too]).clone();
        let are_equal = self.random.random();
        let sorted = self.one(&if are_equal { [&equal, &equal_too] } else { [&a, &b] }).clone();
        match self.random.random_range(0..if self.redis { 22 } else { 33 }) {
            0..=5 => self.string(any),
            6..=8 => self.set(any),
            9..=12 => self.hash(any),
            13..=21 => self.sorted(sorted, are_equal),
            _ => self.sorted_hash(sorted, are_equal),
        }
    }

    fn string(&mut self, key: Bytes) -> Command {
        match self.random.random_range(0..9) {
            0 => Command::Get { key },
            1 => {
                let count = self.random.random_range(0..4);
                let keys = Self::keys(self.prefix);
                let mut keys: Vec<Bytes> = (0..count).filter_map(|_| keys.choose(self.random).cloned()).collect();
                keys.push(key);
                Command::MGet { keys }
            }
            2..=4 => {
                let when = self.condition();
                let expires = self.random.random_bool(0.3).then_some(Duration::from_hours(1));
                let expires = if self.rarely() { Some(Duration::ZERO) } else { expires };
                Command::Set { key, value: self.value(), when, expires }
            }
            5 => Command::Del { key, must_exist: self.random.random() },
            _ => Command::IncrBy { key, by: self.one(COUNTS) },
        }
    }

    fn condition(&mut self) -> Condition {
        match self.random.random_range(0..if self.redis { 4 } else { 6 }) {
            0 | 1 => Condition::Always,
            2 => Condition::Absent,
            3 => Condition::Present,
            _ => Condition::Equals(self.value()),
        }
    }

    fn set(&mut self, key: Bytes) -> Command {
        match self.random.random_range(0..3) {
            0 => Command::SAdd { key, members: self.members() },
            1 => Command::SRem { key, members: self.members() },
            _ => Command::SMembers { key },
        }
    }

    fn hash(&mut self, key: Bytes) -> Command {
        match self.random.random_range(0..5) {
            0 => Command::HSet { key, fields: self.members().into_iter().map(|field| (field, self.value())).collect() },
            1 => Command::HSetNx { key, field: self.member(), value: self.value() },
            2 => Command::HGet { key, field: self.member() },
            3 => Command::HGetAll { key },
            _ => Command::HDel { key, fields: self.members() },
        }
    }

    fn sorted(&mut self, key: Bytes, equal: bool) -> Command {
        match self.random.random_range(0..12) {
            0..=3 => {
                let (member, score) = (self.member(), self.score(equal));
                Command::ZAdd { key, member, score, if_absent: self.random.random_bool(0.3) }
            }
            4 => Command::ZRem { key, members: self.members() },
            5 => Command::ZScore { key, member: self.member() },
            6 => Command::ZIncrBy { key, member: self.member(), by: self.score(equal) },
            7 if equal => Command::ZLexCount { key, members: self.lex() },
            7 => Command::ZCount { key, scores: self.scores() },
            8 | 9 if equal => {
                let (members, direction) = (self.lex(), self.direction());
                Command::ZRangeByLex { key, members, direction, limit: self.limit() }
            }
            _ => {
                let (scores, direction) = (self.scores(), self.direction());
                Command::ZRangeByScore { key, scores, direction, limit: self.limit() }
            }
        }
    }

    fn sorted_hash(&mut self, key: Bytes, equal: bool) -> Command {
        match self.random.random_range(0..13) {
            0..=3 => {
                let (field, value, score) = (self.member(), self.value(), self.score(equal));
                Command::ZhAdd { key, field, value, score, if_absent: self.random.random_bool(0.3) }
            }
            4 => Command::ZhRem { key, fields: self.members() },
            5 => Command::ZhScore { key, field: self.member() },
            6 => Command::ZhGet { key, field: self.member() },
            7 => Command::ZhIncrBy { key, field: self.member(), by: self.score(equal) },
            8 if equal => Command::ZhLexCount { key, fields: self.lex() },
            8 => Command::ZhCount { key, scores: self.scores() },
            9 | 10 if equal => {
                let (fields, direction) = (self.lex(), self.direction());
                Command::ZhRangeByLex { key, fields, direction, limit: self.limit() }
            }
            _ => {
                let (scores, direction) = (self.scores(), self.direction());
                Command::ZhRangeByScore { key, scores, direction, limit: self.limit() }
            }
        }
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.random.random_range(0..of.len())]
    }

    fn rarely(&mut self) -> bool {
        self.random.random_bool(0.03)
    }

    fn member(&mut self) -> Bytes {
        Bytes::from_static(self.one(MEMBERS))
    }

    /// Some members, now and then one of them twice, or none, which Redis itself does not take.
    fn members(&mut self) -> Vec<Bytes> {
        let least = usize::from(self.redis);
        (0..self.random.random_range(least..=4)).map(|_| self.member()).collect()
    }

    fn value(&mut self) -> Bytes {
        Bytes::from_static(self.one(VALUES))
    }

    fn score(&mut self, equal: bool) -> f64 {
        if self.rarely() {
            f64::NAN
        } else if equal {
            self.one(&[0.0, -0.0])
        } else {
            self.one(SCORES)
        }
    }

    fn scores(&mut self) -> ScoreRange {
        let mut end = || match self.random.random_range(0..4) {
            0 => Bound::Unbounded,
            1 => Bound::Excluded(self.score(false)),
            _ => Bound::Included(self.score(false)),
        };
        ScoreRange { min: end(), max: end() }
    }

    fn lex(&mut self) -> LexRange {
        let mut end = || match self.random.random_range(0..4) {
            0 => Bound::Unbounded,
            1 => Bound::Excluded(self.member()),
            _ => Bound::Included(self.member()),
        };
        LexRange { min: end(), max: end() }
    }

    fn direction(&mut self) -> Direction {
        if self.random.random() { Direction::Forward } else { Direction::Reverse }
    }

    fn limit(&mut self) -> Option<usize> {
        self.random.random_bool(0.5).then(|| self.one(&[0, 1, 2, 5, 1000, usize::MAX]))
    }
}
