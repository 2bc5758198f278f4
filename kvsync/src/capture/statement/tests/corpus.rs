//! Statements and what they are. Long because it is a table.

use super::super::Dialect::{self, Postgres, Sqlite};
use super::super::{Scanned, rewrite, scan, scan_all};
use super::describe;

const BOTH: &[Dialect] = &[Sqlite, Postgres];
const LITE: &[Dialect] = &[Sqlite];
const PG: &[Dialect] = &[Postgres];

/// Dialects, statement, shape.
const CORPUS: &[(&[Dialect], &str, &str)] = &[
    // Reads
    (BOTH, "", "read"),
    (BOTH, " ; ; ", "read"),
    (BOTH, "-- UPDATE users SET a = 1", "read"),
    (BOTH, "/* x */ select 1", "read"),
    (BOTH, "SELECT * FROM users WHERE name = 'DELETE FROM users'", "read"),
    (BOTH, "SELECT 1 FROM (SELECT 1) AS t WHERE 1=0", "read"),
    (BOTH, "(SELECT id FROM users) UNION ALL (SELECT id FROM posts)", "read"),
    (BOTH, "SELECT id FROM users FOR UPDATE", "read"),
    (BOTH, "VALUES (1), (2)", "read"),
    (BOTH, "PRAGMA foreign_keys = ON", "read"),
    (BOTH, "WITH a AS (SELECT 1) SELECT * FROM a", "read"),
    (
        BOTH,
        "WITH RECURSIVE a(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM a), b AS (SELECT 2) SELECT * FROM a, b",
        "read",
    ),
    (PG, "WITH a AS NOT MATERIALIZED (SELECT 1 FROM t FOR UPDATE SKIP LOCKED) SELECT * FROM a", "read"),
    (PG, "WITH RECURSIVE t(a) AS (SELECT 1) SEARCH DEPTH FIRST BY a SET o SELECT * FROM t", "read"),
    (PG, "WITH update AS (SELECT 1) SELECT * FROM update", "read"),
    (PG, "TABLE users", "read"),
    (PG, "SHOW search_path", "read"),
    (PG, "SET search_path = a, b", "read"),
    (PG, "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "read"),
    (PG, "LOCK TABLE users IN EXCLUSIVE MODE", "read"),
    (PG, "LISTEN users", "read"),
    (PG, "VACUUM FULL users", "read"),
    (PG, "DECLARE c CURSOR FOR SELECT * FROM users FOR UPDATE", "read"),
    (PG, "FETCH 5 FROM c", "read"),
    (PG, "DEALLOCATE ALL", "read"),
    (PG, "EXPLAIN UPDATE users SET a = 1", "read"),
    (PG, "EXPLAIN ANALYZE SELECT 1", "read"),
    (PG, "EXPLAIN (ANALYZE, VERBOSE) WITH a AS (SELECT 1) SELECT * FROM a", "read"),
    (PG, "EXPLAIN (ANALYZE off) DELETE FROM users", "read"),
    (PG, "EXPLAIN (COSTS false) DELETE FROM users", "read"),
    (LITE, "EXPLAIN QUERY PLAN UPDATE users SET a = 1", "read"),
    (PG, "COPY users TO STDOUT", "read"),
    (PG, "COPY users (a, b) TO '/x'", "read"),
    (PG, "COPY (SELECT * FROM users) TO STDOUT", "read"),
    (PG, "PREPARE p AS SELECT 1", "read"),
    // Inserts
    (BOTH, "INSERT INTO users VALUES (1, 'a')", "insert users rows 1"),
    (BOTH, "insert into users (id, name) values (?, ?), (?, ?), ((SELECT 1), f(2, 3))", "insert users rows 3"),
    (
        BOTH,
        r#"INSERT INTO "users" ("id") VALUES ($1) RETURNING "users"."id", "users"."name""#,
        r#"insert users rows 1 returning "users"."id", "users"."name""#,
    ),
    (
        LITE,
        "INSERT INTO `users` (`id`, `name`) VALUES (?, ?) RETURNING `users`.`id`",
        "insert users rows 1 returning `users`.`id`",
    ),
    (BOTH, "INSERT INTO users VALUES (1) RETURNING (a + 1), (b)", "insert users rows 1 returning (a + 1), (b)"),
    (BOTH, "INSERT INTO users DEFAULT VALUES", "insert users rows 1"),
    (BOTH, "INSERT INTO users DEFAULT VALUES RETURNING *;", "insert users rows 1 returning *"),
    (BOTH, "INSERT INTO users (a) SELECT a FROM old WHERE b IS DISTINCT FROM c", "insert users"),
    (BOTH, "INSERT INTO users (a) SELECT b AS returning FROM old", "insert users"),
    (BOTH, "INSERT INTO users (SELECT 1)", "insert users"),
    (BOTH, "INSERT INTO users WITH x AS (SELECT 1) SELECT * FROM x", "insert users"),
    (BOTH, "INSERT INTO users (a) VALUES (1) UNION SELECT 2", "insert users"),
    (
        BOTH,
        "WITH x AS (SELECT 1 AS a) INSERT INTO users (a) SELECT a FROM x RETURNING id",
        "insert users with returning id",
    ),
    (BOTH, "INSERT INTO app.users AS u (a) VALUES (1)", "insert app.users as u rows 1"),
    (PG, "INSERT INTO users (a) OVERRIDING SYSTEM VALUE VALUES (1)", "insert users rows 1"),
    (PG, "INSERT INTO db.app.users VALUES (1)", "insert app.users rows 1"),
    (BOTH, "INSERT INTO users (a) VALUES (1) ON CONFLICT DO NOTHING", "insert users rows 1 do nothing"),
    (
        BOTH,
        "INSERT INTO users (a) VALUES (1) ON CONFLICT (a) WHERE b DO UPDATE SET b = excluded.b, c = 1 WHERE users.d RETURNING a",
        "insert users rows 1 do update set b,c returning a",
    ),
    (
        PG,
        "INSERT INTO users (a) VALUES (1), (2) ON CONFLICT ON CONSTRAINT users_pkey DO UPDATE SET (b, c) = (1, 2)",
        "insert users rows 2 do update set b,c",
    ),
    (
        LITE,
        "INSERT INTO users (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 2 ON CONFLICT (b) DO UPDATE SET b = 3 RETURNING a",
        "insert users rows 1 do update set a,b returning a",
    ),
    (
        LITE,
        "INSERT INTO users (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 2 ON CONFLICT DO NOTHING",
        "insert users rows 1 do update set a",
    ),
    (
        BOTH,
        "INSERT INTO users (a) SELECT x FROM y JOIN z ON y.i = z.i WHERE true ON CONFLICT (a) DO NOTHING",
        "insert users do nothing",
    ),
    (LITE, "INSERT OR IGNORE INTO users (a) VALUES (1)", "insert or Ignore users rows 1"),
    (LITE, "INSERT OR ROLLBACK INTO users (a) VALUES (1)", "insert or Rollback users rows 1"),
    (LITE, "INSERT OR REPLACE INTO users (a) VALUES (1)", "replace or Replace users rows 1"),
    (LITE, "REPLACE INTO users (a) VALUES (1), (2)", "replace users rows 2"),
    // Updates
    (BOTH, "UPDATE users SET a = 1", "update users set a"),
    (
        BOTH,
        "update users set a = ?, \"B\" = (select b, c from d where e = 1), c = f(1, 2) where id = ?",
        "update users set a,B,c",
    ),
    (BOTH, "UPDATE users SET (a, b) = (1, 2), c = 3 WHERE id = 1", "update users set a,b,c"),
    (PG, "UPDATE users SET a[1] = 2, b = ARRAY[1, 2], c.d = 3", "update users set a,b,c"),
    (BOTH, "UPDATE users SET a = b IS DISTINCT FROM c, d = 1", "update users set a,d"),
    (BOTH, "UPDATE users SET a = CASE WHEN b THEN 1 ELSE 2 END WHERE c", "update users set a"),
    (BOTH, "UPDATE users AS u SET a = u.b WHERE u.id = 1", "update users as u set a"),
    (PG, r#"UPDATE ONLY app."Users" "U" SET a = 1"#, r#"update app.Users as "U" set a"#),
    (PG, "UPDATE users * SET a = 1", "update users set a"),
    (
        BOTH,
        "UPDATE users SET a = p.b FROM posts AS p WHERE p.id = users.id RETURNING *",
        "update users set a joined returning *",
    ),
    (BOTH, "UPDATE users SET a = 1 WHERE b IS DISTINCT FROM 2", "update users set a"),
    (BOTH, "WITH x AS (SELECT 1) UPDATE users SET a = 1 WHERE id IN (SELECT * FROM x)", "update users set a with"),
    (
        PG,
        "UPDATE jobs SET a = 1 WHERE id = (SELECT id FROM jobs FOR UPDATE SKIP LOCKED LIMIT 1) RETURNING id",
        "update jobs set a returning id",
    ),
    (LITE, "UPDATE OR IGNORE users SET a = 1", "update or Ignore users set a"),
    (LITE, "UPDATE users INDEXED BY i SET a = 1", "update users set a"),
    (LITE, "UPDATE users NOT INDEXED SET a = 1", "update users set a"),
    (LITE, "UPDATE users SET a = 1 WHERE b RETURNING a ORDER BY a LIMIT 1", "update users set a returning a"),
    // Deletes
    (BOTH, "DELETE FROM users", "delete users"),
    (BOTH, "delete from users;", "delete users"),
    (
        BOTH,
        "DELETE FROM users WHERE id = 1 RETURNING id, name AS returning",
        "delete users returning id, name AS returning",
    ),
    (BOTH, "DELETE FROM users AS u WHERE u.id = 1", "delete users as u"),
    (PG, "DELETE FROM users u USING posts p WHERE p.id = u.id", "delete users as u joined"),
    (PG, "DELETE FROM ONLY users WHERE CURRENT OF c", "delete users"),
    (
        BOTH,
        "WITH x AS (SELECT 1) DELETE FROM users WHERE id IN (SELECT * FROM x) RETURNING *",
        "delete users with returning *",
    ),
    (LITE, "DELETE FROM users ORDER BY id LIMIT 1", "delete users"),
    // Names, quotes and comments
    (LITE, "UPDATE USERS SET A = 1", "update users set a"),
    (LITE, r#"UPDATE "Users" SET [A] = 1, `b` = 2"#, "update users set a,b"),
    (LITE, "UPDATE 'users' SET a = 1", "update users set a"),
    (LITE, "UPDATE [my users] SET a = 1", "update my users set a"),
    (LITE, "UPDATE `a``b` SET a = 1", "update a`b set a"),
    (PG, "UPDATE USERS SET A = 1", "update users set a"),
    (PG, r#"UPDATE "Users" SET "A""b" = 1"#, r#"update Users set A"b"#),
    (
        PG,
        "UPDATE a234567890123456789012345678901234567890123456789012345678901234567890 SET a = 1",
        "update a23456789012345678901234567890123456789012345678901234567890123 set a",
    ),
    (
        BOTH,
        "/* a */ UPDATE -- b\n users /* c ' */ SET a = 'it''s -- no' /* RETURNING x */ WHERE id = 1 -- d",
        "update users set a",
    ),
    (PG, "UPDATE /* a /* nested */ SELECT */ users SET a = 1", "update users set a"),
    (LITE, "UPDATE /* a /* not nested */ users SET a = 1", "update users set a"),
    (PG, r"UPDATE users SET a = E'it\'s RETURNING 1', b = 1", "update users set a,b"),
    (PG, "UPDATE users SET a = E'x'\n -- c\n 'y\\' RETURNING', b = 1", "update users set a,b"),
    (BOTH, r"UPDATE users SET a = '\', b = 1", "update users set a,b"),
    (PG, "UPDATE users SET a = $$ RETURNING ' $$, b = $x$ $$ $y$ $x$, c = $1", "update users set a,b,c"),
    (PG, "UPDATE users SET a = a$b, c = 1", "update users set a,c"),
    (PG, "UPDATE users SET a = b ? 'c' WHERE d @> '{}' AND e::text = 'f'", "update users set a"),
    (LITE, "UPDATE users SET a = :a, b = @b, c = $c, d = ?1 WHERE e = 0x1F AND f = 1.5e-3", "update users set a,b,c,d"),
    (BOTH, "UPDATE users SET a = 1e5RETURNING id", "update users set a returning id"),
    (LITE, "\u{feff}UPDATE users SET a = 1", "update users set a"),
    (BOTH, "; UPDATE users SET a = 1 ;; ", "update users set a"),
    (BOTH, "UPDATE users SET a = 1\0; DROP TABLE users", "update users set a"),
    (BOTH, "UPDATE größe SET a = 'ü'", "update größe set a"),
    // Transactions
    (BOTH, "BEGIN", "transaction"),
    (BOTH, "begin immediate", "transaction"),
    (PG, "START TRANSACTION ISOLATION LEVEL SERIALIZABLE", "transaction"),
    (BOTH, "COMMIT", "transaction"),
    (BOTH, "END", "transaction"),
    (BOTH, "ROLLBACK TO SAVEPOINT a", "transaction"),
    (PG, "ABORT", "transaction"),
    (BOTH, "SAVEPOINT a", "transaction"),
    (BOTH, "RELEASE a", "transaction"),
    (PG, "PREPARE TRANSACTION 'x'", "transaction"),
    (PG, "COMMIT PREPARED 'x'", "transaction"),
    // Schema
    (BOTH, "CREATE TABLE users (id int, \"update\" int)", "schema"),
    (BOTH, "CREATE INDEX i ON users (a)", "schema"),
    (BOTH, "CREATE TABLE a AS SELECT * FROM users", "schema"),
    (BOTH, "DROP TABLE IF EXISTS users", "schema users"),
    (PG, "DROP TABLE a.users, posts CASCADE", "schema a.users posts"),
    (BOTH, "ALTER TABLE users ADD COLUMN b int", "schema users"),
    (PG, "ALTER TABLE IF EXISTS ONLY users DROP b", "schema users"),
    (PG, "GRANT UPDATE ON users TO x", "schema"),
    (LITE, "CREATE TRIGGER t AFTER INSERT ON users BEGIN UPDATE users SET a = 1; END", "schema"),
    (PG, "CREATE RULE r AS ON INSERT TO a DO ALSO (INSERT INTO b VALUES (1))", "schema"),
    // Truncate
    (PG, "TRUNCATE users", "truncate users"),
    (PG, "TRUNCATE TABLE ONLY app.users, posts * RESTART IDENTITY CASCADE", "truncate app.users posts cascade"),
    // What cannot be captured
    (BOTH, "UPDATE users SET a = 1; DELETE FROM posts", "uncapturable: several statements in one string: users posts"),
    (BOTH, "DELETE FROM posts; SELECT 1 FROM users", "uncapturable: several statements in one string: posts"),
    (
        PG,
        "MERGE INTO users AS u USING posts p ON p.id = u.id WHEN MATCHED THEN UPDATE SET a = 1 WHEN NOT MATCHED THEN DO NOTHING",
        "uncapturable: MERGE: users",
    ),
    (
        PG,
        "WITH x AS (SELECT 1) MERGE INTO ONLY users USING x ON true WHEN MATCHED THEN DELETE",
        "uncapturable: MERGE: users",
    ),
    (
        PG,
        "WITH x AS (DELETE FROM users RETURNING *) SELECT * FROM x",
        "uncapturable: a statement that writes stands inside another: users",
    ),
    (
        PG,
        "WITH x AS (WITH y AS (SELECT 1) UPDATE ONLY (users) SET a = 1 RETURNING *) INSERT INTO archive SELECT * FROM x JOIN posts ON true",
        "uncapturable: a statement that writes stands inside another: users archive",
    ),
    (
        PG,
        "INSERT INTO a WITH x AS (DELETE FROM users RETURNING id) SELECT * FROM x",
        "uncapturable: a statement that writes stands inside another: a users",
    ),
    (
        PG,
        "(WITH x AS (INSERT INTO users VALUES (1) ON CONFLICT (a) DO UPDATE SET b = 1 RETURNING *) SELECT * FROM x)",
        "uncapturable: a statement that writes stands inside another: users",
    ),
    (
        PG,
        "CREATE TABLE a AS WITH x AS (DELETE FROM users RETURNING *) SELECT * FROM x",
        "uncapturable: a statement that writes stands inside another: users",
    ),
    (
        PG,
        "COPY (DELETE FROM users RETURNING *) TO STDOUT",
        "uncapturable: a statement that writes stands inside another: users",
    ),
    (PG, "COPY app.users (a, b) FROM STDIN", "uncapturable: COPY FROM: app.users"),
    (
        PG,
        "EXPLAIN ANALYZE VERBOSE UPDATE users SET a = 1",
        "uncapturable: EXPLAIN ANALYZE runs the statement that it explains: users",
    ),
    (
        PG,
        "EXPLAIN (COSTS off, ANALYSE) DELETE FROM users",
        "uncapturable: EXPLAIN ANALYZE runs the statement that it explains: users",
    ),
    (
        PG,
        "EXPLAIN ANALYZE WITH x AS (DELETE FROM users) SELECT 1",
        "uncapturable: a statement that writes stands inside another: users",
    ),
    (
        PG,
        "DO $$ BEGIN EXECUTE 'UPDATE users'; END $$",
        "uncapturable: code whose writes cannot be seen: do begin execute update users end",
    ),
    (PG, "CALL purge('users')", "uncapturable: code whose writes cannot be seen: call purge users"),
    (PG, "EXECUTE p", "uncapturable: code whose writes cannot be seen: execute p"),
    (
        PG,
        "PREPARE p AS DELETE FROM users",
        "uncapturable: a statement that is not understood: prepare p as delete from users",
    ),
    (PG, "UPDATE ONLY (users) SET a = 1", "uncapturable: a statement that is not understood: update only users set a"),
    (PG, r#"UPDATE U&"users" SET a = 1"#, "uncapturable: a statement that is not understood: update u users set a"),
    (BOTH, "UPDATE users NOTHING HERE", "uncapturable: a statement that is not understood: update users nothing here"),
    (
        BOTH,
        "UPDATE users SET a = 1) WHERE b",
        "uncapturable: a statement that is not understood: update users set a where b",
    ),
    (
        BOTH,
        "DELETE FROM users RETURNING",
        "uncapturable: a statement that is not understood: delete from users returning",
    ),
    (BOTH, "INSERT INTO users VALUES (1", "uncapturable: a statement that is not understood: insert into users values"),
    (
        BOTH,
        "DELETE FROM users RETURNING ;",
        "uncapturable: a statement that is not understood: delete from users returning",
    ),
    (
        LITE,
        "UPDATE OR FAIL users SET a = 1",
        "uncapturable: OR FAIL: when it fails, what it wrote before stays and is not returned: users",
    ),
    (BOTH, "FROB INTO app.users", "uncapturable: a statement that is not understood: frob into app.users"),
];

#[test]
fn every_statement_is_what_the_corpus_says() {
    for (dialects, sql, shape) in CORPUS {
        for &dialect in *dialects {
            let expected =
                if dialect == Sqlite { shape.replace(" set a,B,c", " set a,b,c") } else { (*shape).to_owned() };
            assert_eq!(describe(sql, &scan(sql, dialect)), expected, "{dialect:?}: {sql}");
        }
    }
}

#[test]
fn a_rewritten_statement_returns_more_and_is_otherwise_the_same() {
    for (dialects, sql, _) in CORPUS {
        for &dialect in *dialects {
            let Scanned::Write(mut before) = scan(sql, dialect) else { continue };
            let text = rewrite(sql, &before, r#""t"."x", "t"."y""#);
            let Scanned::Write(mut after) = scan(&text, dialect) else { panic!("{dialect:?}: {text}") };
            let list = after.returning.take().map(|list| &text[list]);
            let expected = match before.returning.take() {
                Some(list) => format!(r#"{}, "t"."x", "t"."y""#, &sql[list]),
                None => r#""t"."x", "t"."y""#.to_owned(),
            };
            assert_eq!(list, Some(expected.as_str()), "{dialect:?}: {text}");
            assert_eq!(after.columns_set(), before.columns_set(), "{dialect:?}: {text}");
            (before.end, after.end, before.set, after.set) = (0, 0, None, None);
            assert_eq!(after, before, "{dialect:?}: {text}");
        }
    }
}

#[test]
fn returning_goes_in_front_of_what_trails() {
    let rewritten = |sql: &str, dialect| match scan(sql, dialect) {
        Scanned::Write(write) => rewrite(sql, &write, "x"),
        other => panic!("{other:?}"),
    };
    assert_eq!(rewritten("DELETE FROM t ; -- all", Postgres), "DELETE FROM t RETURNING x ; -- all");
    assert_eq!(rewritten("DELETE FROM t RETURNING * -- all", Postgres), "DELETE FROM t RETURNING *, x -- all");
    assert_eq!(rewritten("DELETE FROM t ORDER BY a LIMIT 1", Sqlite), "DELETE FROM t RETURNING x ORDER BY a LIMIT 1");
    assert_eq!(rewritten("DELETE FROM t WHERE (a)LIMIT 1", Sqlite), "DELETE FROM t WHERE (a) RETURNING x LIMIT 1");
    assert_eq!(rewritten("INSERT INTO t DEFAULT VALUES", Sqlite), "INSERT INTO t DEFAULT VALUES RETURNING x");
}

#[test]
fn a_text_is_cut_where_the_database_cuts_it() {
    let cut = |sql: &str, dialect| {
        scan_all(sql, dialect).map(|(text, scanned)| describe(text, &scanned)).collect::<Vec<_>>().join(" | ")
    };
    assert_eq!(cut("", Sqlite), "");
    assert_eq!(cut(" ;; -- x", Sqlite), "");
    assert_eq!(
        cut("SELECT 1; UPDATE users SET a = ';' ; delete from posts", Postgres),
        "read | update users set a | delete posts"
    );
    assert_eq!(
        cut(
            "CREATE TEMP TRIGGER t AFTER INSERT ON a BEGIN
                 UPDATE b SET c = CASE WHEN d THEN 1 ELSE 2 END; DELETE FROM e;
             END; DELETE FROM users",
            Sqlite
        ),
        "schema | delete users"
    );
    assert_eq!(
        cut("EXPLAIN CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; END; DELETE FROM a", Sqlite),
        "read | delete a"
    );
    assert_eq!(cut("CREATE TABLE trigger (a); DELETE FROM users", Sqlite), "schema | delete users");
    assert_eq!(
        cut(
            "CREATE OR REPLACE FUNCTION f() RETURNS void BEGIN ATOMIC
                 UPDATE b SET c = CASE WHEN d THEN 1 ELSE 2 END; DELETE FROM e;
             END; CREATE FUNCTION g() RETURNS void LANGUAGE sql AS $$ DELETE FROM a; $$; DELETE FROM users",
            Postgres
        ),
        "schema | schema | delete users"
    );
    assert_eq!(
        cut("CREATE RULE r AS ON INSERT TO a DO (DELETE FROM b; DELETE FROM c); DELETE FROM d", Postgres),
        "schema | delete d"
    );
    assert_eq!(cut("BEGIN; UPDATE users SET a = 1; COMMIT", Sqlite), "transaction | update users set a | transaction");
}
