//! How others look into a store that one process owns: over a unix socket, a question a connection.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use kvsync::store::SyncStore;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::view::{Direct, View};

/// Longer than any pause of the owner.
const PATIENCE: Duration = Duration::from_mins(1);

#[derive(Serialize, Deserialize)]
enum Question {
    Get(Vec<String>),
    Keys,
}

#[derive(Serialize, Deserialize)]
enum Answer {
    Entries(Vec<Option<Vec<u8>>>),
    Keys(Vec<String>),
    Failed(String),
}

/// Answers for this store from now on, until the process ends.
pub(crate) fn serve(store: Arc<dyn SyncStore>, socket: &Path) -> Outcome {
    // The owner before this one was killed and left it.
    if socket.exists() {
        std::fs::remove_file(socket)?;
    }
    let listener = UnixListener::bind(socket)?;
    let view = Direct(store);
    thread::Builder::new().name("torture-serve".into()).spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever asked and went away asks again.
            let _ = answer(&view, stream);
        }
    })?;
    Ok(())
}

fn answer(view: &Direct, mut stream: UnixStream) -> Outcome {
    stream.set_read_timeout(Some(PATIENCE))?;
    let answer = match receive(&mut stream)? {
        Question::Get(keys) => view.get(&keys).map(|entries| {
            Answer::Entries(entries.into_iter().map(|entry| entry.map(|bytes| bytes.to_vec())).collect())
        }),
        Question::Keys => view.keys().map(Answer::Keys),
    };
    send(&mut stream, &answer.unwrap_or_else(|error| Answer::Failed(error.to_string())))
}

/// A store that another process owns.
pub(crate) struct Remote(pub(crate) PathBuf);

impl Remote {
    fn ask(&self, question: &Question) -> Outcome<Answer> {
        let mut stream = UnixStream::connect(&self.0)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        send(&mut stream, question)?;
        match receive(&mut stream)? {
            Answer::Failed(error) => Err(error.into()),
            answer => Ok(answer),
        }
    }
}

impl View for Remote {
    fn get(&self, keys: &[String]) -> Outcome<Vec<Option<Bytes>>> {
        match self.ask(&Question::Get(keys.to_vec()))? {
            Answer::Entries(entries) => Ok(entries.into_iter().map(|entry| entry.map(Bytes::from)).collect()),
            _ => Err("the owner answered another question".into()),
        }
    }

    fn keys(&self) -> Outcome<Vec<String>> {
        match self.ask(&Question::Keys)? {
            Answer::Keys(keys) => Ok(keys),
            _ => Err("the owner answered another question".into()),
        }
    }
}

fn send<T: Serialize>(stream: &mut UnixStream, message: &T) -> Outcome {
    let bytes = rmp_serde::to_vec(message)?;
    stream.write_all(&u32::try_from(bytes.len())?.to_be_bytes())?;
    Ok(stream.write_all(&bytes)?)
}

fn receive<T: DeserializeOwned>(stream: &mut UnixStream) -> Outcome<T> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; usize::try_from(u32::from_be_bytes(length))?];
    stream.read_exact(&mut bytes)?;
    Ok(rmp_serde::from_slice(&bytes)?)
}
