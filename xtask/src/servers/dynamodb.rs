//! One DynamoDB server: dynoxide, which keeps its tables in memory.

use std::ops::Deref;

use rustix::process::Signal;
use tempfile::TempDir;

use super::port::with_free_port;
use super::process::{Process, Spec};
use crate::Result;
use crate::error::Context;
use crate::tools::Tool;

/// A running server that speaks the protocol of DynamoDB; stopped, and its folder removed, when dropped. It takes any
/// credentials and any region.
pub struct DynamoDb {
    port: u16,
    process: Process,
    _folder: TempDir,
}

impl DynamoDb {
    /// Starts a server without tables and waits until it accepts connections.
    ///
    /// # Errors
    /// When `dynoxide` is missing or does not start; the message quotes its log.
    pub fn start() -> Result<Self> {
        let folder =
            TempDir::with_prefix("kvsync-dynamodb-").context(|| "cannot make a temporary folder".to_owned())?;
        let (port, process) = with_free_port(|port| {
            let arguments = ["serve", "--host", "127.0.0.1", "--port", &port.to_string()].map(Into::into).into();
            let process = Process::start(Spec {
                name: "dynoxide",
                program: Tool::Dynoxide.require()?,
                arguments,
                identity: None,
                folder: folder.path().to_owned(),
                ready: "listening on",
                stop: Signal::TERM,
                end: Signal::KILL,
            })?;
            Ok((port, process))
        })?;
        Ok(Self { port, process, _folder: folder })
    }

    /// The endpoint for clients.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Deref for DynamoDb {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}
