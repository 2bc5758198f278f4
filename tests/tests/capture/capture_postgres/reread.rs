//! Rows are read again with a version that is right for them.

use std::thread;
use std::time::Duration;

use kvsync::model::{PrimaryKey, Wanted};
use kvsync::{ErrorKind, Version};
use kvsync_tests::wait::until;

use super::*;

fn wanted(id: i32, floor: Version) -> Wanted {
    Wanted { schema: User::SCHEMA, scope: Scope::NONE, primary_key: PrimaryKey::of::<User>(id), floor }
}

const SOON: Duration = Duration::from_mins(1);

#[test]
fn present_absent_and_hidden_rows_are_told_apart() {
    let mut on = Fixture::new();
    diesel::insert_into(users::table).values([user(1, "a", "Ann"), user(2, "b", "Bob")]).execute(&mut on.conn).unwrap();
    diesel::update(users::table.find(2)).set(users::deleted.eq(true)).execute(&mut on.conn).unwrap();
    let written = on.recorder.changes().last().unwrap().version;
    let ask = [wanted(2, Version::ZERO), wanted(3, Version::ZERO), wanted(1, Version::ZERO)];
    let read = on.attached.source().reread(&ask, SOON).unwrap();
    let rows: Vec<Option<String>> =
        read.iter().map(|read| read.row.as_ref().unwrap().as_deref().map(describe)).collect();
    assert_eq!(rows, [None, None, Some("1 a Ann".to_owned())]);
    assert!(read.iter().all(|read| read.version > written));
    diesel::update(users::table).set(users::username.eq("Cy")).execute(&mut on.conn).unwrap();
    let next = on.recorder.changes();
    assert!(next.iter().all(|change| read.iter().all(|read| change.version > read.version)));
}

#[test]
fn a_row_that_is_being_written_is_waited_for() {
    let mut on = Fixture::new();
    diesel::insert_into(users::table).values([user(1, "a", "Ann"), user(2, "b", "Bob")]).execute(&mut on.conn).unwrap();
    on.recorder.take();
    let mut writer = on.another();
    writer
        .transaction::<_, diesel::result::Error, _>(|conn| {
            diesel::update(users::table.find(1)).set(users::username.eq("Cy")).execute(conn)?;
            diesel::insert_into(users::table).values(user(3, "c", "Di")).execute(conn)?;
            let source = on.attached.source();
            let late = source.reread(&[wanted(1, Version::ZERO)], Duration::from_millis(50)).unwrap_err();
            assert_eq!(late.kind(), ErrorKind::Deadline, "{late}");
            let late = source.reread(&[wanted(3, Version::ZERO)], Duration::from_millis(50)).unwrap_err();
            assert_eq!(late.kind(), ErrorKind::Deadline, "{late}");
            Ok(())
        })
        .unwrap();
    let captured = on.recorder.changes();
    let read = on.attached.source().reread(&[wanted(1, Version::ZERO), wanted(3, Version::ZERO)], SOON).unwrap();
    let rows: Vec<String> = read.iter().map(|read| describe(read.row.as_ref().unwrap().as_deref().unwrap())).collect();
    assert_eq!(rows, ["1 a Cy", "3 c Di"]);
    assert!(captured.iter().all(|change| change.version < read[0].version));
}

#[test]
fn a_reading_ends_once_the_writer_has() {
    let mut on = Fixture::new();
    diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut on.conn).unwrap();
    on.recorder.take();
    let (locked, is_locked) = std::sync::mpsc::channel();
    let (go, may_go) = std::sync::mpsc::channel::<()>();
    let mut writer = on.another();
    let source = on.attached.source();
    let mut watcher = on.database.connect().unwrap();
    thread::scope(|scope| {
        let writing = scope.spawn(move || {
            writer
                .transaction::<_, diesel::result::Error, _>(|conn| {
                    diesel::update(users::table.find(1)).set(users::username.eq("Bob")).execute(conn)?;
                    diesel::delete(users::table.find(2)).execute(conn)?;
                    locked.send(()).unwrap();
                    may_go.recv().unwrap();
                    Ok(())
                })
                .unwrap();
        });
        is_locked.recv().unwrap();
        let reader =
            scope.spawn(move || source.reread(&[wanted(1, Version::ZERO), wanted(2, Version::ZERO)], SOON).unwrap());
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%FOR SHARE%'";
        until("the reader waits", || {
            diesel::dsl::sql::<diesel::sql_types::BigInt>(waits).get_result::<i64>(&mut watcher).unwrap() > 0
        });
        go.send(()).unwrap();
        let read = reader.join().unwrap();
        assert_eq!(describe(read[0].row.as_ref().unwrap().as_deref().unwrap()), "1 a Bob");
        assert!(read[1].row.as_ref().unwrap().is_none());
        // The writer hands its changes on after its COMMIT.
        writing.join().unwrap();
        let written = on.recorder.changes()[0].version;
        assert!(written < read[0].version && written < read[1].version);
    });
}

#[test]
fn the_floor_is_reached_by_present_and_by_absent_rows() {
    let mut on = Fixture::new();
    diesel::insert_into(users::table).values(user(1, "a", "Ann")).execute(&mut on.conn).unwrap();
    let version = on.recorder.changes()[0].version;
    // As if a crash had taken back what was written up to there.
    let lost = Version::new(0, version.timeline(), version.sequence() + 3_000_000);
    let read = on.attached.source().reread(&[wanted(1, lost), wanted(2, lost)], SOON).unwrap();
    assert!(read.iter().all(|read| read.version >= lost));
    let restored = Version::new(0, version.timeline(), version.sequence() + (1 << 40));
    let error = on.attached.source().reread(&[wanted(1, restored)], SOON).unwrap_err();
    assert!(error.to_string().contains("raise the epoch"), "{error}");
}

#[test]
fn a_scope_is_read_in_its_schema() {
    let mut on = Fixture::with(|database| database.scopes(|schema| Some(Scope::named(schema))));
    let sql = format!("CREATE SCHEMA t2; SET search_path TO t2; {SCHEMA}");
    on.conn.batch_execute(&sql).unwrap();
    diesel::insert_into(users::table).values(user(1, "a", "Two")).execute(&mut on.conn).unwrap();
    let ask = |scope: &str| Wanted { scope: Scope::named(scope), ..wanted(1, Version::ZERO) };
    let read = on.attached.source().reread(&[ask("public"), ask("t2")], SOON).unwrap();
    assert!(read[0].row.as_ref().unwrap().is_none());
    assert_eq!(describe(read[1].row.as_ref().unwrap().as_deref().unwrap()), "1 a Two");
    assert!(on.attached.source().reread(&[ask("t9")], SOON).is_err());
}
