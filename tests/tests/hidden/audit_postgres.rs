//! What `audit` finds on PostgreSQL: each kind once, on a real database.

use super::*;

fn app(more: &str) -> App<Pg, FreshDatabase> {
    postgres(&format!("{TABLE}; CREATE TABLE logs (id INTEGER PRIMARY KEY, text TEXT); {more}"), |database| {
        database.model::<User>().model::<Log>()
    })
}

diesel::table! {
    logs (id) {
        id -> Integer,
        text -> Nullable<Text>,
    }
}

#[derive(Debug, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = logs)]
#[sync_key(name = "id", fmt = "log:<id>")]
struct Log {
    id: i32,
    text: Option<String>,
}

#[test]
fn a_plain_table_is_found_in_order() {
    let mut app = app("");
    let found = app.kv.audit(&mut app.conn).unwrap();
    // The servers of tests run without fsync.
    assert!(found.iter().all(|one| one.kind == FindingKind::Setting), "{found:?}");
}

#[test]
fn triggers_and_what_they_write() {
    let function = |name: &str, body: &str| {
        format!("CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {body} RETURN NEW; END$$;")
    };
    let mut app = app(&[
        function("sets", "NEW.name := lower(NEW.name);"),
        function("writes", "INSERT INTO logs SELECT NEW.id, NEW.name;"),
        function("veiled", "EXECUTE 'DELETE FROM lo' || 'gs';"),
        "CREATE TRIGGER a_sets BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION sets(); \
         CREATE TRIGGER b_writes AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION writes(); \
         CREATE TRIGGER c_veiled AFTER UPDATE ON users FOR EACH ROW EXECUTE FUNCTION veiled(); \
         CREATE TRIGGER d_off AFTER UPDATE ON users FOR EACH ROW EXECUTE FUNCTION writes(); \
         ALTER TABLE users DISABLE TRIGGER d_off"
            .to_owned(),
    ]
    .concat());
    says(
        &audit(&mut app, &[FindingKind::Trigger]),
        &[
            &["Warning table `users`", "`b_writes`", "writes `logs`"],
            &["Warning table `users`", "`c_veiled`", "does not tell"],
            &["Warning table `logs`", "`b_writes`, a trigger of `users`"],
            &["Note table `users`", "`a_sets`", "is captured"],
        ],
    );
}

#[test]
fn foreign_keys_with_actions() {
    let mut app = app("CREATE TABLE teams (id INT PRIMARY KEY); \
                       ALTER TABLE users ADD a INT REFERENCES teams ON DELETE CASCADE, \
                       ADD b INT REFERENCES teams ON DELETE SET NULL ON UPDATE CASCADE, \
                       ADD c INT REFERENCES teams ON DELETE SET DEFAULT, ADD d INT REFERENCES teams");
    says(
        &audit(&mut app, &[FindingKind::ForeignKey]),
        &[
            &["Warning table `users`", "`users_a_fkey` on `teams`", "ON DELETE CASCADE, ON UPDATE NO ACTION"],
            &["`users_b_fkey` on `teams`", "ON DELETE SET NULL, ON UPDATE CASCADE"],
            &["`users_c_fkey` on `teams`", "ON DELETE SET DEFAULT"],
        ],
    );
}

#[test]
fn rules_views_and_views_of_views() {
    let mut app = app("CREATE RULE also AS ON UPDATE TO users DO ALSO NOTHING; \
                       CREATE VIEW named AS SELECT id, name FROM users WHERE name <> ''; \
                       CREATE VIEW again AS SELECT * FROM named; \
                       CREATE VIEW counted AS SELECT count(*) FROM users");
    says(&audit(&mut app, &[FindingKind::Rule]), &[&["Warning", "`also` is a rule"]]);
    says(&audit(&mut app, &[FindingKind::View]), &[&["Warning", "`named` is a view"], &["`again` is a view"]]);
}

#[test]
fn a_rule_in_place_of_a_statement() {
    let mut app = app("CREATE RULE none AS ON DELETE TO users DO INSTEAD NOTHING");
    says(&audit(&mut app, &[FindingKind::Blind]), &[&["Error table `users`", "in place of its DELETE"]]);
}

#[test]
fn functions_that_write_to_guess_from_their_text() {
    let mut app = app("CREATE FUNCTION touch() RETURNS void LANGUAGE sql AS 'UPDATE users SET name = name'; \
                       CREATE FUNCTION fresh(i int) RETURNS void BEGIN ATOMIC INSERT INTO users VALUES (i, 'a', 'b'); END; \
                       CREATE PROCEDURE purge() LANGUAGE plpgsql AS 'BEGIN DELETE FROM public.users; END'; \
                       CREATE FUNCTION reads() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM users'");
    says(
        &audit(&mut app, &[FindingKind::Function]),
        &[&["Warning table `users`", "`touch()`", "to guess"], &["`fresh(integer)`"], &["`purge()`"]],
    );
}

