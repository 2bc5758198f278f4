//! The keys of a format as an automaton: it accepts exactly the keys that the format can produce.

use crate::types::Text;

/// A piece of a format.
#[derive(Debug, Clone)]
pub(crate) enum Piece<'a> {
    /// Text as it stands.
    Literal(&'a str),
    /// A part of this kind, with the character that follows it in the format.
    Part(Text, Option<char>),
}

#[derive(Debug)]
pub(crate) struct Edge {
    /// What it reads; `None` reads nothing.
    pub(crate) on: Option<Set>,
    pub(crate) to: usize,
    /// The part that the character belongs to.
    pub(crate) part: Option<usize>,
}

#[derive(Debug, Default)]
pub(crate) struct Automaton {
    /// The edges that leave each state; the first state is the start.
    states: Vec<Vec<Edge>>,
    pub(crate) end: usize,
    pub(crate) parts: usize,
    /// The part and its stop character, while one is being built.
    part: Option<usize>,
    stop: Option<char>,
}

impl Automaton {
    /// The automaton of a format.
    pub(crate) fn of(pieces: &[Piece<'_>]) -> Self {
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

    /// The edges that leave a state.
    pub(crate) fn from(&self, state: usize) -> impl Iterator<Item = &Edge> {
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

/// Characters that an edge can read.
#[derive(Debug, Clone)]
pub(crate) enum Set {
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
    pub(crate) fn common(&self, other: &Self) -> Option<char> {
        match (self, other) {
            (Self::One(one), set) | (set, Self::One(one)) => set.contains(*one).then_some(*one),
            // Ranges here are of digits and letters, and at most four characters are ever left out: among
            // the readable ones and those of the ranges there is a common one if there is any.
            _ => READABLE.chars().chain('0'..='f').find(|one| self.contains(*one) && other.contains(*one)),
        }
    }
}

/// A character as it stands in a key when it would be taken for another thing.
pub(crate) fn escape(character: char) -> String {
    character.encode_utf8(&mut [0; 4]).bytes().flat_map(|byte| ['%', digit(byte >> 4), digit(byte & 15)]).collect()
}

fn digit(value: u8) -> char {
    char::from_digit(value.into(), 16).unwrap_or_default().to_ascii_uppercase()
}

/// The text of a part, from the characters that stand in a key.
pub(crate) fn unescape(characters: impl Iterator<Item = char>) -> String {
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
