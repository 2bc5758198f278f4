//! The factory cannot reach the database for a while: rows stay masked, and settle when it is back.

use diesel::pg::Pg;
use diesel::sqlite::Sqlite;
use kvsync_tests::postgres::fresh_database;
use kvsync_tests::servers::{Fault, Proxy, Side};

use super::*;

fn stays_masked(kv: &KvSync, switch: &Switch) {
    for miss in [User::lookup_by_id(kv, 1).unwrap(), User::lookup_by_email(kv, "a").unwrap()] {
        assert_eq!(miss, Lookup::Unknown(Miss::Masked));
    }
    assert!(kv.flush(Duration::from_millis(20)).is_err());
    let health = kv.health(LONG);
    assert!(health.details.iter().any(|detail| detail.contains("read again")), "{:?}", health.details);
    switch.on();
}

fn is_masked(kv: &KvSync) -> bool {
    User::lookup_by_id(kv, 1).unwrap() == Lookup::Unknown(Miss::Masked)
        && User::lookup_by_email(kv, "a").unwrap() == Lookup::Unknown(Miss::Masked)
}

#[test]
fn on_postgres() {
    let database = fresh_database().unwrap();
    database.connect().unwrap().batch_execute(TABLE).unwrap();
    let (url, switch) = (database.url(), Switch::default());
    let port = url.split('/').nth(2).unwrap().rsplit(':').next().unwrap().parse().unwrap();
    let proxy = Proxy::start(port).unwrap();
    let conn = PgConnection::establish(&proxy.url(&url)).unwrap();
    let pass = switch.clone();
    let kv = handle(Database::<Pg>::new("main", move || pass.pass().and_then(|()| PgConnection::establish(&url))));
    let mut conn = kv.wrap(conn).unwrap();
    diesel::insert_into(users::table).values(user(1, "a", "old")).execute(&mut conn).unwrap();
    kv.flush(LONG).unwrap();
    switch.off();
    let lost = conn.transaction::<_, diesel::result::Error, _>(|conn| {
        sql_query("UPDATE users SET name = 'new'").execute(conn)?;
        proxy.set(Fault::CutAfter(Side::FromServer, 0));
        Ok(())
    });
    assert!(lost.is_err());
    until("masked", || is_masked(&kv));
    stays_masked(&kv, &switch);
    assert_equal(&kv, &[user(1, "a", "new")]);
}

#[test]
fn on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db").to_string_lossy().into_owned();
    let switch = Switch::default();
    let pass = switch.clone();
    let open = path.clone();
    let kv =
        handle(Database::<Sqlite>::new("main", move || pass.pass().and_then(|()| SqliteConnection::establish(&open))));
    let mut conn = kv.connect::<Sqlite>("main").unwrap();
    conn.batch_execute(TABLE).unwrap();
    diesel::insert_into(users::table).values(user(1, "a", "old")).execute(&mut conn).unwrap();
    kv.flush(LONG).unwrap();
    switch.off();
    let lost = conn.transaction::<_, diesel::result::Error, _>(|conn| {
        assert!(sql_query("INSERT OR ROLLBACK INTO users VALUES (1, 'x', 'y')").execute(conn).is_err());
        sql_query("UPDATE users SET name = 'new'").execute(conn)
    });
    assert!(lost.is_err());
    until("masked", || is_masked(&kv));
    stays_masked(&kv, &switch);
    assert_equal(&kv, &[user(1, "a", "new")]);
}
