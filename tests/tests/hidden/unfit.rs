//! Tables that stop to fit, or have never quite fitted: told in time, in words that help.

use super::*;

const POSTGRES_OUTBOX: &str = include_str!("../../../kvsync/migrations/postgres/20250101000000_kvsync_outbox/up.sql");
const SQLITE_OUTBOX: &str = include_str!("../../../kvsync/migrations/sqlite/20250101000000_kvsync_outbox/up.sql");

fn is_dirty<DB: SyncBackend, H>(app: &App<DB, H>) -> bool {
    !app.kv.health(LONG).pipeline.dirty.is_empty()
}

/// An app with triggers on `users`, and a connection that does not know of kvsync.
fn triggered(more: &str) -> (App<Pg, FreshDatabase>, PgConnection) {
    let mut app = postgres(&[POSTGRES_OUTBOX, TABLE, ";", more].concat(), Database::triggers::<User>);
    app.conn.install_triggers().unwrap();
    let plain = app.home.connect().unwrap();
    (app, plain)
}

#[test]
fn rows_of_a_child_are_told_of_with_triggers_too_and_never_read() {
    let (mut app, mut plain) = triggered("CREATE TABLE kid () INHERITS (users)");
    plain.batch_execute("INSERT INTO users VALUES (1, 'a', 'ann'); INSERT INTO kid VALUES (2, 'b', 'bob')").unwrap();
    app.kv.backfill::<User>().run().unwrap();
    assert_eq!(app.by_id(1), Lookup::Found(user(1, "a", "ann")));
    assert_eq!(app.by_email("b"), Lookup::Unknown(Miss::NotStored));
    // A row that goes from the table to its child is gone, as for everyone who is told by triggers.
    plain.batch_execute("INSERT INTO kid SELECT * FROM users WHERE id = 1; DELETE FROM ONLY users").unwrap();
    app.kv.flush(LONG).unwrap();
    assert!(!matches!(app.by_id(1), Lookup::Found(_)));

    run!(app, "UPDATE users SET name = 'eve'");
    assert!(is_dirty(&app));
    let reason = app.missed.recv_timeout(LONG).unwrap().reason;
    assert!(reason.contains("`kid` inherits"), "{reason}");
    for _ in 0..2 {
        says(&audit(&mut app, &[FindingKind::Child]), &[&["Warning", "`kid`", "its triggers do not see them"]]);
        assert_eq!(app.kv.check(&mut app.conn).unwrap().len(), 1);
    }
}

#[test]
fn a_check_tells_of_children_before_a_write_does() {
    let (mut app, _) = triggered("CREATE TABLE kid () INHERITS (users)");
    assert_eq!(app.kv.check(&mut app.conn).unwrap().len(), 1);
    assert!(is_dirty(&app));
}

#[test]
fn partitions_are_read_as_before() {
    let mut app = postgres(
        "CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT, name TEXT NOT NULL) PARTITION BY RANGE (id); \
         CREATE TABLE low PARTITION OF users FOR VALUES FROM (0) TO (9) PARTITION BY RANGE (id); \
         CREATE TABLE lowest PARTITION OF low FOR VALUES FROM (0) TO (5); \
         INSERT INTO users VALUES (1, 'a', 'ann'), (2, 'b', 'bob')",
        Database::model_by_key::<PlainUser>,
    );
    app.kv.backfill::<PlainUser>().run().unwrap();
    assert_eq!(PlainUser::fetch_by_id(&app.kv, 2).unwrap(), Some(PlainUser { id: 2, name: "bob".into() }));
    run!(app, "UPDATE users SET name = 'eve' WHERE id = 1");
    until("it is read again", || {
        PlainUser::lookup_by_id(&app.kv, 1).unwrap() == Lookup::Found(PlainUser { id: 1, name: "eve".into() })
    });
}

/// A model of the table without keys that a partitioned table could not keep unique.
#[derive(Debug, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = users)]
#[sync_key(name = "id", fmt = "plain:<id>")]
struct PlainUser {
    id: i32,
    name: String,
}

#[test]
fn a_check_that_finds_triggers_disabled_leaves_the_table_dirty() {
    let (mut app, mut plain) = triggered("");
    plain.batch_execute("ALTER TABLE users DISABLE TRIGGER USER; INSERT INTO users VALUES (1, 'a', 'ann')").unwrap();
    assert!(app.kv.check(&mut app.conn).is_err());
    assert!(is_dirty(&app));
    app.conn.install_triggers().unwrap();
    assert!(app.kv.check(&mut app.conn).unwrap().is_empty());
    assert!(is_dirty(&app), "what was lost is still lost");
}

