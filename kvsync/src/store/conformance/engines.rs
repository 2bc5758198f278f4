//! What an [`Engine`] promises: transactions that end as if one had come after the other.
//!
//! Where two have to meet, the second one runs within the first, to its end if the engine lets it; so an engine
//! that takes both where it may take one shows it in every run, and not only when threads happen to meet.

use std::cell::Cell;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;

use super::Verdict;
use super::ground::{Checked, check, same};
use super::races::{race, rounds};
use crate::error::{Error, ErrorKind, Result};
use crate::store::data::Direction::{self, Forward, Reverse};
use crate::store::ordered::{Between, Engine, Reader, Writer};

/// Runs the cases of an [`Engine`], each on an engine of its own. One that passes makes an
/// [`OrderedStore`](crate::store::OrderedStore) that passes [`run`](super::run), as far as the engine is concerned: its
/// transactions are met here in every run, and there only when threads happen to meet.
///
/// Needs about a second: an engine with a lock makes a transaction wait that is begun within another.
pub fn run_engine<E: Engine>(fresh: impl Fn() -> E) -> Vec<(&'static str, Verdict)> {
    let verdict = |case: fn(&E) -> Checked| match case(&fresh()) {
        Ok(()) => Verdict::Passed,
        Err(why) => Verdict::Failed(why),
    };
    cases::<E>().into_iter().map(|(name, case)| (name, verdict(case))).collect()
}

type EngineCase<E> = (&'static str, fn(&E) -> Checked);

fn cases<E: Engine>() -> [EngineCase<E>; 9] {
    [
        ("a_range_is_between_its_ends", ranges),
        ("a_transaction_reads_what_it_wrote", own_writes),
        ("work_that_fails_writes_nothing", failed),
        ("no_update_is_lost", lost_update),
        ("no_transaction_rests_on_a_key_that_others_write", skewed_keys),
        ("no_transaction_rests_on_a_key_that_others_create", skewed_absence),
        ("no_transaction_rests_on_a_range_that_others_fill", skewed_range),
        ("a_reading_sees_one_state", one_state),
        ("no_reader_sees_half_a_transaction", halves),
    ]
}

/// How long the second of two transactions may take before it is thought to wait for the first.
const PATIENCE: Duration = Duration::from_millis(200);

fn ok<T>(answer: Result<T>, what: &str) -> Checked<T> {
    answer.map_err(|error| format!("{what} failed: {error}"))
}

fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn put<E: Engine>(engine: &E, entries: &[(&str, &'static str)]) -> Checked {
    let work = |writer: &mut dyn Writer| {
        for (key, value) in entries {
            writer.put((*key).into(), text(value));
        }
        Ok(())
    };
    ok(engine.write(work), "a transaction")
}

/// What stands under some keys, in one state.
fn stand<E: Engine, const N: usize>(engine: &E, keys: [&str; N]) -> Checked<[bool; N]> {
    let work = |reader: &dyn Reader| {
        let mut stand = [false; N];
        for (stands, key) in stand.iter_mut().zip(keys) {
            *stands = reader.get(key.as_bytes())?.is_some();
        }
        Ok(stand)
    };
    ok(engine.read(work), "a reading")
}

fn number(stands: Option<Bytes>) -> u64 {
    stands.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.parse().ok()).unwrap_or_default()
}

/// Runs a transaction that reads, has another one happen, and then writes. An engine may make the other wait.
fn meet<E: Engine, T>(
    engine: &E,
    reads: impl Fn(&dyn Reader) -> Result<T>,
    writes: impl Fn(&mut dyn Writer, T),
    other: impl Fn(&mut dyn Writer) -> Result<()> + Sync,
) -> Checked {
    let (begun, answered, other) = (Cell::new(false), Cell::new(None), &other);
    std::thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        let answer = engine.write(|writer| {
            let read = reads(&*writer)?;
            if !begun.replace(true) {
                let tell = tell.clone();
                scope.spawn(move || tell.send(engine.write(other)));
                answered.set(told.recv_timeout(PATIENCE).ok());
            }
            writes(writer, read);
            Ok(())
        });
        drop(tell);
        ok(answer, "a transaction")?;
        let other = answered.take().map_or_else(|| told.recv().map_err(|error| error.to_string()), Ok)?;
        ok(other, "a transaction beside another")
    })
}

