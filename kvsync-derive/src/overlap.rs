//! Whether two formats can produce the same key.
//!
//! The keys of a format are a regular language: its text, and for each part the text that the part's
//! type can write, escaped as it is at run time. Two formats collide if and only if some string is in
//! both languages; a search over both automata at once finds a shortest such string, or none. Types
//! that are not known by name may write anything. Numbers are decimal of any length: their range is
//! the one thing that is not looked at.

use std::collections::{HashSet, VecDeque};

use crate::types::Text;

/// A piece of a format.
#[derive(Debug, Clone)]
pub(crate) enum Piece<'a> {
    /// Text as it stands.
    Literal(&'a str),
    /// A part of this kind, with the character that follows it in the format.
    Part(Text, Option<char>),
}

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

/// Characters that an edge can read.
#[derive(Debug, Clone)]
enum Set {
    One(char),
    Ranges(&'static [(char, char)]),
    /// All but these.
    AllBut([Option<char>; 2]),
}

const ANY: Set = Set::AllBut([None, None]);
const DIGIT: Set = Set::Ranges(&[('0', '9')]);
const POSITIVE: Set = Set::Ranges(&[('1', '9')]);
const HEX: Set = Set::Ranges(&[('0', '9'), ('a', 'f')]);
/// What a common character is chosen from before all others: an example should read well.
const READABLE: &str = "a1b2_-/:";

impl Set {
    fn contains(&self, character: char) -> bool {
        match self {
            Self::One(one) => *one == character,
            Self::Ranges(ranges) => ranges.iter().any(|(low, high)| (*low..=*high).contains(&character)),
            Self::AllBut(without) => !without.contains(&Some(character)),
        }
    }

    /// A character in both.
    fn common(&self, other: &Self) -> Option<char> {
        match (self, other) {
            (Self::One(one), set) | (set, Self::One(one)) => set.contains(*one).then_some(*one),
            // Ranges here are of digits and letters, and at most four characters are ever left out: among
            // the readable ones and those of the ranges there is a common one if there is any.
            _ => READABLE.chars().chain('0'..='f').find(|one| self.contains(*one) && other.contains(*one)),
        }
    }
}

#[derive(Debug)]
struct Edge {
    /// What it reads; `None` reads nothing.
    on: Option<Set>,
    to: usize,
    /// The part that the character belongs to.
    part: Option<usize>,
}

#[derive(Debug, Default)]
struct Automaton {
    /// The edges that leave each state; the first state is the start.
    states: Vec<Vec<Edge>>,
    end: usize,
    parts: usize,
    /// The part and its stop character, while one is being built.
    part: Option<usize>,
    stop: Option<char>,
}

impl Automaton {
    fn of(pieces: &[Piece<'_>]) -> Self {
        let mut this = Self { states: vec![Vec::new()], ..Self::default() };
        for piece in pieces {
            match *piece {
                Piece::Literal(text) => {
                    this.part = None;
                    for character in text.chars() {
                        let next = this.state();
                        this.edge(this.end, Some(Set::One(character)), next);
                        this.end = next;
                    }
                }
                Piece::Part(text, stop) => {
                    (this.part, this.stop) = (Some(this.parts), stop);
                    this.parts += 1;
                    this.end = this.part(this.end, text);
                }
            }
        }
        this
    }

    fn from(&self, state: usize) -> impl Iterator<Item = &Edge> {
        self.states.get(state).into_iter().flatten()
    }

    /// Adds a part that begins at a state, and returns where it ends.
    fn part(&mut self, start: usize, text: Text) -> usize {
        let end = self.state();
        match text {
            Text::Any => {
                // A state of its own for the loop: a literal that follows must not run back into it.
                let inside = self.state();
                self.edge(start, None, inside);
                self.read(inside, &ANY, inside);
                self.edge(inside, None, end);
            }
            Text::Char => self.read(start, &ANY, end),
            Text::Integer { signed } => {
                let (unsigned, digits) = (self.state(), self.state());
                self.read(start, &Set::One('0'), end);
                self.edge(start, None, unsigned);
                if signed {
                    self.read(start, &Set::One('-'), unsigned);
                }
                self.read(unsigned, &POSITIVE, digits);
                self.read(digits, &DIGIT, digits);
                self.edge(digits, None, end);
            }
            Text::Bool => {
                for word in ["true", "false"] {
                    let last = word.chars().fold(start, |at, character| self.then(at, &Set::One(character)));
                    self.edge(last, None, end);
                }
            }
            Text::Uuid => {
                let mut at = start;
                for index in 0..36 {
                    at = self.then(at, if [8, 13, 18, 23].contains(&index) { &Set::One('-') } else { &HEX });
                }
                self.edge(at, None, end);
            }
            // Very long arrays are taken for byte strings of any length, so that the search stays short.
            Text::Hex(Some(bytes)) if bytes <= 64 => {
                let last = (0..bytes * 2).fold(start, |at, _| self.then(at, &HEX));
                self.edge(last, None, end);
            }
            Text::Hex(_) => {
                let inside = self.state();
                self.edge(start, None, inside);
                let half = self.then(inside, &HEX);
                self.read(half, &HEX, inside);
                self.edge(inside, None, end);
            }
        }
        end
    }

    /// A new state, reached by one character of the part.
    fn then(&mut self, from: usize, set: &Set) -> usize {
        let to = self.state();
        self.read(from, set, to);
        to
    }

    /// Reads one character of the part as it stands in a key: `%` and the stop character are escaped.
    fn read(&mut self, from: usize, set: &Set, to: usize) {
        let escaped = [Some('%'), self.stop];
        for character in escaped.into_iter().flatten().filter(|character| set.contains(*character)) {
            let text = escape(character);
            let mut at = from;
            let mut rest = text.chars().peekable();
            while let Some(next) = rest.next() {
                let after = if rest.peek().is_none() { to } else { self.state() };
                self.edge(at, Some(Set::One(next)), after);
                at = after;
            }
        }
        match set {
            Set::One(one) if escaped.contains(&Some(*one)) => {}
            Set::One(_) => self.edge(from, Some(set.clone()), to),
            Set::AllBut(_) => self.edge(from, Some(Set::AllBut(escaped)), to),
            // Only a range can hold the stop character without being all of it: cut it out, one by one.
            Set::Ranges(_) if self.stop.is_none_or(|stop| !set.contains(stop)) => {
                self.edge(from, Some(set.clone()), to);
            }
            Set::Ranges(_) => {
                for one in ('0'..='f').filter(|one| set.contains(*one) && !escaped.contains(&Some(*one))) {
                    self.edge(from, Some(Set::One(one)), to);
                }
            }
        }
    }

    fn state(&mut self) -> usize {
        self.states.push(Vec::new());
        self.states.len() - 1
    }

    fn edge(&mut self, from: usize, on: Option<Set>, to: usize) {
        let part = self.part;
        if let Some(edges) = self.states.get_mut(from) {
            edges.push(Edge { on, to, part });
        }
    }
}

fn escape(character: char) -> String {
    character.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn unescape(characters: impl Iterator<Item = char>) -> String {
    let mut bytes = Vec::new();
    let mut characters = characters;
    while let Some(character) = characters.next() {
        let digits: Option<String> = (character == '%').then(|| characters.by_ref().take(2).collect());
        match digits.and_then(|digits| u8::from_str_radix(&digits, 16).ok()) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::Piece::{Literal as L, Part as P};
    use super::*;

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
}
