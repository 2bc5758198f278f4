//! An example as a process of its own, that writes what it says into files.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};

use kvsync_tests::Tested;
use kvsync_tests::wait::until;
use rustix::process::{Pid, Signal, kill_process};

/// A running example; killed when it is dropped.
pub struct Process {
    child: Child,
    said: PathBuf,
}

impl Process {
    /// Starts it with these variables; what it says is in this folder.
    pub fn start(example: &str, arguments: &[&str], variables: &[(&str, &str)], folder: &Path) -> Tested<Self> {
        let said = folder.join(format!("{example}-{}", rand::random::<u32>()));
        let output = File::create(&said)?;
        let mut command = Command::new(program(example)?);
        command.args(arguments).stderr(output.try_clone()?).stdout(output).envs(variables.iter().copied());
        Ok(Self { child: command.spawn()?, said })
    }

    /// All that it has said.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap_or_default()
    }

    /// Waits until it has said so many lines that begin with this.
    #[track_caller]
    pub fn until_said(&mut self, begin: &str, times: usize) {
        until(&format!("it says `{begin}` {times} times"), || {
            let ended = self.child.try_wait().ok().flatten();
            let said = self.said();
            let enough = said.lines().filter(|line| line.starts_with(begin)).count() >= times;
            assert!(enough || ended.is_none(), "it ended: {said}");
            enough
        });
    }

    /// Ends it with SIGKILL, and waits until it is gone.
    pub fn kill(mut self) -> Tested {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Tells it to end with SIGTERM, and returns what it said, when it has ended well.
    pub fn end(self) -> Tested<String> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        self.ended()
    }

    /// Waits until it has ended well, and returns what it said.
    pub fn ended(mut self) -> Tested<String> {
        let mut ended: Option<ExitStatus> = None;
        until("it ends", || {
            ended = self.child.try_wait().ok().flatten();
            ended.is_some()
        });
        let (status, said) = (ended.ok_or("it did not end")?, self.said());
        if status.success() { Ok(said) } else { Err(format!("it ended with {status}: {said}").into()) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The example, as `cargo test` builds it beside the tests.
pub fn program(example: &str) -> Tested<PathBuf> {
    let tests = std::env::current_exe()?;
    let program = tests.ancestors().nth(2).ok_or("the test is in no folder")?.join("examples").join(example);
    if program.exists() {
        return Ok(program);
    }
    let how = format!("cargo build --workspace --features full --example {example}");
    Err(format!("{} is not there; build it with `{how}`", program.display()).into())
}
