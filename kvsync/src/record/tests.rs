use proptest::prelude::*;

use super::*;

const TERMS: Terms = Terms { now: 1_000, left: 10, dead: 100 };

fn version(sequence: u64) -> Version {
    Version::new(0, 0, sequence)
}

fn listed(key: &str) -> Listed {
    Listed { key: Key::new(key), pointer: false }
}

fn change(at: u64, content: Content, gone: &[(&str, u64)]) -> Delta {
    let gone = gone.iter().map(|(key, at)| (Key::new(*key), version(*at))).collect();
    Delta { home: Key::new("home"), version: version(at), content, gone }
}

fn put(at: u64, keys: &[&str]) -> Delta {
    let value = Value::model(0, &[], &at.to_be_bytes());
    let keys = keys.iter().map(|key| listed(key)).collect();
    change(at, Content::Put { value, expires_at: 0, keys }, &[])
}

fn merged(changes: &[Delta]) -> Record {
    let mut record = Record::new();
    for change in changes {
        record.merge(change, &TERMS);
    }
    record
}

fn stored(record: &Record) -> Result<Record> {
    Envelope::parse(&record.encode()).and_then(Record::from_envelope)
}

fn any_change() -> impl Strategy<Value = Delta> {
    let key = || prop::sample::select(vec!["a", "b", "c", "home"]);
    let content = prop_oneof![
        5 => prop::collection::vec((key(), any::<bool>()), 0..3).prop_map(Some),
        2 => Just(None),
    ];
    let gone = prop::collection::vec((key(), 1..8_u64), 0..2);
    (1..8_u64, content, any::<bool>(), gone).prop_map(|(at, keys, unknown, gone)| {
        let content = match keys {
            Some(keys) => Content::Put {
                value: Value::model(1, &[1], format!("{at}").as_bytes()),
                expires_at: at % 3 * 1_000,
                keys: keys.into_iter().map(|(key, pointer)| Listed { key: Key::new(key), pointer }).collect(),
            },
            None if unknown => Content::Unknown,
            None => Content::Delete,
        };
        change(at, content, &gone)
    })
}

/// The changes of one row: at each version one certain content at most, and perhaps the same unknown.
fn history() -> impl Strategy<Value = Vec<Delta>> {
    (prop::collection::vec(any_change(), 0..7), prop::collection::vec(any::<bool>(), 7)).prop_map(
        |(changes, doubts)| {
            let mut seen = std::collections::BTreeSet::new();
            let mut history = Vec::new();
            for (change, doubt) in changes.into_iter().zip(doubts) {
                if seen.insert(change.version) {
                    if doubt {
                        history.push(Delta { content: Content::Unknown, ..change.clone() });
                    }
                    history.push(change);
                }
            }
            history
        },
    )
}

/// A history, and every change of it at least once and some twice, in any order.
fn delivered() -> impl Strategy<Value = (Vec<Delta>, Vec<Delta>)> {
    history().prop_flat_map(|history| {
        let again = prop::sample::subsequence(history.clone(), 0..=history.len());
        let all = again.prop_flat_map({
            let history = history.clone();
            move |again| Just([history.clone(), again].concat()).prop_shuffle()
        });
        (Just(history), all)
    })
}

/// What every order of the same changes agrees on.
fn essence(record: &Record) -> (Version, bool, Version, &[Listed], &Value) {
    (record.version, record.alive, record.mark, &record.live, &record.value)
}

