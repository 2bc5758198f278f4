//! A table whose written rows cannot be read back: writes pass as without kvsync, and it is reported.

use kvsync::capture::Policy;

use super::*;

fn errors(app: &mut App<Pg, FreshDatabase>) -> Vec<FindingKind> {
    let found = app.conn.check().unwrap().into_iter();
    found.filter(|finding| finding.severity == Severity::Error).map(|finding| finding.kind).collect()
}

fn insert(conn: &mut SyncConnection<PgConnection>, id: i32, name: &str) -> QueryResult<usize> {
    diesel::insert_into(users::table).values(user(id, &format!("e{id}"), name)).execute(conn)
}

#[test]
fn a_column_that_another_program_drops_fails_no_write() {
    let mut app = postgres(TABLE, Database::model::<User>);
    insert(&mut app.conn, 1, "ann").unwrap();
    app.kv.flush(LONG).unwrap();
    app.home.connect().unwrap().batch_execute("ALTER TABLE users RENAME COLUMN name TO nick").unwrap();
    assert_eq!(sql_query("UPDATE users SET nick = 'eve'").execute(&mut app.conn).unwrap(), 1);
    until("masked", || app.by_email("e1") == Lookup::Unknown(Miss::Masked));
    app.home.connect().unwrap().batch_execute("ALTER TABLE users RENAME COLUMN nick TO name").unwrap();
    let reasons = app.reasons();
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert!(reasons[0].contains("captured by key"), "{reasons:?}");
    assert_eq!(app.by_email("e1"), Lookup::Found(user(1, "e1", "eve")));
    assert!(app.kv.check(&mut app.conn).unwrap().is_empty(), "it fits again");
    sql_query("UPDATE users SET name = 'ann'").execute(&mut app.conn).unwrap();
    assert_eq!(app.reasons(), [""; 0]);
    assert_eq!(app.by_email("e1"), Lookup::Found(user(1, "e1", "ann")));
}

#[test]
fn in_a_transaction_the_first_write_fails_and_the_next_passes() {
    let mut app = postgres(TABLE, Database::model::<User>);
    insert(&mut app.conn, 1, "ann").unwrap();
    app.home.connect().unwrap().batch_execute("ALTER TABLE users RENAME COLUMN name TO nick").unwrap();
    let update = |conn: &mut SyncConnection<PgConnection>| {
        conn.transaction(|conn| sql_query("UPDATE users SET nick = 'eve'").execute(conn))
    };
    assert!(update(&mut app.conn).is_err());
    assert_eq!(update(&mut app.conn).unwrap(), 1);
    assert_eq!(app.conn.last_commit().map(|token| token.sequence > 0), Some(true));
    app.home.connect().unwrap().batch_execute("ALTER TABLE users RENAME COLUMN nick TO name").unwrap();
    app.kv.flush(LONG).unwrap();
    assert_eq!(app.by_email("e1"), Lookup::Found(user(1, "e1", "eve")));
}

#[test]
fn on_sqlite_a_column_that_is_gone_fails_no_write() {
    for within in [false, true] {
        let mut app = sqlite(TABLE, Database::model::<User>);
        run!(app, "INSERT INTO users VALUES (1, 'a', 'ann')");
        app.conn.unsynced().batch_execute("ALTER TABLE users RENAME COLUMN name TO nick").unwrap();
        let sql = "UPDATE users SET nick = 'eve'";
        let count = if within {
            app.conn.transaction(|conn| sql_query(sql).execute(conn)).unwrap()
        } else {
            sql_query(sql).execute(&mut app.conn).unwrap()
        };
        assert_eq!(count, 1);
        app.conn.unsynced().batch_execute("ALTER TABLE users RENAME COLUMN nick TO name").unwrap();
        assert!(app.reasons()[0].contains("captured by key"));
        assert_eq!(app.by_email("a"), Lookup::Found(user(1, "a", "eve")));
    }
}

#[test]
fn a_right_that_is_missing_fails_no_write() {
    let mut app = postgres(TABLE, Database::model::<User>);
    let _role = Role::new(&mut app, "GRANT INSERT, UPDATE, DELETE, SELECT (id, name) ON users TO $role");
    assert_eq!(errors(&mut app), [FindingKind::Unreadable]);
    assert_eq!(insert(&mut app.conn, 1, "ann").unwrap(), 1);
    let reasons = app.reasons();
    assert!(reasons.len() == 1 && reasons[0].contains("GRANT SELECT (email, tableoid)"), "{reasons:?}");
    assert_eq!(app.by_email("e1"), Lookup::Found(user(1, "e1", "ann")));
}

#[test]
fn a_right_that_is_taken_away_fails_no_write() {
    let mut app = postgres(TABLE, Database::model::<User>);
    let role = Role::new(&mut app, "GRANT INSERT, UPDATE, DELETE, SELECT ON users TO $role");
    insert(&mut app.conn, 1, "ann").unwrap();
    let sql = format!("REVOKE SELECT ON users FROM {0}; GRANT SELECT (id) ON users TO {0}", role.name);
    app.home.connect().unwrap().batch_execute(&sql).unwrap();
    let id: i32 = diesel::insert_into(users::table)
        .values(user(2, "e2", "bob"))
        .returning(users::id)
        .get_result(&mut app.conn)
        .unwrap();
    assert_eq!(id, 2, "the caller sees what it asked for");
    assert_eq!(app.reasons().len(), 1);
    assert_eq!(app.by_email("e2"), Lookup::Found(user(2, "e2", "bob")));
}

