//! Statements made at random of clauses, names, texts and comments: the database is the judge of what
//! they mean, and whatever they change has to be captured.

use std::fmt::Write as _;

use diesel::deserialize::{self, QueryableByName};
use diesel::pg::Pg;
use diesel::row::{Field, NamedRow, Row};
use diesel::sqlite::{Sqlite, SqliteType};
use kvsync::change::Change;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::run::{Images, Mode, Pair, compare, compare_outbox};

/// A row with whatever it has: names and values.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Whole(Vec<(Option<String>, Option<String>)>);

impl QueryableByName<Sqlite> for Whole {
    fn build<'a>(row: &impl NamedRow<'a, Sqlite>) -> deserialize::Result<Self> {
        let fields = (0..row.field_count()).map(|at| {
            let field = Row::get(row, at).ok_or("a field that is counted is not there")?;
            let value = field.value().map(|mut value| match value.value_type() {
                Some(SqliteType::Text) => format!("{:?}", value.read_text()),
                Some(SqliteType::Binary) => format!("{:?}", value.read_blob()),
                Some(SqliteType::Double | SqliteType::Float) => format!("{:?}", value.read_double()),
                _ => format!("{:?}", value.read_long()),
            });
            Ok((field.field_name().map(str::to_owned), value))
        });
        fields.collect::<deserialize::Result<_>>().map(Self)
    }
}

impl QueryableByName<Pg> for Whole {
    fn build<'a>(row: &impl NamedRow<'a, Pg>) -> deserialize::Result<Self> {
        let fields = (0..row.field_count()).map(|at| {
            let field = Row::get(row, at).ok_or("a field that is counted is not there")?;
            let value = field.value().map(|value| format!("{:?}", value.as_bytes()));
            Ok((field.field_name().map(str::to_owned), value))
        });
        fields.collect::<deserialize::Result<_>>().map(Self)
    }
}

/// Runs `rounds` times so many statements on one fresh pair.
pub(crate) fn run<D: Pair>(mut pair: D, postgres: bool, rounds: u64) {
    let (mut wrote, mut failed, mut returned) = (0, 0, 0);
    for round in 0..rounds {
        let mut writer = Writer { random: StdRng::seed_from_u64(round), postgres, sql: String::new(), open: false };
        let (mut plain, mut wrapped) = pair.fresh();
        drop((pair.recorder().take(), pair.recorder().missed()));
        for _ in 0..8 {
            let before = D::wrapped_rows(&mut wrapped);
            let queued = pair.mode() == Mode::Queue;
            let images = if queued { Images::new() } else { D::images(&mut wrapped) };
            let (sql, rows) = writer.statement();
            let expected = D::plain_raw(&mut plain, &sql, rows);
            let got = D::wrapped_raw(&mut wrapped, &sql, rows);
            let after = D::wrapped_rows(&mut wrapped);
            let (sets, missed) = (pair.recorder().take(), pair.recorder().missed());
            let changes: Vec<Change> = sets.into_iter().flat_map(|set| set.changes).collect();
            let mut wrong = String::new();
            // Which of several rows fails first is not told beforehand.
            let kind = |outcome: &str| outcome.split(" / ").next().unwrap_or_default().to_owned();
            if kind(&got) != kind(&expected) {
                writeln!(wrong, "  plain:   {expected}\n  wrapped: {got}").unwrap();
            }
            if after != D::plain_rows(&mut plain) {
                writeln!(wrong, "  the tables differ afterwards").unwrap();
            }
            // What a REPLACE pushes out by a second unique key is not seen, and that is reported.
            let told = missed.iter().all(|missed| missed.reason.contains("second unique key"));
            if !queued && missed.is_empty() {
                compare_outbox(&mut wrong, &images, &D::images(&mut wrapped), &D::outbox(&mut wrapped));
            } else if queued && (missed.is_empty() || !told) {
                compare::<D>(&mut wrong, &before, &after, &changes);
            }
            assert!(wrong.is_empty() && told, "round {round}: {sql}\n{wrong}  missed: {missed:?}");
            wrote += usize::from(before != after);
            failed += usize::from(expected.contains(" / "));
            returned += usize::from(rows && before != after);
        }
    }
    // Else the statements say nothing.
    let all = usize::try_from(rounds).unwrap() * 8;
    assert!(
        wrote * 3 > all && returned * 9 > all && failed * 50 > all,
        "{wrote} wrote, {returned} returned, {failed} failed of {all}"
    );
}

