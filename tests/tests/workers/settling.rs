//! Rows whose content is not known are read again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kvsync::change::Row;
use kvsync::envelope::State;
use kvsync::model::{Kind, Model, Position, PrimaryKey, Reread, RowsPage, Schema, Source, Wanted};
use kvsync::report::Report;
use kvsync::store::Step;
use kvsync::{ErrorKind, Scope, Version};

use crate::rig::*;

#[test]
fn a_row_in_doubt_is_masked_and_then_settled() {
    for whole in [false, true] {
        let rig = Rig::with(TestStore::new(whole), |_| {});
        rig.write([put(1, user(1, "a@x", "Ann"))]);
        rig.database.fail(|_| Some(down()));
        rig.publish([in_doubt(5, &user(1, "", ""))]);
        until("masked", || rig.store.state("user:email:a@x") == Some(State::Unknown));
        assert_eq!(rig.store.state("user:id:1"), Some(State::Unknown));
        assert!(rig.pipeline.flush(SHORT).is_err());
        rig.database.insert(user(1, "b@x", "Ann"));
        rig.database.heal();
        rig.flush();
        assert_eq!(rig.store.get("user:id:1"), Some(user(1, "b@x", "Ann")));
        assert_eq!(rig.store.state("user:email:a@x"), Some(State::Tombstone));
    }
}

#[test]
fn a_row_without_a_record_is_masked_under_the_key_of_its_primary_key() {
    let rig = Rig::new();
    let row = Session { id: 1, token: "t".into() };
    rig.write([put(1, row.clone())]);
    rig.database.insert(row.clone());
    rig.database.fail(|_| Some(down()));
    rig.publish([in_doubt(5, &row)]);
    until("masked", || rig.store.state("session:id:1") == Some(State::Unknown));
    rig.database.heal();
    rig.flush();
    assert_eq!(rig.store.get("session:id:1"), Some(row));
}

#[test]
fn a_row_that_is_not_there_settles_as_deleted() {
    let rig = Rig::new();
    rig.write([put(1, user(1, "a@x", "Ann"))]);
    rig.write([in_doubt(5, &user(1, "", ""))]);
    assert_eq!(rig.store.state("user:id:1"), Some(State::Tombstone));
    assert_eq!(rig.store.state("user:email:a@x"), Some(State::Tombstone));
}

#[test]
fn a_certain_change_lifts_the_mark_without_a_reading() {
    let rig = Rig::new();
    rig.database.fail(|_| Some(down()));
    let token = rig.publish([in_doubt(5, &user(1, "", ""))]);
    until("marked", || rig.store.record("user:id:1").is_some_and(|record| record.mark == v(5)));
    until("tried in vain", || rig.database.asked.load(Ordering::SeqCst) > 0);
    until("written", || {
        rig.publish([put(6, user(1, "a@x", "Ann"))]);
        rig.pipeline.wait(&token, SHORT).is_ok()
    });
    assert_eq!(rig.store.get("user:email:a@x"), Some(user(1, "a@x", "Ann")));
    until("nothing is left to read", || rig.pipeline.health().stores[0].unsettled == 0);
}

#[test]
fn a_row_of_a_database_that_nobody_gave_is_given_up_loudly() {
    let rig = Rig::of(TestStore::new(true), |_| {}, |_| Vec::new());
    let token = rig.publish([in_doubt(5, &user(1, "", ""))]);
    assert_eq!(rig.pipeline.wait(&token, LONG).unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(rig.pipeline.dirty_tables()[0].table.as_deref(), Some("users"));
    rig.flush();
}

#[test]
fn one_row_that_cannot_be_read_holds_up_no_others() {
    let rig = Rig::new();
    for id in 0..100 {
        rig.database.insert(user(id, "", "x"));
    }
    let locked = Arc::new(AtomicBool::new(true));
    let still = Arc::clone(&locked);
    rig.database.fail(move |wanted| {
        let held = wanted.iter().any(|row| row.primary_key.home().as_str() == "user:id:50");
        (held && still.load(Ordering::SeqCst))
            .then(|| kvsync::Error::new(ErrorKind::Deadline, "a transaction holds the row"))
    });
    rig.publish((0..100).map(|id| in_doubt(1, &user(id, "", ""))));
    until("the others are settled", || {
        (0..100).filter(|id| rig.store.state(&format!("user:id:{id}")) == Some(State::Value)).count() == 99
    });
    locked.store(false, Ordering::SeqCst);
    rig.flush();
    assert_eq!(rig.store.state("user:id:50"), Some(State::Value));
}

#[test]
fn a_database_that_is_down_does_not_hold_up_another() {
    let other = Database::new();
    let named = Arc::new(Named(Arc::clone(&other)));
    let rig = Rig::of(TestStore::new(true), |_| {}, |database| vec![database, named]);
    rig.database.fail(|_| Some(down()));
    rig.publish((0..1000).map(|id| in_doubt(1, &user(id, "", ""))));
    until("tried", || rig.database.asked.load(Ordering::SeqCst) > 0);
    other.insert(user(5000, "", "x"));
    let change = kvsync::change::Change { database: "other".into(), ..in_doubt(2, &user(5000, "", "")) };
    let token = rig.publish([change]);
    rig.pipeline.wait(&token, LONG).unwrap();
    assert_eq!(rig.store.get("user:id:5000"), Some(user(5000, "", "x")));
}

/// The same under another name.
struct Named(Arc<Database>);

impl Source for Named {
    fn name(&self) -> &'static str {
        "other"
    }

    fn reread(&self, wanted: &[Wanted], deadline: Duration) -> kvsync::Result<Vec<Reread>> {
        self.0.reread(wanted, deadline)
    }

    fn schemas(&self) -> Vec<&'static Schema> {
        self.0.schemas()
    }

    fn kinds(&self) -> Vec<Kind> {
        self.0.kinds()
    }

    fn look(
        &self,
        schema: &'static Schema,
        scope: &Scope,
        rows: &[PrimaryKey],
        deadline: Duration,
    ) -> kvsync::Result<Vec<kvsync::Result<Option<Box<dyn Model>>>>> {
        self.0.look(schema, scope, rows, deadline)
    }

    fn scopes(&self, schema: &'static Schema, deadline: Duration) -> kvsync::Result<Vec<Scope>> {
        self.0.scopes(schema, deadline)
    }

    fn tells_scopes(&self) -> bool {
        true
    }

    fn barrier(&self, deadline: Duration) -> kvsync::Result<Version> {
        self.0.barrier(deadline)
    }

    fn page(
        &self,
        schema: &'static Schema,
        scope: &Scope,
        after: Option<&Position>,
        most: usize,
        deadline: Duration,
    ) -> kvsync::Result<RowsPage> {
        self.0.page(schema, scope, after, most, deadline)
    }

    fn estimate(&self, schema: &'static Schema, scope: &Scope, deadline: Duration) -> kvsync::Result<Option<u64>> {
        self.0.estimate(schema, scope, deadline)
    }
}