#[test]
fn a_role_that_may_read_nothing_is_reported_at_every_write() {
    let mut app = postgres(TABLE, Database::model::<User>);
    let _role = Role::new(&mut app, "GRANT INSERT ON users TO $role");
    assert_eq!(errors(&mut app), [FindingKind::Blind]);
    for id in [1, 2] {
        assert_eq!(insert(&mut app.conn, id, "ann").unwrap(), 1);
    }
    assert!(!app.kv.health(LONG).pipeline.dirty.is_empty());
    let reasons = app.reasons();
    assert_eq!(reasons.len(), 3, "once for the table, once for each write: {reasons:?}");
}

const SECURED: &str = "ALTER TABLE users ENABLE ROW LEVEL SECURITY; \
                       CREATE POLICY writes ON users FOR INSERT WITH CHECK (true); \
                       CREATE POLICY reads ON users FOR SELECT USING (name <> 'secret'); \
                       GRANT INSERT, SELECT ON users TO $role";

#[test]
fn row_security_that_hides_a_written_row_fails_no_write() {
    let mut app = postgres(TABLE, Database::model::<User>);
    let _role = Role::new(&mut app, SECURED);
    insert(&mut app.conn, 1, "ann").unwrap();
    assert_eq!(app.reasons(), [""; 0]);
    assert_eq!(app.by_id(1), Lookup::Found(user(1, "e1", "ann")));
    assert_eq!(insert(&mut app.conn, 2, "secret").unwrap(), 1);
    let reasons = app.reasons();
    assert!(reasons.len() == 1 && reasons[0].contains("row security"), "{reasons:?}");
    assert_eq!(app.by_id(2), Lookup::Unknown(Miss::NotStored));
    insert(&mut app.conn, 3, "cyd").unwrap();
    app.kv.flush(LONG).unwrap();
    assert_eq!(app.by_id(3), Lookup::Found(user(3, "e3", "cyd")));

    // In a transaction the first of them fails; from then on there is a savepoint.
    let pair = |app: &mut App<Pg, FreshDatabase>, id: i32| {
        app.conn.transaction(|conn| {
            insert(conn, id, "open")?;
            insert(conn, id + 1, "secret")
        })
    };
    assert!(pair(&mut app, 10).is_err());
    assert_eq!(pair(&mut app, 10).unwrap(), 1);
    assert_eq!(app.reasons().len(), 1);
    assert_eq!(app.by_id(10), Lookup::Found(user(10, "e10", "open")));
    // What fails by itself fails as it did, and takes its transaction with it.
    let again = app.conn.transaction::<_, diesel::result::Error, _>(|conn| {
        insert(conn, 20, "open")?;
        assert!(insert(conn, 20, "open").is_err());
        insert(conn, 21, "open")
    });
    assert!(again.is_err());
    app.kv.flush(LONG).unwrap();
    assert_eq!(app.by_id(20), Lookup::Unknown(Miss::NotStored));
}

#[test]
fn a_rule_in_place_of_a_statement_fails_no_write() {
    let rule = "; CREATE TABLE others (LIKE users); \
                CREATE RULE r AS ON INSERT TO users WHERE NEW.id > 100 DO INSTEAD INSERT INTO others VALUES (NEW.*)";
    let mut app = postgres(&[TABLE, rule].concat(), Database::model::<User>);
    assert_eq!(insert(&mut app.conn, 1, "ann").unwrap(), 1);
    assert_eq!(insert(&mut app.conn, 101, "far").unwrap(), 0);
    let reasons = app.reasons();
    assert!(reasons.iter().any(|reason| reason.contains("in place of its INSERT")), "{reasons:?}");
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    run!(app, "UPDATE users SET name = 'eve'");
    assert_eq!(app.by_id(1), Lookup::Found(user(1, "e1", "eve")), "an UPDATE is not the rule's business");
}

#[test]
fn a_table_that_does_not_fit_is_not_written_if_one_says_so() {
    let mut app = postgres(TABLE, |database| database.model::<User>().misfit(Policy::Error));
    let _role = Role::new(&mut app, "GRANT INSERT, SELECT (id, name) ON users TO $role");
    let error = insert(&mut app.conn, 1, "ann").unwrap_err().to_string();
    assert!(error.contains("GRANT SELECT"), "{error}");
    assert_eq!(users::table.count().get_result::<i64>(&mut app.home.connect().unwrap()).unwrap(), 0);
}

#[test]
fn a_statement_that_is_wrong_by_itself_says_what_it_would_have_said() {
    let mut app = postgres(TABLE, Database::model::<User>);
    let mut plain = app.home.connect().unwrap();
    for sql in ["UPDATE users SET nothing = 1", "INSERT INTO users VALUES (1/0, 'a', 'b')"] {
        let error = sql_query(sql).execute(&mut app.conn).unwrap_err().to_string();
        assert_eq!(error, sql_query(sql).execute(&mut plain).unwrap_err().to_string());
    }
    assert_eq!(app.reasons(), [""; 0]);
}
