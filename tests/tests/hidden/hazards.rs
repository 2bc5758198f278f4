//! What a statement hides: handled, or reported.

use kvsync::Scope;

use super::*;

/// The model of a table that keeps deleted rows.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = users)]
#[sync_key(name = "id", fmt = "live:<id>")]
#[sync_key(name = "email", fmt = "live:email:<email>")]
#[sync(live_if = "name <> 'gone'")]
struct Live {
    id: i32,
    email: Option<String>,
    name: String,
}

/// The same for both databases.
macro_rules! hazards {
    ($open:ident, $schema:literal) => {
        use super::*;

        #[test]
        fn to_purge_a_row_that_was_deleted_softly_leaves_who_has_its_email_now() {
            let tables =
                [&TABLE.replace(" UNIQUE", ""), "; CREATE UNIQUE INDEX u ON users (email) WHERE name <> 'gone'"];
            let mut app = $open(&tables.concat(), Database::model::<Live>);
            run!(app, "INSERT INTO users VALUES (1, 'a', 'ann')");
            run!(app, "UPDATE users SET name = 'gone' WHERE id = 1");
            assert_eq!(Live::lookup_by_email(&app.kv, "a").unwrap(), Lookup::Absent);
            run!(app, "INSERT INTO users VALUES (2, 'a', 'bob')");
            let bob = || Lookup::Found(Live { id: 2, email: Some("a".into()), name: "bob".into() });
            assert_eq!(Live::lookup_by_email(&app.kv, "a").unwrap(), bob());
            run!(app, "DELETE FROM users WHERE id = 1");
            assert_eq!(Live::lookup_by_email(&app.kv, "a").unwrap(), bob());
            assert_eq!(Live::lookup_by_id(&app.kv, 1).unwrap(), Lookup::Absent);
            assert_eq!(app.reasons(), [""; 0]);
        }

        #[test]
        fn a_foreign_key_that_changes_rows_is_reported_when_it_may_have() {
            for action in ["ON DELETE CASCADE", "ON DELETE SET NULL", "ON DELETE SET DEFAULT", "ON UPDATE CASCADE"] {
                let teams = "CREATE TABLE teams (id INTEGER PRIMARY KEY, title TEXT UNIQUE, more TEXT); \
                             INSERT INTO teams VALUES (1, 'a', ''), (2, 'b', '');";
                let users = TABLE.replace("UNIQUE", &format!("UNIQUE REFERENCES teams (title) {action}"));
                let mut app = $open(&[teams, &users].concat(), Database::model::<User>);
                run!(app, "INSERT INTO users VALUES (1, 'a', 'ann')");
                run!(app, "INSERT INTO teams VALUES (3, 'c', '')");
                run!(app, "UPDATE teams SET more = 'new'");
                run!(app, "DELETE FROM teams WHERE id = 9");
                assert_eq!(app.reasons(), [""; 0], "{action}");
                if action.starts_with("ON DELETE") {
                    run!(app, "DELETE FROM teams WHERE id = 1");
                } else {
                    run!(app, "UPDATE teams SET title = 'd' WHERE id = 1");
                }
                let reasons = app.reasons();
                assert_eq!(reasons.len(), 1, "{action}: {reasons:?}");
                assert!(reasons[0].contains("on `teams` may have deleted or changed rows of `users`"), "{reasons:?}");
            }
        }

        #[test]
        fn a_foreign_key_on_a_synced_table_is_reported_too() {
            let tables = TABLE.replace("NULL)", "NULL, boss INTEGER REFERENCES users ON DELETE CASCADE)");
            let mut app = $open(&tables, Database::model::<User>);
            run!(app, "INSERT INTO users VALUES (1, 'a', 'ann', NULL), (2, 'b', 'bob', 1)");
            run!(app, "UPDATE users SET name = 'eve'");
            assert_eq!(app.reasons(), [""; 0]);
            run!(app, "DELETE FROM users WHERE id = 1");
            assert_eq!(app.by_id(1), Lookup::Absent);
            assert!(app.reasons()[0].contains("on `users` may have deleted"), "its own rows, too");
        }

        #[test]
        fn a_foreign_key_that_changes_what_no_model_reads_is_nobodys_business() {
            let tables =
                TABLE.replace("NULL)", "NULL, boss INTEGER REFERENCES users ON DELETE SET NULL ON UPDATE CASCADE)");
            let mut app = $open(&tables, Database::model::<User>);
            run!(app, "INSERT INTO users VALUES (1, 'a', 'ann', NULL), (2, 'b', 'bob', 1)");
            run!(app, "DELETE FROM users WHERE id = 1");
            assert_eq!(app.reasons(), [""; 0]);
        }

        #[test]
        fn a_write_through_a_view_is_reported_and_health_tells() {
            let view = "; CREATE VIEW named AS SELECT * FROM users WHERE name <> ''";
            let mut app = $open(&[TABLE, view, INSTEAD].concat(), Database::model::<User>);
            run!(app, "INSERT INTO users VALUES (1, 'a', 'ann')");
            run!(app, "UPDATE named SET name = 'eve'");
            let dirty = app.kv.health(LONG).pipeline.dirty;
            assert_eq!(dirty.iter().filter_map(|dirty| dirty.table.as_deref()).collect::<Vec<_>>(), ["users"]);
            assert_eq!(app.reasons().len(), 1);
        }

        #[test]
        fn a_temporary_table_that_hides_the_synced_one_is_reported() {
            let mut app = $open(TABLE, Database::model::<User>);
            run!(app, "INSERT INTO users VALUES (1, 'a', 'ann')");
            app.conn.batch_execute(&TABLE.replace("TABLE", "TEMP TABLE")).unwrap();
            run!(app, "INSERT INTO users VALUES (1, 'a', 'temporary')");
            assert!(app.reasons()[0].contains("temporary"));
            run!(app, concat!("UPDATE ", $schema, ".users SET name = 'eve'"));
            assert_eq!(app.reasons(), [""; 0]);
            assert_eq!(app.by_email("a"), Lookup::Found(user(1, "a", "eve")));
        }

        #[test]
        fn an_insert_that_returns_fewer_rows_than_it_was_given_is_reported() {
            let mut app = $open(&[TABLE, LEAVES_OUT].concat(), Database::model::<User>);
            run!(app, "INSERT INTO users VALUES (1, 'a', 'ann'), (2, 'b', 'out')");
            assert_eq!(app.by_id(1), Lookup::Found(user(1, "a", "ann")));
            let reasons = app.reasons();
            assert!(reasons.len() == 1 && reasons[0].contains("fewer rows"), "{reasons:?}");
        }

        #[test]
        fn an_update_of_the_primary_key_moves_the_row() {
            for within in [false, true] {
                let mut app = $open(TABLE, Database::model::<User>);
                run!(app, "INSERT INTO users VALUES (1, 'a', 'ann'), (2, 'b', 'bob'), (3, 'c', 'cyd')");
                let moved = |conn: &mut SyncConnection<_>| -> QueryResult<usize> {
                    let by_dsl = diesel::update(users::table.filter(users::name.eq("ann")));
                    by_dsl.set((users::id.eq(11), users::name.eq("eve"), users::email.eq("e"))).execute(conn)?;
                    let id: i32 = diesel::update(users::table.find(2))
                        .set((users::name.eq("bo"), users::id.eq(22)))
                        .returning(users::id)
                        .get_result(conn)?;
                    assert_eq!(id, 22);
                    sql_query("UPDATE users SET id = 33 WHERE id = 77").execute(conn)
                };
                if within { app.conn.transaction(moved) } else { moved(&mut app.conn) }.unwrap();
                app.kv.flush(LONG).unwrap();
                assert_eq!(
                    (app.by_id(1), app.by_id(2), app.by_email("a")),
                    (Lookup::Absent, Lookup::Absent, Lookup::Absent)
                );
                assert_eq!(
                    (app.by_id(11), app.by_email("e")),
                    (Lookup::Found(user(11, "e", "eve")), Lookup::Found(user(11, "e", "eve")))
                );
                assert_eq!(app.by_email("b"), Lookup::Found(user(22, "b", "bo")));
                // Two of them, one to the place that the other had.
                run!(app, "UPDATE users SET id = id - 8 WHERE id < 20");
                assert_eq!(app.by_id(3), Lookup::Found(user(3, "e", "eve")));
                assert_eq!((app.by_id(-5), app.by_id(11)), (Lookup::Found(user(-5, "c", "cyd")), Lookup::Absent));
                assert_eq!(app.by_email("c"), Lookup::Found(user(-5, "c", "cyd")));
                run!(app, "INSERT INTO users VALUES (1, 'a', 'new')");
                assert_eq!(app.by_email("a"), Lookup::Found(user(1, "a", "new")));
                assert_eq!(app.reasons(), [""; 0]);
            }
        }

        #[test]
        fn an_update_of_the_primary_key_that_is_rolled_back_moves_nothing() {
            let mut app = $open(TABLE, Database::model::<User>);
            run!(app, "INSERT INTO users VALUES (1, 'a', 'ann'), (2, 'b', 'bob')");
            assert!(sql_query("UPDATE users SET id = 2 WHERE id = 1").execute(&mut app.conn).is_err());
            let undone: QueryResult<()> = app.conn.transaction(|conn| {
                sql_query("UPDATE users SET id = 5 WHERE id = 1").execute(conn)?;
                Err(diesel::result::Error::RollbackTransaction)
            });
            assert!(undone.is_err());
            app.kv.flush(LONG).unwrap();
            assert_eq!(
                (app.by_id(1), app.by_id(5)),
                (Lookup::Found(user(1, "a", "ann")), Lookup::Unknown(Miss::NotStored))
            );
        }

        #[test]
        fn a_key_that_is_not_unique_is_refused() {
            let mut app = $open(&TABLE.replace(" UNIQUE", ""), Database::model::<User>);
            let error = sql_query("INSERT INTO users VALUES (1, 'a', 'ann')").execute(&mut app.conn).unwrap_err();
            assert!(error.to_string().contains("no unique constraint covers (email)"), "{error}");
        }

        #[test]
        fn a_key_that_another_program_makes_ambiguous_is_refused_from_the_next_check_on() {
            let tables = [&TABLE.replace(" UNIQUE", ""), "; CREATE UNIQUE INDEX u ON users (email)"].concat();
            let mut app = $open(&tables, |database| database.model::<User>().check_every(Duration::ZERO));
            run!(app, "INSERT INTO users VALUES (1, 'a', 'ann')");
            app.conn.unsynced().batch_execute("DROP INDEX u").unwrap();
            let error = sql_query("INSERT INTO users VALUES (2, 'a', 'bob')").execute(&mut app.conn).unwrap_err();
            assert!(error.to_string().contains("no unique constraint covers (email)"), "{error}");
        }
    };
}

