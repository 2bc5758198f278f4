//! A synced table, one that is not, and connections whose changes and reports are kept.

use diesel::prelude::*;
use kvsync::Syncable;
use kvsync::capture::Policy;
use kvsync::change::{Change, ChangeSet, Missed};
use serde::{Deserialize, Serialize};

diesel::table! {
    users (id) {
        id -> Integer,
        name -> Text,
        age -> Nullable<Integer>,
    }
}

#[derive(
    Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Insertable, Serialize, Deserialize, Syncable,
)]
#[diesel(table_name = users)]
#[sync_key(name = "id", fmt = "user:<id>")]
pub struct User {
    pub id: i32,
    pub name: String,
    pub age: Option<i32>,
}

pub const TABLES: &str = "
    CREATE TABLE users (id INTEGER PRIMARY KEY NOT NULL, name TEXT NOT NULL UNIQUE, age INTEGER);
    CREATE TABLE posts (id INTEGER PRIMARY KEY NOT NULL, user_id INTEGER NOT NULL, title TEXT NOT NULL);
    INSERT INTO users VALUES (1, 'ada', 30), (2, 'bob', NULL), (3, 'cyd', 7);
    INSERT INTO posts VALUES (1, 1, 'first'), (2, 2, 'second');";

/// How a statement is handed to the connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum By {
    Execute,
    Load,
    Batch,
}

/// A statement that cannot be captured, and a part of the reason that is given.
pub type Case = (By, &'static str, &'static str);

pub const POLICIES: [Policy; 3] = [Policy::Error, Policy::Warn, Policy::Allow];

/// What a statement left behind.
#[derive(Debug)]
pub struct Left {
    pub result: Result<(), String>,
    pub changes: Vec<String>,
    pub missed: Vec<Missed>,
    /// What is in the synced table.
    pub rows: Vec<User>,
}

impl Left {
    /// It ran, these changes and no others were captured, and nothing was reported.
    pub fn captured(&self, changes: &[&str]) -> bool {
        self.result.is_ok() && self.changes == changes && self.missed.is_empty()
    }

    /// It ran, nothing was captured, and what was reported has this in its reason, and is all.
    pub fn reported(&self, reason: &str) -> bool {
        self.result.is_ok() && self.changes.is_empty() && self.missed.len() == 1 && self.reasons()[0].contains(reason)
    }

    pub fn reasons(&self) -> Vec<&str> {
        self.missed.iter().map(|missed| &*missed.reason).collect()
    }
}

/// Each change as `action key`.
pub fn changes(sets: Vec<ChangeSet>) -> Vec<String> {
    let line = |change: Change| format!("{} {}", change.action, change.home());
    sets.into_iter().flat_map(|set| set.changes).map(line).collect()
}

/// What both backends need, for the types of one.
macro_rules! setup {
    ($backend:ty, $connection:ty) => {
        use std::fmt::Write as _;
        use std::sync::Arc;

        use diesel::connection::SimpleConnection;
        use diesel::prelude::*;
        use diesel::sql_query;
        use kvsync::capture::{Attached, Database, Policy, SyncConnection, Unattached};
        use kvsync_tests::recorder::Recorder;

        use super::setup::{By, Case, Left, POLICIES, User, changes, users};

        /// A count that a raw statement returns; what it says is of no interest.
        #[derive(QueryableByName)]
        struct Any {}

        macro_rules! run {
            ($conn:expr, $by:expr, $sql:expr) => {
                match $by {
                    By::Execute => sql_query($sql).execute($conn).map(drop),
                    By::Load => sql_query($sql).load::<Any>($conn).map(drop),
                    By::Batch => $conn.batch_execute($sql),
                }
                .map_err(|error| error.to_string())
            };
        }

        /// A wrapped connection and what it hands on.
        struct Session {
            conn: SyncConnection<$connection>,
            recorder: Arc<Recorder>,
        }

        impl Session {
            /// Under a policy, or under the one that nobody set.
            fn new(policy: Option<Policy>, conn: $connection) -> Self {
                let recorder = Recorder::new();
                let mut database = Database::<$backend>::new("main", || Err("not needed")).model::<User>();
                if let Some(policy) = policy {
                    database = database.policy(policy);
                }
                let attached = Box::new(database).attach(Arc::<Recorder>::clone(&recorder)).unwrap();
                let attached: Attached<$backend> = attached.downcast().unwrap().clone();
                Self { conn: attached.wrap(conn).unwrap(), recorder }
            }

            /// Runs a statement.
            fn run(&mut self, by: By, sql: &str) -> Left {
                let conn = &mut self.conn;
                let result = run!(conn, by, sql);
                let (sets, missed) = (self.recorder.take(), self.recorder.missed());
                Left { result, changes: changes(sets), missed, rows: rows(self.conn.unsynced()) }
            }

            fn execute(&mut self, sql: &str) -> Left {
                self.run(By::Execute, sql)
            }
        }

        fn rows(conn: &mut $connection) -> Vec<User> {
            users::table.order(users::id).load(conn).unwrap_or_default()
        }

        /// Runs each case under each policy, plain and wrapped on equal databases. Each of them writes the
        /// synced table when it is run.
        fn check(cases: &[Case], mut open: impl FnMut() -> $connection) {
            let mut wrong = String::new();
            for &(by, sql, reason) in cases {
                for policy in POLICIES {
                    let mut plain = open();
                    let before = rows(&mut plain);
                    let expected: Result<(), String> = {
                        let conn = &mut plain;
                        run!(conn, by, sql)
                    };
                    let after = rows(&mut plain);
                    drop(plain);
                    let left = Session::new(Some(policy), open()).run(by, sql);
                    let told = left.missed.iter().filter(|missed| missed.reason.contains(reason)).count();
                    let fits = before != after
                        && left.changes.is_empty()
                        && match policy {
                            Policy::Error => {
                                left.missed.is_empty()
                                    && left.rows == before
                                    && left.result.as_ref().is_err_and(|error| error.contains(reason))
                            }
                            Policy::Warn => {
                                (told, left.missed.len()) == (1, 1) && left.rows == after && left.result == expected
                            }
                            Policy::Allow => left.missed.is_empty() && left.rows == after && left.result == expected,
                        };
                    if !fits {
                        writeln!(wrong, "{policy:?}, {by:?}: {sql}\n  plain {expected:?} {after:?}\n  {left:?}")
                            .unwrap();
                    }
                }
            }
            assert!(wrong.is_empty(), "\n{wrong}");
        }
    };
}
pub(crate) use setup;