/// Eight statements made at random.
pub(crate) fn statements(seed: u64, postgres: bool) -> Vec<String> {
    let mut writer = Writer { random: StdRng::seed_from_u64(seed), postgres, sql: String::new(), open: false };
    (0..8).map(|_| writer.statement().0).collect()
}

/// Writes statements.
struct Writer {
    random: StdRng,
    postgres: bool,
    sql: String,
    /// Whether the last token cannot stand against another word.
    open: bool,
}

impl Writer {
    /// A statement, and whether it returns rows.
    fn statement(&mut self) -> (String, bool) {
        self.sql.clear();
        self.open = false;
        let with = self.one_in(6);
        if with {
            self.put("WITH c AS MATERIALIZED (SELECT id , name , ");
            self.literal();
            self.put("AS t FROM users WHERE id < 4)");
        }
        match self.random.random_range(0..5) {
            0 | 1 => self.insert(),
            2 | 3 => self.update(with),
            _ => self.delete(with),
        }
        let rows = self.returning();
        for end in [";", " ; -- the end", "/* RETURNING id */", "\n;\n;"] {
            if self.one_in(8) {
                self.sql.push_str(end);
                break;
            }
        }
        (self.sql.clone(), rows)
    }

    fn insert(&mut self) {
        let or =
            if self.postgres || !self.one_in(4) { "" } else { self.pick(&["OR IGNORE", "OR REPLACE", "OR ABORT"]) };
        self.put("INSERT");
        self.put(or);
        self.put("INTO");
        self.table();
        if self.one_in(3) {
            self.put("AS u");
        }
        self.put("( name , age )");
        let selects = self.one_in(4);
        if selects {
            let suffix = self.random.random_range(0..4);
            self.put(&format!("SELECT name || '{suffix}' , age FROM users WHERE id > 2 ORDER BY id"));
        } else {
            self.put("VALUES");
            for row in 0..self.random.random_range(1..4) {
                if row > 0 {
                    self.put(",");
                }
                self.put("(");
                self.literal();
                self.put(",");
                self.number();
                self.put(")");
            }
        }
        if or.is_empty() {
            match self.random.random_range(0..4) {
                0 => self.put("ON CONFLICT DO NOTHING"),
                1 => {
                    self.put("ON CONFLICT ( name ) DO UPDATE SET age =");
                    self.number();
                }
                _ => {}
            }
        }
    }

    fn update(&mut self, with: bool) {
        self.put("UPDATE");
        if !self.postgres && self.one_in(6) {
            self.put("OR IGNORE");
        }
        self.table();
        let alias = self.one_in(3);
        if alias {
            self.put(if self.postgres { "u" } else { "AS u" });
        }
        let me = if alias { "u" } else { "users" };
        self.put("SET");
        match self.random.random_range(0..4) {
            0 => {
                self.put("age =");
                self.number();
            }
            1 => {
                self.put("name =");
                self.literal();
                self.put(&format!("|| {me}.id"));
            }
            2 => {
                self.put("( name , age ) = (");
                self.literal();
                self.put(",");
                self.number();
                self.put(")");
            }
            _ => {
                self.put("age = CASE WHEN");
                self.put(me);
                self.put(
                    ". age IS DISTINCT FROM 3 THEN 3 ELSE NULL END , active = ( SELECT count ( * ) > 1 FROM posts )",
                );
            }
        }
        if with {
            self.put(&format!("FROM c WHERE c.id = {me}.id"));
        } else if self.one_in(4) {
            self.put(&format!("FROM posts AS p WHERE p.user_id = {me}.id AND p.id < 3"));
        } else {
            self.filter(me);
        }
    }

