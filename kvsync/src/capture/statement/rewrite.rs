//! Makes a statement return more.

use super::Write;

/// The statement with `list` at the end of its RETURNING clause, or in a clause of its own. What the
/// statement returned before stays in front.
pub(crate) fn rewrite(sql: &str, write: &Write<'_>, list: &str) -> String {
    let (head, tail) = sql.split_at_checked(write.end).unwrap_or((sql, ""));
    let joint = if write.returning.is_some() { ", " } else { " RETURNING " };
    let mut text = String::with_capacity(sql.len() + joint.len() + list.len() + 1);
    text.push_str(head);
    text.push_str(joint);
    text.push_str(list);
    if tail.starts_with(|next: char| next.is_alphanumeric() || next == '_') {
        text.push(' ');
    }
    text.push_str(tail);
    text
}
