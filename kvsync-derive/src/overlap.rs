//! Whether two formats can produce the same key.
//!
//! The keys of a format are a regular language: its text, and for each part the text that the part's
//! type can write, escaped as it is at run time. Two formats collide if and only if some string is in
//! both languages; a search over both automata at once finds a shortest such string, or none. Types
//! that are not known by name may write anything. Numbers are decimal of any length: their range is
//! the one thing that is not looked at.

use std::collections::{HashSet, VecDeque};

use crate::automaton::{Automaton, Piece, unescape};

/// A key that two formats have in common.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Collision {
    /// The key.
    pub(crate) key: String,
    /// What the parts of the first format are then.
    pub(crate) left: Vec<String>,
    /// What the parts of the second format are then.
    pub(crate) right: Vec<String>,
}

/// A shortest key that both formats can produce.
pub(crate) fn collision(left: &[Piece<'_>], right: &[Piece<'_>]) -> Option<Collision> {
    let (left, right) = (Automaton::of(left), Automaton::of(right));
    // Each step keeps the index of the step before it, so that the way can be read backwards.
    let mut steps = vec![Step { left: (0, None), right: (0, None), character: None, before: 0 }];
    let mut seen = HashSet::from([(0, 0)]);
    let mut queue = VecDeque::from([0]);
    while let Some(index) = queue.pop_front() {
        let Step { left: (at_left, _), right: (at_right, _), .. } = *steps.get(index)?;
        if at_left == left.end && at_right == right.end {
            return Some(read_back(&steps, index, (left.parts, right.parts)));
        }
        let mut go = |steps: &mut Vec<Step>, left, right, character: Option<char>| {
            let step = Step { left, right, character, before: index };
            if seen.insert((step.left.0, step.right.0)) {
                steps.push(step);
                // A step without a character costs nothing, so shorter keys come first.
                if character.is_some() {
                    queue.push_back(steps.len() - 1);
                } else {
                    queue.push_front(steps.len() - 1);
                }
            }
        };
        for edge in left.from(at_left).filter(|edge| edge.on.is_none()) {
            go(&mut steps, (edge.to, None), (at_right, None), None);
        }
        for edge in right.from(at_right).filter(|edge| edge.on.is_none()) {
            go(&mut steps, (at_left, None), (edge.to, None), None);
        }
        for one in left.from(at_left) {
            for other in right.from(at_right) {
                let common = one.on.as_ref().zip(other.on.as_ref()).and_then(|(one, other)| one.common(other));
                if common.is_some() {
                    go(&mut steps, (one.to, one.part), (other.to, other.part), common);
                }
            }
        }
    }
    None
}

/// Where the search stands: a state of each automaton, the parts that the character belongs to, and
/// the step before.
#[derive(Debug, Clone, Copy)]
struct Step {
    left: (usize, Option<usize>),
    right: (usize, Option<usize>),
    character: Option<char>,
    before: usize,
}

