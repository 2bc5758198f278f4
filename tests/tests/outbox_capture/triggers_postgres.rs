use std::time::{SystemTime, UNIX_EPOCH};

use diesel::connection::SimpleConnection;
use diesel::pg::{CopyFormat, Pg};
use diesel::prelude::*;
use diesel::sql_query;
use kvsync::capture::{Severity, SyncConnection};
use kvsync_tests::postgres::{FreshDatabase, fresh_database};

use super::*;

type Conn = SyncConnection<PgConnection>;

struct Fixture {
    /// Knows of kvsync.
    conn: Conn,
    /// Does not.
    plain: PgConnection,
    recorder: Arc<Recorder>,
    attached: Attached<Pg>,
    database: FreshDatabase,
}

fn declared(database: &FreshDatabase) -> Database<Pg> {
    let url = database.url();
    Database::<Pg>::new("main", move || PgConnection::establish(&url))
}

impl Fixture {
    fn without_triggers() -> Self {
        let database = fresh_database().unwrap();
        let mut plain = database.connect().unwrap();
        plain.batch_execute(POSTGRES_OUTBOX).unwrap();
        plain.batch_execute(TABLES).unwrap();
        let recorder = Recorder::in_epoch(1);
        let attached = attach(declared(&database).triggers::<User>(), &recorder);
        let conn = attached.connect().unwrap();
        Self { conn, plain, recorder, attached, database }
    }

    fn new() -> Self {
        let mut on = Self::without_triggers();
        on.conn.install_triggers().unwrap();
        on
    }

    /// What a statement leaves in the outbox, run by someone who does not know of kvsync.
    fn leaves(&mut self, statement: &str) -> Vec<String> {
        self.plain.batch_execute(statement).unwrap();
        lines(&entries!(self.plain))
    }
}

fn old(id: i32, email: &str, name: &str) -> String {
    format!("{{\"id\":{id},\"email\":\"{email}\",\"name\":\"{name}\",\"team\":null,\"boss\":null}}")
}

#[test]
fn each_row_is_written_down_with_its_keys() {
    let mut on = Fixture::new();
    assert_eq!(on.leaves("INSERT INTO users VALUES (1, 'a', 'Ann'), (2, 'b', 'Bob')"), ["insert 1", "insert 2"]);
    assert_eq!(on.leaves("UPDATE users SET name = 'Eve' WHERE id = 1"), ["update 1"]);
    assert_eq!(on.leaves("UPDATE users SET name = name WHERE id = 1"), ["update 1"]);
    let was = old(1, "a", "Eve");
    assert_eq!(on.leaves("UPDATE users SET email = 'c' WHERE id = 1"), [format!("update 1 was {was}")]);
    let was = old(1, "c", "Eve");
    assert_eq!(on.leaves("UPDATE users SET id = 9 WHERE id = 1"), [format!("delete 1 was {was}"), "insert 9".into()]);
    let was = old(9, "c", "Eve");
    assert_eq!(on.leaves("DELETE FROM users WHERE id = 9"), [format!("delete 9 was {was}")]);
    let upsert =
        "INSERT INTO users VALUES (2, 'b', 'Bo'), (3, NULL, 'x') ON CONFLICT (id) DO UPDATE SET name = excluded.name";
    assert_eq!(on.leaves(upsert), ["update 2", "insert 3"]);
    assert_eq!(on.leaves("INSERT INTO users VALUES (2, 'b', 'Bo') ON CONFLICT DO NOTHING"), [""; 0]);
}

#[test]
fn a_row_says_when_and_where_it_was_written() {
    let mut on = Fixture::new();
    let before: i64 = position(&mut on.plain);
    diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut on.conn).unwrap();
    let after: i64 = position(&mut on.plain);
    let entries = entries!(on.plain);
    let entry = &entries[0];
    assert_eq!((entry.table_schema.as_deref(), entry.table_name.as_str()), (Some("public"), "users"));
    assert_eq!((entry.epoch, entry.timeline, entry.model.as_deref()), (None, 1, None));
    assert_eq!((entry.content, entry.live), (false, None));
    assert!((before..after).contains(&entry.sequence), "{before} {} {after}", entry.sequence);
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    assert!((now - 600_000..=now + 600_000).contains(&entry.captured_at), "{now} {}", entry.captured_at);
}

