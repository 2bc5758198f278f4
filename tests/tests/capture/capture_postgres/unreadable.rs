//! A written row that cannot be read as its model is masked, and deleted when it was deleted.

use std::time::Duration;

use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::pg::PgValue;
use diesel::sql_types::Text;
use kvsync::Version;
use kvsync::model::{PrimaryKey, Wanted};

use super::*;

diesel::table! {
    lines (order_no, position) {
        order_no -> Integer,
        position -> Text,
        status -> Text,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, AsExpression, FromSqlRow, Serialize, Deserialize)]
#[diesel(sql_type = Text)]
enum Status {
    Open,
}

impl FromSql<Text, Pg> for Status {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        match <String as FromSql<Text, Pg>>::from_sql(value)?.as_str() {
            "open" => Ok(Self::Open),
            other => Err(format!("`{other}` is no status").into()),
        }
    }
}

/// The columns of the primary key stand apart, in another order than the table's.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = lines, primary_key(order_no, position))]
#[sync_key(name = "id", fmt = "line:<order_no>:<position>")]
struct Line {
    position: String,
    status: Status,
    order_no: i32,
}

#[test]
fn its_primary_key_is_handed_on_and_it_is_read_again_alone() {
    let mut on = Fixture::registered(Database::model::<Line>);
    on.conn
        .batch_execute(
            "CREATE TABLE lines (order_no INT, position TEXT, status TEXT NOT NULL, PRIMARY KEY (order_no, position))",
        )
        .unwrap();
    for sql in [
        "INSERT INTO lines VALUES (7, 'x', 'open'), (7, 'y', 'weird')",
        "UPDATE lines SET status = 'weird' WHERE position = 'x'",
        "INSERT INTO lines VALUES (7, 'x', 'open') ON CONFLICT (order_no, position) DO UPDATE SET status = 'odd'",
        "DELETE FROM lines WHERE position = 'x'",
    ] {
        sql_query(sql).execute(&mut on.conn).unwrap();
    }
    let changes = on.recorder.changes();
    let lines: Vec<String> =
        changes.iter().map(|change| kvsync_tests::recorder::line(change, |row| format!("{row:?}"))).collect();
    assert_eq!(
        lines,
        [
            "insert Line \"line:7:x\"",
            "insert unknown line:7:y",
            "update unknown line:7:x",
            "upsert unknown line:7:x",
            "delete absent line:7:x"
        ]
    );
    assert_eq!(on.recorder.missed(), []);
    sql_query("INSERT INTO lines VALUES (7, 'z', 'open')").execute(&mut on.conn).unwrap();
    let wanted = |position: &str| Wanted {
        schema: Line::SCHEMA,
        scope: Scope::NONE,
        primary_key: PrimaryKey::of::<Line>((7, position.to_owned())),
        floor: Version::ZERO,
    };
    let ask = [wanted("x"), wanted("y"), wanted("z")];
    let read = on.attached.source().reread(&ask, Duration::from_mins(1)).unwrap();
    assert!(read[0].row.as_ref().unwrap().is_none());
    let error = read[1].row.as_ref().unwrap_err().to_string();
    for part in ["`lines`", "`Line`", "`weird` is no status"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(read[2].row.as_ref().unwrap().is_some());
}