mod on_postgres {
    const INSTEAD: &str = "";
    const LEAVES_OUT: &str = "; CREATE FUNCTION leave() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; \
                              CREATE TRIGGER leave BEFORE INSERT ON users FOR EACH ROW WHEN (NEW.name = 'out') \
                              EXECUTE FUNCTION leave()";
    hazards!(postgres, "public");
}

mod on_sqlite {
    const INSTEAD: &str = "; CREATE TRIGGER t INSTEAD OF UPDATE ON named BEGIN \
                           UPDATE users SET name = NEW.name WHERE id = NEW.id; END";
    const LEAVES_OUT: &str =
        "; CREATE TRIGGER out BEFORE INSERT ON users WHEN NEW.name = 'out' BEGIN SELECT RAISE(IGNORE); END";
    hazards!(sqlite, "main");

    #[test]
    fn a_row_that_replace_may_have_displaced_is_reported() {
        let mut app = sqlite(TABLE, Database::model::<User>);
        run!(app, "INSERT INTO users VALUES (1, 'a', 'ann')");
        run!(app, "REPLACE INTO users VALUES (2, 'a', 'bob')");
        assert!(app.reasons()[0].contains("replaced unseen"));
        assert_eq!(app.by_email("a"), Lookup::Found(user(2, "a", "bob")));
    }
}