fn position(conn: &mut PgConnection) -> i64 {
    let asked = "(pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint";
    diesel::select(diesel::dsl::sql::<diesel::sql_types::BigInt>(asked)).get_result(conn).unwrap()
}

#[test]
fn what_no_statement_shows_is_written_down() {
    let mut on = Fixture::new();
    on.leaves(
        "INSERT INTO teams VALUES (7); INSERT INTO users VALUES (1, 'a', 'Ann', 7, NULL), (2, 'b', 'Bob', NULL, 1)",
    );
    let cascaded = on.leaves("DELETE FROM teams");
    assert_eq!(cascaded.len(), 2, "{cascaded:?}");
    assert!(cascaded.iter().any(|line| line.starts_with("delete 1 was {")) && cascaded.contains(&"update 2".into()));

    on.plain
        .batch_execute(
            "CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS 'UPDATE users SET name = ''f'' RETURNING id'",
        )
        .unwrap();
    assert_eq!(on.leaves("SELECT writes()"), ["update 2"]);
    assert_eq!(on.leaves("DO $$ BEGIN UPDATE users SET name = 'do'; END $$"), ["update 2"]);
    let dml =
        "WITH one AS (INSERT INTO users VALUES (3, 'c', 'Cyd') RETURNING id) UPDATE users SET name = 'x' WHERE id = 2";
    let mut written = on.leaves(dml);
    written.sort();
    assert_eq!(written, ["insert 3", "update 2"]);
    let merge = "MERGE INTO users u USING (VALUES (2), (4)) AS v (id) ON u.id = v.id \
                 WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (id, name) VALUES (v.id, 'm')";
    let written = on.leaves(merge);
    assert_eq!(written, [format!("delete 2 was {}", old(2, "b", "x")), "insert 4".into()]);
    assert_eq!(on.leaves("UPDATE users SET name = 'both'; DELETE FROM users WHERE id = 4").len(), 3);
    on.plain.batch_execute("CREATE VIEW seen AS SELECT * FROM users").unwrap();
    assert_eq!(on.leaves("UPDATE seen SET name = 'v'"), ["update 3"]);
}

#[test]
fn a_copy_is_written_down() {
    let mut on = Fixture::new();
    let rows = diesel::copy_from(users::table)
        .from_raw_data((users::id, users::name), |copy| {
            std::io::Write::write_all(copy, b"1\tAnn\n2\tBob\n").unwrap();
            QueryResult::Ok(())
        })
        .with_format(CopyFormat::Text)
        .execute(&mut on.plain)
        .unwrap();
    assert_eq!(rows, 2);
    assert_eq!(lines(&entries!(on.plain)), ["insert 1", "insert 2"]);
}

#[test]
fn a_truncate_is_the_deletion_of_every_row() {
    let mut on = Fixture::new();
    on.leaves("INSERT INTO users VALUES (1, 'a', 'Ann'), (2, 'b', 'Bob')");
    let rows = [format!("delete 1 was {}", old(1, "a", "Ann")), format!("delete 2 was {}", old(2, "b", "Bob"))];
    assert_eq!(on.leaves("TRUNCATE teams CASCADE"), rows);
    on.leaves("INSERT INTO users VALUES (1, 'a', 'Ann')");
    // Its policy is not asked: the triggers see it.
    sql_query("TRUNCATE users").execute(&mut on.conn).unwrap();
    assert_eq!(lines(&entries!(on.plain)), [rows[0].clone()]);
    // There it cannot be told which rows were there; that is said.
    on.leaves("INSERT INTO users VALUES (1, 'a', 'Ann')");
    let said = on.leaves("BEGIN ISOLATION LEVEL SERIALIZABLE; TRUNCATE users; COMMIT");
    assert_eq!(said, [rows[0].clone(), "truncate -".into()]);
}

