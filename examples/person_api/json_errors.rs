//! What axum says by itself (no such route, no such method, a body that is no JSON or too large), as the handlers say it.

use axum::Json;
use axum::body::to_bytes;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::failure::Told;

/// The longest explanation, in bytes.
const LONGEST: usize = 4 << 10;

/// Makes a plain error a JSON one. Its status and the other headers stay.
pub async fn say(response: Response) -> Response {
    let status = response.status();
    let json = HeaderValue::from_static("application/json");
    let is_error = status.is_client_error() || status.is_server_error();
    if !is_error || response.headers().get(header::CONTENT_TYPE) == Some(&json) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let text = to_bytes(body, LONGEST).await.unwrap_or_default();
    let reason = status.canonical_reason().unwrap_or("error").to_lowercase();
    let error = if text.is_empty() { reason } else { String::from_utf8_lossy(&text).into_owned() };
    let told = Json(Told { error }).into_response();
    for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH] {
        head.headers.remove(name);
    }
    head.headers.insert(header::CONTENT_TYPE, json);
    Response::from_parts(head, told.into_body())
}
