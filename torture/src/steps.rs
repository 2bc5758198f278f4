//! What a writer does: ordinary Diesel, in every shape that moves keys.

use std::thread;
use std::time::Duration;

use diesel::prelude::*;
use diesel::result::Error;
use kvsync::capture::SyncConnection;

use crate::dice::Dice;
use crate::models::{POISON, accounts, badges, members};

/// How a transaction begins.
#[derive(Debug, Clone, Copy)]
enum Way {
    Plain,
    Strict,
}

impl Way {
    fn draw(dice: &mut Dice, strict: u32) -> Self {
        if dice.percent(strict) { Self::Strict } else { Self::Plain }
    }
}

/// Begins a transaction: most of them with the write lock, as an application on SQLite does.
fn in_sqlite<T>(
    conn: &mut SyncConnection<SqliteConnection>,
    way: Way,
    work: impl FnOnce(&mut SyncConnection<SqliteConnection>) -> QueryResult<T>,
) -> QueryResult<T> {
    match way {
        Way::Plain => conn.immediate_transaction(work),
        Way::Strict => conn.transaction(work),
    }
}

/// Begins a transaction: most of them as Postgres does by itself.
fn in_postgres<T>(
    conn: &mut SyncConnection<PgConnection>,
    way: Way,
    work: impl FnOnce(&mut SyncConnection<PgConnection>) -> QueryResult<T>,
) -> QueryResult<T> {
    match way {
        Way::Plain => conn.transaction(work),
        Way::Strict => conn.build_transaction().repeatable_read().run(work),
    }
}

/// The same without kvsync.
fn in_strange_sqlite<T>(
    conn: &mut SqliteConnection,
    way: Way,
    work: impl FnOnce(&mut SqliteConnection) -> QueryResult<T>,
) -> QueryResult<T> {
    match way {
        Way::Plain => conn.immediate_transaction(work),
        Way::Strict => conn.transaction(work),
    }
}

/// The same without kvsync.
fn in_strange_postgres<T>(
    conn: &mut PgConnection,
    way: Way,
    work: impl FnOnce(&mut PgConnection) -> QueryResult<T>,
) -> QueryResult<T> {
    match way {
        Way::Plain => conn.transaction(work),
        Way::Strict => conn.build_transaction().repeatable_read().run(work),
    }
}