#[test]
fn triggers_that_change_the_row_or_take_it_away_are_seen_through() {
    let mut on = Fixture::new();
    on.plain
        .batch_execute(
            "CREATE TABLE others (LIKE users);
             CREATE FUNCTION route() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF NEW.id > 100 THEN INSERT INTO others SELECT NEW.*; RETURN NULL; END IF;
                 NEW.email := lower(NEW.email); RETURN NEW;
             END $$;
             CREATE TRIGGER route BEFORE INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION route();
             CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 UPDATE users SET name = name || '!' WHERE id = NEW.id; RETURN NULL;
             END $$;
             CREATE TRIGGER again AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION touch();",
        )
        .unwrap();
    assert_eq!(on.leaves("INSERT INTO users VALUES (1, 'A', 'Ann'), (101, 'B', 'Bob')"), ["insert 1", "update 1"]);
    assert_eq!(on.leaves("UPDATE users SET email = 'A' WHERE id = 1"), ["update 1"]);
}

#[test]
fn nothing_stays_of_what_was_rolled_back() {
    let mut on = Fixture::new();
    let statements = "BEGIN; INSERT INTO users VALUES (1, 'a', 'Ann'); SAVEPOINT s; INSERT INTO users VALUES (2, 'b', 'Bob'); \
                      ROLLBACK TO s; COMMIT; BEGIN; DELETE FROM users; ROLLBACK";
    assert_eq!(on.leaves(statements), ["insert 1"]);
}

#[test]
fn statements_run_as_they_are_and_wake_the_relay() {
    let mut on = Fixture::new();
    // A role that may write and not read: RETURNING would fail.
    let role = format!("writer_{}", std::process::id());
    on.plain
        .batch_execute(&format!(
            "DROP ROLE IF EXISTS {role}; CREATE ROLE {role}; GRANT INSERT ON users TO {role}; INSERT INTO teams VALUES (7)"
        ))
        .unwrap();
    on.conn.batch_execute(&format!("SET ROLE {role}")).unwrap();
    assert!(on.conn.last_commit().is_none());
    diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut on.conn).unwrap();
    assert!(on.conn.last_commit().unwrap().outbox.is_some());
    assert_eq!(on.recorder.take_outboxed(), 1);
    on.conn.batch_execute("RESET ROLE").unwrap();
    on.plain.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).unwrap();

    on.conn
        .transaction(|conn| {
            sql_query("WITH u AS (UPDATE users SET team = 7) SELECT 1").execute(conn)?;
            conn.batch_execute("UPDATE users SET name = 'x'; SELECT 2")?;
            let name: String =
                diesel::update(users::table).set(users::name.eq("y")).returning(users::name).get_result(conn)?;
            assert_eq!(name, "y");
            assert_eq!(on.recorder.take_outboxed(), 0, "not before the commit");
            QueryResult::Ok(())
        })
        .unwrap();
    assert_eq!(on.recorder.take_outboxed(), 1);
    let names: Vec<String> =
        diesel::update(users::table).set(users::name.eq("z")).returning(users::name).load(&mut on.conn).unwrap();
    assert_eq!(names, ["z"]);
    assert!(on.recorder.take_outboxed() > 0);
    let (sets, missed) = (on.recorder.take(), on.recorder.missed());
    assert!(sets.is_empty() && missed.is_empty(), "{missed:?}");
    assert_eq!(lines(&entries!(on.plain)), ["insert 1", "update 1", "update 1", "update 1", "update 1"]);
}