    fn delete(&mut self, with: bool) {
        self.put("DELETE FROM");
        self.table();
        let alias = self.one_in(3);
        if alias {
            self.put("AS u");
        }
        let me = if alias { "u" } else { "users" };
        self.put(&format!("WHERE {me}.id > 3"));
        if with {
            self.put("AND name IN ( SELECT name FROM c )");
        } else if self.one_in(2) {
            self.put("AND name <>");
            self.literal();
        }
    }

    fn filter(&mut self, me: &str) {
        match self.random.random_range(0..4) {
            0 => {}
            1 => {
                let id = self.random.random_range(1..9);
                self.put(&format!("WHERE {me} . id = {id}"));
            }
            2 => {
                self.put("WHERE name <>");
                self.literal();
                self.put("AND ( age IS NULL OR age < 40 )");
            }
            _ => self.put(&format!("WHERE EXISTS ( SELECT 1 FROM posts WHERE user_id = {me}.id )")),
        }
    }

    fn returning(&mut self) -> bool {
        if self.one_in(2) {
            return false;
        }
        self.put("RETURNING");
        let list =
            ["*", "id", "name , id", "( age ) , name", "id + 1 AS returning , name", "age IS DISTINCT FROM 3 AS d"];
        let list = self.pick(&list);
        self.put(list);
        if self.one_in(4) {
            self.put(",");
            self.literal();
            self.put("AS t");
        }
        true
    }

    fn table(&mut self) {
        let schema = if self.postgres { "public" } else { "main" };
        let mut names = vec!["users".to_owned(), "USERS".to_owned(), "\"users\"".to_owned(), format!("{schema}.users")];
        if !self.postgres {
            names.extend(["[Users]".to_owned(), "`users`".to_owned(), "'users'".to_owned()]);
        }
        let name = names.choose(&mut self.random).unwrap().clone();
        self.put(&name);
    }

    fn number(&mut self) {
        let number = self.pick(&["1", "2e0", "NULL", "- 4", "0x1", "7", "length ( 'it''s' )"]);
        // Postgres 15 knows no hexadecimal numbers.
        self.put(if self.postgres && number.starts_with("0x") { "8" } else { number });
    }

    fn literal(&mut self) {
        let both =
            ["'a'", "'it''s'", "'RETURNING'", "'; DELETE FROM users --'", "'/*'", "'*/ $$ \"'", "'\\'", "''", "'ada'"];
        let postgres = ["E'it\\'s ; RETURNING'", "$$ ' -- $$", "$a$ $$ /* $a$", "'a'\n'b'", "U&'\\0061'"];
        let text = if self.postgres && self.one_in(2) { self.pick(&postgres) } else { self.pick(&both) };
        self.put(text);
    }

    fn one_in(&mut self, times: u32) -> bool {
        self.random.random_range(0..times) == 0
    }

    fn pick<'a>(&mut self, among: &[&'a str]) -> &'a str {
        among.choose(&mut self.random).unwrap()
    }

    /// Adds tokens, with blanks or comments in the place of spaces.
    fn put(&mut self, tokens: &str) {
        if tokens.contains('\'') || tokens.contains('$') {
            self.blank();
            self.sql.push_str(tokens);
            self.open = true;
            return;
        }
        for token in tokens.split(' ').filter(|token| !token.is_empty()) {
            if self.open {
                self.blank();
            }
            let token = if self.one_in(4) && !token.contains('"') { token.to_lowercase() } else { token.to_owned() };
            self.sql.push_str(&token);
            self.open = true;
        }
    }

    fn blank(&mut self) {
        let blank = match self.random.random_range(0..12) {
            0 => "\n\t",
            1 => "/**/",
            2 => " /* ' RETURNING \" ; ( */ ",
            3 => " -- ' DELETE FROM users ; (\n",
            _ => " ",
        };
        self.sql.push_str(blank);
    }
}
