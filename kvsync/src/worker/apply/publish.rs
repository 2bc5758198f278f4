//! The leg of a change that goes to a broker: one message, and its confirmation.

use std::sync::Arc;

use super::job::{Job, REFUSALS, Stage};
use super::{Applier, Round};
use crate::envelope::State;
use crate::error::{Error, ErrorKind};
use crate::record::{Content, Form, Terms, register};
use crate::report::Outcome as Fate;
use crate::transport::message::ChangeMessage;
use crate::transport::{Broker, Message, MessageFormat};

impl Applier {
    /// Publishes every job that is under way. What is not confirmed is left for a later round.
    pub(super) fn publish(&self, broker: &dyn Broker, format: MessageFormat, jobs: &mut [&mut Job]) -> Round {
        let (mut round, terms, most) = (Round::default(), self.terms(), broker.max_body());
        let (mut messages, mut owners) = (Vec::with_capacity(jobs.len()), Vec::with_capacity(jobs.len()));
        for (owner, job) in jobs.iter_mut().enumerate() {
            if let Some(message) = job.message(format, most, &terms) {
                messages.push(message);
                owners.push(owner);
            }
        }
        if messages.is_empty() {
            return round;
        }
        let mut answers = broker.publish(&messages).into_iter();
        for owner in owners {
            let answer = answers.next().unwrap_or_else(|| {
                let message = format!("{} answered too few messages", broker.name());
                Err(Error::new(ErrorKind::UnknownOutcome, message))
            });
            let answer = answer.map_err(Arc::new);
            match &answer {
                Ok(()) => round.answered = true,
                Err(error) => round.error = Some(Arc::clone(error)),
            }
            if let Some(job) = jobs.get_mut(owner) {
                job.published(answer, &terms);
            }
        }
        round
    }
}

impl Job {
    /// What is to be published. A change that has no message, or one that is too large, is told as unknown.
    fn message(&mut self, format: MessageFormat, most: usize, terms: &Terms) -> Option<Message> {
        if self.fate.is_none() {
            self.attempts = self.attempts.saturating_add(1);
        }
        while self.fate.is_none() {
            let Stage::Publish(change) = &self.stage else { return None };
            match change.encode(format, most) {
                Ok(message) => return Some(message),
                Err(error) => self.untold(Arc::new(error), terms),
            }
        }
        None
    }

    /// Takes the broker's answer.
    fn published(&mut self, answer: Result<(), Arc<Error>>, terms: &Terms) {
        let Stage::Publish(change) = &self.stage else { return };
        match answer {
            Ok(()) => self.fate = Some(if change.is_unknown() { Fate::Masked } else { Fate::Published }),
            Err(error) if error.kind() == ErrorKind::Rejected => self.untold(error, terms),
            // It concerns whatever is published; no change is lost for it.
            Err(_) => {}
        }
    }

    /// The broker takes no such message: a smaller one says that the row is not known. When that is refused too, the
    /// change has failed.
    fn untold(&mut self, error: Arc<Error>, terms: &Terms) {
        self.refusals += 1;
        self.error = Some(error);
        let Stage::Publish(change) = &mut self.stage else { return };
        if self.refusals > REFUSALS {
            self.fate = Some(Fate::Failed);
        } else if !change.is_unknown() {
            change.forget(terms);
        }
    }
}

impl ChangeMessage {
    /// Lets go of the row's content.
    fn forget(&mut self, terms: &Terms) {
        (self.about.last, self.about.json) = (None, None);
        match &mut self.form {
            Form::Row(delta) => delta.content = Content::Unknown,
            Form::Registers(writes) => {
                for write in writes.iter_mut().filter(|write| write.head.state == State::Value) {
                    *write = register(write.key.clone(), write.head.version, State::Unknown, terms);
                }
            }
        }
    }
}
