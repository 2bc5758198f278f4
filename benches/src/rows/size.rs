//! Stored bytes ÷ BSON.

use kvsync::codec::{Bson, Codec, MessagePack};
use kvsync::envelope::{Envelope, Head, State, Value};
use kvsync::{Syncable, Version};

use crate::Result;
use crate::models::{series, user};
use crate::options::Options;
use crate::table::{Figure, Goal, Spread, Unit};

const ROWS: u32 = 1000;

pub(crate) fn run(_: &Options) -> Result<Vec<Figure>> {
    let series: Vec<_> = (1..=ROWS).map(series).collect();
    let users: Vec<_> = (1..=1000).map(user).collect();
    let mut figures = sizes("lists and numbers", &series, Goal::AtMost(0.75))?;
    figures.extend(sizes("user {id, uuid, username}", &users, Goal::AtMost(0.9))?);
    Ok(figures)
}

/// The body alone, and the whole envelope as it stands under a key that is not the row's record.
#[allow(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
fn sizes<M: Syncable>(model: &str, rows: &[M], goal: Goal) -> Result<Vec<Figure>> {
    let head = Head { version: Version::ZERO, state: State::Value, expires_at: 0 };
    let (mut bodies, mut envelopes, mut bson) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        let body = MessagePack::encode(row)?;
        envelopes.push(Envelope::encode(&head, None, &Value::model(MessagePack::ID, M::SCHEMA.fields, &body)).len());
        bodies.push(body.len());
        bson.push(Bson::encode(row)?.len());
    }
    let mean = |sizes: &[usize]| sizes.iter().sum::<usize>() / sizes.len();
    let figure = |what: &str, ours: &[usize], goal| Figure {
        what: format!("bytes of {what} ÷ BSON, {model}"),
        spread: Spread::of(ours.iter().zip(&bson).map(|(ours, bson)| *ours as f64 / *bson as f64).collect()),
        unit: Unit::Ratio,
        goal,
        sides: format!("{} B : {} B", mean(ours), mean(&bson)),
    };
    Ok(vec![figure("a body", &bodies, goal), figure("a whole envelope", &envelopes, Goal::Reported)])
}
