//! The wrapped connection can be lent to code that insists on its type.

use std::sync::atomic::{AtomicUsize, Ordering};

use diesel::connection::InstrumentationEvent;

use super::*;

#[test]
fn writes_of_a_lent_connection_are_reported() {
    let mut on = Fixture::new();
    on.conn.batch_execute("CREATE TABLE others (id INT)").unwrap();
    let count = on.conn.lend(|plain: &mut PgConnection| {
        sql_query("INSERT INTO others VALUES (1)").execute(plain).unwrap();
        let _: Vec<User> = users::table.select(User::as_select()).load(plain).unwrap();
        diesel::insert_into(users::table).values(user(1, "it's", "Ann")).execute(plain).unwrap()
    });
    assert_eq!(count, 1);
    let missed = on.recorder.missed();
    assert_eq!(missed.len(), 1, "{missed:?}");
    assert_eq!(missed[0].table.as_deref(), Some("users"));
    assert_eq!(on.recorder.take().len(), 0);
    on.conn.lend(|plain| plain.batch_execute("SELECT 1; UPDATE users SET username = 'x'; TRUNCATE users").unwrap());
    assert_eq!(on.recorder.missed().len(), 2);
    diesel::insert_into(users::table).values(user(2, "b", "Bob")).execute(&mut on.conn).unwrap();
    assert_eq!((on.lines().len(), on.recorder.missed().len()), (1, 0));
}

#[test]
fn the_users_instrumentation_goes_on() {
    let mut on = Fixture::new();
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    on.conn.set_instrumentation(move |event: InstrumentationEvent<'_>| {
        if let InstrumentationEvent::StartQuery { .. } = event {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let run = |conn: &mut PgConnection| assert!(sql_query("SELECT 1").execute(conn).is_ok());
    sql_query("SELECT 1").execute(&mut on.conn).unwrap();
    assert_eq!(seen.load(Ordering::SeqCst), 1);
    on.conn.lend(run);
    assert_eq!(seen.load(Ordering::SeqCst), 2);
    sql_query("SELECT 1").execute(&mut on.conn).unwrap();
    assert_eq!(seen.load(Ordering::SeqCst), 3);
}

#[test]
fn a_transaction_that_ends_on_the_lent_connection_is_in_doubt() {
    let mut on = Fixture::new();
    let result = on.conn.transaction::<_, diesel::result::Error, _>(|conn| {
        diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(conn)?;
        conn.lend(|plain| plain.batch_execute("COMMIT"))?;
        Ok(())
    });
    assert!(result.is_err(), "Diesel misses its transaction, too");
    assert_eq!(on.lines(), ["insert unknown user:id:1, in doubt"]);
}
