use proptest::prelude::*;

use super::super::{Dialect, Scanned, rewrite, scan, scan_all};
use super::describe;

fn dialect() -> impl Strategy<Value = Dialect> {
    prop_oneof![Just(Dialect::Sqlite), Just(Dialect::Postgres)]
}

/// Tokens of which statements are made, and some that break them.
fn tokens() -> impl Strategy<Value = Vec<&'static str>> {
    let token = prop::sample::select(vec![
        "INSERT",
        "INTO",
        "UPDATE",
        "DELETE",
        "FROM",
        "SET",
        "WHERE",
        "RETURNING",
        "VALUES",
        "DEFAULT",
        "ON",
        "CONFLICT",
        "DO",
        "NOTHING",
        "WITH",
        "AS",
        "SELECT",
        "USING",
        "ORDER",
        "LIMIT",
        "OR",
        "REPLACE",
        "ONLY",
        "EXPLAIN",
        "ANALYZE",
        "COPY",
        "MERGE",
        "TRUNCATE",
        "TABLE",
        "CREATE",
        "TRIGGER",
        "BEGIN",
        "END",
        "DISTINCT",
        "users",
        "\"Users\"",
        "a",
        "b",
        "(",
        ")",
        ",",
        "=",
        "*",
        ".",
        ";",
        "1",
        "?",
        "'it''s'",
        "'RETURNING'",
        "$1",
    ]);
    prop::collection::vec(token, 0..24)
}

/// Statements that are whole, as lists of tokens.
fn statements() -> impl Strategy<Value = Vec<&'static str>> {
    prop::sample::select(vec![
        "INSERT INTO users ( a , b ) VALUES ( 1 , 'x;' ) , ( 2 , '--' ) RETURNING a",
        "INSERT INTO users SELECT * FROM b WHERE c = '/*' ON CONFLICT ( a ) DO UPDATE SET a = 1 , b = ( 2 )",
        "UPDATE app . users AS u SET a = 'RETURNING' , b = ( SELECT 1 FROM c ) FROM d WHERE e = 1 ;",
        "WITH x AS ( SELECT 1 ) DELETE FROM users WHERE a IN ( SELECT * FROM x ) RETURNING * , 1",
        "WITH x AS ( DELETE FROM users RETURNING * ) SELECT * FROM x",
        "UPDATE users SET a = 1 ; DELETE FROM b",
        "SELECT * FROM users",
        "BEGIN",
    ])
    .prop_map(|sql| sql.split(' ').collect())
}

/// The tokens with blanks and comments between them.
fn joined(tokens: &[&str], blanks: &[&str]) -> String {
    tokens.iter().zip(blanks.iter().cycle()).flat_map(|(token, blank)| [*blank, *token]).collect()
}

fn blanks() -> impl Strategy<Value = Vec<&'static str>> {
    let blank = prop::sample::select(vec![
        " ",
        "\n",
        "\t",
        "/**/",
        " /* ' RETURNING ( ; */ ",
        " -- \" ) UPDATE t SET ;\n",
        "\r\n",
    ]);
    prop::collection::vec(blank, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn no_text_makes_it_panic(text in any::<String>(), dialect in dialect()) {
        scan(&text, dialect);
        scan_all(&text, dialect).count();
    }

    #[test]
    fn no_text_of_signs_makes_it_panic(text in "[-'\"`\\[\\]$/*\\\\\n;(),.eEüx1?:UPDATE ]{0,40}", dialect in dialect()) {
        for text in [text.clone(), format!("UPDATE t SET {text}"), format!("DO {text}"), format!("WITH a AS {text}")] {
            scan(&text, dialect);
            scan_all(&text, dialect).count();
        }
    }

    #[test]
    fn comments_change_nothing(
        tokens in prop_oneof![tokens(), statements()],
        blanks in blanks(),
        dialect in dialect(),
    ) {
        let (plain, commented) = (joined(&tokens, &[" "]), joined(&tokens, &blanks));
        // The user's own list is given as it is written.
        let shape = |sql: &str| {
            let mut scanned = scan(sql, dialect);
            let mut returns = false;
            if let Scanned::Write(write) = &mut scanned {
                returns = write.returning.take().is_some();
            }
            (describe(sql, &scanned), returns)
        };
        prop_assert_eq!(shape(&plain), shape(&commented));
        let shapes = |sql: &str| scan_all(sql, dialect).map(|(text, _)| shape(text)).collect::<Vec<_>>();
        prop_assert_eq!(shapes(&plain), shapes(&commented));
    }

    #[test]
    fn whatever_is_captured_can_be_rewritten(tokens in prop_oneof![tokens(), statements()], dialect in dialect()) {
        let sql = joined(&tokens, &[" "]);
        if let Scanned::Write(write) = scan(&sql, dialect) {
            let text = rewrite(&sql, &write, "x, y");
            let Scanned::Write(again) = scan(&text, dialect) else { return Err(TestCaseError::fail(text)) };
            let list = again.returning.clone().and_then(|list| text.get(list)).unwrap_or_default();
            prop_assert!(list.ends_with("x, y"), "{}", text);
            prop_assert_eq!(again.table, write.table);
        }
    }
}