#[test]
fn a_table_without_its_triggers_is_not_written() {
    let mut on = Fixture::without_triggers();
    let wrong = |on: &mut Fixture| {
        let found = on.conn.check().unwrap();
        let wrong =
            found.iter().find(|finding| finding.severity == Severity::Error).map(|finding| finding.message.clone());
        // Another process, which has not looked yet.
        let mut other = attach(declared(&on.database).triggers::<User>(), &on.recorder).connect().unwrap();
        let ran = sql_query("UPDATE users SET name = 'x'").execute(&mut other);
        assert_eq!(ran.is_err(), wrong.is_some(), "{ran:?}");
        if let (Err(error), Some(wrong)) = (ran, &wrong) {
            assert!(error.to_string().contains(wrong.as_str()), "{error}");
        }
        wrong.unwrap_or_default()
    };
    assert!(wrong(&mut on).contains("lacks a trigger of kvsync"));
    on.conn.install_triggers().unwrap();
    assert_eq!(wrong(&mut on), "");
    for (breaks, says) in [
        ("ALTER TABLE users DISABLE TRIGGER USER", "is disabled"),
        ("ALTER TABLE users ENABLE REPLICA TRIGGER \"0_kvsync_outbox\"", "is disabled"),
        ("DROP TRIGGER \"0_kvsync_outbox\" ON users", "lacks a trigger"),
        ("DROP TRIGGER \"0_kvsync_outbox_truncate\" ON users", "lacks a trigger"),
        ("ALTER FUNCTION kvsync_outbox_users() SECURITY INVOKER", "does not fill"),
        ("ALTER FUNCTION kvsync_outbox_users() RESET ALL", "does not fill"),
        (
            "CREATE OR REPLACE FUNCTION kvsync_outbox_users() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
            "does not fill",
        ),
    ] {
        on.plain.batch_execute(breaks).unwrap();
        let said = wrong(&mut on);
        assert!(said.contains(says), "{breaks}: {said}");
        on.conn.install_triggers().unwrap();
        assert_eq!(wrong(&mut on), "", "{breaks}");
    }
    on.plain.batch_execute("ALTER TABLE users ENABLE TRIGGER \"0_kvsync_outbox\"").unwrap();
    let found = on.conn.check().unwrap();
    assert!(found[0].severity == Severity::Warning && found[0].message.contains("not enabled ALWAYS"), "{found:?}");
    on.plain.batch_execute("DROP TABLE kvsync_outbox CASCADE").unwrap();
    assert!(wrong(&mut on).contains("no table `kvsync_outbox`"));
}

#[test]
fn while_a_program_is_replaced_both_write() {
    let mut on = Fixture::new();
    let newer = declared(&on.database).triggers::<User>().triggers::<Newer>();
    attach(newer, &on.recorder).connect().unwrap().install_triggers().unwrap();
    let found = on.conn.check().unwrap();
    assert!(found.len() == 1 && found[0].severity == Severity::Warning, "{found:?}");
    assert!(found[0].message.contains("other columns or models"), "{found:?}");
    let mut older = attach(declared(&on.database).triggers::<User>(), &on.recorder).connect().unwrap();
    diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut older).unwrap();
    diesel::update(users::table).set(users::name.eq("Bob")).execute(&mut older).unwrap();
    let was = old(1, "a", "Ann");
    assert_eq!(lines(&entries!(on.plain)), ["insert 1".to_owned(), format!("update 1 was {was}")]);
}

#[test]
fn a_migration_makes_them_and_takes_them_away() {
    let mut on = Fixture::without_triggers();
    let sql = declared(&on.database).triggers::<User>().triggers_sql().unwrap();
    on.plain.batch_execute(&sql.up).unwrap();
    on.plain.batch_execute(&sql.up).unwrap();
    assert_eq!(on.conn.check().unwrap(), []);
    on.plain.batch_execute("SET session_replication_role = replica").unwrap();
    assert_eq!(on.leaves("INSERT INTO users VALUES (1, 'a', 'Ann')"), ["insert 1"]);
    on.plain.batch_execute(&sql.down).unwrap();
    assert_eq!(on.leaves("DELETE FROM users"), [""; 0]);
    let left: i64 = diesel::select(diesel::dsl::sql::<BigInt>(
        "(SELECT count(*) FROM pg_proc WHERE proname LIKE 'kvsync%') + (SELECT count(*) FROM pg_trigger WHERE tgname LIKE '%kvsync%')",
    ))
    .get_result(&mut on.plain)
    .unwrap();
    assert_eq!(left, 0);
}

