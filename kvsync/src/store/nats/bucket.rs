//! The bucket: a stream with the settings of a key-value store, which other clients of NATS read too.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};

use crate::error::{Error, ErrorKind, Result};

/// Which bucket, and how it is made where it is missing.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    pub(super) name: String,
    pub(super) create: bool,
    pub(super) replicas: usize,
    pub(super) in_memory: bool,
    pub(super) max_bytes: Option<u64>,
}

impl Bucket {
    /// The stream behind it.
    pub(super) fn stream(&self) -> String {
        format!("KV_{}", self.name)
    }

    /// What it is called in errors.
    pub(super) fn place(&self) -> String {
        format!("the bucket {}", self.name)
    }

    fn subjects(&self) -> String {
        format!("$KV.{}.>", self.name)
    }

    /// What every client of NATS makes a bucket of, with a history of one.
    pub(super) fn config(&self) -> Config {
        Config {
            name: self.stream(),
            description: Some("rows and data of kvsync".to_owned()),
            subjects: vec![self.subjects()],
            max_messages_per_subject: 1,
            max_bytes: self.max_bytes.and_then(|bytes| i64::try_from(bytes).ok()).unwrap_or(-1),
            max_messages: -1,
            max_consumers: -1,
            max_age: Duration::ZERO,
            // A bucket that is full refuses writes; it forgets nothing.
            discard: DiscardPolicy::New,
            storage: if self.in_memory { StorageType::Memory } else { StorageType::File },
            num_replicas: self.replicas,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: true,
            ..Config::default()
        }
    }

    /// Fails for a bucket in which an entry could not be written, removed or believed.
    pub(super) fn check(&self, config: &Config) -> Result<()> {
        let wrong = |what: &str| {
            let message = format!("the bucket {} cannot be used: {what}; give kvsync a bucket of its own", self.name);
            Err(Error::new(ErrorKind::Config, message))
        };
        if config.mirror.is_some() {
            return wrong("it is a mirror of another, which takes the writes");
        }
        if config.subjects != [self.subjects()] {
            return wrong("its stream is no key-value bucket");
        }
        if config.max_messages_per_subject != 1 {
            return wrong(
                "it keeps a history, out of which what was removed would come back (`nats kv add --history 1`)",
            );
        }
        if config.retention != RetentionPolicy::Limits {
            return wrong("its stream drops what was read");
        }
        if config.discard_new_per_subject {
            return wrong("it refuses to write over an entry (`discard_new_per_subject`)");
        }
        if config.no_ack {
            return wrong("it does not answer writes (`no_ack`)");
        }
        if config.sealed {
            return wrong("it is sealed");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Spoil = fn(&mut Config);

    fn bucket() -> Bucket {
        Bucket { name: "b".into(), create: true, replicas: 1, in_memory: false, max_bytes: None }
    }

    #[test]
    fn what_is_made_can_be_used() {
        let told = |config: Config| bucket().check(&config).err().map(|error| error.to_string());
        assert_eq!(told(bucket().config()), None);
        let spoilt: [(Spoil, &str); 5] = [
            (|config| config.max_messages_per_subject = 5, "history"),
            (|config| config.subjects = vec!["orders.>".into()], "no key-value bucket"),
            (|config| config.discard_new_per_subject = true, "write over"),
            (|config| config.no_ack = true, "answer"),
            (|config| config.retention = RetentionPolicy::WorkQueue, "drops"),
        ];
        for (spoil, what) in spoilt {
            let mut config = bucket().config();
            spoil(&mut config);
            assert!(told(config).is_some_and(|told| told.contains(what)), "{what}");
        }
    }
}