diesel::table! {
    members (id) {
        id -> Integer,
        org -> Integer,
        num -> Integer,
    }
}

#[derive(Debug, PartialEq, Queryable, Selectable, Identifiable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = members)]
#[sync_key(name = "id", fmt = "member:id:<id>")]
#[sync_key(name = "orgnum", fmt = "number:<org>:<num>")]
struct Member {
    id: i32,
    org: i32,
    num: i32,
}

const MEMBERS: &str = "CREATE TABLE members (id INTEGER PRIMARY KEY, org INTEGER NOT NULL, num INTEGER NOT NULL, \
                       UNIQUE (org, num));";

#[test]
fn a_column_of_a_key_that_is_gone_is_called_so() {
    for triggers in [true, false] {
        let mut app = sqlite(&[SQLITE_OUTBOX, MEMBERS].concat(), |database| {
            if triggers { database.triggers::<Member>() } else { database.model::<Member>() }
        });
        if triggers {
            app.conn.install_triggers().unwrap();
        }
        app.conn.unsynced().batch_execute("ALTER TABLE members RENAME COLUMN org TO org2").unwrap();
        let found = app.conn.check().unwrap();
        let found = found.iter().find(|one| one.kind == FindingKind::Unreadable).unwrap();
        assert!(found.message.contains("`org`") && found.message.contains("is not there"), "{found}");
        assert!(audit(&mut app, &[FindingKind::NotUnique]).is_empty());
        assert_eq!(sql_query("INSERT INTO members VALUES (1, 2, 3)").execute(&mut app.conn).unwrap(), 1);
        assert!(is_dirty(&app), "triggers: {triggers}");
    }
}

diesel::table! {
    words (id) {
        id -> Integer,
        #[sql_name = "select"]
        select_ -> Text,
        #[sql_name = "order"]
        order_ -> Text,
    }
}

#[derive(Debug, PartialEq, Queryable, Selectable, Identifiable, Insertable, Serialize, Deserialize, Syncable)]
#[diesel(table_name = words)]
#[sync_key(name = "id", fmt = "word:id:<id>")]
#[sync_key(name = "select", fmt = "select:<chosen>")]
#[sync_key(name = "order", fmt = "order:<order_>")]
struct Word {
    id: i32,
    #[diesel(column_name = select_)]
    chosen: String,
    order_: String,
}

const WORDS: &str =
    "CREATE TABLE words (id INTEGER PRIMARY KEY, \"select\" TEXT NOT NULL UNIQUE, \"order\" TEXT NOT NULL UNIQUE);";

/// Writes rows whose keys are made of columns with reserved words for names.
macro_rules! words {
    ($app:expr) => {{
        assert!($app.kv.audit(&mut $app.conn).unwrap().iter().all(|one| one.severity != Severity::Error));
        let word = |chosen: &str, order_: &str| Word { id: 1, chosen: chosen.into(), order_: order_.into() };
        diesel::insert_into(words::table).values(word("a", "x")).execute(&mut $app.conn).unwrap();
        $app.kv.flush(LONG).unwrap();
        assert_eq!(Word::lookup_by_select(&$app.kv, "a").unwrap(), Lookup::Found(word("a", "x")));
        diesel::update(words::table).set(words::select_.eq("b")).execute(&mut $app.conn).unwrap();
        $app.kv.flush(LONG).unwrap();
        assert!(!matches!(Word::lookup_by_select(&$app.kv, "a").unwrap(), Lookup::Found(_)));
        assert_eq!(Word::lookup_by_select(&$app.kv, "b").unwrap(), Lookup::Found(word("b", "x")));
        assert_eq!(Word::lookup_by_order(&$app.kv, "x").unwrap(), Lookup::Found(word("b", "x")));
    }};
}

#[test]
fn columns_may_have_reserved_words_for_names() {
    assert_eq!(Word::SCHEMA.keys[1].columns, ["select"]);
    for triggers in [true, false] {
        let mut app = postgres(&[POSTGRES_OUTBOX, WORDS].concat(), |database| {
            if triggers { database.triggers::<Word>() } else { database.model::<Word>() }
        });
        app.conn.install_triggers().unwrap();
        words!(app);
        let mut app = sqlite(&[SQLITE_OUTBOX, WORDS].concat(), |database| {
            if triggers { database.triggers::<Word>() } else { database.model::<Word>() }
        });
        app.conn.install_triggers().unwrap();
        words!(app);
    }
}