fn ranges<E: Engine>(engine: &E) -> Checked {
    let entries = [("", "empty"), ("a", "1"), ("a\0", "2"), ("b", ""), ("c", "3"), ("ü", "4")];
    put(engine, &entries)?;
    let places: [(Between<'_>, &[usize]); 8] = [
        ((Unbounded, Unbounded), &[0, 1, 2, 3, 4, 5]),
        ((Included(b"a"), Included(b"c")), &[1, 2, 3, 4]),
        ((Included(b"a"), Excluded(b"c")), &[1, 2, 3]),
        ((Excluded(b"a"), Excluded(b"c")), &[2, 3]),
        ((Excluded(b"a"), Unbounded), &[2, 3, 4, 5]),
        ((Unbounded, Excluded(b"a")), &[0]),
        ((Included(b"bb"), Included(b"bz")), &[]),
        ((Included(b"b"), Excluded(b"b")), &[]),
    ];
    let wanted = |places: &[usize], direction: Direction, limit: usize| -> Vec<(Bytes, Bytes)> {
        let all = places.iter().filter_map(|place| entries.get(*place));
        let owned = |(key, value): &(&'static str, &'static str)| (text(key), text(value));
        match direction {
            Forward => all.map(owned).take(limit).collect(),
            Reverse => all.rev().map(owned).take(limit).collect(),
        }
    };
    for (between, places) in places {
        for (direction, limit) in [0, 1, 2, 6, 7, usize::MAX].into_iter().flat_map(|at| [(Forward, at), (Reverse, at)])
        {
            let what = format!("{between:?}, {direction:?}, at most {limit}");
            let wanted = wanted(places, direction, limit);
            let found = ok(engine.read(|reader| reader.range(between, direction, limit)), &what)?;
            same!(found, wanted, "what is {what}");
            let found = ok(engine.write(|writer| writer.range(between, direction, limit)), &what)?;
            same!(found, wanted, "what a transaction finds {what}");
        }
    }
    same!(stand(engine, ["b", "bb"])?, [true, false], "an empty value, and nothing");
    Ok(())
}

fn own_writes<E: Engine>(engine: &E) -> Checked {
    put(engine, &[("a", "1"), ("b", "1"), ("c", "1")])?;
    let work = |writer: &mut dyn Writer| {
        writer.put("b".into(), text("2"));
        writer.put("d".into(), text("2"));
        writer.remove("a".into());
        writer.remove("nothing".into());
        writer.put("e".into(), text("2"));
        writer.remove("e".into());
        let all = (Included(b"a".as_slice()), Unbounded);
        let read = ["a", "b", "e"].map(|key| writer.get(key.as_bytes()));
        Ok((read, writer.range(all, Forward, 2)?, writer.range(all, Reverse, 2)?))
    };
    let (read, first, last) = ok(engine.write(work), "a transaction")?;
    same!(read.map(|read| read.ok().flatten()), [None, Some(text("2")), None], "what it wrote");
    let entry = |key, value| (text(key), text(value));
    same!(first, [entry("b", "2"), entry("c", "1")], "the first two");
    same!(last, [entry("d", "2"), entry("c", "1")], "the last two");
    same!(stand(engine, ["a", "b", "c", "d", "e"])?, [false, true, true, true, false], "what it left");
    Ok(())
}

fn failed<E: Engine>(engine: &E) -> Checked {
    put(engine, &[("stays", "1")])?;
    let work = |writer: &mut dyn Writer| -> Result<()> {
        writer.put("new".into(), text("1"));
        writer.remove("stays".into());
        Err(Error::new(ErrorKind::Rejected, "it fails on purpose"))
    };
    let kind = engine.write(work).map_err(|error| error.kind());
    same!(kind, Err(ErrorKind::Rejected), "what a transaction answers whose work fails");
    same!(stand(engine, ["stays", "new"])?, [true, false], "what it left");
    Ok(())
}

fn lost_update<E: Engine>(engine: &E) -> Checked {
    let add = |writer: &mut dyn Writer, read: u64| writer.put("n".into(), (read + 1).to_string().into());
    let other = |writer: &mut dyn Writer| {
        let read = number(writer.get(b"n")?);
        add(writer, read);
        Ok(())
    };
    meet(engine, |reader| Ok(number(reader.get(b"n")?)), add, other)?;
    same!(number(ok(engine.read(|reader| reader.get(b"n")), "a reading")?), 2, "a number that two have raised");
    Ok(())
}

/// Each goes only while the other stands.
fn skewed_keys<E: Engine>(engine: &E) -> Checked {
    put(engine, &[("one", "1"), ("two", "1")])?;
    let both = |reader: &dyn Reader| Ok(reader.get(b"one")?.is_some() && reader.get(b"two")?.is_some());
    let go = |key: &'static str| {
        move |writer: &mut dyn Writer, both: bool| {
            if both {
                writer.remove(key.into());
            }
        }
    };
    let other = |writer: &mut dyn Writer| {
        let both = both(&*writer)?;
        go("two")(writer, both);
        Ok(())
    };
    meet(engine, both, go("one"), other)?;
    check!(stand(engine, ["one", "two"])? != [false, false], "both went, each because the other stood");
    Ok(())
}

