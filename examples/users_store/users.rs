//! Users with unique names and addresses, on any store that has the commands.
//!
//! What stands where, for the user 7 named ann:
//!
//! | key | kind | holds |
//! |---|---|---|
//! | `{users}:last` | counter | the last id that was given |
//! | `{users}:id:7` | string | the user |
//! | `{users}:name:ann`, `{users}:email:ann@example.com` | strings | `7`: the marks that make them unique |
//! | `{users}:names` | sorted hash | `ann` -> `7`, all with the same score: the names in the order of their bytes |
//!
//! An atomic write keeps them true to each other. In a cluster it can only span keys of one node, so that all keys
//! have the hash tag `{users}`: that is right, and all users are on one node. To spread them, give each tenant a
//! [`Users::new`] with a tag of its own, if names need to be unique within a tenant only. Where they have to be unique
//! over all nodes, no atomic write does it: then reserve each mark by itself (`set_if_absent_for`, with a time to live),
//! write the user, make the marks last (`set_if_equal`), and let readers follow a mark only if the user confirms it.
//!
//! Names are compared as bytes: bring them into one form (lower case, NFC) before they come here.

use std::fmt::Display;
use std::ops::Bound;
use std::sync::Arc;

use kvsync::codec::{Codec, MessagePack};
use kvsync::store::data::{AtomicWrite, Atomicity, DataCommands, DataStore};
use kvsync::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

/// How often a change begins again because somebody else changed the same user.
const ATTEMPTS: usize = 16;

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub id: i64,
    pub username: String,
    pub email: String,
}

/// What became of an addition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Added {
    /// The user is there.
    Done(User),
    /// Nothing was written, because others have these.
    Taken { username: bool, email: bool },
}

/// What became of a change of the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renamed {
    /// The user has the new name, and the old one is free.
    Done(User),
    /// Somebody else has that name.
    Taken,
    /// There is no such user.
    Missing,
}

/// Some users in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub users: Vec<User>,
    /// Where to go on; nothing after the last page.
    pub next: Option<String>,
}

/// Persistence of users.
#[derive(Debug, Clone)]
pub struct Users<S: ?Sized> {
    store: Arc<S>,
    tag: String,
}

impl<S: DataStore + ?Sized> Users<S> {
    /// Users in this store, under keys that begin with `{tag}`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for a store whose atomic writes span one key: uniqueness needs several.
    pub fn new(store: Arc<S>, tag: &str) -> Result<Self> {
        if store.data_capabilities().atomic == Atomicity::Key {
            let message = format!("{} writes one key at a time; users need several at once", store.name());
            return Err(Error::new(ErrorKind::Config, message));
        }
        Ok(Self { store, tag: format!("{{{tag}}}") })
    }

    /// Adds a user, or says what is taken. After [`ErrorKind::UnknownOutcome`] it may have been added: look by its
    /// name before you try again.
    ///
    /// # Errors
    ///
    /// When the store does not answer.
    pub fn add(&self, username: &str, email: &str) -> Result<Added> {
        // An id that is given and not used is harmless.
        let id = self.store.incr_by(self.key("last", ""), 1)?;
        let user = User { id, username: username.to_owned(), email: email.to_owned() };
        let mut write = AtomicWrite::new();
        let name = write.set_if_absent(self.key("name", username), id.to_string());
        let address = write.set_if_absent(self.key("email", email), id.to_string());
        write.set(self.key("id", &id), MessagePack::encode(&user)?);
        write.zh_add(self.key("names", ""), username, id.to_string(), 0.0);
        let outcome = retried(|| self.store.atomic_write(&write))?;
        if outcome.is_done() {
            return Ok(Added::Done(user));
        }
        let (username, email) = (outcome.refused(name), outcome.refused(address));
        Ok(Added::Taken { username, email })
    }

    /// The users with these ids, in the order asked, in one round trip.
    ///
    /// # Errors
    ///
    /// When the store does not answer, or holds something else there.
    pub fn get_many(&self, ids: &[i64]) -> Result<Vec<Option<User>>> {
        let found = self.store.mget(ids.iter().map(|id| self.key("id", id)))?;
        found.into_iter().map(|bytes| decoded(bytes.as_deref())).collect()
    }

    /// The user of this name.
    ///
    /// # Errors
    ///
    /// As [`get_many`](Self::get_many).
    pub fn by_username(&self, username: &str) -> Result<Option<User>> {
        let Some(id) = self.store.get(self.key("name", username))? else { return Ok(None) };
        let user = self.get_many(&[id_of(&id)?])?.pop().flatten();
        // Two readings: the user may have another name by now.
        Ok(user.filter(|user| user.username == username))
    }