fn read_back(steps: &[Step], last: usize, parts: (usize, usize)) -> Collision {
    let mut way = Vec::new();
    let mut at = last;
    while let Some(step) = steps.get(at).filter(|_| at != 0) {
        way.push(*step);
        at = step.before;
    }
    way.reverse();
    let values = |parts: usize, part_of: fn(&Step) -> Option<usize>| {
        (0..parts)
            .map(|part| {
                unescape(way.iter().filter(|step| part_of(step) == Some(part)).filter_map(|step| step.character))
            })
            .collect()
    };
    Collision {
        key: way.iter().filter_map(|step| step.character).collect(),
        left: values(parts.0, |step| step.left.1),
        right: values(parts.1, |step| step.right.1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::automaton::Piece::{Literal as L, Part as P};
    use crate::automaton::escape;
    use crate::types::Text;

    const INT: Text = Text::Integer { signed: true };

    fn common(left: &[Piece<'_>], right: &[Piece<'_>]) -> Option<String> {
        let found = collision(left, right);
        assert_eq!(found.is_some(), collision(right, left).is_some(), "both ways round");
        found.map(|found| found.key)
    }

    #[test]
    fn text_reaches_into_longer_prefixes() {
        let found = collision(
            &[L("user:"), P(Text::Any, None)],
            &[L("user:uuid:"), P(Text::Any, Some('_')), L("_"), P(INT, None)],
        )
        .unwrap();
        assert_eq!(found.key, "user:uuid:_0");
        assert_eq!(found.left, ["uuid:_0"]);
        assert_eq!(found.right, ["", "0"]);
    }

    #[test]
    fn an_escaped_separator_keeps_formats_apart() {
        // The part stops at `:`, so it can never hold one.
        let left = [L("u:"), P(Text::Any, Some(':')), L(":a")];
        assert_eq!(common(&left, &[L("u:"), P(Text::Any, Some(':')), L(":b")]), None);
        assert_eq!(common(&left, &[L("u:"), P(INT, Some(':')), L(":"), P(INT, Some(':')), L(":a")]), None);
        assert_eq!(common(&left, &[L("u:"), P(INT, Some(':')), L(":"), P(Text::Any, None)]), Some("u:1:a".into()));
        // `%3A` is an escaped colon, and may also be what a format says.
        assert_eq!(common(&left, &[L("u:%3A:"), P(Text::Char, None)]), Some("u:%3A:a".into()));
        assert_eq!(common(&left, &[L("u:%3B:"), P(Text::Char, None)]), None);
    }

    #[test]
    fn numbers_words_and_uuids_are_told_from_other_text() {
        let unsigned = Text::Integer { signed: false };
        for (left, right, expected) in [
            (L("x1"), P(INT, None), None),
            (L("10"), P(INT, None), Some("10")),
            (L("-7"), P(INT, None), Some("-7")),
            (L("-7"), P(unsigned, None), None),
            (L("-0"), P(INT, None), None),
            (L("01"), P(INT, None), None),
            (P(Text::Bool, None), P(INT, None), None),
            (P(Text::Bool, None), P(Text::Any, None), Some("true")),
            (P(Text::Char, None), P(INT, None), Some("0")),
            (P(Text::Uuid, None), P(INT, None), None),
            (P(Text::Uuid, None), P(Text::Hex(None), None), None),
            (P(Text::Hex(Some(2)), None), P(Text::Hex(Some(3)), None), None),
            (P(Text::Hex(Some(1)), None), P(INT, None), Some("11")),
            (L("%25"), P(Text::Char, None), Some("%25")),
            (L("%"), P(Text::Any, None), None),
        ] {
            let (left, right) = (&[left][..], &[right][..]);
            assert_eq!(common(left, right).as_deref(), expected, "{left:?} {right:?}");
        }
    }

    #[test]
    fn a_stop_that_a_number_contains_is_escaped_too() {
        let date = [P(INT, Some('-')), L("-"), P(INT, None)];
        assert_eq!(common(&date, &[L("-1-1")]), None);
        assert_eq!(common(&date, &[L("%2D1-1")]), Some("%2D1-1".into()));
        assert_eq!(common(&[P(INT, Some('5')), L("5")], &[L("155")]), None);
        assert_eq!(common(&[P(INT, Some('5')), L("5")], &[L("1%355")]), Some("1%355".into()));
    }

    /// A part of a random kind, and some of the values of that kind.
    fn kinds() -> Vec<(Text, Vec<String>)> {
        let owned = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        vec![
            (Text::Any, owned(&["", "a", ":", "a:1", "-", "1", "%", "true", "ff", "1:-1"])),
            (Text::Char, owned(&["a", ":", "-", "1", "%"])),
            (INT, owned(&["0", "1", "-1", "10", "11"])),
            (Text::Bool, owned(&["true", "false"])),
            (Text::Hex(None), owned(&["", "11", "ff", "1010"])),
        ]
    }

    type Chosen = Vec<(usize, String)>;

    fn format() -> impl Strategy<Value = (String, Chosen)> {
        ("[a:]{0,2}", prop::collection::vec((0..5_usize, "[:1a-][1:-]?"), 1..3))
    }

    fn pieces<'a>(first: &'a str, rest: &'a Chosen) -> Vec<Piece<'a>> {
        let parts = rest.iter().flat_map(|(kind, literal)| [P(kinds()[*kind].0, literal.chars().next()), L(literal)]);
        [L(first)].into_iter().chain(parts).collect()
    }

    /// A key as `kvsync::KeyWriter` writes it.
    fn written(pieces: &[Piece<'_>], values: &[String]) -> String {
        let mut values = values.iter();
        let mut key = String::new();
        for piece in pieces {
            match piece {
                L(text) => key += text,
                P(_, stop) => {
                    for one in values.next().unwrap().chars() {
                        if one == '%' || Some(one) == *stop { key += &escape(one) } else { key.push(one) }
                    }
                }
            }
        }
        key
    }

    fn keys(pieces: &[Piece<'_>], rest: &Chosen) -> HashSet<String> {
        let mut values: Vec<Vec<String>> = vec![Vec::new()];
        for (kind, _) in rest {
            let of_kind = &kinds()[*kind].1;
            values = values
                .iter()
                .flat_map(|before| of_kind.iter().map(|one| [before, std::slice::from_ref(one)].concat()))
                .collect();
        }
        values.iter().map(|values| written(pieces, values)).collect()
    }

    proptest! {
        #[test]
        fn a_collision_is_told_if_and_only_if_there_is_one((first, one) in format(), (second, other) in format()) {
            let (left, right) = (pieces(&first, &one), pieces(&second, &other));
            match collision(&left, &right) {
                Some(found) => {
                    prop_assert_eq!(&written(&left, &found.left), &found.key);
                    prop_assert_eq!(&written(&right, &found.right), &found.key);
                }
                None => prop_assert!(keys(&left, &one).is_disjoint(&keys(&right, &other))),
            }
        }
    }
}
