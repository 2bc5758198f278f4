//! The service as a process of its own, on a free port.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

use kvsync_tests::Tested;
use kvsync_tests::wait::until;
use rustix::process::{Pid, Signal, kill_process};

use super::client::{Answer, ask};
use super::process::program;

/// A running service; killed when it is dropped.
pub struct Service {
    child: Child,
    stdout: BufReader<ChildStdout>,
    address: String,
}

impl Service {
    /// Starts it on this store, with a folder where one is given, and waits until it listens.
    pub fn start(store: &str, dir: Option<&std::path::Path>) -> Tested<Self> {
        let mut command = Command::new(program("person_api")?);
        command.env("KVSYNC_STORE", store).env("KVSYNC_LISTEN", "127.0.0.1:0").stdout(Stdio::piped());
        // For the DynamoDB of the tests, which takes any.
        command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test");
        match dir {
            Some(dir) => command.env("KVSYNC_DIR", dir),
            None => command.env_remove("KVSYNC_DIR"),
        };
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or("no output")?;
        let mut service = Self { child, stdout: BufReader::new(stdout), address: String::new() };
        let mut line = String::new();
        service.stdout.read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on http://");
        service.address = address.ok_or_else(|| format!("it did not start: `{line}`"))?.to_owned();
        Ok(service)
    }

    /// What it says when it does not start for this address.
    pub fn refused(listen: &str) -> Tested<String> {
        let output = Command::new(program("person_api")?)
            .env("KVSYNC_STORE", "memory:")
            .env("KVSYNC_LISTEN", listen)
            .env_remove("KVSYNC_DIR")
            .output()?;
        if output.status.success() {
            return Err("it started".into());
        }
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Asks it.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Tested<Answer> {
        ask(&self.address, method, path, body)
    }

    /// Tells it to end, and returns what it said at its end.
    pub fn end(mut self) -> Tested<String> {
        let pid = Pid::from_raw(self.child.id().try_into()?).ok_or("no process")?;
        kill_process(pid, Signal::TERM)?;
        let mut ended = None;
        until("the service ends", || {
            ended = self.child.try_wait().ok().flatten();
            ended.is_some()
        });
        let status = ended.ok_or("it did not end")?;
        let mut said = String::new();
        self.stdout.read_to_string(&mut said)?;
        if status.success() { Ok(said) } else { Err(format!("it ended with {status}: {said}").into()) }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
