//! Whether the store may be written to: it answers, its epoch is known, and it takes something at all.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Shared;
use crate::clock::millis;
use crate::envelope::State;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::record::{Content, Delta, Form, register};
use crate::transport::message::About;
use crate::version::Version;
use crate::worker::{Applier, Job, Target, terms};

/// How far ahead of the store's the epoch of a message may be, so that it is believed.
const AHEAD: u32 = 16;
/// What is written to see whether a store takes anything: a record, and an entry that is none.
const TRIAL: [&str; 2] = ["!trial", "!trial:entry"];

impl Shared {
    /// Reads the epoch of the store, lets the store follow a higher one that was told, and, where it has refused
    /// something, finds out whether it takes anything.
    ///
    /// # Errors
    ///
    /// When the store did not answer, or takes nothing.
    pub(super) fn meet(&self, told: u32) -> Result<()> {
        let Some(store) = &self.store else { return Ok(()) };
        let known = self.epoch.load(Ordering::Acquire);
        if self.met.load(Ordering::Acquire) && told <= known {
            return Ok(());
        }
        let read_before = store.epoch()?;
        let mut read = read_before;
        let wanted = told.max(known);
        if read < wanted {
            read = store.raise_epoch(wanted)?;
        }
        let before = self.epoch.fetch_max(read.max(wanted), Ordering::AcqRel);
        if told > read_before.max(before) {
            // Of all workers, the one that was first.
            tracing::warn!(
                store = store.name(),
                queue = &*self.name,
                "a message raised the epoch from {read_before} to {told}: entries of the store from before read as unknown, \
                 and what lower epochs publish is a dead letter; after a restore fill the store in (backfill, repair), \
                 otherwise find the publisher that is of epoch {told} and let all others follow it (`epoch`)"
            );
        }
        if self.refused.load(Ordering::Acquire) {
            self.try_store()?;
        }
        self.store_is_well();
        self.met.store(true, Ordering::Release);
        Ok(())
    }

    /// Writes what no reader ever sees, in the same way as rows are written. What a store that refuses this refuses, it
    /// refuses whatever it is; what another one refuses, it refuses for what it is.
    ///
    /// # Errors
    ///
    /// Why the store takes nothing.
    pub(super) fn try_store(&self) -> Result<()> {
        let Some(store) = &self.store else { return Ok(()) };
        self.refused.store(true, Ordering::Release);
        let terms = terms(&*self.clock, &self.retention);
        // Newer than what stands there, or nothing would be written.
        let now = millis(std::time::SystemTime::now()).saturating_mul(1000);
        let version = Version::new(self.epoch.load(Ordering::Acquire), 0, now);
        let [home, key] = TRIAL.map(Key::new);
        let delta = Delta { home, version, content: Content::Delete, gone: Vec::new() };
        let write = register(key, version, State::Tombstone, &terms);
        let mut jobs = [Job::new(Form::Row(delta)), Job::new(Form::Registers(vec![write]))];
        let mut applier = Applier::new(Target::Store(Arc::clone(store)), Arc::clone(&self.clock), self.retention);
        let round = applier.round(&mut jobs.iter_mut().collect::<Vec<_>>());
        if let Some(error) = round.error {
            return Err((*error).clone());
        }
        self.refused.store(false, Ordering::Release);
        Ok(())
    }

    /// Whether the epoch of a message is believed. Otherwise one that is damaged or a mistake would shut out whatever
    /// others publish, for good: an epoch is never lowered.
    pub(super) fn believes(&self, epoch: u32) -> bool {
        self.store.is_none() || epoch <= self.epoch.load(Ordering::Acquire).saturating_add(AHEAD)
    }

    pub(super) fn unbelievable(&self, about: &About) -> Error {
        let (own, known) = (about.version.epoch(), self.epoch.load(Ordering::Acquire));
        let message = format!(
            "it is of epoch {own}, and the store's is {known}: too far ahead to be believed; give `.epoch({own})` to \
             the builder of the consumer if it is right, or mend its publisher"
        );
        Error::new(ErrorKind::Rejected, message)
    }
}
