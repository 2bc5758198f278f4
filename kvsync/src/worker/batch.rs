use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::apply::Job;
use super::encode::{Encoded, Encoder, home_of, unknown_form, unknown_of};
use crate::change::{Change, Row};
use crate::error::Error;
use crate::key::Key;
use crate::record::{Content, Delta, Form, Terms, Write};
use crate::transport::{Delivery, Part};
use crate::version::Version;

/// A delivery whose changes are being written. It is acknowledged when the last of them is finished, and
/// delivered again when it is dropped before.
#[derive(Debug)]
pub(crate) struct Claim {
    delivery: RefCell<Option<Delivery>>,
    part: Part,
    left: Cell<usize>,
    error: RefCell<Option<Arc<Error>>>,
    taken: Instant,
}

/// The changes of one row in a batch, and what is written for all of them.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) home: Key,
    pub(crate) members: Vec<Member>,
    /// What is certain of the row; for a row without a record, what goes under all its keys.
    pub(crate) certain: Option<Job>,
    /// The mark of a newer change whose content is not known.
    pub(crate) unknown: Option<Job>,
    /// Keys that the store cannot hold.
    pub(crate) left_out: Vec<(Key, Arc<Error>)>,
}

/// A change in a batch.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) claim: Rc<Claim>,
    pub(crate) index: usize,
    pub(crate) role: Role,
    /// Whether nothing newer makes it needless.
    stands: bool,
    /// Why the change is not written as it is.
    pub(crate) error: Option<Arc<Error>>,
}

/// Which changes can no longer be written as they are, so that their rows have to be read again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Past {
    /// Captured before this: the records that would refuse it may have been forgotten.
    pub(crate) before: SystemTime,
    /// Of an epoch before this: it does not compare with what was written since.
    pub(crate) epoch: u32,
}

impl Past {
    fn holds(&self, change: &Change) -> bool {
        change.captured_at < self.before || change.version.epoch() < self.epoch
    }
}

/// The part that a change plays among those of its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It is written.
    Certain,
    /// Its row is written as unknown, and read again.
    Unknown,
    /// A newer one of the same batch makes it needless.
    Outdone,
    /// Not even its row can be told, because the model's code panics.
    Broken,
}

impl Claim {
    pub(crate) fn new(delivery: Delivery) -> Rc<Self> {
        let part = delivery.part().clone();
        Rc::new(Self {
            left: Cell::new(part.changes.len()),
            delivery: RefCell::new(Some(delivery)),
            part,
            error: RefCell::default(),
            taken: Instant::now(),
        })
    }

    pub(crate) fn part(&self) -> &Part {
        &self.part
    }

    /// One change is finished, or has failed for good. After the last of them, the delivery and the
    /// first failure.
    pub(crate) fn finish(&self, error: Option<Arc<Error>>) -> Option<(Delivery, Option<Arc<Error>>)> {
        if let Some(error) = error {
            self.error.borrow_mut().get_or_insert(error);
        }
        self.left.set(self.left.get().saturating_sub(1));
        if self.left.get() > 0 {
            return None;
        }
        let error = self.error.borrow_mut().take();
        self.delivery.borrow_mut().take().map(|delivery| (delivery, error))
    }

    /// How long the part waited for a worker.
    pub(crate) fn queued(&self) -> Duration {
        self.taken.saturating_duration_since(self.part.published)
    }

    /// How long it has been with the worker.
    pub(crate) fn writing(&self) -> Duration {
        self.taken.elapsed()
    }
}

impl Member {
    /// A change of this claim.
    pub(crate) fn new(claim: &Rc<Claim>, index: usize) -> Self {
        Self { claim: Rc::clone(claim), index, role: Role::Certain, stands: false, error: None }
    }

    /// The same changes, as they were before they were sorted into tasks.
    pub(crate) fn anew(members: Vec<Self>) -> Vec<Self> {
        members.into_iter().map(|member| Self::new(&member.claim, member.index)).collect()
    }

