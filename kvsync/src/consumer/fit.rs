//! What of a change a store can hold.

use crate::envelope::State;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::record::{Content, Form, Terms, register};
use crate::store::Capabilities;

/// What an envelope and a ledger may add to a row's bytes, keys apart.
const OVERHEAD: usize = 128;

/// Leaves out keys that are too long, and the content of a row that is too large. Says what was left out.
///
/// # Errors
///
/// [`ErrorKind::Rejected`] when the store cannot hold as much as the key that names the row.
pub(super) fn fit(form: &mut Form, store: &str, able: &Capabilities, terms: &Terms) -> Result<Option<Error>> {
    let too_large = |what: &str, key: &Key, size: usize, most: usize| {
        let message =
            format!("{what} `{key}` takes {size} bytes, {store} holds at most {most}; readers ask the database");
        Error::new(ErrorKind::Rejected, message)
    };
    let mut left_out = None;
    let mut fits = |key: &Key| {
        let size = key.as_str().len();
        if size > able.max_key {
            left_out = Some(too_large("the key", key, size, able.max_key));
        }
        size <= able.max_key
    };
    match form {
        Form::Row(delta) => {
            if !fits(&delta.home) {
                return left_out.map_or(Ok(None), Err);
            }
            delta.gone.retain(|(key, _)| key.as_str().len() <= able.max_key);
            if let Content::Put { value, keys, .. } = &mut delta.content {
                keys.retain(|listed| fits(&listed.key));
                let of_keys: usize = keys.iter().map(|listed| listed.key.as_str().len() + 5).sum();
                let size = value.as_bytes().len() + OVERHEAD + of_keys;
                if size > able.max_value {
                    left_out = Some(too_large("the entry of", &delta.home, size, able.max_value));
                    delta.content = Content::Unknown;
                }
            }
        }
        Form::Registers(writes) => {
            writes.retain(|write| fits(&write.key));
            for write in writes.iter_mut() {
                let size = write.value.as_bytes().len() + OVERHEAD;
                if size > able.max_value {
                    left_out = Some(too_large("the entry of", &write.key, size, able.max_value));
                    *write = register(write.key.clone(), write.head.version, State::Unknown, terms);
                }
            }
        }
    }
    Ok(left_out)
}