proptest! {
    #[test]
    fn any_order_and_any_duplicates_end_in_the_same_record((history, deliveries) in delivered()) {
        let (one, other) = (merged(&history), merged(&deliveries));
        prop_assert_eq!(essence(&one), essence(&other));
    }

    #[test]
    fn merging_is_idempotent(history in history()) {
        let mut record = merged(&history);
        let before = record.clone();
        for change in &history {
            record.merge(change, &TERMS);
        }
        prop_assert_eq!(essence(&record), essence(&before));
    }

    #[test]
    fn a_stored_record_is_the_same_record(history in history()) {
        let record = merged(&history);
        prop_assert_eq!(stored(&record).ok(), Some(record));
    }

    #[test]
    fn storing_between_merges_changes_nothing(history in history()) {
        let mut kept = Record::new();
        for change in &history {
            kept.merge(change, &TERMS);
            kept = stored(&kept).unwrap();
        }
        prop_assert_eq!(kept, merged(&history));
    }

    #[test]
    fn a_cut_record_is_corrupt_and_no_other_record(history in history(), cut in 0..400_usize) {
        let whole = merged(&history).encode();
        prop_assume!(cut < whole.len());
        if let Ok(envelope) = Envelope::parse(&whole.slice(..cut)) {
            prop_assert!(Record::from_envelope(envelope.clone()).is_err() || envelope.body().is_err());
        }
    }
}

#[test]
fn a_left_key_is_released_at_the_version_that_last_listed_it() {
    let record = merged(&[put(2, &["a"]), put(6, &["a", "b"]), put(8, &["c"])]);
    assert_eq!(record.dirty, BTreeMap::from([(Key::new("a"), version(6)), (Key::new("b"), version(6))]));
    let writes = record.project(&Key::new("home"), &TERMS);
    let heads: Vec<_> = writes.iter().map(|write| (write.key.as_str(), write.head.version, write.head.state)).collect();
    assert_eq!(
        heads,
        [("c", version(8), State::Value), ("a", version(6), State::Tombstone), ("b", version(6), State::Tombstone)]
    );
}

#[test]
fn an_unknown_masks_at_the_version_that_last_listed_the_key() {
    let record = merged(&[put(2, &["a"]), change(6, Content::Unknown, &[])]);
    let writes = record.project(&Key::new("home"), &TERMS);
    assert_eq!(writes.len(), 1);
    assert_eq!((writes[0].head.version, writes[0].head.state), (version(2), State::Unknown));
    assert_eq!(writes[0].value, Value::none());
}

#[test]
fn what_is_certain_lifts_an_unknown_of_its_version() {
    for history in
        [[put(6, &["a"]), change(6, Content::Unknown, &[])], [change(6, Content::Unknown, &[]), put(6, &["a"])]]
    {
        let record = merged(&history);
        assert!(record.is_known());
        assert_eq!(record.value, Value::model(0, &[], &6_u64.to_be_bytes()));
    }
}

#[test]
fn a_change_says_whether_something_newer_stood_there() {
    let mut record = Record::new();
    assert!(!record.merge(&put(4, &["a"]), &TERMS));
    assert!(!record.merge(&put(4, &["a"]), &TERMS), "a duplicate is not superseded");
    assert!(record.merge(&put(2, &["a"]), &TERMS));
    assert!(!record.merge(&change(8, Content::Unknown, &[]), &TERMS));
    assert!(record.merge(&put(6, &["b"]), &TERMS), "a newer change is known to have happened");
    assert_eq!((record.version, record.live.as_slice()), (version(6), &[listed("b")][..]));
}

#[test]
fn a_mark_outlives_every_late_delivery_of_what_it_hides() {
    let mut record = Record::new();
    let value = Value::model(0, &[], b"\x01");
    record.merge(&change(2, Content::Put { value, expires_at: 1_500, keys: vec![] }, &[]), &TERMS);
    assert_eq!(record.forgotten_at(&TERMS), 1_600);
    let late = Terms { now: 1_590, ..TERMS };
    record.merge(&change(4, Content::Unknown, &[]), &late);
    assert_eq!(record.forgotten_at(&late), 1_690);
}

