//! A command line for your own models: fill, compare and mend the stores. `SQLite` and a store on disk.
//!
//! ```text
//! cargo run --example admin --features cli -- verify
//! ```
//!
//! Without arguments it plays a little piece: rows are written past kvsync, and the commands find and mend them.

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::capture::Database;
use kvsync::store::embedded::EmbeddedStore;
use kvsync::{KvSync, Syncable};
use serde::{Deserialize, Serialize};

diesel::table! {
    users (id) {
        id -> Integer,
        uuid -> Text,
        username -> Text,
    }
}

#[derive(Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = users)]
#[sync_key(name = "id", fmt = "user:id:<id>")]
#[sync_key(name = "uuid", fmt = "user:uuid:<uuid>")]
struct User {
    id: i32,
    uuid: String,
    username: String,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The store, the database and the models of the application: the same as it has them itself.
fn build() -> Result<KvSync, Failure> {
    let dir = directory()?;
    let path = dir.join("app.db").to_string_lossy().into_owned();
    let database = Database::<Sqlite>::new("main", move || SqliteConnection::establish(&path)).model::<User>();
    Ok(KvSync::builder().store(EmbeddedStore::open(dir.join("store"))?).database(database).build()?)
}

fn directory() -> Result<PathBuf, Failure> {
    env::var_os("ADMIN_DIR").map(PathBuf::from).ok_or_else(|| "set ADMIN_DIR to a directory".into())
}

fn main() -> ExitCode {
    if env::args().len() > 1 {
        return kvsync::cli::run(build);
    }
    match piece() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The little piece.
fn piece() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let admin = |arguments: &[&str], wanted: i32| -> Result<(), Failure> {
        println!("$ admin {}", arguments.join(" "));
        let status = Command::new(env::current_exe()?).args(arguments).env("ADMIN_DIR", dir.path()).status()?;
        println!("  (exit code {})\n", status.code().unwrap_or(-1));
        if status.code() == Some(wanted) { Ok(()) } else { Err(format!("expected exit code {wanted}").into()) }
    };
    let sql = |sql: &str| -> Result<(), Failure> {
        println!("-- past kvsync: {sql}");
        let path = dir.path().join("app.db").to_string_lossy().into_owned();
        Ok(SqliteConnection::establish(&path)?.batch_execute(sql)?)
    };
    sql("CREATE TABLE users (id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, username TEXT NOT NULL)")?;
    sql("INSERT INTO users VALUES (1, 'a-1', 'ann'), (2, 'b-2', 'bob')")?;
    admin(&["backfill"], 0)?;
    admin(&["verify", "--in-flight", "0.1"], 0)?;
    sql("UPDATE users SET username = 'anna' WHERE id = 1; DELETE FROM users WHERE id = 2")?;
    admin(&["verify", "--in-flight", "0.1"], 1)?;
    admin(&["repair", "--in-flight", "0.1"], 0)?;
    admin(&["verify", "--in-flight", "0.1", "--json"], 0)?;
    admin(&["health"], 0)
}
