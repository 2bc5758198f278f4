use std::time::Duration;

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::record::Terms;
use crate::store::{Capabilities, Cursor, Health, Outcome, Page, Status, Step, Store, SyncStore};

/// In the place of a store where there are brokers only: whatever is asked of it fails.
#[derive(Debug)]
pub(super) struct NoStore;

fn none() -> Error {
    let message = "this handle publishes only: no store was given; call `.store(..)` on the builder to fetch";
    Error::new(ErrorKind::Config, message)
}

impl Store for NoStore {
    fn name(&self) -> &'static str {
        "no store"
    }

    fn health(&self, _: Duration) -> Health {
        Health::new(Status::Down, vec![none().to_string()])
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }
}

impl SyncStore for NoStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(usize::MAX, usize::MAX, usize::MAX)
    }

    fn execute(&self, steps: &[Step], _: &Terms) -> Vec<Result<Outcome>> {
        steps.iter().map(|_| Err(none())).collect()
    }

    fn get_many(&self, _: &[Key]) -> Result<Vec<Option<Bytes>>> {
        Err(none())
    }

    fn scan(&self, _: &str, _: Option<Cursor>, _: usize) -> Result<Page> {
        Err(none())
    }

    fn epoch(&self) -> Result<u32> {
        Err(none())
    }

    fn raise_epoch(&self, _: u32) -> Result<u32> {
        Err(none())
    }
}
