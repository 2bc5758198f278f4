//! One server process: started, awaited, signalled by its own pid.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use super::watchdog::Watchdog;
use crate::error::Context;
use crate::{Error, Result};

const READY_DEADLINE: Duration = Duration::from_mins(5);
const STOP_DEADLINE: Duration = Duration::from_mins(2);

/// How a server is started.
pub(super) struct Spec {
    pub(super) name: &'static str,
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
    /// The user and group to run as, when not as ours.
    pub(super) identity: Option<(u32, u32)>,
    /// The server's own folder, where its log is kept.
    pub(super) folder: PathBuf,
    /// What the server logs once it accepts connections.
    pub(super) ready: &'static str,
    /// The signal that stops it in good order.
    pub(super) stop: Signal,
    /// The signal that ends it at once, leaving no process behind.
    pub(super) end: Signal,
}

/// A server that can be stopped, killed, paused and started again.
pub struct Process {
    spec: Spec,
    child: Mutex<Option<Child>>,
    watchdog: Watchdog,
}

impl Process {
    /// Starts the server and waits until it accepts connections.
    pub(super) fn start(spec: Spec) -> Result<Self> {
        let watchdog = Watchdog::start(&spec.folder, spec.end)?;
        let process = Self { spec, child: Mutex::new(None), watchdog };
        process.run(&mut process.child())?;
        Ok(process)
    }

    /// Stops the server in good order and waits until it is gone. Nothing happens if it does not run.
    ///
    /// # Errors
    /// When it does not stop; it is killed then.
    pub fn stop(&self) -> Result<()> {
        self.stop_with(self.spec.stop)
    }

