//! The database is the judge of what a statement writes: triggers on every table tell which rows of which tables
//! it wrote, and with what verb. Whatever it wrote, the text of the statement was taken for a write of that kind
//! on that table, or for one that cannot be captured.
//!
//! Judged are all shapes of Diesel, raw SQL of both databases, and statements made at random.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use diesel::connection::{Instrumentation, InstrumentationEvent, SimpleConnection};
use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel::{QueryResult, sql_query};
use kvsync::fuzzing::{Seen, seen};
use kvsync_tests::postgres::{FreshDatabase, fresh_database};

use crate::run::Shape;
use crate::{POSTGRES_ROWS, ROWS, SQLITE_ROWS, postgres, random, sqlite};

const JUDGED: [&str; 5] = ["users", "posts", "memberships", "counters", "documents"];

/// Tables and verbs.
type Wrote = BTreeSet<(String, String)>;

#[derive(QueryableByName)]
struct Entry {
    #[diesel(sql_type = Text)]
    tab: String,
    #[diesel(sql_type = Text)]
    op: String,
}

/// What the statements of a text were taken for covers what they wrote.
fn covers(seen: &[Seen], wrote: &Wrote) -> bool {
    wrote.iter().all(|(table, verb)| {
        seen.iter().any(|seen| match seen {
            Seen::Nothing => false,
            Seen::Captured(of, verbs) => of == table && verbs.contains(&verb.as_str()),
            Seen::Truncated(tables, cascade) => verb == "TRUNCATE" && (*cascade || tables.contains(table)),
            Seen::NotCaptured(tables, opaque) => *opaque || tables.contains(table),
        })
    })
}

/// One of the databases.
trait Judge {
    type Conn: Connection;
    const POSTGRES: bool;

    /// A connection to tables that hold what every statement finds, and whose triggers watch.
    fn fresh(&mut self) -> Self::Conn;
    fn execute(conn: &mut Self::Conn, sql: &str) -> QueryResult<usize>;
    fn entries(conn: &mut Self::Conn) -> QueryResult<Vec<Entry>>;

    fn wrote(conn: &mut Self::Conn) -> Wrote {
        Self::entries(conn).unwrap().into_iter().map(|entry| (entry.tab, entry.op)).collect()
    }

    /// Runs a statement in both ways that there are, and says what is wrong with what it was taken for.
    fn judge(&mut self, sql: &str, wrong: &mut Vec<String>) -> Wrote {
        let mut all = Wrote::new();
        let mut refused = Vec::new();
        for batch in [false, true] {
            let mut conn = self.fresh();
            let result = if batch { conn.batch_execute(sql) } else { Self::execute(&mut conn, sql).map(drop) };
            refused.extend(result.err());
            // Whatever it left open.
            let _ = conn.batch_execute("COMMIT");
            let wrote = Self::wrote(&mut conn);
            let seen = seen(sql, Self::POSTGRES, batch);
            if !covers(&seen, &wrote) {
                wrong.push(format!("{sql}\n  wrote {wrote:?} and was taken for {seen:?}"));
            }
            all.extend(wrote);
        }
        if refused.len() == 2 {
            wrong.push(format!("{sql}\n  is refused: {refused:?}"));
        }
        all
    }

    /// Runs a shape of Diesel and judges all that it sent.
    fn judge_shape<W>(&mut self, shape: &Shape<Self::Conn, W>, wrong: &mut Vec<String>) -> bool {
        let mut conn = self.fresh();
        let sent = Sent::default();
        conn.set_instrumentation(sent.clone());
        (shape.plain)(&mut conn);
        conn.set_instrumentation(None::<Box<dyn Instrumentation>>);
        let sent = std::mem::take(&mut *sent.0.lock().unwrap());
        let wrote = Self::wrote(&mut conn);
        let seen: Vec<Seen> = sent.iter().flat_map(|sql| seen(sql, Self::POSTGRES, true)).collect();
        if !covers(&seen, &wrote) {
            wrong.push(format!("{}: {sent:?}\n  wrote {wrote:?} and was taken for {seen:?}", shape.name));
        }
        !wrote.is_empty()
    }
}

/// Every text that a connection is given.
#[derive(Clone, Default)]
struct Sent(Arc<Mutex<Vec<String>>>);

impl Instrumentation for Sent {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        if let InstrumentationEvent::StartQuery { query, .. } = event {
            // A statement that Diesel cannot build shows as an error, and is never sent.
            let mut text = String::new();
            if write!(text, "{query}").is_ok() {
                self.0.lock().unwrap().push(text);
            }
        }
    }
}

