//! What all requests share.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::map_response;
use axum::routing::{get, post};
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::r2d2::Pool;
use diesel::sqlite::Sqlite;
use kvsync::KvSync;
use kvsync::capture::{ConnectionManager, Database};
use kvsync::store::data::DataStore;
use tempfile::TempDir;

use super::failure::Failure;
use super::users::User;
use super::{health, json_errors, persons, store_url, users};

/// The largest body that is read, in bytes.
const BODY: usize = 16 << 10;

const TABLES: &str = "CREATE TABLE IF NOT EXISTS users (id INTEGER PRIMARY KEY, username TEXT NOT NULL UNIQUE, email TEXT NOT NULL UNIQUE)";

/// The stores and the database. Clones share them.
#[derive(Clone)]
pub struct App {
    /// For persons.
    pub data: Arc<dyn DataStore>,
    /// For users.
    pub kv: KvSync,
    /// Connections to the database whose writes are synced.
    pub pool: Pool<ConnectionManager<Sqlite>>,
    /// Temporary folders, which go with the last clone.
    _folders: Arc<Vec<TempDir>>,
}

impl App {
    /// Opens the database and the store of this URL.
    ///
    /// # Errors
    ///
    /// When one of them cannot be opened.
    pub fn open(store: &str) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let mut folders = Vec::new();
        let dir = if let Some(dir) = std::env::var_os("KVSYNC_DIR") {
            PathBuf::from(dir)
        } else {
            let folder = tempfile::tempdir()?;
            let path = folder.path().to_owned();
            folders.push(folder);
            path
        };
        std::fs::create_dir_all(&dir)?;
        let in_dir = format!("embedded:{}", dir.join("store").display());
        let opened = store_url::open(if store == "embedded:" { &in_dir } else { store })?;
        folders.extend(opened.folder);

        let file = dir.join("app.db");
        connect(&file)?.batch_execute(TABLES)?;
        let database = Database::<Sqlite>::new("main", move || connect(&file)).model::<User>();
        let kv = KvSync::builder().store(opened.rows).database(database).build()?;
        let pool = Pool::builder().max_size(8).build(kv.connection_manager::<Sqlite>("main")?)?;
        Ok(Self { data: opened.data, kv, pool, _folders: Arc::new(folders) })
    }

    /// Every route.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/persons", post(persons::create))
            .route("/persons/{id}", get(persons::read).put(persons::update).delete(persons::delete))
            .route("/users", get(users::find).post(users::create))
            .route("/users/{id}", get(users::read).put(users::update).delete(users::delete))
            .route("/health", get(health::ready))
            .route("/live", get(health::live))
            .layer(DefaultBodyLimit::max(BODY))
            .layer(map_response(json_errors::say))
            .with_state(self.clone())
    }
}

/// Runs what blocks (the store, the database) where it holds up no other request.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panicked| Err(Failure::Internal(panicked.into())))
}

fn connect(file: &Path) -> ConnectionResult<SqliteConnection> {
    let mut conn = SqliteConnection::establish(&file.to_string_lossy())?;
    let settings = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL";
    conn.batch_execute(settings).map_err(|error| ConnectionError::BadConnection(error.to_string()))?;
    Ok(conn)
}
