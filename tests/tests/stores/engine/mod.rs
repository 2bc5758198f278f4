//! The sync engine on a store: what is written through Diesel ends in it as it ended in the database.

mod rig;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use diesel::connection::SimpleConnection;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::result::Error as DieselError;
use diesel::sqlite::Sqlite;
use kvsync::clock::ManualClock;
use kvsync::store::conformance::{Harness, Verdict};
use kvsync::store::layer::Fault;
use kvsync::store::{Status, SyncStore};
use kvsync::upkeep::DifferenceKind;
use kvsync::{KvSync, Lookup, Miss};
use kvsync_tests::Tested;
use kvsync_tests::accounts::{Account, accounts, compare, postgres_step, rounds, sqlite_step};
use kvsync_tests::wait::LONG;
use rand::SeedableRng;
use rand::rngs::StdRng;

use self::rig::{Lite, Postgres, Session, sessions};
use crate::matrix::Case;

type Engine = fn(Arc<dyn SyncStore>) -> Tested;

const CASES: [(&str, Engine); 6] = [
    ("a_row_is_fetched_under_each_of_its_keys", fetched),
    ("writers_that_race_end_equal_to_the_database", writers),
    ("programs_that_race_end_equal_to_the_database", programs),
    ("a_table_is_filled_verified_and_repaired", upkeep),
    ("a_raised_epoch_makes_older_rows_unknown", epochs),
    ("an_outage_fails_no_write_and_loses_none", outage),
];

/// What the engine has to do on every store.
pub(crate) fn cases(harness: &Arc<dyn Harness>) -> Vec<(&'static str, Case)> {
    let of = |(name, engine): (&'static str, Engine)| -> (&'static str, Case) {
        let harness = Arc::clone(harness);
        (name, Box::new(move || run(&*harness, engine)))
    };
    CASES.into_iter().map(of).collect()
}

/// Whether every key is as in the database, once writers have raced.
pub(crate) fn compares(harness: &dyn Harness) -> Verdict {
    run(harness, writers)
}

fn run(harness: &dyn Harness, engine: Engine) -> Verdict {
    let Some(store) = harness.fresh().sync else { return Verdict::NotApplicable("it takes no rows") };
    // What does not hold is an assertion.
    match catch_unwind(AssertUnwindSafe(|| engine(store))) {
        Ok(Ok(())) => Verdict::Passed,
        Ok(Err(why)) => Verdict::Failed(why.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            Verdict::Failed(text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default())
        }
    }
}

fn account(id: i32, email: Option<&str>, handle: &str) -> Account {
    Account { id, email: email.map(str::to_owned), handle: handle.into(), n: 0 }
}