#[test]
fn an_update_of_the_primary_key_under_an_alias_or_of_rows_that_come_meanwhile() {
    let mut app = postgres(TABLE, Database::model::<User>);
    run!(app, "INSERT INTO users VALUES (1, 'a', 'ann'), (2, 'b', 'bob')");
    run!(app, "UPDATE ONLY users AS u SET id = 3 WHERE u.id = 1 RETURNING u.name");
    assert_eq!((app.by_id(1), app.by_id(3)), (Lookup::Absent, Lookup::Found(user(3, "a", "ann"))));
    assert_eq!(app.reasons(), [""; 0]);
    run!(app, "UPDATE users SET id = 4 FROM (VALUES (2)) AS v (id) WHERE users.id = v.id");
    assert!(app.reasons()[0].contains("the row's old keys stay"), "a join is not looked into");
}

#[test]
fn tenants_of_a_search_path_do_not_meet() {
    let tables = format!(
        "{TABLE}; CREATE SCHEMA t1; CREATE SCHEMA t2; SET search_path TO t1; {TABLE}; SET search_path TO t2; {TABLE}"
    );
    let scopes =
        |database: Database<Pg>| database.scopes(|schema| schema.starts_with('t').then(|| Scope::named(schema)));
    let mut app = postgres(&tables, |database| scopes(database.model::<User>()));
    for path in ["t1", "t2", "t1", "public"] {
        sql_query(format!("SET search_path TO {path}")).execute(&mut app.conn).unwrap();
        run!(
            app,
            format!(
                "INSERT INTO users VALUES (1, 'a', '{path}') ON CONFLICT (id) DO UPDATE SET name = users.name || '+'"
            )
        );
    }
    for (path, name) in [("t1", "t1+"), ("t2", "t2")] {
        let tenant = app.kv.scoped(Scope::named(path));
        assert_eq!(User::lookup_by_email(&tenant, "a").unwrap(), Lookup::Found(user(1, "a", name)));
    }
    assert_eq!(app.by_id(1), Lookup::Unknown(Miss::NotStored));
    let reasons = app.reasons();
    assert!(reasons.len() == 1 && reasons[0].contains("the schema `public`"), "{reasons:?}");
}