#[test]
fn a_record_never_lists_its_own_home() {
    let mut gone = change(4, Content::Delete, &[("home", 4), ("b", 4)]);
    let record = merged(&[put(2, &["home", "a"]), gone.clone()]);
    assert_eq!(record.dirty.keys().map(Key::as_str).collect::<Vec<_>>(), ["a", "b"]);
    gone.version = version(1);
    assert_eq!(merged(&[put(2, &["home", "a"]), gone]).live, [listed("a")]);
}

/// Two generations of a model's keys: the home of one is a slot of the other.
mod generations {
    use super::*;

    fn slot(at: u64, state: State) -> Write {
        let value = if state == State::Value { Value::model(0, &[7], b"\x07") } else { Value::none() };
        let head = Head { version: version(at), state, expires_at: if state == State::Value { 0 } else { 1_010 } };
        Write { key: Key::new("home"), head, value, order: Order::Slot }
    }

    fn overwritten(entry: &Bytes, write: &Write) -> Option<Bytes> {
        Record::overwrite(Some(&Envelope::parse(entry).unwrap()), write)
    }

    #[test]
    fn a_slot_over_a_record_does_not_hide_changes_from_its_ledger() {
        let record = merged(&[put(2, &["a"])]);
        let entry = overwritten(&record.encode(), &slot(6, State::Value)).unwrap();
        let mut record = Record::from_envelope(Envelope::parse(&entry).unwrap()).unwrap();
        assert!(!record.is_known());
        assert_eq!(record.project(&Key::new("home"), &TERMS)[0].head.state, State::Unknown);
        record.merge(&put(4, &["b"]), &TERMS);
        let between = Envelope::parse(&record.encode()).unwrap();
        assert_eq!((between.head.version, between.value), (version(6), slot(6, State::Value).value));
        record.merge(&put(6, &["c"]), &TERMS);
        assert!(record.is_known());
        assert_eq!(record.live, [listed("c")]);
        assert_eq!(record.dirty, BTreeMap::from([(Key::new("a"), version(2)), (Key::new("b"), version(4))]));
    }

    #[test]
    fn a_slot_before_a_record_does_not_either() {
        let entry = Record::overwrite(None, &slot(6, State::Value)).unwrap();
        let mut record = Record::from_envelope(Envelope::parse(&entry).unwrap()).unwrap();
        assert!(!record.merge(&put(6, &["a"]), &TERMS));
        assert!(record.is_known());
        assert_eq!(record.live, [listed("a")]);
    }

    #[test]
    fn a_mask_or_a_release_takes_the_bytes_and_leaves_the_ledger() {
        for state in [State::Unknown, State::Tombstone] {
            let entry = overwritten(&merged(&[put(2, &["a"])]).encode(), &slot(2, state)).unwrap();
            let envelope = Envelope::parse(&entry).unwrap();
            assert_eq!(envelope.head.expires_at, 0, "the record outlives the other generation's mask");
            let mut record = Record::from_envelope(envelope).unwrap();
            assert!(!record.is_known());
            assert_eq!(stored(&record).unwrap(), record);
            record.merge(&put(3, &["a"]), &TERMS);
            assert!(record.is_known());
        }
    }
}

#[test]
fn of_one_version_a_tombstone_wins_and_unknown_loses_or_wins_by_order() {
    let head = |state| Head { version: version(1), state, expires_at: 0 };
    let ranks = |order: Order| {
        let mut states = [State::Value, State::Unknown, State::Tombstone];
        states.sort_by(|a, b| order.replaces(&head(*a), &head(*b)).cmp(&order.replaces(&head(*b), &head(*a))));
        states
    };
    assert_eq!(ranks(Order::Slot), [State::Value, State::Unknown, State::Tombstone]);
    assert_eq!(ranks(Order::Register), [State::Unknown, State::Value, State::Tombstone]);
    for order in [Order::Slot, Order::Register] {
        for state in [State::Value, State::Unknown, State::Tombstone] {
            assert!(!order.replaces(&head(state), &head(state)));
            assert!(order.replaces(&Head { version: version(2), ..head(State::Value) }, &head(state)));
        }
    }
}
