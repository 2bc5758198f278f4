//! Client and server on one processor.

use crate::Result;

/// Keeps the calling thread, and what it starts, on one processor until dropped.
#[derive(Debug)]
pub(crate) struct Pinned {
    #[cfg(target_os = "linux")]
    before: rustix::thread::CpuSet,
}

#[cfg(target_os = "linux")]
impl Pinned {
    /// Pins the calling thread and this process, a server whose sessions will be its children, to the same processor.
    pub(crate) fn with(server: i32) -> Result<Self> {
        use rustix::process::Pid;
        use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
        let before = sched_getaffinity(None)?;
        let first = (0..CpuSet::MAX_CPU).find(|cpu| before.is_set(*cpu)).ok_or("this thread may run nowhere")?;
        let mut one = CpuSet::new();
        one.set(first);
        sched_setaffinity(Pid::from_raw(server), &one)?;
        sched_setaffinity(None, &one)?;
        Ok(Self { before })
    }
}

#[cfg(target_os = "linux")]
impl Drop for Pinned {
    fn drop(&mut self) {
        // Where it fails, later rows run on one processor too.
        let _ = rustix::thread::sched_setaffinity(None, &self.before);
    }
}

#[cfg(not(target_os = "linux"))]
impl Pinned {
    /// Only Linux is asked for this.
    pub(crate) fn with(_: i32) -> Result<Self> {
        Err("client and server are pinned on Linux only".into())
    }
}
