//! A Postgres database for one test.

use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection};

use crate::wait::LONG;
use crate::{Tested, env};

/// A database that nobody else uses; dropped, with whoever is still connected, when this is dropped.
pub struct FreshDatabase {
    name: String,
    server: String,
}

/// Creates a database with a unique name on the shared server.
///
/// # Errors
/// When the servers were not started, or the server refuses.
pub fn fresh_database() -> Tested<FreshDatabase> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let server = env::postgres_url()?;
    // The pid alone would meet the leftovers of an earlier process that had it.
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
    let name = format!("test_{}_{now}_{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let mut conn = PgConnection::establish(&server)?;
    let deadline = Instant::now() + LONG;
    // Whoever vacuums the template is sent away first, and on a busy machine the server does not wait until it went.
    while let Err(error) = conn.batch_execute(&format!("CREATE DATABASE {name}")) {
        if !error.to_string().contains("is being accessed by other users") || Instant::now() > deadline {
            return Err(error.into());
        }
    }
    Ok(FreshDatabase { name, server })
}

impl FreshDatabase {
    /// The URL of the database.
    #[must_use]
    pub fn url(&self) -> String {
        let server = self.server.rsplit_once('/').map_or(self.server.as_str(), |(server, _)| server);
        format!("{server}/{}", self.name)
    }

    /// A plain Diesel connection to the database.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn connect(&self) -> Tested<PgConnection> {
        Ok(PgConnection::establish(&self.url())?)
    }
}

impl Drop for FreshDatabase {
    fn drop(&mut self) {
        let dropped =
            PgConnection::establish(&self.server).map_err(|error| error.to_string()).and_then(|mut server| {
                let statement = format!("DROP DATABASE {} WITH (FORCE)", self.name);
                server.batch_execute(&statement).map_err(|error| error.to_string())
            });
        if let Err(error) = dropped {
            eprintln!("the database {} stays behind: {error}", self.name);
        }
    }
}
