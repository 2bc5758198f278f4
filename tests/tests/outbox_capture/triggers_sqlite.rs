use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sqlite::Sqlite;
use kvsync::capture::{FindingKind, Severity, SyncConnection};
use tempfile::TempDir;

use super::*;

struct Fixture {
    /// Knows of kvsync.
    conn: SyncConnection<SqliteConnection>,
    /// Does not.
    plain: SqliteConnection,
    recorder: Arc<Recorder>,
    directory: TempDir,
}

fn establish(directory: &TempDir) -> SqliteConnection {
    let mut conn = SqliteConnection::establish(directory.path().join("db").to_str().unwrap()).unwrap();
    conn.batch_execute("PRAGMA busy_timeout = 300000; PRAGMA foreign_keys = ON").unwrap();
    conn
}

fn declared() -> Database<Sqlite> {
    Database::<Sqlite>::new("main", || SqliteConnection::establish(":memory:"))
}

impl Fixture {
    fn without_triggers() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut plain = establish(&directory);
        plain.batch_execute("PRAGMA journal_mode = WAL").unwrap();
        plain.batch_execute(SQLITE_OUTBOX).unwrap();
        plain.batch_execute(TABLES).unwrap();
        let recorder = Recorder::in_epoch(1);
        let conn = attach(declared().triggers::<User>(), &recorder).wrap(establish(&directory)).unwrap();
        Self { conn, plain, recorder, directory }
    }

    fn new() -> Self {
        let mut on = Self::without_triggers();
        on.conn.install_triggers().unwrap();
        on
    }

    fn leaves(&mut self, statement: &str) -> Vec<String> {
        self.plain.batch_execute(statement).unwrap();
        lines(&entries!(self.plain))
    }
}

fn old(id: i32, email: &str, name: &str) -> String {
    format!("{id} AS \"id\", '{email}' AS \"email\", '{name}' AS \"name\", NULL AS \"team\", NULL AS \"boss\"")
}

#[test]
fn each_row_is_written_down_with_its_keys() {
    let mut on = Fixture::new();
    assert_eq!(
        on.leaves("INSERT INTO users VALUES (1, 'a', 'Ann', NULL, NULL), (2, 'b', 'Bob', NULL, NULL)"),
        ["insert 1", "insert 2"]
    );
    assert_eq!(on.leaves("UPDATE users SET name = 'Eve' WHERE id = 1"), ["update 1"]);
    assert_eq!(on.leaves("UPDATE users SET name = name WHERE id = 1"), ["update 1"]);
    let was = old(1, "a", "Eve");
    assert_eq!(on.leaves("UPDATE users SET email = 'c' WHERE id = 1"), [format!("update 1 was {was}")]);
    let was = old(1, "c", "Eve");
    assert_eq!(on.leaves("UPDATE users SET id = 9 WHERE id = 1"), [format!("delete 1 was {was}"), "insert 9".into()]);
    let was = old(9, "c", "Eve");
    assert_eq!(on.leaves("DELETE FROM users WHERE id = 9"), [format!("delete 9 was {was}")]);
    let upsert =
        "INSERT INTO users (id, name) VALUES (2, 'Bo'), (3, 'x') ON CONFLICT (id) DO UPDATE SET name = excluded.name";
    assert_eq!(on.leaves(upsert), ["update 2", "insert 3"]);
    for or in ["IGNORE", "FAIL", "ABORT", "ROLLBACK", "REPLACE"] {
        assert_eq!(on.leaves(&format!("INSERT OR {or} INTO users (id, name) VALUES (5, 'o')")), ["insert 5"]);
        assert_eq!(on.leaves(&format!("UPDATE OR {or} users SET name = 'p' WHERE id = 5")), ["update 5"]);
        on.leaves("DELETE FROM users WHERE id = 5");
    }
    assert_eq!(on.leaves("DELETE FROM users").len(), 2);
}

