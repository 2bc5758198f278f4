//! What a relay claims, and what the rows tell it.

use std::time::{Duration, SystemTime};

use kvsync::ErrorKind;
use kvsync::change::{Change, Row};
use kvsync::transport::{Claimed, Failure};
use kvsync_tests::recorder::line;

use super::setup::*;

fn told(claimed: Vec<Claimed>) -> Vec<String> {
    claimed
        .into_iter()
        .flat_map(|row| match row.changes {
            Ok(changes) => changes.iter().map(shown).collect(),
            Err(error) => vec![error.to_string()],
        })
        .collect()
}

fn shown(change: &Change) -> String {
    let model = change.schema.model;
    let seen = line(change, |row| {
        row.downcast_ref::<User>()
            .map_or_else(|| format!("{:?}", row.home()), |user| format!("{:?}", (user.id, &user.email, &user.name.0)))
    });
    let kept = match &change.row {
        Row::Unknown(unknown) if !unknown.kept.is_empty() => format!(", kept {:?}", unknown.kept),
        _ => String::new(),
    };
    format!("{model}: {seen}{kept}")
}

#[test]
fn content_is_read_as_its_model_and_images_are_read_by_the_database() {
    on_both(|base| {
        let ann = user(1, "a", "ann's");
        base.captured_row("insert", &ann, Some(7));
        base.captured_row("delete", &ann, Some(8));
        base.trigger_row("users", "update", &base.user_key(2), Some(&base.user_row(&ann)));
        base.trigger_row("users", "delete", &base.user_key(3), Some(&base.user_row(&user(3, "c", "cem"))));
        base.trigger_row("users", "delete", &base.user_key(4), Some("not a row"));
        let (session, old) = match base {
            Base::Sqlite(_) => ("'eu',9", "'eu' AS region, 9 AS id, 'x' AS token"),
            Base::Postgres(_) => (r#"{"region": "eu", "id": 9}"#, r#"{"region": "eu", "id": 9, "token": "x"}"#),
        };
        base.trigger_row("sessions", "update", session, Some(old));
        let outbox = base.outbox();
        let claimed = outbox.claim(100, LEASE).unwrap();
        assert!(claimed.iter().all(|row| row.attempts == 0));
        assert_eq!(claimed[0].changes.as_ref().unwrap()[0].version.sequence(), 7);
        assert_eq!(
            told(claimed),
            [
                "User: insert (1, Some(\"a\"), \"ann's\")",
                "User: delete (1, Some(\"a\"), \"ann's\")",
                "User: update unknown user:id:2",
                "User: delete (3, Some(\"c\"), \"cem\")",
                "User: delete absent user:id:4",
                "Session: update unknown ~sessions:Session:0:eu:9, kept [\"session:x\"]",
            ]
        );
    });
}

#[test]
fn rows_that_were_given_back_do_not_wait_until_there_are_no_new_ones() {
    on_both(|base| {
        let outbox = base.outbox();
        let ids = |claimed: Vec<Claimed>| claimed.iter().map(|row| row.id).collect::<Vec<_>>();
        base.insert(&users(20));
        let first = ids(outbox.claim(5, LEASE).unwrap());
        assert_eq!(first, [1, 2, 3, 4, 5]);
        outbox.release(&first, Duration::ZERO).unwrap();
        let mut next = ids(outbox.claim(5, LEASE).unwrap());
        next.append(&mut ids(outbox.claim(5, LEASE).unwrap()));
        next.sort_unstable();
        assert_eq!(next, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    });
}

#[test]
fn each_row_is_held_by_one_claim_until_it_ends() {
    on_both(|base| {
        for id in 1..=5 {
            base.captured_row("insert", &user(id, "a", "ann"), None);
        }
        let (one, other) = (base.outbox(), base.outbox());
        let ids = |claimed: Vec<Claimed>| claimed.iter().map(|row| row.id).collect::<Vec<_>>();
        assert_eq!(ids(one.claim(3, LEASE).unwrap()), [1, 2, 3]);
        assert_eq!(ids(other.claim(9, Duration::ZERO).unwrap()), [4, 5], "what is held is passed over");
        assert_eq!(ids(one.claim(9, LEASE).unwrap()), [4, 5], "a claim that has run out");
        other.delivered(&[1, 4]).unwrap();
        assert_eq!(one.depth().unwrap().delivered, 0, "only who holds a row can say so");
        one.extend(&[2], Duration::ZERO).unwrap();
        one.release(&[3], Duration::ZERO).unwrap();
        assert_eq!(ids(other.claim(9, LEASE).unwrap()), [2, 3]);
        one.delivered(&[1, 4, 5]).unwrap();
        other.delivered(&[2, 3]).unwrap();
        let depth = one.depth().unwrap();
        assert_eq!((depth.pending, depth.delivered, depth.dead, depth.oldest), (0, 5, 0, None));
    });
}

#[test]
fn what_fails_is_tried_again_and_ends_as_a_dead_letter_with_its_error() {
    on_both(|base| {
        base.captured_row("insert", &user(1, "a", "ann"), None);
        let outbox = base.outbox();
        let range = outbox.range().unwrap().unwrap();
        let fail = |error: &str, retry_in| {
            let id = outbox.claim(9, LEASE).unwrap()[0].id;
            outbox.failed(&[Failure { id, error: error.into(), retry_in }]).unwrap();
        };
        assert!(outbox.waits(&range).unwrap());
        fail("it's \0 slow", Some(Duration::ZERO));
        assert!(!outbox.waits(&range).unwrap());
        assert_eq!(outbox.failure(&range).unwrap().as_deref(), Some("it's  slow"));
        fail("no; really", None);
        assert!(outbox.claim(9, LEASE).unwrap().is_empty());
        let dead = outbox.dead_letters(0, 9).unwrap();
        assert_eq!((dead.len(), dead[0].attempts, dead[0].error.as_str()), (1, 2, "no; really"));
        assert_eq!(
            (dead[0].table.as_str(), dead[0].model.as_deref(), dead[0].action.as_str()),
            ("users", Some("User"), "insert")
        );
        assert_eq!(dead[0].primary_key.as_deref(), Some(base.user_key(1).as_str()));
        assert_eq!((outbox.retry(Some(&[99])).unwrap(), outbox.retry(None).unwrap()), (0, 1));
        assert_eq!(outbox.claim(9, LEASE).unwrap()[0].attempts, 0);
        outbox.failed(&[Failure { id: 1, error: "again".into(), retry_in: None }]).unwrap();
        assert_eq!((outbox.discard(Some(&[])).unwrap(), outbox.discard(None).unwrap()), (0, 1));
        assert_eq!(base.number("SELECT count(*) FROM kvsync_outbox"), 0);
    });
}

#[test]
fn a_replay_brings_back_what_was_delivered_and_what_is_in_flight() {
    on_both(|base| {
        for id in 1..=4 {
            base.captured_row("insert", &user(id, "a", "ann"), None);
        }
        base.run("UPDATE kvsync_outbox SET captured_at = 5000 WHERE id = 1");
        let outbox = base.outbox();
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(6);
        outbox.claim(9, LEASE).unwrap();
        outbox.delivered(&[1, 2]).unwrap();
        outbox.failed(&[Failure { id: 3, error: "no".into(), retry_in: None }]).unwrap();
        assert_eq!(outbox.replay(since).unwrap(), 3, "2 was delivered, 3 is dead, 4 is in flight");
        outbox.delivered(&[4]).unwrap();
        assert_eq!(outbox.claim(9, LEASE).unwrap().len(), 3, "a delivery that began before the replay does not count");
    });
}

#[test]
fn delivered_rows_are_kept_for_their_retention() {
    on_both(|base| {
        for id in 1..=3 {
            base.captured_row("insert", &user(id, "a", "ann"), None);
        }
        let outbox = base.outbox();
        outbox.claim(2, LEASE).unwrap();
        outbox.delivered(&[1, 2]).unwrap();
        base.run("UPDATE kvsync_outbox SET delivered_at = delivered_at - 3600000 WHERE id = 1");
        assert_eq!(outbox.purge(Duration::from_hours(2), 9).unwrap(), 0);
        assert_eq!(
            (outbox.purge(Duration::from_mins(30), 9).unwrap(), outbox.purge(Duration::ZERO, 0).unwrap()),
            (1, 0)
        );
        assert_eq!(base.number("SELECT count(*) FROM kvsync_outbox"), 2, "what waits is never purged");
    });
}

#[test]
fn rows_that_cannot_be_understood_are_errors_of_their_own() {
    on_both(|base| {
        let hostile =
            ["1; DROP TABLE users", "(SELECT 1)", "{\"id\": \"x\"}", "", "{\"id\": null}", "NULL", "{}", "[1]"];
        for text in hostile {
            base.trigger_row("users", "insert", text, None);
            base.trigger_row("users", "insert", &base.user_key(7), None);
        }
        base.trigger_row("users", "vanish", &base.user_key(1), None);
        base.run("INSERT INTO kvsync_outbox (captured_at, timeline, sequence, table_name, action) VALUES (1, 0, 1, 'users', 'truncate')");
        base.trigger_row("users", "insert", &base.user_key(1), None);
        base.run("UPDATE kvsync_outbox SET scope = 'wrong' WHERE id = (SELECT max(id) FROM kvsync_outbox)");
        base.captured_row("insert", &user(1, "a", "ann"), Some(-1));
        let outbox = base.outbox();
        let claimed = outbox.claim(100, LEASE).unwrap();
        let (wrong, right): (Vec<_>, Vec<_>) = claimed.into_iter().partition(|row| row.changes.is_err());
        assert_eq!((wrong.len(), right.len()), (hostile.len() + 4, hostile.len()));
        for row in &wrong {
            assert!(!row.changes.as_ref().unwrap_err().is_retryable(), "{row:?}");
        }
        assert_eq!(told(right), vec!["User: insert unknown user:id:7"; hostile.len()]);
        assert_eq!(base.number("SELECT count(*) FROM users"), 0);
    });
}

#[test]
fn content_of_other_fields_or_another_generation_is_read_again() {
    on_both(|base| {
        for id in 1..=4 {
            base.captured_row("insert", &user(id, "a", "ann"), None);
        }
        let garbage = if let Base::Sqlite(_) = base { "x'01000001ffffffff80'" } else { "'\\x01000001ffffffff80'" };
        base.run(&format!("UPDATE kvsync_outbox SET content = {garbage} WHERE id = 1"));
        base.run(&format!("UPDATE kvsync_outbox SET content = {garbage}, primary_key = NULL WHERE id = 2"));
        base.run("UPDATE kvsync_outbox SET generation = 5 WHERE id IN (3, 4)");
        base.run("UPDATE kvsync_outbox SET captured_at = captured_at - 600000 WHERE id = 4");
        let seen = told(base.outbox().claim(9, LEASE).unwrap());
        assert_eq!(
            (seen.len(), seen[0].as_str(), seen[2].as_str()),
            (3, "User: insert unknown user:id:1", "User: insert unknown user:id:4")
        );
        assert!(seen[1].starts_with("corrupt entry"), "{}", seen[1]);
    });
}

#[test]
fn models_that_are_not_registered_are_left_to_others_and_become_dead_letters_late() {
    on_both(|base| {
        base.trigger_row("strangers", "insert", &base.user_key(1), None);
        base.captured_row("insert", &user(1, "a", "ann"), None);
        base.run("UPDATE kvsync_outbox SET model = 'Stranger' WHERE model IS NOT NULL");
        let outbox = base.outbox();
        let range = outbox.range().unwrap().unwrap();
        assert!(outbox.claim(9, LEASE).unwrap().is_empty() && !outbox.waits(&range).unwrap());
        assert_eq!(outbox.strangers(Duration::from_hours(1)).unwrap(), 0, "others have a while to claim them");
        base.run("UPDATE kvsync_outbox SET captured_at = captured_at - 600000");
        assert_eq!(outbox.strangers(Duration::from_hours(1)).unwrap(), 2);
        assert_eq!(outbox.depth().unwrap().dead, 0);
        outbox.strangers(Duration::from_mins(5)).unwrap();
        assert!(outbox.dead_letters(0, 9).unwrap().iter().all(|dead| dead.error.contains("registered")));
        assert_eq!(outbox.depth().unwrap().dead, 2);
    });
}

#[test]
fn an_outbox_that_is_not_there_says_which_migration_makes_it() {
    on_both(|base| {
        base.run("DROP TABLE kvsync_outbox");
        let outbox = base.outbox();
        for _ in 0..2 {
            let error = outbox.claim(1, LEASE).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains("migration"), "{error}");
        }
    });
}
