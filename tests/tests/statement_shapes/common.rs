//! The statements that both databases take. Long because it is a table.

/// The shapes for a plain connection and its wrapped form.
///
/// A number behind the name says how many writes of rows are captured, where it is not the number of
/// rows that differ afterwards.
macro_rules! common_shapes {
    ($plain:ty, $wrapped:ty) => {
        shapes! { $plain, $wrapped;
            // Inserts
            "insert one row" => |conn| {
                insert_into(users::table).values(&NewUser { name: "new", age: Some(1) }).execute(conn)
            }
            "insert a tuple" => |conn| {
                insert_into(users::table).values((users::name.eq("new"), users::active.eq(false))).execute(conn)
            }
            "insert a model with its key" => |conn| {
                insert_into(users::table).values(user(77, "new")).execute(conn)
            }
            "insert, the whole row back" => |conn| {
                insert_into(users::table).values(users::name.eq("new")).get_result::<User>(conn)
            }
            "insert, as_returning" => |conn| {
                insert_into(users::table).values(users::name.eq("new")).returning(User::as_returning()).get_result(conn)
            }
            "insert, as_returning of another model" => |conn| {
                insert_into(users::table).values(users::name.eq("new")).returning(Slim::as_returning()).get_result(conn)
            }
            "insert, one column back" => |conn| {
                insert_into(users::table).values(users::name.eq("new")).returning(users::id).get_result::<i32>(conn)
            }
            "insert, an expression back" => |conn| {
                insert_into(users::table).values((users::name.eq("new"), users::age.eq(3)))
                    .returning((users::age + 1, users::name.like("n%"))).get_result::<(Option<i32>, bool)>(conn)
            }
            "insert, rows back by load" => |conn| {
                insert_into(users::table).values(users::name.eq("new")).load::<User>(conn)
            }
            "insert, rows back by load_iter" => |conn| {
                insert_into(users::table).values(users::name.eq("new"))
                    .load_iter::<User, DefaultLoadingMode>(conn)?.collect::<QueryResult<Vec<_>>>()
            }
            "insert a batch" => |conn| {
                insert_into(users::table)
                    .values(&vec![NewUser { name: "n1", age: Some(1) }, NewUser { name: "n2", age: None }])
                    .execute(conn)
            }
            "insert a batch of models" => |conn| {
                insert_into(users::table).values(&[user(70, "n1"), user(71, "n2"), user(72, "n3")]).execute(conn)
            }
            "insert a batch of tuples" => |conn| {
                insert_into(users::table).values(vec![users::name.eq("n1"), users::name.eq("n2")]).execute(conn)
            }
            "insert a batch with fields left out" => |conn| {
                insert_into(users::table)
                    .values(vec![LooseUser { name: "n1", active: None }, LooseUser { name: "n2", active: Some(false) }])
                    .execute(conn)
            }
            "insert an empty batch" => |conn| {
                insert_into(users::table).values(Vec::<NewUser<'_>>::new()).execute(conn)
            }
            "insert from a select" => |conn| {
                insert_into(users::table)
                    .values(posts::table.filter(posts::id.gt(1)).select((posts::title, posts::user_id.nullable())))
                    .into_columns((users::name, users::age)).execute(conn)
            }
            "insert from a select of the same table" => |conn| {
                users::table.filter(users::active).select(users::name.concat("!"))
                    .insert_into(users::table).into_columns(users::name).execute(conn)
            }
            "insert from a select of no rows" => |conn| {
                users::table.filter(users::id.gt(1000)).select(users::name)
                    .insert_into(users::table).into_columns(users::name).execute(conn)
            }
            "insert default values" => |conn| {
                insert_into(counters::table).default_values().execute(conn)
            }
            "insert default values, the row back" => |conn| {
                insert_into(counters::table).default_values().get_result::<Counter>(conn)
            }
            "insert into a table without a model" => |conn| {
                insert_into(posts::table).values((posts::user_id.eq(1), posts::title.eq("t"))).execute(conn)
            }
            "insert with a composite primary key and a type of its own" => |conn| {
                insert_into(memberships::table).values(&member(9, 1, Role::Guest, Some("n"))).execute(conn)
            }
            "insert with a composite primary key, the row back" => |conn| {
                insert_into(memberships::table).values(&member(9, 1, Role::Owner, None)).returning(Membership::as_returning()).get_result(conn)
            }
            // Upserts
            "on conflict do nothing, no conflict" => |conn| {
                insert_into(users::table).values(users::name.eq("new")).on_conflict_do_nothing().execute(conn)
            }
            "on conflict do nothing, a conflict" => |conn| {
                insert_into(users::table).values(users::name.eq("ada")).on_conflict_do_nothing().execute(conn)
            }
            "on conflict do nothing, the row back" => |conn| {
                insert_into(users::table).values(users::name.eq("ada")).on_conflict(users::name).do_nothing()
                    .get_result::<User>(conn).optional()
            }
            "upsert that inserts" => |conn| {
                insert_into(users::table).values(user(50, "new")).on_conflict(users::id).do_update()
                    .set(users::name.eq("set")).execute(conn)
            }
            "upsert that updates" => |conn| {
                insert_into(users::table).values(user(1, "new")).on_conflict(users::id).do_update()
                    .set(users::name.eq("set")).execute(conn)
            }
            "upsert with excluded, the row back" => |conn| {
                insert_into(users::table).values(user(1, "new")).on_conflict(users::id).do_update()
                    .set((users::name.eq(excluded(users::name)), users::age.eq(users::age + 1))).get_result::<User>(conn)
            }
            "upsert with a changeset, one column back" => |conn| {
                let changed = user(2, "changed");
                insert_into(users::table).values(&changed).on_conflict(users::id).do_update().set(&changed)
                    .returning(users::name).get_result::<String>(conn)
            }
            "upsert whose filter does not hold" => |conn| {
                let upsert = insert_into(users::table).values(user(1, "new")).on_conflict(users::id).do_update();
                diesel::query_dsl::methods::FilterDsl::filter(upsert.set(users::name.eq("set")), users::age.gt(1000)).execute(conn)
            }
            "upsert whose filter holds" => |conn| {
                let upsert = insert_into(users::table).values(user(1, "new")).on_conflict(users::id).do_update();
                diesel::query_dsl::methods::FilterDsl::filter(upsert.set(users::name.eq("set")), users::age.lt(1000)).execute(conn)
            }
            "upsert by a composite key" => |conn| {
                insert_into(memberships::table).values(&member(1, 1, Role::Guest, Some("up")))
                    .on_conflict((memberships::team_id, memberships::user_id)).do_update()
                    .set(memberships::role.eq(Role::Guest)).returning(Membership::as_returning()).get_result(conn)
            }
            // Updates
            "update by find" => |conn| {
                update(users::table.find(1)).set(users::name.eq("new")).execute(conn)
            }
            "update by filter" => |conn| {
                update(users::table.filter(users::id.lt(4))).set(users::age.eq(9)).execute(conn)
            }
            "update by filter on the target" => |conn| {
                update(users::table).filter(users::active.eq(true)).filter(users::id.ne(1)).set(users::age.eq(9)).execute(conn)
            }
            "update to the same", 2 => |conn| {
                update(users::table.filter(users::id.le(2))).set(users::name.eq(users::name)).execute(conn)
            }
            "update every row" => |conn| {
                update(users::table).set(users::active.eq(dsl::not(users::active))).execute(conn)
            }
            "update no row" => |conn| {
                update(users::table.find(1000)).set(users::name.eq("new")).execute(conn)
            }
            "update several columns" => |conn| {
                update(users::table.find(1)).set((users::name.eq("new"), users::age.eq(None::<i32>), users::active.eq(false)))
                    .execute(conn)
            }
            "update with columns left out" => |conn| {
                update(users::table.find(1)).set((Some(users::name.eq("new")), None::<dsl::Eq<users::age, i32>>)).execute(conn)
            }
            "update with a changeset" => |conn| {
                update(users::table.find(1)).set(&NewUser { name: "new", age: None }).execute(conn)
            }
            "update with a changeset of nulls" => |conn| {
                update(users::table.find(1)).set(&Ageless { age: None }).execute(conn)
            }
            "update with nothing to set" => |conn| {
                update(users::table.find(1)).set(None::<dsl::Eq<users::age, i32>>).execute(conn)
            }
            "update from the old value" => |conn| {
                update(users::table.filter(users::age.is_not_null())).set(users::age.eq(users::age + 1)).execute(conn)
            }
            "update from a sub-select" => |conn| {
                update(users::table.find(1))
                    .set(users::name.eq(posts::table.select(posts::title).filter(posts::id.eq(1)).single_value().assume_not_null()))
                    .execute(conn)
            }
            "update where a sub-select matches" => |conn| {
                update(users::table.filter(users::id.eq_any(posts::table.select(posts::user_id)))).set(users::age.eq(5))
                    .execute(conn)
            }
            "update where a row exists" => |conn| {
                update(users::table.filter(dsl::exists(posts::table.filter(posts::user_id.eq(users::id)))))
                    .set(users::age.eq(5)).execute(conn)
            }
            "update by a list" => |conn| {
                update(users::table.filter(users::id.eq_any([1, 3, 5]))).set(users::age.eq(5)).execute(conn)
            }
            "update, boxed" => |conn| {
                update(users::table).filter(users::id.gt(1)).into_boxed().filter(users::active.eq(true)).set(users::age.eq(8)).execute(conn)
            }
            "update, boxed, rows back" => |conn| {
                let mut query = update(users::table).set(users::age.eq(8)).into_boxed();
                for id in [1, 2] {
                    query = query.filter(users::id.ne(id));
                }
                sorted(query.get_results::<User>(conn), |user| user.id)
            }
            "update, the row back" => |conn| {
                update(users::table.find(1)).set(users::name.eq("new")).get_result::<User>(conn)
            }
            "update, one row back of several" => |conn| {
                update(users::table.filter(users::id.lt(4))).set(users::age.eq(9)).returning(users::age).get_result::<Option<i32>>(conn)
            }
            "update, no row back" => |conn| {
                update(users::table.find(1000)).set(users::name.eq("new")).get_result::<User>(conn)
            }
            "update, no row back, optional" => |conn| {
                update(users::table.find(1000)).set(users::name.eq("new")).get_result::<User>(conn).optional()
            }
            "update, all rows back" => |conn| {
                sorted(update(users::table).set(users::age.eq(9)).get_results::<User>(conn), |user| user.id)
            }
            "update, some columns back" => |conn| {
                sorted(
                    update(users::table).set(users::age.eq(users::id.nullable())).returning((users::name, users::id)).load::<(String, i32)>(conn),
                    |row| row.1,
                )
            }
            "update, another model back" => |conn| {
                update(users::table.find(2)).set(users::name.eq("new")).returning(Slim::as_returning()).get_result(conn)
            }
            "update, expressions back" => |conn| {
                update(users::table.find(2)).set(users::name.eq("new"))
                    .returning((users::age.is_null(), users::id * 2, users::name.concat("?"))).get_result::<(bool, i32, String)>(conn)
            }
            "update, rows back one by one" => |conn| {
                let rows = update(users::table).set(users::age.eq(9)).load_iter::<User, DefaultLoadingMode>(conn)?;
                sorted(rows.collect(), |user| user.id)
            }
            "update, rows back one by one, but only the first is taken" => |conn| {
                let mut rows = update(users::table).set(users::age.eq(9)).returning(users::age)
                    .load_iter::<Option<i32>, DefaultLoadingMode>(conn)?;
                rows.next().transpose()
            }
            "update of a model by itself" => |conn| {
                let row = users::table.find(3).first::<User>(conn)?;
                update(&row).set(users::age.eq(44)).execute(conn)
            }
            "save_changes" => |conn| {
                let mut row = users::table.find(3).first::<User>(conn)?;
                row.name = "saved".to_owned();
                row.save_changes::<User>(conn)
            }
            "save_changes of a narrow changeset" => |conn| {
                Rename { id: 3, name: "saved".to_owned() }.save_changes::<User>(conn)
            }
            "save_changes of a row that is gone" => |conn| {
                Rename { id: 3000, name: "saved".to_owned() }.save_changes::<User>(conn)
            }
            "update by a composite primary key" => |conn| {
                update(memberships::table.find((1, 2))).set((memberships::role.eq(Role::Owner), memberships::note.eq("up")))
                    .returning(Membership::as_returning()).get_result(conn)
            }
            "update with a changeset that embeds" => |conn| {
                let row = member(1, 1, Role::Guest, Some("embedded"));
                update(memberships::table.filter(memberships::team_id.eq(1).and(memberships::user_id.eq(1)))).set(&row).execute(conn)
            }
            "update a table without a model" => |conn| {
                update(posts::table).set(posts::title.eq("t")).execute(conn)
            }
            "update a table without a model, rows back" => |conn| {
                sorted(update(posts::table).set(posts::title.eq("t")).returning(posts::id).load::<i32>(conn), |id| *id)
            }
            // Deletes
            "delete by find" => |conn| { delete(users::table.find(4)).execute(conn) }
            "delete by filter" => |conn| { delete(users::table.filter(users::id.gt(3))).execute(conn) }
            "delete every row" => |conn| { delete(memberships::table).execute(conn) }
            "delete no row" => |conn| { delete(users::table.find(1000)).execute(conn) }
            "delete, the row back" => |conn| { delete(users::table.find(4)).get_result::<User>(conn) }
            "delete, no row back, optional" => |conn| {
                delete(users::table.find(1000)).get_result::<User>(conn).optional()
            }
            "delete, rows back" => |conn| {
                sorted(delete(users::table.filter(users::id.gt(3))).get_results::<User>(conn), |user| user.id)
            }
            "delete, one column back" => |conn| {
                delete(users::table.find(5)).returning(users::name).get_result::<String>(conn)
            }
            "delete, rows back one by one, but only the first is taken" => |conn| {
                let mut rows = delete(users::table.filter(users::id.gt(3))).returning(users::id.gt(0))
                    .load_iter::<bool, DefaultLoadingMode>(conn)?;
                rows.next().transpose()
            }
            "delete of a model by itself" => |conn| { delete(&user(4, "x")).execute(conn) }
            "delete where a sub-select matches" => |conn| {
                delete(users::table.filter(users::id.ne_all(posts::table.select(posts::user_id)))).execute(conn)
            }
            "delete, boxed" => |conn| {
                delete(users::table).filter(users::id.gt(3)).into_boxed().filter(users::id.lt(5)).execute(conn)
            }
            "delete by a composite primary key" => |conn| {
                delete(memberships::table.find((1, 2))).returning(Membership::as_returning()).get_result(conn)
            }
            "delete from a table without a model" => |conn| { delete(posts::table).execute(conn) }
            // Raw SQL
            "raw insert" => |conn| {
                sql_query("INSERT INTO users (name, age) VALUES ('new', 1)").execute(conn)
            }
            "raw insert of several rows" => |conn| {
                sql_query("insert into users (name) values ('n1'), ('n2') ;").execute(conn)
            }
            "raw insert, rows back by name" => |conn| {
                sql_query("INSERT INTO users (name) VALUES ('new') RETURNING name, id").load::<Named>(conn)
            }
            "raw insert from a select" => |conn| {
                sql_query("INSERT INTO users (name) SELECT name || '2' FROM users WHERE id < 3").execute(conn)
            }
            "raw insert with expressions of tables" => |conn| {
                sql_query("WITH n AS (SELECT 'cte' AS name) INSERT INTO users (name) SELECT name FROM n").execute(conn)
            }
            "raw upsert" => |conn| {
                sql_query("INSERT INTO users (id, name) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET name = excluded.name")
                    .execute(conn)
            }
            "raw upsert that does nothing" => |conn| {
                sql_query("INSERT INTO users (id, name) VALUES (1, 'x') ON CONFLICT DO NOTHING").execute(conn)
            }
            "raw update in lower case with comments" => |conn| {
                sql_query("/* a */ update -- b\n users set name = 'it''s; --' /* c */ where id = 1 -- returning id").execute(conn)
            }
            "raw update in another case" => |conn| {
                sql_query("UPDATE USERS SET Name = 'new' WHERE ID = 1").execute(conn)
            }
            "raw update with quoted names" => |conn| {
                sql_query(r#"UPDATE "users" SET "name" = 'new' WHERE "id" = 1"#).execute(conn)
            }
            "raw update with an alias, rows back" => |conn| {
                sql_query("UPDATE users AS u SET age = u.age + 1 WHERE u.id = 1 RETURNING u.age").load::<Aged>(conn)
            }
            "raw update, every column back" => |conn| {
                sql_query("UPDATE users SET age = 3 WHERE id = 2 RETURNING *").get_result::<Named>(conn)
            }
            "raw update with columns and more back" => |conn| {
                sql_query("UPDATE users SET age = 3 WHERE id = 2 RETURNING *, id + 1 AS next;").load::<Named>(conn)
            }
            "raw update with a common table expression" => |conn| {
                sql_query("WITH x AS (SELECT user_id FROM posts) UPDATE users SET age = 0 WHERE id IN (SELECT user_id FROM x)")
                    .execute(conn)
            }
            "raw update from another table" => |conn| {
                sql_query("UPDATE users SET name = p.title FROM posts AS p WHERE p.user_id = users.id AND p.id = 1").execute(conn)
            }
            "raw update from another table, rows back" => |conn| {
                sql_query("UPDATE users SET age = 9 FROM posts WHERE posts.user_id = users.id AND posts.id = 1 RETURNING users.id, users.name")
                    .load::<Named>(conn)
            }
            "raw update from a sub-select" => |conn| {
                sql_query("UPDATE users SET age = (SELECT count(*) FROM posts WHERE posts.user_id = users.id)").execute(conn)
            }
            "raw update of several columns at once" => |conn| {
                sql_query("UPDATE users SET (name, age) = ('pair', 2) WHERE id = 1").execute(conn)
            }
            "raw update of a table without a model" => |conn| {
                sql_query("UPDATE posts SET title = (SELECT name FROM users WHERE users.id = posts.user_id)").execute(conn)
            }
            "raw delete" => |conn| { sql_query("DELETE FROM users WHERE id > 3; -- done").execute(conn) }
            "raw delete, rows back by name" => |conn| {
                sql_query("DELETE FROM users WHERE id = 5 RETURNING id, name").get_result::<Named>(conn)
            }
            "raw delete with an alias" => |conn| {
                sql_query("DELETE FROM users AS u WHERE u.id IN (SELECT 5)").execute(conn)
            }
            "raw statement, boxed" => |conn| {
                sql_query("UPDATE users SET age = 3 WHERE id = 2 RETURNING id, name").into_boxed().load::<Named>(conn)
            }
            "raw statement alone in a batch" => |conn| {
                conn.batch_execute("UPDATE users SET age = 3 WHERE id = 2;")
            }
            // Failures
            "insert that violates a unique constraint" => |conn| {
                insert_into(users::table).values(users::name.eq("ada")).execute(conn)
            }
            "insert that violates a unique constraint, the row back" => |conn| {
                insert_into(users::table).values(users::name.eq("ada")).get_result::<User>(conn)
            }
            "insert that violates the primary key" => |conn| {
                insert_into(users::table).values(user(1, "new")).execute(conn)
            }
            "insert that violates a check" => |conn| {
                insert_into(users::table).values((users::name.eq("new"), users::age.eq(-1))).execute(conn)
            }
            "insert that violates not null" => |conn| {
                sql_query("INSERT INTO users (name) VALUES (NULL)").execute(conn)
            }
            "insert that violates a foreign key" => |conn| {
                insert_into(posts::table).values((posts::user_id.eq(1000), posts::title.eq("t"))).execute(conn)
            }
            "batch of which one violates a constraint" => |conn| {
                insert_into(users::table).values(vec![users::name.eq("n1"), users::name.eq("ada")]).execute(conn)
            }
            "batch with fields left out of which one violates a constraint" => |conn| {
                insert_into(users::table)
                    .values(vec![LooseUser { name: "n1", active: None }, LooseUser { name: "ada", active: Some(true) }])
                    .execute(conn)
            }
            "update that violates a unique constraint" => |conn| {
                update(users::table.find(2)).set(users::name.eq("ada")).execute(conn)
            }
            "update that violates a unique constraint, rows back" => |conn| {
                update(users::table).set(users::name.eq("same")).get_results::<User>(conn)
            }
            "update that violates a check" => |conn| {
                update(users::table.find(2)).set(users::age.eq(-1)).execute(conn)
            }
            "delete that violates a foreign key" => |conn| { delete(users::table.find(1)).execute(conn) }
            "raw statement with an unknown column" => |conn| { sql_query("UPDATE users SET nope = 1").execute(conn) }
            "raw statement on an unknown table" => |conn| { sql_query("UPDATE nope SET a = 1").execute(conn) }
            "raw statement that is no SQL" => |conn| { sql_query("UPDATE users SET age = = 3 WHERE id = 1").execute(conn) }
            "rows that do not fit the type asked for" => |conn| {
                sql_query("UPDATE users SET age = NULL WHERE id = 1 RETURNING age AS id, name").load::<Named>(conn)
            }
            "a column that was not returned" => |conn| {
                sql_query("UPDATE users SET age = 1 WHERE id = 1 RETURNING name").load::<Named>(conn)
            }
            // Reads
            "select" => |conn| { users::table.order(users::id).load::<User>(conn) }
            "select a model" => |conn| { users::table.select(Slim::as_select()).order(users::id).load(conn) }
            "select the first" => |conn| { users::table.order(users::id.desc()).first::<User>(conn) }
            "select none" => |conn| { users::table.find(1000).first::<User>(conn) }
            "select none, optional" => |conn| { users::table.find(1000).first::<User>(conn).optional() }
            "select, boxed" => |conn| {
                users::table.into_boxed().filter(users::active.eq(true)).order(users::name).load::<User>(conn)
            }
            "select with a join" => |conn| {
                posts::table.inner_join(users::table).select((posts::title, users::name)).order(posts::id).load::<(String, String)>(conn)
            }
            "select with a left join" => |conn| {
                users::table.left_join(posts::table).select((users::id, posts::title.nullable())).order((users::id, posts::id))
                    .load::<(i32, Option<String>)>(conn)
            }
            "select groups" => |conn| {
                users::table.group_by(users::active).select((users::active, dsl::count(users::id))).order(users::active)
                    .load::<(bool, i64)>(conn)
            }
            "select the count" => |conn| { users::table.count().get_result::<i64>(conn) }
            "select whether a row exists" => |conn| {
                select(dsl::exists(users::table.filter(users::id.eq(1)))).get_result::<bool>(conn)
            }
            "select row by row, dropped early" => |conn| {
                let mut rows = users::table.order(users::id).load_iter::<User, DefaultLoadingMode>(conn)?;
                rows.next().transpose()
            }
            "select by a composite primary key" => |conn| { memberships::table.find((1, 2)).select(Membership::as_select()).first(conn) }
            "raw select" => |conn| { sql_query("SELECT * FROM users ORDER BY id").load::<Named>(conn) }
            "raw select that is no SQL" => |conn| { sql_query("SELECT FROM WHERE").load::<Named>(conn) }
            // Transactions
            "transaction" => |conn| {
                conn.transaction(|conn| {
                    update(users::table.find(1)).set(users::age.eq(7)).execute(conn)?;
                    delete(users::table.find(4)).execute(conn)
                })
            }
            "transaction that is rolled back" => |conn| {
                conn.transaction(|conn| {
                    update(users::table).set(users::age.eq(7)).execute(conn)?;
                    insert_into(users::table).values(users::name.eq("new")).execute(conn)?;
                    Err::<(), _>(DbError::RollbackTransaction)
                })
            }
            "savepoint that is rolled back", 3 => |conn| {
                conn.transaction(|conn| {
                    update(users::table.find(1)).set(users::age.eq(7)).execute(conn)?;
                    let inner = conn.transaction(|conn| {
                        update(users::table.find(2)).set(users::age.eq(7)).execute(conn)?;
                        delete(users::table.find(4)).execute(conn)?;
                        Err::<(), _>(DbError::RollbackTransaction)
                    });
                    assert_eq!(inner, Err(DbError::RollbackTransaction));
                    update(users::table.find(1)).set(users::active.eq(false)).execute(conn)?;
                    delete(users::table.find(5)).execute(conn)
                })
            }
            "savepoint that is kept" => |conn| {
                conn.transaction(|conn| {
                    update(users::table.find(1)).set(users::age.eq(7)).execute(conn)?;
                    conn.transaction(|conn| delete(users::table.find(4)).execute(conn))
                })
            }
            "savepoint that is kept in a transaction that is rolled back" => |conn| {
                conn.transaction(|conn| {
                    conn.transaction(|conn| delete(users::table.find(4)).execute(conn))?;
                    Err::<(), _>(DbError::RollbackTransaction)
                })
            }
            "savepoint that fails on a constraint" => |conn| {
                conn.transaction(|conn| {
                    let inner = conn.transaction(|conn| {
                        update(users::table.find(3)).set(users::age.eq(7)).execute(conn)?;
                        update(users::table.find(2)).set(users::name.eq("ada")).execute(conn)
                    });
                    assert!(inner.is_err());
                    update(users::table.find(2)).set(users::name.eq("free")).execute(conn)
                })
            }
            "row inserted, updated and deleted in one transaction", 3 => |conn| {
                conn.transaction(|conn| {
                    insert_into(users::table).values(user(60, "new")).execute(conn)?;
                    update(users::table.find(60)).set(users::age.eq(7)).execute(conn)?;
                    delete(users::table.find(60)).execute(conn)
                })
            }
            "row deleted and inserted again in one transaction", 2 => |conn| {
                conn.transaction(|conn| {
                    delete(users::table.find(5)).execute(conn)?;
                    insert_into(users::table).values(user(5, "again")).execute(conn)
                })
            }
            "values swapped between rows", 3 => |conn| {
                conn.transaction(|conn| {
                    update(users::table.find(1)).set(users::name.eq("between")).execute(conn)?;
                    update(users::table.find(2)).set(users::name.eq("ada")).execute(conn)?;
                    update(users::table.find(1)).set(users::name.eq("bob")).execute(conn)
                })
            }
            "test transaction" => |conn| {
                Ok(conn.test_transaction::<_, DbError, _>(|conn| {
                    update(users::table).set(users::age.eq(7)).execute(conn)
                }))
            }
        }
    };
}
pub(crate) use common_shapes;
