//! The one error of the handlers, and what a client is told of it.

use std::error::Error;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use diesel::r2d2::PoolError;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use kvsync::ErrorKind;
use serde::Serialize;

/// Why a request was not done.
#[derive(Debug)]
pub enum Failure {
    /// 404: there is no such thing.
    Missing,
    /// 409: somebody else has what has to be unique.
    Taken(String),
    /// 422: the body is understood, and wrong.
    Invalid(&'static str),
    /// 503: the store or the database does not answer; the same request may succeed later.
    Unavailable(Box<dyn Error + Send + Sync>),
    /// 500: anything else, which is told to the log and not to the client.
    Internal(Box<dyn Error + Send + Sync>),
}

/// The body of an error.
#[derive(Serialize)]
pub struct Told {
    pub error: String,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, error) = match self {
            Self::Missing => (StatusCode::NOT_FOUND, "there is no such thing".to_owned()),
            Self::Taken(what) => (StatusCode::CONFLICT, what),
            Self::Invalid(why) => (StatusCode::UNPROCESSABLE_ENTITY, why.to_owned()),
            Self::Unavailable(error) => {
                eprintln!("unavailable: {error}");
                (StatusCode::SERVICE_UNAVAILABLE, "the store or the database does not answer; try again".to_owned())
            }
            Self::Internal(error) => {
                eprintln!("internal: {error}");
                (StatusCode::INTERNAL_SERVER_ERROR, "something is wrong on our side".to_owned())
            }
        };
        let mut response = (status, Json(Told { error })).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<kvsync::Error> for Failure {
    fn from(error: kvsync::Error) -> Self {
        // Closed: the program is about to end.
        if error.is_retryable() || error.kind() == ErrorKind::Closed {
            Self::Unavailable(error.into())
        } else {
            Self::Internal(error.into())
        }
    }
}

impl From<DieselError> for Failure {
    fn from(error: DieselError) -> Self {
        match &error {
            DieselError::NotFound => Self::Missing,
            DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, what) => {
                // SQLite names the column: `UNIQUE constraint failed: users.username`.
                let column = what.message().rsplit('.').next().unwrap_or_default();
                Self::Taken(format!("the {column} is taken"))
            }
            DieselError::DatabaseError(DatabaseErrorKind::ClosedConnection, _) => Self::Unavailable(error.into()),
            // Another process has been writing for longer than SQLite was told to wait.
            DieselError::DatabaseError(_, what) if what.message().contains("database is locked") => {
                Self::Unavailable(error.into())
            }
            _ => Self::Internal(error.into()),
        }
    }
}

impl From<PoolError> for Failure {
    fn from(error: PoolError) -> Self {
        Self::Unavailable(error.into())
    }
}
