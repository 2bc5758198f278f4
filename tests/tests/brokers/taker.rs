//! A consumer that is killed: this program once more, told by a variable where it connects and how much it takes.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::{env, thread};

use bytes::Bytes;
use kvsync::transport::Subscription;
use kvsync_tests::wait::LONG;

/// What it took from the topic of this name before it was killed.
pub(crate) fn taken_and_killed(variable: &str, url: &str, name: &str, most: usize) -> Vec<Bytes> {
    let mut command = Command::new(env::current_exe().unwrap());
    let mut child = command.env(variable, format!("{url} {name} {most}")).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().take(most);
    let took = lines.map(|line| Bytes::from(line.unwrap())).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    took
}

/// Takes what it was told to, says what, and waits to be killed; `false` in the process of the tests.
pub(crate) fn is_child(variable: &str, queue: impl FnOnce(&str, &str) -> Box<dyn Subscription>) -> bool {
    let Ok(words) = env::var(variable) else { return false };
    let [url, name, most] = words.split(' ').collect::<Vec<_>>()[..] else { panic!("{words}") };
    let (queue, mut held, most) = (queue(url, name), Vec::new(), most.parse().unwrap());
    while held.len() < most {
        held.extend(queue.receive(most - held.len(), LONG).unwrap());
    }
    for arrival in &held {
        println!("{}", std::str::from_utf8(arrival.body()).unwrap());
    }
    loop {
        thread::park();
    }
}
