//! Waiting for a commit, and for everything.

use std::sync::Arc;

use kvsync::ErrorKind;
use kvsync::change::CommitToken;

use crate::rig::*;

#[test]
fn a_token_is_of_its_own_commit_only() {
    let rig = Rig::with(TestStore::new(true), |_| {});
    rig.write([put(1, user(1, "a@x", "Ann"))]);
    rig.store.fail(|step| {
        matches!(step, kvsync::store::Step::Apply(delta) if delta.home.as_str() == "user:id:1").then(down)
    });
    let stuck = rig.publish([put(2, user(1, "a@x", "Bob"))]);
    let later = rig.publish([put(3, user(2, "b@x", "Cid"))]);
    rig.pipeline.wait(&later, LONG).unwrap();
    assert_eq!(rig.pipeline.wait(&stuck, SHORT).unwrap_err().kind(), ErrorKind::Deadline);
}

#[test]
fn a_flush_that_is_too_long_says_what_is_left_and_why() {
    let rig = Rig::with(TestStore::new(true), |_| {});
    rig.store.down();
    rig.publish([put(1, user(1, "a@x", "Ann")), put(1, user(2, "b@x", "Bob"))]);
    until("tried", || rig.pipeline.health().stores[0].last_error.is_some());
    let error = rig.pipeline.flush(SHORT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Deadline);
    assert!(error.to_string().contains("2 changes of 1 commits"), "{error}");
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "unavailable: the store is down");
    assert!(rig.pipeline.health().lag.is_some());
}

#[test]
fn a_commit_of_another_process_is_seen_in_the_store() {
    let (theirs, ours) = (Rig::with(TestStore::new(false), |_| {}), TestStore::new(false));
    let shared = Arc::clone(&theirs.store);
    let ours = Rig::with(ours, |config| config.stores = vec![shared]);
    let changes =
        || [put(5, user(1, "a@x", "Ann")), put(5, Ticket { id: 1, code: "c".into() }), delete(6, user(2, "", ""))];
    let rows =
        changes().iter().map(|change| (change.witness().as_str().to_owned(), *change.version.as_bytes())).collect();
    let token = CommitToken { rows, ..theirs.publish([]) };
    assert_eq!(ours.pipeline.wait(&token, SHORT).unwrap_err().kind(), ErrorKind::Deadline);
    let json = serde_json::to_string(&token).unwrap();
    let token: CommitToken = serde_json::from_str(&json).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ours.pipeline.wait(&token, LONG));
        theirs.write(changes());
        waiting.join().unwrap().unwrap();
    });
    // A mark is not the row.
    theirs.database.fail(|_| Some(down()));
    theirs.publish([in_doubt(9, &user(1, "", ""))]);
    until("marked", || theirs.store.record("user:id:1").unwrap().mark == v(9));
    let rows = vec![("user:id:1".to_owned(), *v(9).as_bytes())];
    assert!(ours.pipeline.wait(&CommitToken { rows, ..token }, SHORT).is_err());
}

#[test]
fn a_token_of_another_process_must_list_its_rows() {
    let (theirs, ours) = (Rig::new(), Rig::new());
    let token = theirs.publish([put(1, user(1, "", "x"))]);
    let error = ours.pipeline.wait(&token, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("set_portable_tokens"));
}
