//! SQL text of others.

use kvsync::fuzzing;
use proptest::prelude::*;

use crate::allocated;
use crate::mutate::{mutate, mutations};

/// How often a byte of a text may be looked at: as one of its statements and as a part of the whole, for its
/// shape, its tables and its columns, each with one token of sight.
const LOOKS: usize = 24;
/// Bytes that a byte of a text may cost: the shortest name, in a list that grows, in each reading.
const EACH: usize = 512;
const ROOM: usize = 16 << 10;

/// Reads a text as both databases' and checks what it costs.
fn feed(text: &[u8]) -> Result<usize, TestCaseError> {
    // What is no text is replaced, and by more bytes than it was.
    let text = String::from_utf8_lossy(text).into_owned();
    let mut most = 0;
    for first in [0, 1] {
        let bytes = [&[first], text.as_bytes()].concat();
        let (allocated, looks) = allocated::by(|| fuzzing::statement(&bytes));
        let start: String = text.chars().take(80).collect();
        prop_assert!(looks <= LOOKS * bytes.len() + 64, "{looks} looks at {} bytes: {start}", bytes.len());
        prop_assert!(allocated <= EACH * bytes.len() + ROOM, "{allocated} bytes for {}: {start}", bytes.len());
        most = most.max(looks);
    }
    Ok(most)
}

/// Statements that are whole, to be broken.
const WHOLE: [&str; 12] = [
    "INSERT INTO users (a, b) VALUES (1, 'x;'), (2, '--') ON CONFLICT (a) DO UPDATE SET b = excluded.b RETURNING a",
    "INSERT OR REPLACE INTO `users` SELECT * FROM [b] WHERE c = '/*'",
    "UPDATE ONLY app.users AS u SET (a, b) = (1, $$x$$), c[1] = E'it\\'s' FROM d WHERE e IS DISTINCT FROM 1 RETURNING *",
    "WITH x AS (SELECT 1), y(n) AS NOT MATERIALIZED (SELECT 2) DELETE FROM users USING x WHERE a IN (SELECT * FROM y)",
    "WITH x AS (DELETE FROM users RETURNING *) INSERT INTO b SELECT * FROM x",
    "UPDATE users SET a = 1; DELETE FROM b; TRUNCATE TABLE c, ONLY d CASCADE",
    "CREATE TRIGGER t AFTER INSERT ON users BEGIN UPDATE c SET n = n + 1; DELETE FROM d; END",
    "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE SQL BEGIN ATOMIC SELECT CASE WHEN 1 THEN 2 END; END",
    "DO $a$ BEGIN EXECUTE 'UPDATE users SET n = $b$1$b$'; END $a$",
    "EXPLAIN (ANALYZE, VERBOSE off) MERGE INTO users USING b ON true WHEN MATCHED THEN DELETE",
    "COPY public.users (a, b) FROM STDIN; PREPARE p AS SELECT 1 /* /* */ */ -- end",
    "DELETE FROM \"us\"\"ers\" WHERE a = ?1 AND b = :b AND c = @c ORDER BY d LIMIT 0x1f",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        feed(&bytes)?;
    }

    #[test]
    fn almost_right(whole in prop::sample::select(WHOLE.to_vec()), mutations in mutations()) {
        feed(&mutate(whole.as_bytes().to_vec(), &mutations))?;
    }
}

#[test]
fn cut_anywhere() {
    for whole in WHOLE {
        for end in 0..=whole.len() {
            feed(&whole.as_bytes()[..end]).unwrap();
        }
    }
}

const LONG: usize = 1 << 9;

/// Twice the text is twice the work, whatever is repeated in it.
#[test]
fn time_and_memory_grow_with_the_length_and_no_faster() {
    let repeated = [
        "(",
        ")",
        "((",
        "()",
        "'",
        "''",
        "\"",
        "`",
        "[",
        "]",
        "$",
        "$$",
        "$a$",
        "$a",
        "$1",
        "E'",
        "E'\\",
        "E'a'\n",
        "/*",
        "*/",
        "/**/",
        "--",
        "--\n",
        ";",
        ".",
        ",",
        "a",
        "a.",
        "a ",
        "a,",
        "A ",
        "\"A\",",
        "e",
        "0x",
        "1e",
        "1e+",
        "?",
        ":",
        "@",
        "\u{feff}",
        "é",
        "on ",
        "on conflict ",
        "do update set ",
        "as ",
        "with a as (",
        "with a as (select 1),",
        "a as (),",
        "begin ",
        "begin atomic ",
        "case ",
        "end ",
        "end;",
        "insert into ",
        "insert ",
        "(insert into a",
        "(with a as (insert into b))",
        "update ",
        "update set ",
        "(update ",
        "delete from ",
        "merge into ",
        "copy ",
        "truncate ",
        "truncate a,",
        "set ",
        "set a=1,",
        "values (1),",
        "returning ",
        "from ",
        "distinct from ",
        "explain ",
        "explain (",
        "analyze ",
        "create ",
        "create table ",
        "create trigger ",
        "create function ",
        "do $$",
        "do 'a''",
        "$a$ $b$ $c$ x ",
        "(/*",
        "('",
        "replace into ",
        "or ",
    ];
    let heads = [
        "",
        "(",
        "SELECT ",
        "UPDATE a SET ",
        "UPDATE a SET b = 1 ",
        "INSERT INTO a ",
        "INSERT INTO a VALUES ",
        "DELETE FROM a WHERE ",
        "WITH ",
        "DO ",
        "COPY a ",
        "EXPLAIN ANALYZE ",
        "CREATE TABLE a ",
        "CREATE TRIGGER a ",
        "CREATE FUNCTION a ",
        "TRUNCATE a ",
        "MERGE INTO a ",
        "CALL f(",
    ];
    for head in heads {
        for part in repeated {
            let text = |long: usize| [head, &part.repeat(long / part.len())].concat();
            let (once, twice) = (feed(text(LONG).as_bytes()).unwrap(), feed(text(2 * LONG).as_bytes()).unwrap());
            assert!(twice <= 2 * once + 256, "{head}{part}..: {once} looks at one length, {twice} at twice that");
        }
    }
}