struct OnSqlite;

impl Judge for OnSqlite {
    type Conn = SqliteConnection;
    const POSTGRES: bool = false;

    fn fresh(&mut self) -> SqliteConnection {
        let mut conn = SqliteConnection::establish(":memory:").unwrap();
        conn.batch_execute(&[sqlite::TABLES, ROWS, SQLITE_ROWS, EXTRAS].concat()).unwrap();
        // Else what REPLACE deletes fires no trigger.
        let mut triggers =
            "PRAGMA recursive_triggers = ON; CREATE TABLE judged (tab TEXT NOT NULL, op TEXT NOT NULL);".to_owned();
        for table in JUDGED {
            for verb in ["INSERT", "UPDATE", "DELETE"] {
                write!(triggers,
                    "CREATE TRIGGER j_{table}_{verb} AFTER {verb} ON {table} BEGIN INSERT INTO judged VALUES ('{table}', '{verb}'); END;").unwrap();
            }
        }
        conn.batch_execute(&triggers).unwrap();
        conn
    }

    fn execute(conn: &mut SqliteConnection, sql: &str) -> QueryResult<usize> {
        sql_query(sql).execute(conn)
    }

    fn entries(conn: &mut SqliteConnection) -> QueryResult<Vec<Entry>> {
        sql_query("SELECT tab, op FROM judged").load(conn)
    }
}

struct OnPostgres(FreshDatabase);

impl OnPostgres {
    fn new() -> Self {
        let database = fresh_database().unwrap();
        let mut setup = [postgres::TABLES, EXTRAS].concat();
        setup += "CREATE TABLE judged (tab TEXT NOT NULL, op TEXT NOT NULL);
            CREATE FUNCTION judge() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN INSERT INTO judged VALUES (TG_TABLE_NAME, TG_OP); RETURN NULL; END $$;
            CREATE PROCEDURE writes() LANGUAGE SQL AS $$ UPDATE counters SET hits = 1 $$;";
        for table in JUDGED {
            write!(
                setup,
                "CREATE TRIGGER j AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION judge();
                 CREATE TRIGGER t AFTER TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION judge();"
            )
            .unwrap();
        }
        database.connect().unwrap().batch_execute(&setup).unwrap();
        Self(database)
    }
}

impl Judge for OnPostgres {
    type Conn = PgConnection;
    const POSTGRES: bool = true;

    fn fresh(&mut self) -> PgConnection {
        let mut conn = self.0.connect().unwrap();
        let empty =
            "DROP TABLE IF EXISTS made; TRUNCATE users, posts, memberships, counters, documents RESTART IDENTITY;";
        conn.batch_execute(&[empty, ROWS, POSTGRES_ROWS, "TRUNCATE judged;"].concat()).unwrap();
        conn
    }

    fn execute(conn: &mut PgConnection, sql: &str) -> QueryResult<usize> {
        sql_query(sql).execute(conn)
    }

    fn entries(conn: &mut PgConnection) -> QueryResult<Vec<Entry>> {
        sql_query("SELECT tab, op FROM judged").load(conn)
    }
}

/// Names that an eager lexer would mistake.
const EXTRAS: &str = "CREATE TABLE \"update\" (\"set\" INTEGER, \"returning\" INTEGER, \"where\" TEXT);
    CREATE TABLE other (id INTEGER, name TEXT);";

