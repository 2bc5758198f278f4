//! The command of a program that consumes.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use kvsync::store::EmbeddedStore;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::rig::{User, reader};

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