#[test]
fn a_change_that_comes_while_its_row_is_read_is_not_forgotten() {
    // Of a whole change the store does not tell that a mark is left.
    let rig = Rig::with(TestStore::new(true), |_| {});
    rig.database.insert(user(1, "a@x", "first"));
    let publisher = rig.pipeline.publisher();
    let database = Arc::clone(&rig.database);
    let reports = Arc::clone(&rig.reports);
    let mut first = true;
    rig.database.fail(move |_| {
        if std::mem::take(&mut first) {
            publisher.publish(set([in_doubt(2_000_000, &user(1, "", ""))]));
            let masked = |report: &Report| matches!(report, Report::Key(key) if key.version == v(2_000_000));
            until("the worker has handed it on", || reports.lock().iter().any(masked));
        }
        None
    });
    rig.publish([in_doubt(5, &user(1, "", ""))]);
    until("both were read", || database.asked.load(Ordering::SeqCst) >= 2);
    rig.flush();
    assert!(rig.store.record("user:id:1").unwrap().version >= v(2_000_000));
}

#[test]
fn hidden_rows_stand_under_no_key_and_a_purge_kills_no_other_row() {
    for whole in [false, true] {
        let rig = Rig::with(TestStore::new(whole), |_| {});
        let old = Post { id: 1, slug: "a".into(), hash: "h1".into() };
        let new = Post { id: 2, slug: "a".into(), hash: "h2".into() };
        rig.write([put(1, old.clone())]);
        assert_eq!(rig.store.get("post:slug:a"), Some(old.clone()));
        assert_eq!(rig.store.get("post:hash:h1"), Some(old.clone()), "by way of the pointer");
        rig.write([change::<Post>(2, Row::Hidden(Box::new(old.clone())))]);
        assert_eq!(rig.store.state("post:slug:a"), Some(State::Tombstone));
        rig.write([put(3, new.clone())]);
        rig.write([change::<Post>(4, Row::Hidden(Box::new(old.clone())))]);
        rig.write([change::<Post>(5, Row::Deleted { row: Box::new(old), live: false })]);
        assert_eq!(rig.store.get("post:slug:a"), Some(new));
    }
}

#[test]
fn scopes_stand_apart() {
    let rig = Rig::new();
    let scoped = |name: &str, row: User| kvsync::change::Change { scope: Scope::named(name), ..put(1, row) };
    rig.write([scoped("eu", user(1, "a@x", "Eva")), scoped("us", user(1, "a@x", "Uma"))]);
    assert_eq!(rig.store.get("@eu:user:email:a@x"), Some(user(1, "a@x", "Eva")));
    assert_eq!(rig.store.get("@us:user:id:1"), Some(user(1, "a@x", "Uma")));
    assert_eq!(rig.store.state("user:id:1"), None);
}

#[test]
fn rows_without_a_record_take_one_write_a_key() {
    let rig = Rig::new();
    let row = Ticket { id: 1, code: "x".into() };
    rig.write([put(1, row.clone())]);
    assert_eq!(rig.store.get("ticket:code:x"), Some(row.clone()));
    assert_eq!(rig.store.memory.len(), 1, "no record");
    rig.store.fail(|step| {
        assert!(!matches!(step, Step::Merge(_) | Step::Apply(_)));
        None
    });
    rig.write([delete(2, row)]);
    assert_eq!(rig.store.state("ticket:code:x"), Some(State::Tombstone));
}
