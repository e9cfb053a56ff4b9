//! The one error of the application, and its answer in JSON: `{"error": {"code", "message", "field"}}`.

use std::borrow::Cow;
use std::fmt;

use actix_web::error::{JsonPayloadError, PathError, QueryPayloadError};
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, RETRY_AFTER};
use actix_web::{HttpResponse, ResponseError};
use cache_kit::ErrorKind;
use serde_json::json;

/// What kept a request from its answer.
#[derive(Debug)]
pub(crate) struct AppError {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
    field: Option<Cow<'static, str>>,
    allow: Option<&'static str>,
}

impl AppError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, message: message.into(), field: None, allow: None }
    }

    /// A field or parameter that is not as it must be.
    pub(crate) fn invalid(
        field: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, "invalid_input", message);
        Self { field: Some(field.into()), ..error }
    }

    pub(crate) fn not_found(what: impl fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("there is no {what}"))
    }

    /// A method that the resource does not have.
    pub(crate) fn method(allow: &'static str) -> Self {
        let message = format!("what this resource knows is {allow}");
        let error = Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message);
        Self { allow: Some(allow), ..error }
    }

    #[cfg(test)]
    pub(crate) fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// What the database says goes to the log, not to the client.
    fn database(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) if error.is_unique_violation() => {
                // Both databases name the column: in the message, or in the name of the constraint.
                let text = format!("{error} {}", error.constraint().unwrap_or_default());
                let field = if text.contains("email") { "email" } else { "name" };
                let message = format!("this `{field}` is taken");
                let error = Self::new(StatusCode::CONFLICT, "duplicate", message);
                Self { field: Some(field.into()), ..error }
            }
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_) => {
                log(error);
                Self::unavailable("the database does not answer")
            }
            // PostgreSQL's codes of a server that ends or has not begun.
            sqlx::Error::Database(other) if other.code().is_some_and(|code| code.starts_with("57P")) => {
                log(error);
                Self::unavailable("the database does not answer")
            }
            other => {
                log(other);
                Self::internal()
            }
        }
    }

    fn unavailable(message: &'static str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the request failed, which has been logged")
    }
}

#[expect(clippy::print_stderr, reason = "the log of this example")]
pub(crate) fn log(what: impl fmt::Display) {
    eprintln!("{what}");
}

impl fmt::Display for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl ResponseError for AppError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut answer = HttpResponse::build(self.status);
        if let Some(allow) = self.allow {
            answer.insert_header((ALLOW, allow));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            answer.insert_header((RETRY_AFTER, "1"));
        }
        let mut error = json!({"code": self.code, "message": self.message});
        if let Some(field) = &self.field {
            error["field"] = json!(field);
        }
        answer.json(json!({"error": error}))
    }
}

impl From<sqlx::Error> for AppError {
    fn from(error: sqlx::Error) -> Self {
        Self::database(&error)
    }
}

impl From<cache_kit::Error> for AppError {
    fn from(error: cache_kit::Error) -> Self {
        if let Some(error) = error.find_source::<sqlx::Error>() {
            return Self::database(error);
        }
        log(format_args!("{error:#}"));
        match error.kind() {
            ErrorKind::Overloaded | ErrorKind::Timeout | ErrorKind::LoadAborted => {
                Self::unavailable("too much is under way")
            }
            _ => Self::internal(),
        }
    }
}

/// What is wrong with a body, as actix sees it.
pub(crate) fn of_body(error: JsonPayloadError) -> actix_web::Error {
    let (status, code) = match &error {
        JsonPayloadError::Overflow { .. } | JsonPayloadError::OverflowKnownLength { .. } => {
            (StatusCode::PAYLOAD_TOO_LARGE, "too_large")
        }
        JsonPayloadError::ContentType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json"),
        _ => (StatusCode::BAD_REQUEST, "malformed_json"),
    };
    let message = match &error {
        _ if code == "too_large" => "the body is larger than 16 KiB".to_owned(),
        JsonPayloadError::ContentType => "the Content-Type is not application/json".to_owned(),
        JsonPayloadError::Deserialize(error) => format!("the body is not a JSON object: {error}"),
        other => other.to_string(),
    };
    AppError::new(status, code, message).into()
}

/// What is wrong with an id in the path.
pub(crate) fn of_path(_: PathError) -> actix_web::Error {
    AppError::invalid("id", "`id` is not a whole number").into()
}

/// What is wrong with the part of the URL behind the question mark.
pub(crate) fn of_query(_: QueryPayloadError) -> actix_web::Error {
    AppError::new(StatusCode::BAD_REQUEST, "invalid_input", "the parameters cannot be read").into()
}
