//! Two versions of a program run against one database and one store, each in a process of its own, while the
//! one replaces the other. Nothing that either reads is wrong, and what each can read is what the rule says.
//!
//! The test starts itself again as the programs, so this file has a `main` of its own. What it plays through is
//! the recipe of `kvsync::Syncable`'s documentation.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};

use diesel::connection::SimpleConnection;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::capture::{Database, SQLITE_COUNTER};
use kvsync::store::redis::RedisStore;
use kvsync::{KvSync, Lookup, Syncable};
use kvsync_tests::redis::patient;
use kvsync_tests::wait::LONG;
use kvsync_tests::{Tested, env, postgres};
use libtest_mimic::{Arguments, Failed, Trial};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

/// One version of a model on the table `users`.
macro_rules! user {
    ($module:ident { $($column:ident: $sql:ty),* } $name:literal { $($(#[$attribute:meta])* $field:ident: $type:ty),* }) => {
        mod $module {
            use diesel::prelude::*;
            use kvsync::Syncable;
            use serde::{Deserialize, Serialize};

            diesel::table! {
                users (id) { $($column -> $sql,)* }
            }

            #[derive(Debug, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
            #[diesel(table_name = users)]
            #[sync_key(name = "id", fmt = "user:id:<id>")]
            #[sync_key(name = "name", fmt = $name)]
            pub struct User { $($(#[$attribute])* pub $field: $type),* }
        }
    };
}

user!(old { id: Integer, name: Text, nick: Text, age: Integer } "user:name:<name>" {
    id: i32, name: String, nick: String, age: i32
});
user!(added { id: Integer, name: Text, nick: Text, age: Integer, plan: Text } "user:name:<name>" {
    id: i32, name: String, nick: String, age: i32, plan: String
});
user!(removed { id: Integer, name: Text, age: Integer } "user:name:<name>" {
    id: i32, name: String, age: i32
});
user!(retyped { id: Integer, name: Text, nick: Text, age: Nullable<Integer> } "user:name:<name>" {
    id: i32, name: String, nick: String, age: Option<i32>
});
user!(renamed { id: Integer, name: Text, nick: Text, age: Integer } "user:name:<full_name>" {
    id: i32, #[diesel(column_name = name)] full_name: String, nick: String, age: i32
});

/// Two sets of keys for the table `documents`.
mod documents {
    use diesel::prelude::*;
    use kvsync::Syncable;
    use serde::{Deserialize, Serialize};

    diesel::table! {
        documents (id) { id -> Integer, name -> Text, code -> Text, email -> Nullable<Text> }
    }

    pub mod before {
        use super::{Deserialize, Identifiable, Queryable, Selectable, Serialize, Syncable};

        #[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
        #[diesel(table_name = super::documents)]
        #[sync_key(name = "id", fmt = "document:id:<id>")]
        #[sync_key(name = "name", fmt = "document:name:<name>")]
        #[sync_key(name = "code", fmt = "document:code:<code>")]
        pub struct Document {
            pub id: i32,
            pub name: String,
            pub code: String,
            pub email: Option<String>,
        }
    }

    /// One key has another format, one is new, one is gone.
    pub mod after {
        use super::{Deserialize, Identifiable, Queryable, Selectable, Serialize, Syncable};

        #[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
        #[diesel(table_name = super::documents)]
        #[sync(generation = 1)]
        #[sync_key(name = "id", fmt = "document:id:<id>")]
        #[sync_key(name = "name", fmt = "documents/<name>")]
        #[sync_key(name = "email", fmt = "document:email:<email>")]
        pub struct Document {
            pub id: i32,
            pub name: String,
            pub code: String,
            pub email: Option<String>,
        }
    }
}

use documents::{after, before};

/// What a program of this name registers.
macro_rules! models {
    ($database:expr, $program:expr) => {
        match $program {
            "old" => $database.model::<old::User>(),
            "added" => $database.model::<added::User>(),
            "removed" => $database.model::<removed::User>(),
            "retyped" => $database.model::<retyped::User>(),
            "renamed" => $database.model::<renamed::User>(),
            "before" => $database.model::<before::Document>(),
            "both" => $database.model::<before::Document>().model::<after::Document>(),
            "after" => $database.model::<after::Document>(),
            other => panic!("no program is called {other}"),
        }
    };
}

/// What a program of this name reads under a key of its own: a key is `<model>.<key>`.
fn read(kv: &KvSync, program: &str, key: &str, value: &str) -> kvsync::Result<Value> {
    macro_rules! user {
        ($user:ty) => {
            match key {
                "id" => shown(&<$user>::lookup_by_id(kv, value.parse::<i32>().unwrap())?),
                _ => shown(&<$user>::lookup_by_name(kv, value)?),
            }
        };
    }
    let id = || value.parse::<i32>().unwrap();
    Ok(match (program, key) {
        ("old", _) => user!(old::User),
        ("added", _) => user!(added::User),
        ("removed", _) => user!(removed::User),
        ("retyped", _) => user!(retyped::User),
        ("renamed", _) => user!(renamed::User),
        (_, "before.id") => shown(&before::Document::lookup_by_id(kv, id())?),
        (_, "before.name") => shown(&before::Document::lookup_by_name(kv, value)?),
        (_, "before.code") => shown(&before::Document::lookup_by_code(kv, value)?),
        (_, "after.id") => shown(&after::Document::lookup_by_id(kv, id())?),
        (_, "after.name") => shown(&after::Document::lookup_by_name(kv, value)?),
        (_, "after.email") => shown(&after::Document::lookup_by_email(kv, value)?),
        other => panic!("no such key: {other:?}"),
    })
}

fn shown<M: serde::Serialize>(seen: &Lookup<M>) -> Value {
    match seen {
        Lookup::Found(row) => serde_json::to_value(row).unwrap(),
        Lookup::Absent => json!("absent"),
        Lookup::Unknown(miss) => json!(format!("{miss:?}")),
    }
}

fn store(prefix: &str) -> Tested<RedisStore> {
    Ok(patient([env::redis_url()?]).prefix(prefix).connect()?)
}

fn sqlite(url: &str) -> ConnectionResult<SqliteConnection> {
    let mut conn = SqliteConnection::establish(url)?;
    conn.batch_execute("PRAGMA busy_timeout = 300000; PRAGMA journal_mode = WAL;")
        .map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}

fn main() -> ExitCode {
    if let Ok(job) = std::env::var("KVSYNC_TEST_PROGRAM") {
        program(&job).unwrap();
        return ExitCode::SUCCESS;
    }
    let mut trials = Vec::new();
    let fail = |error: Box<dyn std::error::Error + Send + Sync>| Failed::from(error.to_string());
    for database in ["sqlite", "postgres"] {
        for new in ["added", "removed", "retyped", "renamed"] {
            let name = format!("a_field_is_{new}_on_{database}");
            trials.push(Trial::test(name, move || a_field(database, new).map_err(fail)));
        }
        let name = format!("keys_are_added_removed_and_reformatted_on_{database}");
        trials.push(Trial::test(name, move || keys(database).map_err(fail)));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Runs a statement.
type Statements = dyn FnMut(&str) -> QueryResult<()>;

/// One program: it does what it reads, a line each, and answers with a line.
fn program(job: &str) -> Tested {
    let [program, database, url, prefix] = job.split('\n').collect::<Vec<_>>().try_into().map_err(|_| "a bad job")?;
    let (builder, url) = (KvSync::builder().store(store(prefix)?), url.to_owned());
    let mut serve: Box<Statements>;
    let kv;
    if database == "sqlite" {
        kv = builder.database(models!(Database::<Sqlite>::new("main", move || sqlite(&url)), program)).build()?;
        let mut conn = kv.connect::<Sqlite>("main")?;
        serve = Box::new(move |sql| diesel::sql_query(sql).execute(&mut conn).map(drop));
    } else {
        let open = move || PgConnection::establish(&url);
        kv = builder.database(models!(Database::<Pg>::new("main", open), program)).build()?;
        let mut conn = kv.connect::<Pg>("main")?;
        serve = Box::new(move |sql| diesel::sql_query(sql).execute(&mut conn).map(drop));
    }
    println!("ready");
    for line in std::io::stdin().lines() {
        let line = line?;
        let [verb, key, rest] = line.splitn(3, '\t').collect::<Vec<_>>().try_into().map_err(|_| "a bad line")?;
        match verb {
            "run" => match serve(rest) {
                Ok(()) => {
                    kv.flush(LONG)?;
                    println!("done");
                }
                Err(error) => println!("{}", error.to_string().replace('\n', " ")),
            },
            "backfill" => {
                for model in key.split(' ') {
                    kv.backfill_model(model).run()?;
                }
                println!("done");
            }
            "repair" => {
                kv.repair_all().run()?;
                println!("done");
            }
            _ => println!("{}", read(&kv, program, key, rest)?),
        }
    }
    let end = kv.shutdown(LONG);
    if end.is_clean() { Ok(()) } else { Err(format!("{end:?}").into()) }
}

/// A program that runs.
struct Running {
    name: &'static str,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Running {
    fn ask(&mut self, line: &str) -> Tested<String> {
        writeln!(self.stdin.as_mut().unwrap(), "{line}")?;
        self.answer()
    }

    fn answer(&mut self) -> Tested<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        if line.is_empty() {
            Err(format!("the program `{}` has ended", self.name).into())
        } else {
            Ok(line.trim_end().to_owned())
        }
    }

    /// Whether the statement was run; not when it met a constraint.
    fn run(&mut self, sql: &str) -> Tested<bool> {
        match self.ask(&format!("run\t\t{sql}"))?.as_str() {
            "done" => Ok(true),
            refused if refused.to_lowercase().contains("unique") => Ok(false),
            other => Err(format!("`{}` could not run {sql}: {other}", self.name).into()),
        }
    }

    fn read(&mut self, key: &str, value: &str) -> Tested<Value> {
        Ok(serde_json::from_str(&self.ask(&format!("read\t{key}\t{value}"))?)?)
    }

    /// Ends it as a deploy does.
    fn stop(mut self) -> Tested {
        drop(self.stdin.take());
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the program `{}` ended with {status}", self.name).into()) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A database and a store.
struct House {
    database: &'static str,
    url: String,
    prefix: String,
    _sqlite: tempfile::TempDir,
    _postgres: Option<postgres::FreshDatabase>,
}

impl House {
    fn new(database: &'static str, table: &str) -> Tested<Self> {
        let dir = tempfile::tempdir()?;
        let fresh = if database == "postgres" { Some(postgres::fresh_database()?) } else { None };
        let url = match &fresh {
            Some(fresh) => fresh.url(),
            None => dir.path().join("app.db").to_string_lossy().into_owned(),
        };
        let prefix = format!("deploys:{:x}:", rand::random::<u64>());
        let house = Self { database, url, prefix, _sqlite: dir, _postgres: fresh };
        if database == "sqlite" {
            house.migrate(SQLITE_COUNTER)?;
        }
        house.migrate(table)?;
        Ok(house)
    }

    fn migrate(&self, sql: &str) -> Tested {
        if self.database == "sqlite" {
            sqlite(&self.url)?.batch_execute(sql)?;
        } else {
            PgConnection::establish(&self.url)?.batch_execute(sql)?;
        }
        Ok(())
    }

    fn start(&self, name: &'static str) -> Tested<Running> {
        let job = [name, self.database, &self.url, &self.prefix].join("\n");
        let mut command = Command::new(std::env::current_exe()?);
        command.env("KVSYNC_TEST_PROGRAM", job).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let (stdin, stdout) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut running = Running { name, child, stdin, stdout };
        if running.answer()? == "ready" { Ok(running) } else { Err(format!("`{name}` did not start").into()) }
    }
}

/// The rows of a table as the database has them, by their columns' names.
macro_rules! rows {
    ($house:expr, $model:ty, $table:expr) => {{
        let rows: Vec<$model> = if $house.database == "sqlite" {
            $table.select(<$model>::as_select()).load(&mut sqlite(&$house.url)?)?
        } else {
            $table.select(<$model>::as_select()).load(&mut PgConnection::establish(&$house.url)?)?
        };
        rows.iter().map(|row| serde_json::to_value(row).unwrap()).collect::<Vec<Value>>()
    }};
}

/// Whether a program can read what another wrote: the fields include all of the reader's, with equal types.
fn can_read(reader: &str, writer: &str) -> bool {
    let fields = |program: &str| match program {
        "added" => added::User::SCHEMA.fields,
        "removed" => removed::User::SCHEMA.fields,
        "retyped" => retyped::User::SCHEMA.fields,
        "renamed" => renamed::User::SCHEMA.fields,
        _ => old::User::SCHEMA.fields,
    };
    fields(reader).iter().all(|field| fields(writer).contains(field))
}

/// Looks at every row under both of its keys: what is found is the database's, and it is found exactly
/// where whoever wrote it last wrote enough.
fn look(house: &House, reader: &mut Running, writers: &BTreeMap<i64, &str>) -> Tested {
    let plan = writers.values().any(|writer| *writer == "added") || reader.name == "added";
    let rows =
        if plan { rows!(house, added::User, added::users::table) } else { rows!(house, old::User, old::users::table) };
    for row in rows {
        let writer = writers[&row["id"].as_i64().unwrap()];
        for (key, value) in [("id", row["id"].to_string()), ("name", row["name"].as_str().unwrap().to_owned())] {
            let seen = reader.read(key, &value)?;
            let right = match &seen {
                Value::Object(fields) => {
                    can_read(reader.name, writer)
                        && fields
                            .iter()
                            .all(|(name, value)| row[if name == "full_name" { "name" } else { name }] == *value)
                }
                miss => !can_read(reader.name, writer) && miss == "OtherFields",
            };
            if !right {
                return Err(format!("`{}` reads {seen} of what `{writer}` wrote; it is {row}", reader.name).into());
            }
        }
    }
    Ok(())
}

/// The old program runs, the schema is migrated, the new one is deployed beside it, the old one ends, and what
/// is outdated is written again.
fn a_field(database: &'static str, new: &'static str) -> Tested {
    // As the recipe says, and as the derive compares them.
    assert!(can_read(new, "old") == (new == "removed") && can_read("old", new) == (new == "added"));
    let house = House::new(
        database,
        "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, nick TEXT NOT NULL DEFAULT '', age INTEGER NOT NULL)",
    )?;
    let mut writers = BTreeMap::new();
    let mut random = StdRng::seed_from_u64(9);
    let mut before = house.start("old")?;
    for id in 1..=4_i64 {
        before.run(&format!("INSERT INTO users (id, name, nick, age) VALUES ({id}, 'n{id}', 'k{id}', {id})"))?;
        writers.insert(id, "old");
    }
    look(&house, &mut before, &writers)?;

    if new == "added" {
        house.migrate("ALTER TABLE users ADD COLUMN plan TEXT NOT NULL DEFAULT 'free'")?;
    }
    before.run("UPDATE users SET age = age + 1 WHERE id = 1")?;
    look(&house, &mut before, &writers)?;

    let mut after = house.start(new)?;
    look(&house, &mut after, &writers)?;
    for step in 0..12 {
        let writer = if random.random_bool(0.5) { &mut before } else { &mut after };
        let id = random.random_range(1..=4);
        let set = match random.random_range(0..3) {
            0 if new == "added" && writer.name == new => format!("plan = 'paid{step}'"),
            0 => format!("nick = 'k{step}'"),
            1 => format!("age = age + {step}"),
            _ => format!("name = 'm{step}'"),
        };
        writer.run(&format!("UPDATE users SET {set} WHERE id = {id}"))?;
        writers.insert(id, writer.name);
        look(&house, &mut before, &writers)?;
        look(&house, &mut after, &writers)?;
    }
    before.stop()?;

    assert_eq!(after.ask("backfill\tUser\t")?, "done");
    writers = (1..=4).map(|id| (id, new)).collect();
    look(&house, &mut after, &writers)?;
    after.stop()
}

/// Every value that a key may have holds what the database says.
fn all_right(house: &House, reader: &mut Running, keys: &[&str]) -> Tested {
    let rows = rows!(house, before::Document, documents::documents::table);
    for key in keys {
        let column = key.split_once('.').unwrap().1;
        let values: Vec<String> = if column == "id" {
            (1..=ROWS).map(|id| id.to_string()).collect()
        } else {
            VALUES.map(str::to_owned).to_vec()
        };
        for value in values {
            let wanted = value.parse::<i32>().map_or_else(|_| json!(value), |id| json!(id));
            let row = rows.iter().find(|row| row[column] == wanted);
            let seen = reader.read(key, &value)?;
            let right = match row {
                Some(row) => seen == *row,
                None => seen == "absent" || seen == "NotStored",
            };
            if !right {
                return Err(format!("`{}` reads {seen} under {key} {value}; it is {row:?}", reader.name).into());
            }
        }
    }
    Ok(())
}

const ROWS: i32 = 4;
const VALUES: [&str; 5] = ["a", "b", "c", "d", "e"];
const BEFORE: [&str; 3] = ["before.id", "before.name", "before.code"];
const AFTER: [&str; 3] = ["after.id", "after.name", "after.email"];

/// Writes a row so that it takes, leaves or exchanges keys, or comes and goes.
fn write_document(random: &mut StdRng, writer: &mut Running) -> Tested {
    let id = random.random_range(1..=ROWS);
    let value = |random: &mut StdRng| *VALUES.choose(random).unwrap();
    let (one, other, third) = (value(random), value(random), value(random));
    let email = if random.random_bool(0.3) { "NULL".to_owned() } else { format!("'{third}'") };
    let sql = match random.random_range(0..6) {
        0 => format!("DELETE FROM documents WHERE id = {id}"),
        1 | 2 => format!("INSERT INTO documents VALUES ({id}, '{one}', '{other}', {email}) ON CONFLICT DO NOTHING"),
        3 => format!("UPDATE documents SET name = '{one}' WHERE id = {id}"),
        4 => format!("UPDATE documents SET code = '{one}', email = {email} WHERE id = {id}"),
        _ => format!("UPDATE documents SET name = '{one}', code = '{other}' WHERE id = {id}"),
    };
    writer.run(&sql).map(drop)
}

/// Keys of both kinds are written while the old program runs, then the store is repaired; then only the new ones.
fn keys(database: &'static str) -> Tested {
    let house = House::new(
        database,
        "CREATE TABLE documents (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, code TEXT NOT NULL UNIQUE, email TEXT UNIQUE)",
    )?;
    let mut random = StdRng::seed_from_u64(10);
    let mut old = house.start("before")?;
    for _ in 0..8 {
        write_document(&mut random, &mut old)?;
        all_right(&house, &mut old, &BEFORE)?;
    }
    let mut both = house.start("both")?;
    for _ in 0..24 {
        let writer = if random.random() { &mut old } else { &mut both };
        write_document(&mut random, writer)?;
        all_right(&house, &mut old, &BEFORE)?;
        all_right(&house, &mut both, &[&BEFORE[..], &["after.id"]].concat())?;
    }
    old.stop()?;

    // What the old one deleted still stands under the new keys, of which it knew nothing.
    both.ask("repair\t\t")?;
    let mut next = house.start("after")?;
    all_right(&house, &mut both, &[&BEFORE[..], &AFTER].concat())?;
    for _ in 0..24 {
        let writer = if random.random() { &mut both } else { &mut next };
        write_document(&mut random, writer)?;
        all_right(&house, &mut both, &AFTER)?;
        all_right(&house, &mut next, &AFTER)?;
    }
    both.stop()?;
    for _ in 0..8 {
        write_document(&mut random, &mut next)?;
        all_right(&house, &mut next, &AFTER)?;
    }
    next.stop()
}
