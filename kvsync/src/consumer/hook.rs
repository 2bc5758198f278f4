//! What the application does with changes of its own models.

use std::error::Error as StdError;
use std::fmt;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, ErrorKind};
use crate::model::{Syncable, panic_message};
use crate::transport::ChangeMessage;

/// A change that a consumer received, as a hook is told of it. What the message says is read through it:
/// [`action`](ChangeMessage::action), [`primary_key`](ChangeMessage::primary_key), [`keys`](ChangeMessage::keys),
/// [`version`](ChangeMessage::version).
pub struct Received<'a, M> {
    row: Option<M>,
    message: &'a ChangeMessage,
    superseded: bool,
    redelivered: u32,
}

impl<M> Received<'_, M> {
    /// The row as it was written, or as it was last before it was deleted or hidden; nothing where the message does
    /// not tell.
    #[must_use]
    pub fn row(&self) -> Option<&M> {
        self.row.as_ref()
    }

    /// Whether the store held something newer of the row when the change came. That it did not says nothing about
    /// other workers: a hook that keeps a copy of the row of its own compares [`version`](ChangeMessage::version)s there.
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        self.superseded
    }

    /// How often it was delivered before, as far as the broker tells. A hook may have been called for it then, also
    /// with success.
    #[must_use]
    pub fn redelivered(&self) -> u32 {
        self.redelivered
    }
}

impl<M> Deref for Received<'_, M> {
    type Target = ChangeMessage;

    fn deref(&self) -> &ChangeMessage {
        self.message
    }
}

impl<M> fmt::Debug for Received<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received").field("message", self.message).finish_non_exhaustive()
    }
}

/// Why a hook failed; `?` makes it of any error.
pub type HookError = Box<dyn StdError + Send + Sync>;

/// What became of a hook's call.
pub(super) enum Called {
    Well,
    /// Another call may help.
    Failed(Error),
    /// The row cannot be read as the hook's model.
    Unreadable(Error),
}

type Call = Box<dyn Fn(&ChangeMessage, bool, u32) -> Called + Send + Sync>;

/// A callback for the changes of one model.
pub(super) struct Hook {
    table: &'static str,
    pub(super) model: &'static str,
    call: Call,
}

impl Hook {
    pub(super) fn new<M: Syncable>(
        hook: impl Fn(&Received<'_, M>) -> Result<(), HookError> + Send + Sync + 'static,
    ) -> Self {
        let call = move |message: &ChangeMessage, superseded, redelivered| {
            let row = match message.decode_row::<M>() {
                Ok(row) => row,
                Err(error) => return Called::Unreadable(error),
            };
            let failed = |message| Error::new(ErrorKind::Rejected, message);
            let of_model = M::SCHEMA.model;
            match catch_unwind(AssertUnwindSafe(|| hook(&Received { row, message, superseded, redelivered }))) {
                Ok(Ok(())) => Called::Well,
                Ok(Err(error)) => Called::Failed(failed(format!("a hook of `{of_model}` failed")).with_source(error)),
                Err(panic) => {
                    Called::Failed(failed(format!("a hook of `{of_model}` panicked: {}", panic_message(&*panic))))
                }
            }
        };
        Self { table: M::SCHEMA.table, model: M::SCHEMA.model, call: Box::new(call) }
    }

    /// Whether it is about the model of this message.
    pub(super) fn is_of(&self, message: &ChangeMessage) -> bool {
        (self.table, self.model) == (message.table(), message.model())
    }

    pub(super) fn call(&self, message: &ChangeMessage, superseded: bool, redelivered: u32) -> Called {
        (self.call)(message, superseded, redelivered)
    }
}
