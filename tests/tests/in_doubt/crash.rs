//! The server dies with a transaction in doubt, and takes back versions that were given.

use diesel::pg::Pg;
use diesel::sql_types::BigInt;
use kvsync_tests::servers::{Fault, Postgres, Proxy, Side};

use super::*;

/// Where the WAL stands.
fn position(server: &Postgres) -> i64 {
    let mut conn = PgConnection::establish(&server.url()).unwrap();
    diesel::select(diesel::dsl::sql::<BigInt>("(pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::int8"))
        .get_result(&mut conn)
        .unwrap()
}

#[test]
fn a_version_that_a_crash_took_back_is_passed_before_its_row_is_read_again() {
    // Nothing but COMMIT writes the WAL to the disk.
    let settings = [("wal_writer_delay", "10s"), ("wal_writer_flush_after", "0"), ("autovacuum", "off")];
    let server = Postgres::start_with(&settings).unwrap();
    let proxy = Proxy::start(server.port()).unwrap();
    let (url, through, switch) = (server.url(), proxy.url(&server.url()), Switch::default());
    PgConnection::establish(&url).unwrap().batch_execute(TABLE).unwrap();
    let pass = switch.clone();
    let kv = handle(Database::<Pg>::new("main", move || pass.pass().and_then(|()| PgConnection::establish(&url))));
    let mut conn = kv.wrap(PgConnection::establish(&through).unwrap()).unwrap();
    for (id, email) in [(1, "a"), (2, "b")] {
        diesel::insert_into(users::table).values(user(id, email, "old")).execute(&mut conn).unwrap();
    }
    kv.flush(LONG).unwrap();
    let watch = Watch::start(&kv, 1, "a");

    switch.off();
    let mut written = 0;
    let lost = conn.transaction::<_, diesel::result::Error, _>(|conn| {
        // Far ahead of what is on the disk.
        sql_query("SELECT pg_logical_emit_message(false, 'test', repeat('x', 500000))").execute(conn)?;
        sql_query("UPDATE users SET name = 'lost' WHERE id = 1").execute(conn)?;
        sql_query("INSERT INTO users VALUES (3, 'c', 'lost')").execute(conn)?;
        written = position(&server);
        proxy.set(Fault::CutAfter(Side::ToServer, 0));
        Ok(())
    });
    assert!(lost.is_err());
    until("masked", || User::lookup_by_id(&kv, 1).unwrap() == Lookup::Unknown(Miss::Masked));
    server.kill().unwrap();
    server.restart().unwrap();
    assert!(position(&server) < written, "the crash took nothing back");

    // A change that is certain, and lower than the mark: it is not believed to be newer than what was lost.
    let mut conn = kv.wrap(PgConnection::establish(&server.url()).unwrap()).unwrap();
    sql_query("UPDATE users SET name = 'new' WHERE id = 1").execute(&mut conn).unwrap();
    switch.on();
    assert_equal(&kv, &[user(1, "a", "new"), user(2, "b", "old")]);
    assert_eq!(User::lookup_by_id(&kv, 3).unwrap(), Lookup::Absent);
    assert!(position(&server) > written, "a re-read that settles a mark has passed it");
    sql_query("INSERT INTO users VALUES (3, 'c', 'again')").execute(&mut conn).unwrap();
    sql_query("UPDATE users SET name = 'newer' WHERE id = 1").execute(&mut conn).unwrap();
    assert_equal(&kv, &[user(1, "a", "newer"), user(2, "b", "old"), user(3, "c", "again")]);
    watch.saw_only(&["old", "new", "newer"]);
}
