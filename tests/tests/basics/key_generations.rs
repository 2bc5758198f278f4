//! Keys change between deploys: the new binary raises the model's key generation and writes both
//! generations until the old binary is gone. No key of either answers with anything that the database
//! does not hold, though both use the key made of the primary key, one as a record and one as a copy.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use kvsync::capture::{Database, SyncConnection};
use kvsync::store::MemoryStore;
use kvsync::{KvSync, Lookup, Syncable};
use kvsync_tests::Tested;
use kvsync_tests::wait::LONG;
use serde::{Deserialize, Serialize};

diesel::table! {
    users (id) {
        id -> Integer,
        name -> Text,
    }
}

mod before {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
    #[diesel(table_name = users)]
    #[sync_key(name = "id", fmt = "user:<id>")]
    #[sync_key(name = "name", fmt = "user:name:<name>")]
    pub struct User {
        pub id: i32,
        pub name: String,
    }
}

mod after {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
    #[diesel(table_name = users)]
    #[sync(generation = 1)]
    #[sync_key(name = "id", fmt = "user:<id>")]
    #[sync_key(name = "name", fmt = "users/<name>")]
    pub struct User {
        pub id: i32,
        pub name: String,
    }
}

/// One running binary.
struct Binary {
    kv: KvSync,
    conn: SyncConnection<SqliteConnection>,
}

impl Binary {
    fn start(path: &str, store: &MemoryStore, models: fn(Database<Sqlite>) -> Database<Sqlite>) -> Self {
        let open = path.to_owned();
        let database = Database::<Sqlite>::new("main", move || {
            let mut conn = SqliteConnection::establish(&open)?;
            conn.batch_execute("PRAGMA busy_timeout = 300000")
                .map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
            Ok::<_, diesel::ConnectionError>(conn)
        });
        let kv = KvSync::builder().store(store.clone()).database(models(database)).build().unwrap();
        let conn = kv.connect::<Sqlite>("main").unwrap();
        Self { kv, conn }
    }

    fn run(&mut self, sql: &str) {
        diesel::sql_query(sql).execute(&mut self.conn).unwrap();
        self.kv.flush(LONG).unwrap();
    }

    /// What the database holds now.
    fn rows(&mut self) -> Vec<(i32, String)> {
        users::table.select((users::id, users::name)).order(users::id).load(&mut self.conn).unwrap()
    }
}

/// Every key of the old generation says what the database says.
fn the_old_generation_is_right(binary: &mut Binary, names: &[&str]) -> Tested {
    let rows = binary.rows();
    for (id, name) in rows.clone() {
        let user = before::User { id, name };
        assert_eq!(before::User::fetch_by_id(&binary.kv, id)?, Some(user.clone()));
        assert_eq!(before::User::fetch_strict_by_name(&binary.kv, &user.name)?, Some(user));
    }
    for name in names.iter().filter(|name| !rows.iter().any(|(_, taken)| taken == *name)) {
        assert_eq!(before::User::lookup_by_name(&binary.kv, name)?, Lookup::Absent, "{name} is free");
    }
    Ok(())
}

/// The key made of the primary key says so to readers of the new generation too.
fn the_shared_key_is_right(binary: &mut Binary, ids: std::ops::RangeInclusive<i32>) -> Tested {
    let rows = binary.rows();
    for id in ids {
        let row = rows.iter().find(|(of, _)| *of == id);
        let user = row.map(|(id, name)| after::User { id: *id, name: name.clone() });
        assert_eq!(after::User::fetch_by_id(&binary.kv, id)?, user);
    }
    Ok(())
}

fn the_new_names_are_right(binary: &mut Binary, names: &[&str]) -> Tested {
    let rows = binary.rows();
    for name in names {
        let row = rows.iter().find(|(_, taken)| taken == name);
        let user = row.map(|(id, name)| after::User { id: *id, name: name.clone() });
        assert_eq!(after::User::fetch_by_name(&binary.kv, name)?, user, "{name}");
    }
    Ok(())
}

#[test]
fn both_generations_are_right_while_both_binaries_run_and_after() -> Tested {
    a_deploy(|database| database.model::<before::User>().model::<after::User>())
}

#[test]
fn whichever_is_written_first() -> Tested {
    a_deploy(|database| database.model::<after::User>().model::<before::User>())
}

fn a_deploy(both: fn(Database<Sqlite>) -> Database<Sqlite>) -> Tested {
    const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("app.db").to_string_lossy().into_owned();
    SqliteConnection::establish(&path)?
        .batch_execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)")?;
    let store = MemoryStore::new();

    let mut old = Binary::start(&path, &store, Database::model::<before::User>);
    old.run("INSERT INTO users VALUES (1, 'a'), (2, 'b'), (3, 'c')");
    the_old_generation_is_right(&mut old, &["a", "b", "c"])?;

    // Both run. The new one writes both generations.
    let mut new = Binary::start(&path, &store, both);
    new.run("UPDATE users SET name = 'd' WHERE id = 1");
    the_old_generation_is_right(&mut old, &["a", "b", "c", "d"])?;
    old.run("UPDATE users SET name = 'a' WHERE id = 2");
    new.run("DELETE FROM users WHERE id = 3");
    new.run("INSERT INTO users VALUES (4, 'c')");
    old.run("UPDATE users SET name = 'e' WHERE id = 4");
    new.run("UPDATE users SET name = 'c' WHERE id = 2");
    old.run("UPDATE users SET name = 'b' WHERE id = 1");
    the_old_generation_is_right(&mut new, &["a", "b", "c", "d", "e"])?;
    the_shared_key_is_right(&mut new, 1..=4)?;

    // The old one is gone, and every row is written once more.
    old.kv.shutdown(LONG);
    drop(old);
    new.run("UPDATE users SET name = name");
    the_old_generation_is_right(&mut new, &["a", "b", "c", "d", "e"])?;
    the_shared_key_is_right(&mut new, 1..=4)?;
    the_new_names_are_right(&mut new, &NAMES)?;

    // The next binary knows the new generation only.
    new.kv.shutdown(LONG);
    drop(new);
    let mut next = Binary::start(&path, &store, Database::model::<after::User>);
    next.run("UPDATE users SET name = 'f' WHERE id = 1");
    next.run("DELETE FROM users WHERE id = 4");
    next.run("INSERT INTO users VALUES (3, 'b')");
    the_shared_key_is_right(&mut next, 1..=4)?;
    the_new_names_are_right(&mut next, &NAMES)?;
    Ok(())
}
