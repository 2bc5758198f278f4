//! Ids for prepared statements that are told apart by their text.
//!
//! Diesel keeps prepared statements under the id of the statement's type, or under the text and the
//! types of the binds, which takes time to build and to compare at each execution. So a text that was
//! seen before gets a type of its own.

use std::any::TypeId;

/// The ids; a connection keeps no more prepared statements of this kind than there are.
pub(super) static SLOTS: [TypeId; 256] = ids();

struct Slot<const HIGH: u8, const LOW: u8>;

const fn row<const HIGH: u8>() -> [TypeId; 16] {
    macro_rules! row {
        ($($low:literal)*) => { [$(TypeId::of::<Slot<HIGH, $low>>()),*] };
    }
    row!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
}

#[allow(clippy::indexing_slicing, reason = "computed at compile time")]
const fn ids() -> [TypeId; 256] {
    macro_rules! rows {
        ($($high:literal)*) => { [$(row::<$high>()),*] };
    }
    let rows = rows!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    let mut ids = [rows[0][0]; 256];
    let mut at = 0;
    while at < 256 {
        ids[at] = rows[at / 16][at % 16];
        at += 1;
    }
    ids
}