fn fetched(store: Arc<dyn SyncStore>) -> Tested {
    let clock = Arc::new(ManualClock::at(SystemTime::now()));
    let lite = Lite::new()?;
    let kv = lite.kv(KvSync::builder().store(store).clock(Arc::clone(&clock) as _))?;
    let mut conn = kv.connect::<Sqlite>("main")?;
    let (ann, bob) = (account(1, Some("ann@x"), "ann"), account(2, None, "bób/🙂"));
    diesel::insert_into(accounts::table).values(vec![&ann, &bob]).execute(&mut conn)?;
    diesel::insert_into(sessions::table).values(&Session { id: 1, token: "t".into() }).execute(&mut conn)?;
    kv.flush(LONG)?;
    assert_eq!(Account::fetch_by_email(&kv, "ann@x")?.as_ref(), Some(&ann));
    assert_eq!(Account::fetch_by_handle(&kv, "bób/🙂")?.as_ref(), Some(&bob));
    assert_eq!(Account::fetch_strict_by_handle(&kv, "bób/🙂")?.as_ref(), Some(&bob));
    let many = Account::fetch_many_by_id(&kv, [2, 7, 1, 2])?;
    assert_eq!(many, [Some(bob.clone()), None, Some(ann.clone()), Some(bob)]);

    // A key that becomes NULL, and one that two rows swap.
    conn.transaction(|conn| {
        for (id, email) in [(1, None), (2, Some("ann@x"))] {
            diesel::update(accounts::table.find(id)).set(accounts::email.eq(email)).execute(conn)?;
        }
        Ok::<_, DieselError>(())
    })?;
    kv.flush(LONG)?;
    assert_eq!(Account::fetch_by_email(&kv, "ann@x")?.map(|row| row.id), Some(2));
    assert_eq!(Account::fetch_by_id(&kv, 1)?, Some(Account { email: None, ..ann.clone() }));

    // What is rolled back was never there, and what is deleted is absent under each of its keys.
    let undone = conn.transaction(|conn| {
        diesel::update(accounts::table.find(1)).set(accounts::handle.eq("undone")).execute(conn)?;
        Err::<(), _>(DieselError::RollbackTransaction)
    });
    assert_eq!(undone, Err(DieselError::RollbackTransaction));
    diesel::delete(accounts::table.find(2)).execute(&mut conn)?;
    kv.flush(LONG)?;
    assert_eq!(Account::fetch_by_handle(&kv, "undone")?, None);
    assert_eq!(Account::fetch_by_handle(&kv, "ann")?.map(|row| row.id), Some(1));
    for seen in [Account::lookup_by_id(&kv, 2)?, Account::lookup_by_email(&kv, "ann@x")?] {
        assert_eq!(seen, Lookup::Absent);
    }

    assert_eq!(Session::fetch_by_token(&kv, "t")?.map(|session| session.id), Some(1));
    clock.advance(Duration::from_mins(61));
    assert_eq!(Session::lookup_by_token(&kv, "t")?, Lookup::Unknown(Miss::NotStored), "it lives for an hour");
    assert_eq!(Account::fetch_by_id(&kv, 1)?.map(|row| row.id), Some(1), "it has no end");
    Ok(())
}

fn writers(store: Arc<dyn SyncStore>) -> Tested {
    let lite = Lite::new()?;
    let kv = lite.kv(KvSync::builder().store(store).workers(3))?;
    race((0..3).map(|seed| {
        let mut conn = kv.connect::<Sqlite>("main")?;
        Ok(move || rounds(30, &mut StdRng::seed_from_u64(seed), |step| sqlite_step(&mut conn, step)))
    }))?;
    kv.flush(LONG)?;
    compare(&accounts::table.select(Account::as_select()).load(&mut lite.plain()?)?, &kv)?;
    is_clean(&kv)
}

/// Two programs, each with workers of its own, write the same rows.
fn programs(store: Arc<dyn SyncStore>) -> Tested {
    let pg = Postgres::new()?;
    let kvs = [pg.kv(Arc::clone(&store))?, pg.kv(store)?];
    race(kvs.iter().cycle().take(4).zip(10..).map(|(kv, seed)| {
        let mut conn = kv.connect::<Pg>("main")?;
        Ok(move || rounds(25, &mut StdRng::seed_from_u64(seed), |step| postgres_step(&mut conn, step)))
    }))?;
    let rows = accounts::table.select(Account::as_select()).load(&mut pg.plain()?)?;
    kvs.iter().try_for_each(|kv| kv.flush(LONG))?;
    kvs.iter().try_for_each(|kv| compare(&rows, kv))
}

