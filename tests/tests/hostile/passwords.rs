//! A password that stands in a URL is told to nobody: not by an error or its causes, a name, a report, what
//! `health` says, a log, or the `Debug` of anything.

use std::error::Error as StdError;
use std::fmt::Write;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::r2d2::ManageConnection;
use diesel::sqlite::Sqlite;
use kvsync::capture::{ConnectionManager, Database};
use kvsync::store::Store as _;
use kvsync::store::SyncStore;
use kvsync::{KvSync, Scope, Syncable};
use kvsync_tests::Tested;
use kvsync_tests::log::Log;
use kvsync_tests::redis::patient;
use kvsync_tests::servers::{AclUser, Listen, Redis, RedisOptions};
use kvsync_tests::wait::LONG;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// The password, in which a URL cannot be cut into pieces without showing one of them.
const SECRET: &str = "hunter2";
/// What of it must not be seen.
const PIECES: [&str; 2] = ["hunt", "ter2"];

#[track_caller]
fn silent(what: &str, told: &str) {
    for piece in PIECES {
        assert!(!told.contains(piece), "{what} tells a password: {told}");
    }
}

/// Whatever an error shows in any way.
#[track_caller]
fn silent_error(what: &str, error: &(dyn StdError + 'static)) {
    let mut next = Some(error);
    while let Some(cause) = next {
        silent(what, &format!("{cause} {cause:?} {cause:#?}"));
        next = cause.source();
    }
}

fn log() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let log = Log::default();
        tracing::subscriber::set_global_default(log.clone()).unwrap();
        log
    })
}

fn builder(url: &str) -> kvsync::store::redis::Builder {
    patient([url]).retry_for(Duration::from_millis(50))
}

#[test]
fn redis_urls_that_lead_nowhere() {
    log();
    let urls = [
        "redis://:hunter2@127.0.0.1:1/",
        "redis://app:hunter2@127.0.0.1:1/",
        "redis://app:hunter%32@127.0.0.1:1/3",
        "rediss://app:hunter2@127.0.0.1:1/",
        "rediss://app:hunter2@127.0.0.1:1/#insecure",
        "redis://app:hunter2@nowhere.invalid/",
        "redis+unix:///no/where?db=0&user=app&pass=hunter2",
        "redis+unix:///no/where?pass=hunter2&db=x",
        "unix:///no/where?pass=hunter2",
        // What is no URL of Redis, or not the one that was meant.
        "redis://app:hunter2@127.0.0.1:port/",
        "redis://app:hunter2@127.0.0.1/base",
        "redis://app:hunter2@[::1/",
        "redis://app:hun/ter2@127.0.0.1/",
        "redis://app:hun#ter2@127.0.0.1/",
        "redis://app:hun?ter2@127.0.0.1/",
        "redis://app:hun ter2@127.0.0.1/",
        "redis://app:hunter2%zz@127.0.0.1/",
        "redis://app:%ffhunter2@127.0.0.1/",
        "redis:app:hunter2@127.0.0.1",
        "http://app:hunter2@127.0.0.1/",
        "app:hunter2@127.0.0.1",
        "hunter2",
    ];
    for url in urls {
        silent(url, &format!("{:?}", builder(url)));
        silent_error(url, &builder(url).connect().expect_err(url));
        silent_error(url, &builder(url).cluster().expect_err(url));
    }
    let both = builder("redis://127.0.0.1:1/").username("app").password(SECRET);
    silent("a builder", &format!("{both:?} {both:#?}"));
    silent_error("a builder", &both.connect().unwrap_err());
    silent("the log", &log().text());
}

diesel::table! {
    users (id) {
        id -> Integer,
        name -> Text,
    }
}

#[derive(Debug, Clone, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = users)]
#[sync_key(name = "id", fmt = "user:<id>")]
#[sync_key(name = "name", fmt = "user:name:<name>")]
struct User {
    id: i32,
    name: String,
}

/// A server that wants the password, whatever way it is reached.
fn server(listen: Listen) -> Tested<Redis> {
    let user = AclUser { name: "app".into(), password: SECRET.into(), keys: "kvsync:*".into() };
    Ok(Redis::start(RedisOptions {
        listen,
        password: Some(SECRET.into()),
        user: Some(user),
        ..RedisOptions::default()
    })?)
}

