//! A model that is captured by key: its writes return the primary key alone.

use super::*;

/// The same for both databases.
macro_rules! by_key {
    ($open:ident) => {
        use super::*;

        #[test]
        fn rows_are_masked_and_read_again() {
            let mut app = $open(TABLE, Database::model_by_key::<User>);
            run!(app, "INSERT INTO users VALUES (1, 'a', 'ann'), (2, 'b', 'bob')");
            assert_eq!(app.by_id(1), Lookup::Found(user(1, "a", "ann")));
            run!(app, "UPDATE users SET email = 'c' WHERE id = 1");
            assert_eq!(app.by_email("c"), Lookup::Found(user(1, "c", "ann")));
            assert_eq!(app.by_email("a"), Lookup::Absent);
            let name: String = diesel::update(users::table.find(2))
                .set(users::name.eq("bo"))
                .returning(users::name)
                .get_result(&mut app.conn)
                .unwrap();
            assert_eq!(name, "bo");
            run!(app, "DELETE FROM users WHERE id = 1");
            assert_eq!((app.by_id(1), app.by_email("c")), (Lookup::Absent, Lookup::Absent));
            assert_eq!(app.by_email("b"), Lookup::Found(user(2, "b", "bo")));
            assert_eq!(app.reasons(), [""; 0]);
        }

        #[test]
        fn what_is_rolled_back_is_not_handed_on() {
            let mut app = $open(TABLE, Database::model_by_key::<User>);
            let undone: QueryResult<()> = app.conn.transaction(|conn| {
                sql_query("INSERT INTO users VALUES (1, 'a', 'ann')").execute(conn)?;
                assert_eq!(conn.captured().len(), 1);
                Err(diesel::result::Error::RollbackTransaction)
            });
            assert!(undone.is_err());
            app.kv.flush(LONG).unwrap();
            assert_eq!(app.by_id(1), Lookup::Unknown(Miss::NotStored));
        }

        #[test]
        fn a_column_that_is_gone_hinders_no_write() {
            let mut app = $open(TABLE, Database::model_by_key::<User>);
            run!(app, "INSERT INTO users VALUES (1, 'a', 'ann')");
            app.conn.unsynced().batch_execute("ALTER TABLE users RENAME COLUMN name TO nick").unwrap();
            sql_query("UPDATE users SET nick = 'new'").execute(&mut app.conn).unwrap();
            masked(&app.kv);
            app.conn.unsynced().batch_execute("ALTER TABLE users RENAME COLUMN nick TO name").unwrap();
            app.kv.flush(LONG).unwrap();
            assert_eq!(app.by_email("a"), Lookup::Found(user(1, "a", "new")));
        }

        #[test]
        fn a_model_whose_only_key_is_the_primary_keys_is_masked_and_deleted() {
            let mut app = $open(TABLE, Database::model_by_key::<Badge>);
            let badge = |name: &str| Lookup::Found(Badge { id: 1, name: name.into() });
            run!(app, "INSERT INTO users VALUES (1, 'a', 'ann')");
            assert_eq!(Badge::lookup_by_id(&app.kv, 1).unwrap(), badge("ann"));
            run!(app, "UPDATE users SET name = 'eve'");
            assert_eq!(Badge::lookup_by_id(&app.kv, 1).unwrap(), badge("eve"));
            run!(app, "DELETE FROM users");
            assert_eq!(Badge::lookup_by_id(&app.kv, 1).unwrap(), Lookup::Absent);
            assert_eq!(app.reasons(), [""; 0]);
        }
    };
}

mod on_postgres {
    by_key!(postgres);
}

mod on_sqlite {
    by_key!(sqlite);
}

/// Waits until readers of user 1 are sent to the database.
fn masked(kv: &KvSync) {
    until("masked", || {
        User::lookup_by_id(kv, 1).unwrap() == Lookup::Unknown(Miss::Masked)
            && User::lookup_by_email(kv, "a").unwrap() == Lookup::Unknown(Miss::Masked)
    });
}

#[derive(Debug, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = users)]
#[sync_key(name = "id", fmt = "badge:<id>")]
struct Badge {
    id: i32,
    name: String,
}

#[derive(Debug, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = users)]
#[sync_key(name = "id", fmt = "fixed:id:<id>")]
#[sync_key(name = "name", fmt = "fixed:name:<name>", immutable)]
struct Fixed {
    id: i32,
    name: String,
}

#[test]
fn a_model_with_a_key_that_nobody_would_know_is_refused() {
    let database = Database::<Sqlite>::new("main", || SqliteConnection::establish(":memory:"));
    let builder = KvSync::builder().store(MemoryStore::new()).database(database.model_by_key::<Fixed>());
    let error = builder.build().unwrap_err().to_string();
    assert!(error.contains("`Fixed` cannot be captured by key"), "{error}");
}

#[test]
fn a_role_needs_no_right_but_on_the_primary_key() {
    let mut app = postgres(TABLE, Database::model_by_key::<User>);
    run!(app, "INSERT INTO users VALUES (1, 'a', 'ann')");
    let _role = Role::new(&mut app, "GRANT INSERT, UPDATE, DELETE, SELECT (id) ON users TO $role");
    run!(app, "INSERT INTO users VALUES (2, 'b', 'bob')");
    run!(app, "UPDATE users SET name = 'eve' WHERE id = 1");
    assert_eq!(app.by_email("b"), Lookup::Found(user(2, "b", "bob")));
    assert_eq!(app.by_email("a"), Lookup::Found(user(1, "a", "eve")));
    run!(app, "DELETE FROM users WHERE id = 1");
    assert_eq!(app.by_email("a"), Lookup::Absent);
    assert_eq!(app.reasons(), [""; 0]);
}

#[test]
fn schemas_keep_their_scopes() {
    let tables = format!("{TABLE}; CREATE SCHEMA t2; SET search_path TO t2; {TABLE}");
    let scopes = |database: Database<Pg>| database.scopes(|schema| Some(kvsync::Scope::named(schema)));
    let mut app = postgres(&tables, |database| scopes(database.model_by_key::<User>()));
    for path in ["public", "t2"] {
        sql_query(format!("SET search_path TO {path}")).execute(&mut app.conn).unwrap();
        run!(app, format!("INSERT INTO users VALUES (1, 'a', '{path}')"));
    }
    for path in ["public", "t2"] {
        let tenant = app.kv.scoped(kvsync::Scope::named(path));
        assert_eq!(User::lookup_by_email(&tenant, "a").unwrap(), Lookup::Found(user(1, "a", path)));
    }
}
