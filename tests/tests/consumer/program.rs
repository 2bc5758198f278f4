//! The command of a program that consumes.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use kvsync::store::EmbeddedStore;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::rig::{User, reader, until};

fn program(dir: &tempfile::TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_consumer"));
    command.args(arguments).env("CONSUMER_ROWS", "20").env("CONSUMER_STORE", dir.path());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The documents that it writes.
fn told(child: &mut Child) -> impl Iterator<Item = Value> + use<> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap())
}

#[test]
fn it_runs_until_it_is_told_to_stop_and_finishes_what_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = program(&dir, &["--json", "--every", "0.1", "--workers", "2", "--batch", "3"]).spawn().unwrap();
    let mut told = told(&mut child);
    let done = told.find(|health| health["written"] == 20).unwrap();
    assert_eq!((&done["status"], &done["dead"]), (&"up".into(), &0.into()), "{done}");
    assert!(done["lag_ms"].is_number() && done["rate"].is_number() && done["redelivered"].is_number(), "{done}");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let last = told.last().unwrap();
    assert_eq!((&last["acknowledged"], &last["held"], &last["threads"]), (&20.into(), &0.into(), &0.into()), "{last}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let kv = reader(EmbeddedStore::open(dir.path()).unwrap());
    assert!((0..20).all(|id| User::fetch_by_id(&kv, id).unwrap().is_some()));
}

#[test]
fn it_ends_by_itself_where_it_is_to_empty_the_queue() {
    let dir = tempfile::tempdir().unwrap();
    let ended = program(&dir, &["--drain"]).output().unwrap();
    let text = String::from_utf8(ended.stdout).unwrap();
    assert_eq!((ended.status.code(), text.trim()), (Some(0), "20 messages acknowledged, 0 dead letters"));
    let dir = tempfile::tempdir().unwrap();
    let ended = program(&dir, &["--drain"]).env("CONSUMER_GARBAGE", "1").output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "dead letters are told");
    let ended = program(&dir, &["--workers", "0"]).output().unwrap();
    assert_eq!(ended.status.code(), Some(2));
    let ended = program(&dir, &[]).env("CONSUMER_ROWS", "many").output().unwrap();
    assert!(ended.status.code() == Some(2) && ended.stderr.starts_with(b"error: "));
}

#[test]
fn an_interrupt_ends_it_as_well_and_progress_is_told_in_lines() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = program(&dir, &["--every", "0.1"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find(|line| line.contains("20 done")).unwrap();
    assert!(line.starts_with("up: ") && line.contains("0 dead") && line.contains("lag "), "{line}");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    // It writes on while it ends.
    let rest = std::thread::spawn(move || lines.count());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&ended.stdout).trim(), "20 messages acknowledged, 0 dead letters");
    rest.join().unwrap();
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut child =
        program(&dir, &["--json", "--every", "0.1", "--deadline", "3600"]).env("CONSUMER_STUCK", "1").spawn().unwrap();
    let mut told = told(&mut child);
    told.find(|health| health["held"].as_u64().is_some_and(|held| held > 0)).unwrap();
    let mut ended = None;
    // Which of them is the first that counts as another one is for the program to say.
    until("it has ended", || {
        if ended.is_none() {
            kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
            ended = child.try_wait().unwrap();
        }
        ended.is_some()
    });
    assert_eq!(ended.unwrap().signal(), Some(15), "by the signal, and not by itself");
}