#[test]
fn a_redis_that_is_there_and_goes() -> Tested {
    let log = log();
    for listen in [Listen::Tcp, Listen::Socket, Listen::Tls] {
        let server = server(listen)?;
        assert!(server.url().contains(SECRET));
        let configured = || match server.ca() {
            Some(ca) => builder(&server.url()).ca_file(ca),
            None => builder(&server.url()),
        };
        let store = configured().connect()?;
        silent("a store", &format!("{} {store:?} {store:#?}", store.name()));
        silent_error("no cluster", &configured().cluster().unwrap_err());
        silent_error("a password with more", &configured().password(format!("{SECRET}+")).connect().unwrap_err());

        let told = Arc::new(Mutex::new(String::new()));
        let telling = Arc::clone(&told);
        let tell = move |report: &kvsync::Report| {
            Write::write_fmt(&mut *telling.lock(), format_args!("{report} {report:?}\n")).unwrap();
        };
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("app.db").to_string_lossy().into_owned();
        SqliteConnection::establish(&path)?
            .batch_execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")?;
        let open = move || SqliteConnection::establish(&path);
        let database = Database::<Sqlite>::new("main", open).model::<User>();
        let building = KvSync::builder().store(store.clone()).database(database).on_report(tell);
        silent("a builder", &format!("{building:?}"));
        let kv = building.build()?;
        kv.sync(&User { id: 1, name: "ann".into() })?;
        silent("health", &format!("{:?}", kv.health(LONG)));
        server.kill()?;
        let _ = kv.sync(&User { id: 2, name: "bob".into() }).map_err(|error| silent_error("sync", &error));
        silent_error("fetch", &User::fetch_by_id(&kv, 1).unwrap_err());
        silent_error("epoch", &store.raise_epoch(1).unwrap_err());
        silent("health", &format!("{:?} {kv:?} {kv:#?}", kv.health(Duration::from_millis(200))));
        silent("shutdown", &format!("{:?}", kv.shutdown(Duration::from_millis(500))));
        silent("reports", &told.lock());
    }
    silent("the log", &log.text());
    Ok(())
}

/// Such a server, or what stands in front of it, repeats what it was told.
#[test]
fn a_redis_that_does_not_know_passwords() -> Tested {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("redis://app:hunter2@{}/", listener.local_addr()?);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (mut reading, mut stream) = (stream.try_clone().unwrap(), stream);
            let refusal = b"-ERR unknown command 'AUTH', with args beginning with: 'app' 'hunter2' \r\n";
            let mut bytes = [0; 1024];
            while reading.read(&mut bytes).is_ok_and(|read| read > 0) && stream.write_all(&refusal.repeat(3)).is_ok() {}
        }
    });
    let error = builder(&url).connect().unwrap_err();
    assert!(error.to_string().contains("AUTH"), "{error}");
    silent_error("a command that is not known", &error);
    Ok(())
}

#[test]
fn postgres_urls() -> Tested {
    let log = log();
    let urls = [
        "postgres://app:hunter2@127.0.0.1:1/db",
        "postgres://app:hunter2@nowhere.invalid/db",
        "postgresql://app:hunter2@127.0.0.1:port/db",
        "postgres://app:hunter2@[::1/db",
        "postgres://app:hun%ter2@127.0.0.1:1/db",
        "postgres://app:hun%00ter2@127.0.0.1:1/db",
        "postgres://app:hun/ter2@127.0.0.1:1/db",
        "postgres://app:hun@ter2@127.0.0.1:1/db",
        "postgres://app:hun#ter2@127.0.0.1:1/db",
        "postgres://app:hun ter2@127.0.0.1:1/db",
        "postgres://app:hunter2#127.0.0.1:1/db",
        "postgres://app:hunter2@127.0.0.1:1/db?sslmode=x&nothing=1",
        "postgres:///db?host=127.0.0.1&port=1&password=hunter2",
        "postgres:///db?host=127.0.0.1&port=1&password=hun%ter2",
        "postgres://app:hunter2@127.0.0.1:1/db\0",
        "host=127.0.0.1 port=1 password=hunter2",
        "host=127.0.0.1 port=1 password='hunter2 user=app",
        "host=127.0.0.1 port=1 password=hunter2 user",
        "host=127.0.0.1 port=1 pasword=hunter2",
    ];
    for url in urls {
        let database = Database::<Pg>::new("main", move || PgConnection::establish(url)).model::<User>();
        silent(url, &format!("{database:?}"));
        let kv = KvSync::builder().store(kvsync::store::MemoryStore::new()).database(database).build()?;
        silent_error(url, &kv.connect::<Pg>("main").map(drop).expect_err(url));
        let manager: ConnectionManager<Pg> = kv.connection_manager("main")?;
        silent(url, &format!("{manager:?} {kv:?}"));
        silent_error(url, &manager.connect().map(drop).expect_err(url));
        silent("health", &format!("{:?}", kv.scoped(Scope::named("a")).health(Duration::from_millis(200))));
    }
    silent("the log", &log.text());
    Ok(())
}