#[test]
fn partitions_and_children() {
    let mut app = postgres(
        "CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT, name TEXT NOT NULL) PARTITION BY RANGE (id); \
         CREATE TABLE users_1 PARTITION OF users FOR VALUES FROM (0) TO (9); \
         CREATE TABLE users_2 PARTITION OF users FOR VALUES FROM (9) TO (99)",
        Database::model::<User>,
    );
    says(&audit(&mut app, &[FindingKind::Partition]), &[&["Note", "2 partitions, such as `users_1`"]]);
    says(&audit(&mut app, &[FindingKind::NotUnique]), &[&["Error", "`email` of `User`"]]);
    let mut app = self::app("CREATE TABLE heirs () INHERITS (users)");
    says(&audit(&mut app, &[FindingKind::Child]), &[&["Warning", "`heirs` inherits"]]);
}

#[test]
fn namesakes_in_schemas_and_temporary_ones() {
    let mut app = app("CREATE SCHEMA t2; CREATE TABLE t2.users (id INT)");
    app.conn.batch_execute("CREATE TEMP TABLE users (id INT)").unwrap();
    says(
        &audit(&mut app, &[FindingKind::Namesake]),
        &[&["Warning", "the schema `t2`", "`Database::scopes`"], &["temporary table"]],
    );
}

#[test]
fn keys_that_are_not_unique() {
    for (alter, kind, parts) in [
        ("", FindingKind::NotUnique, ["no unique constraint covers (email)", "add one"]),
        ("ADD UNIQUE (email, name)", FindingKind::NotUnique, ["covers (email)", "`assume_unique`"]),
        (
            "ADD UNIQUE (email) DEFERRABLE",
            FindingKind::Deferrable,
            ["`users_email_key` is DEFERRABLE", "NOT DEFERRABLE"],
        ),
        ("ADD UNIQUE (email) DEFERRABLE INITIALLY DEFERRED", FindingKind::Deferrable, ["DEFERRABLE", "NULL"]),
        ("ADD EXCLUDE (email WITH =)", FindingKind::NotUnique, ["covers (email)", "add one"]),
    ] {
        let alter = if alter.is_empty() { String::new() } else { format!("; ALTER TABLE users {alter}") };
        let mut app = app(&format!("ALTER TABLE users DROP CONSTRAINT users_email_key{alter}"));
        says(&audit(&mut app, &[kind]), &[&["Error table `users`", parts[0], parts[1]]]);
    }
    let mut app = app("ALTER TABLE users DROP CONSTRAINT users_email_key; \
                       CREATE UNIQUE INDEX u ON users (email) WHERE name <> ''");
    says(&audit(&mut app, &[FindingKind::Partial]), &[&["Error", "`u` holds only where", "`live_if`"]]);
    let mut app = self::app("ALTER TABLE users DROP CONSTRAINT users_pkey, ADD PRIMARY KEY (id) DEFERRABLE");
    says(&audit(&mut app, &[FindingKind::NotUnique]), &[&["Error", "the primary key (id)", "immediate"]]);
}

#[test]
fn tables_that_a_crash_empties_and_rows_that_are_hidden() {
    let mut app = app("ALTER TABLE users SET UNLOGGED; ALTER TABLE logs ENABLE ROW LEVEL SECURITY");
    says(&audit(&mut app, &[FindingKind::Unlogged]), &[&["Warning table `users`", "UNLOGGED", "SET LOGGED"]]);
    says(&audit(&mut app, &[FindingKind::RowSecurity]), &[]);
    let _role = Role::new(&mut app, "GRANT SELECT ON users, logs TO $role");
    says(&audit(&mut app, &[FindingKind::RowSecurity]), &[&["Warning table `logs`", "row security"]]);
}

#[test]
fn rights_that_are_missing_and_columns_that_are_gone() {
    let mut app = app("ALTER TABLE logs DROP COLUMN text");
    let _role = Role::new(&mut app, "GRANT SELECT (id, name) ON users TO $role; GRANT SELECT ON logs TO $role");
    says(
        &audit(&mut app, &[FindingKind::Unreadable]),
        &[
            &["Error table `users`", "the role may not read", "GRANT SELECT (email, tableoid)", "`model_by_key`"],
            &["Error table `logs`", "`Log` cannot be read from it", "migrate the table"],
        ],
    );
}

#[test]
fn a_view_in_place_of_a_table() {
    let mut app = app("ALTER TABLE users RENAME TO people; CREATE VIEW users AS SELECT * FROM people");
    says(&audit(&mut app, &[FindingKind::Table]), &[&["Error", "no table but a view"]]);
}

#[test]
fn a_database_that_forgets() {
    let mut app = app("");
    app.conn.batch_execute("SET synchronous_commit = off").unwrap();
    let found = audit(&mut app, &[FindingKind::Setting]);
    assert!(found[0].starts_with("Warning `main`: `synchronous_commit` is off"), "{found:?}");
}