/// Raw SQL that both databases run.
const BOTH: &[&str] = &[
    "INSERT INTO users (name, age) VALUES ('x', 1), ('y', 2)",
    "insert into USERS (name) values ('delete from posts; update counters set hits = 1')",
    "INSERT INTO \"users\" (\"name\") SELECT title FROM posts WHERE title <> 'UPDATE counters SET hits = 2'",
    "INSERT INTO users (name) SELECT 'from' FROM posts ORDER BY 1 LIMIT 1",
    "INSERT INTO users (name) VALUES ('ada') ON CONFLICT (name) DO UPDATE SET age = 3",
    "INSERT INTO users (name) VALUES ('ada') ON CONFLICT DO NOTHING",
    "INSERT INTO users (name) VALUES ('ada'), ('new') ON CONFLICT (name) DO UPDATE SET age = (SELECT max(hits) FROM counters) WHERE users.age > 1",
    "INSERT INTO counters DEFAULT VALUES",
    "INSERT INTO counters (hits) WITH c AS (SELECT 3 AS n) SELECT n FROM c",
    "WITH c AS (SELECT 3 AS n) INSERT INTO counters (hits) SELECT n FROM c",
    "WITH c(n) AS (VALUES (1), (2)), d AS (SELECT n FROM c) INSERT INTO counters (hits) SELECT n FROM d",
    "WITH RECURSIVE c(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM c WHERE n < 4) UPDATE counters SET hits = (SELECT max(n) FROM c)",
    "WITH c AS (SELECT id FROM users WHERE id > 3) DELETE FROM users WHERE id IN (SELECT id FROM c)",
    "WITH c AS (SELECT 'insert into users' AS t) SELECT * FROM c",
    "UPDATE users SET age = 1",
    "UPDATE users SET age = 1 WHERE name = 'ada' -- DELETE FROM posts",
    "/* DELETE FROM posts */ UPDATE /* x */ users /* ; */ SET age /* = */ = 2",
    "UPDATE users SET (name, age) = ('q', 4) WHERE id = 1",
    "UPDATE users SET age = CASE WHEN id = 1 THEN 2 ELSE 3 END WHERE EXISTS (SELECT 1 FROM posts WHERE user_id = users.id)",
    "UPDATE users AS u SET age = p.id FROM posts AS p WHERE p.user_id = u.id",
    "UPDATE users SET age = NULL WHERE age IS NOT NULL AND name <> 'it''s; DELETE FROM counters'",
    "UPDATE users SET age = age",
    "UPDATE users SET age = 5 WHERE 1 = 0",
    "DELETE FROM users WHERE id > 3",
    "DELETE FROM users WHERE id = (SELECT max(id) FROM users)",
    "DELETE FROM \"counters\"",
    "DELETE FROM counters;",
    " ; ; DELETE FROM counters ; ; ",
    "DELETE FROM counters; -- the end",
    "UPDATE \"update\" SET \"set\" = 1 WHERE \"returning\" IS NULL",
    "INSERT INTO \"update\" (\"set\", \"returning\", \"where\") VALUES (1, 2, 'users')",
    "DELETE FROM \"update\" WHERE \"where\" = 'users'",
    "INSERT INTO users (name) VALUES ('r') RETURNING id",
    "UPDATE users SET age = 9 WHERE id = 2 RETURNING id, name AS \"update\"",
    "DELETE FROM counters RETURNING *",
    "SELECT name AS \"update\" FROM users",
    "SELECT 1 AS a WHERE 'DELETE FROM users' = 'x'",
    "SELECT count(*) FROM (SELECT id FROM users UNION SELECT id FROM posts) AS insert_into",
    "VALUES (1), (2)",
    "CREATE TABLE made AS SELECT * FROM users",
    "CREATE TABLE made (id INTEGER)",
    "CREATE VIEW v AS SELECT * FROM users; DROP VIEW v",
    "CREATE INDEX i ON users (age); DROP INDEX i",
    "BEGIN; UPDATE users SET age = 7; COMMIT",
    "BEGIN; UPDATE users SET age = 7; SAVEPOINT s; DELETE FROM counters; ROLLBACK TO SAVEPOINT s; RELEASE SAVEPOINT s; COMMIT",
    "BEGIN; DELETE FROM counters; ROLLBACK",
    "UPDATE users SET age = 7; DELETE FROM counters; INSERT INTO posts (user_id, title) VALUES (1, ';')",
    "INSERT INTO other SELECT id, name FROM users; INSERT INTO users (name) SELECT name || 'x' FROM other",
    "ALTER TABLE other RENAME TO another; ALTER TABLE another RENAME TO other",
];