    /// Ends the server at once, as a crash would, and waits until it is gone: by SIGKILL; Postgres, which would leave
    /// processes behind, by its immediate shutdown.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&self) -> Result<()> {
        self.stop_with(self.spec.end)
    }

    /// Starts the server again on its port, in its folder; stops it in good order first if it runs.
    ///
    /// # Errors
    /// When it does not start; the message quotes its log.
    pub fn restart(&self) -> Result<()> {
        let mut child = self.child();
        self.end(&mut child, self.spec.stop)?;
        self.run(&mut child)
    }

    /// Freezes the server with SIGSTOP, and waits until all its threads have stopped: connections stay open and nothing is
    /// answered.
    ///
    /// # Errors
    /// When the server does not run.
    pub fn pause(&self) -> Result<()> {
        let child = self.child();
        let running = child.as_ref().ok_or_else(|| self.error("is not running; restart it first"))?;
        self.send(running, Signal::STOP)?;
        // Its status is left for whoever waits for its end.
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(Pid::from_child(running)), stopped)
            .context(|| format!("cannot wait for {} to stop", self.spec.name))?;
        Ok(())
    }

    /// Wakes a paused server.
    ///
    /// # Errors
    /// When the server does not run.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// The pid, while the server runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child().as_ref().map(Child::id)
    }

    /// The server's log so far.
    #[must_use]
    pub fn log(&self) -> String {
        log_from(&self.log_path(), 0)
    }

    /// Has the server read its configuration again, with SIGHUP, and waits until it has logged that it did.
    pub(super) fn reload(&self, logs: &str) -> Result<()> {
        let logged = self.log().len();
        self.signal(Signal::HUP)?;
        let deadline = Instant::now() + STOP_DEADLINE;
        while !self.log().get(logged..).is_some_and(|log| log.contains(logs)) {
            if Instant::now() > deadline {
                return Err(self.error(&format!("did not read its configuration again within {STOP_DEADLINE:?}")));
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn stop_with(&self, signal: Signal) -> Result<()> {
        self.end(&mut self.child(), signal)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child();
        let running = child.as_ref().ok_or_else(|| self.error("is not running; restart it first"))?;
        self.send(running, signal)
    }

    fn run(&self, slot: &mut Option<Child>) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(self.log_path());
        let log = log.context(|| format!("cannot open the log {}", self.log_path().display()))?;
        let logged = log.metadata().map_or(0, |file| file.len());
        let child = slot.insert(self.spawn(log)?);
        self.watchdog.watch(Pid::from_child(child))?;
        let ready = self.wait_until_ready(child, logged);
        if ready.is_err() {
            self.end(slot, self.spec.end)?;
        }
        ready
    }

    fn spawn(&self, log: File) -> Result<Child> {
        let spec = &self.spec;
        let mut command = Command::new(&spec.program);
        command.args(&spec.arguments).current_dir(&spec.folder).env("LC_ALL", "C").stdin(Stdio::null());
        // A process group of its own, so that Ctrl-C in the terminal reaches our process first, which then stops it.
        command.process_group(0);
        if let Some((user, group)) = spec.identity {
            command.uid(user).gid(group);
        }
        let errors = log.try_clone().context(|| format!("cannot share the log of {}", spec.name))?;
        command.stdout(log).stderr(errors);
        command.spawn().context(|| format!("cannot start {}", spec.program.display()))
    }

    fn wait_until_ready(&self, child: &mut Child, logged: u64) -> Result<()> {
        let deadline = Instant::now() + READY_DEADLINE;
        loop {
            let exited = self.exited(child)?;
            let log = log_from(&self.log_path(), logged);
            match exited {
                // Some begin it with a capital.
                Some(_) if log.contains("ddress already in use") => {
                    return Err(Error::port_taken(self.describe("found its port taken", &log)));
                }
                Some(status) => return Err(Error::new(self.describe(&format!("did not start ({status})"), &log))),
                None if log.contains(self.spec.ready) => return Ok(()),
                None if Instant::now() > deadline => {
                    return Err(Error::new(self.describe(&format!("was not ready within {READY_DEADLINE:?}"), &log)));
                }
                None => sleep(Duration::from_millis(3)),
            }
        }
    }

    fn end(&self, slot: &mut Option<Child>, signal: Signal) -> Result<()> {
        let Some(child) = slot else { return Ok(()) };
        if self.exited(child)?.is_none() {
            self.send(child, signal)?;
            // A paused process sees no signal but SIGKILL before it is woken.
            self.send(child, Signal::CONT)?;
        }
        let deadline = Instant::now() + STOP_DEADLINE;
        while self.exited(child)?.is_none() {
            if Instant::now() > deadline {
                child.kill().context(|| format!("cannot kill {}", self.spec.name))?;
                child.wait().context(|| format!("cannot wait for {}", self.spec.name))?;
                *slot = None;
                self.watchdog.idle()?;
                return Err(self.error(&format!("did not stop within {STOP_DEADLINE:?} and was killed")));
            }
            sleep(Duration::from_millis(2));
        }
        *slot = None;
        self.watchdog.idle()
    }

    fn exited(&self, child: &mut Child) -> Result<Option<ExitStatus>> {
        child.try_wait().context(|| format!("cannot ask whether {} still runs", self.spec.name))
    }

    fn send(&self, child: &Child, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(child), signal)
            .context(|| format!("cannot send {signal:?} to {} (pid {})", self.spec.name, child.id()))
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log_path(&self) -> PathBuf {
        self.spec.folder.join("log")
    }

    fn error(&self, what: &str) -> Error {
        Error::new(format!("{} in {} {what}", self.spec.name, self.spec.folder.display()))
    }

    fn describe(&self, what: &str, log: &str) -> String {
        let lines: Vec<&str> = log.lines().collect();
        let last = lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n    ");
        let Spec { name, folder, .. } = &self.spec;
        format!("{name} in {} {what}; the end of its log:\n    {last}", folder.display())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("xtask: {error}");
        }
    }
}

fn log_from(path: &Path, offset: u64) -> String {
    let mut bytes = Vec::new();
    if let Ok(mut file) = File::open(path) {
        // What cannot be read is told by the missing line.
        let _ = file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_to_end(&mut bytes));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