/// Runs each in a thread of its own.
fn race<W: FnOnce() -> Tested + Send>(work: impl Iterator<Item = Tested<W>>) -> Tested {
    let work = work.collect::<Tested<Vec<W>>>()?;
    thread::scope(|scope| {
        let threads: Vec<_> = work.into_iter().map(|work| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a writer panicked")?)
    })
}

fn is_clean(kv: &KvSync) -> Tested {
    let found = kv.verify_all().in_flight(Duration::from_millis(1)).run()?;
    if found.is_clean() { Ok(()) } else { Err(format!("{found}: {:?}", found.differences).into()) }
}

fn upkeep(store: Arc<dyn SyncStore>) -> Tested {
    let lite = Lite::new()?;
    let kv = lite.kv(KvSync::builder().store(store))?;
    let mut plain = lite.plain()?;
    plain.batch_execute(
        "WITH RECURSIVE up(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM up WHERE id < 40) \
         INSERT INTO accounts SELECT id, id || '@x', 'h' || id, 0 FROM up",
    )?;
    assert_eq!(Account::fetch_by_id(&kv, 40)?, None, "nobody told kvsync");
    let filled = kv.backfill::<Account>().run()?;
    assert_eq!(filled.rows, 40);
    assert_eq!(Account::fetch_by_email(&kv, "40@x")?.map(|row| row.id), Some(40));
    is_clean(&kv)?;

    // What was written past kvsync is found, from the database's side and from the store's.
    plain
        .batch_execute("UPDATE accounts SET n = 1, email = 'new@x' WHERE id = 7; DELETE FROM accounts WHERE id = 8")?;
    let found = kv.verify::<Account>().in_flight(Duration::from_millis(1)).run()?;
    let kinds: Vec<DifferenceKind> = found.differences.iter().map(|difference| difference.kind).collect();
    assert!(kinds.len() >= 3, "{:?}", found.differences);
    let repaired = kv.repair::<Account>().in_flight(Duration::from_millis(1)).run()?;
    assert!(repaired.is_clean(), "{repaired}: {:?}", repaired.reasons);
    is_clean(&kv)?;
    assert_eq!(Account::fetch_by_email(&kv, "new@x")?.map(|row| (row.id, row.n)), Some((7, 1)));
    assert_eq!((Account::fetch_by_email(&kv, "7@x")?, Account::fetch_by_id(&kv, 8)?), (None, None));
    Ok(())
}

fn epochs(store: Arc<dyn SyncStore>) -> Tested {
    let lite = Lite::new()?;
    let kv = lite.kv(KvSync::builder().store(store))?;
    let mut conn = kv.connect::<Sqlite>("main")?;
    diesel::insert_into(accounts::table).values(&account(1, Some("a@x"), "a")).execute(&mut conn)?;
    kv.flush(LONG)?;
    assert_eq!(kv.raise_epoch()?, 1);
    assert_eq!(Account::lookup_by_email(&kv, "a@x")?, Lookup::Unknown(Miss::OldEpoch));
    assert_eq!(Account::fetch_by_id(&kv, 1)?, None);
    diesel::update(accounts::table).set(accounts::n.eq(2)).execute(&mut conn)?;
    kv.flush(LONG)?;
    assert_eq!(Account::fetch_by_email(&kv, "a@x")?.map(|row| row.n), Some(2));
    Ok(())
}

fn outage(store: Arc<dyn SyncStore>) -> Tested {
    let store = Arc::new(Fault::new(store));
    let lite = Lite::new()?;
    let kv = lite.kv(KvSync::builder().store(Arc::clone(&store)))?;
    let mut conn = kv.connect::<Sqlite>("main")?;
    let mut random = StdRng::seed_from_u64(5);
    rounds(10, &mut random, |step| sqlite_step(&mut conn, step))?;
    kv.flush(LONG)?;
    store.set_down(true);
    rounds(30, &mut random, |step| sqlite_step(&mut conn, step))?;
    assert!(Account::fetch_by_id(&kv, 1).is_err(), "an outage is no absence");
    assert!(kv.flush(Duration::from_millis(20)).is_err(), "nothing can have been written");
    assert_ne!(kv.health(LONG).status, Status::Up);
    store.set_down(false);
    kv.flush(LONG)?;
    compare(&accounts::table.select(Account::as_select()).load(&mut lite.plain()?)?, &kv)?;
    is_clean(&kv)
}
