//! The engine of the commands: the data of a folder.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use super::folder::Folder;
use super::tree::{Data, MAX_KEY};
use crate::error::Result;
use crate::store::data::Direction;
use crate::store::ordered::{Between, Engine, Limits, Overlay, Reader, Writer};
use crate::store::{Health, Store};

impl Store for Folder {
    fn name(&self) -> &str {
        &self.name
    }

    fn health(&self, _deadline: Duration) -> Health {
        self.health()
    }

    fn close(&self) -> Result<()> {
        self.close()
    }
}

impl Engine for Folder {
    fn limits(&self) -> Limits {
        Limits { key: MAX_KEY, value: super::MAX_VALUE, transaction: usize::MAX, batch: 4096 }
    }

    fn read<T>(&self, work: impl Fn(&dyn Reader) -> Result<T>) -> Result<T> {
        self.reading(|tree| Ok(work(&State { data: tree.data(), dir: &self.dir })))?
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.reading(|tree| tree.data_entry(key))
    }

    fn write<T>(&self, work: impl Fn(&mut dyn Writer) -> Result<T>) -> Result<T> {
        self.writing(|tree| {
            let mut overlay = Overlay::new(State { data: tree.data_to_write(), dir: &self.dir });
            let answer = work(&mut overlay);
            if answer.is_ok() {
                tree.commit_data(overlay.into_changes(), self.sync)?;
            }
            Ok(answer)
        })?
    }
}

struct State<'a> {
    data: Data<'a>,
    dir: &'a Path,
}

impl Reader for State<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.data.get(key).map_err(|fault| fault.error(self.dir))
    }

    /// Nothing is waited for.
    fn prefetch(&self, _keys: &mut dyn Iterator<Item = Vec<u8>>) {}

    fn range(&self, between: Between<'_>, direction: Direction, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        self.data.range(between, direction == Direction::Reverse, limit).map_err(|fault| fault.error(self.dir))
    }
}
