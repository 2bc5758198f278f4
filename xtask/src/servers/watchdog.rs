//! Stops a server whose owner ended without doing it.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, Signal};

use crate::Result;
use crate::error::Context;

/// Reads what its owner writes. When that ends without `done`, the owner is gone: then the server is told to die and its
/// folder is removed. A shell does this, because nothing inside a process outlives its SIGKILL.
const SCRIPT: &str = r#"
pid=
while read -r word argument; do
  case $word in
    watch) pid=$argument ;;
    idle) pid= ;;
    done) exit 0 ;;
  esac
done
if [ -n "$pid" ]; then
  kill -s "$1" "$pid" 2>/dev/null
  tries=0
  while kill -0 "$pid" 2>/dev/null && [ "$tries" -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
fi
rm -rf -- "$2"
"#;

/// A process beside ours that outlives it just long enough to stop one server.
pub(super) struct Watchdog(Mutex<Child>);

impl Watchdog {
    /// Watches over the server of this folder; it would be stopped with this signal.
    pub(super) fn start(folder: &Path, signal: Signal) -> Result<Self> {
        let signal = if signal == Signal::QUIT { "QUIT" } else { "KILL" };
        let mut command = Command::new("sh");
        command.arg("-c").arg(SCRIPT).arg("watchdog").arg(signal).arg(folder).current_dir("/");
        // A process group of its own keeps it out of reach of the terminal's Ctrl-C.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().context(|| "cannot start the watchdog shell `sh`".to_owned())?;
        Ok(Self(Mutex::new(child)))
    }

    /// The server runs under this pid.
    pub(super) fn watch(&self, pid: Pid) -> Result<()> {
        self.tell(&format!("watch {}", pid.as_raw_nonzero()))
    }

    /// The server does not run.
    pub(super) fn idle(&self) -> Result<()> {
        self.tell("idle")
    }

    fn tell(&self, line: &str) -> Result<()> {
        let mut child = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut child.stdin {
            Some(stdin) => writeln!(stdin, "{line}").context(|| "the watchdog of a server is gone".to_owned()),
            None => Ok(()),
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // If it is gone already, there is nobody to dismiss.
        let _ = self.tell("done");
        let child = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop(child.stdin.take());
        let _ = child.wait();
    }
}
