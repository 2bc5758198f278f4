//! The nearest name to one that is not there, and lists of names for messages.

use std::cmp::Reverse;

/// The candidate within two edits of `wanted`: the nearest, and of several the longest.
pub(crate) fn nearest<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (distance(wanted, candidate), candidate))
        .filter(|(edits, candidate)| *edits <= 2 && *edits < wanted.chars().count().max(candidate.chars().count()))
        .min_by_key(|(edits, candidate)| (*edits, Reverse(candidate.len())))
        .map(|(_, candidate)| candidate)
}

/// The names in backticks, separated by commas.
pub(crate) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Levenshtein's distance: characters to insert, delete or replace. Case does not count.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, character) in left.to_lowercase().chars().enumerate() {
        let mut diagonal = index;
        let mut before = index + 1;
        let mut next = vec![before];
        for (other, above) in right.iter().zip(row.iter().skip(1)) {
            let replaced = diagonal + usize::from(character != *other);
            before = replaced.min(before + 1).min(above + 1);
            next.push(before);
            diagonal = *above;
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        for (left, right, edits) in
            [("uid", "uuid", 1), ("", "ab", 2), ("kitten", "sitting", 3), ("same", "Same", 0), ("ab", "ba", 2)]
        {
            assert_eq!((distance(left, right), distance(right, left)), (edits, edits), "{left} {right}");
        }
    }

    #[test]
    fn the_nearest_wins_and_the_far_are_not_offered() {
        assert_eq!(nearest("uid", ["id", "uuid", "name"]), Some("uuid"));
        assert_eq!(nearest("usernam", ["id", "username"]), Some("username"));
        assert_eq!(nearest("email", ["id", "username"]), None);
        assert_eq!(nearest("a", ["b"]), None);
    }
}