mod odd {
    use super::super::{Deserialize, Serialize, Syncable};
    use diesel::prelude::*;

    diesel::table! {
        #[sql_name = "odd \"$kvsync$\" 'table' {outbox} %I \\ whose name is as long as it may be"]
        odd (id) {
            id -> Text,
            #[sql_name = "we\"ird 'col' % $kvsync1$"]
            weird -> Text,
        }
    }

    #[derive(Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
    #[diesel(table_name = odd)]
    #[sync_key(name = "odd", fmt = "odd:<weird>", assume_unique)]
    pub struct Odd {
        pub id: String,
        pub weird: String,
    }
}

#[test]
fn names_may_be_odd() {
    let database = fresh_database().unwrap();
    let mut plain = database.connect().unwrap();
    plain.batch_execute(POSTGRES_OUTBOX).unwrap();
    let name = "\"odd \"\"$kvsync$\"\" 'table' {outbox} %I \\ whose name is as long as it may be\"";
    let column = "\"we\"\"ird 'col' % $kvsync1$\"";
    plain.batch_execute(&format!("CREATE TABLE {name} (id text PRIMARY KEY, {column} text NOT NULL)")).unwrap();
    let declared = declared(&database).triggers::<odd::Odd>();
    let sql = declared.triggers_sql().unwrap();
    let mut conn = attach(declared, &Recorder::in_epoch(1)).connect().unwrap();
    plain.batch_execute(&sql.up).unwrap();
    assert_eq!(conn.check().unwrap(), []);
    diesel::insert_into(odd::odd::table)
        .values((odd::odd::id.eq("i"), odd::odd::weird.eq("a")))
        .execute(&mut conn)
        .unwrap();
    diesel::update(odd::odd::table).set(odd::odd::weird.eq("b")).execute(&mut conn).unwrap();
    diesel::delete(odd::odd::table).execute(&mut conn).unwrap();
    let was = |value: &str| format!("was {{\"id\":\"i\",\"we\\\"ird 'col' % $kvsync1$\":\"{value}\"}}");
    let expected =
        ["insert \"i\"".to_owned(), format!("update \"i\" {}", was("a")), format!("delete \"i\" {}", was("b"))];
    assert_eq!(lines(&entries!(plain)), expected);
    plain.batch_execute(&sql.down).unwrap();
    assert_eq!(conn.check().unwrap().len(), 1);
}

#[test]
fn partitions_fill_the_outbox_of_their_table() {
    let database = fresh_database().unwrap();
    let mut plain = database.connect().unwrap();
    plain.batch_execute(POSTGRES_OUTBOX).unwrap();
    plain
        .batch_execute(
            "CREATE TABLE users (id int, email text, name text NOT NULL, team int, boss int, PRIMARY KEY (id)) PARTITION BY RANGE (id);
             CREATE TABLE low PARTITION OF users FOR VALUES FROM (0) TO (100);",
        )
        .unwrap();
    let mut conn = attach(declared(&database).triggers::<User>(), &Recorder::in_epoch(1)).connect().unwrap();
    conn.install_triggers().unwrap();
    plain.batch_execute("CREATE TABLE high PARTITION OF users FOR VALUES FROM (100) TO (200)").unwrap();
    let lacks = |conn: &mut Conn| conn.check().unwrap().iter().any(|finding| finding.message.contains("trigger"));
    assert!(!lacks(&mut conn), "{:?}", conn.check().unwrap());
    plain
        .batch_execute("INSERT INTO users VALUES (1, 'a', 'Ann'), (101, 'b', 'Bob'); UPDATE high SET name = 'x'; UPDATE users SET id = 102 WHERE id = 1; TRUNCATE users")
        .unwrap();
    let entries = entries!(plain);
    assert!(entries.iter().all(|entry| entry.table_name == "users"), "{entries:?}");
    let short: Vec<String> = lines(&entries).iter().map(|line| line.split(" was").next().unwrap().to_owned()).collect();
    assert_eq!(short, ["insert 1", "insert 101", "update 101", "delete 1", "insert 102", "delete 101", "delete 102"]);
    plain.batch_execute("ALTER TABLE high DISABLE TRIGGER \"0_kvsync_outbox\"").unwrap();
    assert!(lacks(&mut conn));
}