/// Each comes only while the other does not stand.
fn skewed_absence<E: Engine>(engine: &E) -> Checked {
    let other = |writer: &mut dyn Writer| {
        if writer.get(b"one")?.is_none() {
            writer.put("two".into(), text("1"));
        }
        Ok(())
    };
    let come = |writer: &mut dyn Writer, free: bool| {
        if free {
            writer.put("one".into(), text("1"));
        }
    };
    meet(engine, |reader| Ok(reader.get(b"two")?.is_none()), come, other)?;
    check!(stand(engine, ["one", "two"])? != [true, true], "both came, each because the other did not stand");
    Ok(())
}

/// A head goes with the last of its members, and a member comes to a head that stands: as in every collection.
fn skewed_range<E: Engine>(engine: &E) -> Checked {
    put(engine, &[("head", "1"), ("member:5", "1")])?;
    let members = (Included(b"member:".as_slice()), Excluded(b"member;".as_slice()));
    let last = |reader: &dyn Reader| Ok(reader.range(members, Forward, 2)?.len() == 1);
    let go = |writer: &mut dyn Writer, last: bool| {
        writer.remove("member:5".into());
        if last {
            writer.remove("head".into());
        }
    };
    let come = |writer: &mut dyn Writer| {
        if writer.get(b"head")?.is_none() {
            writer.put("head".into(), text("1"));
        }
        writer.put("member:7".into(), text("1"));
        Ok(())
    };
    meet(engine, last, go, come)?;
    same!(stand(engine, ["head", "member:5", "member:7"])?, [true, false, true], "a head and its members");
    Ok(())
}

fn one_state<E: Engine>(engine: &E) -> Checked {
    put(engine, &[("a", "1"), ("b", "1")])?;
    let begun = Cell::new(false);
    let seen = std::thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        engine.read(|reader| {
            let first = reader.get(b"a")?;
            if !begun.replace(true) {
                let tell = tell.clone();
                scope.spawn(move || tell.send(put(engine, &[("a", "2"), ("b", "2"), ("c", "2")])));
                // It waits where the engine has a lock.
                let _ = told.recv_timeout(PATIENCE);
            }
            Ok((first, reader.get(b"b")?, reader.range((Unbounded, Unbounded), Forward, usize::MAX)?.len()))
        })
    });
    let seen = ok(seen, "a reading")?;
    let one = |value| (Some(text(value)), Some(text(value)));
    let states = [(one("1"), 2), (one("2"), 3)].map(|((a, b), found)| (a, b, found));
    check!(states.contains(&seen), "a reading saw {seen:?}, which was never what stood");
    same!(stand(engine, ["c"])?, [true], "what was written meanwhile");
    Ok(())
}

fn halves<E: Engine>(engine: &E) -> Checked {
    let over = AtomicBool::new(false);
    race(|thread| {
        if thread == 0 {
            let written = rounds(20).try_for_each(|round| {
                let work = |writer: &mut dyn Writer| {
                    for key in ["a", "b", "c"] {
                        writer.put(key.into(), round.to_string().into());
                    }
                    Ok(())
                };
                ok(engine.write(work), "a transaction")
            });
            over.store(true, Ordering::Release);
            return written;
        }
        while !over.load(Ordering::Acquire) {
            let seen = ok(engine.read(|reader| Ok((reader.get(b"a")?, reader.get(b"c")?))), "a reading")?;
            check!(seen.0 == seen.1, "a reader saw {seen:?}");
        }
        Ok(())
    })
}
