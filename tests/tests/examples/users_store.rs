//! Users with unique names, on several stores.

use std::collections::BTreeSet;
use std::sync::Arc;

use kvsync::ErrorKind;
use kvsync::store::data::{Atomicity, Command, DataCapabilities, DataStore, Operation, Outcome, Reads, Reply};
use kvsync::store::{DynamoDbStore, EmbeddedStore, Health, MemoryStore, RedisStore, Store};
use kvsync_tests::{Tested, env};
use libtest_mimic::{Failed, Trial};

use super::users::{Added, Renamed, User, Users};

/// What a test does with users in an empty place of a store.
type Case = fn(&Users<dyn DataStore>) -> Tested;

const CASES: [(&str, Case); 4] =
    [("says_what_is_taken", taken), ("pages", pages), ("renames_and_deletes", changes), ("racing_adders", races)];

const STORES: [&str; 5] = ["memory", "embedded", "redis", "cluster", "dynamodb"];

pub fn trials() -> Vec<Trial> {
    let one = |store: &'static str, (name, case): (&'static str, Case)| {
        Trial::test(format!("users_store::{store}::{name}"), move || {
            let folder = tempfile::tempdir()?;
            let tag = format!("users-{}-{name}-{}", std::process::id(), rand::random::<u32>());
            told(open(store, folder.path()).and_then(|data| case(&Users::new(data, &tag)?)))
        })
    };
    let of_store = |store| CASES.into_iter().map(move |case| one(store, case));
    let narrow = Trial::test("users_store::a_store_of_single_keys_is_refused", || told(narrow()));
    STORES.into_iter().flat_map(of_store).chain([narrow]).collect()
}

pub fn told(tested: Tested) -> Result<(), Failed> {
    tested.map_err(|error| Failed::from(error.to_string()))
}

fn open(store: &str, folder: &std::path::Path) -> Tested<Arc<dyn DataStore>> {
    Ok(match store {
        "memory" => Arc::new(MemoryStore::new()),
        "embedded" => Arc::new(EmbeddedStore::open(folder)?),
        "redis" => Arc::new(RedisStore::connect(env::redis_url()?)?),
        "dynamodb" => {
            let table = format!("users-{}-{}", std::process::id(), rand::random::<u32>());
            let builder = DynamoDbStore::builder(table).endpoint(env::dynamodb_url()?).region("eu-west-1");
            let builder = builder.credentials("test", "test");
            builder.create_table()?;
            Arc::new(builder.connect()?)
        }
        _ => Arc::new(RedisStore::cluster(env::redis_cluster_urls()?)?),
    })
}

fn added(users: &Users<dyn DataStore>, name: &str) -> Tested<User> {
    match users.add(name, &format!("{name}@example.com"))? {
        Added::Done(user) => Ok(user),
        Added::Taken { .. } => Err(format!("{name} is taken").into()),
    }
}

fn taken(users: &Users<dyn DataStore>) -> Tested {
    let ann = added(users, "ann")?;
    let taken = |username, email| Added::Taken { username, email };
    assert_eq!(users.add("ann", "other@example.com")?, taken(true, false));
    assert_eq!(users.add("other", "ann@example.com")?, taken(false, true));
    assert_eq!(users.add("ann", "ann@example.com")?, taken(true, true));
    // What was refused has left nothing.
    assert_eq!(users.by_username("other")?, None);
    assert_eq!(users.page(None, 10)?.users, std::slice::from_ref(&ann));
    let bob = added(users, "bob")?;
    let missing = bob.id + 1000;
    assert_eq!(users.get_many(&[bob.id, missing, ann.id])?, [Some(bob), None, Some(ann)]);
    assert_eq!(users.get_many(&[])?, []);
    Ok(())
}

fn pages(users: &Users<dyn DataStore>) -> Tested {
    let names = ["zoe", "ann", "eve", "éva", "bob", "Ann", "bo"];
    for name in names {
        added(users, name)?;
    }
    for size in [1, 2, 7, 100] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = users.page(after.as_deref(), size)?;
            assert!(page.users.len() <= size);
            seen.extend(page.users.into_iter().map(|user| user.username));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, names.map(str::to_owned).into_iter().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>());
    }
    Ok(())
}