#[test]
fn a_replaced_row_is_written_down_where_delete_triggers_run() {
    let mut on = Fixture::new();
    on.leaves("INSERT INTO users (id, email, name) VALUES (1, 'a', 'Ann')");
    // The same primary key is written anew, which is enough.
    assert_eq!(on.leaves("REPLACE INTO users (id, email, name) VALUES (1, 'b', 'Bob')"), ["insert 1"]);
    // Another one is not seen,
    assert_eq!(on.leaves("REPLACE INTO users (id, email, name) VALUES (2, 'b', 'Cyd')"), ["insert 2"]);
    let warned = on.conn.check().unwrap();
    assert!(warned.len() == 1 && warned[0].advice.contains("recursive_triggers"), "{warned:?}");
    // unless SQLite is told to run the triggers.
    on.plain.batch_execute("PRAGMA recursive_triggers = ON").unwrap();
    let was = old(2, "b", "Cyd");
    let replaced = on.leaves("REPLACE INTO users (id, email, name) VALUES (3, 'b', 'Dan')");
    assert_eq!(replaced, [format!("delete 2 was {was}"), "insert 3".into()]);
    on.conn.batch_execute("PRAGMA recursive_triggers = ON").unwrap();
    assert_eq!(on.conn.check().unwrap(), []);
}

#[test]
fn a_replace_that_may_displace_a_row_unseen_is_reported() {
    let mut on = Fixture::new();
    diesel::replace_into(users::table).values(user(1, "a", "Ann")).execute(&mut on.conn).unwrap();
    let missed = on.recorder.missed();
    assert!(missed.len() == 1 && missed[0].reason.contains("recursive_triggers"), "{missed:?}");
    on.conn.batch_execute("PRAGMA recursive_triggers = ON").unwrap();
    diesel::replace_into(users::table).values(user(2, "a", "Bob")).execute(&mut on.conn).unwrap();
    assert!(on.recorder.missed().is_empty());
    assert_eq!(
        lines(&entries!(on.plain)),
        ["insert 1".to_owned(), format!("delete 1 was {}", old(1, "a", "Ann")), "insert 2".into()]
    );
}

#[test]
fn what_no_statement_shows_is_written_down() {
    let mut on = Fixture::new();
    on.leaves(
        "INSERT INTO teams VALUES (7); INSERT INTO users VALUES (1, 'a', 'Ann', 7, NULL), (2, 'b', 'Bob', NULL, 1)",
    );
    assert_eq!(on.leaves("UPDATE teams SET id = 8"), ["update 1"]);
    let cascaded = on.leaves("DELETE FROM teams");
    assert!(cascaded.len() == 2 && cascaded.iter().any(|line| line.starts_with("delete 1 was ")), "{cascaded:?}");
    assert!(cascaded.contains(&"update 2".to_owned()), "{cascaded:?}");
    on.plain
        .batch_execute(
            "CREATE VIEW seen AS SELECT * FROM users;
             CREATE TRIGGER through INSTEAD OF UPDATE ON seen BEGIN UPDATE users SET name = NEW.name WHERE id = NEW.id; END",
        )
        .unwrap();
    assert_eq!(on.leaves("UPDATE seen SET name = 'v'"), ["update 2"]);
    assert_eq!(on.leaves("UPDATE users SET name = 'both'; DELETE FROM users").len(), 2);
}

#[test]
fn nothing_stays_of_what_was_rolled_back() {
    let mut on = Fixture::new();
    let statements = "BEGIN; INSERT INTO users (id, name) VALUES (1, 'Ann'); SAVEPOINT s; \
                      INSERT INTO users (id, name) VALUES (2, 'Bob'); ROLLBACK TO s; COMMIT; BEGIN; DELETE FROM users; ROLLBACK";
    assert_eq!(on.leaves(statements), ["insert 1"]);
}

