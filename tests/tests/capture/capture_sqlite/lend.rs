//! The wrapped connection can be lent to code that insists on its type.

use super::*;

#[test]
fn writes_of_a_lent_connection_are_reported() {
    let (mut conn, recorder) = open();
    conn.lend(|plain: &mut SqliteConnection| {
        let rows = vec![user(1, "a", "Ann"), user(2, "b", "Bob")];
        let back: Vec<User> = diesel::insert_into(users::table).values(&rows).get_results(plain).unwrap();
        assert_eq!(back, rows);
    });
    assert_eq!(recorder.take().len(), 0);
    assert_eq!(recorder.missed()[0].table.as_deref(), Some("users"));
    conn.lend(|plain| users::table.count().get_result::<i64>(plain).unwrap());
    assert_eq!(recorder.missed(), []);
}

#[test]
fn a_statement_that_diesel_cannot_build_fails_as_it_does_elsewhere() {
    let (mut conn, recorder) = open();
    let nothing = || Some(users::username.eq("x")).filter(|_| false);
    let failed = conn.lend(|plain: &mut SqliteConnection| diesel::update(users::table).set(nothing()).execute(plain));
    assert!(matches!(failed, Err(diesel::result::Error::QueryBuilderError(_))), "{failed:?}");
    assert_eq!(recorder.missed(), []);
}
