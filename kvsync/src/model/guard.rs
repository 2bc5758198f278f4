//! Runs code of a model's author, which may panic.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Schema;
use crate::error::{Error, ErrorKind, Result};

/// Runs code of the model's author. A panic is an error like any other.
pub(crate) fn guarded<T>(schema: &Schema, code: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|panic| {
        let message = format!("the code of model `{}` panicked: {}", schema.model, panic_message(&*panic));
        Error::new(ErrorKind::Codec, message)
    })
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "it did not say why".to_owned(),
    }
}
