//! What a load balancer asks.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use kvsync::store::Status;

use super::app::{App, blocking};
use super::failure::Failure;

/// Below what a load balancer waits.
const DEADLINE: Duration = Duration::from_secs(1);

/// Whether requests should be sent here: 200, also when degraded, or 503. The details are for those who run the
/// service; behind a public address, answer the status alone.
pub async fn ready(State(app): State<App>) -> Result<impl IntoResponse, Failure> {
    let health = blocking(move || Ok(app.kv.health(DEADLINE))).await?;
    let code = if health.status == Status::Down { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    Ok((code, Json(health)))
}

/// Whether the process should be left alive. It asks no store: one that is down does not come back because this process
/// is killed.
pub async fn live() -> StatusCode {
    StatusCode::NO_CONTENT
}