const LITE: &[&str] = &[
    "REPLACE INTO users (id, name) VALUES (5, 'dan')",
    "INSERT OR REPLACE INTO users (id, name) VALUES (5, 'dan')",
    "INSERT OR IGNORE INTO users (name) VALUES ('ada'), ('new')",
    "INSERT OR ABORT INTO users (name) VALUES ('new')",
    "INSERT OR FAIL INTO users (name) VALUES ('new')",
    "INSERT OR ROLLBACK INTO users (name) VALUES ('new')",
    "UPDATE OR REPLACE users SET name = 'dan' WHERE id = 5",
    "UPDATE OR IGNORE users SET name = 'ada'",
    "UPDATE users INDEXED BY sqlite_autoindex_users_1 SET age = 3 WHERE name = 'ada'",
    "UPDATE users NOT INDEXED SET age = 3",
    "UPDATE main.users SET age = 3",
    "UPDATE [users] SET [age] = 3",
    "UPDATE `users` SET `age` = 3",
    "UPDATE 'users' SET 'age' = 3",
    "UPDATE \u{feff}users SET age = 3",
    "DELETE FROM main . counters",
    "INSERT INTO users (name) VALUES (x'41'), (0x1f), (1e3), ('\\')",
    "INSERT INTO users (name) VALUES ('a'), (\"b\")",
    "EXPLAIN UPDATE users SET age = 1",
    "EXPLAIN QUERY PLAN DELETE FROM users",
    "PRAGMA user_version = 3",
    "CREATE TRIGGER made AFTER UPDATE ON users BEGIN DELETE FROM posts; UPDATE posts SET title = 'x'; END",
    "CREATE TEMP TRIGGER made AFTER UPDATE ON users WHEN 1 BEGIN SELECT CASE WHEN 1 THEN 2 END; END; UPDATE counters SET hits = 4",
    "CREATE TABLE made (a DEFAULT 'update users set age = 1', b CHECK (b <> ';'))",
    "ATTACH ':memory:' AS side; CREATE TABLE side.users (id INTEGER); DETACH side",
    "/* an open comment: UPDATE users SET age = 1",
    "UPDATE users SET age = 1 /* an open comment",
    "UPDATE users SET age = 1 --\r, name = 'x'",
    "SELECT * FROM users; ; VALUES (1)",
    "ANALYZE users",
    "VACUUM",
    "REINDEX users",
    "DROP TABLE other",
];

const PG: &[&str] = &[
    "UPDATE ONLY users SET age = 1",
    "UPDATE users * SET age = 1",
    "UPDATE public.users u SET age = 1 WHERE u.id = 1",
    "UPDATE users SET name = $$DELETE FROM posts;$$ WHERE id = 1",
    "UPDATE users SET name = $x$ $$ $x$ || E'it\\'s; DELETE FROM posts' WHERE id = 1",
    "UPDATE users SET name = 'a'\n'b; DELETE FROM posts' WHERE id = 1",
    "UPDATE users SET name = E'a'\n'\\'b; DELETE FROM posts' WHERE id = 1",
    "UPDATE users SET name = U&'\\0061' WHERE id = 1",
    "UPDATE users SET name = '\\' WHERE id = 1; DELETE FROM counters",
    "UPDATE users /* /* nested */ DELETE FROM posts */ SET age = 1",
    "DELETE FROM users USING posts WHERE posts.user_id = users.id AND users.id = 99",
    "DELETE FROM ONLY counters",
    "DELETE FROM counters c WHERE c.id = 1",
    "INSERT INTO users AS u (name) VALUES ('ada') ON CONFLICT ON CONSTRAINT users_name_key DO UPDATE SET age = u.age + 1",
    "INSERT INTO counters (id, hits) OVERRIDING SYSTEM VALUE VALUES (9, 1)",
    "INSERT INTO counters (hits) TABLE unnumbered",
    "INSERT INTO counters (hits) (SELECT 1)",
    "WITH d AS (DELETE FROM counters RETURNING hits) INSERT INTO users (name) SELECT 'h' || hits FROM d",
    "WITH d AS (UPDATE users SET age = 1 RETURNING id) SELECT * FROM d",
    "WITH d AS NOT MATERIALIZED (SELECT 1), e AS (INSERT INTO counters (hits) VALUES (1) RETURNING id) SELECT * FROM e",
    "SELECT * FROM (WITH d AS (SELECT 1) SELECT * FROM d) AS x FOR UPDATE",
    "MERGE INTO counters USING users ON users.id = counters.id WHEN MATCHED THEN UPDATE SET hits = 2 WHEN NOT MATCHED THEN INSERT (hits) VALUES (1)",
    "MERGE INTO counters USING users ON users.id = counters.id WHEN MATCHED THEN DELETE",
    "TRUNCATE counters",
    "TRUNCATE TABLE ONLY counters, memberships RESTART IDENTITY",
    "TRUNCATE users CASCADE",
    "TRUNCATE public.counters *",
    "COPY counters FROM PROGRAM 'echo 77,1' WITH (FORMAT csv)",
    "EXPLAIN UPDATE users SET age = 1",
    "EXPLAIN ANALYZE UPDATE users SET age = 1",
    "EXPLAIN (ANALYZE, COSTS off) DELETE FROM counters",
    "EXPLAIN (ANALYZE off) DELETE FROM counters",
    "EXPLAIN (COSTS false, ANALYZE true) WITH a AS (SELECT 1) DELETE FROM counters",
    "EXPLAIN (ANALYZE on, VERBOSE) SELECT 1",
    "EXPLAIN ANALYSE VERBOSE INSERT INTO counters DEFAULT VALUES",
    "EXPLAIN ANALYZE CREATE TABLE made AS SELECT 1 AS a",
    "DO $$ BEGIN UPDATE users SET age = 1; EXECUTE 'DELETE FROM ' || 'counters'; END $$",
    "DO 'BEGIN UPDATE users SET age = 1; END'",
    "CALL writes()",
    "PREPARE p AS UPDATE users SET age = $1; EXECUTE p(3); DEALLOCATE p",
    "DECLARE c CURSOR WITH HOLD FOR SELECT id FROM users; FETCH 1 FROM c; CLOSE c",
    "BEGIN; DECLARE c CURSOR FOR SELECT id FROM counters FOR UPDATE; FETCH 1 FROM c; UPDATE counters SET hits = 3 WHERE CURRENT OF c; COMMIT",
    "CREATE TABLE made AS WITH d AS (SELECT * FROM users) SELECT * FROM d",
    "SELECT * INTO made FROM users",
    "CREATE FUNCTION f() RETURNS int LANGUAGE SQL BEGIN ATOMIC UPDATE users SET age = 1; SELECT CASE WHEN true THEN 1 END; END; DROP FUNCTION f()",
    "CREATE OR REPLACE PROCEDURE f() LANGUAGE plpgsql AS $$ BEGIN DELETE FROM users; END $$; UPDATE counters SET hits = 8",
    "CREATE RULE r AS ON DELETE TO other DO ALSO SELECT 1; DROP RULE r ON other",
    "COMMENT ON TABLE users IS 'delete from users'",
    "BEGIN; LOCK TABLE users; COMMIT",
    "SET search_path = public",
    "SHOW search_path",
    "VACUUM users",
    "REFRESH MATERIALIZED VIEW seen",
    "(SELECT 1) UNION (SELECT 2)",
    "TABLE users",
];