#[test]
fn every_schema_with_a_scope_has_its_own() {
    let database = fresh_database().unwrap();
    let mut plain = database.connect().unwrap();
    plain.batch_execute(POSTGRES_OUTBOX).unwrap();
    for schema in ["t1", "t2", "other"] {
        plain.batch_execute(&format!("CREATE SCHEMA {schema}; SET search_path = {schema}; {TABLES}")).unwrap();
    }
    let declared = declared(&database)
        .triggers::<User>()
        .scopes(|schema| schema.starts_with('t').then(|| kvsync::Scope::named(schema)));
    let mut conn = attach(declared, &Recorder::in_epoch(1)).connect().unwrap();
    conn.install_triggers().unwrap();
    plain
        .batch_execute(
            "SET search_path = public; INSERT INTO t1.users VALUES (1, 'a', 'Ann'); INSERT INTO t2.users VALUES (1, 'a', 'Bob'); \
             INSERT INTO other.users VALUES (1, 'a', 'Cyd')",
        )
        .unwrap();
    let schemas: Vec<Option<String>> = entries!(plain).into_iter().map(|entry| entry.table_schema).collect();
    assert_eq!(schemas, [Some("t1".to_owned()), Some("t2".to_owned())]);
    // A tenant's own table of the name, in front of the outbox, takes none of it.
    conn.batch_execute("SET search_path = t1, public").unwrap();
    assert_eq!(conn.check().unwrap(), []);
}

#[derive(QueryableByName)]
struct Seen {
    #[diesel(sql_type = BigInt)]
    seen: i64,
}

#[test]
fn versions_are_in_the_order_of_commits() {
    const ROUNDS: i32 = 150;
    let on = Fixture::new();
    let work = |number: i32| {
        let mut conn = on.attached.connect().unwrap();
        move || {
            for round in 0..ROUNDS {
                conn.transaction(|conn| {
                    sql_query("UPDATE users SET name = (name::int + 1)::text WHERE id = 1").execute(conn)?;
                    if round % 3 == number {
                        sql_query("UPDATE users SET name = (name::int + 1)::text, team = NULL WHERE id = 1")
                            .execute(conn)?;
                    }
                    QueryResult::Ok(())
                })
                .unwrap();
            }
        }
    };
    let mut plain = on.database.connect().unwrap();
    // The number that each row of the outbox was written with.
    plain
        .batch_execute(
            "INSERT INTO users VALUES (1, 'a', '0'); ALTER TABLE kvsync_outbox ADD seen text;
             CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 SELECT name INTO NEW.seen FROM public.users WHERE id = 1; RETURN NEW; END $$;
             CREATE TRIGGER see BEFORE INSERT ON kvsync_outbox FOR EACH ROW EXECUTE FUNCTION see();",
        )
        .unwrap();
    let threads: Vec<_> = (0..3).map(|number| std::thread::spawn(work(number))).collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let seen: Vec<Seen> =
        sql_query("SELECT seen::bigint AS seen FROM kvsync_outbox WHERE action = 'update' ORDER BY timeline, sequence")
            .load(&mut plain)
            .unwrap();
    let seen: Vec<i64> = seen.into_iter().map(|seen| seen.seen).collect();
    let expected: Vec<i64> = (1..=i64::from(ROUNDS) * 4).collect();
    assert_eq!(seen, expected);
}
