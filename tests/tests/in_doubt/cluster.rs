//! Another database cluster behind the same name: its versions mean nothing to the store.

use diesel::pg::Pg;
use kvsync::ErrorKind;
use kvsync_tests::servers::Postgres;
use parking_lot::Mutex;

use super::*;

#[test]
fn another_cluster_is_refused_until_the_epoch_is_raised() {
    let servers = [Postgres::start().unwrap(), Postgres::start().unwrap()];
    for server in &servers {
        PgConnection::establish(&server.url()).unwrap().batch_execute(TABLE).unwrap();
    }
    let url = Arc::new(Mutex::new(servers[0].url()));
    let behind = Arc::clone(&url);
    let kv = handle(Database::<Pg>::new("main", move || PgConnection::establish(&behind.lock())));
    let write = |sql: &str| sql_query(sql).execute(&mut kv.connect::<Pg>("main").unwrap()).unwrap();
    write("INSERT INTO users VALUES (1, 'a', 'old')");
    assert_equal(&kv, &[user(1, "a", "old")]);

    *url.lock() = servers[1].url();
    let error = kv.connect::<Pg>("main").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Database);
    for part in ["`main`", "another database cluster", "`raise_epoch`"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert!(kv.connect::<Pg>("main").is_err(), "and again");

    kv.raise_epoch().unwrap();
    write("INSERT INTO users VALUES (1, 'a', 'new')");
    assert_equal(&kv, &[user(1, "a", "new")]);
    *url.lock() = servers[0].url();
    assert!(kv.connect::<Pg>("main").is_err(), "back is another step");
}
