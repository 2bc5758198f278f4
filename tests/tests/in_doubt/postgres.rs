//! On PostgreSQL, with the network in between.

use diesel::pg::Pg;
use diesel::sql_types::Integer;
use kvsync_tests::postgres::{FreshDatabase, fresh_database};
use kvsync_tests::servers::{Fault, Proxy, Side};

use super::*;

struct App {
    kv: KvSync,
    /// Its network can be made to fail; the factory's cannot.
    conn: SyncConnection<PgConnection>,
    proxy: Proxy,
    database: FreshDatabase,
}

fn app(configure: impl FnOnce(Database<Pg>) -> Database<Pg>) -> App {
    let database = fresh_database().unwrap();
    let url = database.url();
    let proxy = Proxy::start(port(&url)).unwrap();
    database.connect().unwrap().batch_execute(TABLE).unwrap();
    let through = proxy.url(&url);
    let kv = handle(configure(Database::<Pg>::new("main", move || PgConnection::establish(&url))));
    let mut conn = kv.wrap(PgConnection::establish(&through).unwrap()).unwrap();
    for (id, email) in [(1, "a"), (2, "b"), (3, "c")] {
        diesel::insert_into(users::table).values(user(id, email, "old")).execute(&mut conn).unwrap();
    }
    kv.flush(LONG).unwrap();
    App { kv, conn, proxy, database }
}

fn port(url: &str) -> u16 {
    url.split('/').nth(2).unwrap().rsplit(':').next().unwrap().parse().unwrap()
}

impl App {
    /// Once whoever wrote them has ended.
    fn rows_at_rest(&self) -> Vec<User> {
        let mut conn = self.database.connect().unwrap();
        conn.transaction(|conn| {
            sql_query("LOCK TABLE users IN EXCLUSIVE MODE").execute(conn)?;
            users::table.order(users::id).load(conn)
        })
        .unwrap()
    }

    /// The store is equal to the database, which holds what the transaction wrote, or what was before it;
    /// and nobody saw anything else.
    fn settles(self, watch: Watch, committed: bool) {
        assert!(self.kv.health(LONG).pipeline.dirty.is_empty());
        let rows = self.rows_at_rest();
        assert_equal(&self.kv, &rows);
        assert_eq!(rows.contains(&user(1, "a", "new")), committed, "{rows:?}");
        watch.saw_only(if committed { &["old", "new"] } else { &["old"] });
        if !committed {
            assert_eq!(User::lookup_by_id(&self.kv, 4).unwrap(), Lookup::Absent);
        }
    }
}

/// An update, a delete and an insert, and a key that moves from row to row.
fn write(conn: &mut SyncConnection<PgConnection>) -> QueryResult<()> {
    for sql in [
        "UPDATE users SET name = 'new' WHERE id = 1",
        "DELETE FROM users WHERE id = 2",
        "INSERT INTO users VALUES (4, 'b', 'new')",
        "UPDATE users SET email = 'e' WHERE id = 3",
    ] {
        sql_query(sql).execute(conn)?;
    }
    Ok(())
}

#[test]
fn an_answer_to_commit_that_is_lost() {
    let mut app = app(|database| database);
    let watch = Watch::start(&app.kv, 1, "a");
    let proxy = &app.proxy;
    let result = app.conn.transaction::<_, diesel::result::Error, _>(|conn| {
        write(conn)?;
        proxy.set(Fault::CutAfter(Side::FromServer, 0));
        Ok(())
    });
    assert!(result.is_err());
    app.settles(watch, true);
}

#[test]
fn a_commit_that_never_arrives() {
    let mut app = app(|database| database);
    let watch = Watch::start(&app.kv, 1, "a");
    let proxy = &app.proxy;
    let result = app.conn.transaction::<_, diesel::result::Error, _>(|conn| {
        write(conn)?;
        proxy.set(Fault::CutAfter(Side::ToServer, 0));
        Ok(())
    });
    assert!(result.is_err());
    app.settles(watch, false);
}

#[test]
fn a_connection_that_is_killed_before_commit() {
    let mut app = app(|database| database);
    let watch = Watch::start(&app.kv, 1, "a");
    let mut killer = app.database.connect().unwrap();
    let result = app.conn.transaction::<_, diesel::result::Error, _>(|conn| {
        write(conn)?;
        let pid: i32 = diesel::select(diesel::dsl::sql::<Integer>("pg_backend_pid()")).get_result(conn)?;
        sql_query(format!("SELECT pg_terminate_backend({pid}, 600000)")).execute(&mut killer).map(drop)
    });
    assert!(result.is_err());
    app.settles(watch, false);
}

#[test]
fn a_connection_that_is_killed_while_it_commits() {
    let mut app = app(|database| database);
    let mut killer = app.database.connect().unwrap();
    killer
        .batch_execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(600); RETURN NULL; END'; \
             CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON users DEFERRABLE INITIALLY DEFERRED \
             FOR EACH ROW EXECUTE FUNCTION slow()",
        )
        .unwrap();
    let watch = Watch::start(&app.kv, 1, "a");
    let pid: i32 = diesel::select(diesel::dsl::sql::<Integer>("pg_backend_pid()")).get_result(&mut app.conn).unwrap();
    let killing = thread::spawn(move || {
        let asleep = format!("pid = {pid} AND query = 'COMMIT' AND wait_event = 'PgSleep'");
        let kill = format!("SELECT pg_terminate_backend(pid, 600000) FROM pg_stat_activity WHERE {asleep}");
        until("killed", || sql_query(&kill).execute(&mut killer).unwrap() > 0);
    });
    assert!(app.conn.transaction::<_, diesel::result::Error, _>(write).is_err());
    killing.join().unwrap();
    app.settles(watch, false);
}

#[test]
fn a_single_write_whose_answer_is_lost_marks_its_table() {
    let mut app = app(|database| database);
    app.proxy.set(Fault::CutAfter(Side::FromServer, 0));
    let update = "UPDATE users SET name = 'new' WHERE id = 1";
    assert!(sql_query(update).execute(&mut app.conn).is_err());
    let dirty = app.kv.health(LONG).pipeline.dirty;
    assert_eq!(dirty.len(), 1);
    assert!(dirty[0].to_string().contains("not known"), "{}", dirty[0]);
}

#[test]
fn a_single_write_in_a_transaction_of_its_own_is_exact_wherever_it_is_cut() {
    let app = app(Database::wrap_single_writes);
    let through = app.proxy.url(&app.database.url());
    let (mut lost, mut hidden) = (0, 0);
    for side in [Side::FromServer, Side::ToServer] {
        for bytes in (0..400).step_by(13) {
            app.proxy.heal();
            let mut conn = app.kv.wrap(PgConnection::establish(&through).unwrap()).unwrap();
            sql_query("UPDATE users SET name = 'warm' WHERE id = 1").execute(&mut conn).unwrap();
            app.proxy.set(Fault::CutAfter(side, bytes));
            let name = format!("{side:?} {bytes}");
            let update = format!("UPDATE users SET name = '{name}' WHERE id = 1");
            let failed = sql_query(update).execute(&mut conn).is_err();
            let rows = app.rows_at_rest();
            let committed = rows[0].name == name;
            assert!(failed || committed);
            lost += u32::from(failed && !committed);
            hidden += u32::from(failed && committed);
            assert_equal(&app.kv, &rows);
            assert!(app.kv.health(LONG).pipeline.dirty.is_empty());
        }
    }
    assert!(lost > 0 && hidden > 0, "{lost} {hidden}");
}
