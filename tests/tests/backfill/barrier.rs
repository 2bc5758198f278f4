//! Whom the barrier waits for on Postgres: transactions of its database, and nobody else's.

use std::sync::Arc;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::pg::Pg;
use diesel::prelude::*;
use kvsync::ErrorKind;
use kvsync::capture::{Database, Unattached as _};
use kvsync::model::Source;
use kvsync_tests::log::Log;
use kvsync_tests::recorder::Recorder;
use xtask::servers;

use crate::rig::*;

/// Long enough for the barrier to see who holds it, on a machine that is not too busy.
const HELD: Duration = Duration::from_secs(1);

/// Longer than a wait that is no news.
const WARNED: Duration = Duration::from_secs(6);

struct Cluster {
    server: servers::Postgres,
    source: Arc<dyn Source>,
}

impl Cluster {
    /// A server with two databases, of which one is synced.
    fn new() -> Self {
        let server = servers::Postgres::start_with(&[("max_prepared_transactions", "4")]).unwrap();
        let url = server.create_database("app").unwrap();
        server.create_database("other").unwrap();
        PgConnection::establish(&url).unwrap().batch_execute(TABLE).unwrap();
        let declared = Database::<Pg>::new("main", move || PgConnection::establish(&url)).model::<Account>();
        let attached = Box::new(declared).attach(Recorder::new()).unwrap();
        Self { source: attached.source(), server }
    }

    /// A connection on which this was run.
    fn with(&self, database: &str, sql: &str) -> PgConnection {
        let url = format!("{}?application_name=of_{database}", self.server.database_url(database));
        let mut conn = PgConnection::establish(&url).unwrap();
        conn.batch_execute(sql).unwrap();
        conn
    }

    fn passes(&self) {
        self.source.barrier(LONG).unwrap();
    }

    /// Somebody holds the barrier, and it says who.
    #[track_caller]
    fn is_held(&self, by: &[&str]) {
        let mut said = String::new();
        // At its deadline it may not have come so far as to see who it is.
        until("it says who holds it", || {
            let error = self.source.barrier(HELD).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Deadline, "{error}");
            said = error.to_string();
            said.contains("has been open for too long")
        });
        assert!(by.iter().all(|part| said.contains(part)) && !said.contains("other"), "{said}");
    }
}

#[test]
fn it_waits_for_transactions_of_its_own_database_only() {
    let on = Cluster::new();
    // Those of another database change nothing in this one, however long they stay open.
    let written = "BEGIN; CREATE TABLE q (i INTEGER); SAVEPOINT a; INSERT INTO q VALUES (1)";
    let _other = on.with("other", written);
    on.with("other", "BEGIN; CREATE TABLE p (i INTEGER); PREPARE TRANSACTION 'theirs of other'");
    on.passes();

    let insert = "INSERT INTO accounts (id, amount) VALUES";
    let mut idle = on.with("app", &format!("BEGIN; {insert} (1, 1)"));
    on.is_held(&["process ", "of_app", "idle in transaction"]);
    idle.batch_execute("COMMIT").unwrap();
    on.passes();

    // More savepoints than the server keeps the ids of at hand, each with one of its own.
    let many: Vec<String> = (2..80).map(|id| format!("SAVEPOINT s{id}; {insert} ({id}, 1)")).collect();
    let mut nested = on.with("app", &format!("BEGIN; {}", many.join("; ")));
    on.is_held(&["process ", "of_app"]);
    nested.batch_execute("ROLLBACK TO s2").unwrap();
    on.is_held(&["process ", "of_app"]);
    nested.batch_execute("ROLLBACK").unwrap();
    on.passes();

    // Nobody is connected who could be asked.
    on.with("app", &format!("BEGIN; {insert} (100, 1); PREPARE TRANSACTION 'ours'"));
    on.is_held(&["prepared transaction 'ours'"]);
    on.with("app", "COMMIT PREPARED 'ours'");
    on.passes();
}

#[test]
fn a_long_wait_is_logged_with_who_is_waited_for() {
    let on = Postgres::new();
    let attached = Box::new(on.declared().model::<Account>()).attach(Recorder::new()).unwrap();
    let mut writer = on.plain();
    writer
        .batch_execute("SET application_name = 'slow'; BEGIN; INSERT INTO accounts (id, amount) VALUES (1, 1)")
        .unwrap();
    let log = Log::default();
    let mut said = String::new();
    until("it is logged", || {
        let waited = tracing::subscriber::with_default(log.clone(), || attached.source().barrier(WARNED));
        assert_eq!(waited.unwrap_err().kind(), ErrorKind::Deadline);
        said = log.text();
        said.contains("reading goes on when")
    });
    assert!(said.contains("process ") && said.contains("(slow, idle in transaction, in it since"), "{said}");
}
