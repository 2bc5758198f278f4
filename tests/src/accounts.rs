//! Rows that many writers change at random, and what a store then has to say of them.

use diesel::prelude::*;
use diesel::result::Error as DieselError;
use kvsync::capture::SyncConnection;
use kvsync::{KvSync, Lookup, Miss, Syncable};
use rand::Rng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use crate::Tested;

diesel::table! {
    accounts (id) {
        id -> Integer,
        email -> Nullable<Text>,
        handle -> Text,
        n -> Integer,
    }
}

/// A row under its primary key, a unique value that may be NULL, and one that points to the first.
#[derive(
    Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Insertable, Serialize, Deserialize, Syncable,
)]
#[diesel(table_name = accounts)]
#[sync_key(name = "id", fmt = "account:id:<id>")]
#[sync_key(name = "email", fmt = "account:email:<email>")]
#[sync_key(name = "handle", fmt = "account:handle:<handle>", pointer)]
pub struct Account {
    /// The primary key.
    pub id: i32,
    /// Unique.
    pub email: Option<String>,
    /// Unique.
    pub handle: String,
    /// In no key.
    pub n: i32,
}

const ROWS: i32 = 6;
const VALUES: i32 = 5;

/// Makes the table.
pub const TABLE: &str = "CREATE TABLE accounts (id INTEGER PRIMARY KEY, email TEXT UNIQUE, handle TEXT NOT NULL UNIQUE, n INTEGER NOT NULL)";

/// Looks at every key that any row ever had, in every way.
///
/// # Errors
/// When the store could not be read, or says something else than the database.
pub fn compare(rows: &[Account], kv: &KvSync) -> Tested {
    let mut wrong = Vec::new();
    let mut check = |key: String, truth: Option<&Account>, seen: Lookup<Account>, strict: Option<Account>| {
        let right = match (&seen, truth) {
            (Lookup::Found(seen), Some(truth)) => seen == truth,
            (Lookup::Absent | Lookup::Unknown(Miss::NotStored), None) => true,
            _ => false,
        };
        if !right || strict.as_ref() != truth {
            wrong.push(format!("{key}: the database has {truth:?}, the store {seen:?}, strictly {strict:?}"));
        }
    };
    for id in 1..=ROWS {
        let truth = rows.iter().find(|row| row.id == id);
        check(format!("id {id}"), truth, Account::lookup_by_id(kv, id)?, Account::fetch_strict_by_id(kv, id)?);
    }
    for value in 0..VALUES {
        let (email, handle) = (format!("e{value}"), format!("h{value}"));
        let owner = rows.iter().find(|row| row.email.as_ref() == Some(&email));
        let strict = Account::fetch_strict_by_email(kv, &email)?;
        check(email.clone(), owner, Account::lookup_by_email(kv, &email)?, strict);
        let owner = rows.iter().find(|row| row.handle == handle);
        let strict = Account::fetch_strict_by_handle(kv, &handle)?;
        check(handle.clone(), owner, Account::lookup_by_handle(kv, &handle)?, strict);
    }
    let many = Account::fetch_many_by_id(kv, 1..=ROWS)?;
    for (id, found) in (1..=ROWS).zip(many) {
        let truth = rows.iter().find(|row| row.id == id);
        if found.as_ref() != truth {
            wrong.push(format!("id {id} among many: the database has {truth:?}, the store {found:?}"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

/// What a writer does next, with values drawn.
pub struct Step {
    kind: u32,
    row: i32,
    other: i32,
    email: Option<String>,
    handle: String,
    n: i32,
}

/// Takes so many steps at random.
///
/// # Errors
/// When a step failed otherwise than by a conflict.
pub fn rounds(rounds: usize, random: &mut StdRng, mut step: impl FnMut(&Step) -> QueryResult<()>) -> Tested {
    for _ in 0..rounds {
        let email = random.random_bool(0.8).then(|| format!("e{}", random.random_range(0..VALUES)));
        let next = Step {
            kind: random.random_range(0..8),
            row: random.random_range(1..=ROWS),
            other: random.random_range(1..=ROWS),
            email,
            handle: format!("h{}", random.random_range(0..VALUES)),
            n: random.random(),
        };
        match step(&next) {
            // Conflicts between the writers are part of the game.
            Ok(()) | Err(DieselError::DatabaseError(..) | DieselError::RollbackTransaction) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

macro_rules! step {
    ($name:ident, $connection:ty) => {
        /// Takes a step.
        ///
        /// # Errors
        /// Those of the database, and a rollback that was asked for.
        pub fn $name(conn: &mut SyncConnection<$connection>, step: &Step) -> QueryResult<()> {
            use self::accounts::dsl::{accounts, email, handle, n};
            let row = accounts.find(step.row);
            match step.kind {
                0 | 1 => {
                    let new =
                        Account { id: step.row, email: step.email.clone(), handle: step.handle.clone(), n: step.n };
                    diesel::insert_into(accounts).values(&new).execute(conn)?;
                }
                2 => drop(diesel::update(row).set(n.eq(step.n)).execute(conn)?),
                3 => drop(diesel::update(row).set(email.eq(&step.email)).execute(conn)?),
                4 => drop(diesel::delete(row).execute(conn)?),
                // Two rows swap their unique values by way of NULL.
                5 => conn.transaction(|conn| {
                    let get = |conn: &mut SyncConnection<$connection>, id: i32| {
                        accounts.find(id).select(email).first::<Option<String>>(conn).optional()
                    };
                    let (one, other) = (get(conn, step.row)?.flatten(), get(conn, step.other)?.flatten());
                    diesel::update(row).set(email.eq(None::<String>)).execute(conn)?;
                    diesel::update(accounts.find(step.other)).set(email.eq(one)).execute(conn)?;
                    diesel::update(row).set(email.eq(other)).execute(conn)?;
                    Ok::<_, DieselError>(())
                })?,
                // Deleted and inserted again, with a savepoint that is rolled back.
                6 => conn.transaction(|conn| {
                    diesel::delete(row).execute(conn)?;
                    let rolled_back = conn.transaction(|conn| {
                        diesel::update(accounts).set(n.eq(-1)).execute(conn)?;
                        Err::<(), _>(DieselError::RollbackTransaction)
                    });
                    debug_assert!(rolled_back.is_err());
                    let new =
                        Account { id: step.row, email: step.email.clone(), handle: step.handle.clone(), n: step.n };
                    diesel::insert_into(accounts).values(&new).execute(conn)?;
                    Ok::<_, DieselError>(())
                })?,
                _ => conn.transaction(|conn| {
                    diesel::update(row).set((handle.eq(&step.handle), n.eq(step.n))).execute(conn)?;
                    if step.n % 2 == 0 { Err(DieselError::RollbackTransaction) } else { Ok(()) }
                })?,
            }
            Ok(())
        }
    };
}

step!(sqlite_step, SqliteConnection);
step!(postgres_step, PgConnection);
