//! What a message tells of a change beside what stores take.

use std::sync::Arc;

use bytes::Bytes;

use super::apply::Job;
use super::encode::Encoder;
use crate::change::{Change, Row};
use crate::key::Key;
use crate::model::{Model, guarded};
use crate::record::Form;
use crate::transport::MessageFormat;
use crate::transport::message::About;

impl Encoder {
    /// The job of a change whose form is known. `home` names its row.
    pub(crate) fn job(&self, form: Form, change: &Change, home: &Key) -> Job {
        self.address(Job::new(form), change, home, true)
    }

    /// The same job as one that is published, where this encoder is a broker's. `with_row` is whether the message may
    /// tell of the row's content.
    pub(crate) fn address(&self, job: Job, change: &Change, home: &Key, with_row: bool) -> Job {
        match self.publishes {
            Some(format) => job.published_as(self.about(change, home, format, with_row)),
            None => job,
        }
    }

    /// A panic of the model's code costs what only it could tell.
    fn about(&self, change: &Change, home: &Key, format: MessageFormat, with_row: bool) -> About {
        let schema = change.schema;
        let primary_key = guarded(schema, || change.row.primary_key().text());
        let (last, json) = match &change.row {
            Row::Live(row) if with_row => (None, json(&**row, format)),
            Row::Hidden(row) | Row::Deleted { row, .. } if with_row => {
                (guarded(schema, || self.value(&**row)).ok().and_then(Result::ok), json(&**row, format))
            }
            _ => (None, None),
        };
        About {
            database: Arc::clone(&change.database),
            table: schema.table.into(),
            model: schema.model.into(),
            scope: change.scope.clone(),
            action: change.action,
            primary_key: primary_key.unwrap_or_else(|_| home.as_str().to_owned()),
            home: home.clone(),
            version: change.version,
            captured_at: change.captured_at,
            last,
            json,
            nonce: rand::random(),
        }
    }
}

/// The row's fields as an object, where messages have them.
#[cfg(feature = "json")]
fn json(row: &dyn Model, format: MessageFormat) -> Option<Bytes> {
    if format != MessageFormat::Json {
        return None;
    }
    guarded(row.schema(), || row.json()).ok().and_then(Result::ok).map(Bytes::from)
}

#[cfg(not(feature = "json"))]
fn json(_: &dyn Model, _: MessageFormat) -> Option<Bytes> {
    None
}