    /// At most `limit` users in the order of their names, those behind `after`. A user that is renamed meanwhile may be on
    /// two pages or on none.
    ///
    /// # Errors
    ///
    /// As [`get_many`](Self::get_many).
    pub fn page(&self, after: Option<&str>, limit: usize) -> Result<Page> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let entries = self.store.zh_range_by_lex(self.key("names", ""), (from, Bound::Unbounded), limit)?;
        let ids = entries.iter().map(|entry| id_of(&entry.value)).collect::<Result<Vec<i64>>>()?;
        let last = entries.last().filter(|_| entries.len() == limit);
        let next = last.map(|entry| String::from_utf8_lossy(&entry.field).into_owned());
        Ok(Page { users: self.get_many(&ids)?.into_iter().flatten().collect(), next })
    }

    /// Gives a user another name; the old one is free from then on.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add); [`ErrorKind::Contention`] when others never stopped to change the user.
    pub fn rename(&self, id: i64, username: &str) -> Result<Renamed> {
        for _ in 0..ATTEMPTS {
            let Some((before, mut user)) = self.standing(id)? else { return Ok(Renamed::Missing) };
            if user.username == username {
                return Ok(Renamed::Done(user));
            }
            let old = std::mem::replace(&mut user.username, username.to_owned());
            let mut write = AtomicWrite::new();
            // What was read still stands, so that the old name is still this user's.
            let unchanged = write.set_if_equal(self.key("id", &id), before, MessagePack::encode(&user)?);
            let name = write.set_if_absent(self.key("name", username), id.to_string());
            write.delete(self.key("name", &old));
            write.zh_rem(self.key("names", ""), [old]);
            write.zh_add(self.key("names", ""), username, id.to_string(), 0.0);
            let outcome = retried(|| self.store.atomic_write(&write))?;
            if outcome.is_done() {
                return Ok(Renamed::Done(user));
            }
            if outcome.refused(name) && !outcome.refused(unchanged) {
                return Ok(Renamed::Taken);
            }
        }
        Err(contention())
    }

    /// Deletes a user; the name and the address are free from then on. Whether there was one.
    ///
    /// # Errors
    ///
    /// As [`rename`](Self::rename).
    pub fn delete(&self, id: i64) -> Result<bool> {
        for _ in 0..ATTEMPTS {
            let Some((before, user)) = self.standing(id)? else { return Ok(false) };
            let mut write = AtomicWrite::new();
            // Nothing, in place of the user: a deletion has no condition on what it deletes.
            write.set_if_equal(self.key("id", &id), before, "");
            write.delete(self.key("name", &user.username));
            write.delete(self.key("email", &user.email));
            write.zh_rem(self.key("names", ""), [user.username]);
            if retried(|| self.store.atomic_write(&write))?.is_done() {
                // Ids are never given again: whoever is killed here leaves an empty string, which reads as absent.
                self.store.delete(self.key("id", &id))?;
                return Ok(true);
            }
        }
        Err(contention())
    }

    /// The user and its bytes.
    fn standing(&self, id: i64) -> Result<Option<(bytes::Bytes, User)>> {
        let Some(bytes) = self.store.get(self.key("id", &id))? else { return Ok(None) };
        Ok(decoded(Some(&bytes))?.map(|user| (bytes, user)))
    }

    fn key(&self, kind: &str, of: &(impl Display + ?Sized)) -> String {
        format!("{}:{kind}:{of}", self.tag)
    }
}

/// The same again while others interfere: nothing was done then.
fn retried<T>(write: impl Fn() -> Result<T>) -> Result<T> {
    let mut outcome = write();
    for _ in 1..ATTEMPTS {
        match &outcome {
            Err(error) if error.kind() == ErrorKind::Contention => outcome = write(),
            _ => break,
        }
    }
    outcome
}

fn decoded(bytes: Option<&[u8]>) -> Result<Option<User>> {
    bytes.filter(|bytes| !bytes.is_empty()).map(MessagePack::decode).transpose()
}

fn id_of(bytes: &[u8]) -> Result<i64> {
    let id = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
    id.ok_or_else(|| Error::new(ErrorKind::Corrupt, "what should be the id of a user is none"))
}

fn contention() -> Error {
    Error::new(ErrorKind::Contention, "others changed the same user again and again; try again")
}
