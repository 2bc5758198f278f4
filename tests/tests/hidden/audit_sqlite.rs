//! What `audit` finds on SQLite: each kind once, on a real database.

use super::*;

fn app(more: &str) -> App<Sqlite, tempfile::TempDir> {
    sqlite(&format!("{TABLE}; {more}"), Database::model::<User>)
}

#[test]
fn a_plain_table_lacks_the_counter_only() {
    let mut app = app("");
    let kinds = |app: &mut App<Sqlite, _>| -> Vec<_> {
        let found = app.kv.audit(&mut app.conn).unwrap();
        found.iter().filter(|one| one.severity > Severity::Note).map(|one| one.kind).collect()
    };
    assert_eq!(kinds(&mut app), [FindingKind::Versions]);
    app.conn.batch_execute(kvsync::capture::SQLITE_COUNTER).unwrap();
    assert_eq!(kinds(&mut app), []);
}

#[test]
fn triggers_and_what_they_write() {
    let mut app = app("CREATE TABLE logs (id INTEGER); \
                       CREATE TRIGGER before_all AFTER UPDATE ON users BEGIN UPDATE Users SET name = 'x'; END; \
                       CREATE TRIGGER harmless AFTER INSERT ON users BEGIN INSERT INTO logs VALUES (NEW.id); END; \
                       CREATE TRIGGER other BEFORE DELETE ON logs BEGIN DELETE FROM users; END");
    says(
        &audit(&mut app, &[FindingKind::Trigger]),
        &[
            &["Warning table `users`", "`before_all`", "writes `users`, unseen"],
            &["Warning table `users`", "`other`, a trigger of `logs`"],
            &["Note table `users`", "`harmless`"],
        ],
    );
}

#[test]
fn foreign_keys_with_actions() {
    let mut app = app("CREATE TABLE teams (id INTEGER PRIMARY KEY); \
                       ALTER TABLE users ADD COLUMN a INTEGER REFERENCES teams ON DELETE CASCADE; \
                       ALTER TABLE users ADD COLUMN b INTEGER REFERENCES teams ON DELETE SET NULL ON UPDATE CASCADE; \
                       ALTER TABLE users ADD COLUMN c INTEGER REFERENCES teams");
    says(
        &audit(&mut app, &[FindingKind::ForeignKey]),
        &[&["Warning", "`teams` (ON DELETE CASCADE, "], &["`teams` (ON DELETE SET NULL, ON UPDATE CASCADE)"]],
    );
}

#[test]
fn temporary_namesakes() {
    let mut app = app("");
    app.conn.batch_execute("CREATE TEMP TABLE users (id INTEGER)").unwrap();
    says(&audit(&mut app, &[FindingKind::Namesake]), &[&["Warning", "temporary", "`main.users`"]]);
}

#[test]
fn tables_without_a_rowid_and_virtual_ones() {
    let without = TABLE.replace("NOT NULL)", "NOT NULL) WITHOUT ROWID");
    let mut app = sqlite(&without, Database::model::<User>);
    says(&audit(&mut app, &[FindingKind::WithoutRowid]), &[&["Note", "WITHOUT ROWID"]]);
    let mut app = sqlite("CREATE VIRTUAL TABLE users USING rtree (id, email, name)", Database::model::<User>);
    says(&audit(&mut app, &[FindingKind::Table]), &[&["Error", "virtual"]]);
}

#[test]
fn keys_that_are_not_unique() {
    let loose = TABLE.replace(" UNIQUE", "");
    let mut app = sqlite(&loose, Database::model::<User>);
    says(&audit(&mut app, &[FindingKind::NotUnique]), &[&["Error", "`email` of `User`"]]);
    let partial = format!("{loose}; CREATE UNIQUE INDEX u ON users (email) WHERE name <> ''");
    let mut app = sqlite(&partial, Database::model::<User>);
    says(&audit(&mut app, &[FindingKind::Partial]), &[&["Error", "`u` holds only where"]]);
}

#[test]
fn a_column_that_is_gone() {
    let mut app = app("ALTER TABLE users RENAME COLUMN name TO nick");
    says(&audit(&mut app, &[FindingKind::Unreadable]), &[&["Error", "`User` cannot be read from it"]]);
}

#[test]
fn settings_by_which_it_forgets_or_deletes_unseen() {
    let mut app = app("");
    for (pragma, says) in [
        ("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL", "NORMAL in WAL mode"),
        ("PRAGMA synchronous = OFF", "`synchronous` is OFF"),
        ("PRAGMA journal_mode = DELETE; PRAGMA journal_mode = MEMORY", "`journal_mode` is memory"),
    ] {
        app.conn.batch_execute(pragma).unwrap();
        let found = audit(&mut app, &[FindingKind::Setting]);
        assert!(found[0].starts_with("Warning `main`: ") && found[0].contains(says), "{found:?}");
    }
    app.conn.batch_execute("PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL").unwrap();
    says(&audit(&mut app, &[FindingKind::Setting]), &[&["Note table `users`", "`recursive_triggers` is off"]]);
    app.conn.batch_execute("PRAGMA recursive_triggers = ON").unwrap();
    says(&audit(&mut app, &[FindingKind::Setting]), &[]);
}
