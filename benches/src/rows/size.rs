//! Stored bytes ÷ BSON.

use kvsync::codec::{Bson, Codec, MessagePack};
use serde::Serialize;

use crate::Result;
use crate::models::{series, user};
use crate::options::Options;
use crate::table::{Figure, Goal, Spread, Unit};

const ROWS: u32 = 1000;

pub(crate) fn run(_: &Options) -> Result<Vec<Figure>> {
    let series: Vec<_> = (1..=ROWS).map(series).collect();
    let users: Vec<_> = (1..=1000).map(user).collect();
    Ok(vec![
        body("lists and numbers", &series, Goal::AtMost(0.75))?,
        body("user {id, uuid, username}", &users, Goal::AtMost(0.9))?,
    ])
}

#[allow(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
fn body<T: Serialize>(model: &str, rows: &[T], goal: Goal) -> Result<Figure> {
    let (mut ratios, mut ours, mut theirs) = (Vec::new(), 0, 0);
    for row in rows {
        let (stored, bson) = (MessagePack::encode(row)?.len(), Bson::encode(row)?.len());
        ratios.push(stored as f64 / bson as f64);
        (ours, theirs) = (ours + stored, theirs + bson);
    }
    Ok(Figure {
        what: format!("bytes of a body ÷ BSON, {model}"),
        spread: Spread::of(ratios),
        unit: Unit::Ratio,
        goal,
        sides: format!("{} B : {} B", ours / rows.len(), theirs / rows.len()),
    })
}
