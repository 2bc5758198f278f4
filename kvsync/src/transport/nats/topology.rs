//! The stream, its dead letters and its queues: how they are made, and what they have to be.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, Config as Queue, DeliverPolicy};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};

use super::subject::Subjects;
use crate::error::{Error, ErrorKind, Result};

/// For how long a server knows the ids of messages, if it keeps them as long.
const DUPLICATES: Duration = Duration::from_mins(2);
/// The longest name of a stream or a queue; with `-dead` behind it, it is still the name of a file.
const MAX_NAME: usize = 128;

/// What stands on the servers, and how it is made where it is missing.
#[derive(Debug, Clone)]
pub(super) struct Topology {
    pub(super) stream: String,
    pub(super) prefix: String,
    /// Which tables queues are for; none for all.
    pub(super) tables: Vec<String>,
    /// The queues that who publishes sees to.
    pub(super) queues: Vec<String>,
    pub(super) replicas: usize,
    pub(super) max_age: Duration,
    pub(super) max_messages: Option<u64>,
    pub(super) max_bytes: Option<u64>,
    pub(super) ack_wait: Duration,
    pub(super) max_ack_pending: usize,
    pub(super) check_only: bool,
}

/// Fails for what servers or file systems do not take as a name.
pub(super) fn named(what: &str, name: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(allowed) {
        let message = format!("`{name}` is no name of a {what}; take letters, digits, `-` and `_`, at most {MAX_NAME}");
        return Err(Error::new(ErrorKind::Config, message));
    }
    Ok(())
}

impl Topology {
    pub(super) fn subjects(&self) -> Subjects {
        Subjects::new(&self.prefix)
    }

    /// What the stream is called in errors.
    pub(super) fn place(&self) -> String {
        format!("the stream {}", self.stream)
    }

    /// The name of the stream of dead letters.
    pub(super) fn dead(&self) -> String {
        format!("{}-dead", self.stream)
    }

    /// What the subjects begin with at which the server is told how messages of a queue ended.
    pub(super) fn ends(&self, queue: &str) -> String {
        format!("$JS.ACK.{}.{queue}.", self.stream)
    }

    /// The stream.
    pub(super) fn config(&self) -> Config {
        Config {
            description: Some("changes of rows, by kvsync".to_owned()),
            subjects: vec![self.subjects().all()],
            max_messages: limit(self.max_messages),
            max_bytes: limit(self.max_bytes),
            max_age: self.max_age,
            duplicate_window: if self.max_age.is_zero() { DUPLICATES } else { DUPLICATES.min(self.max_age) },
            ..self.kept(self.stream.clone())
        }
    }

    /// The stream of dead letters, which stay until somebody removes them.
    pub(super) fn dead_config(&self) -> Config {
        Config {
            description: Some("changes of rows that could not be applied, by kvsync".to_owned()),
            subjects: vec![self.subjects().all_dead()],
            max_bytes: -1,
            duplicate_window: DUPLICATES,
            ..self.kept(self.dead())
        }
    }

    fn kept(&self, name: String) -> Config {
        Config {
            name,
            max_messages: -1,
            max_messages_per_subject: -1,
            max_consumers: -1,
            // A stream that is full refuses messages; it forgets none.
            discard: DiscardPolicy::New,
            retention: RetentionPolicy::Limits,
            storage: StorageType::File,
            num_replicas: self.replicas,
            ..Config::default()
        }
    }

    /// A queue: a durable consumer that is asked for messages.
    pub(super) fn queue(&self, name: &str) -> Queue {
        let (filter_subject, filter_subjects) = match self.filters().as_slice() {
            [one] => (one.clone(), Vec::new()),
            several => (String::new(), several.to_vec()),
        };
        Queue {
            durable_name: Some(name.to_owned()),
            description: Some("a queue of kvsync".to_owned()),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.ack_wait,
            max_deliver: -1,
            max_ack_pending: i64::try_from(self.max_ack_pending).unwrap_or(i64::MAX),
            filter_subject,
            filter_subjects,
            ..Queue::default()
        }
    }

    fn filters(&self) -> Vec<String> {
        let subjects = self.subjects();
        let mut filters: Vec<String> = self.tables.iter().map(|table| subjects.of_table(table)).collect();
        filters.sort();
        filters.dedup();
        filters
    }

    /// Fails for a stream in which a message could be lost, or a confirmation would mean nothing.
    pub(super) fn check(&self, config: &Config) -> Result<()> {
        check_stream(config, &self.subjects().all())
    }

    /// The same of the stream of dead letters.
    pub(super) fn check_dead(&self, config: &Config) -> Result<()> {
        check_stream(config, &self.subjects().all_dead())
    }

