//! The subjects of a stream: `<prefix>.<table>.<action>`, and `<prefix>.dead.<queue>.<table>.<action>` of its dead
//! letters.

use crate::nats::push_token;

/// The longest subject. A server ends the connection over a line above 4096 bytes.
const MAX_SUBJECT: usize = 2048;

#[derive(Debug, Clone)]
pub(super) struct Subjects {
    prefix: String,
}

impl Subjects {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// Whether it can stand before every subject.
    pub(super) fn is_prefix(prefix: &str) -> bool {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        prefix.split('.').all(|token| !token.is_empty() && token.bytes().all(allowed))
    }

    /// Where a change of a table goes; none if that is too long.
    pub(super) fn of(&self, table: &str, action: &str) -> Option<String> {
        let mut subject = self.table(table);
        push_token(&mut subject, action.as_bytes());
        (subject.len() <= MAX_SUBJECT).then_some(subject)
    }

    /// A filter for all changes.
    pub(super) fn all(&self) -> String {
        format!("{}.*.*", self.prefix)
    }

    /// A filter for the changes of a table.
    pub(super) fn of_table(&self, table: &str) -> String {
        format!("{}*", self.table(table))
    }

    /// Where the dead letter goes of a message of this subject.
    pub(super) fn dead(&self, queue: &str, subject: &str) -> String {
        let rest = subject.strip_prefix(&self.prefix).filter(|rest| rest.split('.').count() == 3);
        format!("{}.dead.{queue}{}", self.prefix, rest.unwrap_or(".=.="))
    }

    /// A filter for all dead letters.
    pub(super) fn all_dead(&self) -> String {
        format!("{}.dead.*.*.*", self.prefix)
    }

    /// A filter for the dead letters of a queue.
    pub(super) fn dead_of(&self, queue: &str) -> String {
        format!("{}.dead.{queue}.>", self.prefix)
    }

    fn table(&self, table: &str) -> String {
        let mut subject = format!("{}.", self.prefix);
        push_token(&mut subject, table.as_bytes());
        subject.push('.');
        subject
    }
}

/// What the queues of a stream want.
#[derive(Debug, Default)]
pub(super) struct Wants {
    filters: Vec<String>,
}

impl Wants {
    /// One more queue, by its filters; without any it wants everything.
    pub(super) fn add(&mut self, filter: String, more: Vec<String>) {
        let before = self.filters.len();
        self.filters.extend(more.into_iter().chain([filter]).filter(|filter| !filter.is_empty()));
        if self.filters.len() == before {
            self.filters.push(">".to_owned());
        }
    }

    /// Whether some queue wants what is published to this subject.
    pub(super) fn include(&self, subject: &str) -> bool {
        self.filters.iter().any(|filter| matches(filter, subject))
    }
}

fn matches(filter: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in filter.split('.') {
        match (wanted, tokens.next()) {
            (">", Some(_)) => return true,
            (_, None) => return false,
            (wanted, Some(token)) if wanted != "*" && wanted != token => return false,
            _ => {}
        }
    }
    tokens.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_one_token_whatever_its_name() {
        let subjects = Subjects::new("shop.eu");
        assert_eq!(subjects.of("users", "create").as_deref(), Some("shop.eu.users.create"));
        assert_eq!(subjects.of("app.users *", "delete").as_deref(), Some("shop.eu.app=2Eusers=20=2A.delete"));
        assert_eq!(subjects.of("", "update").as_deref(), Some("shop.eu.=.update"));
        assert_eq!(subjects.of(&"t".repeat(5000), "update"), None);
        assert_eq!(subjects.of_table("a.b"), "shop.eu.a=2Eb.*");
        assert_eq!(subjects.all(), "shop.eu.*.*");
    }

    #[test]
    fn a_dead_letter_stands_where_its_queue_and_message_stood() {
        let subjects = Subjects::new("shop.eu");
        assert_eq!(subjects.dead("redis", "shop.eu.users.create"), "shop.eu.dead.redis.users.create");
        for foreign in ["orders.new", "shop.eu.deep.er.still", "shop.eu"] {
            assert_eq!(subjects.dead("redis", foreign), "shop.eu.dead.redis.=.=", "{foreign}");
        }
    }

    #[test]
    fn a_subject_is_wanted_by_whoever_filters_for_it() {
        let wants = |filters: &[&str]| {
            let mut wants = Wants::default();
            for filter in filters {
                wants.add((*filter).to_owned(), Vec::new());
            }
            wants.include("p.users.create")
        };
        for wanted in ["", ">", "p.>", "p.*.*", "*.users.*", "p.users.create", "p.users.>"] {
            assert!(wants(&[wanted]) && wants(&["x", wanted]), "{wanted}");
        }
        for other in ["p", "p.users", "p.orders.*", "p.*", "p.users.create.>", "p.users.create.x", "*.*.*.*"] {
            assert!(!wants(&[other]), "{other}");
        }
        assert!(!wants(&[]));
    }

    #[test]
    fn a_prefix_is_made_of_whole_tokens() {
        assert!(["kvsync", "a.b-c.d_1"].into_iter().all(Subjects::is_prefix));
        assert!(!["", ".a", "a.", "a..b", "a b", "a.*", "a.>", "ä"].into_iter().any(Subjects::is_prefix));
    }
}