#[test]
fn statements_run_as_they_are_and_wake_the_relay() {
    let mut on = Fixture::new();
    let id: i32 = diesel::insert_into(users::table)
        .values(user(1, "a", "Ann"))
        .returning(users::id)
        .get_result(&mut on.conn)
        .unwrap();
    assert_eq!(id, 1);
    assert!(on.conn.last_commit().unwrap().outbox.is_some());
    assert!(on.recorder.take_outboxed() > 0);
    let rowid: i64 =
        diesel::select(diesel::dsl::sql::<BigInt>("last_insert_rowid()")).get_result(&mut on.conn).unwrap();
    assert_eq!(rowid, 1, "not that of the outbox");
    on.conn
        .transaction(|conn| {
            conn.batch_execute("UPDATE users SET name = 'x'; UPDATE users SET name = 'y'")?;
            assert_eq!(on.recorder.take_outboxed(), 0, "not before the commit");
            QueryResult::Ok(())
        })
        .unwrap();
    assert_eq!(on.recorder.take_outboxed(), 1);
    let (sets, missed) = (on.recorder.take(), on.recorder.missed());
    assert!(sets.is_empty() && missed.is_empty(), "{missed:?}");
    let entries = entries!(on.plain);
    assert_eq!((entries[0].table_schema.as_deref(), entries[0].table_name.as_str()), (None, "users"));
    assert_eq!((entries[0].epoch, entries[0].timeline, entries[0].model.as_deref()), (None, 0, None));
    assert!(entries[0].sequence / 1000 >= entries[0].captured_at, "above the clock");
    assert_eq!(lines(&entries), ["insert 1", "update 1", "update 1"]);
}

#[test]
fn versions_of_triggers_and_of_capture_are_of_one_order() {
    let mut on = Fixture::new();
    let mut other = attach(declared().model::<User>(), &on.recorder).wrap(establish(&on.directory)).unwrap();
    diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut on.conn).unwrap();
    diesel::update(users::table).set(users::name.eq("Bob")).execute(&mut other).unwrap();
    diesel::update(users::table).set(users::name.eq("Cyd")).execute(&mut on.conn).unwrap();
    let captured = on.recorder.take()[0].changes[0].version.sequence().cast_signed();
    let entries = entries!(on.plain);
    assert!(entries[0].sequence < captured && captured < entries[2].sequence, "{captured} {entries:?}");
    assert!(captured < entries[1].sequence, "the trigger's own of the captured write is above it");
}

#[test]
fn a_table_without_its_triggers_is_not_written() {
    let mut on = Fixture::without_triggers();
    let wrong = |on: &mut Fixture| {
        let found = on.conn.check().unwrap();
        let wrong =
            found.iter().find(|finding| finding.severity == Severity::Error).map(|finding| finding.message.clone());
        let mut other = attach(declared().triggers::<User>(), &on.recorder).wrap(establish(&on.directory)).unwrap();
        let ran = sql_query("UPDATE users SET name = 'x'").execute(&mut other);
        assert_eq!(ran.is_err(), wrong.is_some(), "{ran:?}");
        wrong.unwrap_or_default()
    };
    assert!(wrong(&mut on).contains("lacks triggers of kvsync"));
    on.conn.install_triggers().unwrap();
    assert_eq!(wrong(&mut on), "");
    // That leaves the outbox's name in quotes in the triggers, which fill it as before.
    let renamed = "ALTER TABLE kvsync_outbox RENAME TO away; ALTER TABLE away RENAME TO kvsync_outbox";
    on.plain.batch_execute(renamed).unwrap();
    let found = on.conn.check().unwrap();
    assert!(
        found.iter().all(|finding| finding.kind != FindingKind::Trigger || finding.message.contains("REPLACE")),
        "{found:?}"
    );
    for (breaks, says) in [
        ("DROP TRIGGER kvsync_outbox_users_move", "lacks triggers"),
        (
            "DROP TRIGGER kvsync_outbox_users_delete; CREATE TRIGGER kvsync_outbox_users_delete AFTER DELETE ON users BEGIN SELECT 1; END",
            "does not fill",
        ),
        // The triggers follow their table under its new name.
        ("ALTER TABLE kvsync_outbox RENAME TO away; CREATE TABLE kvsync_outbox AS SELECT * FROM away", "does not fill"),
    ] {
        on.plain.batch_execute(breaks).unwrap();
        let said = wrong(&mut on);
        assert!(said.contains(says), "{breaks}: {said}");
        on.conn.install_triggers().unwrap();
        assert_eq!(wrong(&mut on), "", "{breaks}");
    }
    let sql = declared().triggers::<User>().triggers_sql().unwrap();
    on.plain.batch_execute(&sql.down).unwrap();
    assert!(wrong(&mut on).contains("lacks"));
    on.plain.batch_execute(&sql.up).unwrap();
    on.plain.batch_execute(&sql.up).unwrap();
    assert_eq!(wrong(&mut on), "");
    on.plain.batch_execute(&format!("{} DROP TABLE kvsync_outbox", sql.down)).unwrap();
    assert!(wrong(&mut on).contains("no outbox"));
}

