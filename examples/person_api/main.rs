//! A service over HTTP on any store: persons, who live in the store alone, and users, who are rows in SQL and are read
//! from the store.
//!
//! ```text
//! cargo run --example person_api --features person-api
//! KVSYNC_STORE=redis://127.0.0.1/ cargo run --example person_api --features person-api,redis
//! ```
//!
//! `KVSYNC_LISTEN` is the address (`127.0.0.1:8080`), `KVSYNC_DIR` the folder of the database and of the store on disk
//! (a temporary one), `KVSYNC_STORE` the store (`embedded:`; see `store_url.rs`). `examples/README.md` has requests to try.
#![allow(unreachable_pub, reason = "the modules are written as those of a library")]

mod app;
mod failure;
mod health;
mod json_errors;
mod persons;
#[path = "../store_url.rs"]
mod store_url;
mod users;

use std::error::Error;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use self::app::App;

/// How long it may take to end, once the service was told to: half of it for requests that are under way, what is left
/// for the store.
const GRACE: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let listen = std::env::var("KVSYNC_LISTEN").unwrap_or_else(|_| "127.0.0.1:8080".to_owned());
    let app = App::open(&store_url::from_env())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ends = runtime.block_on(serve(&app, &listen))?;
    // Whoever still waits for a store was cut off.
    runtime.shutdown_background();
    // What was committed is written to the store before the process ends.
    println!("{}", app.kv.shutdown(ends.saturating_duration_since(Instant::now())));
    Ok(())
}

/// Serves until it is told to end. Returns when the process has to have ended.
async fn serve(app: &App, listen: &str) -> Result<Instant, Box<dyn Error + Send + Sync>> {
    let taken = |error| format!("KVSYNC_LISTEN: {listen} cannot be listened on: {error}");
    let listener = TcpListener::bind(listen).await.map_err(taken)?;
    println!("listening on http://{}", listener.local_addr()?);
    let served = axum::serve(listener, app.router()).with_graceful_shutdown(told_to_end());
    let ends = OnceLock::new();
    let patience = async {
        told_to_end().await;
        ends.get_or_init(|| Instant::now() + GRACE);
        tokio::time::sleep(GRACE / 2).await;
    };
    tokio::select! {
        served = served => served?,
        () = patience => eprintln!("requests that took longer than {:?} were cut off", GRACE / 2),
    }
    Ok(*ends.get_or_init(|| Instant::now() + GRACE))
}

/// Waits for ctrl-c or SIGTERM.
async fn told_to_end() {
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        },
        // Without handlers the process just ends.
        Err(_) => std::future::pending().await,
    }
}