/// Judges all of these, of which so many write.
fn judge_all<J: Judge>(mut judge: J, texts: impl IntoIterator<Item = impl AsRef<str>>, least: usize) {
    let (mut wrong, mut wrote) = (Vec::new(), 0);
    for sql in texts {
        wrote += usize::from(!judge.judge(sql.as_ref(), &mut wrong).is_empty());
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(wrote >= least, "only {wrote} wrote");
}

fn judge_shapes<J: Judge, W>(mut judge: J, shapes: &[Shape<J::Conn, W>]) {
    let mut wrong = Vec::new();
    let wrote = shapes.iter().filter(|shape| judge.judge_shape(shape, &mut wrong)).count();
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(wrote * 2 > shapes.len(), "only {wrote} wrote");
}

/// Judges statements made at random, some of which fail.
fn judge_random<J: Judge>(mut judge: J, rounds: u64) {
    for round in 0..rounds {
        let mut conn = judge.fresh();
        for sql in random::statements(round, J::POSTGRES) {
            let _ = J::execute(&mut conn, &sql);
            let (wrote, seen) = (J::wrote(&mut conn), seen(&sql, J::POSTGRES, false));
            assert!(covers(&seen, &wrote), "{sql}\n  wrote {wrote:?} and was taken for {seen:?}");
            conn.batch_execute("DELETE FROM judged").unwrap();
        }
    }
}

#[test]
fn raw_sql_on_sqlite() {
    judge_all(OnSqlite, BOTH.iter().chain(LITE), 50);
}

#[test]
fn raw_sql_on_postgres() {
    let judge = OnPostgres::new();
    let extra = "CREATE TABLE unnumbered (n INTEGER); INSERT INTO unnumbered VALUES (1);
        CREATE MATERIALIZED VIEW seen AS SELECT 1;";
    judge.0.connect().unwrap().batch_execute(extra).unwrap();
    judge_all(judge, BOTH.iter().chain(PG), 50);
}

#[test]
fn shapes_of_diesel_on_sqlite() {
    judge_shapes(OnSqlite, &sqlite::all());
}

#[test]
fn shapes_of_diesel_on_postgres() {
    judge_shapes(OnPostgres::new(), &postgres::all());
}

#[test]
fn random_statements_on_sqlite() {
    judge_random(OnSqlite, 80);
}

#[test]
fn random_statements_on_postgres() {
    judge_random(OnPostgres::new(), 30);
}