#[test]
fn triggers_that_are_taken_away_leave_their_table_dirty() {
    let mut on = Fixture::new();
    sql_query("UPDATE users SET name = 'met'").execute(&mut on.conn).unwrap();
    for finds in
        [|on: &mut Fixture| drop(on.conn.check().unwrap()), |on: &mut Fixture| on.conn.install_triggers().unwrap()]
    {
        on.recorder.missed();
        on.plain.batch_execute("DROP TRIGGER kvsync_outbox_users_update; UPDATE users SET name = 'unseen'").unwrap();
        finds(&mut on);
        let missed = on.recorder.missed();
        assert!(missed.iter().any(|missed| missed.table.as_deref() == Some("users")), "{missed:?}");
        on.conn.install_triggers().unwrap();
        sql_query("UPDATE users SET name = 'again'").execute(&mut on.conn).unwrap();
    }
}

#[test]
fn while_a_program_is_replaced_both_write() {
    let mut on = Fixture::new();
    let newer = declared().triggers::<User>().triggers::<Newer>();
    attach(newer, &on.recorder).wrap(establish(&on.directory)).unwrap().install_triggers().unwrap();
    on.conn.batch_execute("PRAGMA recursive_triggers = ON").unwrap();
    let found = on.conn.check().unwrap();
    assert!(found.len() == 1 && found[0].severity == Severity::Warning, "{found:?}");
    assert!(found[0].message.contains("other columns or models"), "{found:?}");
    diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut on.conn).unwrap();
    diesel::update(users::table).set(users::name.eq("Bob")).execute(&mut on.conn).unwrap();
    assert_eq!(lines(&entries!(on.plain)), ["insert 1".to_owned(), format!("update 1 was {}", old(1, "a", "Ann"))]);
    on.conn.install_triggers().unwrap();
    assert_eq!(on.conn.check().unwrap(), []);
}

#[test]
fn versions_are_in_the_order_of_commits() {
    const ROUNDS: i64 = 60;
    let mut on = Fixture::new();
    on.leaves("INSERT INTO users (id, name) VALUES (1, '0')");
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let mut conn = attach(declared().triggers::<User>(), &on.recorder).wrap(establish(&on.directory)).unwrap();
            std::thread::spawn(move || {
                for _ in 0..ROUNDS {
                    let added = "UPDATE users SET name = name + 1, email = name + 1";
                    conn.immediate_transaction(|conn| sql_query(added).execute(conn)).unwrap();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let entries = entries!(on.plain);
    let names: Vec<String> = entries.iter().filter_map(|entry| entry.old_row.clone()).collect();
    let expected: Vec<String> = (0..ROUNDS * 2).map(|at| format!("'{at}' AS \"name\"")).collect();
    assert_eq!(names.len(), expected.len());
    for (name, expected) in names.iter().zip(expected) {
        assert!(name.contains(&expected), "{name} {expected}");
    }
    assert!(entries.is_sorted_by(|one, other| (one.sequence < other.sequence) && (one.id < other.id)));
}
