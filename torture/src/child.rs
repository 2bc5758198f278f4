//! A process that the conductor started.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child as Process, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};

use crate::Outcome;
use crate::job::{DatabaseAt, JOB, Job};

/// How far a process is, as it said last.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Progress {
    /// Rows written and committed.
    pub(crate) writes: u64,
    /// Steps that met a unique constraint.
    pub(crate) conflicts: u64,
    /// Steps that were repeated, and connections that were opened anew.
    pub(crate) retries: u64,
    /// Changes that wait for the store.
    pub(crate) backlog: u64,
    /// Messages that consumers received, and those of them that had been delivered before.
    pub(crate) received: u64,
    pub(crate) redelivered: u64,
}

/// A running process; killed when dropped.
pub(crate) struct Child {
    /// The number that its rows carry.
    pub(crate) writer: i32,
    process: Process,
    progress: Arc<Mutex<Progress>>,
    dirty: Arc<AtomicBool>,
    answers: Receiver<String>,
    listening: Option<JoinHandle<()>>,
}

impl Child {
    /// Starts this program again, to do this job.
    /// What should not happen, and what no fault explains, becomes a complaint.
    pub(crate) fn start(job: &Job, complaints: Arc<Mutex<Vec<String>>>) -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env(JOB, serde_json::to_string(job)?).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let DatabaseAt::Sqlite(path) = &job.database {
            // Killed in the wrong moment, SQLite leaves a temporary file behind: where it goes with the rest.
            command.env("SQLITE_TMPDIR", Path::new(path).parent().unwrap_or(Path::new(".")));
        }
        let mut process = command.spawn()?;
        let output = process.stdout.take().ok_or("the process has no output")?;
        let (sender, answers) = channel();
        let progress = Arc::new(Mutex::new(Progress::default()));
        let dirty = Arc::<AtomicBool>::default();
        let (told, announced, writer) = (Arc::clone(&progress), Arc::clone(&dirty), job.writer);
        let listening = thread::Builder::new().name("torture-listen".into()).spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some(figures) = line.strip_prefix("tally ") {
                    let mut figures = figures.split(' ').map(|figure| figure.parse().unwrap_or_default());
                    let mut next = || figures.next().unwrap_or_default();
                    *told.lock() = Progress {
                        writes: next(),
                        conflicts: next(),
                        retries: next(),
                        backlog: next(),
                        received: next(),
                        redelivered: next(),
                    };
                } else if let Some(reason) = line.strip_prefix("dirty ") {
                    // A connection that was cut took with it what a statement had written.
                    if !announced.swap(true, Ordering::SeqCst) && !reason.contains("connection") {
                        complaints.lock().push(format!("process {writer} could not capture: {reason}"));
                    }
                } else if line.starts_with("announced ") {
                    announced.store(true, Ordering::SeqCst);
                } else if let Some(note) = line.strip_prefix("note ") {
                    println!("  process {writer}: {note}");
                } else if let Some(complaint) = line.strip_prefix("complaint ") {
                    complaints.lock().push(format!("process {writer}: {complaint}"));
                } else {
                    let _ = sender.send(line);
                }
            }
        })?;
        Ok(Self { writer, process, progress, dirty, answers, listening: Some(listening) })
    }

    /// How far it is, and will be.
    pub(crate) fn progress(&self) -> Arc<Mutex<Progress>> {
        Arc::clone(&self.progress)
    }

    /// Whether it said that a table of its own is dirty: then it has announced a loss.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::SeqCst)
    }

    /// Whether it ended though nobody told it to.
    pub(crate) fn ended(&mut self) -> Outcome<Option<String>> {
        Ok(self.process.try_wait()?.map(|status| status.to_string()))
    }

    /// Sends it a line.
    pub(crate) fn tell(&mut self, line: &str) -> Outcome {
        let stdin = self.process.stdin.as_mut().ok_or("the process takes no commands any more")?;
        Ok(writeln!(stdin, "{line}")?)
    }

    /// Waits for a line that is no progress.
    pub(crate) fn answer(&self, patience: Duration) -> Outcome<String> {
        let number = self.writer;
        self.answers.recv_timeout(patience).map_err(|error| format!("process {number} did not answer: {error}").into())
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Outcome {
        Ok(kill_process(Pid::from_child(&self.process), signal)?)
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(mut self) -> Outcome {
        self.process.kill()?;
        self.process.wait()?;
        // What it had still written into the pipe counts; what waited went with it.
        if let Some(listening) = self.listening.take() {
            let _ = listening.join();
        }
        self.progress.lock().backlog = 0;
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // A process that has ended already cannot be killed, which is no matter.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
