//! A DEFERRABLE unique constraint breaks the order in which rows give up and take a key: refused.

use super::*;

/// The model of one who says that it does not matter.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = users)]
#[sync_key(name = "id", fmt = "trusting:<id>")]
#[sync_key(name = "email", fmt = "trusting:email:<email>", assume_unique)]
struct Trusting {
    id: i32,
    email: Option<String>,
    name: String,
}

fn table(constraint: &str) -> String {
    TABLE.replace("UNIQUE", &format!("UNIQUE {constraint}"))
}

const INSERT: &str = "INSERT INTO users VALUES (1, 'a', 'ann')";

#[test]
fn it_is_refused_and_the_error_says_what_to_do() {
    for constraint in ["DEFERRABLE", "DEFERRABLE INITIALLY IMMEDIATE", "DEFERRABLE INITIALLY DEFERRED"] {
        let mut app = postgres(&table(constraint), Database::model::<User>);
        let error = sql_query(INSERT).execute(&mut app.conn).unwrap_err().to_string();
        for part in ["`users_email_key` is DEFERRABLE", "make it NOT DEFERRABLE", "by way of NULL"] {
            assert!(error.contains(part), "{constraint}: {error}");
        }
        assert!(app.kv.check(&mut app.conn).unwrap_err().to_string().contains("DEFERRABLE"));
    }
    run!(postgres(&table("NOT DEFERRABLE"), Database::model::<User>), INSERT);
}

#[test]
fn it_is_refused_when_it_is_made_so_later() {
    let alter = "ALTER TABLE users DROP CONSTRAINT users_email_key, ADD UNIQUE (email) DEFERRABLE";
    let refused = |app: &mut App<Pg, FreshDatabase>| {
        let error = sql_query("UPDATE users SET name = 'eve'").execute(&mut app.conn).unwrap_err();
        assert!(error.to_string().contains("DEFERRABLE"), "{error}");
    };
    // On a connection of ours it is seen at once.
    let mut app = postgres(TABLE, Database::model::<User>);
    run!(app, INSERT);
    sql_query(alter).execute(&mut app.conn).unwrap();
    refused(&mut app);
    // Of another program, when the table is looked at again.
    let mut app = postgres(TABLE, |database| database.model::<User>().check_every(Duration::ZERO));
    run!(app, INSERT);
    app.home.connect().unwrap().batch_execute(alter).unwrap();
    refused(&mut app);
}

#[test]
fn why_it_is_refused() {
    let mut app = postgres(&table("DEFERRABLE INITIALLY DEFERRED"), Database::model::<Trusting>);
    run!(app, "INSERT INTO users VALUES (1, 'a', 'ann'), (2, 'b', 'bob')");
    let mut other = app.kv.connect::<Pg>("main").unwrap();
    let kv = app.kv.clone();
    app.conn
        .transaction::<_, diesel::result::Error, _>(|conn| {
            // Row 2 takes the key while row 1 still has it.
            sql_query("UPDATE users SET email = 'a' WHERE id = 2").execute(conn)?;
            sql_query("UPDATE users SET name = 'touched' WHERE id = 1").execute(&mut other)?;
            // Else a worker may take both changes of row 1 for one, and row 1 was never listed here again.
            kv.flush(LONG).unwrap();
            sql_query("UPDATE users SET email = 'c' WHERE id = 1").execute(&mut other)
        })
        .unwrap();
    app.kv.flush(LONG).unwrap();
    let owner: i32 = users::table.filter(users::email.eq("a")).select(users::id).get_result(&mut other).unwrap();
    assert_eq!(owner, 2);
    // Row 1 was last listed under the key above the version at which row 2 took it.
    assert_eq!(Trusting::lookup_by_email(&app.kv, "a").unwrap(), Lookup::Absent, "row 2 is lost: the reason to refuse");
    assert_eq!(Trusting::fetch_by_id(&app.kv, 2).unwrap().unwrap().email.as_deref(), Some("a"));
}