macro_rules! steps {
    ($name:ident, $step:ident, $conn:ty, $transaction:path) => {
        /// Does one thing, and returns how many rows it wrote and committed.
        pub(crate) fn $name(conn: &mut $conn, dice: &mut Dice) -> QueryResult<usize> {
            let kind = dice.below(100);
            if dice.autocommit || begins_by_itself(kind) {
                $step(conn, dice, kind)
            } else {
                $transaction(conn, Way::Plain, |conn| $step(conn, dice, kind))
            }
        }

        #[allow(clippy::too_many_lines, reason = "one arm a step, none depends on another")]
        fn $step(conn: &mut $conn, dice: &mut Dice, kind: i32) -> QueryResult<usize> {
            use accounts::dsl as a;
            use badges::dsl as b;
            use members::dsl as m;
            type Conn = $conn;

            let writer = dice.writer;
            let way = Way::draw(dice, 10);
            let email_of = |conn: &mut Conn, id: i32| -> QueryResult<Option<String>> {
                Ok(a::accounts.find(id).select(a::email).first::<Option<String>>(conn).optional()?.flatten())
            };
            match kind {
                // A row appears.
                0..12 => {
                    let id = dice.id(1);
                    diesel::insert_into(a::accounts).values(dice.account(id)).execute(conn)
                }
                // Three rows appear at once.
                12..15 => {
                    let id = dice.id(1);
                    let new: Vec<_> = (id..id + 3).map(|id| dice.account(id)).collect();
                    diesel::insert_into(a::accounts).values(&new).execute(conn)
                }
                // A row appears or is written over.
                15..20 => {
                    let id = dice.id(1);
                    let new = dice.account(id);
                    diesel::insert_into(a::accounts)
                        .values(&new)
                        .on_conflict(a::id)
                        .do_update()
                        .set((a::seq.eq(a::seq + 1), a::writer.eq(writer), a::note.eq(&new.note)))
                        .execute(conn)
                }
                // A row appears unless it stands in the way of another.
                20..22 => {
                    let id = dice.id(1);
                    diesel::insert_into(a::accounts).values(dice.account(id)).on_conflict_do_nothing().execute(conn)
                }
                // A row disappears, and comes back in a transaction that may take its time: meanwhile others read again
                // what is not there.
                22..24 => {
                    let (id, slow, long) = (dice.id(1), dice.percent(10), dice.below(120));
                    let (new, long) = (dice.account(id), if slow { long } else { 0 });
                    let deleted =
                        $transaction(conn, Way::Plain, |conn| diesel::delete(a::accounts.find(id)).execute(conn))?;
                    let inserted = $transaction(conn, way, |conn| {
                        let inserted = diesel::insert_into(a::accounts).values(&new).execute(conn)?;
                        thread::sleep(Duration::from_millis(long.unsigned_abs().into()));
                        Ok(inserted)
                    })?;
                    Ok(deleted + inserted)
                }
                // A row takes another primary key: for a reader it is another row, in another life. One that comes while
                // the statement runs would be announced as lost: so it is locked before.
                24..26 => {
                    let (one, other, life) = (dice.id(1), dice.id(1), dice.life());
                    let set = (a::id.eq(other), a::life.eq(life), a::seq.eq(0), a::writer.eq(writer));
                    $transaction(conn, Way::Plain, |conn| {
                        if diesel::update(a::accounts.find(one)).set(a::writer.eq(writer)).execute(conn)? == 0 {
                            return Ok(0);
                        }
                        diesel::update(a::accounts.find(one)).set(set).execute(conn)
                    })
                }
                // A row is written without a change of keys.
                26..32 => {
                    let row = a::accounts.find(dice.id(1));
                    let set = (a::seq.eq(a::seq + 1), a::writer.eq(writer), a::note.eq(dice.note()));
                    diesel::update(row).set(set).execute(conn)
                }
                // The same, and the application reads what it wrote.
                32..36 => {
                    let row = a::accounts.find(dice.id(1));
                    let set = (a::seq.eq(a::seq + 1), a::writer.eq(writer), a::note.eq(dice.note()));
                    diesel::update(row).set(set).returning(a::seq).get_results::<i32>(conn).map(|rows| rows.len())
                }
                // A row takes another key, or none.
                36..44 => {
                    let row = a::accounts.find(dice.id(1));
                    let set = (a::email.eq(dice.email()), a::seq.eq(a::seq + 1), a::writer.eq(writer));
                    diesel::update(row).set(set).execute(conn)
                }
                44..50 => {
                    let row = a::accounts.find(dice.id(1));
                    let set = (a::handle.eq(dice.handle()), a::seq.eq(a::seq + 1), a::writer.eq(writer));
                    diesel::update(row).set(set).execute(conn)
                }
                // Many rows are written by one statement.
                50..53 => {
                    let id = dice.id(1);
                    let rows = a::accounts.filter(a::id.between(id, id + dice.below(8)));
                    let set = (a::seq.eq(a::seq + 1), a::writer.eq(writer), a::note.eq(dice.note()));
                    diesel::update(rows).set(set).execute(conn)
                }
                // Rows disappear.
                53..58 => diesel::delete(a::accounts.find(dice.id(1))).execute(conn),
                58..59 => {
                    let id = dice.id(1);
                    diesel::delete(a::accounts.filter(a::id.between(id, id + 2))).execute(conn)
                }
                // Two rows swap a key by way of NULL.
                59..63 => {
                    let (one, other) = (dice.id(1), dice.id(1));
                    $transaction(conn, way, |conn| {
                        let (first, second) = (email_of(conn, one)?, email_of(conn, other)?);
                        let set = |conn: &mut Conn, id: i32, email: Option<String>| {
                            diesel::update(a::accounts.find(id))
                                .set((a::email.eq(email), a::seq.eq(a::seq + 1), a::writer.eq(writer)))
                                .execute(conn)
                        };
                        Ok(set(conn, one, None)? + set(conn, other, first)? + set(conn, one, second)?)
                    })
                }
                // The same by way of a value that nobody has.
                63..66 => {
                    let (one, other, between) = (dice.id(1), dice.id(1), dice.unique());
                    $transaction(conn, way, |conn| {
                        let handle_of = |conn: &mut Conn, id: i32| {
                            a::accounts.find(id).select(a::handle).first::<String>(conn).optional()
                        };
                        let (Some(first), Some(second)) = (handle_of(conn, one)?, handle_of(conn, other)?) else {
                            return Ok(0);
                        };
                        let set = |conn: &mut Conn, id: i32, handle: &str| {
                            diesel::update(a::accounts.find(id))
                                .set((a::handle.eq(handle), a::seq.eq(a::seq + 1), a::writer.eq(writer)))
                                .execute(conn)
                        };
                        Ok(set(conn, one, &between)? + set(conn, other, &first)? + set(conn, one, &second)?)
                    })
                }
                // A row hands its key to another.
                66..69 => {
                    let (one, other) = (dice.id(1), dice.id(1));
                    $transaction(conn, way, |conn| {
                        let email = email_of(conn, one)?;
                        let set = |conn: &mut Conn, id: i32, email: Option<String>| {
                            diesel::update(a::accounts.find(id))
                                .set((a::email.eq(email), a::seq.eq(a::seq + 1), a::writer.eq(writer)))
                                .execute(conn)
                        };
                        Ok(set(conn, one, None)? + set(conn, other, email)?)
                    })
                }
                // A row is deleted and inserted again.
                69..72 => {
                    let id = dice.id(1);
                    let new = dice.account(id);
                    $transaction(conn, way, |conn| {
                        let deleted = diesel::delete(a::accounts.find(id)).execute(conn)?;
                        Ok(deleted + diesel::insert_into(a::accounts).values(&new).execute(conn)?)
                    })
                }
                // What a savepoint wrote is rolled back, and what stands around it is not.
                72..78 => {
                    let (one, other, poison) = (dice.id(1), dice.id(1), dice.poison());
                    let released = dice.percent(50);
                    $transaction(conn, way, |conn| {
                        let set = (a::seq.eq(a::seq + 1), a::writer.eq(writer), a::note.eq("before"));
                        let before = diesel::update(a::accounts.find(one)).set(set).execute(conn)?;
                        let inner = conn.transaction(|conn| {
                            let set = (a::email.eq(&poison), a::note.eq(POISON), a::seq.eq(a::seq + 9));
                            diesel::update(a::accounts.find(one)).set(set).execute(conn)?;
                            diesel::delete(a::accounts.find(other)).execute(conn)?;
                            Err::<(), _>(Error::RollbackTransaction)
                        });
                        if !matches!(inner, Err(Error::RollbackTransaction)) {
                            return inner.map(|()| 0);
                        }
                        if !released {
                            return Ok(before);
                        }
                        let after = conn.transaction(|conn| {
                            let set = (a::seq.eq(a::seq + 1), a::writer.eq(writer), a::note.eq("after"));
                            diesel::update(a::accounts.find(other)).set(set).execute(conn)
                        })?;
                        Ok(before + after)
                    })
                }
                // All of it is rolled back.
                78..82 => {
                    let (one, other, third) = (dice.id(1), dice.id(1), dice.id(1));
                    let (poison, another) = (dice.poison(), dice.poison());
                    let mut new = dice.account(third);
                    (new.handle, new.note, new.email) = (another, POISON.into(), None);
                    rolled_back($transaction(conn, way, |conn| {
                        let set = (a::email.eq(&poison), a::note.eq(POISON), a::seq.eq(a::seq + 9));
                        diesel::update(a::accounts.find(one)).set(set).execute(conn)?;
                        diesel::delete(a::accounts.find(other)).execute(conn)?;
                        diesel::insert_into(a::accounts).values(&new).on_conflict_do_nothing().execute(conn)?;
                        Err(Error::RollbackTransaction)
                    }))
                }
                // Badges, whose keys never change while they live.
                82..85 => {
                    let id = dice.id(4);
                    diesel::insert_into(b::badges).values(dice.badge(id)).execute(conn)
                }
                85..88 => {
                    let row = b::badges.find(dice.id(4));
                    let set = (b::seq.eq(b::seq + 1), b::writer.eq(writer), b::note.eq(dice.note()));
                    diesel::update(row).set(set).execute(conn)
                }
                88..89 => diesel::delete(b::badges.find(dice.id(4))).execute(conn),
                89..90 => {
                    let id = dice.id(4);
                    let new = dice.badge(id);
                    $transaction(conn, way, |conn| {
                        let deleted = diesel::delete(b::badges.find(id)).execute(conn)?;
                        Ok(deleted + diesel::insert_into(b::badges).values(&new).execute(conn)?)
                    })
                }
                90..91 => {
                    let (id, poison) = (dice.id(4), dice.poison());
                    let mut new = dice.badge(id);
                    (new.code, new.note) = (poison, POISON.into());
                    rolled_back($transaction(conn, way, |conn| {
                        diesel::delete(b::badges.find(id)).execute(conn)?;
                        diesel::insert_into(b::badges).values(&new).execute(conn)?;
                        Err(Error::RollbackTransaction)
                    }))
                }
                // Members, who may be gone and come back.
                91..93 => {
                    let id = dice.id(4);
                    diesel::insert_into(m::members).values(dice.member(id)).execute(conn)
                }
                93..95 => {
                    let row = m::members.find(dice.id(4));
                    let gone = i32::from(dice.percent(50));
                    let set = (m::gone.eq(gone), m::seq.eq(m::seq + 1), m::writer.eq(writer));
                    diesel::update(row).set(set).execute(conn)
                }
                95..97 => {
                    let row = m::members.find(dice.id(4));
                    let set = (m::nick.eq(dice.nick()), m::seq.eq(m::seq + 1), m::writer.eq(writer));
                    diesel::update(row).set(set).execute(conn)
                }
                // The gone are purged, whoever has their nick by now.
                97..98 => {
                    let id = dice.id(4);
                    diesel::delete(m::members.filter(m::gone.eq(1)).filter(m::id.between(id, id + 5))).execute(conn)
                }
                98..99 => diesel::delete(m::members.find(dice.id(4))).execute(conn),
                _ => {
                    let (id, poison) = (dice.id(4), dice.poison());
                    rolled_back($transaction(conn, way, |conn| {
                        let set = (m::nick.eq(poison), m::note.eq(POISON), m::gone.eq(0), m::seq.eq(m::seq + 9));
                        diesel::update(m::members.find(id)).set(set).execute(conn)?;
                        Err(Error::RollbackTransaction)
                    }))
                }
            }
        }
    };
}

steps!(on_sqlite, one_on_sqlite, SyncConnection<SqliteConnection>, in_sqlite);
steps!(on_postgres, one_on_postgres, SyncConnection<PgConnection>, in_postgres);
steps!(strange_on_sqlite, one_strange_on_sqlite, SqliteConnection, in_strange_sqlite);
steps!(strange_on_postgres, one_strange_on_postgres, PgConnection, in_strange_postgres);

/// Whether a step of this kind is a transaction already.
fn begins_by_itself(kind: i32) -> bool {
    matches!(kind, 22..26 | 59..82 | 89..91 | 99)
}

/// Nothing was written where the rollback that was asked for happened.
fn rolled_back(ended: QueryResult<usize>) -> QueryResult<usize> {
    match ended {
        Err(Error::RollbackTransaction) => Ok(0),
        other => other,
    }
}