    pub(crate) fn change(&self) -> Option<&Change> {
        self.claim.part.changes.get(self.index)
    }

    fn version(&self) -> Version {
        self.change().map_or(Version::ZERO, |change| change.version)
    }

    fn fail(&mut self, role: Role, error: Error) {
        (self.role, self.error) = (role, Some(Arc::new(error)));
    }
}

impl Task {
    /// The jobs that are under way.
    pub(crate) fn jobs(&mut self) -> impl Iterator<Item = &mut Job> {
        self.certain.iter_mut().chain(&mut self.unknown).filter(|job| job.fate.is_none())
    }

    /// Whether a change is to be written whose time has passed since the task was made.
    pub(crate) fn is_late(&self, past: &Past) -> bool {
        let is_late =
            |member: &Member| member.role == Role::Certain && member.change().is_some_and(|it| past.holds(it));
        self.certain.as_ref().is_some_and(Job::is_unwritten) && self.members.iter().any(is_late)
    }

    /// How often the store was asked.
    pub(crate) fn attempts(&self) -> u32 {
        self.certain.iter().chain(&self.unknown).map(|job| job.attempts).max().unwrap_or(0)
    }

    /// Whether nothing is left to write.
    pub(crate) fn is_done(&self) -> bool {
        self.certain.iter().chain(&self.unknown).all(|job| job.fate.is_some())
    }
}

/// Sorts changes into one task for each row: the highest certain version that can be encoded is written,
/// with all the keys that lower ones certainly took from the row, and a mark where a higher one is
/// unknown. A change that is past counts as unknown.
pub(crate) fn tasks(members: Vec<Member>, encoder: &Encoder, terms: &Terms, past: Past) -> Vec<Task> {
    let mut tasks: Vec<Task> = Vec::with_capacity(members.len());
    let mut places: HashMap<Key, usize> = HashMap::with_capacity(members.len());
    for mut member in members {
        let Some(change) = member.change() else { continue };
        match home_of(change) {
            Ok(home) => {
                if matches!(change.row, Row::Unknown(_)) || past.holds(change) {
                    member.role = Role::Unknown;
                }
                let place = if encoder.publishes.is_some() {
                    // Whoever receives them is told of every change.
                    tasks.push(Task::new(home));
                    tasks.len() - 1
                } else {
                    *places.entry(home).or_insert_with_key(|home| {
                        tasks.push(Task::new(home.clone()));
                        tasks.len() - 1
                    })
                };
                if let Some(task) = tasks.get_mut(place) {
                    task.members.push(member);
                }
            }
            Err(error) => {
                member.fail(Role::Broken, error);
                let mut task = Task::new(Key::new(""));
                task.members.push(member);
                tasks.push(task);
            }
        }
    }
    for task in &mut tasks {
        task.encode(encoder, terms);
        task.address(encoder);
    }
    tasks
}

impl Task {
    fn new(home: Key) -> Self {
        Self { home, members: Vec::new(), certain: None, unknown: None, left_out: Vec::new() }
    }

    fn encode(&mut self, encoder: &Encoder, terms: &Terms) {
        match self.members.first().and_then(Member::change).map(|change| change.schema.has_mutable_key()) {
            Some(true) => self.encode_record(encoder, terms),
            Some(false) => self.encode_registers(encoder, terms),
            None => {}
        }
    }

    /// Says of jobs that are published what they are about.
    fn address(&mut self, encoder: &Encoder) {
        let [member] = self.members.as_slice() else { return };
        let Some(change) = member.change() else { return };
        let with_row = member.role == Role::Certain;
        let told = |job| encoder.address(job, change, &self.home, with_row);
        self.certain = self.certain.take().map(told);
        self.unknown = self.unknown.take().map(told);
    }

