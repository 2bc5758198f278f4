//! What a writer draws.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::models::{Account, Badge, Member, POISON};

/// Draws rows and values. A clone draws the same again, so that a step can be repeated.
#[derive(Debug, Clone)]
pub(crate) struct Dice {
    random: StdRng,
    rows: i32,
    pub(crate) writer: i32,
    /// Whether statements may stand outside of transactions.
    pub(crate) autocommit: bool,
}

/// Rows that are written more often than others, so that writers meet.
const HOT: i32 = 12;

impl Dice {
    /// Seeded with this number.
    pub(crate) fn new(seed: u64, rows: i32, writer: i32, autocommit: bool) -> Self {
        Self { random: StdRng::seed_from_u64(seed), rows, writer, autocommit }
    }

    /// A number below this one.
    pub(crate) fn below(&mut self, end: i32) -> i32 {
        self.random.random_range(0..end.max(1))
    }

    /// True this many times in a hundred.
    pub(crate) fn percent(&mut self, share: u32) -> bool {
        self.random.random_ratio(share, 100)
    }

    /// A primary key of a table with this part of all rows.
    pub(crate) fn id(&mut self, part: i32) -> i32 {
        let rows = (self.rows / part).max(1);
        let most = if self.percent(25) { rows.min(HOT) } else { rows };
        1 + self.below(most)
    }

    /// A value of a unique column: there are more of these than rows.
    fn value(&mut self, letter: char, part: i32) -> String {
        format!("{letter}{}{}", self.id(part), if self.percent(33) { "b" } else { "" })
    }

    pub(crate) fn email(&mut self) -> Option<String> {
        (!self.percent(20)).then(|| self.value('e', 1))
    }

    pub(crate) fn handle(&mut self) -> String {
        self.value('h', 1)
    }

    pub(crate) fn code(&mut self) -> String {
        self.value('c', 4)
    }

    pub(crate) fn nick(&mut self) -> String {
        self.value('n', 4)
    }

    /// A value that nobody else draws.
    pub(crate) fn unique(&mut self) -> String {
        format!("x{:x}", self.random.random::<u64>())
    }

    /// A value that nobody else draws and that must never be seen.
    pub(crate) fn poison(&mut self) -> String {
        format!("{POISON}{:x}", self.random.random::<u64>())
    }

    /// A key that a row may stand under.
    pub(crate) fn key(&mut self) -> String {
        match self.below(10) {
            0..3 => format!("account:id:{}", self.id(1)),
            3..5 => format!("account:email:{}", self.value('e', 1)),
            5..7 => format!("account:handle:{}", self.value('h', 1)),
            7 => format!("badge:id:{}", self.id(4)),
            8 => format!("badge:code:{}", self.code()),
            _ => format!("member:nick:{}", self.nick()),
        }
    }

    pub(crate) fn note(&mut self) -> String {
        let lengths = [0, 8, 40, 200];
        let length = lengths.choose(&mut self.random).copied().unwrap_or(0);
        (0..length).map(|_| char::from(self.random.random_range(b'a'..=b'z'))).collect()
    }

    pub(crate) fn life(&mut self) -> i64 {
        self.random.random()
    }

    pub(crate) fn account(&mut self, id: i32) -> Account {
        let (email, handle, life, note) = (self.email(), self.handle(), self.life(), self.note());
        Account { id, email, handle, life, seq: 0, writer: self.writer, note }
    }

    pub(crate) fn badge(&mut self, id: i32) -> Badge {
        let (code, life, note) = (self.code(), self.life(), self.note());
        Badge { id, code, life, seq: 0, writer: self.writer, note }
    }

    pub(crate) fn member(&mut self, id: i32) -> Member {
        let (nick, life, note) = (self.nick(), self.life(), self.note());
        let gone = i32::from(self.percent(20));
        Member { id, nick, gone, life, seq: 0, writer: self.writer, note }
    }
}