    /// Fails for a queue from which messages would vanish, or which is not of these tables.
    pub(super) fn check_queue(&self, name: &str, config: &Queue) -> Result<()> {
        let mut filters = config.filter_subjects.clone();
        filters.extend(Some(config.filter_subject.clone()).filter(|filter| !filter.is_empty()));
        filters.sort();
        let wanted = self.filters();
        let wrong = [
            (config.deliver_subject.is_some(), "it pushes messages, and is not asked for them"),
            (config.ack_policy != AckPolicy::Explicit, "it does not want every message acknowledged (`ack_policy`)"),
            (config.max_deliver > 0, "it drops what was delivered too often (`max_deliver`)"),
            (config.headers_only, "it delivers no bodies (`headers_only`)"),
            (!config.inactive_threshold.is_zero(), "it is removed when nobody asks it (`inactive_threshold`)"),
            (
                wanted.len() > 1 && filters.is_empty(),
                "the server knows no queue of several tables, which needs nats-server 2.10; remove this queue",
            ),
            (wanted != filters, "it is of other tables; take another name"),
        ];
        match wrong.iter().find(|(is_wrong, _)| *is_wrong) {
            Some((_, why)) => {
                let message = format!("the queue {name} of the stream {} cannot be used: {why}", self.stream);
                Err(Error::new(ErrorKind::Config, message))
            }
            None => Ok(()),
        }
    }
}

fn check_stream(config: &Config, subject: &str) -> Result<()> {
    let bounded = config.max_bytes > 0 || config.max_messages > 0;
    let wrong = [
        (config.mirror.is_some(), "it is a mirror, which takes no messages"),
        (!config.subjects.iter().any(|of| of == subject), "it is not of this prefix"),
        (config.retention != RetentionPolicy::Limits, "it drops what it thinks nobody wants (`retention`)"),
        (config.max_messages_per_subject > 0, "it forgets all but the last messages (`max_msgs_per_subject`)"),
        (bounded && config.discard == DiscardPolicy::Old, "it forgets its oldest messages when it is full (`discard`)"),
        (config.no_ack, "it confirms nothing (`no_ack`)"),
        (config.sealed, "it is sealed"),
    ];
    match wrong.iter().find(|(is_wrong, _)| *is_wrong) {
        Some((_, why)) => {
            let message = format!(
                "the stream {} cannot be used for `{subject}`: {why}; give kvsync a stream of its own",
                config.name
            );
            Err(Error::new(ErrorKind::Config, message))
        }
        None => Ok(()),
    }
}

fn limit(most: Option<u64>) -> i64 {
    most.and_then(|most| i64::try_from(most).ok()).unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Spoil<T> = fn(&mut T);

    fn topology() -> Topology {
        Topology {
            stream: "s".into(),
            prefix: "p".into(),
            tables: vec!["users".into()],
            queues: Vec::new(),
            replicas: 1,
            max_age: Duration::ZERO,
            max_messages: Some(10),
            max_bytes: Some(1000),
            ack_wait: Duration::from_secs(30),
            max_ack_pending: 10,
            check_only: false,
        }
    }

    #[test]
    fn a_stream_that_is_made_can_be_used_and_one_that_forgets_cannot() {
        let told = |config: Config| topology().check(&config).err().map(|error| error.to_string());
        assert_eq!(told(topology().config()), None);
        assert!(topology().check_dead(&topology().dead_config()).is_ok());
        assert!(topology().check_dead(&topology().config()).is_err());
        let spoilt: [(Spoil<Config>, &str); 6] = [
            (|config| config.subjects = vec!["orders.>".into()], "prefix"),
            (|config| config.retention = RetentionPolicy::WorkQueue, "retention"),
            (|config| config.retention = RetentionPolicy::Interest, "retention"),
            (|config| config.max_messages_per_subject = 1, "per_subject"),
            (|config| config.discard = DiscardPolicy::Old, "discard"),
            (|config| config.no_ack = true, "no_ack"),
        ];
        for (spoil, what) in spoilt {
            let mut config = topology().config();
            spoil(&mut config);
            assert!(told(config).is_some_and(|told| told.contains(what)), "{what}");
        }
    }

    #[test]
    fn a_queue_that_is_made_can_be_used_and_one_that_drops_cannot() {
        let told = |config: Queue| topology().check_queue("q", &config).err().map(|error| error.to_string());
        assert_eq!(told(topology().queue("q")), None);
        let spoilt: [(Spoil<Queue>, &str); 5] = [
            (|config| config.max_deliver = 3, "max_deliver"),
            (|config| config.ack_policy = AckPolicy::None, "ack_policy"),
            (|config| config.filter_subject = String::new(), "other tables"),
            (|config| config.deliver_subject = Some("x".into()), "pushes"),
            (|config| config.inactive_threshold = Duration::from_secs(1), "removed"),
        ];
        for (spoil, what) in spoilt {
            let mut config = topology().queue("q");
            spoil(&mut config);
            assert!(told(config).is_some_and(|told| told.contains(what)), "{what}");
        }
        let two = Topology { tables: vec!["b".into(), "a".into(), "b".into()], ..topology() };
        assert_eq!(two.queue("q").filter_subjects, ["p.a.*", "p.b.*"]);
        assert!(two.check_queue("q", &two.queue("q")).is_ok());
    }
}