#[test]
fn it_has_dead_letters_delivered_again() {
    let dir = tempfile::tempdir().unwrap();
    let dead = |arguments: &[&str]| program(&dir, arguments).env("CONSUMER_DEAD", "1").output().unwrap();
    let text = |output: &[u8]| String::from_utf8_lossy(output).trim().to_owned();
    let without = dead(&["--drain"]);
    assert_eq!(text(&without.stdout), "17 messages acknowledged, 0 dead letters");
    let some = dead(&["--drain", "--json", "--redrive", "2"]);
    let last: Value = text(&some.stdout).lines().last().map(|line| serde_json::from_str(line).unwrap()).unwrap();
    assert_eq!((&last["acknowledged"], &last["redriven"]), (&19.into(), &2.into()), "{last}");
    let all = dead(&["--drain", "--redrive"]);
    assert_eq!(text(&all.stdout), "3 dead letters delivered again\n20 messages acknowledged, 0 dead letters");
    assert_eq!(all.status.code(), Some(0));
    let alone = dead(&["--redrive", "2"]);
    assert_eq!((text(&alone.stdout).as_str(), alone.status.code()), ("2 dead letters delivered again", Some(0)));
}

#[test]
fn it_lists_dead_letters() {
    let dir = tempfile::tempdir().unwrap();
    let list = |arguments: &[&str], dead: &str| {
        let ended = program(&dir, arguments).env(dead, "1").output().unwrap();
        (String::from_utf8(ended.stdout).unwrap().trim().to_owned(), ended.status.code())
    };
    let (text, code) = list(&["--dead"], "CONSUMER_DEAD");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() == 3 && code == Some(1), "{code:?} {text}");
    // Which rows come first is chance: publishers publish with several threads.
    assert!(lines.iter().all(|line| line.starts_with("create of users ") && line.ends_with(": by hand")), "{text}");
    let (text, code) = list(&["--dead", "2", "--json"], "CONSUMER_DEAD");
    let told: Value = serde_json::from_str(&text).unwrap();
    let letters = told["dead_letters"].as_array().unwrap();
    assert_eq!((letters.len(), code), (2, Some(1)), "{told}");
    let first = &letters[0];
    assert_eq!((&first["table"], &first["reason"]), (&"users".into(), &"by hand".into()));
    assert!(
        first["primary_key"].is_string()
            && first["id"].is_string()
            && first["deliveries"] == 1
            && first["age_seconds"].is_number(),
        "{first}"
    );
    assert_eq!(list(&["--dead"], "CONSUMER_NONE"), ("there are no dead letters".to_owned(), Some(0)));
}

#[test]
fn it_does_not_drain_a_queue_for_ever_of_which_nobody_answers() {
    let dir = tempfile::tempdir().unwrap();
    let ended = program(&dir, &["--drain", "--deadline", "0.5"]).env("CONSUMER_AWAY", "1").output().unwrap();
    assert_eq!(ended.status.code(), Some(2));
    let told = String::from_utf8(ended.stderr).unwrap();
    assert!(told.contains("error: ") && told.contains("is not empty yet: "), "{told}");
}

#[test]
fn it_waits_for_a_store_that_is_away_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("it is there");
    let waiting = |arguments: &[&str]| {
        let mut command = program(&dir, arguments);
        command.env("CONSUMER_UNTIL", &store);
        command
    };
    // Whoever does not stay ends.
    for once in ["--drain", "--dead", "--redrive"] {
        let ended = waiting(&[once]).output().unwrap();
        assert_eq!(ended.status.code(), Some(2), "{once}");
        assert!(ended.stderr.starts_with(b"error: unavailable: redis at redis://***@host is away"), "{ended:?}");
    }
    let mut child = waiting(&["--json"]).spawn().unwrap();
    let first = told(&mut child).next().unwrap();
    assert_eq!(
        (&first["error"], &first["retryable"]),
        (&"unavailable: redis at redis://***@host is away".into(), &true.into())
    );
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(2), "it ends by itself");
    let mut child = waiting(&["--json", "--every", "0.1"]).spawn().unwrap();
    let mut told = told(&mut child);
    assert!(told.next().unwrap()["error"].is_string());
    std::fs::write(&store, "").unwrap();
    told.find(|health| health["written"] == 20).unwrap();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(told.last().unwrap()["acknowledged"], 20);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