    fn encode_record(&mut self, encoder: &Encoder, terms: &Terms) {
        // Stable: of two changes of one version the first stands, as in the merge.
        self.members.sort_by_key(|member| std::cmp::Reverse(member.version()));
        let mut written: Option<Delta> = None;
        for member in self.members.iter_mut().filter(|member| member.role == Role::Certain) {
            let Some(change) = member.claim.part.changes.get(member.index) else { continue };
            let takes_keys = matches!(change.row, Row::Deleted { live: true, .. });
            if written.is_some() && !takes_keys {
                member.role = Role::Outdone;
                continue;
            }
            match (encoder.certain_at(change, &self.home, terms), &mut written) {
                (Ok(whole), None) => {
                    if let Form::Row(delta) = whole.form {
                        written = Some(delta);
                    }
                    self.left_out = whole.left_out;
                }
                (Ok(whole), Some(newer)) => {
                    if let Form::Row(delta) = whole.form {
                        newer.gone.extend(delta.gone);
                    }
                    member.role = Role::Outdone;
                }
                (Err(error), None) => member.fail(Role::Unknown, error),
                (Err(_), Some(_)) => member.role = Role::Outdone,
            }
        }
        let certain = written.as_ref().map(|delta| delta.version);
        let unknown = self.members.iter_mut().filter(|member| member.role == Role::Unknown);
        let mut mark = None;
        for member in unknown {
            if certain.is_some_and(|certain| certain >= member.version()) {
                member.role = Role::Outdone;
            } else {
                mark = mark.max(Some(member.version()));
            }
        }
        self.certain = written.map(|delta| Job::new(Form::Row(delta)));
        self.unknown = mark.map(|version| {
            let content = Content::Unknown;
            Job::new(Form::Row(Delta { home: self.home.clone(), version, content, gone: Vec::new() }))
        });
    }

    fn encode_registers(&mut self, encoder: &Encoder, terms: &Terms) {
        // Most rows of a batch were changed once.
        if let [member] = self.members.as_slice()
            && member.role == Role::Certain
            && let Some(change) = member.change()
            && let Ok(Encoded { form: form @ Form::Registers(_), left_out }) =
                encoder.certain_at(change, &self.home, terms)
        {
            (self.certain, self.left_out) = (Some(Job::new(form)), left_out);
            return;
        }
        let mut newest: HashMap<Key, Write> = HashMap::new();
        for member in &mut self.members {
            let claim = Rc::clone(&member.claim);
            let Some(change) = claim.part.changes.get(member.index) else { continue };
            let form = match member.role {
                Role::Certain => encoder.certain_at(change, &self.home, terms).map(|whole| {
                    self.left_out.extend(whole.left_out);
                    whole.form
                }),
                _ => unknown_registers(change, terms),
            };
            let form = form.or_else(|error| {
                member.fail(Role::Unknown, error);
                unknown_registers(change, terms)
            });
            match form {
                Ok(Form::Registers(writes)) => {
                    // Of a row that is not known, no key may be known either: it is read again all the same.
                    member.stands = member.role == Role::Unknown && writes.is_empty();
                    for write in writes {
                        let stands = newest.get(&write.key);
                        if stands.is_none_or(|stands| write.order.replaces(&write.head, &stands.head)) {
                            newest.insert(write.key.clone(), write);
                        }
                    }
                }
                Ok(Form::Row(_)) => {}
                Err(error) => member.fail(Role::Broken, error),
            }
        }
        for member in &mut self.members {
            if member.role != Role::Broken
                && !member.stands
                && !newest.values().any(|write| write.head.version == member.version())
            {
                member.role = Role::Outdone;
            }
        }
        if !newest.is_empty() {
            self.certain = Some(Job::new(Form::Registers(newest.into_values().collect())));
        }
    }
}

fn unknown_registers(change: &Change, terms: &Terms) -> Result<Form, Error> {
    let unknown = unknown_of(change)?;
    let home = unknown.primary_key.home();
    Ok(unknown_form(change.schema, &change.scope, home, change.version, &unknown.kept, terms))
}