fn changes(users: &Users<dyn DataStore>) -> Tested {
    let (ann, bob) = (added(users, "ann")?, added(users, "bob")?);
    assert_eq!(users.rename(ann.id, "bob")?, Renamed::Taken);
    assert_eq!(users.rename(ann.id, "ann")?, Renamed::Done(ann.clone()));
    let anne = User { username: "anne".to_owned(), ..ann };
    assert_eq!(users.rename(anne.id, "anne")?, Renamed::Done(anne.clone()));
    assert_eq!((users.by_username("ann")?, users.by_username("anne")?), (None, Some(anne.clone())));
    assert_eq!(users.page(None, 10)?.users, [anne.clone(), bob.clone()]);
    // The old name is free, the address is not.
    assert_eq!(users.add("ann", "ann@example.com")?, Added::Taken { username: false, email: true });
    let Added::Done(next) = users.add("ann", "next@example.com")? else { return Err("ann is not free".into()) };

    assert!(users.delete(anne.id)? && !users.delete(anne.id)?);
    assert_eq!(users.rename(anne.id, "anna")?, Renamed::Missing);
    assert_eq!(users.page(None, 10)?.users, [next, bob]);
    assert!(matches!(users.add("anne", "ann@example.com")?, Added::Done(_)));
    Ok(())
}

/// Of many who want one name one gets it, and nobody leaves half a user.
fn races(users: &Users<dyn DataStore>) -> Tested {
    let wanted = ["ann", "bob", "eve"];
    let outcomes = std::thread::scope(|scope| {
        let add = |adder: usize| {
            move || wanted.map(|name| users.add(name, &format!("{name}-{}@example.com", adder % 2)).unwrap())
        };
        let threads: Vec<_> = (0..6).map(|adder| scope.spawn(add(adder))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<Added>>()
    });
    let mut winners: Vec<User> =
        outcomes.into_iter().filter_map(|one| if let Added::Done(user) = one { Some(user) } else { None }).collect();
    winners.sort_by(|one, other| one.username.cmp(&other.username));
    assert_eq!(winners.iter().map(|user| &*user.username).collect::<Vec<_>>(), wanted);
    assert_eq!(users.page(None, 10)?.users, winners);

    // Renamed and deleted at the same time: the user is gone, and both names are free.
    for user in winners {
        let new = format!("{}-new", user.username);
        std::thread::scope(|scope| {
            scope.spawn(|| users.rename(user.id, &new).unwrap());
            scope.spawn(|| assert!(users.delete(user.id).unwrap()));
        });
        assert_eq!(users.get_many(&[user.id])?, [None]);
        let free = |name: &str| {
            Ok::<_, kvsync::Error>(
                matches!(users.add(name, &user.email)?, Added::Done(again) if users.delete(again.id)?),
            )
        };
        assert!(free(&user.username)? && free(&new)?, "{user:?}");
    }
    assert_eq!(users.page(None, 10)?.users, []);
    Ok(())
}

/// A store whose atomic writes span one key.
#[derive(Debug)]
struct Narrow(MemoryStore);

impl Store for Narrow {
    fn name(&self) -> &'static str {
        "narrow"
    }

    fn health(&self, deadline: std::time::Duration) -> Health {
        self.0.health(deadline)
    }

    fn close(&self) -> kvsync::Result<()> {
        Ok(())
    }
}

impl DataStore for Narrow {
    fn data_capabilities(&self) -> DataCapabilities {
        self.0.data_capabilities().with_atomic(Atomicity::Key, 100)
    }

    fn run(&self, commands: &[Command], reads: Reads) -> Vec<kvsync::Result<Reply>> {
        self.0.run(commands, reads)
    }

    fn run_atomic(&self, operations: &[Operation]) -> kvsync::Result<Outcome> {
        self.0.run_atomic(operations)
    }
}

fn narrow() -> Tested {
    let refused = Users::new(Arc::new(Narrow(MemoryStore::new())), "users").err().ok_or("it was not refused")?;
    assert_eq!(refused.kind(), ErrorKind::Config);
    Ok(())
}