#[test]
fn without_scopes_the_table_of_another_schema_is_reported() {
    let tables = format!("{TABLE}; CREATE SCHEMA t2; SET search_path TO t2; {TABLE}");
    let mut app = postgres(&tables, Database::model::<User>);
    run!(app, "INSERT INTO users VALUES (1, 'a', 'ann')");
    app.conn.batch_execute("SET search_path TO t2").unwrap();
    run!(app, "INSERT INTO users VALUES (1, 'a', 'other')");
    assert_eq!(app.by_email("a"), Lookup::Found(user(1, "a", "ann")));
    assert!(app.reasons()[0].contains("`t2.users`"));
}

#[test]
fn a_function_that_writes_is_not_seen_but_audited() {
    let function =
        "; CREATE FUNCTION touch() RETURNS int LANGUAGE sql AS $$UPDATE users SET name = 'eve' RETURNING 1$$";
    let mut app = postgres(&[TABLE, function].concat(), Database::model::<User>);
    run!(app, "INSERT INTO users VALUES (1, 'a', 'ann')");
    run!(app, "SELECT touch()");
    assert_eq!(app.by_id(1), Lookup::Found(user(1, "a", "ann")), "this is what the documentation warns of");
    assert_eq!(audit(&mut app, &[FindingKind::Function]).len(), 1);
}
